/* SPDX-License-Identifier: MIT */
/*
 * A guest with the portable driver, on a machine whose device has all queues: its memory, which the
 * driver takes pages from and gives back to, and what it expects of the device.
 */
#ifndef MODEL_GUEST_H
#define MODEL_GUEST_H

#include "base/bitmap.h"
#include "driver/balloon.h"
#include "machine.h"

/* PFNs from the first balloonable page to the last. */
#define GUEST_SPAN 16384U

struct guest_config {
	uint64_t offered; /* the device's features; those of rings are always offered */
	uint64_t page_size;
	uint32_t death_in;
};

/* How the driver is set up each time it starts. */
struct guest_driver {
	uint64_t wanted;
	enum driver_numbering numbering;
	bool poison;
	uint32_t poison_val;
	uint32_t array_pfns;
};

/* What the driver has done since it started; the device's counters stood at `base` then. */
struct guest_counts {
	uint64_t inflated;
	uint64_t deflated;
	uint64_t reported;
	uint64_t statistics; /* sets of figures; the number of each is what is in them */
	uint64_t pressure;   /* messages the device was sent */
};

struct guest {
	struct guest_config config;
	struct machine m;
	struct driver_balloon d;
	struct guest_driver driver;
	uint64_t in_balloon[GUEST_SPAN / BITMAP_WORD_BITS];
	uint64_t hinted[GUEST_SPAN / BITMAP_WORD_BITS];
	bool in_driver;   /* it is not to be called again */
	bool resetting;   /* the device knows of nothing any more */
	bool generous;    /* memory is never short */
	uint32_t lost_id; /* of this command the device has forgotten hints, with good reason */

	struct guest_counts done;
	struct balloon_state base;
	uint64_t messages;               /* sent before this start */
	uint32_t hint_id[MACHINE_PAGES]; /* the last one that the page was hinted under */
};

void guest_init(struct guest *g, const struct guest_config *config, uint64_t seed);
void guest_free(struct guest *g);

/* The driver begins; ends with everything given back first, or at once. */
void guest_start(struct guest *g, const struct guest_driver *driver);
void guest_stop(struct guest *g, bool politely);

/* The guest does what the device has told it to, and what is due by time. */
void guest_work(struct guest *g);

/* One step of the random walk that a guest's life is. */
void guest_live(struct guest *g);

/* Guest and device go on until nothing is under way; fails if something is forgotten. */
void guest_settle(struct guest *g);

/* After that: do both agree, and with the oracle? */
void guest_check(struct guest *g);

#endif
