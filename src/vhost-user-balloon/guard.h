/* SPDX-License-Identifier: MIT */
/*
 * The worker's life, as the parent sees it: started, fed, found dead, started again.
 *
 * The worker is in one of three states: none (until `start_ms`), starting (from its start until it
 * says READY) and ready. What is to be sent to it is not queued but derived from what it has not
 * got yet: so a worker that dies at any moment leaves nothing half said, and its successor gets
 * exactly what is still due.
 *
 * After a death the same binary is started again, at once at first, then ever more slowly while
 * workers get nothing done. A new binary (SIGHUP) that never gets ready is given up for the one
 * before.
 */
#ifndef VUB_GUARD_H
#define VUB_GUARD_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "block.h"
#include "channel.h"
#include "child.h"
#include "keeper.h"
#include "options.h"
#include "sandbox.h"
#include "vmm.h"

enum guard_state {
	GUARD_NONE,
	GUARD_STARTING,
	GUARD_READY,
};

/* A monitor client. */
struct guard_client {
	int fd; /* -1: none; owned */
	uint32_t serial;
	bool sent; /* this worker has it */
};

struct guard {
	struct vmm *vmm;
	struct keeper *keeper;
	char **argv; /* the worker's command line; the array is owned */
	uid_t uid;   /* who the worker shall be; SANDBOX_NO_UID: who the parent is */
	gid_t gid;
	char path[PATH_MAX];

	int block_fd, held_fd, hints_fd;
	struct block *block;
	struct guard_client client[CHANNEL_CLIENT_COUNT];
	uint32_t last_client; /* serial */

	enum guard_state state;
	struct child child;
	int program;     /* the binary that is started */
	int old_program; /* the one before, until this one was ready once; -1: none */
	bool started;    /* START is sent */
	uint32_t next;   /* while starting: the slot that is to be sent next */
	bool complete;   /* GO is sent */
	bool told;       /* LEAVE or STOP is sent */
	bool distrusted; /* it was killed for what it said */
	bool dismissed;  /* it was killed to make room for another program */

	uint64_t start_ms;    /* no start before that */
	uint64_t ready_ms;    /* since when this worker is ready */
	uint64_t kill_ms;     /* then it is killed; UINT64_MAX: not */
	uint64_t progress;    /* of the block, when it was started */
	unsigned int barren;  /* workers in turn that got nothing done */
	unsigned int unready; /* ... that did not even get ready */
	bool ever_ready;
	uint32_t restarts;
	bool fault; /* the last worker died by one */
	char reason[CHANNEL_REASON_MAX];

	bool leave;    /* this worker shall go for another */
	bool stop;     /* the program ends */
	bool finished; /* ... now */
	int result;    /* 0 or -errno */
};

/*
 * Makes the shared memory and finds this program's binary; vmm and keeper are the parent's. -errno,
 * with a line in the log. guard_close() is to be called in any case.
 */
int guard_init(struct guard *g, struct vmm *vmm, struct keeper *keeper,
	       const struct options *options, int argc, char **argv);
void guard_close(struct guard *g);

/*
 * Sends the worker all that is due. 0: nothing is left; -EAGAIN: something is, wait until its
 * channel is writable; else it is dying, which is heard of in another way.
 */
int guard_talk(struct guard *g);

/* Takes what it has said. */
void guard_listen(struct guard *g);

/* A child has ended; perhaps the worker. */
void guard_child(struct guard *g, uint64_t now_ms);

/* Does what is due; and when it is wanted next, UINT64_MAX: never. */
void guard_tick(struct guard *g, uint64_t now_ms);
uint64_t guard_next(const struct guard *g);

/* A monitor client has connected; takes fd over. -ENOSPC: there are too many; it is closed. */
int guard_add_client(struct guard *g, int fd);

/* Replaces the worker by one of the binary that is at the program's path now. */
void guard_upgrade(struct guard *g);

/* Ends the worker, and then the program; guard_kill(): without giving it time. */
void guard_stop(struct guard *g);
void guard_kill(struct guard *g);

#endif
