/* SPDX-License-Identifier: MIT */
/* The session's bytes and descriptors, from and to a non-blocking Unix stream socket. */
#ifndef VHOST_USER_SOCKET_H
#define VHOST_USER_SOCKET_H

#include "vhost_user/session.h"

/*
 * Reads what is there, but at most a bounded number of messages, and sends replies. 0: nothing more
 * to read now; 1: there may be more; -ECONNRESET: the front end is gone; other -errno: the session
 * has failed.
 */
int vu_socket_receive(struct vu_session *s, int fd);

/* Sends what output there is. 0: all of it is out; 1: the socket is full; else -errno. */
int vu_socket_send(struct vu_session *s, int fd);

/*
 * Sends the back-end request that is due and may be sent. 0: nothing is left to send now; 1: the
 * channel is full, wait until it is writable; else -errno: the channel is of no use any more.
 */
int vu_socket_send_backend(struct vu_session *s);

/* Signals a call or error descriptor: 8 bytes, as an eventfd wants and user-mode-linux expects. */
void vu_socket_signal(int fd);

/*
 * Takes what a kick descriptor has. 1: there was a kick; 0: nothing; -EPIPE: it will never kick
 * again, though it may be readable for ever.
 */
int vu_socket_take_kick(int fd);

#endif
