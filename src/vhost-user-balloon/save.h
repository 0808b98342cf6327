/* SPDX-License-Identifier: MIT */
/* The server's state, into the block and out of it. */
#ifndef VUB_SAVE_H
#define VUB_SAVE_H

#include "server.h"

/* Commits how things stand now. */
void save_commit(struct server *s);

/*
 * Goes on with what the last commit says; s is set up, and has done nothing yet. 0, or -errno:
 * there is nothing, or the session cannot be gone on with (and is over: s->frontend.reason).
 */
int save_restore(struct server *s);

#endif
