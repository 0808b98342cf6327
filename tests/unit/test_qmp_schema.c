// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qmp/server.h"

static enum qmp_outcome nothing(struct qmp_request *req, struct json_object *args,
				struct json_object **result, struct qmp_error *err)
{
	(void)req;
	(void)args;
	(void)result;
	(void)err;
	return QMP_DONE;
}

static const struct qmp_type mode = QMP_ENUM("slow", "fast");
static const struct qmp_type modes = QMP_ARRAY(&mode);
static const struct qmp_type sizes = QMP_ARRAY(&qmp_size);
static const struct qmp_type ints = QMP_ARRAY(&qmp_int);
static const struct qmp_type matrix = QMP_ARRAY(&ints);
static const struct qmp_type point =
	QMP_OBJECT(QMP_MEMBER("x", &qmp_int, "across"), QMP_OPTIONAL("y", &qmp_number, "up"));
static const struct qmp_type points = QMP_ARRAY(&point);
static const struct qmp_type everything =
	QMP_OBJECT(QMP_OPTIONAL("str", &qmp_str, "s"), QMP_OPTIONAL("int", &qmp_int, "i"),
		   QMP_OPTIONAL("size", &qmp_size, "z"), QMP_OPTIONAL("number", &qmp_number, "n"),
		   QMP_OPTIONAL("bool", &qmp_bool, "b"), QMP_OPTIONAL("any", &qmp_any, "a"),
		   QMP_OPTIONAL("mode", &mode, "m"), QMP_OPTIONAL("modes", &modes, "ms"),
		   QMP_OPTIONAL("sizes", &sizes, "zs"), QMP_OPTIONAL("matrix", &matrix, "iss"),
		   QMP_OPTIONAL("point", &point, "p"), QMP_OPTIONAL("points", &points, "ps"));
/* A type may refer to itself. */
extern const struct qmp_type tree;
static const struct qmp_type trees = QMP_ARRAY(&tree);
const struct qmp_type tree = QMP_OBJECT(QMP_OPTIONAL("below", &trees, "the branches"));

static const struct qmp_command commands[] = {
	{.name = "all", .args = &everything, .returns = &points, .handler = nothing, .doc = "All."},
	{.name = "trees", .returns = &trees, .handler = nothing, .doc = "Trees."},
	{.name = "set-mode",
	 .args = QMP_ARGS(QMP_MEMBER("mode", &mode, "which"), QMP_OPTIONAL("at", &point, "where")),
	 .handler = nothing,
	 .doc = "Set the mode."},
};
static const struct qmp_event events[] = {
	{.name = "MOVED", .data = &point, .doc = "Something moved."},
	{.name = "STOPPED", .doc = "Nothing moves."},
};
static const struct qmp_schema schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};

static struct qmp_server server;

static int setup(void **state)
{
	static const struct qmp_version version = {1, 2, 3, "test"};

	(void)state;
	qmp_server_init(&server, &schema, &version, NULL);
	return 0;
}

#define TYPE(name_, expected_) "Invalid parameter type for '" name_ "', expected: " expected_

