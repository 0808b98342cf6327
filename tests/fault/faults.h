/* SPDX-License-Identifier: MIT */
/*
 * What a test and the processes it looks at share: a file, mapped by both. The test says which call
 * shall fail; the library that is preloaded into the program (faults.c) counts and does so. The
 * Python side (faults.py) has the same layout.
 */
#ifndef FAULT_FAULTS_H
#define FAULT_FAULTS_H

#include <stdint.h>

/* Names the file; without it, or with one that cannot be mapped, nothing fails. */
#define FAULTS_ENVIRONMENT "AEROSTAT_FAULTS"

/* Functions that can fail. The library gives their names in its own list, in this order. */
enum fault_function {
	FAULT_MALLOC, /* and calloc(), realloc() */
	FAULT_MMAP,
	FAULT_FALLOCATE,
	FAULT_ACCEPT4,
	FAULT_WRITE,
	FAULT_OPENAT,
	FAULT_FSYNC,
	FAULT_RENAMEAT,
	FAULT_FORK,
	FAULT_POSIX_SPAWN,
	FAULT_SOCKETPAIR,
	FAULT_MEMFD_CREATE,
	FAULT_FTRUNCATE,
	FAULT_FCNTL,
	FAULT_DUP3,
	FAULT_EPOLL_CTL,
	FAULT_SENDMSG,
	FAULT_RECVMSG,
	FAULT_SEND,
	FAULT_POLL,
	FAULT_FUNCTIONS,
};

/* Whose calls count. */
enum fault_side {
	FAULT_PARENT = 1, /* the program as it was started */
	FAULT_WORKER = 2, /* started with --worker as its first argument, each of them */
	FAULT_HELPER = 4, /* made by fork() without an exec */
};

struct faults {
	uint32_t function;     /* enum fault_function */
	uint32_t sides;        /* bits of enum fault_side */
	int32_t error;         /* errno */
	uint32_t lasting;      /* not only one call, but all from then on */
	uint32_t countdown;    /* calls until then; 1: the next one; 0: not armed. Set last */
	uint32_t hits;         /* calls that have failed */
	int64_t wall_offset_s; /* added to what clock_gettime(CLOCK_REALTIME) says */
};

#endif
