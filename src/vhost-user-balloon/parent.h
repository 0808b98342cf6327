/* SPDX-License-Identifier: MIT */
/*
 * The worker's end of the channel (channel.h): what the parent wants, and what it is told. In the
 * beginning it is waited for; later it is one of the things in the event loop.
 */
#ifndef VUB_PARENT_H
#define VUB_PARENT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "channel.h"
#include "watch.h"

struct parent_ops {
	/*
	 * What the front end does; descriptors of slots are in place, and the callee's. Fills in
	 * *report, which is zeroed, by what holds then.
	 */
	void (*event)(void *opaque, const struct channel_event *event,
		      struct channel_report *report);
	/* Where the worker stands, without an event. */
	void (*state)(void *opaque, struct channel_report *report);
	/* A monitor client; fd is the callee's. */
	void (*client)(void *opaque, const struct monitor_name *client, int fd);
	/* Another worker takes over: end what is in hand. */
	void (*leave)(void *opaque);
	/* The program ends; also when the parent is gone. */
	void (*stop)(void *opaque);
};

struct parent {
	uv_loop_t *loop;
	int fd;
	struct watch *watch; /* NULL: nothing is said yet, or any more */
	const struct parent_ops *ops;
	void *opaque;

	/* What is to be said as soon as there is room. */
	bool state_due;
	bool settings_due;
	bool quit_due;
	uint32_t gone_due; /* bit n: client n */
	uint32_t gone_serial[CHANNEL_CLIENT_COUNT];
	struct settings settings;
	struct channel_message done; /* is to be said first, if done_due */
	bool done_due;
};

/* What a worker is given before GO. */
struct parent_beginning {
	struct channel_start start;
	uint64_t slots[CHANNEL_SLOT_COUNT / 64]; /* bit n of word m: slot 64 * m + n is there */
	uint32_t n_clients;
	struct monitor_name client[CHANNEL_CLIENT_COUNT];
	int client_fd[CHANNEL_CLIENT_COUNT];
};

/* Waits for all of it. -errno: the parent is gone, or says what makes no sense. */
int parent_begin(int fd, struct parent_beginning *beginning);

/* Closes those slots' descriptors that are in `slots` and not in `in_use`. */
void parent_close_slots(const uint64_t *slots, const uint64_t *in_use);

/* fd: the channel, which stays open until the process ends. */
void parent_init(struct parent *p, uv_loop_t *loop, int fd, const struct parent_ops *ops,
		 void *opaque);

/* Says READY, then what there was to be said already, and listens from then on. -errno. */
int parent_start(struct parent *p, const struct channel_report *ready);

/* Listens and speaks no more. */
void parent_stop(struct parent *p);

/* Tells the parent, soon: how the worker stands; settings; a client that is gone; the wish to end.
 */
void parent_tell_state(struct parent *p);
void parent_tell_settings(struct parent *p, const struct settings *settings);
void parent_tell_gone(struct parent *p, const struct monitor_name *client);
void parent_tell_quit(struct parent *p);

#endif
