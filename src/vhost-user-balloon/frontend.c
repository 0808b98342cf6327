// SPDX-License-Identifier: MIT
/*
 * Turns. A kick runs its ring once, for a bounded amount of work. A ring that has more to do is
 * marked in `ready` and gets another turn in the loop's next round, after sockets and timers had
 * theirs: so a guest that refills a ring as fast as it drains, or sends a buffer of gigabytes,
 * keeps nobody waiting.
 *
 * Guest memory that vanishes. A front end can truncate the file behind the memory it shares;
 * touching it then is a SIGBUS. The handler puts zeroed private memory in its place, so that what
 * is being done comes to its end, and the session is ended as soon as that is noticed.
 *
 * One quirk of user-mode-linux: once in a while its interrupt is lost, and the guest sleeps on
 * until something else wakes it. A ring whose driver was notified and that does nothing for
 * NUDGE_MS is notified once more; the driver does not mind.
 */
#include "frontend.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "unix_socket.h"
#include "vhost_user/socket.h"

#define NUDGE_MS        20
#define POLL_MS         5 /* rings without a kick descriptor */
#define ACCEPT_RETRY_MS 200

static struct frontend *sigbus_frontend;
static volatile sig_atomic_t memory_vanished;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (vu_memory_patch(&sigbus_frontend->session.memory, info->si_addr))
		memory_vanished = 1;
	else
		signal(sig, SIG_DFL); /* a fault of our own: it comes again and ends the process */
}

static void end_session(struct frontend *f, const char *reason);

static void listen_again(struct frontend *f);

/* After anything that may have touched guest memory. False: the session is over. */
static bool memory_intact(struct frontend *f)
{
	if (!memory_vanished)
		return true;
	memory_vanished = 0;
	end_session(f, "guest memory is gone: its file was truncated, or no huge page is left");
	return false;
}

static void set_ready(struct frontend *f, uint32_t index);

static void run_ring(struct frontend *f, uint32_t index)
{
	f->ready &= ~(1U << index);
	f->notified &= ~(1U << index);
	if (balloon_queue_run(f->balloon, index, clock_now()))
		set_ready(f, index);
	memory_intact(f);
}

static void on_turn(uv_idle_t *turn)
{
	struct frontend *f = turn->data;
	uint32_t ready = f->ready;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		/* A ring may have stopped since, with the session that it was in. */
		if (ready & f->ready & 1U << i)
			run_ring(f, i);
	}
	if (!f->ready)
		uv_idle_stop(turn);
}

static void set_ready(struct frontend *f, uint32_t index)
{
	f->ready |= 1U << index;
	uv_idle_start(&f->turn, on_turn);
}

static void on_poll(uv_timer_t *timer)
{
	struct frontend *f = timer->data;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		if (f->polled & 1U << i)
			run_ring(f, i);
	}
}

static void on_nudge(uv_timer_t *timer)
{
	struct frontend *f = timer->data;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		if (f->notified & 1U << i)
			vu_socket_signal(f->session.ring[i].call_fd);
	}
	f->notified = 0;
}

void frontend_notify(struct frontend *f, uint32_t queue)
{
	vu_socket_signal(f->session.ring[queue].call_fd);
	f->notified |= 1U << queue;
	if (!uv_is_active((uv_handle_t *)&f->nudge))
		uv_timer_start(&f->nudge, on_nudge, NUDGE_MS, 0);
}

void frontend_queue_broken(struct frontend *f, uint32_t queue)
{
	const struct vu_ring *ring = &f->session.ring[queue];

	log_limited("the guest broke queue %u: %s", queue, vq_error_name(ring->vq.st.error));
	vu_socket_signal(ring->err_fd);
}

/* One kick descriptor: which ring it belongs to is where in f->kick it stands. */
static void on_kick(struct frontend *f, uint32_t index)
{
	int r = vu_socket_take_kick(f->session.ring[index].kick_fd);

	if (r > 0) {
		run_ring(f, index);
	} else if (r < 0) {
		/* Readable for ever, and never a kick: the loop would spin. */
		log_limited("kick descriptor of queue %u is dead", index);
		vu_session_stop_ring(&f->session, index);
	}
}

#define KICK_CALLBACK(i)                                  \
	static void on_kick_##i(void *opaque, int events) \
	{                                                 \
		(void)events;                             \
		on_kick(opaque, i);                       \
	}
