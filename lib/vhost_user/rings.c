// SPDX-License-Identifier: MIT
/*
 * Rings and memory of a session: when a ring may run, and when the driver has started afresh.
 *
 * No message says "the guest was reset". It shows in SET_VRING_BASE: a front end that paused the
 * guest goes on where GET_VRING_BASE said, one whose driver started anew begins at 0. A ring that
 * runs and yet gets a new size or base belongs to a driver that went away without a word
 * (user-mode-linux, when the module is unloaded). A ring may have been paused just where a fresh
 * one begins: a packed one with 128 slots is there after every 256 buffers, which is 256 MiB. Then
 * the ring's memory tells: while the guest was paused nobody has written to it, and a driver that
 * starts afresh lays it out anew. In doubt the driver is taken to have started afresh: then the
 * device only forgets what the balloon holds, and no page can be discarded wrongly for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "vhost_user/requests.h"
#include "vhost_user/socket.h"
#include "virtio/ring.h"

#define BITS_PER_BYTE 8U

static const char bad_index[] = "no such vring";

static struct vu_ring *ring_at(struct vu_session *s, uint32_t index)
{
	return index < VU_MAX_QUEUES ? &s->ring[index] : NULL;
}

static void stop_ring(struct vu_session *s, uint32_t index)
{
	struct vu_ring *ring = &s->ring[index];

	if (!vq_started(&ring->vq))
		return;
	s->ring_ops->ring_stopping(s->opaque, index);
	ring->fingerprint = vq_fingerprint(&ring->vq);
	vq_stop(&ring->vq);
	/* Not where it stands: it may have come round to where it began. */
	if (ring->vq.st.served)
		ring->used = true;
	ring->resumed = true; /* unless another base comes, or a reset */
}

void vu_session_stop_ring(struct vu_session *s, uint32_t index)
{
	stop_ring(s, index);
	s->ring[index].kick_set = false;
}

void vu_reset_device(struct vu_session *s)
{
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		struct vu_ring *ring = &s->ring[i];

		ring->used = ring->resumed = ring->unclear = ring->loaded = false;
	}
	s->loaded = false;
	s->device_ops->reset(s->opaque);
}

void vu_restart_device(struct vu_session *s)
{
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		struct vu_ring *ring = &s->ring[i];

		/* Those that do not run may just have been set up for the new start. */
		if (!vq_started(&ring->vq))
			continue;
		stop_ring(s, i);
		ring->kick_set = false;
		ring->addr_set = false;
		vq_set_base(&ring->vq, vq_fresh_base(ring->vq.st.packed));
	}
	vu_reset_device(s);
}

void vu_driver_may_be_gone(struct vu_session *s)
{
	if (s->features >> VHOST_USER_F_PROTOCOL_FEATURES & 1)
		return;
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		vu_session_stop_ring(s, i);
}

void vu_device_loaded(struct vu_session *s)
{
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		s->ring[i].used = s->ring[i].unclear = false;
		s->ring[i].resumed = s->ring[i].loaded = true;
	}
	s->loaded = true;
}

/* Does [gpa, gpa + len) have its bits in the log? */
static bool is_logged(const struct dirty_log *log, uint64_t gpa, uint64_t len)
{
	uint64_t end;

	return checked_add(gpa, len, &end) &&
	       (end - 1) >> DIRTY_LOG_PAGE_SHIFT < log->bytes * BITS_PER_BYTE;
}

/* Are all places logged that the device writes to in a ring that runs? */
static bool ring_is_logged(const struct vq *vq, const struct dirty_log *log)
{
	const struct vq_state *st = &vq->st;
	uint64_t size = st->size;

	if (!st->packed)
		return is_logged(log, st->log_gpa, VRING_USED_BYTES(size));
	return is_logged(log, vq->desc_gpa, size * VRING_DESC_SIZE) &&
	       is_logged(log, vq->device_gpa, sizeof(struct vring_packed_event));
}

/*
 * Tells a ring that runs whether it writes to the dirty log: while there is one, LOG_ALL is
 * acknowledged, and the ring's flag set. A write that the front end does not hear of would be
 * missing in the guest when that has moved.
 */
static int update_log(struct vu_session *s, struct vq *vq)
{
	const struct dirty_log *log = &s->log.dirty;
	bool due = log->map && vq->st.log_used && s->features >> VHOST_F_LOG_ALL & 1;

	vq->log = NULL;
	if (!due)
		return 0;
	if (!ring_is_logged(vq, log))
		return vu_fail(s, "dirty log is too short for a vring");
	vq->log = log;
	return 0;
}

