// SPDX-License-Identifier: MIT
#include "qmp/schema.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

const struct qmp_type qmp_str = {.kind = QMP_KIND_STR};
const struct qmp_type qmp_int = {.kind = QMP_KIND_INT};
const struct qmp_type qmp_size = {.kind = QMP_KIND_SIZE};
const struct qmp_type qmp_number = {.kind = QMP_KIND_NUMBER};
const struct qmp_type qmp_bool = {.kind = QMP_KIND_BOOL};
const struct qmp_type qmp_any = {.kind = QMP_KIND_ANY};
const struct qmp_type qmp_empty = {.kind = QMP_KIND_OBJECT};

/* Name in the schema (QEMU shows every integer as int), JSONType there. */
static const struct {
	const char *name;
	const char *json_type;
} kinds[] = {
	[QMP_KIND_STR] = {"str", "string"},    [QMP_KIND_INT] = {"int", "int"},
	[QMP_KIND_SIZE] = {"int", "int"},      [QMP_KIND_NUMBER] = {"number", "number"},
	[QMP_KIND_BOOL] = {"bool", "boolean"}, [QMP_KIND_ANY] = {"any", "value"},
	[QMP_KIND_ENUM] = {NULL, NULL},        [QMP_KIND_ARRAY] = {NULL, NULL},
	[QMP_KIND_OBJECT] = {NULL, NULL},
};
static_assert(sizeof(kinds) / sizeof(kinds[0]) == QMP_KIND_COUNT, "one row for every kind");

static const char *const error_classes[] = {
	[QMP_GENERIC_ERROR] = "GenericError",        [QMP_COMMAND_NOT_FOUND] = "CommandNotFound",
	[QMP_DEVICE_NOT_ACTIVE] = "DeviceNotActive", [QMP_DEVICE_NOT_FOUND] = "DeviceNotFound",
	[QMP_KVM_MISSING_CAP] = "KVMMissingCap",
};
static_assert(sizeof(error_classes) / sizeof(error_classes[0]) == QMP_ERROR_CLASS_COUNT,
	      "one name for every class");

const char *qmp_error_class_name(enum qmp_error_class class)
{
	return error_classes[class < QMP_ERROR_CLASS_COUNT ? class : QMP_GENERIC_ERROR];
}

enum qmp_error_class qmp_error_class_of(const char *name)
{
	for (int class = 0; class < QMP_ERROR_CLASS_COUNT; class ++) {
		if (!strcmp(error_classes[class], name))
			return (enum qmp_error_class) class;
	}
	return QMP_GENERIC_ERROR;
}

int qmp_error_set(struct qmp_error *err, enum qmp_error_class class, const char *fmt, ...)
{
	size_t end = sizeof(err->desc) - 1;
	va_list ap;
	int len;

	err->class = class;
	va_start(ap, fmt);
	len = vsnprintf(err->desc, sizeof(err->desc), fmt, ap);
	va_end(ap);
	if (len >= 0 && (size_t)len <= end)
		return -EINVAL;
	/* Cut short: not within a character. */
	while (end > 0 && ((unsigned char)err->desc[end - 1] & 0xc0) == 0x80)
		end--;
	if (end > 0 && !qmp_utf8_len(err->desc + end - 1, sizeof(err->desc) - end))
		err->desc[end - 1] = '\0';
	return -EINVAL;
}

const struct qmp_command *qmp_schema_command(const struct qmp_schema *schema, const char *name)
{
	for (; schema; schema = schema->base) {
		for (size_t i = 0; i < schema->n_commands; i++) {
			if (!strcmp(schema->commands[i].name, name))
				return &schema->commands[i];
		}
	}
	return NULL;
}

/* Where in a value the check is: a member's name, or an index where name is NULL. */
struct place {
	const struct place *up;
	const char *name;
	size_t index;
};

static void write_place(const struct place *place, struct qmp_buf *buf)
{
	if (place->up)
		write_place(place->up, buf);
	if (place->name)
		qmp_buf_printf(buf, "%s%s", buf->len ? "." : "", place->name);
	else if (place->up)
		qmp_buf_printf(buf, "[%zu]", place->index);
}

/* Sets "@before 'place'@after@what@end". */
static int complain(struct qmp_error *err, const struct place *place, const char *before,
		    const char *after, const char *what, const char *end)
{
	struct qmp_buf buf = {0};

	write_place(place, &buf);
	qmp_buf_append(&buf, "", 1);
	qmp_error_set(err, QMP_GENERIC_ERROR, "%s '%s'%s%s%s", before,
		      buf.failed    ? ""
		      : buf.len > 1 ? buf.data
				    : "<anonymous>",
		      after, what, end);
	qmp_buf_free(&buf);
	return -EINVAL;
}

