// SPDX-License-Identifier: MIT
/*
 * Theory of operation: why there is a scanner in front of json-c's tokener.
 *
 * QMP has no framing: a message ends where its brackets balance. json-c's tokener can be fed in
 * pieces, but (0.16, strict mode) it refuses a UTF-8 character that is split between two calls,
 * turns 2^64 into 2^64-1, -2^63-1 into -2^63 and 1e400 into infinity, takes NaN, "1." and raw
 * control characters, repairs lone surrogates, cuts keys at \u0000, and lets the last of two equal
 * keys win. So this scanner collects one whole text, byte by byte (any split of the input gives
 * the same result by construction), checks every string and every number or literal when it
 * ends, and the tokener then gets the text in one call and checks the grammar. Duplicate keys
 * show afterwards: the text has as many members as colons outside of strings, and json-c's tree
 * has fewer exactly if two keys of one object were equal, however they were spelled. That needs
 * no memory for keys and no second opinion about escapes. (One fault of json-c 0.16 stays: it
 * does not check its copy of a key, so memory that ends at just that point is a crash; 0.17 does.)
 *
 * Errors and recovery follow QEMU's json-lexer and json-streamer:
 * - A byte that can stand nowhere (control character, 0xFF, upper case outside of a string, ...)
 *   is refused and ends the text at once, also in the middle of a string: the next byte starts
 *   afresh. A client in doubt sends 0xFF (or, in a string, a newline) to resynchronise.
 * - So does a closing bracket or brace without an opening one of its kind.
 * - Everything else (bad escape, bad number, limits exceeded) is refused when it is seen, and
 *   the rest of the text is skipped until its brackets balance, or one of the above comes.
 * - One text gives one error at most. While skipping nothing is stored, so endless or endlessly
 *   nested input costs time only.
 * - A number or literal outside of brackets ends at the byte behind it, as there is no other way
 *   to tell; whitespace before a text is dropped.
 */
#include "qmp/scan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Buffers above this are given back between messages. Bytes. */
#define KEEP_CAP 4096u

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Bytes a number or literal goes on with; whether it is a good one is seen at its end. */
static bool is_word(char c)
{
	return is_digit(c) || is_lower(c) || (c >= 'A' && c <= 'Z') || c == '+' || c == '-' ||
	       c == '.';
}

static const char *skip_digits(const char *s)
{
	while (is_digit(*s))
		s++;
	return s;
}

/* number = [ "-" ] int [ frac ] [ exp ] of RFC 8259; *@integer: neither frac nor exp */
static bool is_number(const char *s, bool *integer)
{
	const char *start;

	*integer = true;
	if (*s == '-')
		s++;
	start = s;
	s = skip_digits(s);
	if (s == start || (*start == '0' && s - start > 1))
		return false;
	if (*s == '.') {
		start = ++s;
		s = skip_digits(s);
		if (s == start)
			return false;
		*integer = false;
	}
	if (*s == 'e' || *s == 'E') {
		s++;
		if (*s == '+' || *s == '-')
			s++;
		start = s;
		s = skip_digits(s);
		if (s == start)
			return false;
		*integer = false;
	}
	return *s == '\0';
}

/* QEMU makes an integer that does not fit a double; to lose digits silently is not for us. */
static int check_word(const char *word, struct qmp_error *err)
{
	bool integer;

	if (!is_digit(*word) && *word != '-') {
		if (!strcmp(word, "true") || !strcmp(word, "false") || !strcmp(word, "null"))
			return 0;
		return qmp_error_set(err, QMP_GENERIC_ERROR,
				     "JSON parse error, invalid keyword '%s'", word);
	}
	if (!is_number(word, &integer))
		return qmp_error_set(err, QMP_GENERIC_ERROR,
				     "JSON parse error, invalid number '%s'", word);
	errno = 0;
	if (!integer ? isfinite(strtod(word, NULL))
		     : (*word == '-' ? (strtoll(word, NULL, 10), errno == 0)
				     : (strtoull(word, NULL, 10), errno == 0)))
		return 0;
	return qmp_error_set(err, QMP_GENERIC_ERROR, "JSON parse error, number '%s' out of range",
			     word);
}

