// SPDX-License-Identifier: MIT
/*
 * All values are bounded by the VM's size before they are used, so sums and the products with times
 * and small factors stay far from 2^64: sizes are below 2^48, times in them below 2^16.
 */
#include "policy/demand.h"

#include "base/checked.h"

/* A change of actual or MEMTOT smaller than this is none. */
#define SAME (1ULL << 20)

/* What `used` may wander in one window without counting as growth: a 256th of the size. */
#define JITTER_PART 256

#define TIME_MAX_MS 3600000 /* longer pauses make no difference to any decay */

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t sub_u64(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static bool same(uint64_t a, uint64_t b)
{
	return sub_u64(a, b) + sub_u64(b, a) <= SAME;
}

/* What is left of an excess after that time: 1/e-like, without a library of mathematics. */
static uint64_t decayed(uint64_t excess, uint64_t elapsed_ms, uint64_t constant_ms)
{
	uint64_t t = min_u64(elapsed_ms, TIME_MAX_MS);

	return excess / (constant_ms + t) * constant_ms +
	       excess % (constant_ms + t) * constant_ms / (constant_ms + t);
}

void demand_init(struct demand *d)
{
	/* A guest of which nothing is known is taken for one that cannot be measured in motion. */
	*d = (struct demand){.counts_balloon = true};
}

uint64_t demand_margin(uint64_t used, uint64_t size)
{
	return used / 8 + size / 64 + (8ULL << 20);
}

uint64_t demand_kept(const struct demand *d, uint64_t actual)
{
	if (!d->known || d->counts_balloon || actual > d->last_actual)
		return actual;
	return min_u64(actual, d->last_total + d->overhead);
}

bool demand_is_short(const struct demand *d, uint64_t size)
{
	return d->known && d->available < demand_margin(d->used, size) / 2;
}

struct figures {
	uint64_t total, available, free, caches;
};

static bool read_figures(const struct guest_stats *s, uint64_t size, uint64_t actual,
			 struct figures *f)
{
	if (!stats_has(s, VIRTIO_BALLOON_S_AVAIL) && !stats_has(s, VIRTIO_BALLOON_S_MEMFREE))
		return false;
	f->total = stats_has(s, VIRTIO_BALLOON_S_MEMTOT)
			   ? min_u64(s->value[VIRTIO_BALLOON_S_MEMTOT], size)
			   : actual;
	f->free = min_u64(stats_get(s, VIRTIO_BALLOON_S_MEMFREE), f->total);
	f->caches = min_u64(stats_get(s, VIRTIO_BALLOON_S_CACHES), f->total);
	if (stats_has(s, VIRTIO_BALLOON_S_AVAIL))
		f->available = min_u64(s->value[VIRTIO_BALLOON_S_AVAIL], f->total);
	else
		f->available = min_u64(f->free + f->caches, f->total);
	/* Without CACHES: what is available and not free is mostly that. */
	if (!stats_has(s, VIRTIO_BALLOON_S_CACHES))
		f->caches = sub_u64(f->available, f->free);
	f->free = min_u64(f->free, f->available);
	return true;
}

/* With the balloon at rest: how does this guest count, and what does it never show? */
static void learn_counting(struct demand *d, const struct figures *f, uint64_t size,
			   uint64_t actual)
{
	if (f->total > actual)
		d->counts_balloon = true;
	else if (size - actual > size / 8)
		d->counts_balloon = false;
	if (f->total <= actual)
		d->overhead = actual - f->total;
}

/* What the guest uses by this sample. False if it cannot be told while the balloon moves. */
static bool measure(struct demand *d, const struct figures *f, uint64_t size, uint64_t actual,
		    bool moving, uint64_t *used)
{
	bool at_rest = !moving && (!d->known || same(actual, d->last_actual)) &&
		       (!d->known || same(f->total, d->last_total));

	if (at_rest)
		learn_counting(d, f, size, actual);
	if (!moving) {
		*used = sub_u64(actual, f->available);
		return true;
	}
	if (!d->counts_balloon) {
		*used = sub_u64(min_u64(f->total + d->overhead, size), f->available);
		return true;
	}
	*used = sub_u64(actual, f->available);
	/* Too much, if actual is newer than the sample; so only what shows a shortage counts. */
	return !d->known || (*used > d->used && f->available < demand_margin(d->used, size) / 2);
}

static void follow_growth(struct demand *d, uint64_t used, uint64_t size, uint64_t at_ms)
{
	uint64_t elapsed = at_ms - d->at_ms, span, rise;

	d->growth = decayed(d->growth, elapsed, DEMAND_GROWTH_DECAY_MS);
	if (used <= d->mark_used) {
		d->mark_used = used;
		d->mark_ms = at_ms;
		return;
	}
	span = max_u64(at_ms - d->mark_ms, DEMAND_GROWTH_SPAN_MS);
	rise = used - d->mark_used;
	if (rise > size / JITTER_PART)
		d->growth = max_u64(d->growth, rise * 1000 / span);
	if (span >= DEMAND_GROWTH_WINDOW_MS) {
		d->mark_used = used;
		d->mark_ms = at_ms;
	}
}

static void follow_used(struct demand *d, uint64_t used, uint64_t size, uint64_t at_ms)
{
	if (!d->known) {
		d->mark_ms = at_ms;
		d->mark_used = used;
		d->working = max_u64(used, d->working); /* it may be known from before */
	} else {
		follow_growth(d, used, size, at_ms);
		d->working = used +
			     decayed(sub_u64(d->working, used), at_ms - d->at_ms, DEMAND_DECAY_MS);
	}
	d->used = used;
	d->measured_ms = at_ms;
}

static void follow_cache(struct demand *d, uint64_t caches, uint64_t at_ms)
{
	uint64_t elapsed = at_ms - d->at_ms;

	if (!d->known)
		d->cache = max_u64(d->cache, caches);
	else if (caches > d->cache)
		d->cache = caches - decayed(caches - d->cache, elapsed, DEMAND_CACHE_RISE_MS);
	else
		d->cache = caches + decayed(d->cache - caches, elapsed, DEMAND_CACHE_FALL_MS);
}

/* What came from the balloon or went there is no matter of the guest's. */
static uint64_t still_free(const struct demand *d, uint64_t free, uint64_t actual)
{
	uint64_t filled = sub_u64(d->free + actual, d->last_actual + free);

	return d->known ? sub_u64(free, filled) : free;
}

/* A guest that fills its memory is taken to go on with that as long again. */
static void follow_spare(struct demand *d, uint64_t free, uint64_t at_ms, bool at_rest)
{
	bool over = at_rest && d->rest_ms && at_ms - d->rest_ms >= DEMAND_SPARE_MS;

	d->free_least = min_u64(d->free_least, free);
	d->free_most = max_u64(d->free_most, free);
	if (over)
		d->spare = sub_u64(d->free_least, d->free_most - d->free_least);
	else if (!at_rest)
		d->spare = 0;
	if (over || !at_rest || !d->rest_ms) {
		d->rest_ms = max_u64(at_ms, 1);
		d->free_least = free;
		d->free_most = free;
	}
}

/* How long until an answer to this sample's successor takes effect. */
static uint64_t ahead_ms(uint64_t interval_ms)
{
	uint64_t ms = 2 * min_u64(interval_ms, DEMAND_AHEAD_MAX_MS) + 1000;

	return min_u64(max_u64(ms, DEMAND_AHEAD_MIN_MS), DEMAND_AHEAD_MAX_MS);
}

/* A quarter of what it has, then a half, then as much again. */
static uint64_t short_headroom(const struct demand *d, uint64_t actual)
{
	static const uint64_t part[] = {0, 4, 2, 1};

	return d->short_run ? actual / part[min_u64(d->short_run, 3)] : 0;
}

static void provide(struct demand *d, uint64_t size, uint64_t actual, uint64_t interval_ms)
{
	/* Bounded: who grew fast once does not get everything for it. */
	uint64_t limit = max_u64(d->used, size / 4);

	if (demand_is_short(d, size))
		d->short_run = (uint8_t)min_u64(d->short_run + 1U, 3);
	else
		d->short_run = 0;
	d->headroom = min_u64(d->growth / 1000 * ahead_ms(interval_ms), limit);
	d->headroom = max_u64(d->headroom, short_headroom(d, actual));
}

bool demand_sample(struct demand *d, const struct guest_stats *s, uint64_t size, uint64_t actual,
		   bool moving)
{
	struct figures f;
	uint64_t used, interval;

	actual = min_u64(actual, size);
	if ((d->known && s->at_ms <= d->at_ms) || !read_figures(s, size, actual, &f))
		return false;
	interval = d->known ? s->at_ms - d->at_ms : 1000;
	if (measure(d, &f, size, actual, moving, &used))
		follow_used(d, used, size, s->at_ms);
	d->idle = still_free(d, f.free, actual);
	d->available = f.available;
	d->free = f.free;
	follow_cache(d, f.caches, s->at_ms);
	follow_spare(d, f.free, s->at_ms, d->known && !moving && same(actual, d->last_actual));
	d->known = true;
	d->at_ms = s->at_ms;
	d->last_actual = actual;
	d->last_total = f.total;
	provide(d, size, actual, interval);
	return true;
}

void demand_hint_short(struct demand *d, uint64_t actual)
{
	if (!d->short_run)
		d->short_run = 1;
	d->headroom = max_u64(d->headroom, short_headroom(d, actual));
}
