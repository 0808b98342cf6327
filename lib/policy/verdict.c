// SPDX-License-Identifier: MIT
/*
 * The rules are a table, asked from above: the first that holds is the verdict. Each rule looks at
 * rates that were worked out once. Which tags a rule needs stands beside it, so a kernel that lacks
 * some is judged by those rules that it can be judged by.
 */
#include "policy/verdict.h"

#include <assert.h>
#include <stddef.h>

#define TAG(name) (1U << VIRTIO_BALLOON_S_##name)

/* What the rules look at. */
struct view {
	const struct verdict_numbers *n;
	uint32_t known; /* tags that both samples have */
	bool stall_high, stall_any;
	bool direct_high, direct_low_ratio;
	bool async_high, async_low_ratio;
	bool is_short, very_short;
};

/* At least `rate` a second? */
static bool at_rate(uint64_t amount, uint64_t span_ms, uint64_t rate)
{
	return amount >= (rate * span_ms + 999) / 1000;
}

/* Is part less than percent of whole? */
static bool below(uint64_t part, uint64_t whole, uint64_t percent)
{
	return part < whole / 100 * percent + (whole % 100 * percent + 99) / 100;
}

static bool is_killing(const struct view *v)
{
	return v->n->kills > 0;
}

static bool is_thrashing(const struct view *v)
{
	return v->stall_high && v->direct_high && v->direct_low_ratio;
}

static bool is_pressed(const struct view *v)
{
	return v->stall_high && v->direct_high;
}

static bool is_cgroup(const struct view *v)
{
	return v->stall_high;
}

static bool is_struggling(const struct view *v)
{
	return !v->stall_any && v->async_high && v->async_low_ratio;
}

static bool is_swapping_in(const struct view *v)
{
	return v->is_short && at_rate(v->n->swap_in, v->n->span_ms, VERDICT_SWAP_HIGH);
}

static bool is_faulting(const struct view *v)
{
	return v->is_short && at_rate(v->n->major_faults, v->n->span_ms, VERDICT_FAULTS_HIGH);
}

static bool is_swapping_out(const struct view *v)
{
	return v->is_short && at_rate(v->n->swap_out, v->n->span_ms, VERDICT_SWAP_HIGH);
}

static bool is_very_short(const struct view *v)
{
	return v->very_short;
}

#define STALL_TAGS (TAG(ALLOC_STALL) | TAG(SCAN_DIRECT))

static const struct rule {
	uint32_t needs; /* tags, all of them */
	bool weak;      /* only where the tags of the rules above are missing */
	bool (*holds)(const struct view *v);
	enum verdict verdict;
	enum verdict_reason reason;
} rules[] = {
	{TAG(OOM_KILL), false, is_killing, VERDICT_CRITICAL, VERDICT_BY_OOM_KILL},
	{STALL_TAGS | TAG(RECLAIM_DIRECT), false, is_thrashing, VERDICT_THRASHING,
	 VERDICT_BY_STALL_RATIO},
	{STALL_TAGS | TAG(RECLAIM_DIRECT), false, is_pressed, VERDICT_PRESSED,
	 VERDICT_BY_STALL_SCAN},
	{STALL_TAGS, false, is_cgroup, VERDICT_CGROUP, VERDICT_BY_STALL_ALONE},
	{STALL_TAGS | TAG(SCAN_ASYNC) | TAG(RECLAIM_ASYNC), false, is_struggling,
	 VERDICT_STRUGGLING, VERDICT_BY_ASYNC_RATIO},
	{TAG(SWAP_IN) | TAG(AVAIL), true, is_swapping_in, VERDICT_THRASHING, VERDICT_BY_SWAP_IN},
	{TAG(MAJFLT) | TAG(AVAIL), true, is_faulting, VERDICT_PRESSED, VERDICT_BY_FAULTS},
	{TAG(SWAP_OUT) | TAG(AVAIL), true, is_swapping_out, VERDICT_STRUGGLING,
	 VERDICT_BY_SWAP_OUT},
	{TAG(AVAIL) | TAG(MEMTOT), true, is_very_short, VERDICT_STRUGGLING, VERDICT_BY_AVAILABLE},
};

