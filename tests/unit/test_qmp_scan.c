// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qmp/scan.h"

/*
 * What the scanner makes of @in, written as text: "<text>" for each complete one, "!reason;" for
 * each refused one. Fed in pieces of @step bytes.
 */
static void scan_all(const char *in, size_t len, size_t step, struct qmp_buf *out)
{
	struct qmp_scan scan = {0};
	struct qmp_error err;

	*out = (struct qmp_buf){0};
	for (size_t pos = 0, end = 0; pos < len;) {
		size_t used;

		if (pos == end)
			end = pos + step < len ? pos + step : len;
		switch (qmp_scan(&scan, in + pos, end - pos, &used, &err)) {
		case QMP_SCAN_TEXT:
			assert_int_equal(scan.text.data[scan.text.len], '\0');
			qmp_buf_printf(out, "<%s>", scan.text.data);
			break;
		case QMP_SCAN_ERROR:
			qmp_buf_printf(out, "!%s;", err.desc);
			break;
		case QMP_SCAN_MORE:
			assert_int_equal(used, end - pos);
			break;
		case QMP_SCAN_NOMEM:
			fail();
		}
		pos += used;
	}
	qmp_buf_append(out, "", 1);
	assert_false(out->failed);
	qmp_scan_free(&scan);
}

static void check_steps(const char *in, size_t len, const char *expected)
{
	for (size_t step = 1; step <= len + 1; step = step < 8 ? step + 1 : step * 2 + 1) {
		struct qmp_buf out;

		scan_all(in, len, step, &out);
		assert_string_equal(out.data, expected);
		qmp_buf_free(&out);
	}
}

#define P "!JSON parse error, "
#define U "\xef\xbf\xbd"

