// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <string.h>

#include "table.h"

static const struct column columns[] = {{"NAME", false}, {"SIZE", true}, {"LAST", false}};

static void fill(struct table *t, const struct style *style)
{
	table_init(t, style, columns, 3);
	table_text(t, PAINT_NONE, "a");
	table_size(t, true, 1536);
	table_text(t, PAINT_BAD, "bad");
	table_text(t, PAINT_NONE, "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e");
	table_size(t, false, 77);
	table_text(t, PAINT_NONE, NULL);
}

static void check(const struct style *style, bool bare, bool steady, const char *expected)
{
	struct qmp_buf buf = {0};
	struct table t;

	fill(&t, style);
	t.bare = bare;
	t.steady = steady;
	table_text(&t, PAINT_NONE, "a row that is not complete");
	assert_int_equal(table_render(&t, &buf), 0);
	qmp_buf_append(&buf, "", 1);
	assert_string_equal(buf.data, expected);
	qmp_buf_free(&buf);
	table_free(&t);
}

static void for_people(void **state)
{
	const struct style style = {.table = true, .unicode = true};

	(void)state;
	check(&style, false, false,
	      "NAME     SIZE  LAST\n"
	      "a       1.50K  bad\n"
	      "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e      -  -\n");
	check(&style, true, false,
	      "a       1.50K  bad\n"
	      "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e      -  -\n");
}

static void coloured(void **state)
{
	const struct style style = {.table = true, .unicode = true, .colour = true};

	(void)state;
	check(&style, true, false,
	      "a       1.50K  \033[31mbad\033[0m\n"
	      "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e      \033[2m-\033[0m  -\n");
}

static void for_programs(void **state)
{
	const struct style style = {.unicode = true, .colour = true};

	(void)state;
	check(&style, false, false,
	      "NAME\tSIZE\tLAST\n"
	      "a\t1536\tbad\n"
	      "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\t-\t-\n");
}

static void ascii(void **state)
{
	const struct style style = {.table = true};

	(void)state;
	check(&style, true, true,
	      "a     1.50K  bad\n"
	      "???       -  -\n");
}

static void numbers(void **state)
{
	const struct style people = {.table = true}, programs = {0};
	static const struct column two[] = {{"A", true}, {"B", true}};
	struct qmp_buf buf = {0};
	struct table t;

	(void)state;
	for (int i = 0; i < 2; i++) {
		table_init(&t, i ? &programs : &people, two, 2);
		t.bare = true;
		table_age(&t, true, 12345);
		table_count(&t, true, 98765);
		assert_int_equal(table_render(&t, &buf), 0);
		table_free(&t);
	}
	qmp_buf_append(&buf, "", 1);
	assert_string_equal(buf.data, "12 s  98.8k\n12345\t98765\n");
	qmp_buf_free(&buf);
}

static void wide_titles(void **state)
{
	const struct style people = {.table = true}, programs = {0};
	static const struct column two[] = {{"TIME  ", false}, {"  N", true}};
	struct qmp_buf buf = {0};
	struct table t;

	(void)state;
	for (int i = 0; i < 2; i++) {
		table_init(&t, i ? &programs : &people, two, 2);
		table_text(&t, PAINT_NONE, "a");
		table_count(&t, true, 7);
		assert_int_equal(table_render(&t, &buf), 0);
		table_free(&t);
	}
	qmp_buf_append(&buf, "", 1);
	assert_string_equal(buf.data, "TIME      N\na         7\nTIME\tN\na\t7\n");
	qmp_buf_free(&buf);
}

/* Whoever writes a cell's text cannot write cells, lines or colours. */
static void hostile(void **state)
{
	const struct style style = {.unicode = true};
	static const struct column one[] = {{"A", false}};
	struct qmp_buf buf = {0};
	struct table t;

	(void)state;
	table_init(&t, &style, one, 1);
	t.bare = true;
	table_text(&t, PAINT_NONE, "x\ty\nz\033[0m");
	assert_int_equal(table_render(&t, &buf), 0);
	qmp_buf_append(&buf, "", 1);
	assert_string_equal(buf.data, "x?y?z?[0m\n");
	qmp_buf_free(&buf);
	table_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(for_people),   cmocka_unit_test(coloured),
		cmocka_unit_test(for_programs), cmocka_unit_test(ascii),
		cmocka_unit_test(numbers),      cmocka_unit_test(wide_titles),
		cmocka_unit_test(hostile),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
