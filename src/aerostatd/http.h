/* SPDX-License-Identifier: MIT */
/* The HTTP listener for /metrics. */
#ifndef AEROSTATD_HTTP_H
#define AEROSTATD_HTTP_H

#include <stdbool.h>
#include <uv.h>

struct http;

/*
 * Serves GET /metrics at "address:port" from the loop's own thread; text is called for each
 * request, and what it returns is freed. openmetrics is false for who understands only the format
 * of Prometheus before it. NULL with a line in error.
 */
struct http *http_start(uv_loop_t *loop, const char *listener,
			char *(*text)(void *opaque, bool openmetrics), void *opaque, char *error,
			size_t error_size);

/* Stops; the loop frees it. NULL is allowed. */
void http_stop(struct http *http);

/* The port that it listens at, which the kernel has chosen where 0 was given. */
int http_port(const struct http *http);

#endif