static int wrong_type(struct qmp_error *err, const struct place *place, const char *expected)
{
	return complain(err, place, "Invalid parameter type for", ", expected: ", expected, "");
}

static int check(const struct qmp_type *type, struct json_object *val, const struct place *place,
		 struct qmp_error *err);

static const struct qmp_member *find_member(const struct qmp_type *type, const char *name)
{
	for (size_t i = 0; i < type->count; i++) {
		if (!strcmp(type->members[i].name, name))
			return &type->members[i];
	}
	return NULL;
}

/* As QEMU: first the members that are declared, in their order, then the unexpected ones. */
static int check_object(const struct qmp_type *type, struct json_object *val,
			const struct place *up, struct qmp_error *err)
{
	if (!json_object_is_type(val, json_type_object))
		return wrong_type(err, up, "object");
	for (size_t i = 0; i < type->count; i++) {
		const struct qmp_member *m = &type->members[i];
		const struct place place = {.up = up, .name = m->name};
		struct json_object *member;

		if (!json_object_object_get_ex(val, m->name, &member)) {
			if (m->optional)
				continue;
			return complain(err, &place, "Parameter", " is missing", "", "");
		}
		if (check(m->type, member, &place, err))
			return -EINVAL;
	}
	json_object_object_foreach(val, key, ignored)
	{
		const struct place place = {.up = up, .name = key};

		(void)ignored;
		if (!find_member(type, key))
			return complain(err, &place, "Parameter", " is unexpected", "", "");
	}
	return 0;
}

static int check_array(const struct qmp_type *type, struct json_object *val, const struct place *up,
		       struct qmp_error *err)
{
	if (!json_object_is_type(val, json_type_array))
		return wrong_type(err, up, "array");
	for (size_t i = 0; i < json_object_array_length(val); i++) {
		const struct place place = {.up = up, .index = i};

		if (check(type->element, json_object_array_get_idx(val, i), &place, err))
			return -EINVAL;
	}
	return 0;
}

static int check_enum(const struct qmp_type *type, struct json_object *val,
		      const struct place *place, struct qmp_error *err)
{
	if (!json_object_is_type(val, json_type_string))
		return wrong_type(err, place, "string");
	for (size_t i = 0; i < type->count; i++) {
		if (!strcmp(type->values[i], json_object_get_string(val)))
			return 0;
	}
	return complain(err, place, "Parameter", " does not accept value '",
			json_object_get_string(val), "'");
}

static int check(const struct qmp_type *type, struct json_object *val, const struct place *place,
		 struct qmp_error *err)
{
	/* json-c holds an integer as int64 or, above that, uint64; its getters clamp. */
	bool is_int = json_object_is_type(val, json_type_int);

	switch (type->kind) {
	case QMP_KIND_STR:
		return json_object_is_type(val, json_type_string)
			       ? 0
			       : wrong_type(err, place, "string");
	case QMP_KIND_INT:
		return is_int && json_object_get_uint64(val) <= INT64_MAX
			       ? 0
			       : wrong_type(err, place, "integer");
	case QMP_KIND_SIZE:
		return is_int && json_object_get_int64(val) >= 0
			       ? 0
			       : complain(err, place, "Parameter", " expects ", "uint64", "");
	case QMP_KIND_NUMBER:
		return is_int || json_object_is_type(val, json_type_double)
			       ? 0
			       : wrong_type(err, place, "number");
	case QMP_KIND_BOOL:
		return json_object_is_type(val, json_type_boolean)
			       ? 0
			       : wrong_type(err, place, "boolean");
	case QMP_KIND_ENUM:
		return check_enum(type, val, place, err);
	case QMP_KIND_ARRAY:
		return check_array(type, val, place, err);
	case QMP_KIND_OBJECT:
		return check_object(type, val, place, err);
	case QMP_KIND_ANY:
	case QMP_KIND_COUNT:
		break;
	}
	return 0;
}

int qmp_type_check(const struct qmp_type *type, struct json_object *val, const char *name,
		   struct qmp_error *err)
{
	const struct place place = {.name = name};

	return check(type ? type : &qmp_empty, val, &place, err);
}

