/* SPDX-License-Identifier: MIT */
/* What the writer and the reader of snapshots share; the format itself is told in snapshot.h. */
#ifndef BALLOON_SNAPSHOT_FORMAT_H
#define BALLOON_SNAPSHOT_FORMAT_H

#include <assert.h>

#include "balloon/snapshot.h"

#define SNAPSHOT_MAGIC       "AEROSTAT"
#define SNAPSHOT_MAGIC_BYTES 8U
#define SNAPSHOT_HEAD_BYTES  (SNAPSHOT_MAGIC_BYTES + 8U)

#define SNAPSHOT_SECTION_HEAD 8U /* kind and length */

/* Who does not know the section may pass it over. */
#define SNAPSHOT_OPTIONAL 0x80000000U

#define SNAPSHOT_DEVICE   1U
#define SNAPSHOT_QUEUES   2U
#define SNAPSHOT_STATS    3U
#define SNAPSHOT_HINT     4U
#define SNAPSHOT_PRESSURE 5U
#define SNAPSHOT_REGIONS  6U
#define SNAPSHOT_HELD     7U
#define SNAPSHOT_COUNTERS (SNAPSHOT_OPTIONAL | 8U)
#define SNAPSHOT_END      0x7fffffffU

#define SNAPSHOT_NO_RING    UINT32_MAX
#define SNAPSHOT_NOT_LISTED UINT32_MAX

#define SNAPSHOT_STATS_EVER    1U
#define SNAPSHOT_STATS_AWAITED 2U
#define SNAPSHOT_STATS_SKIP    4U

#define SNAPSHOT_PRESSURE_EVER 1U

enum snapshot_form {
	SNAPSHOT_ALL_SET,
	SNAPSHOT_LITERAL,
};

static_assert(8 + 8 + 16 * GUEST_MEM_MAX_REGIONS <= SNAPSHOT_SECTION_MAX, "regions fit a section");

#endif
