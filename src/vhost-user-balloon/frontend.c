// SPDX-License-Identifier: MIT
/*
 * Guest memory that vanishes. A front end can truncate the file behind the memory it shares;
 * touching it then is a SIGBUS. The handler puts zeroed private memory in its place, so that what
 * is being done comes to its end, and the session is ended as soon as that is noticed.
 */
#include "frontend.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "vhost_user/socket.h"

#define DEATHS_MAX 3 /* of one buffer, before its ring is given up */

static struct frontend *sigbus_frontend;
static volatile sig_atomic_t memory_vanished;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (vu_session_patch(&sigbus_frontend->session, info->si_addr))
		memory_vanished = 1;
	else
		/* seccomp: rt_sigaction rt_sigreturn sigreturn */
		signal(sig, SIG_DFL); /* a fault of our own: it comes again and ends the process */
}

static void end_session(struct frontend *f, const char *reason);

/* After anything that may have touched guest memory. False: the session is over. */
static bool memory_intact(struct frontend *f)
{
	if (!memory_vanished)
		return true;
	memory_vanished = 0;
	end_session(f, "guest memory is gone: its file was truncated, or no huge page is left");
	return false;
}

/* --- rings ------------------------------------------------------------------------------------ */

uint64_t frontend_served(const struct frontend *f, uint32_t ring)
{
	int queue = balloon_queue_of(f->balloon, ring);

	return queue < 0 ? 0 : f->balloon->st.buffers[queue];
}

static bool run_ring(void *opaque, uint32_t ring)
{
	struct frontend *f = opaque;
	bool more;

	/* Before anything of the guest's is looked at. */
	block_busy(f->block, BLOCK_RING, ring, frontend_served(f, ring));
	more = balloon_queue_run(f->balloon, ring, clock_now());
	block_idle(f->block);
	vu_socket_signal_log(&f->session, ring);
	f->ops->touched(f->opaque);
	return memory_intact(f) && more;
}

static void ring_kicked(void *opaque, uint32_t ring)
{
	struct frontend *f = opaque;

	balloon_queue_kicked(f->balloon, ring);
}

static uint64_t ring_served(void *opaque, uint32_t ring)
{
	return frontend_served(opaque, ring);
}

static void ring_dead(void *opaque, uint32_t ring)
{
	struct frontend *f = opaque;

	vu_session_stop_ring(&f->session, ring);
	f->ops->released(f->opaque);
}

static const struct turns_ops turns_ops = {
	.run = run_ring,
	.kicked = ring_kicked,
	.served = ring_served,
	.dead = ring_dead,
};

void frontend_run_rings(struct frontend *f, uint32_t rings)
{
	turns_want(&f->turns, rings);
}

void frontend_notify(struct frontend *f, uint32_t queue)
{
	turns_notify(&f->turns, queue);
}

void frontend_queue_broken(struct frontend *f, uint32_t queue)
{
	const struct vu_ring *ring = &f->session.ring[queue];

	log_limited("the guest broke queue %u: %s", queue, vq_error_name(ring->vq.st.error));
	vu_socket_signal(ring->err_fd);
}

/* --- the device ------------------------------------------------------------------------------- */

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

	transfer_forget(&f->transfer);
	balloon_reset(f->balloon);
}

static int device_transfer(void *opaque, bool load, int fd)
{
	struct frontend *f = opaque;

	return transfer_start(&f->transfer, load, fd);
}

static int device_transfer_check(void *opaque)
{
	struct frontend *f = opaque;
	int r = transfer_check(&f->transfer);

	if (r < 0)
		log_limited("device state: %s",
			    f->transfer.error ? f->transfer.error : strerror(-r));
	return r;
}

static const struct vu_device_ops device_ops = {
	.features = device_features,
	.set_features = device_set_features,
	.config_read = device_config_read,
	.config_write = device_config_write,
	.reset = device_reset,
	.transfer = device_transfer,
	.transfer_check = device_transfer_check,
};

static void memory_changing(void *opaque)
{
	struct frontend *f = opaque;

	balloon_memory_changing(f->balloon);
}

/* A session is gone on with, and its memory is there again. */
static int restore_memory(struct frontend *f)
{
	static struct pageset held, hints;
	const struct block_cold *cold = f->restored_cold;
	int r = reclaim_restore(&f->reclaim, &f->session.memory, cold->half, &cold->layout, &held,
				&hints);

	if (r == 0)
		balloon_restore(f->balloon, &f->restored->balloon, &f->session.memory.mem, &held,
				&hints);
	return r;
}

