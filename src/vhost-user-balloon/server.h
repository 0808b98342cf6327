/* SPDX-License-Identifier: MIT */
/* The worker's inside: one balloon, its front end and its monitor, wired together. */
#ifndef VUB_SERVER_H
#define VUB_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "balloon/balloon.h"
#include "block.h"
#include "common/monitor.h"
#include "control.h"
#include "frontend.h"
#include "options.h"
#include "parent.h"
#include "settings.h"

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
	struct control control;
	struct parent parent;
	struct settings settings;      /* as a cold start shall find them */
	struct settings told_settings; /* as the parent knows them */

	struct block *block;
	uint64_t handled; /* seq of the last event */
	uint32_t reply_len;
	uint8_t reply[CHANNEL_REPLY_MAX]; /* to that event */
	bool dirty;                       /* something has happened that was not settled yet */
	bool cold_changed;                /* ... and it is more than the data path does */
	bool released; /* ... and the parent is to hear where this worker stands */

	uv_prepare_t settle; /* before the loop waits: commits, and sees what is due */
	uv_timer_t tick; /* the next thing that is due: polling, waiters, BALLOON_CHANGE, health */
	uv_timer_t leave;
	struct stats_waiter *waiters;
	uint64_t change_after_ms; /* no BALLOON_CHANGE before that */
	bool change_due;
	bool leaving; /* another worker takes over */
	int leave_looks;

	bool commanded;          /* what changes now does so because an operator wishes it */
	bool guest_size_pending; /* the wish settings.guest_size waits for the guest's size */
};

/* What a worker finds when it starts. */
struct server_start {
	struct block *block;
	int channel;
	int held_fd;
	int hints_fd;
	struct parent_beginning beginning;
};

/* Makes what takes system calls that a worker in its sandbox has no more. -errno, logged. */
int server_prepare(struct server *s);

/*
 * Sets the worker up, from what the block says or else from the parent's settings, and tells the
 * parent that it is ready. -errno, with a line in the log.
 */
int server_start(struct server *s, const struct options *options, struct server_start *start);

/* Serves until another worker takes over or the program ends, then closes everything. */
void server_run(struct server *s);

/* Asks the parent to end the program. */
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
