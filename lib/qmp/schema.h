/* SPDX-License-Identifier: MIT */
#ifndef QMP_SCHEMA_H
#define QMP_SCHEMA_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

#include "qmp/json.h"

/*
 * The schema: one set of const tables from which come dispatch, validation, query-commands,
 * query-qmp-schema. Types refer to each other by address, so that a type that does not exist is a
 * compiler error. A table reads like this:
 *
 *	static const struct qmp_type queue_info =
 *		QMP_OBJECT(QMP_MEMBER("index", &qmp_int, "number of the queue"),
 *			   QMP_OPTIONAL("name", &qmp_str, "what it is for"));
 *	static const struct qmp_type queue_infos = QMP_ARRAY(&queue_info);
 *	static const struct qmp_type action = QMP_ENUM("start", "stop");
 *
 *	static const struct qmp_command commands[] = {
 *		{.name = "query-queues", .returns = &queue_infos, .handler = query_queues,
 *		 .doc = "State of every queue."},
 *		{.name = "balloon", .handler = balloon,
 *		 .args = QMP_ARGS(QMP_MEMBER("value", &qmp_size, "bytes the guest keeps")),
 *		 .doc = "Ask the guest to give memory back."},
 *	};
 *	static const struct qmp_schema schema = {QMP_COMMANDS(commands), QMP_EVENTS(events)};
 */

enum qmp_kind {
	QMP_KIND_STR,
	QMP_KIND_INT,    /* int64 */
	QMP_KIND_SIZE,   /* uint64, 0 to 2^64-1 */
	QMP_KIND_NUMBER, /* integer or floating point */
	QMP_KIND_BOOL,
	QMP_KIND_ANY,
	QMP_KIND_ENUM,
	QMP_KIND_ARRAY,
	QMP_KIND_OBJECT,
	QMP_KIND_COUNT,
};

struct qmp_member;

struct qmp_type {
	enum qmp_kind kind;
	size_t count;                     /* of @members or @values */
	const struct qmp_member *members; /* OBJECT */
	const char *const *values;        /* ENUM */
	const struct qmp_type *element;   /* ARRAY */
};

struct qmp_member {
	const char *name;
	const struct qmp_type *type;
	bool optional;
	const char *doc;
};

extern const struct qmp_type qmp_str, qmp_int, qmp_size, qmp_number, qmp_bool, qmp_any;
extern const struct qmp_type qmp_empty; /* the object without members */

#define QMP_MEMBER(name_, type_, doc_)                          \
	{                                                       \
		.name = (name_), .type = (type_), .doc = (doc_) \
	}
#define QMP_OPTIONAL(name_, type_, doc_)                                          \
	{                                                                         \
		.name = (name_), .type = (type_), .optional = true, .doc = (doc_) \
	}

/* Initialisers of struct qmp_type. The lists are compound literals: file scope only. */
#define QMP_OBJECT(...)                                                                       \
	{                                                                                     \
		.kind = QMP_KIND_OBJECT, .members = (const struct qmp_member[]){__VA_ARGS__}, \
		.count = sizeof((const struct qmp_member[]){__VA_ARGS__}) /                   \
			 sizeof(struct qmp_member)                                            \
	}
#define QMP_ENUM(...)                                                                      \
	{                                                                                  \
		.kind = QMP_KIND_ENUM, .values = (const char *const[]){__VA_ARGS__},       \
		.count = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *) \
	}
#define QMP_ARRAY(element_)                                   \
	{                                                     \
		.kind = QMP_KIND_ARRAY, .element = (element_) \
	}

/* An argument list (or an event's data) written in place. */
#define QMP_ARGS(...) (&(const struct qmp_type)QMP_OBJECT(__VA_ARGS__))

/* QEMU's error classes; the names on the wire are the words after QMP_ in CamelCase. */
enum qmp_error_class {
	QMP_GENERIC_ERROR,
	QMP_COMMAND_NOT_FOUND,
	QMP_DEVICE_NOT_ACTIVE,
	QMP_DEVICE_NOT_FOUND,
	QMP_KVM_MISSING_CAP,
	QMP_ERROR_CLASS_COUNT,
};

struct qmp_error {
	enum qmp_error_class class;
	char desc[512]; /* UTF-8; empty: not set */
};

/* Fills @err; an over-long text is cut between two UTF-8 characters. Returns -EINVAL always. */
int qmp_error_set(struct qmp_error *err, enum qmp_error_class class, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Name of @class on the wire. */
const char *qmp_error_class_name(enum qmp_error_class class);

/* The class of that name; QMP_GENERIC_ERROR for one that QEMU's documentation does not know. */
enum qmp_error_class qmp_error_class_of(const char *name);

enum qmp_outcome {
	QMP_DONE,     /* *result is the answer; NULL is {} for a command that returns nothing */
	QMP_FAILED,   /* *err is the answer */
	QMP_DEFERRED, /* the handler keeps @req and calls qmp_request_complete() once, later */
};

struct qmp_request;

struct qmp_command {
	const char *name;
	const struct qmp_type *args;    /* an object; NULL: none */
	const struct qmp_type *returns; /* NULL: the empty object */
	const char *doc;
	/*
	 * Runs the command. @args was checked against the type above and is never NULL; it lives
	 * until the handler returns (json_object_get() to keep it). *@result starts as NULL and
	 * takes one reference. With a type in @returns, DONE with a NULL *@result is answered as
	 * out of memory, so the builders of qmp/json.h need no checks. @err starts as an unset
	 * QMP_GENERIC_ERROR. The handler must not feed or free a connection.
	 */
	enum qmp_outcome (*handler)(struct qmp_request *req, struct json_object *args,
				    struct json_object **result, struct qmp_error *err);
};

struct qmp_event {
	const char *name;
	const struct qmp_type *data; /* an object; NULL: the event has no data */
	const char *doc;
};

struct qmp_schema {
	const struct qmp_command *commands;
	size_t n_commands;
	const struct qmp_event *events;
	size_t n_events;
	const struct qmp_schema *base; /* searched after this one; set by qmp_server_init() */
};

#define QMP_COMMANDS(table_) \
	.commands = (table_), .n_commands = sizeof(table_) / sizeof((table_)[0])
#define QMP_EVENTS(table_) .events = (table_), .n_events = sizeof(table_) / sizeof((table_)[0])

/* The command called @name in @schema or its bases, or NULL. */
const struct qmp_command *qmp_schema_command(const struct qmp_schema *schema, const char *name);

/*
 * Checks @val against @type, with QEMU's words in @err. @name is what the words call @val, NULL
 * for the arguments as a whole. NULL as @type is the empty object. 0 or -EINVAL.
 * The one piece of code that decides; arguments go through it, and tests send replies through it.
 */
int qmp_type_check(const struct qmp_type *type, struct json_object *val, const char *name,
		   struct qmp_error *err);

/*
 * Whether @schema is well formed: names present and unique, types complete, every handler set.
 * For unit tests. 0 or -EINVAL with the first fault in @err.
 */
int qmp_schema_check(const struct qmp_schema *schema, struct qmp_error *err);

/* The list for query-commands, or NULL (out of memory). */
struct json_object *qmp_schema_commands(const struct qmp_schema *schema);

/* The list for query-qmp-schema: QEMU's SchemaInfo, type names masked. NULL: out of memory. */
struct json_object *qmp_schema_introspect(const struct qmp_schema *schema);

#endif
