// SPDX-License-Identifier: MIT
#include "guest.h"

#include <string.h>

static double min_of(double a, double b)
{
	return a < b ? a : b;
}

static double max_of(double a, double b)
{
	return a > b ? a : b;
}

static double total(const struct guest *g)
{
	return g->size - g->balloon;
}

static double free_memory(const struct guest *g)
{
	return total(g) - g->kernel - g->anon - g->cache;
}

/* Bytes that are free above a mark. */
static double spare(const struct guest *g, double mark)
{
	return max_of(free_memory(g) - mark * g->size, 0);
}

static double cold_cache(const struct guest *g)
{
	return max_of(g->cache - max_of(g->hot, RESIDUAL_CACHE * g->size), 0);
}

double guest_usable(const struct guest *g)
{
	return g->size * (1 - MARK_HIGH) - g->kernel - max_of(g->hot, RESIDUAL_CACHE * g->size);
}

static void tell(struct guest *g, uint32_t level, const struct guest_ops *ops)
{
	if (!g->messages)
		return;
	g->messages_sent++;
	g->told = g->pressed = true;
	ops->pressure(ops->opaque, g, level);
}

/* --- the balloon ----------------------------------------------------------------------------- */

static void deflate(struct guest *g)
{
	double pages = min_of(g->balloon - g->target, DEFLATE_RATE);

	if (pages <= 0)
		return;
	g->balloon -= pages;
	g->moved += pages;
}

/* By kswapd: programs do not wait for it. */
static double reclaim_async(struct guest *g, double wanted)
{
	double got = min_of(min_of(wanted, KSWAPD_RATE), cold_cache(g));

	g->cache -= got;
	g->scan_async += got;
	g->reclaim_async += got;
	return got;
}

/* By those who want it. */
static double reclaim_direct(struct guest *g, double wanted, double most)
{
	double got = min_of(min_of(wanted, most), cold_cache(g));

	g->cache -= got;
	g->scan_direct += got;
	g->reclaim_direct += got;
	return got;
}

/* Swap and hot cache in equal parts, as far as there are both. */
static double reclaim_hard(struct guest *g, double wanted)
{
	double limit = min_of(wanted, SWAP_RATE);
	double swap = min_of(g->swap_size - g->swapped, g->anon);
	double file = max_of(g->cache - RESIDUAL_CACHE * g->size, 0);
	double out = min_of(limit / 2, swap);
	double drop = min_of(limit - out, file);

	out = min_of(limit - drop, swap);
	g->anon -= out;
	g->swapped += out;
	g->swap_out += out;
	g->cache -= drop;
	g->scan_direct += SCAN_THRASH * (out + drop);
	g->reclaim_direct += out + drop;
	return out + drop;
}

/*
 * Takes what is free, then what the balloon's own allocations reclaim. They do not try hard, but
 * each makes kswapd work, and in a second what kswapd frees is taken too.
 */
static void inflate(struct guest *g)
{
	double wanted = min_of(g->target - g->balloon, INFLATE_RATE);
	double got;

	if (wanted <= 0)
		return;
	got = min_of(wanted, spare(g, MARK_LOW));
	if (got < wanted)
		got += reclaim_async(g, wanted - got);
	if (got < wanted)
		got += reclaim_hard(g, min_of(wanted - got, SWAP_RATE / 2));
	if (got < wanted)
		g->puffs++;
	g->balloon += got;
	g->moved += got;
	g->touched = min_of(g->touched, total(g));
}

/* --- programs -------------------------------------------------------------------------------- */

/* Anonymous memory from what is free above a mark; returns how much is still wanted. */
static double take_free(struct guest *g, double wanted, double mark)
{
	double got = min_of(wanted, spare(g, mark));

	g->anon += got;
	g->minor_faults += got / PAGE_BYTES;
	return wanted - got;
}

static void give_up_memory(struct guest *g, double wanted)
{
	double part = wanted / (g->anon + g->swapped);

	g->anon *= part;
	g->swapped *= part;
}

