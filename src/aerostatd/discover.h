/* SPDX-License-Identifier: MIT */
/*
 * Which monitors there are: the sockets in directories that are watched, and symbolic links to
 * sockets that root or this process's user has made. A directory may come later, or go and come
 * again.
 */
#ifndef AEROSTATD_DISCOVER_H
#define AEROSTATD_DISCOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#define DISCOVER_SETTLE_MS 20    /* after a change in a directory, before it is read */
#define DISCOVER_RETRY_MS  2000  /* between two looks when nothing was noticed */
#define DISCOVER_MAX       16384 /* sockets of one directory; what is beyond is left out */

#define DISCOVER_ENTRIES_MAX 65536 /* the same of entries of any kind */

/* Looks take one part in so many of the time, at most. */
#define DISCOVER_SHARE 20

struct discover;

struct discover_ops {
	/* A socket is there. The path is valid during the call only. False: no more can be taken
	 * now, and those that are left are to be told of again. */
	bool (*found)(void *opaque, const char *path);
	/* It is no more, or another one has its name now, which is told of next. */
	void (*lost)(void *opaque, const char *path);
	/* A directory cannot be read, or not all of it, for that reason; once, until it can. */
	void (*unreadable)(void *opaque, const char *directory, const char *why);
};

/*
 * Watches a directory. What is in it already is told from the loop, not from this call. NULL: out
 * of memory.
 */
struct discover *discover_start(uv_loop_t *loop, const char *directory,
				const struct discover_ops *ops, void *opaque);

const char *discover_directory(const struct discover *d);

/* Stops; nothing is told any more. It is freed by the loop. NULL is allowed. */
void discover_stop(struct discover *d);

#endif
