// SPDX-License-Identifier: MIT
#include "vhost_user/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* send() of all or part. Bytes sent or -errno. */
static ssize_t transmit(int fd, const void *buf, size_t len)
{
	ssize_t n;

	/* seccomp: send sendto(4 & UINT64_MAX == 0) */
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

	/* seccomp: poll ppoll ppoll_time64 */
	return poll(&p, 1, 0) == 1 && p.revents & events;
}

bool vu_socket_is_connection(int fd)
{
	struct sockaddr_un peer;
	socklen_t len = sizeof(peer);

	/* seccomp: getpeername */
	return getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
	       len > offsetof(struct sockaddr_un, sun_path);
}

void vu_socket_signal(int fd)
{
	const uint64_t one = 1;

	/* A full eventfd, pipe or socket is a signal that has not been taken yet: no loss. */
	if (fd < 0 || transmit(fd, &one, sizeof(one)) != -ENOTSOCK || !is_ready(fd, POLLOUT))
		return;
	/* seccomp: write */
	if (write(fd, &one, sizeof(one)) < 0)
		return; /* the other end is gone, which the driver will notice first */
}

void vu_socket_signal_log(const struct vu_session *s, uint32_t index)
{
	if (s->ring[index].vq.log)
		vu_socket_signal(s->log_fd);
}

int vu_socket_take_kick(int fd)
{
	char buf[64]; /* an eventfd gives 8 bytes; a pipe or socket may have gathered several */
	struct iovec iov = {buf, sizeof(buf)};
	/* seccomp: recv recvfrom(4 & UINT64_MAX == 0) */
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && errno == ENOTSOCK) {
		/* seccomp: preadv2 */
		n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
		/* Older kernels cannot do that for every kind. */
		if (n < 0 && (errno == EOPNOTSUPP || errno == EINVAL)) {
			if (!is_ready(fd, POLLIN))
				return 0;
			/* seccomp: read */
			n = read(fd, buf, sizeof(buf));
		}
	}
	if (n > 0)
		return 1;
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -EPIPE;
}

bool vu_socket_is_stream(int fd, bool writing)
{
	struct stat st;
	int flags;

	/* seccomp: fstat fstat64 newfstatat(3 == AT_EMPTY_PATH) */
	if (fstat(fd, &st) < 0 || !(S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode)))
		return false;
	/* seccomp: fcntl(1 == F_GETFL) fcntl64(1 == F_GETFL) */
	flags = fcntl(fd, F_GETFL);
	return flags >= 0 && (flags & O_ACCMODE) != (writing ? O_RDONLY : O_WRONLY);
}

ssize_t vu_socket_read(int fd, uint8_t *buf, size_t len)
{
	/* seccomp: recv recvfrom(4 & UINT64_MAX == 0) */
	ssize_t n = recv(fd, buf, len, MSG_DONTWAIT);

	if (n < 0 && errno == ENOTSOCK) {
		if (!is_ready(fd, POLLIN | POLLHUP))
			return -EAGAIN;
		/* seccomp: read */
		n = read(fd, buf, len);
	}
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return n;
}

ssize_t vu_socket_write(int fd, const uint8_t *buf, size_t len)
{
	ssize_t n = transmit(fd, buf, len);

	if (n != -ENOTSOCK)
		return n;
	if (!is_ready(fd, POLLOUT))
		return -EAGAIN;
	/* A pipe that has room has room for that much. */
	if (len > PIPE_BUF)
		len = PIPE_BUF;
	/* seccomp: write */
	n = write(fd, buf, len);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return n;
}