/* All is in use and nothing can be reclaimed. */
static void run_out(struct guest *g, double wanted, const struct guest_ops *ops)
{
	double most = g->size * (1 - MARK_MIN - RESIDUAL_CACHE) - g->kernel + g->swap_size;

	tell(g, VIRTIO_BALLOON_PRESSURE_CRITICAL, ops);
	deflate(g);
	if (take_free(g, wanted, MARK_MIN) <= 0) {
		g->stuck_s = 0;
		return;
	}
	g->stuck_s += 1;
	if (g->stuck_s < OOM_PATIENCE_S)
		return;
	g->oom_kills++;
	if (g->anon + g->swapped + wanted > most)
		g->kills_unavoidable++;
	g->stuck_s = 0;
	g->living *= OOM_LEFT;
	give_up_memory(g, OOM_LEFT * (g->anon + g->swapped));
}

/* Allocations that found too little; returns the part of the second that they waited. */
static double shortage(struct guest *g, double wanted, const struct guest_ops *ops)
{
	double left, got, waited;

	tell(g, VIRTIO_BALLOON_PRESSURE_MEDIUM, ops);
	deflate(g);
	left = take_free(g, wanted, MARK_MIN);
	waited = g->messages ? MESSAGE_S : 0;
	got = reclaim_direct(g, left, DIRECT_RATE);
	waited += got / DIRECT_RATE;
	g->alloc_stalls += 1 + left / STALL_ALLOCATION;
	g->anon += got;
	left -= got;
	if (left <= 0)
		return min_of(waited, 1);
	got = reclaim_hard(g, left);
	waited += got / SWAP_RATE;
	g->anon += got;
	left -= got;
	if (left > 0 && got <= 0)
		run_out(g, left, ops);
	else
		g->stuck_s = 0;
	return left > 0 ? 1 : min_of(waited, 1);
}

/* Programs grow or shrink to what they want; returns the part of the second that they waited. */
static double adjust(struct guest *g, double wanted, const struct guest_ops *ops)
{
	double more = wanted - g->anon - g->swapped;

	if (more <= 0) {
		g->stuck_s = 0;
		if (more < 0)
			give_up_memory(g, wanted);
		return 0;
	}
	more = take_free(g, more, MARK_LOW);
	if (more <= 0) {
		g->stuck_s = 0;
		return 0;
	}
	/* kswapd wakes, and a driver that watches it tells so. */
	tell(g, VIRTIO_BALLOON_PRESSURE_LOW, ops);
	deflate(g);
	reclaim_async(g, more + (MARK_HIGH - MARK_LOW) * g->size);
	more = take_free(g, more, MARK_MIN);
	if (more > 0)
		return shortage(g, more, ops);
	g->stuck_s = 0;
	return 0;
}

/*
 * What was taken and is in use is read back, over and over if there is no room for it; returns the
 * part of the second that programs waited. With w seconds of reading for each second of work the
 * work goes on for 1 / (1 + w) of the time.
 */
static double refault(struct guest *g, const struct guest_ops *ops)
{
	double all = g->anon + g->swapped;
	double anon = max_of(g->swapped - g->idle * all, 0);
	double file = max_of(g->hot - g->cache, 0);
	double missing = anon + file, waiting, in, room, back;

	if (missing < PAGE_BYTES)
		return 0;
	waiting = missing / PAGE_BYTES / TOUCH_S * FAULT_S;
	waiting = waiting / (1 + waiting);
	in = missing / TOUCH_S * (1 - waiting);
	room = spare(g, MARK_LOW);
	if (room < in)
		room += reclaim_async(g, in - room);
	if (room < in) {
		tell(g, VIRTIO_BALLOON_PRESSURE_MEDIUM, ops);
		deflate(g);
		room = spare(g, MARK_LOW);
	}
	back = min_of(in, room);
	g->major_faults += in / PAGE_BYTES;
	g->swap_in += in * (anon / missing);
	g->anon += back * (anon / missing);
	g->swapped -= back * (anon / missing);
	g->cache += back * (file / missing);
	if (back < in) { /* as much goes out again as comes in */
		double round = in - back;

		g->swap_out += round * (anon / missing);
		g->scan_direct += SCAN_THRASH * round;
		g->reclaim_direct += round;
		g->alloc_stalls += round / STALL_ALLOCATION;
	}
	return waiting;
}