/* Value of the escape \uXXXX at @s, or -1. */
static long hex_escape(const char *s, const char *end)
{
	long value = 0;

	if (end - s < 6 || s[0] != '\\' || s[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++) {
		static const char digits[] = "0123456789abcdef";
		const char *d = memchr(digits, s[i] | 0x20, 16);

		if (!d || (s[i] < '0'))
			return -1;
		value = value * 16 + (d - digits);
	}
	return value;
}

/* Checks what stands between the quotes. */
static int check_string(const char *s, const char *end, struct qmp_error *err)
{
	while (s < end) {
		size_t n = qmp_utf8_len(s, (size_t)(end - s));
		long code, low;

		if (!n)
			return qmp_error_set(err, QMP_GENERIC_ERROR,
					     "JSON parse error, invalid UTF-8 sequence in string");
		if (*s != '\\') {
			s += n;
			continue;
		}
		if (s[1] != 'u') {
			if (!strchr("\"\\/bfnrt", s[1]))
				return qmp_error_set(
					err, QMP_GENERIC_ERROR,
					"JSON parse error, invalid escape sequence in string");
			s += 2;
			continue;
		}
		code = hex_escape(s, end);
		if (code < 0)
			return qmp_error_set(
				err, QMP_GENERIC_ERROR,
				"JSON parse error, invalid hex escape sequence in string");
		n = 6;
		if (code >= 0xd800 && code <= 0xdbff) {
			low = hex_escape(s + 6, end);
			if (low >= 0xdc00 && low <= 0xdfff) {
				code = 0x10000;
				n = 12;
			}
		}
		/* NUL as well: C strings end there, and "quit\u0000x" must not run quit. */
		if (code == 0 || (code >= 0xd800 && code <= 0xdfff))
			return qmp_error_set(
				err, QMP_GENERIC_ERROR,
				"JSON parse error, %.6s is not a valid Unicode character", s);
		s += n;
	}
	return 0;
}

static void drop_text(struct qmp_scan *scan)
{
	scan->text.len = 0;
	scan->colons = 0;
	scan->tokens = 0;
	if (scan->text.cap > KEEP_CAP)
		qmp_buf_free(&scan->text);
}

/* Back to the start: the text is complete, or abandoned. */
static void restart(struct qmp_scan *scan)
{
	drop_text(scan);
	scan->braces = 0;
	scan->brackets = 0;
	scan->state = QMP_SCAN_BETWEEN;
	scan->discard = false;
	scan->complete = false;
}

/* The text is refused, *@err says why; unless it was before, that is an event. */
static enum qmp_scan_event refuse(struct qmp_scan *scan)
{
	if (scan->discard)
		return QMP_SCAN_MORE;
	scan->discard = true;
	drop_text(scan);
	return QMP_SCAN_ERROR;
}

/* As above, and its end is here. */
static enum qmp_scan_event refuse_now(struct qmp_scan *scan, struct qmp_error *err, char c)
{
	bool told = scan->discard;

	restart(scan);
	if (told)
		return QMP_SCAN_MORE;
	if ((unsigned char)c - 1u < 0x7f)
		qmp_error_set(err, QMP_GENERIC_ERROR, "JSON parse error, stray '%c'", c);
	else
		qmp_error_set(err, QMP_GENERIC_ERROR, "JSON parse error, stray '\xef\xbf\xbd'");
	return QMP_SCAN_ERROR;
}

static size_t limit(size_t wanted, size_t usual)
{
	return wanted ? wanted : usual;
}

static enum qmp_scan_event store_run(struct qmp_scan *scan, const char *data, size_t len,
				     struct qmp_error *err)
{
	if (scan->discard || len == 0)
		return QMP_SCAN_MORE;
	if (len > limit(scan->limits.bytes, QMP_MESSAGE_MAX) - scan->text.len) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "JSON token size limit exceeded");
		return refuse(scan);
	}
	if (qmp_buf_append(&scan->text, data, len))
		return QMP_SCAN_NOMEM;
	scan->text.data[scan->text.len] = '\0'; /* there is always room for it */
	return QMP_SCAN_MORE;
}

static enum qmp_scan_event store(struct qmp_scan *scan, char c, struct qmp_error *err)
{
	return store_run(scan, &c, 1, err);
}

/* A token ended and @event is what it brought so far. */
static enum qmp_scan_event end_token(struct qmp_scan *scan, enum qmp_scan_event event)
{
	scan->state = QMP_SCAN_BETWEEN;
	if (scan->braces || scan->brackets)
		return event;
	if (scan->discard) {
		restart(scan);
		return event;
	}
	scan->complete = true;
	return QMP_SCAN_TEXT;
}

static enum qmp_scan_event end_word(struct qmp_scan *scan, struct qmp_error *err)
{
	if (!scan->discard && check_word(scan->text.data + scan->token_start, err))
		return end_token(scan, refuse(scan));
	return end_token(scan, QMP_SCAN_MORE);
}

static enum qmp_scan_event end_string(struct qmp_scan *scan, struct qmp_error *err)
{
	if (!scan->discard && check_string(scan->text.data + scan->token_start + 1,
					   scan->text.data + scan->text.len - 1, err))
		return end_token(scan, refuse(scan));
	return end_token(scan, QMP_SCAN_MORE);
}

/* One of {}[],: */
static enum qmp_scan_event structural(struct qmp_scan *scan, char c, struct qmp_error *err)
{
	size_t *open = c == '{' || c == '}' ? &scan->braces : &scan->brackets;
	enum qmp_scan_event event;

