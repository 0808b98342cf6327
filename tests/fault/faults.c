// SPDX-License-Identifier: MIT
/*
 * Makes a chosen call of a system or library function fail: preloaded into vhost-user-balloon, also
 * into its worker, which inherits the environment and maps the file before it enters the sandbox.
 *
 * Only what the program and its libraries call by name passes through here, not what the C library
 * calls within itself. In a sanitizer build this library stands before the sanitizer's and hands on
 * to it.
 */
#include "faults.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* The name under which it goes where files have 64-bit offsets, which here are the same. */
#define AND_64(name) EXPORT __typeof__(name) name##64 __attribute__((alias(#name)))
static_assert(sizeof(off_t) == sizeof(off64_t), "mmap() and mmap64() take the same");

/* The one of the next library in the line; looked up once. */
#define NEXT(name)                                                          \
	({                                                                  \
		static __typeof__(name) *next;                              \
		if (!next)                                                  \
			next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
		next;                                                       \
	})

static struct faults *faults;
static enum fault_side role;
static pid_t started_as;

/* Is this the call that shall fail? Then errno is set. */
static bool fails(enum fault_function function)
{
	uint32_t side, left;

	if (!faults || (left = __atomic_load_n(&faults->countdown, __ATOMIC_ACQUIRE)) == 0 ||
	    faults->function != (uint32_t)function)
		return false;
	side = getpid() == started_as ? role : FAULT_HELPER;
	if (!(faults->sides & side))
		return false;
	while (left > 1 || !faults->lasting) {
		if (left == 0)
			return false;
		if (__atomic_compare_exchange_n(&faults->countdown, &left, left - 1, false,
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			if (left > 1)
				return false;
			break;
		}
	}
	__atomic_add_fetch(&faults->hits, 1, __ATOMIC_RELAXED);
	if (!faults->error) {
		raise(SIGSTOP);
		return false;
	}
	errno = faults->error;
	return true;
}

__attribute__((constructor)) static void begin(int argc, char **argv)
{
	const char *path = getenv(FAULTS_ENVIRONMENT);
	int fd = path ? NEXT(openat)(AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
	void *map;

	if (fd < 0)
		return;
	map = NEXT(mmap)(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return;
	role = argc > 1 && strncmp(argv[1], "--worker", strlen("--worker")) == 0 ? FAULT_WORKER
										 : FAULT_PARENT;
	started_as = getpid();
	faults = map;
}

/* --- memory ----------------------------------------------------------------------------------- */

EXPORT void *malloc(size_t size)
{
	return fails(FAULT_MALLOC) ? NULL : NEXT(malloc)(size);
}

/* dlsym() may itself want some before calloc() is known; it does without, if it gets none. */
EXPORT void *calloc(size_t n, size_t size)
{
	static void *(*next)(size_t, size_t);
	static bool looking;

	if (!next) {
		if (looking)
			return NULL;
		looking = true;
		next = (__typeof__(next))dlsym(RTLD_NEXT, "calloc");
		looking = false;
	}
	return fails(FAULT_MALLOC) ? NULL : next(n, size);
}

EXPORT void *realloc(void *old, size_t size)
{
	return fails(FAULT_MALLOC) ? NULL : NEXT(realloc)(old, size);
}

EXPORT void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
	return fails(FAULT_MMAP) ? MAP_FAILED : NEXT(mmap)(at, len, prot, flags, fd, offset);
}
AND_64(mmap);

EXPORT int fallocate(int fd, int mode, off_t offset, off_t len)
{
	return fails(FAULT_FALLOCATE) ? -1 : NEXT(fallocate)(fd, mode, offset, len);
}
AND_64(fallocate);

EXPORT int memfd_create(const char *name, unsigned int flags)
{
	return fails(FAULT_MEMFD_CREATE) ? -1 : NEXT(memfd_create)(name, flags);
}

/* --- files and descriptors -------------------------------------------------------------------- */

EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
	return fails(FAULT_WRITE) ? -1 : NEXT(write)(fd, buf, len);
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	return fails(FAULT_OPENAT) ? -1 : NEXT(openat)(dir, path, flags, mode);
}
AND_64(openat);

EXPORT int fsync(int fd)
{
	return fails(FAULT_FSYNC) ? -1 : NEXT(fsync)(fd);
}

EXPORT int renameat(int old_dir, const char *old, int new_dir, const char *new)
{
	return fails(FAULT_RENAMEAT) ? -1 : NEXT(renameat)(old_dir, old, new_dir, new);
}

EXPORT int ftruncate(int fd, off_t size)
{
	return fails(FAULT_FTRUNCATE) ? -1 : NEXT(ftruncate)(fd, size);
}
AND_64(ftruncate);

EXPORT int fcntl(int fd, int cmd, ...)
{
	unsigned long arg;
	va_list ap;

	/* As the C library does: an argument is passed on, whatever it is, and if there is none. */
	va_start(ap, cmd);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	return fails(FAULT_FCNTL) ? -1 : NEXT(fcntl)(fd, cmd, arg);
}
AND_64(fcntl);

EXPORT int dup3(int old, int new, int flags)
{
	return fails(FAULT_DUP3) ? -1 : NEXT(dup3)(old, new, flags);
}

EXPORT int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	/* What cannot fail is left alone, as everybody relies on it. */
	return op == EPOLL_CTL_ADD && fails(FAULT_EPOLL_CTL)
		       ? -1
		       : NEXT(epoll_ctl)(epoll, op, fd, event);
}

EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	return fails(FAULT_POLL) ? -1 : NEXT(poll)(fds, n, timeout);
}

/* --- sockets ---------------------------------------------------------------------------------- */

EXPORT int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict len, int flags)
{
	return fails(FAULT_ACCEPT4) ? -1 : NEXT(accept4)(fd, address, len, flags);
}

EXPORT int socketpair(int domain, int type, int protocol, int pair[2])
{
	return fails(FAULT_SOCKETPAIR) ? -1 : NEXT(socketpair)(domain, type, protocol, pair);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	return fails(FAULT_SENDMSG) ? -1 : NEXT(sendmsg)(fd, message, flags);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return fails(FAULT_RECVMSG) ? -1 : NEXT(recvmsg)(fd, message, flags);
}

EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	return fails(FAULT_SEND) ? -1 : NEXT(send)(fd, buf, len, flags);
}

/* --- processes and time ----------------------------------------------------------------------- */

EXPORT pid_t fork(void)
{
	return fails(FAULT_FORK) ? -1 : NEXT(fork)();
}

EXPORT int posix_spawn(pid_t *restrict pid, const char *restrict path,
		       const posix_spawn_file_actions_t *restrict actions,
		       const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
		       char *const environment[restrict])
{
	if (fails(FAULT_POSIX_SPAWN))
		return faults->error;
	return NEXT(posix_spawn)(pid, path, actions, attributes, argv, environment);
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *now)
{
	int r = NEXT(clock_gettime)(clock, now);

	if (r == 0 && clock == CLOCK_REALTIME && faults)
		now->tv_sec += faults->wall_offset_s;
	return r;
}
