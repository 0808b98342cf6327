// SPDX-License-Identifier: MIT
/*
 * A monitor that sends anything, in any split, and may hang or go at any time.
 *
 * Input: byte 0 chooses the splits, bit 7 of it whether the monitor greets and negotiates first as
 * it should; the rest is what it sends. Requests are made when the client is ready and by
 * callbacks. Fed twice, in pieces and whole, the callbacks must be told the same; and always each
 * request that was taken has exactly one answer, and nothing comes after the client was lost.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "qmp/client.h"

#define PENDING 64 /* requests of one run at most */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct qmp_client *client;
static struct qmp_buf told;
static size_t taken;
static unsigned int answers[PENDING];
static bool lost;
static bool rude; /* callbacks close the client now and then */

static void on_answer(void *opaque, const struct qmp_answer *answer);

static void ask(void)
{
	struct json_object *args = json_object_new_object();

	if (taken == PENDING) {
		json_object_put(args);
		return;
	}
	qmp_obj_add(&args, "value", json_object_new_uint64(UINT64_MAX));
	if (!qmp_client_execute(client, "balloon", args, 10 + taken % 7, on_answer,
				&answers[taken])) {
		require(!lost);
		taken++;
	}
}

static void tell_value(struct json_object *value)
{
	require(qmp_json_write(&told, value) == 0);
}

static void on_answer(void *opaque, const struct qmp_answer *answer)
{
	unsigned int *count = opaque;

	require(++*count == 1);
	require(!lost);
	require((answer->kind == QMP_ANSWER_ERROR) == !!answer->error);
	require(!answer->value || answer->kind == QMP_ANSWER_RETURN);
	qmp_buf_printf(&told, "%zu: %d ", (size_t)(count - answers), (int)answer->kind);
	if (answer->error)
		qmp_buf_printf(&told, "%s %s", qmp_error_class_name(answer->error->class),
			       answer->error->desc);
	tell_value(answer->value);
	if (rude && told.len % 5 == 0)
		qmp_client_close(client, -1, "rude");
	ask();
}

static void on_ready(void *opaque, struct json_object *greeting)
{
	(void)opaque;
	tell_value(greeting);
	for (int i = 0; i < 4; i++)
		ask();
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	(void)opaque;
	require(!lost);
	require(!event->data || json_object_is_type(event->data, json_type_object));
	require(event->microseconds >= 0 && event->microseconds < 1000000);
	qmp_buf_printf(&told, "%s %" PRId64 ".%" PRId32 " %" PRIu64, event->name, event->seconds,
		       event->microseconds, event->dropped);
	tell_value(event->data);
	ask();
}

static void on_lost(void *opaque, int error, const char *why)
{
	(void)opaque;
	require(!lost && qmp_client_pending(client) == 0);
	lost = true;
	qmp_buf_printf(&told, "lost %d %s", error, why);
}

static const struct qmp_client_ops ops = {.ready = on_ready, .event = on_event, .lost = on_lost};

/* What is written are whole lines. */
static void take(void)
{
	size_t len;
	char *data = qmp_client_take_output(client, &len);

	if (!data)
		return;
	require(len > 2 && data[0] == '{' && data[len - 1] == '\n');
	free(data);
	qmp_client_written(client, len);
}

static void begin(bool negotiate)
{
	static const char well[] = "{\"QMP\":{\"version\":{},\"capabilities\":[]}}"
				   "{\"return\":{},\"id\":0}";

	told = (struct qmp_buf){0};
	taken = 0;
	memset(answers, 0, sizeof(answers));
	lost = false;
	client = qmp_client_new(&ops, NULL, 5, NULL);
	require(!!client);
	if (negotiate)
		require(qmp_client_feed(client, well, sizeof(well) - 1) == 0);
}

static void end(void)
{
	bool was_lost = lost;

	qmp_client_free(client);
	client = NULL;
	require(was_lost == lost);
	for (size_t i = 0; i < taken; i++)
		require(answers[i] == 1);
}

/* Feeds @len bytes in pieces of @step, with a time that stands still. Returns what was told. */
static struct qmp_buf replies(const char *in, size_t len, size_t step, bool negotiate)
{
	struct qmp_buf result;

	begin(negotiate);
	for (size_t pos = 0; pos < len; pos += step) {
		size_t n = len - pos < step ? len - pos : step;

		qmp_client_feed(client, in + pos, n);
		while (qmp_client_next_deadline(client) == 0)
			qmp_client_tick(client, 0);
		take();
		require(qmp_client_wants_input(client) == !lost);
	}
	result = told;
	told = (struct qmp_buf){0};
	end(); /* those that are pending now depend on nothing any more */
	qmp_buf_free(&told);
	return result;
}

/* The same with a clock, a program that is slow, and callbacks that close. */
static void hang(const char *in, size_t len, size_t step)
{
	begin(true);
	rude = true;
	for (size_t pos = 0, turn = 0; pos < len; pos += step, turn++) {
		size_t n = len - pos < step ? len - pos : step;

		if (qmp_client_feed(client, in + pos, n)) {
			require(lost);
			break;
		}
		if (turn % 3 == 2)
			qmp_client_tick(client, turn);
		if (turn % 4 == 3)
			take();
	}
	if (step % 2)
		qmp_client_close(client, -2, "gone");
	end();
	rude = false;
	qmp_buf_free(&told);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *in = (const char *)data + 1;
	struct qmp_buf whole, pieces;
	size_t step;

	if (size < 2)
		return 0;
	step = 1 + (data[0] & 0x3fu);
	whole = replies(in, size - 1, size - 1, data[0] & 0x80);
	pieces = replies(in, size - 1, step, data[0] & 0x80);
	require(whole.len == pieces.len);
	require(!whole.len || !memcmp(whole.data, pieces.data, whole.len));
	qmp_buf_free(&whole);
	qmp_buf_free(&pieces);
	hang(in, size - 1, step);
	return 0;
}
