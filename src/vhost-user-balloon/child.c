// SPDX-License-Identifier: MIT
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_FREE      2U
#define BACKOFF_FIRST_MS  10U
#define BACKOFF_DOUBLINGS 7U
#define BACKOFF_MAX_MS    1000U

int child_own_path(char *path, size_t size)
{
	static const char gone[] = " (deleted)";
	const size_t tail = sizeof(gone) - 1;
	ssize_t len = readlink("/proc/self/exe", path, size - 1);

	if (len < 0)
		return -errno;
	if ((size_t)len == size - 1)
		return -ENAMETOOLONG; /* perhaps it was cut */
	path[len] = '\0';
	/* A binary that was replaced: its place is where the next one will be. */
	if ((size_t)len > tail && strcmp(path + (size_t)len - tail, gone) == 0)
		path[(size_t)len - tail] = '\0';
	return 0;
}

int child_open(const char *path)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	return fd < 0 ? -errno : child_move_fd(fd);
}

int child_move_fd(int fd)
{
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, CHILD_FD_END), err = errno;

	close(fd);
	return moved < 0 ? -err : moved;
}

static int spawn(pid_t *pid, int program, char *const argv[], const int fds[])
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	char path[64];
	sigset_t none;
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", program);
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawn_file_actions_init(&actions);
	r = 0;
	for (int i = CHILD_FD_CHANNEL; !r && i < CHILD_FD_END; i++)
		r = posix_spawn_file_actions_adddup2(&actions, fds[i - CHILD_FD_CHANNEL], i);
	if (!r)
		r = posix_spawn(pid, path, &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return -r;
}

int child_start(struct child *c, int program, char *const argv[], int block, int held, int hints)
{
	int pair[2], theirs, r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	theirs = child_move_fd(pair[1]);
	r = theirs < 0 ? theirs : 0;
	if (!r && fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
		r = -errno;
	if (!r)
		r = spawn(&c->pid, program, argv, (const int[]){theirs, block, held, hints});
	if (theirs >= 0)
		close(theirs);
	if (r) {
		close(pair[0]);
		c->pid = 0;
		return r;
	}
	c->channel = pair[0];
	return 0;
}

void child_forget(struct child *c)
{
	if (c->channel >= 0)
		close(c->channel);
	c->channel = -1;
	c->pid = 0;
}

bool child_fault(int status)
{
	if (WIFSIGNALED(status))
		return WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM;
	return WEXITSTATUS(status) != 0;
}

void child_describe(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}

unsigned int child_backoff_ms(unsigned int barren)
{
	if (barren < BACKOFF_FREE)
		return 0;
	barren -= BACKOFF_FREE;
	if (barren >= BACKOFF_DOUBLINGS)
		return BACKOFF_MAX_MS;
	return BACKOFF_FIRST_MS << barren;
}