static const struct {
	const char *in;
	const char *out;
} cases[] = {
	/* framing */
	{"{}", "<{}>"},
	{" \t\r\n{ }\n", "<{ }>"},
	{"{}{}[]", "<{}><{}><[]>"},
	{"{\"a\": [1, {\"b\": null}]}x ", "<{\"a\": [1, {\"b\": null}]}>" P "invalid keyword 'x';"},
	{"{\"}\": \"]\\\"\"}", "<{\"}\": \"]\\\"\"}>"},
	{"1 2", "<1>"},
	{"1 2 ", "<1><2>"},
	{"null\n", "<null>"},
	{"null{}", "<null><{}>"},
	{"\"a\"\"b\"", "<\"a\"><\"b\">"},
	{", :", "<,><:>"},
	{"[{]}", "<[{]}>"}, /* balanced; the tokener sees to it */
	{"{", ""},
	{"{\"a", ""},
	{"\"", ""},
	{"", ""},
	/* numbers and literals */
	{"[0, -0, 1, -1, 0.5, -1.25e+3, 1E5, 1e-400]",
	 "<[0, -0, 1, -1, 0.5, -1.25e+3, 1E5, 1e-400]>"},
	{"[18446744073709551615]", "<[18446744073709551615]>"},
	{"[18446744073709551616]", P "number '18446744073709551616' out of range;"},
	{"[-9223372036854775808]", "<[-9223372036854775808]>"},
	{"[-9223372036854775809]", P "number '-9223372036854775809' out of range;"},
	{"[1e400]", P "number '1e400' out of range;"},
	{"[-1e400]", P "number '-1e400' out of range;"},
	{"[01]", P "invalid number '01';"},
	{"[1.]", P "invalid number '1.';"},
	{"[-]", P "invalid number '-';"},
	{"[1e]", P "invalid number '1e';"},
	{"[1e+]", P "invalid number '1e+';"},
	{"[--1]", P "invalid number '--1';"},
	{"[1-1]", P "invalid number '1-1';"},
	{"[0x10]", P "invalid number '0x10';"},
	{"[true, false, null]", "<[true, false, null]>"},
	{"[nul]", P "invalid keyword 'nul';"},
	{"[tRue]", P "invalid keyword 'tRue';"},
	{"[nan]", P "invalid keyword 'nan';"},
	{"01 {}", P "invalid number '01';<{}>"},
	/* what can stand nowhere ends the text */
	{"[NaN]", P "stray 'N';" P "invalid keyword 'aN';" P "stray ']';"},
	{"{\xff{}", P "stray '" U "';<{}>"},
	{"{\x01{}", P "stray '\x01';<{}>"},
	{"{\"a\xff{}", P "stray '" U "';<{}>"},
	{"{\"a\n{}", P "stray '\n';<{}>"},
	{"{\"a\\\n{}", P "stray '\n';<{}>"},
	{"{\x7f{}", P "stray '\x7f';<{}>"},
	{"'a'", P "stray ''';" P "invalid keyword 'a';" P "stray ''';"},
	{"%p ", P "stray '%';" P "invalid keyword 'p';"},
	{"{]{}", P "stray ']';<{}>"},
	{"}{}", P "stray '}';<{}>"},
	/* strings */
	{"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"", "<\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\">"},
	{"\"\\uD83D\\ude00 \xf0\x9f\x98\x80\"", "<\"\\uD83D\\ude00 \xf0\x9f\x98\x80\">"},
	{"\"\\ud800\"", P "\\ud800 is not a valid Unicode character;"},
	{"\"\\ud800\\u0041\"", P "\\ud800 is not a valid Unicode character;"},
	{"\"\\ud800\\ud800\"", P "\\ud800 is not a valid Unicode character;"},
	{"\"\\udc00\"", P "\\udc00 is not a valid Unicode character;"},
	{"\"a\\u0000b\"", P "\\u0000 is not a valid Unicode character;"},
	{"\"\\u12\"", P "invalid hex escape sequence in string;"},
	{"\"\\u12g4\"", P "invalid hex escape sequence in string;"},
	{"\"\\x41\"", P "invalid escape sequence in string;"},
	{"\"\\'\"", P "invalid escape sequence in string;"},
	{"\"\xc3\xa9\xe2\x82\xac\xf4\x8f\xbf\xbf\"", "<\"\xc3\xa9\xe2\x82\xac\xf4\x8f\xbf\xbf\">"},
	{"\"\xc0\x80\"", P "invalid UTF-8 sequence in string;"},
	{"\"\xc3\"", P "invalid UTF-8 sequence in string;"},
	{"\"\xe2\x82\"", P "invalid UTF-8 sequence in string;"},
	{"\"\x80\"", P "invalid UTF-8 sequence in string;"},
	{"\"\xe0\x80\xaf\"", P "invalid UTF-8 sequence in string;"},
	{"\"\xed\xa0\x80\"", P "invalid UTF-8 sequence in string;"},
	{"\"\xf0\x80\x80\x80\"", P "invalid UTF-8 sequence in string;"},
	{"\"\xf4\x90\x80\x80\"", P "invalid UTF-8 sequence in string;"},
	{"\"\xf8\x80\x80\x80\"", P "invalid UTF-8 sequence in string;"},
	/* skipping to the end of what was refused */
	{"{\"a\": 01, \"b\": [02, \"}\"]} {}", P "invalid number '01';<{}>"},
	{"[nul, nul, \"\\q\"][]", P "invalid keyword 'nul';<[]>"},
	{"[nul, \"a\xff{}", P "invalid keyword 'nul';<{}>"},
	{"[nul, [[[}{}", P "invalid keyword 'nul';<{}>"},
	{"\"\\q\"{}", P "invalid escape sequence in string;<{}>"},
	/* the first error of a text is the one that counts, the next text has its own */
	{"[01][02]", P "invalid number '01';" P "invalid number '02';"},
};

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		check_steps(cases[i].in, strlen(cases[i].in), cases[i].out);
}

static void test_nul(void **state)
{
	(void)state;
	check_steps("{\0{}", 4, P "stray '" U "';<{}>");
	check_steps("{\"a\0{}", 6, P "stray '" U "';<{}>");
}

static void test_size(void **state)
{
	char *in = malloc(QMP_MESSAGE_MAX + 16);
	struct qmp_buf out;

	(void)state;
	assert_non_null(in);
	memset(in, 'a', QMP_MESSAGE_MAX + 16);
	in[0] = '"';
	in[QMP_MESSAGE_MAX - 1] = '"';
	memcpy(in + QMP_MESSAGE_MAX, "{}", 3);
	scan_all(in, QMP_MESSAGE_MAX + 2, 4096, &out);
	assert_int_equal(strlen(out.data), QMP_MESSAGE_MAX + 6);
	assert_string_equal(out.data + QMP_MESSAGE_MAX, "\"><{}>");
	qmp_buf_free(&out);

	/* one byte more, of every kind of token */
	static const char *const starts[] = {"\"", "[\"", "[", "[1", "1", "n", "[[[ "};
	static const char fill[] = "aa 11n ";
	static const char *const ends[] = {"\"", "\"]", "]", "]", " ", " ", "]]]"};
	_Static_assert(sizeof(starts) == sizeof(ends), "one end for every start");

	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		memset(in, fill[i], QMP_MESSAGE_MAX + 16);
		memcpy(in, starts[i], strlen(starts[i]));
		memcpy(in + QMP_MESSAGE_MAX + 1, ends[i], strlen(ends[i]));
		memcpy(in + QMP_MESSAGE_MAX + 1 + strlen(ends[i]), "{}", 2);
		scan_all(in, QMP_MESSAGE_MAX + 3 + strlen(ends[i]), 1000, &out);
		assert_string_equal(out.data, "!JSON token size limit exceeded;<{}>");
		qmp_buf_free(&out);
	}
	free(in);
}

