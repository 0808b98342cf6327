/* SPDX-License-Identifier: MIT */
/* What a session sends, to a non-blocking Unix stream socket. */
#ifndef VHOST_USER_SOCKET_H
#define VHOST_USER_SOCKET_H

#include <sys/types.h>

#include "vhost_user/session.h"

/* Sends what output there is. 0: all of it is out; 1: the socket is full; else -errno. */
int vu_socket_send(struct vu_session *s, int fd);

/*
 * Sends the back-end request that is due and may be sent. 0: nothing is left to send now; 1: the
 * channel is full, wait until it is writable; else -errno: the channel is of no use any more.
 */
int vu_socket_send_backend(struct vu_session *s);

/*
 * Is this a connection to a socket with a name, as the front end's to us is? Holding the front
 * end's own end here would keep the session alive when the front end dies. What front ends pass for
 * their rings and channel are ends of a socketpair, which have none.
 */
bool vu_socket_is_connection(int fd);

/* Signals a call or error descriptor: 8 bytes, as an eventfd wants and user-mode-linux expects. */
void vu_socket_signal(int fd);

/* A ring has been run: tells the front end, if it wants to know, that the dirty log may have news.
 */
void vu_socket_signal_log(const struct vu_session *s, uint32_t index);

/*
 * Takes what a kick descriptor has. 1: there was a kick; 0: nothing; -EPIPE: it will never kick
 * again, though it may be readable for ever.
 */
int vu_socket_take_kick(int fd);

/* Is it a pipe or a socket, open for reading or (`writing`) for writing? */
bool vu_socket_is_stream(int fd, bool writing);

/*
 * Bytes from or to such a one, without waiting: how many, at least 1; vu_socket_read() 0 at its
 * end; -EAGAIN: none now; else -errno. SIGPIPE must be ignored.
 */
ssize_t vu_socket_read(int fd, uint8_t *buf, size_t len);
ssize_t vu_socket_write(int fd, const uint8_t *buf, size_t len);

#endif
