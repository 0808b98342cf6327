// SPDX-License-Identifier: MIT
/*
 * From bytes to requests: framing, validation against the request table, replies.
 *
 * A message is read in two steps, header then payload, each to its exact end. Descriptors come with
 * the first byte of a message and stay in s->fds, whose one release path is drop_fds(): what the
 * handler did not take over is closed there, whatever happened.
 */
#include "vhost_user/session.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vhost_user/requests.h"

#define HEADER_SIZE ((uint32_t)sizeof(struct vu_header))

int vu_fail(struct vu_session *s, const char *error)
{
	s->error = error;
	return -EPROTO;
}

static void drop_fds(struct vu_session *s)
{
	for (uint32_t i = 0; i < s->n_fds; i++) {
		if (s->fds[i] >= 0)
			close(s->fds[i]);
	}
	s->n_fds = 0;
}

static void close_fd(int *fd)
{
	/* seccomp: close */
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vu_session_init(struct vu_session *s, const struct vu_device_ops *device_ops,
		     const struct vu_ring_ops *ring_ops, void *opaque)
{
	memset(s, 0, sizeof(*s));
	vu_memory_init(&s->memory);
	vu_log_init(&s->log);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		s->ring[i].kick_fd = s->ring[i].call_fd = s->ring[i].err_fd = -1;
	s->log_fd = s->backend_fd = -1;
	s->device_ops = device_ops;
	s->ring_ops = ring_ops;
	s->opaque = opaque;
}

void vu_session_end(struct vu_session *s)
{
	bool due = s->config_change_due;

	vu_restart_device(s);
	(void)s->device_ops->set_features(s->opaque, 0); /* none is always on offer */
	s->ring_ops->memory_changing(s->opaque);
	vu_memory_clear(&s->memory);
	(void)s->ring_ops->memory_changed(s->opaque); /* an empty table needs no memory */
	drop_fds(s);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		close_fd(&s->ring[i].kick_fd);
		close_fd(&s->ring[i].call_fd);
		close_fd(&s->ring[i].err_fd);
	}
	vu_log_clear(&s->log);
	close_fd(&s->log_fd);
	close_fd(&s->backend_fd);
	vu_session_init(s, s->device_ops, s->ring_ops, s->opaque);
	s->config_change_due = due;
}

/*
 * Does the front end want to hear how the request went? Those that have a reply of their own have
 * no other: their failure is told by the end of the session.
 */
static bool ack_wanted(const struct vu_session *s)
{
	const struct vu_request_row *row = vu_request_row(s->header.request);

	return !(row && row->reply == VU_REPLY_PAYLOAD) && s->header.flags & VU_FLAG_NEED_REPLY &&
	       s->protocol_features >> VU_PF_REPLY_ACK & 1;
}

static void put_reply(struct vu_session *s)
{
	struct vu_header header = {s->header.request, VU_FLAG_VERSION | VU_FLAG_REPLY,
				   s->header.size};

	memcpy(s->out + s->out_len, &header, sizeof(header));
	memcpy(s->out + s->out_len + sizeof(header), &s->payload, header.size);
	s->out_len += HEADER_SIZE + header.size;
}

static void put_ack(struct vu_session *s, bool failed)
{
	s->payload.u64 = failed;
	s->header.size = sizeof(s->payload.u64);
	put_reply(s);
}

/* Room for the largest reply is what wanted() holds back for. */
static bool room_for_reply(const struct vu_session *s)
{
	return s->out_len + HEADER_SIZE + sizeof(union vu_payload) <= sizeof(s->out);
}

/* Checks what can be told from the header, before the payload is read. */
static int check_header(struct vu_session *s)
{
	const struct vu_header *h = &s->header;
	const struct vu_request_row *row = vu_request_row(h->request);

	if ((h->flags & VU_FLAG_VERSION_MASK) != VU_FLAG_VERSION || h->flags & VU_FLAG_REPLY)
		return vu_fail(s, "bad flags in a message header");
	if (h->size > sizeof(s->payload))
		return vu_fail(s, "oversized message");
	if (!row)
		return vu_fail(s, "unknown request");
	if (h->size < row->size_min || h->size > row->size_max)
		return vu_fail(s, "message has the wrong size for its request");
	if (row->feature >= 0 && !(s->protocol_features >> row->feature & 1))
		return vu_fail(s, "request needs a protocol feature that was not negotiated");
	if (!(row->states >> s->state & 1))
		return vu_fail(s, "request comes before SET_FEATURES");
	return 0;
}

