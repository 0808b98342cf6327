// SPDX-License-Identifier: MIT
#include "save.h"

#include <errno.h>
#include <string.h>

static void save_hot(const struct server *s, struct block_hot *hot)
{
	const struct vu_session *session = &s->frontend.session;

	hot->valid = true;
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		hot->vq[i] = session->ring[i].vq.st;
	hot->balloon = s->balloon.st;
	hot->told = s->frontend.told;
	hot->health = s->control.health;
	hot->change_after_ms = s->change_after_ms;
	hot->change_due = s->change_due;
	hot->failed_discards = reclaim_failures(&s->frontend.reclaim);
}

static void save_cold(const struct server *s, struct block_cold *cold)
{
	const struct pageset *loaded = transfer_loaded(&s->frontend.transfer);

	cold->handled = s->handled;
	cold->session = s->frontend.connection;
	cold->reply_len = s->reply_len;
	memcpy(cold->reply, s->reply, s->reply_len);
	vu_session_save(&s->frontend.session, &cold->image);
	cold->half = s->frontend.reclaim.half;
	cold->layout = s->balloon.held.at;
	cold->loaded = loaded != NULL;
	if (loaded)
		cold->loaded_layout = loaded->at;
	cold->settings = s->settings;
	cold->guest_size_pending = s->guest_size_pending;
}

void save_commit(struct server *s)
{
	struct block *block = s->block;
	struct block_hot *hot = block_next_hot(block);

	if (s->cold_changed)
		save_cold(s, block_next_cold(block));
	save_hot(s, hot);
	block_commit(block);
	s->cold_changed = false;
}

int save_restore(struct server *s)
{
	const struct block_hot *hot = block_hot(s->block);
	const struct block_cold *cold = block_cold(s->block);
	int r;

	if (!hot->valid)
		return -ENODATA;
	s->handled = cold->handled;
	s->reply_len = cold->reply_len <= sizeof(s->reply) ? cold->reply_len : 0;
	memcpy(s->reply, cold->reply, s->reply_len);
	s->settings = cold->settings;
	s->guest_size_pending = cold->guest_size_pending;
	s->change_after_ms = hot->change_after_ms;
	s->change_due = hot->change_due;
	s->control.health = hot->health;
	s->frontend.reclaim.failed_before = hot->failed_discards;
	r = frontend_restore(&s->frontend, hot, cold);
	return r;
}
