// SPDX-License-Identifier: MIT
#include "framer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define HEADER_SIZE ((uint32_t)sizeof(struct vu_header))

static const char closed[] = "the VMM closed the connection";

void framer_clear(struct framer *f)
{
	for (uint32_t i = 0; i < f->n_fds; i++)
		close(f->fds[i]);
	f->n_fds = 0;
	f->have = 0;
	f->checked = false;
}

void framer_go_on(struct framer *f)
{
	f->checked = true;
}

/* NULL, or what is wrong with the descriptors that came. The kernel has closed what did not fit. */
static const char *take_fds(struct framer *f, struct msghdr *msg)
{
	bool first = f->have == 0;
	uint32_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++, n++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (f->n_fds < VU_FDS_MAX)
				f->fds[f->n_fds++] = fd;
			else
				close(fd);
		}
	}
	if (msg->msg_flags & MSG_CTRUNC)
		return "too many file descriptors with a message";
	return n && !first ? "file descriptors in the middle of a message" : NULL;
}

/* Bytes read, 0: none now, -1: over. */
static ssize_t receive(struct framer *f, int fd, uint32_t wanted, const char **why)
{
	union {
		char buf[CMSG_SPACE(VU_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {f->u.bytes + f->have, wanted};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;

	do
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	*why = n == 0 || (n < 0 && errno == ECONNRESET) ? closed
	       : n < 0                                  ? strerrordesc_np(errno)
							: take_fds(f, &msg);
	if (n <= 0 || *why)
		return -1;
	f->have += (uint32_t)n;
	return n;
}

enum framer_result framer_read(struct framer *f, int fd, const char **why)
{
	for (;;) {
		uint32_t end = HEADER_SIZE;
		ssize_t n;

		if (f->have >= HEADER_SIZE) {
			if (f->u.header.size > CHANNEL_BYTES_MAX - HEADER_SIZE) {
				*why = "oversized message";
				return f->checked ? FRAMER_OVER : FRAMER_HEADER;
			}
			end += f->u.header.size;
		}
		if (f->have == end)
			return FRAMER_MESSAGE;
		n = receive(f, fd, end - f->have, why);
		if (n < 0)
			return FRAMER_OVER;
		if (n == 0)
			return f->have >= HEADER_SIZE && !f->checked ? FRAMER_HEADER : FRAMER_MORE;
	}
}
