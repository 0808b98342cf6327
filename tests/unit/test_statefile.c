// SPDX-License-Identifier: MIT
/* What operators set, as a file. The modules are part of a program: compiled in. */
#include "helpers.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>

#include "../../src/vhost-user-balloon/settings.c"
#include "../../src/vhost-user-balloon/statefile.c"
#include "tree_helpers.h"

#define NAME "vhost-user-balloon.state"

static const char plain[] = "version=1\n"
			    "target=0\n"
			    "guest-size=0\n"
			    "stats-poll-interval-ms=0\n"
			    "stats-push-interval-ms=0\n"
			    "inhibitors=0\n";

static struct settings filled(void)
{
	struct settings s;

	memset(&s, 0, sizeof(s));
	s.target = UINT64_MAX;
	s.guest_size = 1;
	s.poll_ms = 4294967295000ULL;
	s.push_ms = UINT32_MAX;
	assert_int_equal(settings_inhibit(&s, "vfio"), 0);
	assert_int_equal(settings_inhibit(&s, "a b=c%\n\x01\xe2\x82\xac"), 0);
	return s;
}

static void inhibitors_come_and_go(void **state)
{
	struct settings s, empty;
	char reason[SETTINGS_REASON_MAX + 1];

	(void)state;
	memset(&s, 0, sizeof(s));
	memset(&empty, 0, sizeof(empty));
	assert_int_equal(settings_inhibit(&s, ""), -EINVAL);
	memset(reason, 'x', sizeof(reason));
	reason[SETTINGS_REASON_MAX] = '\0';
	assert_int_equal(settings_inhibit(&s, reason), -ENAMETOOLONG);
	reason[SETTINGS_REASON_MAX - 1] = '\0';
	assert_int_equal(settings_inhibit(&s, reason), 0);
	assert_int_equal(settings_inhibit(&s, reason), -EEXIST);
	assert_int_equal(settings_uninhibit(&s, "y"), -ENOENT);
	for (uint32_t i = 1; i < SETTINGS_INHIBITORS_MAX; i++) {
		snprintf(reason, sizeof(reason), "reason %u", i);
		assert_int_equal(settings_inhibit(&s, reason), 0);
		assert_true(settings_valid(&s));
	}
	assert_int_equal(settings_inhibit(&s, "one more"), -ENOSPC);
	assert_int_equal(settings_uninhibit(&s, "reason 7"), 0);
	assert_string_equal(s.inhibitor[7], "reason 8");
	assert_int_equal(settings_inhibit(&s, "one more"), 0);
	while (s.n_inhibitors)
		assert_int_equal(settings_uninhibit(&s, s.inhibitor[s.n_inhibitors / 2]), 0);
	/* Nothing is left of them: settings are compared as a whole. */
	assert_memory_equal(&s, &empty, sizeof(s));
}

static void what_another_process_says_is_checked(void **state)
{
	struct settings s = filled();

	(void)state;
	assert_true(settings_valid(&s));
	s.n_inhibitors = SETTINGS_INHIBITORS_MAX + 1;
	assert_false(settings_valid(&s));
	s = filled();
	s.n_inhibitors++; /* an empty one */
	assert_false(settings_valid(&s));
	s = filled();
	strcpy(s.inhibitor[1], "vfio");
	assert_false(settings_valid(&s));
	memset(s.inhibitor[1], 'x', SETTINGS_REASON_MAX);
	assert_false(settings_valid(&s));
}

static void names(void **state)
{
	char name[NAME_MAX + 1], machine[NAME_MAX];

	(void)state;
	assert_int_equal(statefile_name(NULL, name, sizeof(name)), 0);
	assert_string_equal(name, NAME);
	assert_int_equal(statefile_name("web-1.a_B", name, sizeof(name)), 0);
	assert_string_equal(name, "vhost-user-balloon-web-1.a_B.state");
	/* It stays in its directory, and two machines have two files. */
	assert_int_equal(statefile_name("../x y/%", name, sizeof(name)), 0);
	assert_string_equal(name, "vhost-user-balloon-..%2Fx%20y%2F%25.state");
	memset(machine, 'x', sizeof(machine));
	machine[240] = '\0';
	assert_int_equal(statefile_name(machine, name, sizeof(name)), -ENAMETOOLONG);
	machine[220] = '\0';
	assert_int_equal(statefile_name(machine, name, sizeof(name)), 0);
}