/* The types a schema uses, each once, in the order they are met. */
struct types {
	const struct qmp_type *list[256];
	size_t count;
	bool overflow;
};

static bool same_type(const struct qmp_type *a, const struct qmp_type *b)
{
	if (a == b)
		return true;
	if (kinds[a->kind].name && kinds[b->kind].name)
		return !strcmp(kinds[a->kind].name, kinds[b->kind].name);
	return a->kind == QMP_KIND_ARRAY && b->kind == QMP_KIND_ARRAY &&
	       same_type(a->element, b->element);
}

/* Notes @type, and returns its name in the schema as a new string object (NULL: no memory). */
static struct json_object *use_type(struct types *types, const struct qmp_type *type)
{
	char name[64];
	size_t depth = 0, i;
	const struct qmp_type *base = type ? type : &qmp_empty;
	struct qmp_buf buf = {0};
	struct json_object *ret = NULL;

	for (;; base = base->element, depth++) {
		for (i = 0; i < types->count && !same_type(types->list[i], base); i++)
			;
		if (i == types->count && i < sizeof(types->list) / sizeof(types->list[0]))
			types->list[types->count++] = base;
		else if (i == types->count)
			types->overflow = true;
		if (base->kind != QMP_KIND_ARRAY)
			break;
	}
	if (kinds[base->kind].name)
		snprintf(name, sizeof(name), "%s", kinds[base->kind].name);
	else
		snprintf(name, sizeof(name), "%zu", i);
	for (i = 0; i < depth; i++)
		qmp_buf_append(&buf, "[", 1);
	qmp_buf_append(&buf, name, strlen(name));
	for (i = 0; i < depth; i++)
		qmp_buf_append(&buf, "]", 1);
	if (!buf.failed)
		ret = json_object_new_string_len(buf.data, (int)buf.len);
	qmp_buf_free(&buf);
	return ret;
}

/* A SchemaInfo with what all of them have; @name taken over. */
static struct json_object *new_info(struct json_object *name, const char *meta_type)
{
	struct json_object *info = json_object_new_object();

	qmp_obj_add(&info, "name", name);
	qmp_obj_add(&info, "meta-type", json_object_new_string(meta_type));
	return info;
}

static struct json_object *describe_members(struct types *types, const struct qmp_type *type)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < type->count; i++) {
		struct json_object *member = json_object_new_object();

		qmp_obj_add(&member, "name", json_object_new_string(type->members[i].name));
		qmp_obj_add(&member, "type", use_type(types, type->members[i].type));
		/* A JSON null says "optional"; to json-c that is a NULL, so not with the builder.
		 */
		if (type->members[i].optional && member &&
		    json_object_object_add(member, "default", NULL)) {
			json_object_put(member);
			member = NULL;
		}
		qmp_arr_add(&list, member);
	}
	return list;
}

static struct json_object *describe_type(struct types *types, const struct qmp_type *type)
{
	struct json_object *name = use_type(types, type), *values, *info;

	switch (type->kind) {
	case QMP_KIND_ENUM:
		info = new_info(name, "enum");
		values = json_object_new_array();
		for (size_t i = 0; i < type->count; i++)
			qmp_arr_add(&values, json_object_new_string(type->values[i]));
		qmp_obj_add(&info, "values", values);
		return info;
	case QMP_KIND_ARRAY:
		info = new_info(name, "array");
		qmp_obj_add(&info, "element-type", use_type(types, type->element));
		return info;
	case QMP_KIND_OBJECT:
		info = new_info(name, "object");
		qmp_obj_add(&info, "members", describe_members(types, type));
		return info;
	case QMP_KIND_STR:
	case QMP_KIND_INT:
	case QMP_KIND_SIZE:
	case QMP_KIND_NUMBER:
	case QMP_KIND_BOOL:
	case QMP_KIND_ANY:
	case QMP_KIND_COUNT:
		break;
	}
	info = new_info(name, "builtin");
	qmp_obj_add(&info, "json-type", json_object_new_string(kinds[type->kind].json_type));
	return info;
}

struct json_object *qmp_schema_introspect(const struct qmp_schema *schema)
{
	struct json_object *list = json_object_new_array(), *info;
	struct types types = {.count = 0};

