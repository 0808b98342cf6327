// SPDX-License-Identifier: MIT
/*
 * What a monitor answers, in any order and of any kind. Input: pieces that end with a NUL, of which
 * the first byte says what was asked, or what event it is, and the rest is JSON. Whatever comes,
 * what is known of the VM keeps its bounds, and its names are text.
 */
#include "../src/aerostatd/endpoint_parts.h"
#include "input.h"
#include "qmp/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_text(const char *text, size_t room)
{
	size_t len = strnlen(text, room), step;

	if (len == room)
		return false;
	for (size_t i = 0; i < len; i += step) {
		step = qmp_utf8_len(text + i, len - i);
		if (!step || (unsigned char)text[i] < ' ' || text[i] == 0x7f ||
		    (step > 1 && qmp_utf8_is_control(text + i)))
			return false;
	}
	return true;
}

static void check(const struct endpoint *e, struct instant now)
{
	const struct endpoint_view *v = &e->view;

	require(is_text(v->name, sizeof(v->name)) && is_text(v->uuid, sizeof(v->uuid)));
	require(memchr(e->balloon, '\0', sizeof(e->balloon)) != NULL);
	require(v->size <= ENDPOINT_SIZE_MAX && v->actual <= ENDPOINT_SIZE_MAX);
	require(v->target == MANAGER_UNKNOWN || v->target <= ENDPOINT_SIZE_MAX);
	require((unsigned int)v->health < HEALTH_STATE_COUNT);
	require((unsigned int)v->kind < ENDPOINT_KIND_COUNT);
	require(v->driver <= MANAGER_DRIVER_FULL);
	require(v->stats.at_ms <= now.mono_ms);
	require(!(v->device.errors_known >> ENDPOINT_ERROR_COUNT));
	require(!v->device.known || v->device.resident <= ENDPOINT_SIZE_MAX);
	require(!v->ready || (v->size && v->actual));
}

/* As the client of a monitor gets it; false: it would not. */
static bool parse(const char *text, size_t len, struct json_object **value)
{
	struct qmp_scan scan = {0};
	struct qmp_error err;
	size_t used;
	bool good = qmp_scan(&scan, text, len, &used, &err) == QMP_SCAN_TEXT &&
		    qmp_scan_parse(&scan, value, &err) == 0;

	qmp_scan_free(&scan);
	return good;
}

static void take(struct endpoint *e, uint8_t what, struct json_object *value, struct instant now)
{
	unsigned int changes = 0;

	if (what % 16 < QUESTION_COUNT) {
		if (question_applies(e, (enum question)(what % 16)))
			(void)question_answer(e, (enum question)(what % 16), value, now, &changes);
	} else if (what % 16 == QUESTION_COUNT) {
		(void)endpoint_take_stats(e, value, now);
		(void)endpoint_take_actual(e, value);
	} else if (what % 16 == QUESTION_COUNT + 1) {
		(void)endpoint_take_health(e, value);
	} else {
		endpoint_forget_driver(e);
	}
	require(!(changes >> (ENDPOINT_CHANGE_DEVICE + 1)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct instant now = {.mono_ms = 1000000, .wall_us = 1700000000500000};
	struct endpoint e = {.interval_ms = 1000};
	const char *at = (const char *)data, *end = at + size;

	e.view.target = MANAGER_UNKNOWN;
	e.view.running = true;
	while (at < end) {
		const char *stop = memchr(at, '\0', (size_t)(end - at));
		struct json_object *value = NULL;

		stop = stop ? stop : end;
		if (stop > at && parse(at + 1, (size_t)(stop - at - 1), &value)) {
			now.mono_ms += 300;
			take(&e, (uint8_t)*at, value, now);
			check(&e, now);
			json_object_put(value);
		}
		at = stop + 1;
	}
	return 0;
}
