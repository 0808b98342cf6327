/* SPDX-License-Identifier: MIT */
/* A client that is told of in words. */
#ifndef QMP_CLIENT_HELPERS_H
#define QMP_CLIENT_HELPERS_H

#include "qmp_told_helpers.h"

static const struct qmp_client_ops ops = {.ready = on_ready, .event = on_event, .lost = on_lost};

static int ask_for(struct qmp_client *client, const char *command, struct json_object *args,
		   uint64_t deadline, qmp_client_done *done, const char *name)
{
	return qmp_client_execute(client, command, args, deadline, done, (void *)(uintptr_t)name);
}

static int ask(struct qmp_client *client, const char *name, uint64_t deadline)
{
	return ask_for(client, "ask", json_object_new_object(), deadline, on_answer, name);
}

/* What waits to be written, all of it written at once, is @expected. */
static void expect_output(struct qmp_client *client, const char *expected)
{
	size_t len = 0;
	char *data = qmp_client_take_output(client, &len);

	assert_int_equal(len, strlen(expected));
	if (len)
		assert_memory_equal(data, expected, len);
	free(data);
	qmp_client_written(client, len);
}

static int feed(struct qmp_client *client, const char *text)
{
	return qmp_client_feed(client, text, strlen(text));
}

static struct qmp_client *connect_raw(uint64_t deadline)
{
	struct qmp_client *client = qmp_client_new(&ops, &mark, deadline, NULL);

	assert_non_null(client);
	return client;
}

static struct qmp_client *connect_ready(void)
{
	struct qmp_client *client = connect_raw(QMP_CLIENT_NEVER);

	assert_int_equal(feed(client, GREETING), 0);
	expect_output(client, NEGOTIATE);
	assert_int_equal(feed(client, NEGOTIATED), 0);
	expect_told("ready 11;");
	return client;
}

#endif