KICK_CALLBACK(0)
KICK_CALLBACK(1)
KICK_CALLBACK(2)
KICK_CALLBACK(3)
KICK_CALLBACK(4)
KICK_CALLBACK(5)

static const watch_cb kick_callbacks[] = {on_kick_0, on_kick_1, on_kick_2,
					  on_kick_3, on_kick_4, on_kick_5};
static_assert(sizeof(kick_callbacks) / sizeof(kick_callbacks[0]) == VU_MAX_QUEUES,
	      "a callback for every queue");

static uint64_t device_features(void *opaque)
{
	struct frontend *f = opaque;

	return f->balloon->st.offered;
}

static int device_set_features(void *opaque, uint64_t features)
{
	struct frontend *f = opaque;

	return balloon_set_features(f->balloon, features);
}

static void device_config_read(void *opaque, uint32_t offset, uint8_t *buf, uint32_t len)
{
	struct frontend *f = opaque;

	balloon_config_read(f->balloon, offset, buf, len);
}

static void device_config_write(void *opaque, uint32_t offset, const uint8_t *buf, uint32_t len)
{
	struct frontend *f = opaque;

	balloon_config_write(f->balloon, offset, buf, len);
}

static void device_reset(void *opaque)
{
	struct frontend *f = opaque;

	balloon_reset(f->balloon);
}

static const struct vu_device_ops device_ops = {
	.features = device_features,
	.set_features = device_set_features,
	.config_read = device_config_read,
	.config_write = device_config_write,
	.reset = device_reset,
};

static void memory_changing(void *opaque)
{
	struct frontend *f = opaque;

	balloon_memory_changing(f->balloon);
}

static int memory_changed(void *opaque)
{
	struct frontend *f = opaque;
	int r = reclaim_memory_changed(&f->reclaim, f->balloon, &f->session.memory);

	f->ops->guest_changed(f->opaque);
	return r;
}

static int ring_started(void *opaque, uint32_t index, bool resumed)
{
	struct frontend *f = opaque;
	int fd = f->session.ring[index].kick_fd;

	if (fd >= 0) {
		f->kick[index] = watch_start(f->loop, fd, UV_READABLE, kick_callbacks[index], f);
		if (!f->kick[index])
			return -EINVAL;
	} else {
		f->polled |= 1U << index;
		uv_timer_start(&f->poll, on_poll, POLL_MS, POLL_MS);
	}
	balloon_queue_started(f->balloon, index, resumed);
	set_ready(f, index);
	f->ops->guest_changed(f->opaque);
	return 0;
}

static void ring_stopping(void *opaque, uint32_t index)
{
	struct frontend *f = opaque;
	uint32_t bit = 1U << index;

	watch_end(&f->kick[index]);
	f->ready &= ~bit;
	f->notified &= ~bit;
	f->polled &= ~bit;
	if (!f->polled)
		uv_timer_stop(&f->poll);
	balloon_queue_stopped(f->balloon, index);
}

static const struct vu_ring_ops ring_ops = {
	.memory_changing = memory_changing,
	.memory_changed = memory_changed,
	.ring_started = ring_started,
	.ring_stopping = ring_stopping,
};

/* Sends the request to the front end that is due, now or when its channel has room. */
static void on_backend_writable(void *opaque, int events);

static void push_backend(struct frontend *f)
{
	int r;

	/* A message may bring another channel: on_frontend() sees to it when all are handled. */
	if (f->receiving)
		return;
	r = vu_socket_send_backend(&f->session);
	if (r == 1 && !f->backend)
		f->backend = watch_start(f->loop, f->session.backend_fd, UV_WRITABLE,
					 on_backend_writable, f);
	if (r != 1)
		watch_end(&f->backend);
	if (r < 0) {
		log_limited("back-end channel lost: %s", strerror(-r));
		vu_session_backend_lost(&f->session);
	}
}

static void on_backend_writable(void *opaque, int events)
{
	(void)events;
	push_backend(opaque);
}

void frontend_config_changed(struct frontend *f)
{
	vu_session_config_changed(&f->session);
	push_backend(f);
}

