/* SPDX-License-Identifier: MIT */
/*
 * A machine with a balloon device, all in one process: guest memory, the device, and what stands
 * around it. The device's process may die at any moment that shows outside of it, and another one
 * goes on with what was saved; the guest may go on at any such moment too.
 *
 * The oracle knows of every page whether the guest may use it. Its rule is the invariant of the
 * whole project: a page that the guest may use is never discarded. Balloonable memory is mapped
 * without access, so that a device which touches it, rather than only telling to discard it, dies.
 */
#ifndef MODEL_MACHINE_H
#define MODEL_MACHINE_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "balloon/balloon.h"

#define MACHINE_PAGES 4096U /* balloonable ones, in two regions with a gap */
#define MACHINE_RINGS VIRTIO_BALLOON_VQ_COUNT

/* Guest memory that is not balloonable begins there; for rings and buffers. */
#define MACHINE_LOW_GPA 0x10000ULL

enum page_state {
	PAGE_OWNED,    /* the guest's */
	PAGE_GIVING,   /* named in an inflate buffer that is under way */
	PAGE_HELD,     /* in the balloon */
	PAGE_TAKING,   /* named in a deflate buffer that is under way */
	PAGE_HINTED,   /* free, and may be used at any time */
	PAGE_REPORTED, /* free until its report comes back */
};

/* What the process does that shows outside of it. */
enum machine_moment {
	MOMENT_DISCARD,
	MOMENT_CONFIG,
	MOMENT_NOTIFY,
	MOMENT_EVENT,
	MOMENT_COMMIT,
};

struct machine_config {
	uint64_t offered;   /* the device's features */
	uint64_t page_size; /* of the host, behind balloonable memory */
	size_t low_bytes;
	uint32_t death_in; /* the process dies at one of so many moments; 0: it lives */
};

/* Where a ring is: the three areas, in low memory. */
struct machine_ring {
	uint16_t size;
	uint64_t desc;
	uint64_t driver;
	uint64_t device;
};

/* What a process that dies leaves behind, beside the bitmaps and guest memory. */
struct machine_saved {
	struct balloon_state st;
	struct vq_state vq[MACHINE_RINGS];
	bool running[MACHINE_RINGS];
	struct pageset_layout held;
	struct pageset_layout hints;
	uint32_t half;      /* of the bitmaps that is in use */
	uint64_t *held_was; /* the bitmaps as they were then */
	uint64_t *hints_was;
};

struct machine {
	struct machine_config config;
	uint64_t random;
	struct instant now;
	struct guest_mem mem;
	uint8_t *low;
	uint8_t *high[2];

	/* The device's process. */
	struct balloon *balloon;
	struct balloon_policy policy;
	struct vq vq[MACHINE_RINGS];
	bool running[MACHINE_RINGS];
	uint64_t *held[2]; /* halves */
	uint64_t *hints[2];
	uint32_t half;
	bool busy;       /* it is at work */
	bool finishing;  /* with that, it only has to be saved */
	bool done;       /* and was */
	bool mortal;     /* and may die */
	uint32_t die_at; /* at that moment, counted from here; 0: as config.death_in has it */
	jmp_buf death;

	struct machine_saved saved;

	/* What stands around it. */
	uint64_t features;            /* negotiated */
	bool runnable[MACHINE_RINGS]; /* kicked, started, or has more to do */
	bool notified[MACHINE_RINGS]; /* the guest has been, and has not looked yet */
	bool config_news;             /* the guest has been told that configuration changed */
	uint32_t told_pages;          /* num_pages when it was */
	bool actual_waits;            /* a write to `actual`, until the process has time */
	uint32_t actual;
	uint64_t config_changes;
	uint64_t deaths;

	/* The oracle. */
	enum page_state page[MACHINE_PAGES];
	uint32_t discards[MACHINE_PAGES]; /* since it was the guest's */
	bool excused[MACHINE_PAGES];      /* may not have been discarded, with good reason */
	bool told;                        /* MUST_TELL_HOST was negotiated */
	bool inhibited;
	bool poisoned;

	/*
	 * The guest goes on while the device is at work: looks at used buffers, and makes others
	 * available. With `look`, at the used buffers at least.
	 */
	void (*guest)(void *opaque, bool look);
	/* Sees every moment, before anything comes of it; may be NULL. */
	void (*watch)(void *opaque, enum machine_moment moment);
	void *opaque;
};

void machine_init(struct machine *m, const struct machine_config *config, uint64_t seed);
void machine_free(struct machine *m);

/* 0 <= result < n */
uint32_t machine_random(struct machine *m, uint32_t n);

/* PFN of balloonable page i; its inverse is -1 for PFNs that are none. */
uint32_t machine_pfn(uint32_t page);
int64_t machine_page(uint32_t pfn);

/* Balloonable pages are in two stretches; this one's, from which page and up to which. */
uint32_t machine_half_end(uint32_t page);

uint64_t machine_gpa(const struct machine *m, const uint8_t *low);

/*
 * All that follows is done by the process. If it dies in the middle, another does it, from what was
 * saved: as a front end's message or an operator's command that is repeated until it is answered.
 */
void machine_set_features(struct machine *m, uint64_t features);
void machine_start_ring(struct machine *m, uint32_t ring, const struct machine_ring *at);
/* Pause and resume; change of the memory table to the same one. */
void machine_resume(struct machine *m, uint32_t ring);
void machine_remap(struct machine *m);
/* All rings are stopped and the driver is gone: all memory is the guest's. */
void machine_reset(struct machine *m);
void machine_write_actual(struct machine *m, uint32_t actual);
void machine_write_poison(struct machine *m, uint32_t value);
void machine_set_target(struct machine *m, uint64_t pages);
void machine_inhibit(struct machine *m, bool inhibited);
void machine_request_stats(struct machine *m);
void machine_set_poll(struct machine *m, uint64_t interval_ms);
void machine_set_push(struct machine *m, uint32_t interval_ms);
void machine_hint(struct machine *m, enum balloon_hint_action action);

/* A ring's turn, if it is to have one, and what is due by time. These are not repeated. */
void machine_run(struct machine *m, uint32_t ring);
void machine_tick(struct machine *m);

/* Configuration as the guest reads it: in the middle of the process's work, as it was before. */
void machine_read_config(struct machine *m, uint32_t offset, uint8_t *buf, uint32_t len);

/* The driver's kick. */
void machine_kick(struct machine *m, uint32_t ring);

/* The guest moves a page on. */
void machine_set_page(struct machine *m, uint32_t page, enum page_state state);

/* Pages of that state are those which a sweep discards; it is over: none is excused any more. */
void machine_swept(struct machine *m, enum page_state state);

/* Is every host page given back that consists of pages in that state which are not excused? */
void machine_check_discarded(const struct machine *m, enum page_state state);

/* The host page that a page is in: its first page, returns how many; 0: not wholly in the region.
 */
uint64_t machine_host_page(const struct machine *m, uint32_t page, uint32_t *first);

/* Between machine.c and work.c: memory, bitmaps, what is saved, and the next process. */
void machine_lay_out_memory(struct machine *m);
size_t machine_map_bytes(const struct machine *m);
void machine_commit(void *opaque);
void machine_take_over(struct machine *m);

#endif
