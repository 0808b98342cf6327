/* SPDX-License-Identifier: MIT */
/*
 * The worker as a process: started from a binary, found dead. The binary is held open, so that one
 * which is overwritten on disk meanwhile goes on to be the one that is started, until an upgrade is
 * asked for.
 */
#ifndef VUB_CHILD_H
#define VUB_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Where the worker finds what it is given. */
enum child_fd {
	CHILD_FD_CHANNEL = 3,
	CHILD_FD_BLOCK,
	CHILD_FD_HELD,
	CHILD_FD_HINTS,
	CHILD_FD_END,
};

struct child {
	pid_t pid;   /* 0: none */
	int channel; /* the parent's end, non-blocking; -1: none */
};

/* The path of the running program, for child_open(): -errno. */
int child_own_path(char *path, size_t size);

/* Opens a program, to be started. The descriptor or -errno. */
int child_open(const char *path);

/* A descriptor that is in no worker's way, for fd, which is closed; -errno. */
int child_move_fd(int fd);

/*
 * Starts program (of child_open()) with argv. block, held and hints (of child_move_fd()) are what
 * it finds at those numbers. -errno: it cannot be started.
 */
int child_start(struct child *c, int program, char *const argv[], int block, int held, int hints);

/* Closes the channel; the process is reaped already. */
void child_forget(struct child *c);

/* Did it die by a fault of its own, and not by somebody's will? For waitpid()'s status. */
bool child_fault(int status);

/* What a status means, for people. */
void child_describe(int status, char *text, size_t size);

/*
 * How long to wait before the next start, milliseconds, when `barren` workers in turn died without
 * having got anything done.
 */
unsigned int child_backoff_ms(unsigned int barren);

#endif
