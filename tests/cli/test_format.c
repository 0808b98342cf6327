// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "format.h"

static void sizes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} table[] = {
		{0, "0"},
		{1023, "1023"},
		{1024, "1.00K"},
		{1536, "1.50K"},
		{10234, "9.99K"},
		{10235, "10.0K"}, /* three digits, also when rounding makes one more */
		{102348, "99.9K"},
		{102400, "100K"},
		{1047552, "1023K"},
		{1048575, "1024K"},
		{1048576, "1.00M"},
		{1536ULL << 20, "1.50G"},
		{UINT64_MAX, "16.0E"},
	};
	char buf[FORMAT_ROOM];
	uint64_t back;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_string_equal(format_size(table[i].bytes, buf, sizeof(buf)), table[i].text);
	/* What is shown can be typed where it is a whole number. */
	assert_int_equal(size_parse(format_size(512ULL << 20, buf, sizeof(buf)), &back), 0);
	assert_int_equal(back, 512ULL << 20);
}

static void ages(void **state)
{
	static const struct {
		uint64_t ms;
		const char *text;
	} table[] = {
		{0, "0.0 s"},
		{999, "0.9 s"},
		{9999, "9.9 s"},
		{10000, "10 s"},
		{119999, "119 s"},
		{120000, "2 min"},
		{7199999, "119 min"},
		{7200000, "2 h"},
		{172799999, "47 h"},
		{172800000, "2 d"},
		{UINT64_MAX, "213503982334 d"},
	};
	char buf[FORMAT_ROOM];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_string_equal(format_age(table[i].ms, buf, sizeof(buf)), table[i].text);
}

static void counts(void **state)
{
	char buf[FORMAT_ROOM];

	(void)state;
	assert_string_equal(format_count(999, buf, sizeof(buf)), "999");
	assert_string_equal(format_count(1000, buf, sizeof(buf)), "1.00k");
	assert_string_equal(format_count(1234567, buf, sizeof(buf)), "1.23M");
}

static void safe(void **state)
{
	static const struct {
		const char *text, *unicode, *ascii;
	} table[] = {
		{"web1", "web1", "web1"},
		{"", "", ""},
		{"\033[2J\a\r\n\t\x7f", "?[2J?????", "?[2J?????"},
		{"\xc3\xa9", "\xc3\xa9", "?"},
		{"\xe6\x97\xa5", "\xe6\x97\xa5", "?"},
		{"a\xff\xc3", "a??", "a??"},    /* no UTF-8 */
		{"\xc2\x9b", "?", "?"},         /* CSI of eight bits */
		{"\xe2\x80\xae", "?", "?"},     /* turns the direction round */
		{"a\xcc\x81", "a?", "a?"},      /* an accent of its neighbour's */
		{"\xed\xa0\x80", "???", "???"}, /* a surrogate */
	};
	char buf[64];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_string_equal(format_safe(table[i].text, true, buf, sizeof(buf)),
				    table[i].unicode);
		assert_string_equal(format_safe(table[i].text, false, buf, sizeof(buf)),
				    table[i].ascii);
	}
	/* Cut between characters. */
	assert_string_equal(format_safe("ab\xe6\x97\xa5", true, buf, 5), "ab");
	assert_string_equal(format_safe("ab\xe6\x97\xa5", true, buf, 6), "ab\xe6\x97\xa5");
	assert_string_equal(format_safe("abc", true, buf, 1), "");
}

static void fits(void **state)
{
	char buf[64];

	(void)state;
	assert_int_equal(format_width("ab\xe6\x97\xa5"), 4);
	assert_string_equal(format_fit("abcd", 4, true, buf, sizeof(buf)), "abcd");
	assert_string_equal(format_fit("abcde", 4, true, buf, sizeof(buf)), "abc\u2026");
	assert_string_equal(format_fit("abcde", 4, false, buf, sizeof(buf)), "abc~");
	assert_string_equal(format_fit("abcde", 1, false, buf, sizeof(buf)), "~");
	assert_string_equal(format_fit("abcde", 0, false, buf, sizeof(buf)), "");
	/* A wide character that does not fit leaves its cell. */
	assert_string_equal(format_fit("a\xe6\x97\xa5\xe6\x97\xa5", 3, false, buf, sizeof(buf)),
			    "a~");
	for (unsigned int cells = 0; cells < 12; cells++)
		assert_true(format_width(format_fit("x\xe6\x97\xa5y\xe6\x97\xa5z", cells, true, buf,
						    sizeof(buf))) <= cells);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes), cmocka_unit_test(ages), cmocka_unit_test(counts),
		cmocka_unit_test(safe),  cmocka_unit_test(fits),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