int vu_logs_changed(struct vu_session *s)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < VU_MAX_QUEUES; i++) {
		if (vq_started(&s->ring[i].vq))
			r = update_log(s, &s->ring[i].vq);
	}
	return r;
}

/* Starts a ring if it has all it needs and does not run yet. */
static int update_ring(struct vu_session *s, uint32_t index)
{
	struct vu_ring *ring = &s->ring[index];
	int r;

	if (vq_started(&ring->vq) || !ring->enabled || !ring->kick_set || !ring->addr_set)
		return 0;
	if (s->memory.mem.n == 0)
		return vu_fail(s, "the front end shares no guest memory (share=on is missing)");
	if (vq_start(&ring->vq, &s->memory.mem) < 0)
		return vu_fail(s, "vring has a bad size, or lies outside of guest memory");
	/* A driver that starts afresh lays the ring out anew; rings that run are of that start. */
	if (ring->unclear && vq_fingerprint(&ring->vq) != ring->fingerprint)
		vu_reset_device(s);
	r = update_log(s, &ring->vq);
	if (r) {
		vq_stop(&ring->vq);
		return r;
	}
	/* It moved where its state comes from, for all that is known here. */
	ring->used = ring->used || ring->loaded;
	ring->unclear = ring->loaded = false;
	s->loading = s->loaded = false;
	r = s->ring_ops->ring_started(s->opaque, index, ring->resumed);
	if (r < 0) {
		vq_stop(&ring->vq);
		return vu_fail(s, "vring cannot be served");
	}
	return 0;
}

int vu_features_changed(struct vu_session *s, uint64_t old)
{
	uint64_t rings = 1ULL << VIRTIO_F_RING_PACKED | 1ULL << VIRTIO_F_EVENT_IDX |
			 1ULL << VIRTIO_F_INDIRECT_DESC;
	bool handshake = s->features >> VHOST_USER_F_PROTOCOL_FEATURES & 1;

	/*
	 * A driver does not change its mind about rings while it uses them. But of the one that
	 * came with the device's state nothing was known before.
	 */
	if ((old ^ s->features) & rings && !s->loaded)
		vu_restart_device(s);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		int r;

		if ((old ^ s->features) & rings) {
			vq_set_features(&s->ring[i].vq, s->features);
			vq_set_base(&s->ring[i].vq, vq_fresh_base(s->ring[i].vq.st.packed));
		}
		/* Without the feature bit there is no SET_VRING_ENABLE: rings begin enabled. */
		if (!handshake)
			s->ring[i].enabled = true;
		else if (!(old >> VHOST_USER_F_PROTOCOL_FEATURES & 1) &&
			 !vq_started(&s->ring[i].vq))
			s->ring[i].enabled = false;
		r = update_ring(s, i);
		if (r)
			return r;
	}
	return vu_logs_changed(s);
}

/* After a change of the table: rings find their memory again, or the front end has erred. */
static int memory_changed(struct vu_session *s)
{
	int r = 0;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		struct vq *vq = &s->ring[i].vq;

		if (!vq_started(vq))
			continue;
		if (vq_remap(vq) < 0) {
			s->ring_ops->ring_stopping(s->opaque, i);
			r = vu_fail(s, "memory was taken away while a vring uses it");
		}
	}
	if (s->ring_ops->memory_changed(s->opaque) < 0)
		return vu_fail(s, "out of memory for the balloon's bitmap");
	return r ? r : vu_logs_changed(s); /* rings may be elsewhere for the guest */
}

static int add_region(struct vu_session *s, struct vu_memory *m, const struct vu_mem_region *r,
		      int *fd)
{
	int err = vu_memory_add(m, r, *fd);

	*fd = -1;
	switch (err) {
	case 0:
		return 0;
	case -EFBIG:
		return vu_fail(s, "memory region is larger than its file");
	case -EEXIST:
		return vu_fail(s, "memory region overlaps another");
	case -ENOSPC:
		return vu_fail(s, "too many memory regions");
	default:
		return vu_fail(s, "memory region cannot be mapped");
	}
}