/* With these the strong rules can tell; without, the weak ones have to. */
#define STRONG_TAGS (STALL_TAGS | TAG(RECLAIM_DIRECT))
#define WEAK_TAGS   (TAG(SWAP_IN) | TAG(SWAP_OUT) | TAG(MAJFLT) | TAG(AVAIL))

/* All that only ever grow. */
static const struct {
	unsigned int tag;
	size_t offset; /* in struct verdict_numbers */
} counters[] = {
	{VIRTIO_BALLOON_S_OOM_KILL, offsetof(struct verdict_numbers, kills)},
	{VIRTIO_BALLOON_S_ALLOC_STALL, offsetof(struct verdict_numbers, stalls)},
	{VIRTIO_BALLOON_S_SCAN_DIRECT, offsetof(struct verdict_numbers, scan_direct)},
	{VIRTIO_BALLOON_S_RECLAIM_DIRECT, offsetof(struct verdict_numbers, reclaim_direct)},
	{VIRTIO_BALLOON_S_SCAN_ASYNC, offsetof(struct verdict_numbers, scan_async)},
	{VIRTIO_BALLOON_S_RECLAIM_ASYNC, offsetof(struct verdict_numbers, reclaim_async)},
	{VIRTIO_BALLOON_S_SWAP_IN, offsetof(struct verdict_numbers, swap_in)},
	{VIRTIO_BALLOON_S_SWAP_OUT, offsetof(struct verdict_numbers, swap_out)},
	{VIRTIO_BALLOON_S_MAJFLT, offsetof(struct verdict_numbers, major_faults)},
};

static const struct {
	const char *name, *text;
} reasons[] = {
	[VERDICT_BY_NO_SAMPLES] = {"no-samples", "there are no two samples to compare"},
	[VERDICT_BY_SPAN] = {"span", "the samples are too close together or too far apart"},
	[VERDICT_BY_BACKWARDS] = {"backwards", "a counter went back, so the guest was restarted"},
	[VERDICT_BY_NO_TAGS] = {"no-tags", "it sends nothing that could tell"},
	[VERDICT_BY_QUIET] = {"quiet", "nothing waits for memory"},
	[VERDICT_BY_OOM_KILL] = {"oom-kill", "its kernel killed a process for want of memory"},
	[VERDICT_BY_STALL_ALONE] = {"stall-alone",
				    "allocations stall without global reclaim: a cgroup's limit"},
	[VERDICT_BY_STALL_SCAN] = {"stall-scan",
				   "allocations stall for want of memory, and reclaim finds some"},
	[VERDICT_BY_STALL_RATIO] =
		{"stall-ratio", "allocations stall for want of memory, and reclaim finds little"},
	[VERDICT_BY_ASYNC_RATIO] = {"async-ratio",
				    "background reclaim scans much and finds little"},
	[VERDICT_BY_SWAP_IN] = {"swap-in", "it swaps in while little is available"},
	[VERDICT_BY_FAULTS] = {"major-faults", "it reads pages back while little is available"},
	[VERDICT_BY_SWAP_OUT] = {"swap-out", "it swaps out while little is available"},
	[VERDICT_BY_AVAILABLE] = {"available", "hardly anything is available"},
};
static_assert(sizeof(reasons) / sizeof(reasons[0]) == VERDICT_REASON_COUNT,
	      "a name for each reason");

static const char *const names[] = {
	[VERDICT_UNKNOWN] = "unknown",   [VERDICT_FINE] = "fine",
	[VERDICT_CGROUP] = "cgroup",     [VERDICT_STRUGGLING] = "struggling",
	[VERDICT_PRESSED] = "pressed",   [VERDICT_THRASHING] = "thrashing",
	[VERDICT_CRITICAL] = "critical",
};
static_assert(sizeof(names) / sizeof(names[0]) == VERDICT_COUNT, "a name for each verdict");

static void conclude(struct judgement *out, enum verdict verdict, enum verdict_reason reason)
{
	out->verdict = verdict;
	out->reason = reason;
}

