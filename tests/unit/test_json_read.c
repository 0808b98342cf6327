// SPDX-License-Identifier: MIT
/* Members that somebody else wrote: there and of their type, or not taken at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/json_read.h"

static struct json_object *parse(const char *text)
{
	struct json_object *obj = json_tokener_parse(text);

	assert_non_null(obj);
	return obj;
}

static void numbers(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t value;
	} cases[] = {
		{"{\"n\": 0}", true, 0},
		{"{\"n\": 1}", true, 1},
		{"{\"n\": 9223372036854775807}", true, INT64_MAX},
		{"{\"n\": 9223372036854775808}", true, 1ULL << 63},
		{"{\"n\": 18446744073709551615}", true, UINT64_MAX},
		{"{\"n\": -1}", false, 0},
		{"{\"n\": -9223372036854775808}", false, 0},
		{"{\"n\": -99999999999999999999999}", false, 0},
		{"{\"n\": 1.0}", false, 0},
		{"{\"n\": 1e3}", false, 0},
		{"{\"n\": \"1\"}", false, 0},
		{"{\"n\": true}", false, 0},
		{"{\"n\": null}", false, 0},
		{"{\"n\": [1]}", false, 0},
		{"{\"n\": {\"n\": 1}}", false, 0},
		{"{\"m\": 1}", false, 0},
		{"{}", false, 0},
		{"[1]", false, 0},
		{"\"n\"", false, 0},
		{"1", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct json_object *obj = parse(cases[i].text);
		uint64_t value = 42;

		if (json_read_u64(obj, "n", &value) != cases[i].ok ||
		    value != (cases[i].ok ? cases[i].value : 42))
			fail_msg("%s: %llu", cases[i].text, (unsigned long long)value);
		json_object_put(obj);
	}
}

static void other_types(void **state)
{
	struct json_object *obj = parse("{\"t\": true, \"f\": false, \"one\": 1, \"s\": \"text\","
					" \"empty\": \"\", \"nul\": \"a\\u0000b\", \"a\": [1],"
					" \"o\": {}, \"z\": null}");
	bool value;

	(void)state;
	assert_true(json_read_bool(obj, "t", &value) && value);
	assert_true(json_read_bool(obj, "f", &value) && !value);
	value = true;
	assert_false(json_read_bool(obj, "one", &value));
	assert_false(json_read_bool(obj, "z", &value));
	assert_false(json_read_bool(NULL, "t", &value));
	assert_true(value);
	assert_string_equal(json_read_str(obj, "s"), "text");
	assert_string_equal(json_read_str(obj, "empty"), "");
	assert_null(json_read_str(obj, "nul"));
	assert_null(json_read_str(obj, "one"));
	assert_null(json_read_str(obj, "no"));
	assert_null(json_read_str(NULL, "s"));
	assert_non_null(json_read_array(obj, "a"));
	assert_null(json_read_array(obj, "o"));
	assert_null(json_read_array(obj, "s"));
	assert_null(json_read_array(NULL, "a"));
	assert_non_null(json_read(obj, "o"));
	assert_null(json_read(obj, "z"));
	assert_null(json_read(NULL, "o"));
	json_object_put(obj);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(other_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
