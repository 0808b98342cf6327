// SPDX-License-Identifier: MIT
#include "parent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

/* --- descriptors ------------------------------------------------------------------------------ */

/*
 * To the number that it has in every worker, by which saved state knows it. On failure the slot is
 * empty, and whoever wants to use it finds that.
 */
static void put_in_slot(uint8_t slot, int fd)
{
	/* seccomp: dup3 close */
	if (dup3(fd, CHANNEL_SLOT_FD + slot, O_CLOEXEC) < 0)
		log_line("cannot keep a descriptor: %s", strerror(errno));
	close(fd);
}

void parent_close_slots(const uint64_t *slots, const uint64_t *in_use)
{
	for (int i = 0; i < (int)CHANNEL_SLOT_COUNT; i++) {
		if (slots[i / 64] >> i % 64 & 1 && !(in_use[i / 64] >> i % 64 & 1))
			close(CHANNEL_SLOT_FD + i);
	}
}

/* --- the beginning ---------------------------------------------------------------------------- */

static void take_slots(struct parent_beginning *b, const struct channel_slots *slots,
		       const int *fds)
{
	for (uint32_t i = 0; i < slots->n; i++) {
		put_in_slot(slots->slot[i], fds[i]);
		b->slots[slots->slot[i] / 64] |= 1ULL << slots->slot[i] % 64;
	}
}

static int take_client(struct parent_beginning *b, const struct monitor_name *client, int fd)
{
	if (b->n_clients == CHANNEL_CLIENT_COUNT) {
		close(fd);
		return -EPROTO;
	}
	b->client[b->n_clients] = *client;
	b->client_fd[b->n_clients++] = fd;
	return 0;
}

int parent_begin(int fd, struct parent_beginning *b)
{
	struct channel_message m;
	int fds[CHANNEL_FDS_MAX], r;
	uint32_t n_fds;

	memset(b, 0, sizeof(*b));
	r = channel_receive(fd, CHANNEL_PARENT, &m, fds, &n_fds);
	if (r == 0 && m.type != CHANNEL_START)
		r = -EPROTO;
	if (r)
		return r;
	b->start = m.u.start;
	for (;;) {
		r = channel_receive(fd, CHANNEL_PARENT, &m, fds, &n_fds);
		if (r < 0)
			return r;
		if (m.type == CHANNEL_GO)
			return 0;
		if (m.type == CHANNEL_SLOTS)
			take_slots(b, &m.u.slots, fds);
		else if (m.type == CHANNEL_CLIENT)
			r = take_client(b, &m.u.client, fds[0]);
		else
			r = -EPROTO;
		if (r < 0)
			return r;
	}
}

/* --- in the loop ------------------------------------------------------------------------------ */

static bool anything_due(const struct parent *p)
{
	return p->done_due || p->state_due || p->settings_due || p->quit_due || p->gone_due;
}

static int say(const struct parent *p, const struct channel_message *m)
{
	return channel_send(p->fd, m, NULL, 0);
}

static int say_gone(struct parent *p)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < CHANNEL_CLIENT_COUNT; i++) {
		const struct channel_message m = {
			.type = CHANNEL_CLIENT_GONE,
			.u.client = {.id = i, .serial = p->gone_serial[i]}};

		if (!(p->gone_due >> i & 1))
			continue;
		r = say(p, &m);
		if (r == 0)
			p->gone_due &= ~(1U << i);
	}
	return r;
}

static int say_settings(struct parent *p)
{
	struct channel_message m = {.type = CHANNEL_SETTINGS};
	int r;

	m.u.settings = p->settings;
	r = say(p, &m);
	p->settings_due = r != 0;
	return r;
}

static int say_state(struct parent *p)
{
	struct channel_message m = {.type = CHANNEL_STATE};
	int r;

	p->ops->state(p->opaque, &m.u.report);
	r = say(p, &m);
	p->state_due = r != 0;
	return r;
}

static int say_quit(struct parent *p)
{
	const struct channel_message m = {.type = CHANNEL_QUIT};
	int r = say(p, &m);

	p->quit_due = r != 0;
	return r;
}

