// SPDX-License-Identifier: MIT
#include "watch.h"

#include <stdlib.h>

struct watch {
	uv_poll_t poll;
	watch_cb cb;
	void *opaque;
	int events;
};

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data;

	w->cb(w->opaque, status < 0 ? 0 : events);
}

struct watch *watch_start(uv_loop_t *loop, int fd, int events, watch_cb cb, void *opaque)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	if (uv_poll_init(loop, &w->poll, fd) < 0) {
		free(w);
		return NULL;
	}
	w->poll.data = w;
	w->cb = cb;
	w->opaque = opaque;
	watch_change(w, events);
	return w;
}

void watch_change(struct watch *w, int events)
{
	if (events == w->events)
		return; /* libuv would take it out of the epoll set and put it in again */
	w->events = events;
	uv_poll_start(&w->poll, events, on_event);
}

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void watch_end(struct watch **w)
{
	if (*w)
		uv_close((uv_handle_t *)&(*w)->poll, on_closed);
	*w = NULL;
}
