// SPDX-License-Identifier: MIT
/*
 * libmicrohttpd has no thread of its own here: its set of descriptors is watched by our loop, and
 * it runs when one of them is ready, or its own time-out is over.
 */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 32U
#define TIMEOUT_S       10U /* of a connection that does nothing */

/* Of a request from its first byte to the end of its answer, however busy it is in between: who
 * sends a byte now and then would have his place for ever. Prometheus itself waits for 10 s. */
#define REQUEST_MS 15000U

/* Texts on their way: with a thousand VMs each has some megabytes, and a client may read slowly. */
#define TEXTS_MAX 4

/* Of a request and its headers; nobody who wants /metrics needs as much. */
#define CONNECTION_MEMORY (16U * 1024)

static const char type_openmetrics[] = "application/openmetrics-text; version=1.0.0; charset=utf-8";
static const char type_before[] = "text/plain; version=0.0.4; charset=utf-8";
static const char type_words[] = "text/plain; charset=utf-8";

struct place {
	struct MHD_Connection *connection; /* NULL: free */
	uint64_t since_ms;                 /* when it was made, or its last request was answered */
	bool ended;
};

struct http {
	struct MHD_Daemon *daemon;
	struct place places[CONNECTIONS_MAX];
	uv_poll_t poll;
	uv_timer_t timer;
	char *(*text)(void *opaque, bool openmetrics);
	void *opaque;
	int texts;   /* that are being sent */
	bool full;   /* of connections */
	int handles; /* that the loop still has */
};

/* Sends a response, and is done with it. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned int status,
			      const char *type, struct MHD_Response *response)
{
	enum MHD_Result result = MHD_NO;

	if (!response)
		return MHD_NO;
	if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES &&
	    (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
	     MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") == MHD_YES))
		result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result say(struct MHD_Connection *connection, unsigned int status, const char *text)
{
	return answer(connection, status, type_words,
		      MHD_create_response_from_buffer(strlen(text), (char *)(uintptr_t)text,
						      MHD_RESPMEM_PERSISTENT));
}

/* A text that is being sent, of which the count must know when that has ended. */
struct sending {
	struct http *http;
	char *text;
};

static void on_sent(void *opaque)
{
	struct sending *sending = opaque;

	sending->http->texts--;
	free(sending->text);
	free(sending);
}

/* Who says that he takes text, and not OpenMetrics, gets the format before it. */
static bool wants_openmetrics(struct MHD_Connection *connection)
{
	const char *accept =
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);

	return !accept || !strstr(accept, "text/plain") ||
	       strstr(accept, "application/openmetrics-text");
}

static enum MHD_Result send_metrics(struct http *http, struct MHD_Connection *connection)
{
	bool openmetrics = wants_openmetrics(connection);
	struct MHD_Response *response;
	struct sending *sending;

	if (http->texts == TEXTS_MAX)
		return say(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
			   "others are being served: try again\n");
	sending = malloc(sizeof(*sending));
	if (sending)
		*sending = (struct sending){http, http->text(http->opaque, openmetrics)};
	if (!sending || !sending->text) {
		free(sending);
		return say(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	}
	http->texts++;
	response = MHD_create_response_from_buffer_with_free_callback_cls(
		strlen(sending->text), sending->text, on_sent, sending);
	if (!response) {
		on_sent(sending);
		return MHD_NO;
	}
	return answer(connection, MHD_HTTP_OK, openmetrics ? type_openmetrics : type_before,
		      response);
}

static enum MHD_Result on_request(void *opaque, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *size, void **request)
{
	static int seen; /* its address marks a request whose headers were here before */
	struct http *http = opaque;