	for (; schema; schema = schema->base) {
		for (size_t i = 0; i < schema->n_commands; i++) {
			const struct qmp_command *c = &schema->commands[i];

			info = new_info(json_object_new_string(c->name), "command");
			qmp_obj_add(&info, "arg-type", use_type(&types, c->args));
			qmp_obj_add(&info, "ret-type", use_type(&types, c->returns));
			qmp_arr_add(&list, info);
		}
		for (size_t i = 0; i < schema->n_events; i++) {
			info = new_info(json_object_new_string(schema->events[i].name), "event");
			qmp_obj_add(&info, "arg-type", use_type(&types, schema->events[i].data));
			qmp_arr_add(&list, info);
		}
	}
	/* Describing one may add others at the end. */
	for (size_t i = 0; i < types.count; i++)
		qmp_arr_add(&list, describe_type(&types, types.list[i]));
	if (types.overflow) {
		json_object_put(list);
		return NULL;
	}
	return list;
}

struct json_object *qmp_schema_commands(const struct qmp_schema *schema)
{
	struct json_object *list = json_object_new_array();

	for (; schema; schema = schema->base) {
		for (size_t i = 0; i < schema->n_commands; i++) {
			struct json_object *info = json_object_new_object();

			qmp_obj_add(&info, "name",
				    json_object_new_string(schema->commands[i].name));
			qmp_arr_add(&list, info);
		}
	}
	return list;
}

static int check_members(const struct qmp_type *type, struct types *types, struct qmp_error *err)
{
	for (size_t i = 0; i < type->count; i++) {
		const struct qmp_member *m = &type->members[i];

		if (!m->name || !*m->name || !m->type || !m->doc)
			return qmp_error_set(err, QMP_GENERIC_ERROR, "member %zu is incomplete", i);
		if (find_member(type, m->name) != m)
			return qmp_error_set(err, QMP_GENERIC_ERROR, "two members '%s'", m->name);
		json_object_put(use_type(types, m->type));
	}
	return 0;
}

static int check_one_type(const struct qmp_type *type, struct types *types, struct qmp_error *err)
{
	if (type->kind >= QMP_KIND_COUNT)
		return qmp_error_set(err, QMP_GENERIC_ERROR, "a type of no kind");
	if (type->kind == QMP_KIND_OBJECT)
		return check_members(type, types, err);
	if (type->kind == QMP_KIND_ENUM && (!type->values || !type->count))
		return qmp_error_set(err, QMP_GENERIC_ERROR, "an enum without values");
	return 0;
}

/* Whether a row has a name that is its own, and a doc. */
static int check_name(const struct qmp_schema *schema, const char *name, const char *doc,
		      struct qmp_error *err)
{
	size_t same = 0;

	if (!name || !*name || !doc || !*doc)
		return qmp_error_set(err, QMP_GENERIC_ERROR, "a row without name or doc");
	for (; schema; schema = schema->base) {
		for (size_t i = 0; i < schema->n_commands; i++)
			same += !strcmp(schema->commands[i].name, name);
		for (size_t i = 0; i < schema->n_events; i++)
			same += !strcmp(schema->events[i].name, name);
	}
	if (same != 1)
		return qmp_error_set(err, QMP_GENERIC_ERROR, "two rows called '%s'", name);
	return 0;
}

int qmp_schema_check(const struct qmp_schema *schema, struct qmp_error *err)
{
	const struct qmp_schema *s;
	struct types types = {.count = 0};

	for (s = schema; s; s = s->base) {
		for (size_t i = 0; i < s->n_commands; i++) {
			const struct qmp_command *c = &s->commands[i];

			if (check_name(schema, c->name, c->doc, err))
				return -EINVAL;
			if (!c->handler || (c->args && c->args->kind != QMP_KIND_OBJECT))
				return qmp_error_set(err, QMP_GENERIC_ERROR,
						     "%s: no handler, or args not an object",
						     c->name);
			json_object_put(use_type(&types, c->args));
			json_object_put(use_type(&types, c->returns));
		}
		for (size_t i = 0; i < s->n_events; i++) {
			const struct qmp_event *e = &s->events[i];

			if (check_name(schema, e->name, e->doc, err))
				return -EINVAL;
			if (e->data && e->data->kind != QMP_KIND_OBJECT)
				return qmp_error_set(err, QMP_GENERIC_ERROR,
						     "%s: data not an object", e->name);
			json_object_put(use_type(&types, e->data));
		}
	}
	for (size_t i = 0; i < types.count; i++) {
		if (check_one_type(types.list[i], &types, err))
			return -EINVAL;
	}
	return types.overflow ? qmp_error_set(err, QMP_GENERIC_ERROR, "too many types") : 0;
}