int vu_handle_mem_table(struct vu_session *s)
{
	const struct vu_mem_table *table = &s->payload.table;
	struct vu_memory fresh, old;
	int r = 0;

	/* Front ends may send the full-size table with few regions in it. */
	if (table->n > VU_MEM_TABLE_MAX || s->n_fds != table->n ||
	    s->header.size <
		    offsetof(struct vu_mem_table, region) + table->n * sizeof(table->region[0]))
		return vu_fail(s, "memory table does not match its size or descriptors");

	vu_memory_init(&fresh);
	for (uint32_t i = 0; !r && i < table->n; i++)
		r = add_region(s, &fresh, &table->region[i], &s->fds[i]);
	if (r) {
		vu_memory_clear(&fresh);
		return r;
	}
	s->ring_ops->memory_changing(s->opaque);
	old = s->memory;
	s->memory = fresh;
	r = memory_changed(s);
	vu_memory_clear(&old);
	return r;
}

int vu_handle_add_mem(struct vu_session *s)
{
	int r;

	s->ring_ops->memory_changing(s->opaque);
	r = add_region(s, &s->memory, &s->payload.single.region, &s->fds[0]);
	/* Indices of regions may have moved; the others are as they were. */
	return memory_changed(s) ? -EPROTO : r;
}

int vu_handle_rem_mem(struct vu_session *s)
{
	int r;

	s->ring_ops->memory_changing(s->opaque);
	r = vu_memory_remove(&s->memory, &s->payload.single.region);
	if (memory_changed(s))
		return -EPROTO;
	return r ? vu_fail(s, "no such memory region") : 0;
}

int vu_handle_vring_num(struct vu_session *s)
{
	struct vu_ring *ring = ring_at(s, s->payload.state.index);

	if (!ring)
		return vu_fail(s, bad_index);
	if (vq_check_size(ring->vq.st.packed, s->payload.state.num) < 0)
		return vu_fail(s, "bad vring size");
	if (vq_started(&ring->vq))
		vu_restart_device(s);
	ring->vq.st.size = s->payload.state.num;
	return 0;
}

int vu_handle_vring_addr(struct vu_session *s)
{
	const struct vu_vring_addr *a = &s->payload.addr;
	struct vu_ring *ring = ring_at(s, a->index);
	struct vq_state *st;

	if (!ring)
		return vu_fail(s, bad_index);
	st = &ring->vq.st;
	/* May be sent again for the flags, which are about logging. */
	if (vq_started(&ring->vq) && (st->desc_uaddr != a->desc || st->driver_uaddr != a->avail ||
				      st->device_uaddr != a->used))
		vu_restart_device(s);
	st->log_used = a->flags & VU_VRING_F_LOG;
	st->log_gpa = a->log;
	if (vq_started(&ring->vq))
		return update_log(s, &ring->vq);
	st->desc_uaddr = a->desc;
	st->driver_uaddr = a->avail;
	st->device_uaddr = a->used;
	ring->addr_set = true;
	return update_ring(s, a->index);
}

int vu_handle_log_base(struct vu_session *s)
{
	const struct vu_log_area area = s->payload.log;
	int fd = s->fds[0], r;

	s->fds[0] = -1;
	switch (vu_log_set(&s->log, area.mmap_offset, area.mmap_size, fd)) {
	case 0:
		break;
	case -EFBIG:
		return vu_fail(s, "dirty log is larger than its file");
	default:
		return vu_fail(s, "dirty log cannot be mapped");
	}
	r = vu_logs_changed(s);
	s->payload.u64 = 0;
	s->header.size = sizeof(s->payload.u64);
	return r;
}

int vu_handle_set_base(struct vu_session *s)
{
	uint32_t index = s->payload.state.index, base = s->payload.state.num;
	struct vu_ring *ring = ring_at(s, index);
	uint32_t fresh;

	if (!ring)
		return vu_fail(s, bad_index);
	fresh = vq_fresh_base(ring->vq.st.packed);
	/*
	 * For a packed ring 0 says that both wrap counters are 0. User-mode-linux means a fresh
	 * ring by it; only a front end that was told 0 means what it says, here or where the
	 * device's state comes from.
	 */
	if (base == 0 && !ring->loaded && !(ring->base_told && vq_base(&ring->vq) == 0))
		base = fresh;
	ring->resumed =
		ring->loaded || (ring->resumed && ring->base_told && base == vq_base(&ring->vq));
	ring->base_told = false;
	if (vq_started(&ring->vq))
		vu_restart_device(s);
	else if (ring->used && base != vq_base(&ring->vq))
		vu_reset_device(s); /* rings that run by now belong to the new start already */
	else
		ring->unclear = ring->used && base == fresh;
	vq_set_base(&ring->vq, base);
	return 0;
}