static const struct {
	const struct qmp_type *type;
	const char *val;
	const char *error; /* NULL: fits */
} checks[] = {
	{&everything, "{}", NULL},
	{&everything, "[]", TYPE("<anonymous>", "object")},
	{&everything, "null", TYPE("<anonymous>", "object")},
	{&everything, "{\"str\": \"\"}", NULL},
	{&everything, "{\"str\": 1}", TYPE("str", "string")},
	{&everything, "{\"str\": null}", TYPE("str", "string")},
	{&everything, "{\"int\": -9223372036854775808}", NULL},
	{&everything, "{\"int\": 9223372036854775807}", NULL},
	{&everything, "{\"int\": 9223372036854775808}", TYPE("int", "integer")},
	{&everything, "{\"int\": 1.0}", TYPE("int", "integer")},
	{&everything, "{\"int\": \"1\"}", TYPE("int", "integer")},
	{&everything, "{\"int\": true}", TYPE("int", "integer")},
	{&everything, "{\"size\": 0}", NULL},
	{&everything, "{\"size\": 18446744073709551615}", NULL},
	{&everything, "{\"size\": -1}", "Parameter 'size' expects uint64"},
	{&everything, "{\"size\": 1.5}", "Parameter 'size' expects uint64"},
	{&everything, "{\"number\": 1}", NULL},
	{&everything, "{\"number\": 1.5e3}", NULL},
	{&everything, "{\"number\": \"1\"}", TYPE("number", "number")},
	{&everything, "{\"bool\": false}", NULL},
	{&everything, "{\"bool\": 0}", TYPE("bool", "boolean")},
	{&everything, "{\"any\": null}", NULL},
	{&everything, "{\"any\": {\"x\": []}}", NULL},
	{&everything, "{\"mode\": \"slow\"}", NULL},
	{&everything, "{\"mode\": \"Slow\"}", "Parameter 'mode' does not accept value 'Slow'"},
	{&everything, "{\"mode\": 0}", TYPE("mode", "string")},
	{&everything, "{\"modes\": []}", NULL},
	{&everything, "{\"modes\": [\"fast\", \"x\"]}",
	 "Parameter 'modes[1]' does not accept value 'x'"},
	{&everything, "{\"modes\": {}}", TYPE("modes", "array")},
	{&everything, "{\"sizes\": [1, 2, -3]}", "Parameter 'sizes[2]' expects uint64"},
	{&everything, "{\"matrix\": [[], [1, null]]}", TYPE("matrix[1][1]", "integer")},
	{&everything, "{\"point\": {\"x\": 1}}", NULL},
	{&everything, "{\"point\": {}}", "Parameter 'point.x' is missing"},
	{&everything, "{\"point\": {\"y\": 1}}", "Parameter 'point.x' is missing"},
	{&everything, "{\"point\": {\"z\": 1, \"x\": 1}}", "Parameter 'point.z' is unexpected"},
	{&everything, "{\"points\": [{\"x\": 1}, {\"x\": []}]}", TYPE("points[1].x", "integer")},
	{&everything, "{\"zzz\": 1, \"int\": 1}", "Parameter 'zzz' is unexpected"},
	/* what is declared comes first */
	{&everything, "{\"zzz\": 1, \"int\": \"\"}", TYPE("int", "integer")},
	{&trees, "[{}, {\"below\": [{\"below\": []}]}]", NULL},
	{&trees, "[{\"below\": [{\"below\": [{}, 1]}]}]", TYPE("[0].below[0].below[1]", "object")},
	{NULL, "{}", NULL},
	{NULL, "{\"a\": 1}", "Parameter 'a' is unexpected"},
};

static void test_check(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		struct qmp_error err = {.desc = ""};
		struct json_object *val = json_tokener_parse(checks[i].val);
		int ret = qmp_type_check(checks[i].type, val, NULL, &err);

		if (checks[i].error) {
			assert_string_equal(err.desc, checks[i].error);
			assert_int_equal(ret, -EINVAL);
			assert_int_equal(err.class, QMP_GENERIC_ERROR);
		} else {
			assert_int_equal(ret, 0);
		}
		json_object_put(val);
	}
}

static void test_check_name(void **state)
{
	struct json_object *val = json_tokener_parse("[{\"x\": 1}, {}]");
	struct qmp_error err;

	(void)state;
	assert_int_equal(qmp_type_check(&points, val, "reply", &err), -EINVAL);
	assert_string_equal(err.desc, "Parameter 'reply[1].x' is missing");
	json_object_put(val);
}

static void test_error_cut(void **state)
{
	struct qmp_error err;
	char text[600];

	(void)state;
	/* one, two, three byte offsets into a run of four-byte characters */
	for (size_t shift = 0; shift < 4; shift++) {
		size_t len;

		memset(text, 'a', shift);
		for (size_t i = shift; i + 4 < sizeof(text); i += 4)
			memcpy(text + i, "\xf0\x9f\x98\x80", 5);
		qmp_error_set(&err, QMP_GENERIC_ERROR, "%s", text);
		len = strlen(err.desc);
		assert_in_range(len, sizeof(err.desc) - 4, sizeof(err.desc) - 1);
		for (size_t i = 0; i < len; i += qmp_utf8_len(err.desc + i, len - i))
			assert_true(qmp_utf8_len(err.desc + i, len - i) > 0);
	}
}

