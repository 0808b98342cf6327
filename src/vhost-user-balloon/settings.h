/* SPDX-License-Identifier: MIT */
/* What an operator has set and a cold start shall find again: fixed size, no pointers. */
#ifndef VUB_SETTINGS_H
#define VUB_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#define SETTINGS_INHIBITORS_MAX 16U
#define SETTINGS_REASON_MAX     64U /* bytes, with the NUL */

struct settings {
	uint64_t target;     /* bytes wanted in the balloon */
	uint64_t guest_size; /* bytes the guest shall keep, until its size is known; 0: no wish */
	uint64_t poll_ms;    /* interval of asking for statistics; 0: never */
	uint32_t push_ms;    /* interval at which the guest pushes them; 0: it does not */
	uint32_t n_inhibitors;
	char inhibitor[SETTINGS_INHIBITORS_MAX][SETTINGS_REASON_MAX]; /* not empty, all different */
};

/* May they be worked with? For what comes from another process. */
bool settings_valid(const struct settings *s);

/*
 * Adds an inhibitor. -EEXIST: it is there already; -EINVAL: empty; -ENAMETOOLONG;
 * -ENOSPC: no more can be kept.
 */
int settings_inhibit(struct settings *s, const char *reason);

/* Takes an inhibitor away; the others keep their order. -ENOENT: it is not there. */
int settings_uninhibit(struct settings *s, const char *reason);

#endif