int vu_handle_get_base(struct vu_session *s)
{
	uint32_t index = s->payload.state.index;
	struct vu_ring *ring = ring_at(s, index);

	if (!ring)
		return vu_fail(s, bad_index);
	stop_ring(s, index);
	ring->kick_set = false;
	ring->base_told = true;
	s->payload.state.num = vq_base(&ring->vq);
	return 0;
}

/* Can the descriptor be waited for and written to, and is it none that ends the process or session?
 */
static bool is_signal_fd(int fd)
{
	struct epoll_event event;
	struct stat st;

	/* Eventfds have no file type. */
	/* seccomp: fstat fstat64 newfstatat(3 == AT_EMPTY_PATH) */
	if (fstat(fd, &st) < 0 ||
	    ((st.st_mode & S_IFMT) != 0 && !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode)))
		return false;
	/* An epoll set can become unfit to be watched at any later time: libuv would abort() then.
	 */
	/* seccomp: epoll_wait epoll_pwait */
	if (epoll_wait(fd, &event, 1, 0) >= 0 || errno != EINVAL)
		return false;
	return !vu_socket_is_connection(fd);
}

/* The message's descriptor, for signals, to *slot, replacing an older one. */
static int take_signal_fd(struct vu_session *s, int *slot)
{
	int flags;

	if (*slot >= 0)
		close(*slot);
	*slot = -1;
	if (!is_signal_fd(s->fds[0]))
		return vu_fail(s, "descriptor for signals is no eventfd, pipe or socket");
	/* seccomp: fcntl(1 == F_GETFL) fcntl(1 == F_SETFL) close */
	/* seccomp: fcntl64(1 == F_GETFL) fcntl64(1 == F_SETFL) */
	flags = fcntl(s->fds[0], F_GETFL);
	if (flags < 0 || fcntl(s->fds[0], F_SETFL, flags | O_NONBLOCK) < 0)
		return vu_fail(s, "descriptor for signals cannot be used");
	*slot = s->fds[0];
	s->fds[0] = -1;
	return 0;
}

/* ... of a KICK, CALL or ERR message; -1 if that says that there is none. */
static int take_vring_fd(struct vu_session *s, int *slot)
{
	bool none = s->payload.u64 & VU_VRING_NO_FD;

	if (none != (s->n_fds == 0))
		return vu_fail(s, "vring message does not match its descriptor");
	if (!none)
		return take_signal_fd(s, slot);
	if (*slot >= 0)
		close(*slot);
	*slot = -1;
	return 0;
}

static struct vu_ring *ring_of_u64(struct vu_session *s)
{
	if (s->payload.u64 & ~(uint64_t)(VU_VRING_INDEX_MASK | VU_VRING_NO_FD))
		return NULL;
	return ring_at(s, s->payload.u64 & VU_VRING_INDEX_MASK);
}

int vu_handle_kick(struct vu_session *s)
{
	struct vu_ring *ring = ring_of_u64(s);
	uint32_t index = s->payload.u64 & VU_VRING_INDEX_MASK;
	int r;

	if (!ring)
		return vu_fail(s, bad_index);
	stop_ring(s, index); /* goes on below with the new descriptor */
	ring->kick_set = false;
	r = take_vring_fd(s, &ring->kick_fd);
	if (r)
		return r;
	ring->kick_set = true;
	return update_ring(s, index);
}

int vu_handle_call(struct vu_session *s)
{
	struct vu_ring *ring = ring_of_u64(s);

	return ring ? take_vring_fd(s, &ring->call_fd) : vu_fail(s, bad_index);
}

int vu_handle_err(struct vu_session *s)
{
	struct vu_ring *ring = ring_of_u64(s);

	return ring ? take_vring_fd(s, &ring->err_fd) : vu_fail(s, bad_index);
}

int vu_handle_enable(struct vu_session *s)
{
	uint32_t index = s->payload.state.index;
	struct vu_ring *ring = ring_at(s, index);

	if (!ring)
		return vu_fail(s, bad_index);
	if (!(s->features >> VHOST_USER_F_PROTOCOL_FEATURES & 1) || s->payload.state.num > 1)
		return vu_fail(s, "bad SET_VRING_ENABLE");
	ring->enabled = s->payload.state.num == 1;
	if (!ring->enabled)
		stop_ring(s, index);
	return update_ring(s, index);
}

int vu_handle_log_fd(struct vu_session *s)
{
	return take_signal_fd(s, &s->log_fd);
}
