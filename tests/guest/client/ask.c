// SPDX-License-Identifier: MIT
/*
 * qmp-ask SOCKET MS [BYTES TOKENS]: lib/qmp's client connected to a monitor, ready within MS
 * milliseconds. BYTES and TOKENS are the limits of one message, else they are the usual ones.
 *
 * Standard input is lines: "ask MS COMMAND [ARGUMENTS]" makes a request with that time-out and
 * arguments in JSON; "count" asks for the numbers that the client keeps. Standard output is
 * lines of JSON: what the callbacks are told, each as it comes.
 *
 *	{"ready": GREETING}                  {"event": NAME, "data": DATA, "seconds": N, "dropped":
 *N}
 *	{"answer": N, "return": VALUE}       {"answer": N, "class": CLASS, "desc": TEXT}
 *	{"answer": N, "timeout": MS}         {"answer": N, "lost": true}    N counts requests from 1
 *	{"answer": N, "refused": -ERRNO}     {"lost": -ERRNO, "why": TEXT}
 *	{"pending": N, "late": N}
 *
 * Ends with 0 at the end of its input, and with 1 if it cannot start or run.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "qmp/client.h"

struct request {
	int64_t number;
	int64_t timeout;
};

static struct qmp_client *client;
static int64_t requests;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000U + (uint64_t)t.tv_nsec / 1000000U;
}

static void die(const char *what)
{
	fprintf(stderr, "qmp-ask: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Prints one line, and drops @obj. */
static void print(struct json_object *obj)
{
	struct qmp_buf line = {0};

	qmp_json_write(&line, obj);
	if (!obj || qmp_buf_append(&line, "\n", 1) ||
	    fwrite(line.data, 1, line.len, stdout) != line.len || fflush(stdout))
		die("standard output");
	qmp_buf_free(&line);
	json_object_put(obj);
}

static void add_int(struct json_object **obj, const char *key, int64_t value)
{
	qmp_obj_add(obj, key, json_object_new_int64(value));
}

/* JSON's null, which is NULL to json-c, too. */
static void add_borrowed(struct json_object **obj, const char *key, struct json_object *value)
{
	if (value)
		qmp_obj_add(obj, key, json_object_get(value));
	else if (*obj)
		json_object_object_add(*obj, key, NULL);
}

static void on_ready(void *opaque, struct json_object *greeting)
{
	struct json_object *line = json_object_new_object();

	(void)opaque;
	add_borrowed(&line, "ready", greeting);
	print(line);
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	struct json_object *line = json_object_new_object();

	(void)opaque;
	qmp_obj_add(&line, "event", json_object_new_string(event->name));
	add_borrowed(&line, "data", event->data);
	add_int(&line, "seconds", event->seconds);
	qmp_obj_add(&line, "dropped", json_object_new_uint64(event->dropped));
	print(line);
}

static void on_lost(void *opaque, int error, const char *why)
{
	struct json_object *line = json_object_new_object();

	(void)opaque;
	add_int(&line, "lost", error);
	qmp_obj_add(&line, "why", json_object_new_string(why));
	print(line);
}

static void on_answer(void *opaque, const struct qmp_answer *answer)
{
	struct request *request = opaque;
	struct json_object *line = json_object_new_object();

	add_int(&line, "answer", request->number);
	switch (answer->kind) {
	case QMP_ANSWER_RETURN:
		add_borrowed(&line, "return", answer->value);
		break;
	case QMP_ANSWER_ERROR:
		qmp_obj_add(&line, "class",
			    json_object_new_string(qmp_error_class_name(answer->error->class)));
		qmp_obj_add(&line, "desc", json_object_new_string(answer->error->desc));
		break;
	case QMP_ANSWER_TIMEOUT:
		add_int(&line, "timeout", request->timeout);
		break;
	case QMP_ANSWER_LOST:
		qmp_obj_add(&line, "lost", json_object_new_boolean(1));
		break;
	}
	free(request);
	print(line);
}

static const struct qmp_client_ops ops = {.ready = on_ready, .event = on_event, .lost = on_lost};

static void ask(long timeout, const char *command, const char *arguments)
{
	struct request *request = calloc(1, sizeof(*request));
	struct json_object *line;
	int ret;

	if (!request)
		die("out of memory");
	*request = (struct request){.number = ++requests, .timeout = timeout};
	ret = qmp_client_execute(client, command,
				 *arguments ? json_tokener_parse(arguments)
					    : json_object_new_object(),
				 now_ms() + (uint64_t)timeout, on_answer, request);
	if (ret == 0)
		return;
	line = json_object_new_object();
	add_int(&line, "answer", request->number);
	add_int(&line, "refused", ret);
	free(request);
	print(line);
}

