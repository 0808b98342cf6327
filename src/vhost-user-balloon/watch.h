/* SPDX-License-Identifier: MIT */
/*
 * A watched file descriptor. libuv's handles live on until the loop has seen them closed; these are
 * allocated, so that the descriptor's owner may end the watch, close the descriptor and begin anew
 * at once.
 */
#ifndef VUB_WATCH_H
#define VUB_WATCH_H

#include <uv.h>

struct watch;

/* events: UV_READABLE, UV_WRITABLE that are there, or 0 after an error on the descriptor. */
typedef void (*watch_cb)(void *opaque, int events);

/* NULL: out of memory, or nothing that can be watched. The descriptor stays the caller's. */
struct watch *watch_start(uv_loop_t *loop, int fd, int events, watch_cb cb, void *opaque);

/* Watches for other events from now on. */
void watch_change(struct watch *w, int events);

/* Ends it and sets *w to NULL; also when it is NULL already. The callback comes no more. */
void watch_end(struct watch **w);

#endif
