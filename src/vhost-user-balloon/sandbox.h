/* SPDX-License-Identifier: MIT */
/*
 * What the worker gives up before it looks at anything that a guest, a front end or a monitor
 * client has written. Several walls stand behind one another, so that one with a hole in it, or one
 * that this kernel does not have, is not the end: see sandbox.c.
 */
#ifndef VUB_SANDBOX_H
#define VUB_SANDBOX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SANDBOX_USER_NAME "aerostat"
#define SANDBOX_NO_UID    ((uid_t)-1)
#define SANDBOX_NO_GID    ((gid_t)-1)
#define SANDBOX_TEXT_MAX  1024U /* enough for sandbox_describe() */

enum sandbox_part {
	SANDBOX_NO_NEW_PRIVS, /* no program that it could start would have more rights */
	SANDBOX_NO_DUMP,      /* no core file, and other processes of its user cannot look in */
	SANDBOX_USER,         /* it is not root */
	SANDBOX_NO_CAPS,      /* effective, permitted, inheritable and ambient sets are empty */
	SANDBOX_NO_BOUNDS,    /* and so is the bounding set */
	SANDBOX_MOUNT_NS,     /* it has namespaces of its own */
	SANDBOX_NET_NS,
	SANDBOX_IPC_NS,
	SANDBOX_UTS_NS,
	SANDBOX_EMPTY_ROOT, /* its root is an empty folder that nobody can write to */
	SANDBOX_LANDLOCK,   /* no access to any file system, by Landlock; see landlock_abi */
	SANDBOX_LIMITS,     /* no further process, no core file */
	SANDBOX_SECCOMP,    /* the system calls it needs, and no others */
	SANDBOX_PART_COUNT,
};

struct sandbox_options {
	/* Who to become when root; SANDBOX_NO_...: as sandbox_account() says. */
	uid_t uid;
	gid_t gid;
	/* The parent's process id: when it dies, so does this process, at once. 0: it does not. */
	pid_t parent;
};

struct sandbox_report {
	uint32_t in_force;             /* bit 1 << enum sandbox_part */
	int error[SANDBOX_PART_COUNT]; /* why a part is not: errno, or 0 where none is known */
	uid_t uid;                     /* as the parent sees it */
	gid_t gid;
	int landlock_abi;    /* 0: none */
	uint32_t n_rules;    /* of the list: system calls, some of them with an argument */
	const char *lacking; /* what had to be and is not, for sandbox_enter()'s error; or NULL */
};

/*
 * The account that a worker started by root shall have: "aerostat" where there is one, else
 * "nobody", with its group. Looks into the system's user database, so it can take long: once, by
 * the parent.
 */
void sandbox_account(uid_t *uid, gid_t *gid);

/*
 * Goes into the sandbox, for good. To be called while the process has one thread, before anything
 * hostile is parsed, and before the event loop is made: libuv can do that in here, and may make
 * itself dependent on io_uring if it does so outside. After it the process must end by _exit():
 * exit handlers may want what is no longer there.
 *
 * 0: all that must hold does (no new privileges, no capabilities, no file system, no network, the
 * list of system calls), and *report says what else does. -EPERM: something of that does not;
 * report->lacking says what. -EBUSY: there are more threads. -ESRCH: o->parent is not the parent,
 * which means that it is dead. After any error the process is half in the sandbox and has to end.
 */
int sandbox_enter(const struct sandbox_options *o, struct sandbox_report *report);

/* One line for people on what is in force and what is not. Returns text. */
const char *sandbox_describe(const struct sandbox_report *report, char *text, size_t size);

#endif
