/* SPDX-License-Identifier: MIT */
/*
 * What a guest says about its memory, as it arrived: one sample. The tags are those of the wire; a
 * tag that the guest did not send, or sent as unset, is not known, and has no value.
 */
#ifndef POLICY_STATS_H
#define POLICY_STATS_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include <aerostat/virtio_balloon.h>

struct guest_stats {
	uint64_t at_ms;                      /* when the guest took them, monotonic */
	uint32_t known;                      /* one bit a tag: 1u << VIRTIO_BALLOON_S_... */
	uint64_t value[VIRTIO_BALLOON_S_NR]; /* bytes, or counts: see the wire header */
};

static_assert(VIRTIO_BALLOON_S_NR <= 32, "a bit for each tag");

static inline bool stats_has(const struct guest_stats *s, unsigned int tag)
{
	return s->known >> tag & 1;
}

/* The value, or 0 if it is not known. */
static inline uint64_t stats_get(const struct guest_stats *s, unsigned int tag)
{
	return stats_has(s, tag) ? s->value[tag] : 0;
}

/* Unset values (2^64-1) and tags that are none are left out. */
static inline void stats_put(struct guest_stats *s, unsigned int tag, uint64_t value)
{
	if (tag >= VIRTIO_BALLOON_S_NR || value == VIRTIO_BALLOON_S_UNSET)
		return;
	s->value[tag] = value;
	s->known |= 1U << tag;
}

#endif
