// SPDX-License-Identifier: MIT
/*
 * Saving ends when all is written: then the descriptor is closed, which is how the front end sees
 * the end. Loading ends at the end of the stream. By the time that the front end asks how it went
 * it has seen the end of what was saved, or closed its own end of what is to be loaded: so
 * transfer_check() reads what is there, and if the end is not among it the front end has erred.
 *
 * Each turn of the event loop moves a bounded number of bytes.
 */
#include "transfer.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "vhost_user/socket.h"

#define TURN_BYTES (64U << 10)
/* What can wait in a pipe or socket when the other end of it is closed, and more than that. */
#define DRAIN_BYTES (64U << 20)

static void close_fd(struct transfer *t)
{
	if (t->fd < 0)
		return;
	watch_end(&t->watch);
	/* seccomp: close */
	close(t->fd);
	t->fd = -1;
	t->ops->released(t->opaque);
}

static void drop_map(struct transfer *t)
{
	/* seccomp: munmap */
	if (t->map)
		munmap(t->map, t->map_bytes);
	t->map = NULL;
}

static int fail(struct transfer *t, int result, const char *error)
{
	t->state = TRANSFER_FAILED;
	t->result = result;
	t->error = error;
	drop_map(t);
	close_fd(t);
	return result;
}

static void *map_private(size_t bytes)
{
	/* seccomp: mmap(2 & PROT_EXEC == 0) mmap2(2 & PROT_EXEC == 0) */
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

/* snapshot_words: zeroed pages that take up memory only where something is held. */
static uint64_t *make_map(void *opaque, uint64_t n)
{
	struct transfer *t = opaque;
	size_t bytes = n * sizeof(*t->map);
	void *map;

	if (t->ops->map)
		map = t->ops->map(t->opaque, bytes);
	else
		map = map_private(bytes);
	if (!map)
		return NULL;
	t->map = map;
	t->map_bytes = bytes;
	return t->map;
}

/* Writes up to max bytes of the stream. */
static void push(struct transfer *t, size_t max)
{
	while (max && t->state == TRANSFER_SAVING) {
		ssize_t n;

		if (t->sent == t->have) {
			t->sent = 0;
			t->have = (uint32_t)snapshot_read(&t->u.writer, t->buf, sizeof(t->buf));
		}
		if (!t->have) {
			t->state = TRANSFER_SAVED;
			close_fd(t);
			return;
		}
		n = vu_socket_write(t->fd, t->buf + t->sent, t->have - t->sent);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			(void)fail(t, (int)n, strerror((int)-n));
			return;
		}
		t->sent += (uint32_t)n;
		max -= (size_t)n < max ? (size_t)n : max;
	}
}

/* Reads up to max bytes of the stream. */
static void pull(struct transfer *t, size_t max)
{
	while (max && t->state == TRANSFER_LOADING) {
		size_t wanted = max < sizeof(t->buf) ? max : sizeof(t->buf);
		ssize_t n = vu_socket_read(t->fd, t->buf, wanted);
		int r;

		if (n == -EAGAIN)
			return;
		if (n < 0) {
			(void)fail(t, (int)n, strerror((int)-n));
			return;
		}
		r = n ? snapshot_write(&t->u.reader, t->buf, (size_t)n)
		      : snapshot_finish(&t->u.reader);
		if (r) {
			(void)fail(t, r, t->u.reader.error);
		} else if (n == 0) {
			t->state = TRANSFER_READ;
			close_fd(t);
		}
		max -= (size_t)n;
	}
}

static void on_ready(void *opaque, int events)
{
	struct transfer *t = opaque;

	(void)events;
	if (t->state == TRANSFER_SAVING)
		push(t, TURN_BYTES);
	else
		pull(t, TURN_BYTES);
}

void transfer_init(struct transfer *t, uv_loop_t *loop, struct balloon *b,
		   const struct transfer_ops *ops, void *opaque)
{
	memset(t, 0, sizeof(*t));
	t->loop = loop;
	t->balloon = b;
	t->ops = ops;
	t->opaque = opaque;
	t->fd = -1;
}

int transfer_start(struct transfer *t, bool load, int fd)
{
	transfer_stop(t);
	t->fd = fd;
	if (!vu_socket_is_stream(fd, !load) || vu_socket_is_connection(fd))
		return fail(t, -EBADF, "its descriptor is no pipe or socket");
	t->watch = watch_start(t->loop, fd, load ? UV_READABLE : UV_WRITABLE, on_ready, t);
	if (!t->watch)
		return fail(t, -ENOMEM, "its descriptor cannot be watched");
	if (load)
		snapshot_reader_init(&t->u.reader, clock_now(), make_map, t);
	else
		snapshot_writer_init(&t->u.writer, t->balloon, clock_now());
	t->sent = t->have = 0;
	t->state = load ? TRANSFER_LOADING : TRANSFER_SAVING;
	return 0;
}

/* The snapshot becomes the balloon's state. */
static int apply(struct transfer *t)
{
	int r = snapshot_apply(&t->u.reader.snap, t->balloon);

	if (r < 0)
		return fail(t, r, "the guest's driver uses other features than this device has");
	t->state = TRANSFER_APPLIED;
	r = t->ops->memory_changed(t->opaque);
	if (r < 0) {
		balloon_reset(t->balloon); /* the guest's driver keeps what it has, unknown to us */
		(void)fail(t, r, "no room for the balloon's bitmap");
	}
	return r;
}

int transfer_check(struct transfer *t)
{
	if (t->state == TRANSFER_LOADING)
		pull(t, DRAIN_BYTES);
	switch (t->state) {
	case TRANSFER_READ:
		return apply(t);
	case TRANSFER_SAVED:
	case TRANSFER_APPLIED:
		return 0;
	case TRANSFER_LOADING:
		return fail(t, -EAGAIN, "the front end has not ended the stream");
	case TRANSFER_SAVING:
		return fail(t, -EAGAIN, "the front end has not read the stream");
	case TRANSFER_FAILED:
		return t->result;
	case TRANSFER_NONE:
	case TRANSFER_STATES:
	default:
		return fail(t, -ENODATA, "there was none, or it went with the process");
	}
}

void transfer_hold(struct transfer *t)
{
	if (t->state == TRANSFER_APPLIED)
		snapshot_hold(&t->u.reader.snap, t->balloon);
	else if (t->state == TRANSFER_SAVING)
		(void)fail(t, -EBUSY, "guest memory has changed under way");
}

const struct pageset *transfer_loaded(const struct transfer *t)
{
	return t->state == TRANSFER_APPLIED ? &t->u.reader.snap.held : NULL;
}

void transfer_resume(struct transfer *t, const struct pageset *held)
{
	transfer_stop(t);
	t->state = TRANSFER_APPLIED;
	t->u.reader.snap.held = *held;
	t->map = held->map;
	t->map_bytes = pageset_layout_words(&held->at) * sizeof(*t->map);
}

void transfer_forget(struct transfer *t)
{
	if (t->state == TRANSFER_APPLIED)
		transfer_stop(t);
	else if (t->state == TRANSFER_SAVING)
		(void)fail(t, -EBUSY, "the device was reset under way");
}

void transfer_stop(struct transfer *t)
{
	t->state = TRANSFER_NONE;
	drop_map(t);
	close_fd(t);
}
