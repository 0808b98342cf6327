// SPDX-License-Identifier: MIT
#include "vhost_user/image.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "vhost_user/requests.h"

static struct vu_ring_image save_ring(const struct vu_ring *ring)
{
	return (struct vu_ring_image){
		.vq = ring->vq.st,
		.fingerprint = ring->fingerprint,
		.kick_fd = ring->kick_fd,
		.call_fd = ring->call_fd,
		.err_fd = ring->err_fd,
		.kick_set = ring->kick_set,
		.addr_set = ring->addr_set,
		.enabled = ring->enabled,
		.used = ring->used,
		.base_told = ring->base_told,
		.resumed = ring->resumed,
		.unclear = ring->unclear,
		.loaded = ring->loaded,
		.started = vq_started(&ring->vq),
	};
}

static void save_memory(const struct vu_memory *m, struct vu_image *image)
{
	image->n_regions = m->mem.n;
	for (uint32_t i = 0; i < m->mem.n; i++) {
		const struct guest_region *r = &m->mem.region[i];

		image->region[i] = (struct vu_region_image){
			.region = {r->gpa, r->size, r->uaddr, r->backing_offset},
			.fd = m->backing[r->backing].fd,
		};
	}
}

void vu_session_save(const struct vu_session *s, struct vu_image *image)
{
	image->features = s->features;
	image->protocol_features = s->protocol_features;
	image->log_offset = s->log.offset;
	image->log_size = s->log.size;
	image->state = s->state;
	image->backend_fd = s->backend_fd;
	image->log_fd = s->log_fd;
	image->log_file_fd = s->log.backing.fd;
	image->loading = s->loading;
	image->loaded = s->loaded;
	image->zero[0] = image->zero[1] = 0;
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		image->ring[i] = save_ring(&s->ring[i]);
	save_memory(&s->memory, image);
}

static void list_fd(int fd, int *fds, uint32_t *n)
{
	if (fd >= 0)
		fds[(*n)++] = fd;
}

uint32_t vu_image_fds(const struct vu_image *image, int *fds)
{
	uint32_t n = 0;

	list_fd(image->backend_fd, fds, &n);
	list_fd(image->log_fd, fds, &n);
	list_fd(image->log_file_fd, fds, &n);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		list_fd(image->ring[i].kick_fd, fds, &n);
		list_fd(image->ring[i].call_fd, fds, &n);
		list_fd(image->ring[i].err_fd, fds, &n);
	}
	for (uint32_t i = 0; i < image->n_regions && i < GUEST_MEM_MAX_REGIONS; i++)
		list_fd(image->region[i].fd, fds, &n);
	return n;
}

/* Is each descriptor open, and named once only? Else it would be closed twice. */
static bool fds_are_good(const struct vu_image *image)
{
	int fds[VU_IMAGE_FDS_MAX];
	uint32_t n = vu_image_fds(image, fds);

	for (uint32_t i = 0; i < n; i++) {
		/* seccomp: fcntl(1 == F_GETFD) fcntl64(1 == F_GETFD) close */
		if (fcntl(fds[i], F_GETFD) < 0)
			return false;
		for (uint32_t k = 0; k < i; k++) {
			if (fds[i] == fds[k])
				return false;
		}
	}
	return true;
}

static bool is_good(const struct vu_image *image)
{
	if (image->state >= VU_STATE_COUNT || image->n_regions > GUEST_MEM_MAX_REGIONS)
		return false;
	for (uint32_t i = 0; i < image->n_regions; i++) {
		if (image->region[i].fd < 0)
			return false;
	}
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		if (image->ring[i].vq.error >= VQ_ERR_COUNT)
			return false;
	}
	return fds_are_good(image);
}

static void restore_ring(struct vu_ring *ring, const struct vu_ring_image *image)
{
	*ring = (struct vu_ring){
		.vq = {.st = image->vq},
		.kick_fd = image->kick_fd,
		.call_fd = image->call_fd,
		.err_fd = image->err_fd,
		.kick_set = image->kick_set,
		.addr_set = image->addr_set,
		.enabled = image->enabled,
		.used = image->used,
		.base_told = image->base_told,
		.resumed = image->resumed,
		.unclear = image->unclear,
		.loaded = image->loaded,
		.fingerprint = image->fingerprint,
	};
}

/* All that needs no more than to be copied. */
static void restore_fields(struct vu_session *s, const struct vu_image *image)
{
	s->state = image->state;
	s->features = image->features;
	s->protocol_features = image->protocol_features;
	s->backend_fd = image->backend_fd;
	s->log_fd = image->log_fd;
	s->loading = image->loading;
	s->loaded = image->loaded;
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		restore_ring(&s->ring[i], &image->ring[i]);
}

static int fail(struct vu_session *s, int r, const char *error)
{
	(void)vu_fail(s, error);
	return r;
}

/* Memory and log. Every descriptor is taken over or closed. */
static int restore_memory(struct vu_session *s, const struct vu_image *image)
{
	int r = 0;

	for (uint32_t i = 0; i < image->n_regions; i++) {
		if (r)
			close(image->region[i].fd);
		else
			r = vu_memory_add(&s->memory, &image->region[i].region,
					  image->region[i].fd);
	}
	if (r && image->log_file_fd >= 0)
		close(image->log_file_fd);
	else if (image->log_file_fd >= 0)
		r = vu_log_set(&s->log, image->log_offset, image->log_size, image->log_file_fd);
	return r;
}

static int recover_rings(struct vu_session *s, const struct vu_image *image)
{
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		struct vq *vq = &s->ring[i].vq;

		if (!image->ring[i].started)
			continue;
		/* What is published now is to be logged as well. */
		if (s->features >> VHOST_F_LOG_ALL & 1 && vq->st.log_used)
			vq->log = &s->log.dirty;
		if (vq_recover(vq, &s->memory.mem) < 0)
			return vu_fail(s, "vring lies outside of guest memory by now");
	}
	return vu_logs_changed(s);
}

/* They are handed over when all of them run: which is which may depend on that. */
static int start_rings(struct vu_session *s, uint32_t *started)
{
	for (; *started < VU_MAX_QUEUES; (*started)++) {
		if (vq_started(&s->ring[*started].vq) &&
		    s->ring_ops->ring_started(s->opaque, *started, true) < 0)
			return vu_fail(s, "vring cannot be served");
	}
	return 0;
}

int vu_session_restore(struct vu_session *s, const struct vu_image *image)
{
	uint32_t started = 0;
	int r;

	if (!is_good(image))
		return fail(s, -EBADF, "the saved session makes no sense");
	restore_fields(s, image);
	r = restore_memory(s, image);
	if (r == -EFBIG)
		return fail(s, r, "guest memory or dirty log is larger than its file by now");
	if (r)
		return fail(s, r, "guest memory or dirty log cannot be mapped again");
	s->ring_ops->memory_changing(s->opaque);
	if (s->ring_ops->memory_changed(s->opaque) < 0)
		return vu_fail(s, "out of memory for the balloon's bitmap");
	r = recover_rings(s, image);
	if (!r)
		r = start_rings(s, &started);
	/* Nobody was told of these, so nobody is to be told that they stop. */
	for (uint32_t i = started; r && i < VU_MAX_QUEUES; i++) {
		if (vq_started(&s->ring[i].vq))
			vq_stop(&s->ring[i].vq);
	}
	return r;
}
