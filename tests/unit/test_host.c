// SPDX-License-Identifier: MIT
/* What kernels say of a host's memory: several of them, some without PSI, and nonsense. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/aerostatd/host.h"
#include "tree_helpers.h"

static char proc[64], meminfo[96], pressure[96], memory[128];

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(tree_pattern(proc, sizeof(proc))))
		return -1;
	snprintf(meminfo, sizeof(meminfo), "%s/meminfo", proc);
	snprintf(pressure, sizeof(pressure), "%s/pressure", proc);
	snprintf(memory, sizeof(memory), "%s/memory", pressure);
	return mkdir(pressure, 0755);
}

static int teardown(void **state)
{
	(void)state;
	unlink(meminfo);
	unlink(memory);
	rmdir(pressure);
	return rmdir(proc);
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static const char linux_6_12[] = "MemTotal:       24653016 kB\nMemFree:         1234567 kB\n"
				 "MemAvailable:   20000000 kB\nBuffers:          100000 kB\n"
				 "SwapTotal:             0 kB\n";

static void figures(void **state)
{
	struct manager_host host = {0};
	uint64_t us = 0;
	bool psi = false;

	(void)state;
	put(meminfo, linux_6_12);
	put(memory, "some avg10=12.34 avg60=1.00 avg300=0.10 total=98765\n"
		    "full avg10=0.05 avg60=0.00 avg300=0.00 total=4321\n");
	assert_int_equal(host_read(proc, &host, &psi), 0);
	assert_true(psi);
	assert_int_equal(host.total, 24653016ULL << 10);
	assert_int_equal(host.available, 20000000ULL << 10);
	assert_true(host.resident == MANAGER_UNKNOWN);
	assert_int_equal(host.some_centi, 1234);
	assert_int_equal(host.full_centi, 5);
	assert_true(host_waited_us(proc, &us));
	assert_int_equal(us, 98765);
}

static void without_psi(void **state)
{
	struct manager_host host = {0};
	uint64_t us = 7;
	bool psi = true;

	(void)state;
	put(meminfo, linux_6_12);
	assert_int_equal(host_read(proc, &host, &psi), 0);
	assert_false(psi);
	assert_int_equal(host.some_centi, 0);
	assert_false(host_waited_us(proc, &us));
	/* Before 5.13 there was no line "full" for some resources. */
	put(memory, "some avg10=100.00 avg60=1.00 avg300=0.10 total=18446744073709551615\n");
	assert_int_equal(host_read(proc, &host, &psi), 0);
	assert_true(psi);
	assert_int_equal(host.some_centi, 10000);
	assert_int_equal(host.full_centi, 0);
}

static void odd_pressure(void **state)
{
	static const char *const cases[] = {
		"",
		"some\n",
		"some avg10=x\n",
		"some avg10=101.00\n",
		"some avg10=-1.00\n",
		"full avg10=\n",
		"avg10=5.00\n",
	};
	struct manager_host host = {0};
	bool psi;

	(void)state;
	put(meminfo, linux_6_12);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		put(memory, cases[i]);
		assert_int_equal(host_read(proc, &host, &psi), 0);
		assert_int_equal(host.some_centi, 0);
		assert_int_equal(host.full_centi, 0);
	}
}

static void no_figures(void **state)
{
	static const char *const cases[] = {
		"",
		"MemTotal: 100 kB\n",
		"MemTotal: 100 kB\nMemFree: 50 kB\n", /* before 3.14 */
		"MemAvailable: 50 kB\n",
		"NoMemTotal: 100 kB\nMemAvailable: 50 kB\n",
		"MemTotal: 36028797018963968 kB\nMemAvailable: 50 kB\n",
		"MemTotal: lots\nMemAvailable: 50 kB\n",
		"MemTotal: 50 kB\nMemAvailable: 100 kB\n",
	};
	struct manager_host host = {.total = 77};
	bool psi;

	(void)state;
	assert_int_equal(host_read(proc, &host, &psi), -ENOENT);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		put(meminfo, cases[i]);
		if (host_read(proc, &host, &psi) != -EINVAL)
			fail_msg("'%s' is taken", cases[i]);
	}
	assert_int_equal(host.total, 77); /* untouched */
}

static void this_kernel(void **state)
{
	struct manager_host host = {0};
	bool psi;

	(void)state;
	assert_int_equal(host_read("/proc", &host, &psi), 0);
	assert_int_equal(host.total,
			 (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(figures, setup, teardown),
		cmocka_unit_test_setup_teardown(without_psi, setup, teardown),
		cmocka_unit_test_setup_teardown(odd_pressure, setup, teardown),
		cmocka_unit_test_setup_teardown(no_figures, setup, teardown),
		cmocka_unit_test_setup_teardown(this_kernel, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
