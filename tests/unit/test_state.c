// SPDX-License-Identifier: MIT
/* What outlives the manager: written and read again, aged, forgotten; and files that are no state,
 * which are kept for whoever can use them. */
#include <errno.h>
#include <fcntl.h>
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

#include "../../src/aerostatd/state.h"
#include "tree_helpers.h"

#define DAY_S 86400LL

static char directory[64], path[80], bad[96], fresh[96];

static const struct manager_saved learned = {
	.version = MANAGER_SAVED_VERSION,
	.learned_hard = 1,
	.size = 1ULL << 40,
	.target = 3,
	.learned = 4,
	.learned_left_ms = 100000,
	.learned_span_ms = 120000,
	.learned_used = 5,
	.learned_free = 1ULL << 63,
	.working = 6,
	.growth = UINT64_MAX,
	.cache = 0,
};

static struct instant at(int64_t seconds)
{
	return (struct instant){.mono_ms = 1, .wall_us = seconds * 1000000};
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(tree_pattern(directory, sizeof(directory))))
		return -1;
	snprintf(path, sizeof(path), "%s/s", directory);
	snprintf(bad, sizeof(bad), "%s.bad", path);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return tree_remove(directory);
}

static void put_file(const char *where, const char *text)
{
	FILE *f = fopen(where, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void loads(struct state *s)
{
	char error[512] = "";

	if (state_load(s, path, error, sizeof(error)) != 0)
		fail_msg("%s", error);
}

static void a_round(void **state)
{
	const struct state_wishes wishes = {1ULL << 63, UINT64_MAX - 1, BALANCE_WEIGHT_MAX};
	struct state_wishes got;
	struct manager_saved saved;
	struct state s;
	struct stat st;

	(void)state;
	loads(&s);
	assert_false(state_get(&s, "web", &saved, &got, at(0)));
	assert_int_equal(saved.version, 0);
	assert_int_equal(state_save(&s, at(100)), 0);
	assert_int_equal(access(path, F_OK), -1); /* nothing has changed */
	state_put(&s, "web", &learned, &wishes, at(100));
	state_put(&s, "a \"name\"\n\\", &(struct manager_saved){0},
		  &(struct state_wishes){MANAGER_UNKNOWN, 7, 0}, at(100));
	assert_int_equal(state_save(&s, at(100)), 0);
	assert_false(s.changed);
	state_free(&s);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(access(fresh, F_OK), -1);
	loads(&s);
	assert_true(state_get(&s, "web", &saved, &got, at(100)));
	assert_memory_equal(&saved, &learned, sizeof(saved));
	assert_true(got.floor == wishes.floor && got.ceiling == wishes.ceiling &&
		    got.priority == wishes.priority);
	assert_true(state_get(&s, "a \"name\"\n\\", &saved, &got, at(100)));
	assert_int_equal(saved.version, 0);
	assert_true(got.floor == MANAGER_UNKNOWN && got.ceiling == 7 && got.priority == 0);
	state_free(&s);
}

static void ages(void **state)
{
	const struct state_wishes none = {MANAGER_UNKNOWN, MANAGER_UNKNOWN, 0};
	struct state_wishes got;
	struct manager_saved saved;
	struct state s;

	(void)state;
	loads(&s);
	state_put(&s, "web", &learned, &none, at(1000));
	state_get(&s, "web", &saved, &got, at(1030));
	assert_int_equal(saved.learned_left_ms, 70000);
	state_get(&s, "web", &saved, &got, at(1100));
	assert_int_equal(saved.learned_left_ms, 0);
	state_get(&s, "web", &saved, &got, at(900)); /* the clock was set back */
	assert_int_equal(saved.learned_left_ms, 100000);
	state_get(&s, "web", &saved, &got, at(1LL << 42));
	assert_int_equal(saved.learned_left_ms, 0);
	state_free(&s);
}

/* A file of an older program does not say what was free: the rest of it holds all the same. */
static void without_free(void **state)
{
	static const char old[] = "{\"version\": 1, \"vms\": {\"web\": {\"seen\": 100, \"size\": 9,"
				  " \"target\": 8, \"learned-floor\": 7, \"learned-left-ms\": 6,"
				  " \"learned-span-ms\": 5, \"learned-used\": 4, \"working\": 3,"
				  " \"growth\": 2, \"cache\": 1, \"learned-hard\": true}}}";
	const struct manager_saved expected = {
		.version = MANAGER_SAVED_VERSION,
		.learned_hard = 1,
		.size = 9,
		.target = 8,
		.learned = 7,
		.learned_left_ms = 6,
		.learned_span_ms = 5,
		.learned_used = 4,
		.learned_free = MANAGER_UNKNOWN,
		.working = 3,
		.growth = 2,
		.cache = 1,
	};
	struct state_wishes got;
	struct manager_saved saved;
	struct state s;

	(void)state;
	put_file(path, old);
	loads(&s);
	assert_true(state_get(&s, "web", &saved, &got, at(100)));
	assert_memory_equal(&saved, &expected, sizeof(saved));
	state_free(&s);
}

static void forgets(void **state)
{
	const struct state_wishes none = {MANAGER_UNKNOWN, MANAGER_UNKNOWN, 0};
	const int64_t now = 100 * DAY_S;
	struct state_wishes got;
	struct manager_saved saved;
	struct state s;

	(void)state;
	loads(&s);
	state_put(&s, "old", &learned, &none, at(now - 30 * DAY_S - 1));
	state_put(&s, "kept", &learned, &none, at(now - 30 * DAY_S));
	assert_int_equal(state_save(&s, at(now)), 0);
	assert_false(state_get(&s, "old", &saved, &got, at(now)));
	assert_true(state_get(&s, "kept", &saved, &got, at(now)));
	state_free(&s);
}

/* Puts n VMs that are seen once, at that time, under names that nobody has had before. */
static void put_strangers(struct state *s, unsigned int *n, unsigned int more, int64_t seconds)
{
	const struct state_wishes none = STATE_NO_WISHES;
	char key[32];

	for (unsigned int i = 0; i < more; i++) {
		snprintf(key, sizeof(key), "stranger-%u", (*n)++);
		state_put(s, key, &learned, &none, at(seconds));
	}
}

/* A monitor that has another name each time it is asked takes nobody's place but its own. */
static void too_many(void **state)
{
	const struct state_wishes none = STATE_NO_WISHES, some = {5, 6, 0};
	struct manager_saved saved;
	struct state_wishes wishes;
	struct state s;
	unsigned int n = 0;
	struct stat st;

	(void)state;
	loads(&s);
	state_put(&s, "old-but-set", &learned, &some, at(1000));
	state_put(&s, "old", &learned, &none, at(1000));
	put_strangers(&s, &n, STATE_VMS_MAX, 2000);
	state_put(&s, "here", &learned, &none, at(3000));
	put_strangers(&s, &n, 3 * STATE_VMS_MAX, 2500);
	assert_true(json_object_object_length(s.vms) <= 2 * STATE_VMS_MAX);
	assert_int_equal(state_save(&s, at(3000)), 0);
	assert_int_equal(json_object_object_length(s.vms), STATE_VMS_MAX);
	state_free(&s);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size < 8 * 1024 * 1024);
	loads(&s);
	assert_true(state_get(&s, "old-but-set", &saved, &wishes, at(3000)));
	assert_int_equal(wishes.floor, 5);
	assert_true(state_get(&s, "here", &saved, &wishes, at(3000)));
	assert_false(state_get(&s, "old", &saved, &wishes, at(3000)));
	state_free(&s);
}

static void what_is_no_state(void **state)
{
	static const char *const cases[] = {
		"",
		"x",
		"{",
		"[]",
		"{\"version\": 1}",
		"{\"version\": 2, \"vms\": {}}",
		"{\"version\": 1, \"vms\": []}",
		"{\"version\": \"1\", \"vms\": {}}",
		"{\"version\": 1, \"vms\": {\"web\": {\"floor\": 5}",
		"null",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char error[512] = "", kept[256] = "";
		struct state s;
		FILE *f;

		put_file(path, cases[i]);
		if (state_load(&s, path, error, sizeof(error)) != -EINVAL)
			fail_msg("'%s' is taken", cases[i]);
		assert_non_null(strstr(error, bad));
		state_put(&s, "web", &learned, &(struct state_wishes){0, 0, 0}, at(0));
		assert_int_equal(state_save(&s, at(0)), 0);
		state_free(&s);
		f = fopen(bad, "r");
		assert_non_null(f);
		(void)!fread(kept, 1, sizeof(kept) - 1, f);
		fclose(f);
		assert_string_equal(kept, cases[i]);
		loads(&s);
		state_free(&s);
	}
}

static void what_cannot_be_read(void **state)
{
	char error[512] = "";
	struct state s;
	FILE *f;

	(void)state;
	/* Larger than any state: it is not read, and not overwritten either. */
	f = fopen(path, "w");
	assert_int_equal(ftruncate(fileno(f), 65 << 20), 0);
	fclose(f);
	assert_int_equal(state_load(&s, path, error, sizeof(error)), -EFBIG);
	assert_int_equal(access(bad, F_OK), 0);
	assert_int_equal(access(path, F_OK), -1);
	state_free(&s);
	assert_int_equal(unlink(bad), 0);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_true(state_load(&s, path, error, sizeof(error)) < 0);
	assert_int_equal(access(bad, F_OK), 0);
	state_free(&s);
}

static void values_of_the_wrong_kind(void **state)
{
	static const char *const cases[] = {
		"5",
		"null",
		"[]",
		"\"x\"",
		"{}",
		"{\"seen\": -5}",
		("{\"seen\": 18446744073709551615, \"floor\": -1, \"ceiling\": \"1\","
		 " \"priority\": 10001}"),
		"{\"seen\": 9223372036854775808, \"priority\": 99999999999999999999}",
		"{\"size\": 1, \"target\": {}, \"learned-hard\": 1}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct state_wishes got;
		struct manager_saved saved;
		char text[512];
		struct state s;

		snprintf(text, sizeof(text), "{\"version\": 1, \"vms\": {\"web\": %s}}", cases[i]);
		put_file(path, text);
		loads(&s);
		(void)state_get(&s, "web", &saved, &got, at(1000));
		assert_int_equal(saved.version, 0);
		assert_true(got.floor == MANAGER_UNKNOWN && got.ceiling == MANAGER_UNKNOWN &&
			    got.priority == 0);
		s.changed = true;
		assert_int_equal(state_save(&s, at(1000)), 0);
		state_free(&s);
	}
}

static void where_nothing_can_be_written(void **state)
{
	const struct state_wishes none = {MANAGER_UNKNOWN, MANAGER_UNKNOWN, 0};
	char error[512], nowhere[128];
	struct state s;

	(void)state;
	snprintf(nowhere, sizeof(nowhere), "%s/no/s", directory);
	assert_int_equal(state_load(&s, nowhere, error, sizeof(error)), 0);
	state_put(&s, "web", &learned, &none, at(0));
	assert_int_equal(state_save(&s, at(0)), -ENOENT);
	assert_true(s.changed); /* and is tried again */
	*strrchr(nowhere, '/') = '\0';
	assert_int_equal(mkdir(nowhere, 0755), 0);
	assert_int_equal(state_save(&s, at(0)), 0);
	assert_false(s.changed);
	state_free(&s);
	assert_int_equal(state_load(&s, NULL, error, sizeof(error)), 0);
	state_put(&s, "web", &learned, &none, at(0));
	assert_int_equal(state_save(&s, at(0)), 0);
	state_free(&s);
}

static void a_full_disk_leaves_the_old_file(void **state)
{
	(void)state;
	put_file(path, "old");
	assert_int_equal(symlink("/dev/full", fresh), 0);
	assert_int_equal(state_write(path, "new", 3), -ELOOP); /* no link is followed */
	assert_int_equal(unlink(fresh), 0);
	/* Half of one, of a process that was killed while it wrote. */
	put_file(fresh, "half of a state that is much longer than the next one");
	assert_int_equal(state_write(path, "{}", 2), 0);
	assert_int_equal(access(fresh, F_OK), -1);
	{
		char text[64] = "";
		FILE *f = fopen(path, "r");

		(void)!fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
		assert_string_equal(text, "{}");
	}
	assert_int_equal(mkdir(fresh, 0755), 0);
	assert_int_equal(state_write(path, "new", 3), -EISDIR);
}

static void many(void **state)
{
	const struct state_wishes none = {MANAGER_UNKNOWN, MANAGER_UNKNOWN, 0};
	struct state_wishes got;
	struct manager_saved saved;
	struct state s;
	char name[32];

	(void)state;
	loads(&s);
	for (unsigned int i = 0; i < 4096; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		state_put(&s, name, &learned, &none, at(1000));
	}
	assert_int_equal(state_save(&s, at(1000)), 0);
	state_free(&s);
	loads(&s);
	assert_true(state_get(&s, "vm4095", &saved, &got, at(1000)));
	assert_memory_equal(&saved, &learned, sizeof(saved));
	state_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_round, setup, teardown),
		cmocka_unit_test_setup_teardown(ages, setup, teardown),
		cmocka_unit_test_setup_teardown(without_free, setup, teardown),
		cmocka_unit_test_setup_teardown(forgets, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_state, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_read, setup, teardown),
		cmocka_unit_test_setup_teardown(values_of_the_wrong_kind, setup, teardown),
		cmocka_unit_test_setup_teardown(where_nothing_can_be_written, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_leaves_the_old_file, setup, teardown),
		cmocka_unit_test_setup_teardown(many, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