/* Says what is due, until there is no room. What fails otherwise is heard of when listening. */
static void speak(struct parent *p)
{
	int r = 0;

	if (!p->watch)
		return;
	if (p->done_due) {
		r = say(p, &p->done);
		p->done_due = r != 0;
	}
	if (r == 0 && p->gone_due)
		r = say_gone(p);
	if (r == 0 && p->settings_due)
		r = say_settings(p);
	if (r == 0 && p->state_due)
		r = say_state(p);
	if (r == 0 && p->quit_due)
		(void)say_quit(p);
	watch_change(p->watch, UV_READABLE | (anything_due(p) ? UV_WRITABLE : 0));
}

static void on_event(struct parent *p, const struct channel_event *event, const int *fds)
{
	for (uint32_t i = 0; i < event->n_slots; i++)
		put_in_slot(event->slot[i], fds[i]);
	memset(&p->done, 0, sizeof(p->done));
	p->done.type = CHANNEL_DONE;
	p->ops->event(p->opaque, event, &p->done.u.report);
	p->done_due = true;
	p->state_due = false; /* it is in there */
	speak(p);
}

static void on_message(struct parent *p, const struct channel_message *m, const int *fds)
{
	switch (m->type) {
	case CHANNEL_EVENT:
		on_event(p, &m->u.event, fds);
		break;
	case CHANNEL_CLIENT:
		p->ops->client(p->opaque, &m->u.client, fds[0]);
		break;
	case CHANNEL_LEAVE:
		p->ops->leave(p->opaque);
		break;
	case CHANNEL_STOP:
		p->ops->stop(p->opaque);
		break;
	case CHANNEL_START:
	case CHANNEL_SLOTS:
	case CHANNEL_GO:
	case CHANNEL_READY:
	case CHANNEL_DONE:
	case CHANNEL_STATE:
	case CHANNEL_CLIENT_GONE:
	case CHANNEL_SETTINGS:
	case CHANNEL_QUIT:
	case CHANNEL_TYPE_COUNT:
	default: /* not at this time */
		for (uint32_t i = 0; m->type == CHANNEL_SLOTS && i < m->u.slots.n; i++)
			close(fds[i]);
		break;
	}
}

/* One datagram each time: rings and the monitor get their turns in between. */
static void on_channel(void *opaque, int events)
{
	struct parent *p = opaque;
	struct channel_message m;
	int fds[CHANNEL_FDS_MAX], r;
	uint32_t n_fds;

	if (events & UV_WRITABLE)
		speak(p);
	r = channel_receive(p->fd, CHANNEL_PARENT, &m, fds, &n_fds);
	if (r == -EAGAIN)
		return;
	if (r < 0) {
		watch_end(&p->watch);
		p->ops->stop(p->opaque);
		return;
	}
	on_message(p, &m, fds);
}

void parent_init(struct parent *p, uv_loop_t *loop, int fd, const struct parent_ops *ops,
		 void *opaque)
{
	memset(p, 0, sizeof(*p));
	p->loop = loop;
	p->fd = fd;
	p->ops = ops;
	p->opaque = opaque;
}

int parent_start(struct parent *p, const struct channel_report *ready)
{
	struct channel_message m = {.type = CHANNEL_READY};
	int r;

	/* seccomp: fcntl(1 == F_SETFL) fcntl64(1 == F_SETFL) */
	if (fcntl(p->fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	m.u.report = *ready;
	r = say(p, &m);
	if (r < 0)
		return r;
	p->watch = watch_start(p->loop, p->fd, UV_READABLE, on_channel, p);
	if (!p->watch)
		return -ENOMEM;
	p->state_due = false; /* it is in there */
	speak(p);
	return 0;
}

void parent_stop(struct parent *p)
{
	watch_end(&p->watch);
}

void parent_tell_state(struct parent *p)
{
	p->state_due = true;
	speak(p);
}

void parent_tell_settings(struct parent *p, const struct settings *settings)
{
	p->settings = *settings;
	p->settings_due = true;
	speak(p);
}

void parent_tell_gone(struct parent *p, const struct monitor_name *client)
{
	p->gone_due |= 1U << client->id;
	p->gone_serial[client->id] = client->serial;
	speak(p);
}

void parent_tell_quit(struct parent *p)
{
	p->quit_due = true;
	speak(p);
}