/* The balloon's bitmaps for the memory table as it is. */
static int lay_out_memory(void *opaque)
{
	struct frontend *f = opaque;

	return reclaim_memory_changed(&f->reclaim, f->balloon, &f->session.memory,
				      block_cold(f->block)->half & 1);
}

static int memory_changed(void *opaque)
{
	struct frontend *f = opaque;
	int r;

	if (f->restored)
		return restore_memory(f);
	transfer_hold(&f->transfer);
	r = lay_out_memory(f);
	f->ops->guest_changed(f->opaque);
	return r;
}

static int ring_started(void *opaque, uint32_t index, bool resumed)
{
	struct frontend *f = opaque;

	transfer_stop(&f->transfer);
	if (turns_begin(&f->turns, index) < 0)
		return -EINVAL;
	frontend_run_rings(f, balloon_queue_started(f->balloon, index, resumed));
	f->ops->guest_changed(f->opaque);
	return 0;
}

static void ring_stopping(void *opaque, uint32_t index)
{
	struct frontend *f = opaque;

	turns_end(&f->turns, index);
	balloon_queue_stopped(f->balloon, index);
}

static void transfer_released(void *opaque)
{
	struct frontend *f = opaque;

	f->ops->released(f->opaque);
}

static uint64_t *map_loaded(void *opaque, size_t bytes)
{
	const struct frontend *f = opaque;

	return reclaim_map_loaded(&f->reclaim, bytes);
}

static const struct transfer_ops transfer_ops = {
	.memory_changed = lay_out_memory,
	.map = map_loaded,
	.released = transfer_released,
};

static const struct vu_ring_ops ring_ops = {
	.memory_changing = memory_changing,
	.memory_changed = memory_changed,
	.ring_started = ring_started,
	.ring_stopping = ring_stopping,
};

/* Sends the request to the front end that is due, now or when its channel has room. */
static void on_backend_writable(void *opaque, int events);

static void on_gap(uv_timer_t *timer);

/*
 * Whether the change that is due has to wait. QEMU dies of one that it reads after it has stopped
 * the rings, and nobody can know that it is about to: so few are on their way at a time, and what
 * changes faster than that is told once.
 */
static bool too_soon(struct frontend *f)
{
	uint64_t now = clock_now().mono_ms, due = f->told_ms + CONFIG_GAP_MS;
	struct vu_header message;

	if (!vu_session_backend_output(&f->session, &message))
		return false;
	if (f->told_ms && now < due) {
		watch_end(&f->backend); /* it would say all the time that there is room */
		uv_timer_start(&f->gap, on_gap, due - now, 0);
		return true;
	}
	f->told_ms = now;
	return false;
}

/* The part of the configuration that is the device's to change. */
static struct virtio_balloon_config device_config(const struct frontend *f)
{
	struct virtio_balloon_config config;

	balloon_config_read(f->balloon, 0, (uint8_t *)&config, sizeof(config));
	config.actual = config.poison_val = 0;
	return config;
}

static void push_backend(struct frontend *f)
{
	bool due = f->session.config_change_due;
	int r;

	/* The message may bring another channel: handle_message() sees to it. */
	if (f->receiving || too_soon(f))
		return;
	r = vu_socket_send_backend(&f->session);
	if (due && !f->session.config_change_due)
		f->told = device_config(f);
	if (r == 1 && !f->backend)
		f->backend = watch_start(f->loop, f->session.backend_fd, UV_WRITABLE,
					 on_backend_writable, f);
	if (r != 1)
		watch_end(&f->backend);
	if (r < 0) {
		log_limited("back-end channel lost: %s", strerror(-r));
		vu_session_backend_lost(&f->session);
		f->ops->released(f->opaque);
	}
	f->ops->touched(f->opaque);
}

static void on_backend_writable(void *opaque, int events)
{
	(void)events;
	push_backend(opaque);
}

static void on_gap(uv_timer_t *timer)
{
	push_backend(timer->data);
}

void frontend_config_changed(struct frontend *f, bool at_once)
{
	if (at_once)
		f->told_ms = 0;
	vu_session_config_changed(&f->session);
	push_backend(f);
}

