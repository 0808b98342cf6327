// SPDX-License-Identifier: MIT
#include "channel.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* How a datagram of each type looks, and who may send it. */
struct row {
	size_t size; /* of the body */
	enum channel_side from;
	uint32_t fds_max;
};

static const struct row rows[] = {
	[CHANNEL_START] = {sizeof(struct channel_start), CHANNEL_PARENT, 0},
	[CHANNEL_SLOTS] = {sizeof(struct channel_slots), CHANNEL_PARENT, CHANNEL_FDS_MAX},
	[CHANNEL_CLIENT] = {sizeof(struct monitor_name), CHANNEL_PARENT, 1},
	[CHANNEL_GO] = {0, CHANNEL_PARENT, 0},
	[CHANNEL_EVENT] = {sizeof(struct channel_event), CHANNEL_PARENT, VU_FDS_MAX},
	[CHANNEL_LEAVE] = {0, CHANNEL_PARENT, 0},
	[CHANNEL_STOP] = {0, CHANNEL_PARENT, 0},
	[CHANNEL_READY] = {sizeof(struct channel_report), CHANNEL_WORKER, 0},
	[CHANNEL_DONE] = {sizeof(struct channel_report), CHANNEL_WORKER, 0},
	[CHANNEL_STATE] = {sizeof(struct channel_report), CHANNEL_WORKER, 0},
	[CHANNEL_CLIENT_GONE] = {sizeof(struct monitor_name), CHANNEL_WORKER, 0},
	[CHANNEL_SETTINGS] = {sizeof(struct settings), CHANNEL_WORKER, 0},
	[CHANNEL_QUIT] = {0, CHANNEL_WORKER, 0},
};
static_assert(sizeof(rows) / sizeof(rows[0]) == CHANNEL_TYPE_COUNT, "a row for every type");

union control {
	char buf[CMSG_SPACE(CHANNEL_FDS_MAX * sizeof(int))];
	struct cmsghdr align;
};

int channel_send(int fd, const struct channel_message *m, const int *fds, uint32_t n_fds)
{
	uint32_t type = m->type;
	struct iovec iov[2] = {{&type, sizeof(type)}, {(void *)(uintptr_t)&m->u, rows[type].size}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	union control control;
	ssize_t n;

	if (n_fds) {
		size_t bytes = n_fds * sizeof(int);

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(bytes);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(&control.align), fds, bytes);
	}
	/* seccomp: sendmsg */
	do
		n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static void close_all(const int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		/* seccomp: close */
		close(fds[i]);
}

/* The descriptors that came along, all of them: whatever the datagram turns out to be. */
static void take_fds(struct msghdr *msg, int *fds, uint32_t *n_fds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count && *n_fds < CHANNEL_FDS_MAX; i++)
			memcpy(&fds[(*n_fds)++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
}

static bool slots_valid(const uint8_t *slot, uint32_t n, uint32_t max)
{
	for (uint32_t i = 0; i < n && i < max; i++) {
		if (slot[i] >= CHANNEL_SLOT_COUNT)
			return false;
	}
	return n <= max;
}

static bool is_text(const char *text, size_t size)
{
	return memchr(text, '\0', size);
}

/* Does the body keep to its own limits? */
static bool body_valid(const struct channel_message *m, uint32_t n_fds)
{
	switch (m->type) {
	case CHANNEL_START:
		return is_text(m->u.start.reason, CHANNEL_REASON_MAX) &&
		       settings_valid(&m->u.start.settings);
	case CHANNEL_SLOTS:
		return m->u.slots.n == n_fds &&
		       slots_valid(m->u.slots.slot, m->u.slots.n, CHANNEL_FDS_MAX);
	case CHANNEL_CLIENT:
		return m->u.client.id < CHANNEL_CLIENT_COUNT && n_fds == 1;
	case CHANNEL_EVENT:
		return m->u.event.kind < CHANNEL_EVENT_KINDS && m->u.event.n_slots == n_fds &&
		       m->u.event.len <= sizeof(m->u.event.bytes) &&
		       slots_valid(m->u.event.slot, m->u.event.n_slots, VU_FDS_MAX);
	case CHANNEL_READY:
	case CHANNEL_DONE:
	case CHANNEL_STATE:
		return m->u.report.reply_len <= sizeof(m->u.report.reply);
	case CHANNEL_CLIENT_GONE:
		return m->u.client.id < CHANNEL_CLIENT_COUNT;
	case CHANNEL_SETTINGS:
		return settings_valid(&m->u.settings);
	case CHANNEL_GO:
	case CHANNEL_LEAVE:
	case CHANNEL_STOP:
	case CHANNEL_QUIT:
	case CHANNEL_TYPE_COUNT:
	default:
		return true;
	}
}

int channel_receive(int fd, enum channel_side from, struct channel_message *m, int *fds,
		    uint32_t *n_fds)
{
	uint32_t type = CHANNEL_TYPE_COUNT;
	struct iovec iov[2] = {{&type, sizeof(type)}, {&m->u, sizeof(m->u)}};
	union control control;
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	*n_fds = 0;
	/* A worker has no descriptors to give: without room for them the kernel drops them. */
	if (from == CHANNEL_PARENT) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
	}
	/* seccomp: recvmsg */
	do
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	take_fds(&msg, fds, n_fds);
	if (n == 0)
		return -ECONNRESET;
	m->type = (enum channel_type)type;
	if (type < CHANNEL_TYPE_COUNT && rows[type].from == from &&
	    (size_t)n == sizeof(type) + rows[type].size && *n_fds <= rows[type].fds_max &&
	    !(msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) && body_valid(m, *n_fds))
		return 0;
	close_all(fds, *n_fds);
	*n_fds = 0;
	return -EPROTO;
}
