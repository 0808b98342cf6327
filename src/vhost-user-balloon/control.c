// SPDX-License-Identifier: MIT
#include "control.h"

#include <errno.h>

static bool negotiated(const struct balloon *b, unsigned int feature)
{
	return b->st.negotiated >> feature & 1;
}

void control_init(struct control *c, struct balloon *b, struct settings *settings,
		  const struct options *options, const struct control_ops *ops, void *opaque,
		  struct instant now)
{
	*c = (struct control){.settings = settings, .balloon = b, .ops = ops, .opaque = opaque};
	health_init(&c->health, &options->health, now);
	b->policy = options->policy;
	/* Without a driver there is nobody who could not. */
	(void)balloon_set_push_interval(b, settings->push_ms);
	settings->push_ms = b->st.push_interval_ms;
	balloon_set_inhibited(b, settings->n_inhibitors > 0);
}

/* On what terms statistics come now. */
static enum health_source source_now(const struct control *c, bool connected)
{
	const struct balloon *b = c->balloon;
	const struct vq *stats = balloon_vq(b, VIRTIO_BALLOON_VQ_STATS);
	bool known = connected && c->health.source != HEALTH_SOURCE_NONE;

	/*
	 * Queues stop for a pause as for a reset, and nobody says which. A driver that starts
	 * afresh is told from one that goes on by what the balloon then forgets.
	 */
	if (!balloon_driver_active(b))
		return known ? HEALTH_SOURCE_STOPPED : HEALTH_SOURCE_NONE;
	if (!negotiated(b, VIRTIO_BALLOON_F_STATS_VQ))
		return HEALTH_SOURCE_UNABLE;
	/* Rings start one after the other. */
	if (!stats || !vq_started(stats))
		return known ? HEALTH_SOURCE_STOPPED : HEALTH_SOURCE_NONE;
	if (stats->st.error)
		return HEALTH_SOURCE_UNABLE;
	return balloon_pushing(b) ? HEALTH_SOURCE_PUSH : HEALTH_SOURCE_PULL;
}

void control_check(struct control *c, bool connected, struct instant now)
{
	const struct balloon_state *st = &c->balloon->st;

	if (c->health.heard && !st->stats.ever)
		health_forget(&c->health, now);
	/* Read off the figures: not every arrival is an event. */
	if (st->stats.ever)
		health_arrived(&c->health, st->stats.arrived, now);
	health_observe(&c->health, source_now(c, connected), st->push_interval_ms,
		       st->stats_awaited, now);
	if (health_update(&c->health, now))
		c->ops->health_changed(c->opaque);
}

uint64_t control_next(const struct control *c)
{
	return health_next(&c->health);
}

int control_set_push_interval(struct control *c, uint32_t interval_ms)
{
	int r = balloon_set_push_interval(c->balloon, interval_ms);

	if (r < 0)
		return r;
	c->settings->push_ms = c->balloon->st.push_interval_ms;
	c->ops->touched(c->opaque);
	return 0;
}

int control_hint(struct control *c, enum balloon_hint_action action)
{
	int r = balloon_hint(c->balloon, action);

	if (r == 0)
		c->ops->touched(c->opaque);
	return r;
}

static int inhibitors_changed(struct control *c, int r)
{
	if (r < 0)
		return r;
	balloon_set_inhibited(c->balloon, c->settings->n_inhibitors > 0);
	c->ops->touched(c->opaque);
	return 0;
}

int control_inhibit(struct control *c, const char *reason)
{
	int r = settings_inhibit(c->settings, reason);

	return r == -EEXIST ? 0 : inhibitors_changed(c, r);
}

int control_uninhibit(struct control *c, const char *reason)
{
	return inhibitors_changed(c, settings_uninhibit(c->settings, reason));
}