/* What programs want now: less after a kill, and again all of it by and by. */
static double living(struct guest *g, double wanted)
{
	g->living = min_of(g->living + (1 - OOM_LEFT) / OOM_BACK_S, 1);
	g->down_sum_s += 1 - g->living;
	return wanted * g->living;
}

void guest_step(struct guest *g, double wanted, double host_stall, const struct guest_ops *ops)
{
	double waited, reading, read;

	g->stall = 0;
	if (g->hung)
		return;
	g->told = false;
	deflate(g);
	waited = adjust(g, living(g, wanted), ops);
	reading = refault(g, ops);
	g->stall = 1 - (1 - waited) * (1 - reading) * (1 - host_stall);
	g->stall_sum_s += g->stall;
	if (g->pressed && !g->told) {
		g->pressed = false;
		ops->relieved(ops->opaque, g);
	}
	/* Our driver does not inflate while programs wait for memory. */
	if (!g->messages || g->stall <= host_stall)
		inflate(g);
	read = min_of(g->io, spare(g, MARK_HIGH));
	g->cache += read;
	g->minor_faults += read / PAGE_BYTES;
	g->touched = max_of(g->touched, g->kernel + g->anon + g->cache);
}

void guest_start(struct guest *g, double balloon, double wanted)
{
	g->balloon = g->target = balloon;
	g->living = 1;
	g->anon = min_of(wanted, spare(g, MARK_LOW));
	g->cache = min_of(spare(g, MARK_HIGH), 2 * g->hot);
	g->touched = total(g); /* it has been running for long */
}

/* --- statistics ------------------------------------------------------------------------------ */

static void set(struct driver_statistics *s, uint32_t tag, double value)
{
	s->value[tag] = value > 0 ? (uint64_t)value : 0;
	s->set |= 1U << tag;
}

void guest_statistics(const struct guest *g, struct driver_statistics *s)
{
	double low = MARK_LOW * g->size, available = free_memory(g) - low;

	/* As si_mem_available(): of the cache, half or the low mark stays, whichever is less. */
	available += g->cache - min_of(g->cache / 2, low);
	set(s, VIRTIO_BALLOON_S_SWAP_IN, g->swap_in);
	set(s, VIRTIO_BALLOON_S_SWAP_OUT, g->swap_out);
	set(s, VIRTIO_BALLOON_S_MAJFLT, g->major_faults);
	set(s, VIRTIO_BALLOON_S_MINFLT, g->minor_faults);
	set(s, VIRTIO_BALLOON_S_MEMFREE, free_memory(g));
	/* MemTotal lacks what the kernel took before it counted: here half of what it needs. */
	set(s, VIRTIO_BALLOON_S_MEMTOT, total(g) - g->kernel / 2);
	set(s, VIRTIO_BALLOON_S_AVAIL, available);
	set(s, VIRTIO_BALLOON_S_CACHES, g->cache);
	if (!g->scan_tags)
		return;
	set(s, VIRTIO_BALLOON_S_OOM_KILL, (double)g->oom_kills);
	set(s, VIRTIO_BALLOON_S_ALLOC_STALL, g->alloc_stalls);
	set(s, VIRTIO_BALLOON_S_SCAN_ASYNC, g->scan_async);
	set(s, VIRTIO_BALLOON_S_SCAN_DIRECT, g->scan_direct);
	set(s, VIRTIO_BALLOON_S_RECLAIM_ASYNC, g->reclaim_async);
	set(s, VIRTIO_BALLOON_S_RECLAIM_DIRECT, g->reclaim_direct);
}