static void test_schema_ok(void **state)
{
	struct qmp_error err = {.desc = ""};

	(void)state;
	if (qmp_schema_check(&server.schema, &err))
		fail_msg("%s", err.desc);
}

static const struct qmp_type no_values = {.kind = QMP_KIND_ENUM};
static const struct qmp_type no_type = QMP_OBJECT({.name = "a", .doc = "b"});
static const struct qmp_type twice =
	QMP_OBJECT(QMP_MEMBER("a", &qmp_int, "a"), QMP_MEMBER("a", &qmp_str, "a"));

static void test_schema_bad(void **state)
{
	static const struct qmp_command bad[] = {
		{.name = "no-handler", .doc = "d"},
		{.name = "", .doc = "d", .handler = nothing},
		{.name = "no-doc", .handler = nothing},
		{.name = "query-version", .doc = "taken", .handler = nothing},
		{.name = "args", .doc = "d", .handler = nothing, .args = &qmp_int},
		{.name = "no-values", .doc = "d", .handler = nothing, .returns = &no_values},
		{.name = "no-type", .doc = "d", .handler = nothing, .args = &no_type},
		{.name = "twice", .doc = "d", .handler = nothing, .args = &twice},
	};
	struct qmp_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct qmp_schema s = {
			.commands = &bad[i], .n_commands = 1, .base = server.schema.base};

		assert_int_equal(qmp_schema_check(&s, &err), -EINVAL);
	}
}

static struct json_object *member(struct json_object *obj, const char *name)
{
	struct json_object *val = NULL;

	assert_true(json_object_object_get_ex(obj, name, &val));
	return val;
}

/* The entry of the introspection called @name; there must be exactly one. */
static struct json_object *entry(struct json_object *list, const char *name)
{
	struct json_object *found = NULL;

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *e = json_object_array_get_idx(list, i);

		if (strcmp(json_object_get_string(member(e, "name")), name))
			continue;
		assert_null(found);
		found = e;
	}
	if (!found)
		fail_msg("no entry '%s'", name);
	return found;
}

/* Entry of the type that @e refers to by @key. */
static struct json_object *ref(struct json_object *list, struct json_object *e, const char *key)
{
	return entry(list, json_object_get_string(member(e, key)));
}

static void assert_member(struct json_object *e, const char *key, const char *value)
{
	assert_string_equal(json_object_get_string(member(e, key)), value);
}

static void assert_type(struct json_object *list, const char *name, const struct qmp_type *type);

/* The types table and the entries called @name say the same; one level, members by recursion. */
static void assert_members(struct json_object *list, struct json_object *e,
			   const struct qmp_type *type)
{
	struct json_object *members = member(e, "members");

	assert_int_equal(json_object_array_length(members), type->count);
	for (size_t i = 0; i < type->count; i++) {
		struct json_object *m = json_object_array_get_idx(members, i), *def;

		assert_member(m, "name", type->members[i].name);
		assert_int_equal(json_object_object_get_ex(m, "default", &def),
				 type->members[i].optional);
		if (type->members[i].type != &trees)
			assert_type(list, json_object_get_string(member(m, "type")),
				    type->members[i].type);
	}
}

