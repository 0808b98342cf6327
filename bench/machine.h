/* SPDX-License-Identifier: MIT */
/* The monitor of a virtual machine that is none: figures that move as a guest's do. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include "common/monitor.h"

#define MACHINE_MIB  (1ULL << 20)
#define MACHINE_SIZE (1024 * MACHINE_MIB)

struct machine;

struct machine_ops {
	/* Somebody asked for statistics, or ordered them. */
	void (*asked)(struct machine *m);
	/* The command `balloon` came; machine->keeps is still what it was before. */
	void (*target)(struct machine *m, uint64_t keep);
};

struct machine {
	struct monitor monitor;
	struct monitor_record record;
	const struct machine_ops *ops;
	uv_poll_t poll;
	int fd;
	uint32_t serial;
	uint32_t number;
	bool ours;         /* a device of ours that pushes; else QEMU's, which is asked */
	bool served;       /* the manager has ordered statistics, or asked for them */
	uint64_t keeps;    /* bytes, as it was told last: the guest is quick */
	uint64_t sent;     /* statistics so far */
	int64_t sent_s;    /* when, seconds since the epoch */
	uint64_t kills;    /* processes that its guest has killed for memory */
	bool kill_due;     /* of who measures: one more is, with the next statistics */
	uint64_t waits[4]; /* the same: since when, ns; 0: not */
};

/* Listens on DIRECTORY/vmNNNN.qmp. Ends the program where that cannot be. */
void machine_start(struct machine *m, uv_loop_t *loop, const char *directory, uint32_t number,
		   bool ours, const struct machine_ops *ops);

/* The guest has fresh statistics; they are pushed to a manager that has ordered that. True: so. */
bool machine_send_statistics(struct machine *m);

/* The guest says that memory is short. */
void machine_send_pressure(struct machine *m);

/* The guest begins anew: it has all its memory again. */
void machine_send_reset(struct machine *m);

#endif
