// SPDX-License-Identifier: MIT
/* The sockets of a directory that comes, changes and goes, in a loop of its own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <dirent.h>

#include "tree_helpers.h"

/* The directory is read through this: it can fail in the middle, and one entry never comes. */
static int reads_left = -1;
static const char *never_read;

static struct dirent *failing_readdir(DIR *dir)
{
	struct dirent *entry;

	if (reads_left == 0) {
		errno = EIO;
		return NULL;
	}
	if (reads_left > 0)
		reads_left--;
	do
		entry = readdir(dir);
	while (entry && never_read && strcmp(entry->d_name, never_read) == 0);
	return entry;
}

/* Limits that a test can reach in an instant. */
#include "../../src/aerostatd/discover.h"
#undef DISCOVER_MAX
#define DISCOVER_MAX 8
#undef DISCOVER_ENTRIES_MAX
#define DISCOVER_ENTRIES_MAX 16

#define readdir failing_readdir
#include "../../src/aerostatd/discover.c"
#undef readdir

static struct {
	uv_loop_t loop;
	uv_timer_t alarm;
	struct discover *d;
	char directory[64], log[4096];
	int found, lost, unreadable;
	bool refuse, late;
} t;

static void note(const char *what, const char *directory_or_path)
{
	size_t len = strlen(t.log);

	snprintf(t.log + len, sizeof(t.log) - len, "%s%s ", what,
		 strrchr(directory_or_path, '/') + 1);
}

static bool on_found(void *opaque, const char *path)
{
	(void)opaque;
	t.found++;
	if (!t.refuse)
		note("+", path);
	return !t.refuse;
}

static void on_lost(void *opaque, const char *path)
{
	(void)opaque;
	t.lost++;
	note("-", path);
}

static void on_unreadable(void *opaque, const char *directory, const char *why)
{
	(void)opaque;
	(void)directory;
	assert_string_not_equal(why, "");
	t.unreadable++;
}

static const struct discover_ops ops = {on_found, on_lost, on_unreadable};

static void on_alarm(uv_timer_t *timer)
{
	(void)timer;
	t.late = true;
}

/* Runs the loop for that long. */
static void run_ms(uint64_t ms)
{
	t.late = false;
	t.log[0] = '\0';
	uv_timer_start(&t.alarm, on_alarm, ms, 0);
	while (!t.late)
		uv_run(&t.loop, UV_RUN_ONCE);
}

static void make_socket(const char *name)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", t.directory, name);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd); /* its name stays */
}

static void remove_file(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", t.directory, name);
	assert_int_equal(unlink(path), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	reads_left = -1;
	never_read = NULL;
	if (!mkdtemp(tree_pattern(t.directory, sizeof(t.directory))) || uv_loop_init(&t.loop))
		return -1;
	uv_timer_init(&t.loop, &t.alarm);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	discover_stop(t.d);
	uv_close((uv_handle_t *)&t.alarm, NULL);
	uv_run(&t.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&t.loop), 0);
	return tree_remove(t.directory);
}

static void start(void)
{
	t.d = discover_start(&t.loop, t.directory, &ops, NULL);
	assert_non_null(t.d);
	assert_string_equal(discover_directory(t.d), t.directory);
	assert_int_equal(t.found, 0); /* not from this call */
}

static void comes_and_goes(void **state)
{
	char file[128];
	FILE *f;

	(void)state;
	make_socket("b");
	make_socket("a");
	make_socket(".hidden");
	snprintf(file, sizeof(file), "%s/file", t.directory);
	f = fopen(file, "w");
	fclose(f);
	start();
	run_ms(20);
	assert_string_equal(t.log, "+a +b ");
	make_socket("c");
	remove_file("a");
	run_ms(200);
	assert_string_equal(t.log, "-a +c ");
	run_ms(100);
	assert_string_equal(t.log, "");
	assert_int_equal(t.unreadable, 0);
}

static void another_of_the_same_name(void **state)
{
	(void)state;
	make_socket("a");
	make_socket("b");
	start();
	run_ms(20);
	remove_file("a");
	make_socket("a");
	run_ms(200);
	assert_string_equal(t.log, "-a +a ");
}

static void links_lead_to_sockets(void **state)
{
	char target[128], link_name[128];

	(void)state;
	make_socket(".real");
	snprintf(target, sizeof(target), "%s/.real", t.directory);
	snprintf(link_name, sizeof(link_name), "%s/link", t.directory);
	assert_int_equal(symlink(target, link_name), 0);
	snprintf(link_name, sizeof(link_name), "%s/dangling", t.directory);
	assert_int_equal(symlink("/nowhere", link_name), 0);
	start();
	run_ms(20);
	assert_string_equal(t.log, "+link ");
}

