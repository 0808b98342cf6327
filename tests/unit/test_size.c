// SPDX-License-Identifier: MIT
/* Amounts of memory as people write them, and what only looks like one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/size.h"

static void sizes(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t bytes;
	} cases[] = {
		{"0", true, 0},
		{"1", true, 1},
		{"4096", true, 4096},
		{"1K", true, 1024},
		{"1k", true, 1024},
		{"512M", true, 512ULL << 20},
		{"3G", true, 3ULL << 30},
		{"2t", true, 2ULL << 40},
		{"007M", true, 7ULL << 20},
		{"18446744073709551615", true, UINT64_MAX},
		{"16777215T", true, 16777215ULL << 40},
		{"16777216T", false, 0},
		{"18446744073709551616", false, 0},
		{"99999999999999999999999", false, 0},
		{"18014398509481984K", false, 0},
		{"", false, 0},
		{"M", false, 0},
		{"-1", false, 0},
		{"+1", false, 0},
		{" 1", false, 0},
		{"1 ", false, 0},
		{"1 M", false, 0},
		{"1MB", false, 0},
		{"1MiB", false, 0},
		{"1KK", false, 0},
		{"1.5G", false, 0},
		{"0x10", false, 0},
		{"1P", false, 0},
		{"\xff", false, 0},
		{"1\xff", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 42;
		int r = size_parse(cases[i].text, &bytes);

		if (r != (cases[i].ok ? 0 : -EINVAL) ||
		    bytes != (cases[i].ok ? cases[i].bytes : 42))
			fail_msg("'%s': %d, %llu", cases[i].text, r, (unsigned long long)bytes);
	}
}

/* Parses the words of a line; what was said on stderr goes to said. */

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