static int handle_message(struct vu_session *s)
{
	const struct vu_request_row *row = vu_request_row(s->header.request);
	int r;

	if (s->n_fds < row->fds_min || s->n_fds > row->fds_max)
		r = vu_fail(s, "message has the wrong number of file descriptors");
	else
		r = row->handler(s);
	drop_fds(s);
	if (!r && row->reply == VU_REPLY_PAYLOAD)
		put_reply(s);
	else if (ack_wanted(s)) /* as of now: user-mode-linux wants one to SET_PROTOCOL_FEATURES */
		put_ack(s, r < 0);
	s->have = 0;
	return r;
}

size_t vu_session_wanted(const struct vu_session *s)
{
	if (!room_for_reply(s))
		return 0;
	if (s->have < HEADER_SIZE)
		return HEADER_SIZE - s->have;
	return HEADER_SIZE + s->header.size - s->have;
}

static int take_fds(struct vu_session *s, const int *fds, uint32_t n_fds)
{
	bool first = s->have == 0 && s->n_fds == 0;

	for (uint32_t i = 0; i < n_fds; i++) {
		if (s->n_fds < VU_FDS_MAX)
			s->fds[s->n_fds++] = fds[i];
		else
			close(fds[i]);
	}
	if (n_fds && !first)
		return vu_fail(s, "file descriptors in the middle of a message");
	return 0;
}

int vu_session_feed(struct vu_session *s, const uint8_t *buf, size_t n, const int *fds,
		    uint32_t n_fds)
{
	int r = take_fds(s, fds, n_fds);

	if (!r && s->have < HEADER_SIZE) {
		memcpy((uint8_t *)&s->header + s->have, buf, n);
		s->have += (uint32_t)n;
		if (s->have < HEADER_SIZE)
			return 0;
		r = check_header(s);
		/* The payload of a request that is refused is not waited for. */
		if (r && ack_wanted(s))
			put_ack(s, true);
	} else if (!r) {
		memcpy((uint8_t *)&s->payload + (s->have - HEADER_SIZE), buf, n);
		s->have += (uint32_t)n;
	}
	if (!r && s->have == HEADER_SIZE + s->header.size)
		r = handle_message(s);
	if (r)
		drop_fds(s);
	return r;
}

const uint8_t *vu_session_output(const struct vu_session *s, size_t *len)
{
	*len = s->out_len;
	return s->out;
}

void vu_session_sent(struct vu_session *s, size_t n)
{
	s->out_len -= (uint32_t)n;
	memmove(s->out, s->out + n, s->out_len);
}

void vu_session_config_changed(struct vu_session *s)
{
	s->config_change_due = true;
}

/* Do rings run, and all of those that are set up? */
static bool rings_run(const struct vu_session *s)
{
	uint32_t running = 0;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		const struct vu_ring *ring = &s->ring[i];

		if (vq_started(&ring->vq))
			running++;
		else if (ring->kick_set && ring->addr_set)
			return false;
	}
	return running != 0;
}

bool vu_session_backend_output(const struct vu_session *s, struct vu_header *message)
{
	if (!s->config_change_due || s->backend_fd < 0 || !rings_run(s))
		return false;
	*message = (struct vu_header){VU_BACKEND_CONFIG_CHANGE, VU_FLAG_VERSION, 0};
	return true;
}

void vu_session_backend_sent(struct vu_session *s)
{
	s->config_change_due = false;
}

void vu_session_backend_lost(struct vu_session *s)
{
	close_fd(&s->backend_fd);
}

bool vu_session_patch(struct vu_session *s, const uint8_t *host)
{
	return vu_memory_patch(&s->memory, host) || vu_backing_patch(&s->log.backing, host);
}