static void on_frontend(void *opaque, int events)
{
	struct frontend *f = opaque;
	size_t unsent;
	int r;

	(void)events;
	/* A message may bring another channel and close the one that is waited for. */
	watch_end(&f->backend);
	f->receiving = true;
	r = vu_socket_send(&f->session, f->conn_fd);
	if (r >= 0)
		r = vu_socket_receive(&f->session, f->conn_fd);
	f->receiving = false;
	if (r < 0) {
		const char *what = f->session.error;

		memory_vanished = 0;
		end_session(f, what               ? what
			       : r == -ECONNRESET ? "the VMM closed the connection"
						  : strerror(-r));
		return;
	}
	if (!memory_intact(f))
		return;
	(void)vu_session_output(&f->session, &unsent);
	watch_change(f->conn, (vu_session_wanted(&f->session) ? UV_READABLE : 0) |
				      (unsent ? UV_WRITABLE : 0));
	push_backend(f);
}

static void begin_session(struct frontend *f, int fd)
{
	f->conn = watch_start(f->loop, fd, UV_READABLE, on_frontend, f);
	if (!f->conn) {
		log_line("cannot serve a VMM: out of memory");
		close(fd);
		return;
	}
	f->conn_fd = fd;
	watch_end(&f->listener);
	f->ops->connected(f->opaque);
}

static void end_session(struct frontend *f, const char *reason)
{
	char why[128];

	if (f->conn_fd < 0)
		return;
	strncpy(why, reason, sizeof(why) - 1); /* the session forgets it */
	why[sizeof(why) - 1] = '\0';
	watch_end(&f->conn);
	watch_end(&f->backend);
	vu_session_end(&f->session);
	uv_timer_stop(&f->nudge);
	close(f->conn_fd);
	f->conn_fd = -1;
	f->ops->disconnected(f->opaque, why);
	if (f->listen_fd >= 0)
		listen_again(f);
	else
		f->ops->finished(f->opaque);
}

static void on_retry(uv_timer_t *timer)
{
	listen_again(timer->data);
}

static void on_connection(void *opaque, int events)
{
	struct frontend *f = opaque;
	int fd = unix_socket_accept(f->listen_fd);

	(void)events;
	if (fd >= 0) {
		begin_session(f, fd);
	} else if (fd != -EAGAIN) {
		/* Out of descriptors or memory: the connection waits in the backlog, and so do we.
		 */
		log_limited("cannot accept a VMM: %s", strerror(-fd));
		watch_end(&f->listener);
		uv_timer_start(&f->retry, on_retry, ACCEPT_RETRY_MS, 0);
	}
}

static void listen_again(struct frontend *f)
{
	if (f->listener || f->conn_fd >= 0)
		return;
	f->listener = watch_start(f->loop, f->listen_fd, UV_READABLE, on_connection, f);
	if (!f->listener)
		uv_timer_start(&f->retry, on_retry, ACCEPT_RETRY_MS, 0);
}

void frontend_check_memory(struct frontend *f)
{
	(void)memory_intact(f);
}

bool frontend_connected(const struct frontend *f)
{
	return f->conn_fd >= 0;
}

static void init_handles(struct frontend *f)
{
	uv_idle_init(f->loop, &f->turn);
	uv_timer_init(f->loop, &f->poll);
	uv_timer_init(f->loop, &f->nudge);
	uv_timer_init(f->loop, &f->retry);
	f->turn.data = f->poll.data = f->nudge.data = f->retry.data = f;
}

int frontend_start(struct frontend *f, uv_loop_t *loop, int fd, struct balloon *balloon,
		   const struct frontend_ops *ops, void *opaque)
{
	const struct sigaction bus = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	int listening = 0, type = 0;
	socklen_t len = sizeof(int);

	f->loop = loop;
	f->balloon = balloon;
	f->ops = ops;
	f->opaque = opaque;
	f->listen_fd = f->conn_fd = -1;
	vu_session_init(&f->session, &device_ops, &ring_ops, f);
	init_handles(f);
	sigbus_frontend = f;
	sigaction(SIGBUS, &bus, NULL);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
		return -errno;
	if (type != SOCK_STREAM)
		return -EPROTOTYPE;
	if (listening) {
		f->listen_fd = fd;
		listen_again(f);
	} else {
		begin_session(f, fd);
	}
	return f->listener || f->conn ? 0 : -ENOMEM;
}

void frontend_stop(struct frontend *f)
{
	watch_end(&f->listener);
	if (f->listen_fd >= 0)
		close(f->listen_fd);
	f->listen_fd = -1;
	end_session(f, "this program is ending");
	vu_session_end(&f->session);
}
