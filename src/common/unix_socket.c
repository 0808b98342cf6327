// SPDX-License-Identifier: MIT
#include "common/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Is there a socket at addr that nobody listens on? 0: yes; else -errno as unix_socket_listen(). */
static int check_stale(const struct sockaddr_un *addr)
{
	struct stat st;
	int fd, r;

	if (lstat(addr->sun_path, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
	if (r < 0 && errno == ECONNREFUSED)
		r = 0;
	else
		r = -EADDRINUSE; /* also when its backlog is full */
	close(fd);
	return r;
}

static int bind_private(int fd, const struct sockaddr_un *addr)
{
	mode_t mask = umask(0177);
	int r = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;

	umask(mask);
	return r;
}

/* Nobody connects to what is not listened on yet. */
static int share(const char *path, gid_t group)
{
	if (chown(path, (uid_t)-1, group) < 0 || chmod(path, 0660) < 0)
		return -errno;
	return 0;
}

int unix_socket_listen(const char *path, gid_t group)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = bind_private(fd, &addr);
	if (r == -EADDRINUSE) {
		r = check_stale(&addr);
		if (!r && unlink(path) < 0)
			r = -errno;
		if (!r)
			r = bind_private(fd, &addr);
	}
	if (r) {
		close(fd);
		return r;
	}
	if (group != (gid_t)-1)
		r = share(path, group);
	if (!r && listen(fd, 16) < 0)
		r = -errno;
	if (r) {
		unlink(path);
		close(fd);
		return r;
	}
	return fd;
}

bool unix_socket_is_foreign(int directory, const char *path)
{
	struct stat st;

	return fstatat(directory, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode) &&
	       st.st_uid != 0 && st.st_uid != geteuid();
}

int unix_socket_accept(int fd)
{
	int conn;

	do
		conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (conn < 0 && (errno == EINTR || errno == ECONNABORTED));
	return conn < 0 ? -errno : conn;
}
