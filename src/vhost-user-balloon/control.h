/* SPDX-License-Identifier: MIT */
/*
 * What stands between the monitor's commands and the balloon: the push interval, free page hinting,
 * inhibitors, and the guest's health. No event loop here; the server calls in, with the time:
 *
 * - control_init() after balloon_init() and before anything is connected;
 * - control_check() after everything that may have changed the device or its rings (messages of the
 *   front end, ring runs, monitor commands) and on time, see control_next(). What waits on the
 *   statistics ring should have been served before.
 */
#ifndef VUB_CONTROL_H
#define VUB_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "balloon/balloon.h"
#include "base/instant.h"
#include "options.h"
#include "policy/health.h"
#include "settings.h"

struct control_ops {
	/*
	 * A command has changed the balloon: guest memory may have been touched, and other things
	 * are due at other times. Also calls control_check().
	 */
	void (*touched)(void *opaque);
	/* control->health.state has changed. */
	void (*health_changed)(void *opaque);
};

struct control {
	struct health health;      /* plain data: save it, and put it back after control_init() */
	struct settings *settings; /* the server's; push_ms and inhibitors are kept up to date */
	struct balloon *balloon;
	const struct control_ops *ops;
	void *opaque;

	/* To be told, by the server's word. */
	uint64_t restarts;   /* workers that went before this one */
	char hints_path[64]; /* of the file with the bitmap of hints; "": none */
};

/*
 * Sets b's policy by the options and its push interval and inhibitors by *settings. A server that
 * goes on for another calls balloon_restore() after this.
 */
void control_init(struct control *c, struct balloon *b, struct settings *settings,
		  const struct options *options, const struct control_ops *ops, void *opaque,
		  struct instant now);

/* Looks how the guest does. connected: a front end is there. Sees for itself what has arrived. */
void control_check(struct control *c, bool connected, struct instant now);

/* When control_check() is wanted next, by instant.mono_ms; UINT64_MAX: never. */
uint64_t control_next(const struct control *c);

/* As balloon_set_push_interval(). */
int control_set_push_interval(struct control *c, uint32_t interval_ms);

/* As balloon_hint(). */
int control_hint(struct control *c, enum balloon_hint_action action);

/*
 * Nothing is discarded while there is a reason not to. 0, also if this one is known already;
 * -EINVAL: empty; -ENAMETOOLONG; -ENOSPC: too many.
 */
int control_inhibit(struct control *c, const char *reason);

/* -ENOENT: there is no such reason. */
int control_uninhibit(struct control *c, const char *reason);

#endif
