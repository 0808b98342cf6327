// SPDX-License-Identifier: MIT
#include "vhost_user/socket.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Reads (a message takes two) in one turn, before rings and the monitor get theirs. */
#define READS_PER_TURN 64

/* recvmsg() of up to len bytes with descriptors. Bytes read, 0 at end of file, or -errno. */
static ssize_t receive(int fd, uint8_t *buf, size_t len, int *fds, uint32_t *n_fds)
{
	union {
		char buf[CMSG_SPACE(VU_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {buf, len};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;

	*n_fds = 0;
	do
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count && *n_fds < VU_FDS_MAX; i++)
			memcpy(&fds[(*n_fds)++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
	/* More descriptors than any message has: the kernel has closed those that did not fit. */
	if (msg.msg_flags & MSG_CTRUNC) {
		for (uint32_t i = 0; i < *n_fds; i++)
			close(fds[i]);
		*n_fds = 0;
		return -EPROTO;
	}
	return n;
}

int vu_socket_receive(struct vu_session *s, int fd)
{
	uint8_t buf[sizeof(union vu_payload)];

	for (int i = 0; i < READS_PER_TURN; i++) {
		size_t wanted = vu_session_wanted(s);
		int fds[VU_FDS_MAX], r;
		uint32_t n_fds;
		ssize_t n;

		if (!wanted)
			return 0; /* until output has drained */
		n = receive(fd, buf, wanted, fds, &n_fds);
		if (n == -EAGAIN || n == -EWOULDBLOCK)
			return 0;
		if (n == -EPROTO)
			s->error = "too many file descriptors with a message";
		if (n <= 0)
			return n ? (int)n : -ECONNRESET;
		r = vu_session_feed(s, buf, (size_t)n, fds, n_fds);
		if (r == 0)
			r = vu_socket_send(s, fd);
		else
			(void)vu_socket_send(s, fd); /* the error that the protocol can carry */
		if (r < 0)
			return r;
		/* Descriptors mean memory or rings, which take longest. */
		if (n_fds)
			i += READS_PER_TURN / 4;
	}
	return 1;
}

/* send() of all or part. Bytes sent or -errno. */
static ssize_t transmit(int fd, const void *buf, size_t len)
{
	ssize_t n;

	do
		n = send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int vu_socket_send(struct vu_session *s, int fd)
{
	size_t len;
	const uint8_t *out = vu_session_output(s, &len);

	while (len) {
		ssize_t n = transmit(fd, out, len);

		if (n == -EAGAIN || n == -EWOULDBLOCK)
			return 1;
		if (n < 0)
			return (int)n;
		vu_session_sent(s, (size_t)n);
		out = vu_session_output(s, &len);
	}
	return 0;
}

int vu_socket_send_backend(struct vu_session *s)
{
	struct vu_header message;
	ssize_t n;

	if (!vu_session_backend_output(s, &message))
		return 0;
	n = transmit(s->backend_fd, &message, sizeof(message));
	if (n == -EAGAIN || n == -EWOULDBLOCK)
		return 1;
	if (n < 0)
		return (int)n;
	/* A Unix stream socket takes so few bytes as a whole; if not, the stream is lost. */
	if (n != sizeof(message))
		return -EPIPE;
	vu_session_backend_sent(s);
	return 0;
}

/*
 * That a descriptor does not block cannot be relied on: O_NONBLOCK belongs to the open file, which
 * the front end shares and may set back. So each call says that it must not block, or is asked for
 * first whether it would; what is left is a front end that wins a race against two system calls of
 * ours.
 */
static bool is_ready(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, 0) == 1 && p.revents & events;
}

void vu_socket_signal(int fd)
{
	const uint64_t one = 1;

	/* A full eventfd, pipe or socket is a signal that has not been taken yet: no loss. */
	if (fd < 0 || transmit(fd, &one, sizeof(one)) != -ENOTSOCK || !is_ready(fd, POLLOUT))
		return;
	if (write(fd, &one, sizeof(one)) < 0)
		return; /* the other end is gone, which the driver will notice first */
}

int vu_socket_take_kick(int fd)
{
	char buf[64]; /* an eventfd gives 8 bytes; a pipe or socket may have gathered several */
	struct iovec iov = {buf, sizeof(buf)};
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && errno == ENOTSOCK) {
		n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
		/* Older kernels cannot do that for every kind. */
		if (n < 0 && (errno == EOPNOTSUPP || errno == EINVAL)) {
			if (!is_ready(fd, POLLIN))
				return 0;
			n = read(fd, buf, sizeof(buf));
		}
	}
	if (n > 0)
		return 1;
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -EPIPE;
}
