// SPDX-License-Identifier: MIT
#include "vmm.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/unix_socket.h"

#define DEATHS_MAX      3U
#define ACCEPT_RETRY_MS 200U

/* --- events ----------------------------------------------------------------------------------- */

static struct channel_event *new_event(struct vmm *v, enum channel_event_kind kind)
{
	struct channel_event *e = &v->event.u.event;

	memset(&v->event, 0, sizeof(v->event));
	v->event.type = CHANNEL_EVENT;
	e->seq = ++v->seq;
	e->kind = kind;
	v->in_hand = true;
	v->sent = false;
	v->deaths = 0;
	return e;
}

static void begin(struct vmm *v)
{
	v->begun = new_event(v, CHANNEL_BEGIN)->seq;
}

void vmm_init(struct vmm *v)
{
	memset(v, 0, sizeof(*v));
	v->listen_fd = v->fd = -1;
	for (uint32_t i = 0; i < CHANNEL_SLOT_COUNT; i++)
		v->slot[i] = -1;
}

int vmm_serve(struct vmm *v, int fd)
{
	int listening = 0, type = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
		return -errno;
	if (type != SOCK_STREAM)
		return -EPROTOTYPE;
	if (listening) {
		v->listen_fd = fd;
	} else {
		v->fd = fd;
		begin(v);
	}
	return 0;
}

static void hang_up(struct vmm *v)
{
	framer_clear(&v->framer);
	v->out_len = v->out_sent = 0;
	close(v->fd);
	v->fd = -1;
}

static void end(struct vmm *v, const char *why)
{
	struct channel_event *e;

	hang_up(v);
	e = new_event(v, CHANNEL_END);
	e->len = (uint32_t)strlen(why);
	memcpy(e->bytes, why, e->len);
}

static int free_slot(const struct vmm *v)
{
	for (int i = 0; i < (int)CHANNEL_SLOT_COUNT; i++) {
		if (v->slot[i] < 0)
			return i;
	}
	return -1;
}

/* The message that was read, with its descriptors. */
static void deliver(struct vmm *v)
{
	struct framer *f = &v->framer;
	struct channel_event *e = new_event(v, CHANNEL_MESSAGE);

	for (uint32_t i = 0; i < f->n_fds; i++) {
		int slot = free_slot(v);

		if (slot < 0) {
			/* The event has not been seen by anybody: another takes its number. */
			v->seq--;
			f->n_fds -= i;
			memmove(f->fds, f->fds + i, f->n_fds * sizeof(f->fds[0]));
			end(v, "more file descriptors than are kept");
			return;
		}
		v->slot[slot] = f->fds[i];
		e->slot[e->n_slots++] = (uint8_t)slot;
	}
	e->len = f->have;
	memcpy(e->bytes, f->u.bytes, f->have);
	f->n_fds = 0; /* they have their slots */
	framer_clear(f);
}

static void ask_about_header(struct vmm *v)
{
	struct channel_event *e = new_event(v, CHANNEL_HEADER);

	e->len = sizeof(v->framer.u.header);
	memcpy(e->bytes, v->framer.u.bytes, e->len);
}

/* --- the socket ------------------------------------------------------------------------------- */