/* --- what the front end does ------------------------------------------------------------------ */

static void end_session(struct frontend *f, const char *reason)
{
	bool changing = f->changing;

	if (!f->connection)
		return;
	f->changing = true;
	snprintf(f->reason, sizeof(f->reason), "%s", reason); /* the session forgets it */
	watch_end(&f->backend);
	transfer_stop(&f->transfer);
	vu_session_end(&f->session);
	turns_quiet(&f->turns);
	f->connection = 0;
	f->changing = changing;
	f->ops->released(f->opaque);
	f->ops->disconnected(f->opaque, f->reason);
}

/* Moves what the session has to say into reply. */
static uint32_t take_reply(struct frontend *f, uint8_t *reply)
{
	size_t len;
	const uint8_t *out = vu_session_output(&f->session, &len);

	if (len > CHANNEL_REPLY_MAX)
		len = CHANNEL_REPLY_MAX;
	memcpy(reply, out, len);
	vu_session_sent(&f->session, len);
	return (uint32_t)len;
}

static int feed(struct frontend *f, const uint8_t *bytes, uint32_t len, const int *fds,
		uint32_t n_fds)
{
	const uint32_t header = sizeof(struct vu_header);
	int r = vu_session_feed(&f->session, bytes, header, fds, n_fds);

	if (r < 0 || len == header)
		return r;
	if (vu_session_wanted(&f->session) != len - header)
		return -EPROTO;
	return vu_session_feed(&f->session, bytes + header, len - header, NULL, 0);
}

static void handle_message(struct frontend *f, const struct channel_event *e, uint8_t *reply,
			   uint32_t *reply_len)
{
	int fds[VU_FDS_MAX], r;

	for (uint32_t i = 0; i < e->n_slots; i++)
		fds[i] = CHANNEL_SLOT_FD + e->slot[i];
	/* A message may bring another channel and close the one that is waited for. */
	watch_end(&f->backend);
	f->receiving = true;
	r = feed(f, e->bytes, e->len, fds, e->n_slots);
	f->receiving = false;
	*reply_len = take_reply(f, reply);
	if (r < 0) {
		memory_vanished = 0;
		end_session(f, f->session.error ? f->session.error : strerror(-r));
		return;
	}
	if (memory_intact(f))
		push_backend(f);
}

/* The payload has not come yet: is the header good, so that it is to be waited for? */
static void check_header(struct frontend *f, const struct channel_event *e, uint8_t *reply,
			 uint32_t *reply_len)
{
	if (vu_session_feed(&f->session, e->bytes, sizeof(struct vu_header), NULL, 0) == 0) {
		f->session.have = 0; /* it comes again, with the payload */
		return;
	}
	*reply_len = take_reply(f, reply);
	end_session(f, f->session.error);
}

static void close_slots(const struct channel_event *e)
{
	for (uint32_t i = 0; i < e->n_slots; i++)
		/* seccomp: close */
		close(CHANNEL_SLOT_FD + e->slot[i]);
}

void frontend_event(struct frontend *f, const struct channel_event *e, uint8_t *reply,
		    uint32_t *reply_len)
{
	char why[CHANNEL_REASON_MAX];
	uint32_t len = e->len < sizeof(why) ? e->len : sizeof(why) - 1;

	*reply_len = 0;
	f->changing = true;
	block_busy(f->block, BLOCK_EVENT, 0, e->seq);
	switch ((enum channel_event_kind)e->kind) {
	case CHANNEL_BEGIN:
		end_session(f, "another VMM has connected");
		f->connection = e->seq;
		f->ops->connected(f->opaque);
		break;
	case CHANNEL_HEADER:
		if (f->connection && e->len == sizeof(struct vu_header))
			check_header(f, e, reply, reply_len);
		break;
	case CHANNEL_MESSAGE:
		/* One that was on its way while this side has ended the session. */
		if (f->connection && e->len >= sizeof(struct vu_header))
			handle_message(f, e, reply, reply_len);
		else
			close_slots(e);
		break;
	case CHANNEL_END:
	case CHANNEL_EVENT_KINDS:
	default:
		memcpy(why, e->bytes, len);
		why[len] = '\0';
		memory_vanished = 0;
		end_session(f, why);
		break;
	}
	block_idle(f->block);
	f->changing = false;
}

