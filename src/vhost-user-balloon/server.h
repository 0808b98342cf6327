/* SPDX-License-Identifier: MIT */
/* The process: one balloon, its front end and its monitor, wired together. */
#ifndef VUB_SERVER_H
#define VUB_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "balloon/balloon.h"
#include "frontend.h"
#include "monitor.h"
#include "options.h"

/* How long `info balloon` waits for the guest. */
#define STATS_TIMEOUT_MS 5000

/* One that waits for fresh statistics; done is called once, and *w is its owner's again then. */
struct stats_waiter {
	struct stats_waiter *next;
	uint64_t deadline_ms;
	void (*done)(struct stats_waiter *w, bool fresh);
};

struct server {
	uv_loop_t loop;
	const struct options *options;
	struct balloon balloon;
	struct frontend frontend;
	struct monitor monitor;

	uv_timer_t tick; /* the next thing that is due: polling, waiters, BALLOON_CHANGE */
	struct stats_waiter *waiters;
	uint64_t change_after_ms; /* no BALLOON_CHANGE before that */
	bool change_due;

	bool guest_size_pending; /* the wish below waits until the guest's size is known */
	uint64_t guest_size;     /* bytes that the guest shall keep */
};

/*
 * Sets the process up on sockets that are open; it takes them over. qmp_fd may be -1. -errno, with
 * a line in the log.
 */
int server_start(struct server *s, const struct options *options, int vhost_fd, int qmp_fd);

/* Serves until server_quit(), then closes everything. */
void server_run(struct server *s);

/* Makes server_run() return soon. */
void server_quit(struct server *s);

/* Leaves the guest `bytes` of its memory; kept until its size is known. */
void server_set_guest_size(struct server *s, uint64_t bytes);

/* What the guest has now, by its driver's word: bytes. -ENODEV: no driver is at work. */
int server_guest_size(const struct server *s, uint64_t *bytes);

/*
 * Asks the guest for statistics; errors as balloon_request_stats(). With a waiter, its done() is
 * called when they are there, or after STATS_TIMEOUT_MS; not if there is an error.
 */
int server_request_stats(struct server *s, struct stats_waiter *waiter);

/* Polls statistics; 0 ends it. */
void server_set_poll_interval(struct server *s, uint64_t interval_ms);

#endif