static void there_and_back(void **state)
{
	const struct settings s = filled();
	struct settings most, back;
	char text[STATEFILE_MAX];
	size_t len = statefile_format(&s, text);

	(void)state;
	assert_int_equal(statefile_parse(text, len, &back), 0);
	assert_memory_equal(&back, &s, sizeof(s));

	memset(&most, 0, sizeof(most));
	most = s;
	most.n_inhibitors = SETTINGS_INHIBITORS_MAX;
	for (uint32_t i = 0; i < SETTINGS_INHIBITORS_MAX; i++) {
		memset(most.inhibitor[i], 0xff, SETTINGS_REASON_MAX - 1);
		most.inhibitor[i][0] = (char)(i + 1);
		most.inhibitor[i][SETTINGS_REASON_MAX - 1] = '\0';
	}
	len = statefile_format(&most, text);
	assert_true(len < STATEFILE_MAX);
	assert_int_equal(statefile_parse(text, len, &back), 0);
	assert_memory_equal(&back, &most, sizeof(most));
}

static int parse(const char *text)
{
	char copy[STATEFILE_MAX];
	struct settings s, before;
	int line;

	memset(&s, 0x55, sizeof(s));
	before = s;
	strcpy(copy, text);
	line = statefile_parse(copy, strlen(text), &s);
	if (line)
		assert_memory_equal(&s, &before, sizeof(s));
	return line;
}

/* Says which line is wrong, when `addition` follows on what is right. */
static int parse_with(const char *addition)
{
	char text[STATEFILE_MAX];

	snprintf(text, sizeof(text), "%s%s", plain, addition);
	return parse(text);
}

static void what_makes_no_sense_is_refused(void **state)
{
	static const char *const additions[] = {
		"inhibitor=\n", "inhibitor=a b\n", "inhibitor=%\n",   "inhibitor=%4\n",
		"\n",           "inhibitor=%4a\n", "inhibitor=%00\n", "inhibitor=a",
		"target=1\n",   "inhibitor\n",     "unknown=1\n",     " \n",
		"=\n",          "inhibitor=%GG\n", "version=1\n",
	};
	char nul[] = "version=1\ntarget=0\0\nguest-size=0\n";
	struct settings s;

	(void)state;
	assert_int_equal(parse(plain), 0);
	assert_int_equal(parse_with("inhibitor=a\n"), 8); /* more than were counted */
	for (size_t i = 0; i < ARRAY_SIZE(additions); i++)
		assert_int_equal(parse_with(additions[i]), 7);
	assert_int_equal(parse_with("inhibitor=a\ninhibitor=a\n"), 8);
	assert_int_equal(parse(""), 1);
	assert_int_equal(parse("version=2\n"), 1);
	assert_int_equal(parse("target=0\n"), 1);
	assert_int_equal(parse("version=1\n"), 2); /* something is missing */
	assert_int_equal(parse("version=1\ntarget=-1\n"), 2);
	assert_int_equal(parse("version=1\ntarget= 1\n"), 2);
	assert_int_equal(parse("version=1\ntarget=1x\n"), 2);
	assert_int_equal(parse("version=1\ntarget=\n"), 2);
	assert_int_equal(parse("version=1\ntarget=18446744073709551616\n"), 2);
	assert_int_equal(parse("version=1\ninhibitors=17\n"), 2);
	assert_int_equal(parse("version=1\nstats-push-interval-ms=4294967296\n"), 2);
	assert_int_equal(statefile_parse(nul, sizeof(nul) - 1, &s), 2);
}

