/* SPDX-License-Identifier: MIT */
/*
 * Callbacks of a monitor's other end that write down what they are told, in words; one of it for
 * each test program.
 */
#ifndef QMP_TOLD_HELPERS_H
#define QMP_TOLD_HELPERS_H

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qmp/client.h"

#define GREETING                                                                           \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 3, \"minor\": 1, \"major\": 11}, " \
	"\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define NEGOTIATE  "{\"execute\": \"qmp_capabilities\", \"id\": 0}\r\n"
#define NEGOTIATED "{\"return\": {}, \"id\": 0}\r\n"

static char mark; /* its address is the opaque */
static char told[64 * 1024];
static size_t told_len;

static void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(told + told_len, sizeof(told) - told_len, fmt, ap);
	va_end(ap);
	assert_in_range(len, 0, sizeof(told) - told_len - 1);
	told_len += (size_t)len;
}

/* What was told since the last time is @expected. */
static void expect_told(const char *expected)
{
	assert_string_equal(told, expected);
	told_len = 0;
	told[0] = '\0';
}

static void on_ready(void *opaque, struct json_object *greeting)
{
	struct json_object *version = qmp_obj_get(greeting, "version", json_type_object);
	uint64_t major = 0;

	assert_ptr_equal(opaque, &mark);
	assert_non_null(version);
	qmp_obj_get_uint64(qmp_obj_get(version, "qemu", json_type_object), "major", &major);
	tell("ready %" PRIu64 ";", major);
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	assert_ptr_equal(opaque, &mark);
	tell("event %s %s %" PRId64 ".%06" PRId32, event->name,
	     json_object_to_json_string_ext(event->data, JSON_C_TO_STRING_PLAIN), event->seconds,
	     event->microseconds);
	if (event->dropped)
		tell(" dropped %" PRIu64, event->dropped);
	tell(";");
}

static void on_lost(void *opaque, int error, const char *why)
{
	assert_ptr_equal(opaque, &mark);
	tell("lost %d %s;", error, why);
}

/* @opaque: the request's name. */
static void on_answer(void *opaque, const struct qmp_answer *answer)
{
	static const char *const words[] = {
		[QMP_ANSWER_RETURN] = "return",
		[QMP_ANSWER_ERROR] = "error",
		[QMP_ANSWER_TIMEOUT] = "timeout",
		[QMP_ANSWER_LOST] = "lost",
	};

	tell("%s %s", (const char *)opaque, words[answer->kind]);
	if (answer->kind == QMP_ANSWER_RETURN)
		tell(" %s", json_object_to_json_string_ext(answer->value, JSON_C_TO_STRING_PLAIN));
	else if (answer->kind == QMP_ANSWER_ERROR)
		tell(" %s %s", qmp_error_class_name(answer->error->class), answer->error->desc);
	tell(";");
}

#endif
