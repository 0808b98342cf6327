// SPDX-License-Identifier: MIT
/*
 * Everything here waits in one poll() and blocks nowhere else, and nothing of what a front end, a
 * guest or a monitor client says is looked at: the parent must not die, so it has little to die of.
 * What it knows of the front end is in vmm.c, of the worker in guard.c, of what operators set in
 * keeper.c.
 */
#include "supervisor.h"

#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/checked.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/unix_socket.h"
#include "guard.h"
#include "keeper.h"
#include "vmm.h"

#define ACCEPT_RETRY_MS 200U
#define TALK_RETRY_MS   20U /* where the worker's channel lacks something else than room */

struct supervisor {
	const struct options *options;
	int signals;
	int qmp_fd; /* -1: no monitor */
	uint64_t qmp_retry_ms;
	struct vmm vmm;
	struct keeper keeper;
	struct guard guard;
};

static void on_signals(struct supervisor *s, uint64_t now)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGHUP:
			guard_upgrade(&s->guard);
			break;
		case SIGTERM:
		case SIGINT:
			if (s->guard.stop)
				guard_kill(&s->guard);
			guard_stop(&s->guard);
			break;
		case SIGCHLD:
		default:
			guard_child(&s->guard, now);
			keeper_child(&s->keeper, now);
			break;
		}
	}
}

static void on_client(struct supervisor *s, uint64_t now)
{
	int fd = unix_socket_accept(s->qmp_fd);

	s->qmp_retry_ms = 0;
	if (fd >= 0) {
		(void)guard_add_client(&s->guard, fd); /* one too many sees its end */
	} else if (fd != -EAGAIN) {
		log_limited("cannot accept a monitor client: %s", strerror(-fd));
		s->qmp_retry_ms = now + ACCEPT_RETRY_MS;
	}
}

/* talked: what guard_talk() said. */
static int wait_ms(const struct supervisor *s, uint64_t now, int talked)
{
	uint64_t due = min_u64(guard_next(&s->guard), keeper_next(&s->keeper));

	if (talked < 0 && talked != -EAGAIN)
		due = min_u64(due, now + TALK_RETRY_MS);
	if (s->vmm.retry_ms > now)
		due = min_u64(due, s->vmm.retry_ms);
	if (s->qmp_retry_ms > now)
		due = min_u64(due, s->qmp_retry_ms);
	if (due == UINT64_MAX)
		return -1;
	return due > now ? (int)min_u64(due - now, INT_MAX) : 0;
}

static void loop(struct supervisor *s)
{
	struct guard *g = &s->guard;

	while (!g->finished) {
		uint64_t now = clock_now().mono_ms;
		int r = guard_talk(g);
		struct pollfd p[] = {
			{.fd = s->signals, .events = POLLIN},
			{.fd = g->child.channel,
			 .events = (short)(r == -EAGAIN ? POLLIN | POLLOUT : POLLIN)},
			vmm_wanted(&s->vmm, now),
			{.fd = now < s->qmp_retry_ms ? -1 : s->qmp_fd, .events = POLLIN},
		};

		if (poll(p, sizeof(p) / sizeof(p[0]), wait_ms(s, now, r)) < 0)
			continue; /* EINTR; ENOMEM passes */
		now = clock_now().mono_ms;
		if (p[1].revents)
			guard_listen(g);
		if (p[0].revents)
			on_signals(s, now);
		if (p[2].revents && !g->stop)
			vmm_ready(&s->vmm, now);
		if (p[3].revents && !g->stop)
			on_client(s, now);
		if (vmm_finished(&s->vmm))
			guard_stop(g);
		guard_tick(g, now);
		keeper_tick(&s->keeper, now);
	}
}

static int listen_on(const char *option, const char *path, gid_t group)
{
	int fd = unix_socket_listen(path, group);

	if (fd == -EADDRINUSE)
		log_line("%s: %s: in use by another process", option, path);
	else if (fd == -EEXIST)
		log_line("%s: %s: exists and is no socket", option, path);
	else if (fd < 0)
		log_line("%s: %s: %s", option, path, strerror(-fd));
	return fd;
}

static int open_sockets(struct supervisor *s)
{
	const struct options *o = s->options;
	int fd = o->fd, r;

	if (o->socket_path)
		fd = listen_on("--socket-path", o->socket_path, o->socket_group);
	if (fd < 0)
		return fd;
	r = vmm_serve(&s->vmm, fd);
	if (r < 0) {
		log_line("cannot serve the vhost-user socket: %s", strerror(-r));
		return r;
	}
	if (!o->qmp_path)
		return 0;
	s->qmp_fd = listen_on("--qmp", o->qmp_path, o->qmp_group);
	return s->qmp_fd < 0 ? s->qmp_fd : 0;
}

static int open_signals(struct supervisor *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals >= 0)
		return 0;
	log_line("cannot wait for signals: %s", strerror(errno));
	return -EIO;
}

static void finish(struct supervisor *s)
{
	if (s->qmp_fd >= 0)
		unlink(s->options->qmp_path);
	if (s->options->socket_path && s->vmm.listen_fd >= 0)
		unlink(s->options->socket_path);
	guard_close(&s->guard);
	keeper_finish(&s->keeper);
	vmm_close(&s->vmm);
}

int supervisor_run(const struct options *options, int argc, char **argv)
{
	static struct supervisor s;
	int r;

	s.options = options;
	/* Whatever this program was started with is not for the worker; --fd=N least of all. */
	(void)close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
	s.signals = s.qmp_fd = -1;
	s.keeper.dir = -1;
	vmm_init(&s.vmm);
	r = guard_init(&s.guard, &s.vmm, &s.keeper, options, argc, argv);
	if (!r)
		r = keeper_init(&s.keeper, options);
	if (!r)
		r = open_signals(&s);
	if (!r)
		r = open_sockets(&s);
	if (!r) {
		loop(&s);
		r = s.guard.result;
	}
	finish(&s);
	return r;
}
