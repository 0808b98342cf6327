// SPDX-License-Identifier: MIT
/*
 * Every allocation of a client fails once: a request is refused, or answered exactly once; either
 * the client goes on and nothing is missing, or it says that it is lost. What goes out is whole
 * lines. The allocator of this program is the real one but for the one call that fails.
 */
#define ALLOC_STRDUP_WORKS
#include "alloc_helpers.h"

#include <errno.h>
#include <string.h>

#include "qmp/client.h"

enum { REQUESTS = 3 };

static struct {
	int ready;
	int events;
	int lost;
	int error;
	int taken;
	int answers[REQUESTS];
	enum qmp_answer_kind kinds[REQUESTS];
	size_t lines;
} seen;

static void on_ready(void *opaque, struct json_object *greeting)
{
	(void)opaque;
	assert_non_null(qmp_obj_get(greeting, "version", json_type_object));
	seen.ready++;
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	uint64_t value = 0;

	(void)opaque;
	assert_int_equal(qmp_obj_get_uint64(event->data, "actual", &value), 0);
	assert_int_equal(value, 7);
	seen.events++;
}

static void on_lost(void *opaque, int error, const char *why)
{
	(void)opaque;
	assert_non_null(why);
	seen.lost++;
	seen.error = error;
}

static const struct qmp_client_ops ops = {.ready = on_ready, .event = on_event, .lost = on_lost};

static void on_answer(void *opaque, const struct qmp_answer *answer)
{
	int *count = opaque;
	size_t i = (size_t)(count - seen.answers);

	assert_in_range(i, 0, REQUESTS - 1);
	seen.kinds[i] = answer->kind;
	if (answer->kind == QMP_ANSWER_ERROR)
		assert_string_equal(answer->error->desc, "no");
	++*count;
}

/* Every line that goes out is a whole one. */
static void take(struct qmp_client *client)
{
	size_t len;
	char *data = qmp_client_take_output(client, &len);

	if (!data)
		return;
	assert_memory_equal(data, "{\"execute\": ", 12);
	assert_memory_equal(data + len - 3, "}\r\n", 3);
	for (const char *p = data; (p = memchr(p, '\n', len - (size_t)(p - data))); p++)
		seen.lines++;
	free(data);
	qmp_client_written(client, len);
}

static const char *const script[] = {
	"{\"QMP\": {\"version\": {\"qemu\": {}}, \"capabilities\": []}}\r\n",
	"{\"return\": {}, \"id\": 0}{\"event\": \"A\", \"data\": {\"actual\": 7}}",
	"{\"return\": [{\"a\": 1.5}, \"text\"], \"id\": 1}{\"event\": \"A\", \"data\": {\"act",
	"ual\": 7}}{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no\"}, \"id\": 2}",
};

/* Requests while there are numbers for the script's answers. */
static void ask_all(struct qmp_client *client)
{
	while (seen.taken < REQUESTS && qmp_client_state(client) == QMP_CLIENT_READY) {
		struct json_object *args = json_object_new_object();
		int ret;

		qmp_obj_add(&args, "value", json_object_new_uint64(UINT64_MAX));
		ret = qmp_client_execute(client, "balloon", args, 5, on_answer,
					 &seen.answers[seen.taken]);
		if (ret == 0)
			seen.taken++;
		else
			assert_int_equal(ret, -ENOMEM); /* and it may be tried again */
	}
}

/* One connection with the @nth allocation failing; whether that came to be. */
static bool run(unsigned long nth)
{
	struct qmp_client *client;
	bool failed;

	memset(&seen, 0, sizeof(seen));
	alloc_fail_at(nth);
	client = qmp_client_new(&ops, NULL, 5, NULL);
	for (size_t i = 0; client && i < sizeof(script) / sizeof(script[0]); i++) {
		qmp_client_feed(client, script[i], strlen(script[i]));
		ask_all(client);
		take(client);
		if (i == 1) { /* more than a batch */
			char spaces[QMP_CLIENT_BATCH * 40 + 100];
			size_t len = 0;

			for (size_t n = 0; n < QMP_CLIENT_BATCH + 2; n++) {
				static const char event[] =
					"{\"event\":\"A\",\"data\":{\"actual\":7}}";

				memcpy(spaces + len, event, sizeof(event) - 1);
				len += sizeof(event) - 1;
			}
			qmp_client_feed(client, spaces, len);
			qmp_client_tick(client, 4);
		}
	}
	if (client)
		qmp_client_tick(client, 5);
	qmp_client_free(client);
	failed = alloc_failed();
	alloc_fail_at(0);
	if (!client)
		seen.lost++;
	return failed;
}

static void check_whole(void)
{
	assert_int_equal(seen.lost, 0);
	assert_int_equal(seen.ready, 1);
	assert_int_equal(seen.events, QMP_CLIENT_BATCH + 4);
	assert_int_equal(seen.taken, REQUESTS);
	assert_int_equal(seen.lines, REQUESTS + 1);
	assert_int_equal(seen.kinds[0], QMP_ANSWER_RETURN);
	assert_int_equal(seen.kinds[1], QMP_ANSWER_ERROR);
	assert_int_equal(seen.kinds[2], QMP_ANSWER_TIMEOUT);
}

static void test_each_allocation(void **state)
{
	unsigned long nth = 0, lost = 0, refused = 0;

	(void)state;
	run(0);
	check_whole();
	while (run(++nth)) {
		for (int i = 0; i < REQUESTS; i++)
			assert_int_equal(seen.answers[i], i < seen.taken ? 1 : 0);
		if (!seen.lost) {
			check_whole();
			refused++;
			continue;
		}
		assert_int_equal(seen.lost, 1);
		/* json-c 0.16 calls a failure in the middle of a text a fault of the text */
		assert_true(seen.error == 0 || seen.error == -ENOMEM || seen.error == -EPROTO);
		lost++;
	}
	/* that was the run in which none failed any more */
	check_whole();
	assert_true(lost > 100);
	assert_true(refused > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