static void assert_type(struct json_object *list, const char *name, const struct qmp_type *type)
{
	static const char *const builtins[][2] = {
		[QMP_KIND_STR] = {"str", "string"},    [QMP_KIND_INT] = {"int", "int"},
		[QMP_KIND_SIZE] = {"int", "int"},      [QMP_KIND_NUMBER] = {"number", "number"},
		[QMP_KIND_BOOL] = {"bool", "boolean"}, [QMP_KIND_ANY] = {"any", "value"},
	};
	struct json_object *e = entry(list, name);

	if (type->kind == QMP_KIND_OBJECT) {
		assert_member(e, "meta-type", "object");
		assert_members(list, e, type);
	} else if (type->kind == QMP_KIND_ARRAY) {
		const char *element = json_object_get_string(member(e, "element-type"));

		assert_member(e, "meta-type", "array");
		assert_int_equal(strlen(name), strlen(element) + 2);
		assert_type(list, element, type->element);
	} else if (type->kind == QMP_KIND_ENUM) {
		struct json_object *values = member(e, "values");

		assert_member(e, "meta-type", "enum");
		assert_int_equal(json_object_array_length(values), type->count);
		for (size_t i = 0; i < type->count; i++)
			assert_string_equal(
				json_object_get_string(json_object_array_get_idx(values, i)),
				type->values[i]);
	} else {
		assert_string_equal(name, builtins[type->kind][0]);
		assert_member(e, "meta-type", "builtin");
		assert_member(e, "json-type", builtins[type->kind][1]);
	}
}

static void test_introspect(void **state)
{
	struct json_object *list = qmp_schema_introspect(&server.schema), *e;
	size_t described = 0;

	(void)state;
	assert_non_null(list);
	for (const struct qmp_schema *s = &server.schema; s; s = s->base) {
		for (size_t i = 0; i < s->n_commands; i++) {
			const struct qmp_command *c = &s->commands[i];

			e = entry(list, c->name);
			assert_member(e, "meta-type", "command");
			assert_type(list, json_object_get_string(member(e, "arg-type")),
				    c->args ? c->args : &qmp_empty);
			assert_type(list, json_object_get_string(member(e, "ret-type")),
				    c->returns ? c->returns : &qmp_empty);
			described++;
		}
		for (size_t i = 0; i < s->n_events; i++) {
			const struct qmp_event *ev = &s->events[i];

			e = entry(list, ev->name);
			assert_member(e, "meta-type", "event");
			assert_type(list, json_object_get_string(member(e, "arg-type")),
				    ev->data ? ev->data : &qmp_empty);
			described++;
		}
	}
	assert_int_equal(described, 3 + 2 + 4);
	/* nothing that is not reached, nothing twice: entry() sees to the latter */
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		e = json_object_array_get_idx(list, i);
		entry(list, json_object_get_string(member(e, "name")));
		if (!strcmp(json_object_get_string(member(e, "meta-type")), "array"))
			ref(list, e, "element-type");
	}
	json_object_put(list);
}

static void test_builtin_replies(void **state)
{
	struct json_object *list = qmp_schema_introspect(&server.schema);
	struct qmp_error err = {.desc = ""};

	(void)state;
	if (qmp_type_check(qmp_schema_command(&server.schema, "query-qmp-schema")->returns, list,
			   NULL, &err))
		fail_msg("%s", err.desc);
	json_object_put(list);
	list = qmp_schema_commands(&server.schema);
	assert_int_equal(json_object_array_length(list), 3 + 4);
	if (qmp_type_check(qmp_schema_command(&server.schema, "query-commands")->returns, list,
			   NULL, &err))
		fail_msg("%s", err.desc);
	json_object_put(list);
	assert_null(qmp_schema_command(&server.schema, "MOVED"));
	assert_null(qmp_schema_command(&server.schema, ""));
}

static void test_error_classes(void **state)
{
	static const char *const names[] = {"GenericError", "CommandNotFound", "DeviceNotActive",
					    "DeviceNotFound", "KVMMissingCap"};

	(void)state;
	for (unsigned int i = 0; i < QMP_ERROR_CLASS_COUNT; i++)
		assert_string_equal(qmp_error_class_name((enum qmp_error_class)i), names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),           cmocka_unit_test(test_check_name),
		cmocka_unit_test(test_error_cut),       cmocka_unit_test(test_schema_ok),
		cmocka_unit_test(test_schema_bad),      cmocka_unit_test(test_introspect),
		cmocka_unit_test(test_builtin_replies), cmocka_unit_test(test_error_classes),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