	if ((c == '}' || c == ']') && *open == 0)
		return refuse_now(scan, err, c);
	event = store(scan, c, err);
	if (event == QMP_SCAN_NOMEM)
		return event;
	if (c == '{' || c == '[')
		++*open;
	else if (c == '}' || c == ']')
		--*open;
	else if (c == ':')
		scan->colons++;
	scan->tokens++;
	if (!scan->discard && scan->tokens > limit(scan->limits.tokens, QMP_TOKENS_MAX)) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "JSON token count limit exceeded");
		event = refuse(scan);
	} else if (!scan->discard && scan->braces + scan->brackets > QMP_DEPTH_MAX) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "JSON nesting depth limit exceeded");
		event = refuse(scan);
	}
	return end_token(scan, event);
}

/* One byte outside of words and strings. */
static enum qmp_scan_event between(struct qmp_scan *scan, char c, struct qmp_error *err)
{
	if (is_space(c))
		return scan->braces + scan->brackets ? store(scan, c, err) : QMP_SCAN_MORE;
	if (c && strchr("{}[],:", c))
		return structural(scan, c, err);
	if (c != '"' && c != '-' && !is_digit(c) && !is_lower(c))
		return refuse_now(scan, err, c);
	scan->state = c == '"' ? QMP_SCAN_STRING : QMP_SCAN_WORD;
	scan->token_start = scan->text.len;
	return store(scan, c, err);
}

/* Bytes that stand for themselves in a string; where such a one is not UTF-8 is seen at its end. */
static bool is_plain(char c)
{
	return (unsigned char)c >= 0x20 && (unsigned char)c < 0xfe && c != '"' && c != '\\';
}

/* How many bytes at the start of @data go on with the token and change nothing. */
static size_t run_length(enum qmp_scan_state state, const char *data, size_t len)
{
	size_t n = 0;

	if (state == QMP_SCAN_WORD) {
		while (n < len && is_word(data[n]))
			n++;
	} else if (state == QMP_SCAN_STRING) {
		while (n < len && is_plain(data[n]))
			n++;
	}
	return n;
}

static enum qmp_scan_event in_string(struct qmp_scan *scan, char c, struct qmp_error *err)
{
	enum qmp_scan_event event;

	if ((unsigned char)c < 0x20 || (unsigned char)c >= 0xfe)
		return refuse_now(scan, err, c);
	event = store(scan, c, err);
	if (event == QMP_SCAN_NOMEM)
		return event;
	if (scan->state == QMP_SCAN_ESCAPE)
		scan->state = QMP_SCAN_STRING;
	else if (c == '\\')
		scan->state = QMP_SCAN_ESCAPE;
	else if (c == '"' && event == QMP_SCAN_ERROR)
		return end_token(scan, event);
	else if (c == '"')
		return end_string(scan, err);
	return event;
}

void qmp_scan_done(struct qmp_scan *scan)
{
	if (scan->complete)
		restart(scan);
}

bool qmp_scan_at_start(const struct qmp_scan *scan)
{
	return scan->complete ||
	       (scan->state == QMP_SCAN_BETWEEN && !scan->braces && !scan->brackets);
}

enum qmp_scan_event qmp_scan(struct qmp_scan *scan, const char *data, size_t len, size_t *used,
			     struct qmp_error *err)
{
	enum qmp_scan_event event = QMP_SCAN_MORE;
	size_t i = 0;

	qmp_scan_done(scan);
	while (i < len && event == QMP_SCAN_MORE) {
		size_t run = run_length(scan->state, data + i, len - i);

		if (run) {
			event = store_run(scan, data + i, run, err);
			i += run;
		} else if (scan->state == QMP_SCAN_WORD) {
			event = end_word(scan, err); /* and this byte comes again */
		} else if (scan->state == QMP_SCAN_BETWEEN) {
			event = between(scan, data[i++], err);
		} else {
			event = in_string(scan, data[i++], err);
		}
	}
	*used = i;
	return event;
}

int qmp_scan_parse(const struct qmp_scan *scan, struct json_object **value, struct qmp_error *err)
{
	/* One level more than the scanner lets through, so that its limit is the one that tells. */
	struct json_tokener *tok = json_tokener_new_ex((int)QMP_DEPTH_MAX + 1);
	enum json_tokener_error error;

	*value = NULL;
	if (!tok)
		return -ENOMEM;
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	/* With the NUL: a number on its own ends nowhere else. */
	*value = json_tokener_parse_ex(tok, scan->text.data, (int)scan->text.len + 1);
	error = json_tokener_get_error(tok);
	json_tokener_free(tok);
	if (error == json_tokener_success && qmp_json_count_members(*value) == scan->colons)
		return 0;
	json_object_put(*value);
	*value = NULL;
	return qmp_error_set(err, QMP_GENERIC_ERROR, "JSON parse error, %s",
			     error == json_tokener_success ? "duplicate key"
							   : json_tokener_error_desc(error));
}

void qmp_scan_free(struct qmp_scan *scan)
{
	qmp_buf_free(&scan->text);
	*scan = (struct qmp_scan){0};
}