static void add_slot(uint64_t *in_use, int fd)
{
	uint32_t slot = (uint32_t)(fd - CHANNEL_SLOT_FD);

	if (fd >= CHANNEL_SLOT_FD && slot < CHANNEL_SLOT_COUNT)
		in_use[slot / 64] |= 1ULL << slot % 64;
}

void frontend_slots(const struct frontend *f, uint64_t in_use[CHANNEL_SLOT_COUNT / 64])
{
	static struct vu_image image;
	int fds[VU_IMAGE_FDS_MAX];
	uint32_t n;

	memset(in_use, 0, CHANNEL_SLOT_COUNT / 8);
	vu_session_save(&f->session, &image);
	n = vu_image_fds(&image, fds);
	for (uint32_t i = 0; i < n; i++)
		add_slot(in_use, fds[i]);
	add_slot(in_use, f->transfer.fd);
}

void frontend_check_memory(struct frontend *f)
{
	(void)memory_intact(f);
}

bool frontend_connected(const struct frontend *f)
{
	return f->connection != 0;
}

/* --- beginning and end ------------------------------------------------------------------------ */

void frontend_start(struct frontend *f, uv_loop_t *loop, struct balloon *balloon,
		    struct block *block, const struct frontend_ops *ops, void *opaque)
{
	const struct sigaction bus = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	f->loop = loop;
	f->balloon = balloon;
	f->block = block;
	f->ops = ops;
	f->opaque = opaque;
	vu_session_init(&f->session, &device_ops, &ring_ops, f);
	transfer_init(&f->transfer, loop, balloon, &transfer_ops, f);
	turns_init(&f->turns, loop, &f->session, &turns_ops, f);
	uv_timer_init(loop, &f->gap);
	f->gap.data = f;
	sigbus_frontend = f;
	sigaction(SIGBUS, &bus, NULL);
}

/*
 * A ring that ran goes on. Whatever came while nobody listened is found by running it, whatever
 * the driver was not told by telling it. One that has killed several processes is not run again.
 */
static void resume_ring(struct frontend *f, uint32_t index)
{
	turns_want(&f->turns, 1U << index);
	vu_socket_signal(f->session.ring[index].call_fd);
	if (block_deaths(f->block, BLOCK_RING, index, frontend_served(f, index)) >= DEATHS_MAX)
		balloon_give_up_ring(f->balloon, index, VQ_ERR_CRASH);
}

/* What the balloon knows apart from this guest stays. */
static void give_up_session(struct frontend *f, const struct block_hot *hot)
{
	static const struct guest_mem no_memory;
	const struct pageset none = {0};

	balloon_restore(f->balloon, &hot->balloon, &no_memory, &none, &none);
	vu_session_end(&f->session);
	f->connection = 0;
}

int frontend_restore(struct frontend *f, const struct block_hot *hot, const struct block_cold *cold)
{
	static struct vu_image image;
	static struct pageset held;
	struct virtio_balloon_config now;
	int r;

	image = cold->image;
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		image.ring[i].vq = hot->vq[i];
	f->connection = cold->session;
	f->restored = hot;
	f->restored_cold = cold;
	f->receiving = true;
	r = vu_session_restore(&f->session, &image);
	f->receiving = false;
	f->restored = NULL;
	f->restored_cold = NULL;
	if (r < 0) {
		snprintf(f->reason, sizeof(f->reason), "another process cannot go on with it: %s",
			 f->session.error ? f->session.error : strerror(-r));
		give_up_session(f, hot);
		return r;
	}
	if (cold->loaded) {
		reclaim_restore_loaded(&f->reclaim, &cold->loaded_layout, &held);
		transfer_resume(&f->transfer, &held);
	}
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		if (vq_started(&f->session.ring[i].vq))
			resume_ring(f, i);
	}
	/* The one before may have died between a change and the message about it. */
	f->told = hot->told;
	now = device_config(f);
	if (memcmp(&now, &f->told, sizeof(now)) != 0)
		vu_session_config_changed(&f->session);
	push_backend(f);
	memory_intact(f);
	return 0;
}

void frontend_leave(struct frontend *f)
{
	transfer_stop(&f->transfer);
	watch_end(&f->backend);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		turns_end(&f->turns, i);
}

void frontend_stop(struct frontend *f)
{
	end_session(f, "this program is ending");
	vu_session_end(&f->session);
}
