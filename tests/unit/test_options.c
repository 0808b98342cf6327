// SPDX-License-Identifier: MIT
/* The command line. The module is part of a program, so its source is compiled in. */
#include "helpers.h"

#include <errno.h>
#include <unistd.h>

#define AEROSTAT_VERSION "test"
#include "../../src/vhost-user-balloon/options.c"

#define STATS BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define OOM   BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM)

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
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t bytes = 42;
		int r = options_parse_size(cases[i].text, &bytes);

		if (r != (cases[i].ok ? 0 : -EINVAL) ||
		    bytes != (cases[i].ok ? cases[i].bytes : 42))
			fail_msg("'%s': %d, %llu", cases[i].text, r, (unsigned long long)bytes);
	}
}

/* Parses the words of a line; what was said on stderr goes to said. */
static int parse(const char *line, struct options *o, char *said, size_t room)
{
	static char copy[512];
	char *argv[16] = {(char[]){"vhost-user-balloon"}}, *save = NULL;
	int argc = 1, out[2] = {-1, -1}, old = dup(2), r;
	ssize_t n;

	assert_true(strlen(line) < sizeof(copy));
	memcpy(copy, line, strlen(line) + 1);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	assert_true(old >= 0 && pipe(out) == 0 && dup2(out[1], 2) == 2);
	r = options_parse(argc, argv, o);
	fflush(stderr);
	assert_int_equal(dup2(old, 2), 2);
	close(old);
	close(out[1]);
	n = read(out[0], said, room - 1);
	close(out[0]);
	said[n > 0 ? n : 0] = '\0';
	return r;
}

static void good_lines(void **state)
{
	static const struct {
		const char *line;
		uint64_t features, target;
		int fd;
	} cases[] = {
		{"--socket-path=/x", STATS | OOM, 0, -1},
		{"--socket-path /x --qmp=/y --name=vm", STATS | OOM, 0, -1},
		{"--fd=3", STATS | OOM, 0, 3},
		{"--fd=0 --target=512M", STATS | OOM, 512ULL << 20, 0},
		{"--fd=3 --features=no-stats", OOM, 0, 3},
		{"--fd=3 --features=no-stats,no-deflate-on-oom", 0, 0, 3},
		{"--fd=3 --features=no-stats,stats", STATS | OOM, 0, 3},
		{"--fd=3 --features=no-stats --features=no-deflate-on-oom", 0, 0, 3},
		{"--print-capabilities", STATS | OOM, 0, -1},
	};
	struct options o;
	char said[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (parse(cases[i].line, &o, said, sizeof(said)) != 0)
			fail_msg("%s: %s", cases[i].line, said);
		assert_string_equal(said, "");
		assert_true(o.features == cases[i].features);
		assert_true(o.target == cases[i].target);
		assert_int_equal(o.fd, cases[i].fd);
	}
	assert_int_equal(parse("--socket-path /x --qmp=/y --name=vm", &o, said, sizeof(said)), 0);
	assert_string_equal(o.socket_path, "/x");
	assert_string_equal(o.qmp_path, "/y");
	assert_string_equal(o.name, "vm");
	assert_false(o.print_capabilities);
}

/* One line, and it names what is wrong. */
static void bad_lines(void **state)
{
	static const struct {
		const char *line, *named;
	} cases[] = {
		{"", "--socket-path"},
		{"--socket-path=/x --fd=3", "--fd"},
		{"--qmp=/y", "--socket-path"},
		{"--fd=", "''"},
		{"--fd=x", "'x'"},
		{"--fd=3x", "'3x'"},
		{"--fd=-1", "'-1'"},
		{"--fd=2147483648", "'2147483648'"},
		{"--fd=99999999999999999999", "'99999999999999999999'"},
		{"--fd=3 --target=much", "'much'"},
		{"--fd=3 --target=", "''"},
		{"--fd=3 --features=nonsense", "'nonsense'"},
		{"--fd=3 --features=", "''"},
		{"--fd=3 --features=stats,", "''"},
		{"--fd=3 --features=stats,,no-stats", "''"},
		{"--fd=3 --features=no-no-stats", "'no-stats'"},
		{"--fd=3 --features=must-tell-host", "'must-tell-host'"},
		{"--fd=3 --features=no-must-tell-host", "'must-tell-host'"},
		{"--fd=3 --features=packed-ring", "'packed-ring'"},
		{"--fd=3 --features=stats,Stats", "'Stats'"},
		{"--fd=3 extra", "'extra'"},
		{"--fd=3 --no-such-option", "--no-such-option"},
		{"--fd=3 --no-such-option=5 --name=x", "--no-such-option"},
		{"--fd=3 -x", "-x"},
		{"--fd", "--fd"},
		{"--fd=3 --print-capabilities=1", "--print-capabilities"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct options o;
		char said[512];
		char *newline;

		if (parse(cases[i].line, &o, said, sizeof(said)) != -EINVAL)
			fail_msg("accepted: %s", cases[i].line);
		newline = strchr(said, '\n');
		if (!newline || newline[1] || !strstr(said, cases[i].named))
			fail_msg("%s: said '%s'", cases[i].line, said);
	}
}

static void names(void **state)
{
	(void)state;
	for (const struct feature_name *a = feature_names; a->name; a++) {
		for (const struct feature_name *b = feature_names; b != a; b++) {
			assert_string_not_equal(a->name, b->name);
			assert_int_not_equal(a->bit, b->bit);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(good_lines),
		cmocka_unit_test(bad_lines),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
