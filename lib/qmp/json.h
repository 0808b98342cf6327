/* SPDX-License-Identifier: MIT */
#ifndef QMP_JSON_H
#define QMP_JSON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the engine and its handlers need on top of json-c.
 *
 * Builders: json-c says "out of memory" with NULL, and adding that NULL to an object silently
 * makes it a JSON null. The adders below are sticky instead: once anything failed, *container is
 * NULL and stays NULL, so a handler writes a row of them and looks at the end only (or not at
 * all: a NULL result is answered with an error by the engine).
 */

/* Adds @val (reference taken over, also on failure) as member @key of *@obj. */
void qmp_obj_add(struct json_object **obj, const char *key, struct json_object *val);

/* Adds @val (reference taken over, also on failure) at the end of *@arr. */
void qmp_arr_add(struct json_object **arr, struct json_object *val);

/*
 * A string of bytes that grows. All zero is an empty one. Sticky as well: after a failed append
 * @failed is set, nothing is appended any more, and only the last look needs to be a look at it.
 */
struct qmp_buf {
	char *data;
	size_t len;
	size_t cap;
	bool failed;
};

/* Appends @len bytes. 0, or -ENOMEM with the bytes unchanged. */
int qmp_buf_append(struct qmp_buf *buf, const void *data, size_t len);

/* Appends formatted text. 0, or -ENOMEM with the bytes unchanged. */
int qmp_buf_printf(struct qmp_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Frees the bytes; the buffer is empty and usable afterwards. */
void qmp_buf_free(struct qmp_buf *buf);

/*
 * Length of the valid UTF-8 sequence at the start of the @len bytes at @text: 1 to 4, or 0 if
 * there is none (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF).
 */
size_t qmp_utf8_len(const char *text, size_t len);

/* Does a character of two bytes or more control a terminal? U+0080 to U+009F do. */
static inline bool qmp_utf8_is_control(const char *text)
{
	return (unsigned char)text[0] == 0xc2 && (unsigned char)text[1] >= 0x80 &&
	       (unsigned char)text[1] < 0xa0;
}

/*
 * Appends @val as JSON on one line. json-c's own writer does not report a failed allocation in the
 * middle of a text, and a reply with a hole in it is worse than none. What is not UTF-8 becomes
 * U+FFFD, a number that is not finite becomes null. 0 or -ENOMEM.
 */
int qmp_json_write(struct qmp_buf *buf, struct json_object *val);

/*
 * The member @key of @obj if @obj is an object that has it and it is of that type, else NULL.
 * Borrowed.
 */
struct json_object *qmp_obj_get(struct json_object *obj, const char *key, enum json_type type);

/*
 * The member @key of @obj as a number from 0 to 2^64-1: 0, or -ENOENT (not there, or no object),
 * -EINVAL (no integer), -ERANGE (below 0). json-c's own accessor makes 0 of whatever does not fit.
 */
int qmp_obj_get_uint64(struct json_object *obj, const char *key, uint64_t *value);

/* Number of members of all objects in @val together, at any depth. */
size_t qmp_json_count_members(struct json_object *val);

#endif
