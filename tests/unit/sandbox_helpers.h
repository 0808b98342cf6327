/* SPDX-License-Identifier: MIT */
/*
 * Children that go into the sandbox and try things there. What a child finds wrong it writes into
 * memory that it shares with the test, and ends: nothing of cmocka runs in it.
 */
#ifndef TEST_SANDBOX_HELPERS_H
#define TEST_SANDBOX_HELPERS_H

#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <seccomp.h>

#include "sandbox.h"

/* gcc tells of AddressSanitizer by a macro, clang by a feature. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANDBOX_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(SANDBOX_SANITIZED)
#define SANDBOX_SANITIZED
#endif

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PART(part)    (1U << (part))
#define ALL_PARTS     (PART(SANDBOX_PART_COUNT) - 1)
#define SOMEBODY      65534U
#define CHILD_SECONDS 30U /* then a child that hangs is ended */

static struct shared {
	char wrong[512]; /* "": nothing */
	char described[SANDBOX_TEXT_MAX];
	struct sandbox_report report;
} * shared;

enum who {
	ROOT,     /* started by root */
	ORDINARY, /* started by somebody else */
	WHO_COUNT,
};
static const char *const who_names[] = {"root", "ordinary user"};

/* In a child: what must be so. */
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			int err_ = errno;                                                          \
			snprintf(shared->wrong, sizeof(shared->wrong), "%s:%d: %s (errno %d, %s)", \
				 __FILE__, __LINE__, #condition, err_, strerror(err_));            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

/* In a child: what must fail, in that way. */
#define CHECK_FAILS(call, error) CHECK((call) < 0 && errno == (error))

/* A system call that this kernel does not have, or pretends to do (error 0). */
struct denial {
	const char *call; /* NULL: none */
	int error;
	uint64_t first; /* only with this as its first argument; 0: with any */
};
#define DENIALS 3U

static inline void deny(const struct denial *denials)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = 0;

	/* The process shall not yet have given up new privileges. */
	if (geteuid() == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	for (uint32_t i = 0; i < DENIALS && denials[i].call; i++) {
		const struct denial *d = &denials[i];
		int nr = seccomp_syscall_resolve_name(d->call);

		if (!r)
			r = seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)d->error), nr,
					     d->first != 0, SCMP_A0_64(SCMP_CMP_EQ, d->first, 0));
	}
	if (!r)
		r = seccomp_load(filter);
	seccomp_release(filter);
	errno = -r;
	CHECK(r == 0);
}

static inline void become_ordinary(void)
{
	if (geteuid() != 0)
		return;
	CHECK(setresgid(SOMEBODY, SOMEBODY, SOMEBODY) == 0);
	CHECK(setresuid(SOMEBODY, SOMEBODY, SOMEBODY) == 0);
}

/* Becomes `who`, on a kernel without `denials` (or NULL), and goes in. */
static inline int enter(enum who who, const struct denial *denials)
{
	const struct sandbox_options options = {.uid = SOMEBODY, .gid = SOMEBODY};
	const gid_t groups[] = {0, 1, 2};
	int r;

	/* As after a login. */
	if (geteuid() == 0)
		CHECK(setgroups(who == ROOT ? ARRAY_SIZE(groups) : 0, groups) == 0);
	if (denials && denials[0].call)
		deny(denials);
	if (who == ORDINARY)
		become_ordinary();
	r = sandbox_enter(&options, &shared->report);
	sandbox_describe(&shared->report, shared->described, sizeof(shared->described));
	return r;
}

static inline void enter_fully(enum who who)
{
	int r = enter(who, NULL);

	errno = -r;
	CHECK(r == 0);
}

/* Runs body(who, arg) in a child, which ends with status 0 when that returns. Its pid. */
typedef void (*child_body)(enum who who, const void *arg);

static inline pid_t start_child(child_body body, enum who who, const void *arg)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS};
	pid_t pid;

	if (!shared) {
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		assert_true(shared != MAP_FAILED);
	}
	memset(shared, 0, sizeof(*shared));
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid)
		return pid;
	/* cmocka catches these, and would go on with its tests in the child. */
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		signal(faults[i], SIG_DFL);
	alarm(CHILD_SECONDS);
	body(who, arg);
	_exit(0);
}

static inline int end_of_child(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* The child must have found nothing wrong. */
static inline void check_child(enum who who, pid_t pid)
{
	int status = end_of_child(pid);

	if (shared->wrong[0])
		fail_msg("%s: %s\n[%s]", who_names[who], shared->wrong, shared->described);
	if (status != 0)
		fail_msg("%s: status %#x\n[%s]", who_names[who], (unsigned int)status,
			 shared->described);
}

static inline void check_in_child(child_body body, enum who who, const void *arg)
{
	check_child(who, start_child(body, who, arg));
}

/* Can the test be each of them? */
static inline bool can_be(enum who who)
{
	return who == ORDINARY || geteuid() == 0;
}

/* A group's set-up: says what is left out. */
static inline int say_who(void **state)
{
	(void)state;
	if (!can_be(ROOT))
		print_message("not started by root: only an ordinary user's sandbox is tried\n");
	return 0;
}

/* In everybody's place that the test can take. */
static inline void check_for_all(child_body body, const void *arg)
{
	for (int who = 0; who < WHO_COUNT; who++) {
		if (can_be((enum who)who))
			check_in_child(body, (enum who)who, arg);
	}
}

#endif