/* The last line has lost its end, or lines are missing; also inhibitors, which would be worst. */
static void every_truncation_is_found(void **state)
{
	const struct settings s = filled();
	char text[STATEFILE_MAX], copy[STATEFILE_MAX];
	size_t len = statefile_format(&s, text);
	struct settings back;

	(void)state;
	for (size_t cut = 0; cut < len; cut++) {
		memcpy(copy, text, cut);
		assert_int_not_equal(statefile_parse(copy, cut, &back), 0);
	}
}

static char place[64];

static int make_place(void **state)
{
	(void)state;
	return mkdtemp(tree_pattern(place, sizeof(place))) ? 0 : -1;
}

static int remove_place(void **state)
{
	DIR *dir = opendir(place);
	const struct dirent *entry;

	(void)state;
	while ((entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
	return rmdir(place);
}

static void files(void **state)
{
	int dir = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC), line;
	const struct settings s = filled();
	struct settings back;

	(void)state;
	assert_int_equal(statefile_load(dir, NAME, &back, &line), -ENOENT);
	/* What a crash has left is no obstacle. */
	close(openat(dir, NAME ".new", O_CREAT | O_WRONLY | O_CLOEXEC, 0));
	assert_int_equal(statefile_save(dir, NAME, &s), 0);
	assert_int_equal(faccessat(dir, NAME ".new", F_OK, 0), -1);
	assert_int_equal(statefile_load(dir, NAME, &back, &line), 0);
	assert_memory_equal(&back, &s, sizeof(s));
	close(dir);
}

static void put(int dir, const char *text, size_t len)
{
	int fd = openat(dir, NAME, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static void bad_files_are_put_aside(void **state)
{
	static char large[2 * STATEFILE_MAX];
	int dir = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC), line;
	struct settings back;

	(void)state;
	put(dir, "version=1\nrubbish\n", 18);
	assert_int_equal(statefile_load(dir, NAME, &back, &line), -EBADMSG);
	assert_int_equal(line, 2);
	assert_int_equal(faccessat(dir, NAME ".bad", F_OK, 0), 0);
	assert_int_equal(statefile_load(dir, NAME, &back, &line), -ENOENT);
	put(dir, large, sizeof(large));
	assert_int_equal(statefile_load(dir, NAME, &back, &line), -EBADMSG);
	/* A link may lead anywhere, a pipe would be waited for. */
	assert_int_equal(symlinkat("/etc/passwd", dir, NAME), 0);
	assert_int_equal(statefile_load(dir, NAME, &back, &line), -ELOOP);
	assert_int_equal(unlinkat(dir, NAME, 0), 0);
	assert_int_equal(mkfifoat(dir, NAME, 0600), 0);
	assert_int_equal(statefile_load(dir, NAME, &back, &line), -EBADMSG);
	close(dir);
}

/* A full disk: the old file stays, whole. */
static void a_failure_leaves_the_old_one(void **state)
{
	int dir = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC), line;
	const struct settings s = filled();
	struct settings other, back;
	struct rlimit limit, tiny;

	(void)state;
	assert_int_equal(statefile_save(dir, NAME, &s), 0);
	memset(&other, 0, sizeof(other));
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &limit);
	tiny = limit;
	tiny.rlim_cur = 10;
	setrlimit(RLIMIT_FSIZE, &tiny);
	assert_int_equal(statefile_save(dir, NAME, &other), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &limit);
	assert_int_equal(faccessat(dir, NAME ".new", F_OK, 0), -1);
	assert_int_equal(statefile_load(dir, NAME, &back, &line), 0);
	assert_memory_equal(&back, &s, sizeof(s));
	close(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inhibitors_come_and_go),
		cmocka_unit_test(what_another_process_says_is_checked),
		cmocka_unit_test(names),
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(what_makes_no_sense_is_refused),
		cmocka_unit_test(every_truncation_is_found),
		cmocka_unit_test_setup_teardown(files, make_place, remove_place),
		cmocka_unit_test_setup_teardown(bad_files_are_put_aside, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_failure_leaves_the_old_one, make_place,
						remove_place),
	};

	return cmocka_run_group_tests_name("statefile", tests, NULL, NULL);
}