/* @n opening brackets, "1", @n closing ones. */
static void nested(struct qmp_buf *buf, size_t n)
{
	*buf = (struct qmp_buf){0};
	for (size_t i = 0; i < n; i++)
		qmp_buf_append(buf, i % 2 ? "[" : "{\"a\":", i % 2 ? 1 : 5);
	qmp_buf_append(buf, "1", 1);
	for (size_t i = n; i-- > 0;)
		qmp_buf_append(buf, i % 2 ? "]" : "}", 1);
}

static void test_depth(void **state)
{
	struct qmp_buf in, out;

	(void)state;
	nested(&in, QMP_DEPTH_MAX);
	scan_all(in.data, in.len, 7, &out);
	assert_int_equal(out.data[0], '<');
	qmp_buf_free(&in);
	qmp_buf_free(&out);
	for (size_t n = QMP_DEPTH_MAX + 1; n < 100000; n = n * 7) {
		nested(&in, n);
		qmp_buf_append(&in, "{}", 2);
		scan_all(in.data, in.len, 4093, &out);
		assert_string_equal(out.data, "!JSON nesting depth limit exceeded;<{}>");
		qmp_buf_free(&in);
		qmp_buf_free(&out);
	}
}

static void test_tokens(void **state)
{
	struct qmp_buf in = {0}, out;

	(void)state;
	/* "[" and "]" and the commas between n elements are n + 1 */
	for (size_t n = QMP_TOKENS_MAX - 1; n <= QMP_TOKENS_MAX; n++) {
		qmp_buf_append(&in, "[1", 2);
		for (size_t i = 1; i < n; i++)
			qmp_buf_append(&in, ",1", 2);
		qmp_buf_append(&in, "]{}", 3);
		scan_all(in.data, in.len, 4093, &out);
		if (n < QMP_TOKENS_MAX)
			assert_string_equal(out.data + out.len - 8, "1]><{}>");
		else
			assert_string_equal(out.data, "!JSON token count limit exceeded;<{}>");
		qmp_buf_free(&in);
		qmp_buf_free(&out);
	}
}

/* A long text is not kept once it has served. */
static void test_done(void **state)
{
	struct qmp_scan scan = {0};
	struct qmp_error err;
	char in[20000];
	size_t used;

	(void)state;
	memset(in, 'a', sizeof(in));
	in[0] = in[sizeof(in) - 1] = '"';
	assert_int_equal(qmp_scan(&scan, in, sizeof(in), &used, &err), QMP_SCAN_TEXT);
	assert_int_equal(scan.text.len, sizeof(in));
	qmp_scan_done(&scan);
	assert_int_equal(scan.text.cap, 0);
	/* and is not done with in the middle */
	assert_int_equal(qmp_scan(&scan, in, 10, &used, &err), QMP_SCAN_MORE);
	qmp_scan_done(&scan);
	assert_int_equal(qmp_scan(&scan, "\"", 1, &used, &err), QMP_SCAN_TEXT);
	assert_string_equal(scan.text.data, "\"aaaaaaaaa\"");
	qmp_scan_free(&scan);
}

/* Input without end must not need memory without end. */
static void test_endless(void **state)
{
	static const char *const endless[] = {"[",  "{\"a\":", "a",  "1", " ",
					      "[ ", "\\\"",    "[]", ","};
	char chunk[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(endless) / sizeof(endless[0]); i++) {
		struct qmp_scan scan = {0};
		struct qmp_error err;
		size_t used, n = strlen(endless[i]), len = sizeof(chunk) / n * n;

		for (size_t j = 0; j < len; j++)
			chunk[j] = endless[i][j % n];
		for (size_t round = 0; round < 256; round++) {
			for (size_t pos = 0; pos < len; pos += used) {
				qmp_scan(&scan, chunk + pos, len - pos, &used, &err);
				assert_true(used > 0 || scan.complete || pos + used < len);
			}
			assert_true(scan.text.cap <= 2 * QMP_MESSAGE_MAX);
		}
		qmp_scan_free(&scan);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),  cmocka_unit_test(test_nul),
		cmocka_unit_test(test_size),   cmocka_unit_test(test_depth),
		cmocka_unit_test(test_tokens), cmocka_unit_test(test_endless),
		cmocka_unit_test(test_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