/* What grew between the samples. False if something shrank. */
static bool count(const struct guest_stats *older, const struct guest_stats *newer, uint32_t known,
		  struct verdict_numbers *n)
{
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		unsigned int tag = counters[i].tag;
		uint64_t *number = (uint64_t *)(void *)((char *)n + counters[i].offset);

		if (!(known >> tag & 1))
			continue;
		if (newer->value[tag] < older->value[tag])
			return false;
		*number = newer->value[tag] - older->value[tag];
	}
	n->available = stats_get(newer, VIRTIO_BALLOON_S_AVAIL);
	n->total = stats_get(newer, VIRTIO_BALLOON_S_MEMTOT);
	return true;
}

static struct view look(const struct verdict_numbers *n, uint32_t known)
{
	/* Without MEMTOT nobody can say what is short; swap and faults then have to do. */
	bool total = known & TAG(MEMTOT);

	return (struct view){
		.n = n,
		.known = known,
		.stall_any = n->stalls > 0,
		.stall_high = n->stalls && at_rate(n->stalls, n->span_ms, VERDICT_STALLS_HIGH),
		.direct_high = at_rate(n->scan_direct, n->span_ms, VERDICT_DIRECT_HIGH),
		.direct_low_ratio = below(n->reclaim_direct, n->scan_direct, VERDICT_RATIO_LOW),
		.async_high = at_rate(n->scan_async, n->span_ms, VERDICT_ASYNC_HIGH),
		.async_low_ratio = below(n->reclaim_async, n->scan_async, VERDICT_RATIO_LOW),
		.is_short = !total || below(n->available, n->total, VERDICT_SHORT),
		.very_short = total && below(n->available, n->total, VERDICT_VERY_SHORT),
	};
}

static void apply_rules(const struct view *v, struct judgement *out)
{
	bool strong = (v->known & STRONG_TAGS) == STRONG_TAGS;

	out->weak = !strong;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *r = &rules[i];

		if ((v->known & r->needs) != r->needs || (r->weak && strong) || !r->holds(v))
			continue;
		/* A kill is a kill, whatever else the kernel counts. */
		if (r->verdict == VERDICT_CRITICAL)
			out->weak = false;
		conclude(out, r->verdict, r->reason);
		return;
	}
	if (strong || v->known & WEAK_TAGS)
		conclude(out, VERDICT_FINE, VERDICT_BY_QUIET);
	else
		conclude(out, VERDICT_UNKNOWN, VERDICT_BY_NO_TAGS);
}

void verdict_judge(const struct guest_stats *older, const struct guest_stats *newer,
		   struct judgement *out)
{
	uint32_t known;
	struct view v;

	*out = (struct judgement){.verdict = VERDICT_UNKNOWN, .reason = VERDICT_BY_NO_SAMPLES};
	if (!older || !newer)
		return;
	known = older->known & newer->known;
	if (newer->at_ms <= older->at_ms) {
		out->reason = VERDICT_BY_SPAN;
		return;
	}
	out->numbers.span_ms = newer->at_ms - older->at_ms;
	if (!count(older, newer, known, &out->numbers)) {
		out->numbers = (struct verdict_numbers){.span_ms = out->numbers.span_ms};
		out->reason = VERDICT_BY_BACKWARDS;
		return;
	}
	if (out->numbers.span_ms > VERDICT_SPAN_MAX_MS) {
		out->reason = VERDICT_BY_SPAN;
		return;
	}
	v = look(&out->numbers, known);
	if (out->numbers.span_ms < VERDICT_SPAN_MIN_MS && !is_killing(&v)) {
		out->reason = VERDICT_BY_SPAN;
		return;
	}
	apply_rules(&v, out);
}

const char *verdict_name(enum verdict verdict)
{
	return names[verdict];
}

const char *verdict_reason_name(enum verdict_reason reason)
{
	return reasons[reason].name;
}

const char *verdict_reason_text(enum verdict_reason reason)
{
	return reasons[reason].text;
}
