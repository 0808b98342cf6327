// SPDX-License-Identifier: MIT
/* The command line. The module is part of a program, so its source is compiled in. */
#include "helpers.h"

#include <errno.h>
#include <unistd.h>

#include "../../src/vhost-user-balloon/options.c"

#define STATS BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define OOM   BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
#define PUSH  BIT(VIRTIO_BALLOON_F_STATS_PUSH)
#define MSG   BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)
#define REST                                                                        \
	(BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) | BIT(VIRTIO_BALLOON_F_PAGE_POISON) | \
	 BIT(VIRTIO_BALLOON_F_PAGE_REPORTING))
#define ALL (STATS | OOM | REST) /* by default */

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
		{"--socket-path=/x", ALL, 0, -1},
		{"--socket-path /x --qmp=/y --name=vm", ALL, 0, -1},
		{"--fd=3", ALL, 0, 3},
		{"--fd=0 --target=512M", ALL, 512ULL << 20, 0},
		{"--fd=3 --features=no-stats", OOM | REST, 0, 3},
		{"--fd=3 --features=no-stats,no-deflate-on-oom", REST, 0, 3},
		{"--fd=3 --features=no-stats,stats", ALL, 0, 3},
		{"--fd=3 --features=no-stats --features=no-deflate-on-oom", REST, 0, 3},
		{"--fd=3 --features=no-free-page-hint,no-page-poison,no-page-reporting",
		 STATS | OOM, 0, 3},
		{"--fd=3 --features=message", ALL | MSG, 0, 3},
		{"--fd=3 --features=message,no-message", ALL, 0, 3},
		{"--fd=3 --features=stats-push", ALL | PUSH, 0, 3},
		{"--fd=3 --features=stats-push,no-stats-push", ALL, 0, 3},
		{"--fd=3 --features=no-stats,stats-push,stats", ALL | PUSH, 0, 3},
		{"--fd=3 --features=stats-push,no-stats", OOM | REST, 0, 3},
		{"--print-capabilities", ALL, 0, -1},
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

static void defaults(void **state)
{
	struct options o;
	char said[512];

	(void)state;
	assert_int_equal(parse("--fd=3", &o, said, sizeof(said)), 0);
	assert_null(o.state_dir);
	assert_null(o.qmp_path);
	assert_true(o.qmp_group == OPTIONS_NO_GROUP);
	assert_int_equal(o.push_interval_ms, 0);
	assert_false(o.push_interval_given);
	assert_false(o.target_given);
	assert_int_equal(o.policy.on_pressure, BALLOON_PRESSURE_REPORT);
	assert_int_equal(o.policy.step_pages[VIRTIO_BALLOON_PRESSURE_UNSPECIFIED], 16384);
	assert_int_equal(o.policy.step_pages[VIRTIO_BALLOON_PRESSURE_LOW], 16384);
	assert_int_equal(o.policy.step_pages[VIRTIO_BALLOON_PRESSURE_MEDIUM], 65536);
	assert_int_equal(o.policy.step_pages[VIRTIO_BALLOON_PRESSURE_CRITICAL], 262144);
	assert_int_equal(o.policy.messages_per_second, 100);
	assert_int_equal(o.health.slow_milli, 1500);
	assert_int_equal(o.health.unresponsive_milli, 3000);
	assert_int_equal(o.health.unresponsive_min_ms, 1000);
	assert_true(o.sandbox);
	assert_int_equal(o.worker_fd, -1);
}

static void other_options(void **state)
{
	struct options o;
	char said[512];

	(void)state;
	assert_int_equal(parse("--fd=3 --state-dir=/s --sandbox=off --on-pressure=deflate "
			       "--pressure-steps=0,1M,1048577 --message-limit=0 --worker=7 "
			       "--health-factors=2,2.125 --features=stats-push "
			       "--stats-push-interval=5",
			       &o, said, sizeof(said)),
			 0);
	assert_string_equal(o.state_dir, "/s");
	assert_false(o.sandbox);
	assert_int_equal(o.policy.on_pressure, BALLOON_PRESSURE_DEFLATE);
	assert_int_equal(o.policy.step_pages[VIRTIO_BALLOON_PRESSURE_LOW], 0);
	assert_int_equal(o.policy.step_pages[VIRTIO_BALLOON_PRESSURE_UNSPECIFIED], 0);
	assert_int_equal(o.policy.step_pages[VIRTIO_BALLOON_PRESSURE_MEDIUM], 256);
	assert_int_equal(o.policy.step_pages[VIRTIO_BALLOON_PRESSURE_CRITICAL], 256);
	assert_int_equal(o.policy.messages_per_second, 0);
	assert_int_equal(o.worker_fd, 7);
	assert_int_equal(o.health.slow_milli, 2000);
	assert_int_equal(o.health.unresponsive_milli, 2125);
	assert_int_equal(o.push_interval_ms, 5);
	assert_true(o.push_interval_given);
	assert_false(o.target_given);
	assert_int_equal(parse("--fd=3 --on-pressure=hold --sandbox=on", &o, said, sizeof(said)),
			 0);
	assert_int_equal(o.policy.on_pressure, BALLOON_PRESSURE_HOLD);
	assert_true(o.sandbox);
	/* 0 is a wish like any other. */
	assert_int_equal(parse("--fd=3 --target=0 --stats-push-interval=0", &o, said, sizeof(said)),
			 0);
	assert_true(o.target_given);
	assert_true(o.push_interval_given);
}

