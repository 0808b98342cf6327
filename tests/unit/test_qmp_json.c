// SPDX-License-Identifier: MIT
/* Building and writing JSON. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "qmp/json.h"

static void test_bad_strings_out(void **state)
{
	struct json_object *val = json_object_new_array();
	struct qmp_buf buf = {0};

	(void)state;
	/* what a handler made of bytes from elsewhere */
	qmp_arr_add(&val, json_object_new_string("a\xff\xc3(\xed\xa0\x80z"));
	qmp_arr_add(&val, json_object_new_double(1.0 / 3));
	qmp_arr_add(&val, json_object_new_double((double)HUGE_VALF));
	assert_non_null(val);
	assert_int_equal(qmp_json_write(&buf, val), 0);
	qmp_buf_append(&buf, "", 1);
	assert_string_equal(
		buf.data, "[\"a\\ufffd\\ufffd(\\ufffd\\ufffd\\ufffdz\", 0.3333333333333333, null]");
	qmp_buf_free(&buf);
	json_object_put(val);
}

static void test_builders(void **state)
{
	struct json_object *obj = json_object_new_object(), *arr = json_object_new_array();

	(void)state;
	qmp_obj_add(&obj, "a", json_object_new_int(1));
	assert_non_null(obj);
	qmp_obj_add(&obj, "b", NULL);
	assert_null(obj);
	qmp_obj_add(&obj, "c", json_object_new_int(1));
	assert_null(obj);
	qmp_arr_add(&arr, json_object_new_int(1));
	assert_non_null(arr);
	qmp_arr_add(&arr, NULL);
	assert_null(arr);
	qmp_arr_add(&arr, json_object_new_int(1));
	assert_null(arr);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_strings_out),
		cmocka_unit_test(test_builders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
