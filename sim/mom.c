// SPDX-License-Identifier: MIT
/*
 * oVirt's Memory Overcommitment Manager with the balloon rules that come with it, written anew from
 * what they say (oVirt/mom: doc/balloon.rules, doc/mom-balloon.conf, mom/Collectors/HostMemory.py).
 *
 * Every 5 s host and guests are sampled, every 10 s the rules run, on averages of the last ten
 * samples. With less than 20 % of the host free all guests shrink, else all grow, by at most 5 % a
 * round and not for less than 0.25 %. A shrinking guest keeps what it uses and free memory in
 * proportion to how much the host has (20 % of it at the threshold); at 5 % and below it keeps less
 * than what it uses. A growing one gets 5 %, or more at once if it needs that to have 20 % free.
 *
 * "Uses" is all but free memory in these rules: caches are used. The variant mom-available counts
 * what the guest says is available as free: it is not published, and kinder to MOM.
 */
#include <stdlib.h>

#include "world.h"

#define SAMPLE_EVERY_S 5      /* host-monitor-interval, guest-monitor-interval */
#define RULES_EVERY_S  10     /* policy-engine-interval */
#define HISTORY        10     /* sample-history-length */
#define PRESSURE       0.20   /* pressure_threshold */
#define CRITICAL       0.05   /* pressure_critical */
#define GUEST_FREE     0.20   /* min_guest_free_percent */
#define MAX_CHANGE     0.05   /* max_balloon_change_percent */
#define MIN_CHANGE     0.0025 /* min_balloon_change_percent */
#define CRITICAL_MINUS 0.05   /* taken off in the critical state: shrink_guest */

struct series {
	double value[HISTORY];
};

struct mom {
	uint32_t free_tag; /* what counts as free in a guest */
	uint32_t taken;    /* samples so far */
	uint32_t n;
	struct series host;  /* free part */
	struct series *used; /* by guest: bytes */
};

static double average(const struct mom *m, const struct series *s)
{
	uint32_t n = m->taken < HISTORY ? m->taken : HISTORY;
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += s->value[i];
	return sum / n;
}

static void destroy(void *state)
{
	struct mom *m = state;

	free(m->used);
	free(m);
}

static struct mom *create(const struct world *w, uint32_t free_tag)
{
	struct mom *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->free_tag = free_tag;
	m->n = w->n;
	m->used = calloc(w->n, sizeof(*m->used));
	if (m->used)
		return m;
	free(m);
	return NULL;
}

static void *create_published(struct world *w)
{
	return create(w, VIRTIO_BALLOON_S_MEMFREE);
}

static void *create_available(struct world *w)
{
	return create(w, VIRTIO_BALLOON_S_AVAIL);
}

static void sample(struct mom *m, const struct world *w)
{
	uint32_t at = m->taken++ % HISTORY;
	double available = world_available(w);

	/* MemFree, buffers and cache; there is never less than nothing of it. */
	m->host.value[at] = available > 0 ? available / w->total : 0;
	for (uint32_t i = 0; i < m->n; i++) {
		const struct guest *g = &w->guests[i];
		struct driver_statistics s = {.set = 0};

		guest_statistics(g, &s);
		m->used[i].value[at] = g->size - g->balloon - (double)s.value[m->free_tag];
	}
}

static double larger(double a, double b)
{
	return a > b ? a : b;
}

static void set(struct world *w, struct guest *g, double now, double size)
{
	double change = size > now ? size - now : now - size;

	if (change > MIN_CHANGE * now)
		world_keep(w, g, size);
}

static void shrink(struct world *w, struct guest *g, double used, double host_free)
{
	double now = g->size - g->balloon, spare, least;

	spare = host_free <= CRITICAL ? host_free - CRITICAL_MINUS
				      : GUEST_FREE * (host_free / PRESSURE);
	least = larger(world_floor(w, g), used + spare * now);
	least = larger(least, now * (1 - MAX_CHANGE));
	if (least <= now)
		set(w, g, now, least);
}

static void grow(struct world *w, struct guest *g, double used)
{
	double now = g->size - g->balloon, most;

	if (now >= g->size)
		return;
	most = larger(world_floor(w, g), used + GUEST_FREE * now);
	most = larger(most, now * (1 + MAX_CHANGE));
	set(w, g, now, most < g->size ? most : g->size);
}

static void second(void *state, struct world *w)
{
	struct mom *m = state;
	double host_free;

	if (w->now_s % SAMPLE_EVERY_S)
		return;
	sample(m, w);
	if (w->now_s % RULES_EVERY_S)
		return;
	host_free = average(m, &m->host);
	for (uint32_t i = 0; i < m->n; i++) {
		double used = average(m, &m->used[i]);

		if (host_free < PRESSURE)
			shrink(w, &w->guests[i], used, host_free);
		else
			grow(w, &w->guests[i], used);
	}
}

const struct policy policy_mom = {
	.name = "mom",
	.text = "oVirt's MOM with its balloon rules",
	.create = create_published,
	.second = second,
	.destroy = destroy,
};

const struct policy policy_mom_available = {
	.name = "mom-available",
	.text = "the same, had it counted caches as free",
	.create = create_available,
	.second = second,
	.destroy = destroy,
};