static void groups(void **state)
{
	struct options o;
	char said[512];

	(void)state;
	assert_int_equal(parse("--fd=3 --qmp=/y --qmp-group=root", &o, said, sizeof(said)), 0);
	assert_int_equal(o.qmp_group, 0);
	assert_int_equal(parse("--fd=3 --qmp=/y --qmp-group=4242", &o, said, sizeof(said)), 0);
	assert_int_equal(o.qmp_group, 4242);
	/* A worker does not look: the group may be gone, or its list out of reach. */
	assert_int_equal(parse("--worker=5 --fd=3 --qmp=/y --qmp-group=no-such-group", &o, said,
			       sizeof(said)),
			 0);
	assert_true(o.qmp_group == OPTIONS_NO_GROUP);
	assert_int_equal(parse("--socket-path=/x --socket-group=4242", &o, said, sizeof(said)), 0);
	assert_int_equal(o.socket_group, 4242);
	assert_true(o.qmp_group == OPTIONS_NO_GROUP);
	assert_int_equal(parse("--worker=5 --socket-path=/x --socket-group=no-such-group", &o, said,
			       sizeof(said)),
			 0);
	assert_true(o.socket_group == OPTIONS_NO_GROUP);
}

static void factors(void **state)
{
	static const struct {
		const char *text;
		uint32_t milli; /* 0: refused */
	} cases[] = {
		{"1", 1000},     {"1.5", 1500},  {"3", 3000},
		{"1.001", 1001}, {"2.25", 2250}, {"1000", 1000000},
		{"007", 7000},   {"1.0", 1000},  {"1000.000", 1000000},
		{"0.999", 0},    {"0", 0},       {"1000.001", 0},
		{"1001", 0},     {"1.0000", 0},  {"", 0},
		{".5", 0},       {"1.", 0},      {"1..5", 0},
		{"1.5.5", 0},    {"-1", 0},      {"+1", 0},
		{" 1", 0},       {"1 ", 0},      {"1e3", 0},
		{"1,5", 0},      {"0x2", 0},     {"99999999999999999999999999", 0},
		{"inf", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t milli = 0;
		int r = options_parse_factor(cases[i].text, &milli);

		if (milli != cases[i].milli || r != (cases[i].milli ? 0 : -EINVAL))
			fail_msg("'%s': %d, %u", cases[i].text, r, milli);
	}
}

/* A worker is started with the same words. */
static void words_stay_as_they_are(void **state)
{
	char *const words[] = {
		(char[]){"vhost-user-balloon"},
		(char[]){"--fd=3"},
		(char[]){"--features=no-stats,no-message"},
		(char[]){"--pressure-steps=1M,2M,3M"},
		(char[]){"--health-factors=2,4"},
		NULL,
	};
	static const char *const expected[] = {"vhost-user-balloon", "--fd=3",
					       "--features=no-stats,no-message",
					       "--pressure-steps=1M,2M,3M", "--health-factors=2,4"};
	char *argv[ARRAY_SIZE(words)];
	struct options o;

	(void)state;
	memcpy(argv, words, sizeof(words));
	assert_int_equal(options_parse((int)ARRAY_SIZE(expected), argv, &o), 0);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		assert_string_equal(argv[i], expected[i]);
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
		{"--fd=3 --features=ranges", "'ranges' is reserved"},
		{"--fd=3 --features=no-ranges", "'ranges' is reserved"},
		{"--fd=3 --features=no-stats,stats-push --stats-push-interval=9", "stats-push"},
		{"--fd=3 --stats-push-interval=100", "--features=stats-push"},
		{"--fd=3 --stats-push-interval=100ms", "'100ms'"},
		{"--fd=3 --stats-push-interval=-1", "'-1'"},
		{"--fd=3 --stats-push-interval=4294967296", "'4294967296'"},
		{"--fd=3 --stats-push-interval=", "''"},
		{"--fd=3 --on-pressure=panic", "'panic'"},
		{"--fd=3 --on-pressure=", "''"},
		{"--fd=3 --pressure-steps=64M", "three sizes"},
		{"--fd=3 --pressure-steps=64M,1G", "three sizes"},
		{"--fd=3 --pressure-steps=1M,2M,3M,4M", "three sizes"},
		{"--fd=3 --pressure-steps=1M,,3M", "''"},
		{"--fd=3 --pressure-steps=2M,1M,3M", "smaller"},
		{"--fd=3 --pressure-steps=1M,3M,2M", "smaller"},
		{"--fd=3 --pressure-steps=much,1M,2M", "'much'"},
		{"--fd=3 --message-limit=many", "'many'"},
		{"--fd=3 --message-limit= 1", "''"},
		{"--fd=3 --health-factors=2", "two factors"},
		{"--fd=3 --health-factors=2,", "''"},
		{"--fd=3 --health-factors=0.5,2", "'0.5'"},
		{"--fd=3 --health-factors=1,2,3", "'2,3'"},
		{"--fd=3 --health-factors=3,2", "before slow"},
		{"--fd=3 --sandbox=maybe", "'maybe'"},
		{"--fd=3 --state-dir=", "empty"},
		{"--fd=3 --qmp-group=root", "--qmp"},
		{"--fd=3 --socket-group=root", "--socket-group takes --socket-path"},
		{"--socket-path=/x --socket-group=no-such-group", "'no-such-group'"},
		{"--fd=3 --qmp=/y --qmp-group=no-such-group", "'no-such-group'"},
		{"--fd=3 --qmp=/y --qmp-group=", "''"},
		{"--fd=3 --qmp=/y --qmp-group=4294967295", "'4294967295'"},
		{"--fd=3 --qmp=/y --qmp-group=99999999999", "'99999999999'"},
		{"--fd=3 --worker=x", "'x'"},
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
		cmocka_unit_test(good_lines),    cmocka_unit_test(defaults),
		cmocka_unit_test(other_options), cmocka_unit_test(groups),
		cmocka_unit_test(factors),       cmocka_unit_test(words_stay_as_they_are),
		cmocka_unit_test(bad_lines),     cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
