/* SPDX-License-Identifier: MIT */
#ifndef COMMON_UNIX_SOCKET_H
#define COMMON_UNIX_SOCKET_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * A listening Unix socket at path, for its owner only (mode 0600), or for that group too (0660)
 * unless it is (gid_t)-1. A socket that nobody listens on any more is replaced. The descriptor, or
 * -errno: -EADDRINUSE: somebody listens there; -EEXIST: what is there is no socket; -ENAMETOOLONG.
 */
int unix_socket_listen(const char *path, gid_t group);

/*
 * Is it a symbolic link of somebody else than root and ourselves? Where others can make files, such
 * a one leads to a socket to which we may connect, and they may not. directory: as openat(2).
 */
bool unix_socket_is_foreign(int directory, const char *path);

/* The next connection, non-blocking. The descriptor or -errno; -EAGAIN: none. */
int unix_socket_accept(int fd);

#endif
