// SPDX-License-Identifier: MIT
#include "qmp/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT 0xfffdU

void qmp_obj_add(struct json_object **obj, const char *key, struct json_object *val)
{
	if (*obj && val && json_object_object_add(*obj, key, val) == 0)
		return;
	json_object_put(val);
	json_object_put(*obj);
	*obj = NULL;
}

void qmp_arr_add(struct json_object **arr, struct json_object *val)
{
	if (*arr && val && json_object_array_add(*arr, val) == 0)
		return;
	json_object_put(val);
	json_object_put(*arr);
	*arr = NULL;
}

struct json_object *qmp_obj_get(struct json_object *obj, const char *key, enum json_type type)
{
	struct json_object *val;

	if (!json_object_is_type(obj, json_type_object) ||
	    !json_object_object_get_ex(obj, key, &val) || !json_object_is_type(val, type))
		return NULL;
	return val;
}

int qmp_obj_get_uint64(struct json_object *obj, const char *key, uint64_t *value)
{
	struct json_object *val;

	if (!json_object_is_type(obj, json_type_object) ||
	    !json_object_object_get_ex(obj, key, &val))
		return -ENOENT;
	if (!json_object_is_type(val, json_type_int))
		return -EINVAL;
	if (json_object_get_int64(val) < 0)
		return -ERANGE;
	*value = json_object_get_uint64(val);
	return 0;
}

/* Makes room for @more bytes and a NUL behind them. */
static int buf_reserve(struct qmp_buf *buf, size_t more)
{
	size_t cap = buf->cap ? buf->cap : 256;
	char *data;

	if (buf->failed || more > SIZE_MAX / 4 - buf->len) {
		buf->failed = true;
		return -ENOMEM;
	}
	while (cap < buf->len + more + 1)
		cap *= 2;
	if (cap == buf->cap)
		return 0;
	data = realloc(buf->data, cap);
	if (!data) {
		buf->failed = true;
		return -ENOMEM;
	}
	buf->data = data;
	buf->cap = cap;
	return 0;
}

int qmp_buf_append(struct qmp_buf *buf, const void *data, size_t len)
{
	int ret = buf_reserve(buf, len);

	if (ret || !len)
		return ret;
	memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	return 0;
}

int qmp_buf_printf(struct qmp_buf *buf, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (len < 0 || buf_reserve(buf, (size_t)len)) {
		buf->failed = true;
		return -ENOMEM;
	}
	va_start(ap, fmt);
	vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, ap);
	va_end(ap);
	buf->len += (size_t)len;
	return 0;
}

void qmp_buf_free(struct qmp_buf *buf)
{
	free(buf->data);
	*buf = (struct qmp_buf){0};
}

size_t qmp_utf8_len(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;
	unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
	size_t want;

	if (len == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	want = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (len < want || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < want; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	return want;
}

/* The code point of a valid UTF-8 sequence of n bytes. */
static unsigned int code_point(const char *text, size_t n)
{
	static const unsigned char lead[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	unsigned int point = (unsigned char)text[0] & lead[n];

	for (size_t i = 1; i < n; i++)
		point = point << 6 | ((unsigned char)text[i] & 0x3f);
	return point;
}

static void write_escaped(struct qmp_buf *buf, unsigned int point)
{
	switch (point) {
	case '"':
	case '\\':
		qmp_buf_printf(buf, "\\%c", (int)point);
		break;
	case '\n':
		qmp_buf_append(buf, "\\n", 2);
		break;
	case '\r':
		qmp_buf_append(buf, "\\r", 2);
		break;
	case '\t':
		qmp_buf_append(buf, "\\t", 2);
		break;
	default:
		if (point > 0xffff) {
			point -= 0x10000;
			qmp_buf_printf(buf, "\\u%04x", 0xd800 | point >> 10);
			point = 0xdc00 | (point & 0x3ff);
		}
		qmp_buf_printf(buf, "\\u%04x", point);
		break;
	}
}

/* In ASCII, as the QMP specification wants a server's output ("General Definitions"). */
static int write_string(struct qmp_buf *buf, const char *text, size_t len)
{
	size_t plain = 0; /* bytes before @i that are still to be copied */
	size_t i = 0;

	qmp_buf_append(buf, "\"", 1);
	while (i < len) {
		unsigned char c = (unsigned char)text[i];
		size_t n = qmp_utf8_len(text + i, len - i);

		if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
			plain++;
			i++;
			continue;
		}
		qmp_buf_append(buf, text + i - plain, plain);
		plain = 0;
		write_escaped(buf, n ? code_point(text + i, n) : REPLACEMENT);
		i += n ? n : 1;
	}
	qmp_buf_append(buf, text + i - plain, plain);
	return qmp_buf_append(buf, "\"", 1);
}

/* The fewest digits that give the same number when read back. */
static int write_double(struct qmp_buf *buf, double num)
{
	char text[40];

	if (!isfinite(num))
		return qmp_buf_append(buf, "null", 4);
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, num);
		if (!islessgreater(strtod(text, NULL), num))
			break;
	}
	return qmp_buf_printf(buf, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

int qmp_json_write(struct qmp_buf *buf, struct json_object *val)
{
	const char *sep = "";

	switch (json_object_get_type(val)) {
	case json_type_null:
		return qmp_buf_append(buf, "null", 4);
	case json_type_boolean:
		return qmp_buf_printf(buf, "%s", json_object_get_boolean(val) ? "true" : "false");
	case json_type_double:
		return write_double(buf, json_object_get_double(val));
	case json_type_int:
		if (json_object_get_int64(val) < 0)
			return qmp_buf_printf(buf, "%" PRId64, json_object_get_int64(val));
		return qmp_buf_printf(buf, "%" PRIu64, json_object_get_uint64(val));
	case json_type_string:
		return write_string(buf, json_object_get_string(val),
				    (size_t)json_object_get_string_len(val));
	case json_type_array:
		qmp_buf_append(buf, "[", 1);
		for (size_t i = 0; i < json_object_array_length(val); i++) {
			qmp_buf_append(buf, ", ", i ? 2 : 0);
			qmp_json_write(buf, json_object_array_get_idx(val, i));
		}
		return qmp_buf_append(buf, "]", 1);
	case json_type_object:
		qmp_buf_append(buf, "{", 1);
		json_object_object_foreach(val, key, member)
		{
			qmp_buf_append(buf, sep, strlen(sep));
			write_string(buf, key, strlen(key));
			qmp_buf_append(buf, ": ", 2);
			qmp_json_write(buf, member);
			sep = ", ";
		}
		return qmp_buf_append(buf, "}", 1);
	}
	return -EINVAL;
}

size_t qmp_json_count_members(struct json_object *val)
{
	size_t n = 0;

	if (json_object_is_type(val, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(val); i++)
			n += qmp_json_count_members(json_object_array_get_idx(val, i));
	} else if (json_object_is_type(val, json_type_object)) {
		json_object_object_foreach(val, key, member)
		{
			(void)key;
			n += 1 + qmp_json_count_members(member);
		}
	}
	return n;
}
