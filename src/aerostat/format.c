// SPDX-License-Identifier: MIT
#include "format.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

#include "qmp/json.h"

/* Three digits of value / 1000 with that unit behind. */
static void three_digits(uint64_t milli, const char *unit, char *buf, size_t len)
{
	/* Rounded first, so that 9.996 is "10.0" and not "10.00". */
	if (milli < 9995) {
		milli = (milli + 5) / 10;
		snprintf(buf, len, "%" PRIu64 ".%02" PRIu64 "%s", milli / 100, milli % 100, unit);
	} else if (milli < 99950) {
		milli = (milli + 50) / 100;
		snprintf(buf, len, "%" PRIu64 ".%" PRIu64 "%s", milli / 10, milli % 10, unit);
	} else {
		snprintf(buf, len, "%" PRIu64 "%s", (milli + 500) / 1000, unit);
	}
}

static char *scaled(uint64_t value, uint64_t base, const char *units, char *buf, size_t len)
{
	uint64_t scale = 1;
	size_t unit = 0;
	char name[2] = {0};

	if (value < base) {
		snprintf(buf, len, "%" PRIu64, value);
		return buf;
	}
	while (value / scale >= base && units[unit]) {
		scale *= base;
		name[0] = units[unit++];
	}
	/* The remainder is below 2^60, so its thousandths need care. */
	three_digits(value / scale * 1000 +
			     (uint64_t)((double)(value % scale) * 1000.0 / (double)scale),
		     name, buf, len);
	return buf;
}

char *format_size(uint64_t bytes, char *buf, size_t len)
{
	return scaled(bytes, 1024, "KMGTPE", buf, len);
}

char *format_count(uint64_t count, char *buf, size_t len)
{
	return scaled(count, 1000, "kMGTPE", buf, len);
}

char *format_age(uint64_t ms, char *buf, size_t len)
{
	uint64_t s = ms / 1000;

	if (s < 10)
		snprintf(buf, len, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
	else if (s < 120)
		snprintf(buf, len, "%" PRIu64 " s", s);
	else if (s < 7200)
		snprintf(buf, len, "%" PRIu64 " min", s / 60);
	else if (s < 172800)
		snprintf(buf, len, "%" PRIu64 " h", s / 3600);
	else
		snprintf(buf, len, "%" PRIu64 " d", s / 86400);
	return buf;
}

/* The character that these bytes are; valid UTF-8 of that length. */
static wchar_t decode(const char *at, size_t bytes)
{
	static const unsigned char first[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	wchar_t c = (unsigned char)at[0] & first[bytes];

	for (size_t i = 1; i < bytes; i++)
		c = c << 6 | ((unsigned char)at[i] & 0x3f);
	return c;
}

/* Cells of the character at `at`, and its bytes; -1 cells for what no terminal should get. */
static int measure(const char *at, size_t left, bool unicode, size_t *bytes)
{
	size_t n = qmp_utf8_len(at, left);

	*bytes = n ? n : 1;
	if (n == 0 || (n > 1 && !unicode))
		return -1;
	if (n == 1)
		return (unsigned char)*at < 0x20 || *at == 0x7f ? -1 : 1;
	/* What has no cell of its own could still change its neighbour, or the direction. */
	return wcwidth(decode(at, n)) > 0 ? wcwidth(decode(at, n)) : -1;
}

char *format_safe(const char *text, bool unicode, char *buf, size_t len)
{
	size_t left = strlen(text), out = 0, bytes;

	while (left) {
		bool good = measure(text, left, unicode, &bytes) > 0;
		size_t n = good ? bytes : 1;

		if (out + n >= len)
			break;
		if (good)
			memcpy(buf + out, text, n);
		else
			buf[out] = '?';
		out += n;
		text += bytes;
		left -= bytes;
	}
	if (len)
		buf[out] = '\0';
	return buf;
}

unsigned int format_width(const char *text)
{
	size_t left = strlen(text), bytes;
	unsigned int width = 0;

	while (left) {
		int cells = measure(text, left, true, &bytes);

		width += cells > 0 ? (unsigned int)cells : 1;
		text += bytes;
		left -= bytes;
	}
	return width;
}

char *format_fit(const char *text, unsigned int cells, bool unicode, char *buf, size_t len)
{
	const char *mark = unicode ? "\u2026" : "~";
	size_t left = strlen(text), out = 0, bytes;
	bool cut = format_width(text) > cells;
	unsigned int room = cut && cells ? cells - 1 : cells;

	while (left) {
		int wide = measure(text, left, true, &bytes);
		unsigned int w = wide > 0 ? (unsigned int)wide : 1;

		if (w > room || out + bytes >= len)
			break;
		memcpy(buf + out, text, bytes);
		out += bytes;
		text += bytes;
		left -= bytes;
		room -= w;
	}
	if (len)
		buf[out] = '\0';
	if (cut && cells && out + strlen(mark) < len)
		memcpy(buf + out, mark, strlen(mark) + 1);
	return buf;
}