	(void)version;
	(void)data;
	if (!*request) {
		*request = &seen;
		return MHD_YES;
	}
	if (*size) {
		*size = 0; /* a body that nobody wants */
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return say(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
	if (strcmp(url, "/") == 0)
		return say(connection, MHD_HTTP_OK, "aerostatd: see /metrics\n");
	if (strcmp(url, "/metrics") != 0)
		return say(connection, MHD_HTTP_NOT_FOUND, "there is /metrics\n");
	return send_metrics(http, connection);
}

/* --- the loop --------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);

static unsigned int connections(const struct http *http)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

	return info ? info->num_connections : 0;
}

static void on_connection(void *opaque, struct MHD_Connection *connection, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http *http = opaque;
	struct place *place = *context;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED && place)
		place->connection = NULL;
	if (code != MHD_CONNECTION_NOTIFY_STARTED)
		return;
	for (place = http->places; place < http->places + CONNECTIONS_MAX; place++) {
		if (place->connection)
			continue;
		*place = (struct place){connection, uv_now(http->poll.loop), false};
		*context = place;
		return;
	}
}

static void on_completed(void *opaque, struct MHD_Connection *connection, void **request,
			 enum MHD_RequestTerminationCode code)
{
	struct http *http = opaque;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	(void)request;
	(void)code;
	if (info && info->socket_context)
		((struct place *)info->socket_context)->since_ms = uv_now(http->poll.loop);
}

/* Ends connections whose request takes too long. What they send brings us here; those that send
 * nothing are the library's to end. */
static void end_late(struct http *http)
{
	uint64_t now = uv_now(http->poll.loop);

	for (struct place *p = http->places; p < http->places + CONNECTIONS_MAX; p++) {
		const union MHD_ConnectionInfo *info;

		if (!p->connection || p->ended || now - p->since_ms <= REQUEST_MS)
			continue;
		p->ended = true;
		info = MHD_get_connection_info(p->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		if (info)
			shutdown(info->connect_fd, SHUT_RDWR);
	}
}

static void run(struct http *http)
{
	MHD_UNSIGNED_LONG_LONG ms;

	end_late(http);
	MHD_run(http->daemon);
	/* It listens no more while there is no room, and finds out that there is at its next run,
	 * for which nothing else may come. */
	while (http->full && connections(http) < CONNECTIONS_MAX) {
		http->full = false;
		MHD_run(http->daemon);
	}
	http->full = connections(http) >= CONNECTIONS_MAX;
	if (MHD_get_timeout(http->daemon, &ms) == MHD_YES)
		uv_timer_start(&http->timer, on_timer, ms, 0);
	else
		uv_timer_stop(&http->timer);
}

static void on_timer(uv_timer_t *timer)
{
	run(timer->data);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	run(poll->data);
}

/* --- the address ------------------------------------------------------------------------------ */

/* "127.0.0.1:9177" or "[::1]:9177". 0 or an error of getaddrinfo(). */
static int parse_address(const char *listener, struct addrinfo **found)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
				       .ai_socktype = SOCK_STREAM};
	const char *port = strrchr(listener, ':');
	char address[128];
	size_t len;

	if (!port)
		return EAI_NONAME;
	len = (size_t)(port - listener);
	if (len > 2 && listener[0] == '[' && port[-1] == ']') {
		listener++;
		len -= 2;
	}
	if (len >= sizeof(address))
		return EAI_NONAME;
	memcpy(address, listener, len);
	address[len] = '\0';
	return getaddrinfo(address, port + 1, &hints, found);
}

static struct MHD_Daemon *listen_at(struct http *http, const struct addrinfo *address)
{
	unsigned int flags = MHD_USE_EPOLL;

	if (address->ai_family == AF_INET6)
		flags |= MHD_USE_IPv6;
	return MHD_start_daemon(flags, 0, NULL, NULL, on_request, http, MHD_OPTION_SOCK_ADDR,
				address->ai_addr, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
				MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
				MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
				MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_END);
}

struct http *http_start(uv_loop_t *loop, const char *listener,
			char *(*text)(void *opaque, bool openmetrics), void *opaque, char *error,
			size_t error_size)
{
	struct http *http = calloc(1, sizeof(*http));
	const union MHD_DaemonInfo *info;
	struct addrinfo *address = NULL;
	int r;

	if (!http) {
		snprintf(error, error_size, "%s: out of memory", listener);
		return NULL;
	}
	http->text = text;
	http->opaque = opaque;
	r = parse_address(listener, &address);
	if (r != 0) {
		snprintf(error, error_size, "%s: no address in numbers: %s", listener,
			 gai_strerror(r));
		free(http);
		return NULL;
	}
	errno = 0;
	http->daemon = listen_at(http, address);
	freeaddrinfo(address);
	if (!http->daemon) {
		snprintf(error, error_size, "%s: cannot listen there: %s", listener,
			 errno ? strerror(errno) : "libmicrohttpd failed");
		free(http);
		return NULL;
	}
	info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	uv_poll_init(loop, &http->poll, info->epoll_fd);
	uv_timer_init(loop, &http->timer);
	http->poll.data = http->timer.data = http;
	http->handles = 2;
	uv_poll_start(&http->poll, UV_READABLE, on_ready);
	return http;
}

int http_port(const struct http *http)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);

	return info ? info->port : 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct http *http = handle->data;

	if (--http->handles > 0)
		return;
	MHD_stop_daemon(http->daemon);
	free(http);
}

void http_stop(struct http *http)
{
	if (!http)
		return;
	uv_close((uv_handle_t *)&http->poll, on_closed);
	uv_close((uv_handle_t *)&http->timer, on_closed);
}