/* It could lead to a monitor that its maker has no access to. */
static void links_of_others_do_not(void **state)
{
	char target[128], link_name[128];

	(void)state;
	make_socket("real");
	snprintf(target, sizeof(target), "%s/real", t.directory);
	snprintf(link_name, sizeof(link_name), "%s/link", t.directory);
	assert_int_equal(symlink(target, link_name), 0);
	if (lchown(link_name, 65534, 65534) < 0)
		skip(); /* who is not root has no links of others */
	start();
	run_ms(20);
	assert_string_equal(t.log, "+real ");
	assert_true(unix_socket_is_foreign(AT_FDCWD, link_name));
	assert_false(unix_socket_is_foreign(AT_FDCWD, target));
	assert_int_equal(lchown(link_name, 0, 0), 0);
	run_ms(200);
	assert_string_equal(t.log, "+link ");
	assert_false(unix_socket_is_foreign(AT_FDCWD, link_name));
}

static void make_many(const char *prefix, unsigned int n, bool sockets)
{
	char name[16], path[128];

	for (unsigned int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s%02u", prefix, i);
		snprintf(path, sizeof(path), "%s/%s", t.directory, name);
		if (sockets)
			make_socket(name);
		else
			fclose(fopen(path, "w"));
	}
}

/* What is beyond the limits stays as long as it is there, wherever the others come to stand. */
static void others_push_nobody_out(void **state)
{
	const bool with_sockets[] = {true, false};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		make_socket("a");
		make_socket("b");
		never_read = NULL;
		start();
		run_ms(20);
		assert_string_equal(t.log, "+a +b ");
		never_read = "a";
		make_many("z", 20, with_sockets[i]);
		run_ms(300);
		assert_null(strstr(t.log, "-a "));
		assert_int_equal(t.unreadable, i + 1); /* said once */
		assert_true(t.found <= 2 + DISCOVER_MAX);
		remove_file("a");
		run_ms(300);
		assert_non_null(strstr(t.log, "-a "));
		assert_int_equal(t.unreadable, i + 1);
		discover_stop(t.d);
		t.d = NULL;
		assert_int_equal(tree_remove(t.directory), 0);
		assert_int_equal(mkdir(t.directory, 0700), 0);
		t.found = 0;
	}
}

/* However often something changes, and however long a look takes. */
static void looks_take_a_small_part(void **state)
{
	(void)state;
	start();
	run_ms(20);
	t.d->rest_until_ms = now_ms() + 400; /* as after a look of 20 ms */
	make_socket("a");
	run_ms(200);
	assert_string_equal(t.log, "");
	run_ms(300);
	assert_string_equal(t.log, "+a ");
}

static void refused_ones_are_told_again(void **state)
{
	(void)state;
	make_socket("a");
	t.refuse = true;
	start();
	run_ms(20);
	assert_int_equal(t.found, 1);
	make_socket("b");
	run_ms(200);
	assert_int_equal(t.found, 2); /* b waits with a: else each look were as long as the list */
	remove_file("b");
	run_ms(200);
	assert_int_equal(t.lost, 0); /* it was never taken */
	t.refuse = false;
	make_socket("c");
	run_ms(200);
	assert_string_equal(t.log, "+a +c ");
}

static void a_directory_that_is_not_there(void **state)
{
	char away[80];

	(void)state;
	snprintf(away, sizeof(away), "%s.x", t.directory);
	make_socket("a");
	start();
	run_ms(20);
	assert_string_equal(t.log, "+a ");
	assert_int_equal(rename(t.directory, away), 0);
	run_ms(2300);
	assert_string_equal(t.log, "-a ");
	assert_int_equal(t.unreadable, 1);
	assert_int_equal(rename(away, t.directory), 0);
	run_ms(2300);
	assert_string_equal(t.log, "+a ");
	assert_int_equal(t.unreadable, 1);
}

static void half_a_directory_is_none(void **state)
{
	(void)state;
	make_socket("a");
	make_socket("b");
	start();
	run_ms(20);
	reads_left = 1;
	make_socket("c");
	run_ms(200);
	assert_string_equal(t.log, "");
	assert_int_equal(t.unreadable, 1);
	reads_left = -1;
	make_socket("d");
	run_ms(200);
	assert_string_equal(t.log, "+c +d ");
}

static void stopped_at_once(void **state)
{
	(void)state;
	make_socket("a");
	start();
	discover_stop(t.d);
	t.d = NULL;
	run_ms(20);
	assert_int_equal(t.found, 0);
	discover_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(comes_and_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(another_of_the_same_name, setup, teardown),
		cmocka_unit_test_setup_teardown(links_lead_to_sockets, setup, teardown),
		cmocka_unit_test_setup_teardown(links_of_others_do_not, setup, teardown),
		cmocka_unit_test_setup_teardown(others_push_nobody_out, setup, teardown),
		cmocka_unit_test_setup_teardown(looks_take_a_small_part, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_ones_are_told_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_directory_that_is_not_there, setup, teardown),
		cmocka_unit_test_setup_teardown(half_a_directory_is_none, setup, teardown),
		cmocka_unit_test_setup_teardown(stopped_at_once, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