/* Writes of the reply what goes. -errno: the front end is gone. */
static int flush(struct vmm *v)
{
	while (v->out_sent < v->out_len) {
		ssize_t n = send(v->fd, v->out + v->out_sent, v->out_len - v->out_sent,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
		v->out_sent += (uint32_t)n;
	}
	v->out_len = v->out_sent = 0;
	return 0;
}

static void on_connection(struct vmm *v, uint64_t now_ms)
{
	int fd = unix_socket_accept(v->listen_fd);

	if (fd >= 0) {
		v->fd = fd;
		begin(v);
	} else if (fd != -EAGAIN) {
		/* Out of descriptors or memory: it waits in the backlog, and so do we. */
		log_limited("cannot accept a VMM: %s", strerror(-fd));
		v->retry_ms = now_ms + ACCEPT_RETRY_MS;
	}
}

static void on_message(struct vmm *v)
{
	const char *why = NULL;

	if (flush(v) < 0) {
		end(v, "the VMM closed the connection");
		return;
	}
	if (v->out_len)
		return;
	switch (framer_read(&v->framer, v->fd, &why)) {
	case FRAMER_HEADER:
		ask_about_header(v);
		break;
	case FRAMER_MESSAGE:
		deliver(v);
		break;
	case FRAMER_OVER:
		end(v, why);
		break;
	case FRAMER_MORE:
	default:
		break;
	}
}

struct pollfd vmm_wanted(const struct vmm *v, uint64_t now_ms)
{
	/* A descriptor that is not waited for at all: an error on it would wake us for ever. */
	struct pollfd wanted = {.fd = -1, .events = POLLIN};

	if (v->in_hand)
		return wanted;
	if (v->fd >= 0) {
		wanted.fd = v->fd;
		if (v->out_len)
			wanted.events = POLLOUT;
	} else if (v->listen_fd >= 0 && !v->session && now_ms >= v->retry_ms) {
		wanted.fd = v->listen_fd;
	}
	return wanted;
}

void vmm_ready(struct vmm *v, uint64_t now_ms)
{
	if (v->in_hand)
		return;
	v->retry_ms = 0;
	if (v->fd < 0)
		on_connection(v, now_ms);
	else
		on_message(v);
}

/* --- the worker ------------------------------------------------------------------------------- */

const struct channel_message *vmm_due(const struct vmm *v, int *fds)
{
	const struct channel_event *e = &v->event.u.event;

	if (!v->in_hand || v->sent)
		return NULL;
	for (uint32_t i = 0; i < e->n_slots; i++)
		fds[i] = v->slot[e->slot[i]];
	return &v->event;
}

void vmm_was_sent(struct vmm *v)
{
	v->sent = true;
}

static bool slot_in_hand(const struct vmm *v, uint32_t slot)
{
	const struct channel_event *e = &v->event.u.event;

	for (uint32_t i = 0; v->in_hand && i < e->n_slots; i++) {
		if (e->slot[i] == slot)
			return true;
	}
	return false;
}

static void free_slots(struct vmm *v, const uint64_t *in_use)
{
	for (uint32_t i = 0; i < CHANNEL_SLOT_COUNT; i++) {
		if (v->slot[i] < 0 || in_use[i / 64] >> i % 64 & 1 || slot_in_hand(v, i))
			continue;
		close(v->slot[i]);
		v->slot[i] = -1;
	}
}

/* The event in hand has had its effect. */
static void done(struct vmm *v, const struct channel_report *report)
{
	v->in_hand = false;
	if (v->fd < 0)
		return;
	if (v->event.u.event.kind == CHANNEL_HEADER)
		framer_go_on(&v->framer);
	memcpy(v->out, report->reply, report->reply_len);
	v->out_len = report->reply_len;
	v->out_sent = 0;
}

bool vmm_report(struct vmm *v, enum channel_type type, const struct channel_report *report)
{
	uint64_t seq = v->event.u.event.seq;
	bool over;

	if (report->handled > v->seq || (type == CHANNEL_DONE && report->handled != v->seq))
		return false;
	if (v->in_hand && report->handled == seq && type != CHANNEL_STATE)
		done(v, report);
	v->session = report->session;
	free_slots(v, report->in_use);
	/* The worker has ended a session that we thought was open. */
	over = v->fd >= 0 && v->begun && report->handled >= v->begun && report->session != v->begun;
	if (over) {
		(void)flush(v); /* the error that the protocol can carry */
		hang_up(v);
	} else if (v->fd >= 0 && flush(v) < 0) {
		v->out_len = v->out_sent = 0; /* reading tells that it is gone */
	}
	return true;
}

const char *vmm_worker_gone(struct vmm *v, bool of_event)
{
	static const char why[] = "the device died of one of its messages, several times";
	enum channel_event_kind kind = (enum channel_event_kind)v->event.u.event.kind;

	v->sent = false;
	if (!v->in_hand || !of_event || ++v->deaths < DEATHS_MAX || v->fd < 0)
		return NULL;
	/* Nobody has dealt with it: what takes its place has its number. */
	v->seq--;
	v->in_hand = false;
	if (kind == CHANNEL_BEGIN) {
		hang_up(v);
		v->begun = 0;
		return why;
	}
	end(v, why);
	return why;
}

bool vmm_finished(const struct vmm *v)
{
	return v->listen_fd < 0 && v->fd < 0 && !v->in_hand;
}

void vmm_close(struct vmm *v)
{
	static const uint64_t none[CHANNEL_SLOT_COUNT / 64];

	v->in_hand = false;
	if (v->fd >= 0)
		hang_up(v);
	free_slots(v, none);
	if (v->listen_fd >= 0)
		close(v->listen_fd);
	v->listen_fd = -1;
}
