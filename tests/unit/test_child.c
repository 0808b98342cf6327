// SPDX-License-Identifier: MIT
/* The worker as a process. The module is part of a program, so its source is compiled in. */
#include "helpers.h"

#include "../../src/vhost-user-balloon/child.c"

static void the_first_starts_are_free(void **state)
{
	static const unsigned int wanted[] = {0, 0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000};

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(wanted); i++)
		assert_int_equal(child_backoff_ms(i), wanted[i]);
	assert_int_equal(child_backoff_ms(UINT32_MAX), 1000);
}

/* Starts a shell in the worker's place; its exit status as waitpid() tells it. */
static int run(const char *script, bool *heard)
{
	char name[] = "sh", option[] = "-c", text[256];
	char *argv[] = {name, option, text, NULL};
	int program = child_open("/bin/sh"), status;
	int block = child_move_fd(memfd_create("block", MFD_CLOEXEC));
	struct child c = {.channel = -1};
	char buf[8];

	assert_true(program >= 0 && block >= CHILD_FD_END);
	snprintf(text, sizeof(text), "%s", script);
	assert_int_equal(child_start(&c, program, argv, block, block, block), 0);
	assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
	*heard = recv(c.channel, buf, sizeof(buf), MSG_DONTWAIT) > 0;
	child_forget(&c);
	assert_int_equal(c.channel, -1);
	assert_int_equal(c.pid, 0);
	close(program);
	close(block);
	return status;
}

static void what_it_is_given(void **state)
{
	bool heard;
	/* The channel and three files stand at their numbers; nothing else of this process does. */
	int status = run("echo x >&3 && test -e /proc/self/fd/4 && test -e /proc/self/fd/6 && "
			 "! test -e /proc/self/fd/7",
			 &heard);

	(void)state;
	assert_true(heard);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_false(child_fault(status));
}

static void whose_fault_a_death_is(void **state)
{
	static const struct {
		const char *script;
		bool fault;
		const char *words;
	} cases[] = {
		{"exit 0", false, "exit status 0"},
		{"exit 3", true, "exit status 3"},
		{"kill -KILL $$", false, "signal 9 (Killed)"},
		{"kill -TERM $$", false, "signal 15 (Terminated)"},
		{"kill -BUS $$", true, "signal 7 (Bus error)"},
		{"kill -SYS $$", true, "signal 31 (Bad system call)"},
	};
	char text[64];
	bool heard;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int status = run(cases[i].script, &heard);

		assert_int_equal(child_fault(status), cases[i].fault);
		child_describe(status, text, sizeof(text));
		assert_string_equal(text, cases[i].words);
	}
}

static void what_cannot_be_started(void **state)
{
	char name[] = "x";
	char *argv[] = {name, NULL};
	struct child c = {.channel = -1};
	int program = child_open("/etc/passwd");

	(void)state;
	assert_int_equal(child_open("/nonexistent"), -ENOENT);
	assert_int_equal(child_start(&c, program, argv, program, program, program), -EACCES);
	assert_int_equal(c.pid, 0);
	assert_int_equal(c.channel, -1);
	close(program);
}

static void its_own_path(void **state)
{
	char path[4096], small[4];

	(void)state;
	assert_int_equal(child_own_path(path, sizeof(path)), 0);
	assert_non_null(strstr(path, "test_child"));
	assert_int_equal(child_own_path(small, sizeof(small)), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_starts_are_free),
		cmocka_unit_test(what_it_is_given),
		cmocka_unit_test(whose_fault_a_death_is),
		cmocka_unit_test(what_cannot_be_started),
		cmocka_unit_test(its_own_path),
	};

	return cmocka_run_group_tests_name("child", tests, NULL, NULL);
}