static void on_line(char *line)
{
	struct json_object *counts;
	char *rest, *end;
	const char *word = strtok_r(line, " ", &rest), *timeout, *command;

	if (word && !strcmp(word, "count")) {
		counts = json_object_new_object();
		add_int(&counts, "pending", (int64_t)qmp_client_pending(client));
		add_int(&counts, "late", (int64_t)qmp_client_late(client));
		print(counts);
		return;
	}
	timeout = strtok_r(NULL, " ", &rest);
	command = strtok_r(NULL, " ", &rest);
	if (word && !strcmp(word, "ask") && command) {
		long ms = strtol(timeout, &end, 10);

		if (!*end && ms >= 0) {
			ask(ms, command, rest);
			return;
		}
	}
	errno = EINVAL;
	die("standard input");
}

/* Reads what there is of standard input, and sees to whole lines. Whether there may be more. */
static bool read_lines(void)
{
	static char text[64 * 1024];
	static size_t len;
	ssize_t got = read(STDIN_FILENO, text + len, sizeof(text) - 1 - len);
	char *line = text, *end;

	if (got <= 0)
		return false;
	len += (size_t)got;
	text[len] = '\0';
	for (; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		on_line(line);
	}
	len -= (size_t)(line - text);
	memmove(text, line, len);
	return true;
}

static void read_monitor(int sock)
{
	char data[4096];
	ssize_t got = read(sock, data, sizeof(data));

	if (got > 0)
		qmp_client_feed(client, data, (size_t)got);
	else if (got == 0 || errno != EINTR)
		qmp_client_close(client, got ? -errno : -ECONNRESET,
				 got ? "the socket failed" : "the monitor has closed");
}

/* Writes what waits, as much as goes. Whether that was all. */
static bool write_monitor(int sock)
{
	static char *data;
	static size_t len, done;

	if (qmp_client_state(client) == QMP_CLIENT_LOST)
		return true;
	if (!data) {
		data = qmp_client_take_output(client, &len);
		done = 0;
	}
	while (data && done < len) {
		ssize_t put = send(sock, data + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (put < 0)
			break;
		done += (size_t)put;
		qmp_client_written(client, (size_t)put);
	}
	if (!data || done < len)
		return !data;
	free(data);
	data = NULL;
	return true;
}

/* Milliseconds for poll(2) until the client wants its tick. */
static int patience(void)
{
	uint64_t next = qmp_client_next_deadline(client), now = now_ms();

	if (next == QMP_CLIENT_NEVER)
		return -1;
	if (next <= now)
		return 0;
	return next - now < 60000 ? (int)(next - now) : 60000;
}

static void run(int sock)
{
	bool more = true;

	while (more) {
		bool all = write_monitor(sock);
		struct pollfd fds[] = {
			{.fd = STDIN_FILENO, .events = POLLIN},
			{.fd = qmp_client_state(client) == QMP_CLIENT_LOST ? -1 : sock,
			 .events = (short)((qmp_client_wants_input(client) ? POLLIN : 0) |
					   (all ? 0 : POLLOUT))},
		};

		if (poll(fds, 2, patience()) < 0 && errno != EINTR)
			die("poll");
		if (fds[1].revents & (POLLIN | POLLHUP | POLLERR))
			read_monitor(sock);
		qmp_client_tick(client, now_ms());
		if (fds[0].revents)
			more = read_lines();
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct qmp_limits limits = {0};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if ((argc != 3 && argc != 5) || strlen(argv[1]) >= sizeof(address.sun_path)) {
		fputs("usage: qmp-ask SOCKET MS [BYTES TOKENS]\n", stderr);
		return 1;
	}
	if (argc == 5)
		limits = (struct qmp_limits){.bytes = strtoul(argv[3], NULL, 10),
					     .tokens = strtoul(argv[4], NULL, 10)};
	memcpy(address.sun_path, argv[1], strlen(argv[1]));
	if (sock < 0 || connect(sock, (struct sockaddr *)&address, sizeof(address)))
		die(argv[1]);
	client = qmp_client_new(&ops, NULL, now_ms() + strtoul(argv[2], NULL, 10), &limits);
	if (!client)
		die("out of memory");
	run(sock);
	qmp_client_free(client);
	close(sock);
	return 0;
}
