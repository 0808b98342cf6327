// SPDX-License-Identifier: MIT
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define HOST_STREAM UINT32_MAX /* of random numbers: guests have those with their own numbers */

/* Sizes of guests in GiB, and how many of a hundred have them. */
static const struct {
	double gib, percent;
} sizes[] = {{1, 20}, {2, 30}, {4, 25}, {8, 17}, {16, 8}};

/* What guests do, and how many of a hundred do it. */
static const double kinds[TRACE_RECORDED] = {
	[TRACE_DIURNAL] = 35, [TRACE_BURSTY] = 25, [TRACE_BATCH] = 15,
	[TRACE_STEADY] = 15,  [TRACE_LEAKING] = 5, [TRACE_HUNG] = 5,
};

const struct policy *const policies[] = {&policy_aerostat,      &policy_proxmox, &policy_mom,
					 &policy_mom_available, &policy_static,  NULL};

double world_available(const struct world *w)
{
	return w->total - w->own - w->resident;
}

double world_host_cache(const struct world *w)
{
	double most = w->options->host_cache * w->total, room = world_available(w);

	if (room < 0)
		return 0;
	return most < room ? most : room;
}

double world_goal(const struct world *w)
{
	return w->total * (HOST_GOAL - HOST_OWN);
}

double world_floor(const struct world *w, const struct guest *g)
{
	return w->options->floor * g->size;
}

void world_keep(struct world *w, struct guest *g, double bytes)
{
	double floor = world_floor(w, g), target;

	if (bytes < floor)
		bytes = floor;
	target = bytes < g->size ? g->size - bytes : 0;
	if (target == g->target)
		return;
	g->target = target;
	w->targets++;
}

static void on_pressure(void *opaque, struct guest *g, uint32_t level)
{
	struct world *w = opaque;

	if (w->policy->pressure)
		w->policy->pressure(w->state, w, g, level);
}

static void on_relieved(void *opaque, struct guest *g)
{
	struct world *w = opaque;

	if (w->policy->relieved)
		w->policy->relieved(w->state, w, g);
}

/* --- guests ---------------------------------------------------------------------------------- */

static enum trace_kind choose_kind(struct rng *r)
{
	double at = rng_between(r, 0, 100);
	uint32_t kind = 0;

	while (kind < TRACE_RECORDED - 1 && at >= kinds[kind])
		at -= kinds[kind++];
	return (enum trace_kind)kind;
}

static double choose_size(struct rng *r)
{
	double at = rng_between(r, 0, 100);
	size_t i = 0;

	while (i < sizeof(sizes) / sizeof(sizes[0]) - 1 && at >= sizes[i].percent)
		at -= sizes[i++].percent;
	return sizes[i].gib * GIB;
}

/* The smallest size of a guest whose programs want so much at most. */
static double size_for(double highest)
{
	double size = GIB;

	while (highest > 0.8 * size)
		size *= 2;
	return size;
}

/*
 * A Linux guest needs 60 MiB and 2.5 % of its memory (page structures are 1.6 %) for itself; 50
 * guests of 64 MiB with nothing in them took 33 to 36 MiB each.
 */
static void make_guest(struct world *w, uint32_t i)
{
	const struct recording *recording = w->options->recording;
	struct rng r = rng_stream(w->options->seed, i);
	struct guest *g = &w->guests[i];
	double size = choose_size(&r);
	enum trace_kind kind = choose_kind(&r);

	if (recording)
		size = size_for(recording->highest[i]);
	*g = (struct guest){.index = i, .size = size, .kernel = 60 * MIB + 0.025 * size};
	g->hot = size * rng_between(&r, 0.02, 0.10);
	g->io = MIB * rng_between(&r, 0.1, 4);
	g->idle = rng_between(&r, 0.1, 0.4);
	g->swap_size = rng_between(&r, 0, 1) < 0.5 ? 0.25 * size : 0;
	g->messages = rng_between(&r, 0, 1) < w->options->own;
	g->scan_tags = rng_between(&r, 0, 1) < 0.75 || g->messages;
	if (recording) {
		size_t first = recording->first[i];

		trace_init_recorded(&w->traces[i], &recording->points[first],
				    recording->first[i + 1] - first);
	} else {
		trace_init(&w->traces[i], kind, guest_usable(g), r);
	}
	g->kind = w->traces[i].kind;
}

int world_init(struct world *w, const struct world_options *options)
{
	double keep = options->budget;

	*w = (struct world){.options = options, .n = options->guests};
	w->guests = calloc(w->n, sizeof(*w->guests));
	w->traces = calloc(w->n, sizeof(*w->traces));
	if (!w->guests || !w->traces)
		return -ENOMEM;
	for (uint32_t i = 0; i < w->n; i++) {
		make_guest(w, i);
		w->sizes += w->guests[i].size;
	}
	w->total = keep * w->sizes / (HOST_GOAL - HOST_OWN);
	w->own = w->own_next = HOST_OWN * w->total;
	w->rng = rng_stream(options->seed, HOST_STREAM);
	for (uint32_t i = 0; i < w->n; i++) {
		struct guest *g = &w->guests[i];
		double wanted = trace_demand(&w->traces[i], 0);

		guest_start(g, g->size * (1 - keep), wanted);
		w->wanted += wanted;
		w->resident += g->touched;
	}
	return 0;
}

void world_free(struct world *w)
{
	free(w->guests);
	free(w->traces);
	w->guests = NULL;
	w->traces = NULL;
}

