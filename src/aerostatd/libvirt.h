/* SPDX-License-Identifier: MIT */
/*
 * Virtual machines that libvirt runs: it owns their monitors, so it is asked which there are, and
 * all else about them. Its calls block, for as long as a daemon or a QEMU likes: they are made by
 * threads of their own (crew.h), and what does not come back in time is hung, as with a monitor.
 *
 * A daemon that is gone takes no machine with it: what it had is kept, as hung, until it is there
 * again and tells.
 */
#ifndef AEROSTATD_LIBVIRT_H
#define AEROSTATD_LIBVIRT_H

#include <stdbool.h>
#include <uv.h>

#include "endpoint.h"

/* It is an optional part. */
#ifndef HAVE_LIBVIRT
#define HAVE_LIBVIRT 0
#endif

/* Calls at a time, each on a connection of its own: a daemon works on 20 of all who ask. */
#define LIBVIRT_CALLS 8

/* Between two questions which domains there are, when no event says that it changes. */
#define LIBVIRT_LIST_MS 10000

#define LIBVIRT_DOMAINS_MAX 4096U /* what is beyond is left out */

#define LIBVIRT_SETTLE_MS 1000 /* for calls that are under way, at the end */

struct libvirt;

struct libvirt_ops {
	/* A domain runs: libvirt_endpoint_new() makes an endpoint of it, by that path, which is
	 * libvirt:/UUID and valid during the call only. False: not now; it is told again. */
	bool (*found)(void *opaque, const char *path);
	/* It does no more. */
	void (*lost)(void *opaque, const char *path);
};

#if HAVE_LIBVIRT

/*
 * Asks the libvirt at uri, from now on and whenever it can be reached. NULL: out of memory or
 * threads.
 */
struct libvirt *libvirt_start(uv_loop_t *loop, const char *uri, const struct libvirt_ops *ops,
			      void *opaque);

const char *libvirt_uri(const struct libvirt *lv);

/* Stops; nothing is told any more, and its endpoints must be gone. It is freed by the loop. NULL is
 * allowed. */
void libvirt_stop(struct libvirt *lv);

/* As endpoint_new(), of a domain that was found, from found(). NULL: also if there is none. */
struct endpoint *libvirt_endpoint_new(struct libvirt *lv, const char *path, uint32_t interval_ms,
				      bool observe, const struct endpoint_ops *ops, void *opaque);

/* Before the process ends: waits a moment for calls that are under way. */
void libvirt_settle(void);

#else

static inline struct libvirt *libvirt_start(uv_loop_t *loop, const char *uri,
					    const struct libvirt_ops *ops, void *opaque)
{
	(void)loop;
	(void)uri;
	(void)ops;
	(void)opaque;
	return NULL;
}

static inline const char *libvirt_uri(const struct libvirt *lv)
{
	(void)lv;
	return "";
}

static inline void libvirt_stop(struct libvirt *lv)
{
	(void)lv;
}

static inline struct endpoint *libvirt_endpoint_new(struct libvirt *lv, const char *path,
						    uint32_t interval_ms, bool observe,
						    const struct endpoint_ops *ops, void *opaque)
{
	(void)lv;
	(void)path;
	(void)interval_ms;
	(void)observe;
	(void)ops;
	(void)opaque;
	return NULL;
}

static inline void libvirt_settle(void)
{
}

#endif

#endif
