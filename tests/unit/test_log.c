// SPDX-License-Identifier: MIT
/* What is logged is one line of text, whatever others have put into it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"

/* What one call writes on stderr. */
static const char *logged(const char *words)
{
	static char text[2048];
	int saved = dup(STDERR_FILENO), fds[2];
	ssize_t n;

	assert_int_equal(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	log_line("%s", words);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	n = read(fds[0], text, sizeof(text) - 1);
	close(fds[0]);
	assert_true(n > 0);
	text[n] = '\0';
	return text;
}

static void text_stays(void **state)
{
	(void)state;
	assert_string_equal(logged("web: 5 % of 2 GiB"), "test: web: 5 % of 2 GiB\n");
	assert_string_equal(logged("w\u00e9b \u4e00 \U0001f388"),
			    "test: w\u00e9b \u4e00 \U0001f388\n");
}

/* Neither another line nor a command to the terminal. */
static void controls_do_not(void **state)
{
	(void)state;
	assert_string_equal(logged("a\nb\r\tc\x1b[2Jd\x7f"), "test: a?b??c?[2Jd?\n");
	assert_string_equal(logged("a\xc2\x9b\x32Jb\xc2\xa0"), "test: a??2Jb\xc2\xa0\n");
	assert_string_equal(logged("\x9b\x32J \xff \xc3"), "test: ?2J ? ?\n");
}

/* Also where it is cut in the middle of a character. */
static void long_ones_are_cut(void **state)
{
	char words[1024];
	size_t len;

	(void)state;
	memset(words, 'x', sizeof(words));
	memcpy(words + 510, "\u4e00", 3);
	words[sizeof(words) - 1] = '\0';
	len = strlen(logged(words));
	assert_int_equal(len, strlen("test: ") + 511 + 1);
	assert_string_equal(logged(words) + len - 3, "x?\n");
}

static int setup(void **state)
{
	(void)state;
	log_set_name("test", NULL);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_stays),
		cmocka_unit_test(controls_do_not),
		cmocka_unit_test(long_ones_are_cut),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
