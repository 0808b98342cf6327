// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "record_line.h"
#include "top_model.h"
#include "vm.h"

static void update(struct model *m, const char *text)
{
	struct json_object *vms = json_tokener_parse(text);

	assert_non_null(vms);
	assert_int_equal(model_update(m, vms, 1000), 0);
	json_object_put(vms);
}

/* Names of the rows in their order. */
static const char *order(const struct model *m)
{
	static char text[256];
	size_t out = 0;

	text[0] = '\0';
	for (size_t i = 0; i < m->n_shown; i++)
		out += (size_t)snprintf(text + out, sizeof(text) - out, "%s ", m->shown[i]->name);
	return text;
}

static const char *arranged(struct model *m, enum sort_key sort, bool reverse)
{
	m->sort = sort;
	m->reverse = reverse;
	model_arrange(m);
	return order(m);
}

#define STATS(free) \
	"\"driver\":\"full\",\"stats-age-ms\":9,\"stats\":{\"stat-free-memory\":" free "}"

static void sorting(void **state)
{
	struct model m = {0};

	(void)state;
	update(&m, "[{\"name\":\"c\",\"state\":\"serving\",\"target\":5,\"verdict\":"
		   "\"critical\"," STATS(
			   "7") "},"
				"{\"name\":\"a\",\"state\":\"serving\",\"target\":9,\"verdict\":"
				"\"fine\"," STATS("8") "},"
						       "{\"name\":\"d\",\"state\":\"serving\","
						       "\"target\":0,\"driver\":\"none\"},"
						       "{\"name\":\"b\",\"state\":\"serving\","
						       "\"verdict\":\"pressed\","
						       "\"driver\":\"full\",\"stats-age-ms\":6000,"
						       "\"stats\":{\"stat-free-memory\":99}}]");
	assert_string_equal(order(&m), "a b c d ");
	assert_string_equal(arranged(&m, SORT_NAME, true), "d c b a ");
	/* What is not known comes behind 0. */
	assert_string_equal(arranged(&m, SORT_TARGET, false), "a c d b ");
	assert_string_equal(arranged(&m, SORT_TARGET, true), "b d c a ");
	/* What is stale is not known. */
	assert_string_equal(arranged(&m, SORT_FREE, false), "a c b d ");
	assert_string_equal(arranged(&m, SORT_VERDICT, false), "c b d a ");
	assert_string_equal(arranged(&m, SORT_AGE, false), "b a c d ");
	model_free(&m);
}

static void coming_and_going(void **state)
{
	struct model m = {0};
	const struct row *b;

	(void)state;
	update(&m, "[{\"name\":\"b\",\"actual\":1},{\"name\":\"a\",\"actual\":1}]");
	b = m.shown[model_find(&m, "b")];
	update(&m, "[{\"name\":\"c\",\"actual\":1},{\"name\":\"b\",\"actual\":2},{},7]");
	/* Those without a name are one. */
	assert_string_equal(order(&m), "? ? b c ");
	assert_int_equal(model_find(&m, "a"), m.n_shown);
	/* The history goes on with its machine. */
	assert_ptr_equal(m.shown[model_find(&m, "b")], b);
	assert_int_equal(b->actual.total, 2);
	assert_int_equal(b->actual.value[0], 1);
	assert_int_equal(b->actual.value[1], 2);
	assert_int_equal(b->used.value[1], HISTORY_UNKNOWN);
	update(&m, "[]");
	assert_int_equal(m.n, 0);
	assert_string_equal(order(&m), "");
	model_free(&m);
}

static void filtering(void **state)
{
	struct model m = {0};

	(void)state;
	update(&m, "[{\"name\":\"web1\"},{\"name\":\"db\"},{\"name\":\"WEB2\"}]");
	strcpy(m.filter, "eb");
	assert_string_equal(arranged(&m, SORT_NAME, false), "WEB2 web1 ");
	strcpy(m.filter, "x");
	assert_string_equal(arranged(&m, SORT_NAME, false), "");
	m.filter[0] = '\0';
	assert_string_equal(arranged(&m, SORT_NAME, false), "WEB2 db web1 ");
	model_free(&m);
}

static void many(void **state)
{
	struct json_object *vms = json_object_new_array();
	struct model m = {0};
	char name[16];

	(void)state;
	for (int i = 0; i < 1000; i++) {
		struct json_object *vm = json_object_new_object();

		snprintf(name, sizeof(name), "vm%04d", i * 7 % 1000);
		json_object_object_add(vm, "name", json_object_new_string(name));
		json_object_array_add(vms, vm);
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal(model_update(&m, vms, 1000), 0);
	assert_int_equal(m.n_shown, 1000);
	assert_int_equal(model_find(&m, "vm0123"), 123);
	json_object_put(vms);
	model_free(&m);
}

/* Words in the place of numbers, and when they change. */
static void freshness(void **state)
{
	struct json_object *vm = json_tokener_parse("{\"state\":\"serving\"," STATS("1") "}");
	char text[64];

	(void)state;
	assert_true(vm_fresh(vm, VM_STALE_MS - 9, text, sizeof(text)));
	assert_false(vm_fresh(vm, VM_STALE_MS - 8, text, sizeof(text)));
	assert_string_equal(text, "stale 5.0 s");
	assert_false(vm_fresh(vm, 3600000, text, sizeof(text)));
	assert_string_equal(text, "stale 60 min");
	assert_false(vm_fresh(vm, UINT64_MAX, text, sizeof(text)));
	assert_string_equal(text, "none yet");
	json_object_put(vm);
	assert_false(vm_fresh(NULL, 0, text, sizeof(text)));
	assert_string_equal(text, "unknown");
}

static void recorded(void **state)
{
	struct qmp_buf buf = {0};

	(void)state;
	assert_int_equal(record_line(&buf, "web,1", 12034, 1ULL << 40), 0);
	qmp_buf_append(&buf, "", 1);
	assert_string_equal(buf.data, "web_1,12.034,1099511627776\n");
	qmp_buf_free(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sorting),   cmocka_unit_test(coming_and_going),
		cmocka_unit_test(filtering), cmocka_unit_test(many),
		cmocka_unit_test(freshness), cmocka_unit_test(recorded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
