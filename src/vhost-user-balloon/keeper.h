/* SPDX-License-Identifier: MIT */
/*
 * Keeps what operators set for the next start: the parent's part of --state-dir. Writing waits for
 * the disk, so another process does it.
 */
#ifndef VUB_KEEPER_H
#define VUB_KEEPER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "options.h"
#include "settings.h"

struct keeper {
	int dir; /* -1: nothing is kept */
	char name[NAME_MAX + 1];
	struct settings settings; /* as they are now */
	bool dirty;               /* the file says something else */
	bool failing;
	pid_t saver;       /* 0: none is at work */
	uint64_t begun_ms; /* when the last one began; guests change settings too: not too often */
	uint64_t retry_ms; /* not before that */
};

/*
 * Reads the file, if there is a directory, and lets the command line win over it. A file that
 * makes no sense is put aside, with a line in the log. -errno, with a line in the log: the
 * directory cannot be used.
 */
int keeper_init(struct keeper *k, const struct options *options);

/* The worker says how things are set now. */
void keeper_changed(struct keeper *k, const struct settings *settings);

/* A child has ended; perhaps the one that saves. */
void keeper_child(struct keeper *k, uint64_t now_ms);

/* Does what is due. */
void keeper_tick(struct keeper *k, uint64_t now_ms);

/* When keeper_tick() is wanted next; UINT64_MAX: never. */
uint64_t keeper_next(const struct keeper *k);

/* The program ends: saves what is not saved yet, and waits for it. */
void keeper_finish(struct keeper *k);

#endif