/* --- a run ----------------------------------------------------------------------------------- */

/* Part of a second that a guest waits for the host, which swaps, of what it has. */
static double host_stall(const struct world *w, const struct guest *g)
{
	double missing = -world_available(w), waiting;

	if (missing <= 0)
		return 0;
	missing *= g->touched / w->resident * HOST_SWAP_HOT;
	waiting = missing / PAGE_BYTES / TOUCH_S * FAULT_S;
	return waiting / (1 + waiting);
}

/* The host's own memory, along straight lines. */
static void step_host(struct world *w)
{
	if (w->now_s >= w->own_until_s) {
		double part = HOST_OWN + rng_between(&w->rng, -HOST_OWN_RANGE, HOST_OWN_RANGE);

		w->own_next = part * w->total;
		w->own_until_s = w->now_s + HOST_OWN_S;
	}
	w->own += (w->own_next - w->own) / (double)(w->own_until_s - w->now_s);
}

static void step(struct world *w, struct result *r)
{
	const struct guest_ops ops = {on_pressure, on_relieved, w};
	double wanted = 0, resident = 0, kept = 0, stalled = 0;

	step_host(w);
	w->now_s++;
	for (uint32_t i = 0; i < w->n; i++) {
		struct guest *g = &w->guests[i];
		double demand = trace_demand(&w->traces[i], (double)w->now_s);
		double waited = host_stall(w, g);

		g->hung = trace_hangs(&w->traces[i], (double)w->now_s);
		guest_step(g, demand, waited, &ops);
		wanted += demand;
		resident += g->touched;
		kept += g->size - g->balloon;
		stalled += waited;
	}
	w->wanted = wanted;
	w->resident = resident;
	w->stalled = stalled / w->n;
	w->psi += (w->stalled - w->psi) * 0.1;
	r->freed += w->sizes - resident;
	r->ballooned += w->sizes - kept;
	r->available_mean += world_available(w);
	if (world_available(w) < r->available_min)
		r->available_min = world_available(w);
	if (world_available(w) < 0)
		r->host_short_s += 1;
	w->policy->second(w->state, w);
}

static void take_sample(const struct world *w, struct result *r)
{
	struct sample *s = &r->samples[r->n_samples];
	double stall = 0;

	*s = (struct sample){.at_s = (double)w->now_s,
			     .wanted = w->wanted,
			     .kept = w->sizes,
			     .resident = w->resident,
			     .available = world_available(w)};
	for (uint32_t i = 0; i < w->n; i++) {
		s->kept -= w->guests[i].balloon;
		stall += w->guests[i].stall_sum_s;
		s->kills += w->guests[i].oom_kills;
	}
	s->stall = stall - r->stall_s;
	r->stall_s = stall;
	r->n_samples++;
}

static void sum_up(const struct world *w, struct result *r, double seconds)
{
	r->stall_s = 0;
	for (uint32_t i = 0; i < w->n; i++) {
		const struct guest *g = &w->guests[i];
		struct kind_result *k = &r->kind[g->kind];

		r->stalls[i] = g->stall_sum_s;
		r->stall_s += g->stall_sum_s;
		if (g->stall_sum_s > r->stall_max_s)
			r->stall_max_s = g->stall_sum_s;
		r->down_s += g->down_sum_s;
		r->kills += g->oom_kills;
		r->kills_unavoidable += g->kills_unavoidable;
		r->moved += g->moved / PAGE_BYTES;
		r->puffs += g->puffs;
		r->messages += g->messages_sent;
		k->guests++;
		k->stall_s += g->stall_sum_s;
		k->down_s += g->down_sum_s;
		k->kills += g->oom_kills;
	}
	r->n_stalls = w->n;
	r->targets = w->targets;
	r->available_mean /= seconds;
}

static double clock_s(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int world_run(const struct world_options *options, const struct policy *policy,
	      atomic_uint_fast64_t *progress, struct result *result)
{
	uint64_t seconds = (uint64_t)options->hours * 3600;
	double began = clock_s(CLOCK_MONOTONIC), cpu = clock_s(CLOCK_THREAD_CPUTIME_ID);
	struct world w;
	int ret = world_init(&w, options);

	*result = (struct result){.policy = policy, .sizes = w.sizes, .host_total = w.total};
	result->stalls = calloc(options->guests, sizeof(*result->stalls));
	result->samples = calloc(seconds / SAMPLE_S + 1, sizeof(*result->samples));
	w.policy = policy;
	if (ret == 0)
		w.state = policy->create(&w);
	if (!w.state || !result->stalls || !result->samples) {
		if (w.state)
			policy->destroy(w.state);
		world_free(&w);
		return -ENOMEM;
	}
	result->available_min = world_available(&w);
	take_sample(&w, result);
	while (w.now_s < seconds) {
		step(&w, result);
		if (w.now_s % SAMPLE_S == 0) {
			take_sample(&w, result);
			if (progress)
				atomic_store(progress, w.now_s);
		}
	}
	sum_up(&w, result, (double)seconds);
	if (policy->notes)
		policy->notes(w.state, result->notes, sizeof(result->notes));
	policy->destroy(w.state);
	world_free(&w);
	result->run_s = clock_s(CLOCK_MONOTONIC) - began;
	result->cpu_s = clock_s(CLOCK_THREAD_CPUTIME_ID) - cpu;
	return 0;
}

void result_free(struct result *r)
{
	free(r->stalls);
	free(r->samples);
	r->stalls = NULL;
	r->samples = NULL;
}
