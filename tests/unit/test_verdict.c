// SPDX-License-Identifier: MIT
/* The pressure verdict: a row for each line of the kernel commit's table, and for each edge of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/verdict.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIB           (1ULL << 20)

/* Growth of each counter in the given time, on a kernel with tags 10 to 15, or without. */
struct row {
	const char *name;
	uint64_t span_ms;
	uint64_t kills, stalls, direct, direct_got, async, async_got;
	uint64_t swap_in, swap_out, faults;
	uint64_t available; /* percent of a total of 1000 MiB; 0 for half of it */
	enum verdict verdict;
	enum verdict_reason reason;
	bool old; /* a kernel without the tags */
};

#define STALLS VERDICT_STALLS_HIGH
#define DIRECT VERDICT_DIRECT_HIGH
#define ASYNC  VERDICT_ASYNC_HIGH
#define SWAP   VERDICT_SWAP_HIGH
#define FAULTS VERDICT_FAULTS_HIGH

static const struct row rows[] = {
	{"nothing", 1000, .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"a kill", 1000, .kills = 1, .verdict = VERDICT_CRITICAL, .reason = VERDICT_BY_OOM_KILL},
	{"a kill is seen at once", 1, .kills = 1, .verdict = VERDICT_CRITICAL,
	 .reason = VERDICT_BY_OOM_KILL},
	{"a kill wins over thrashing", 1000, .kills = 1, .stalls = STALLS, .direct = DIRECT,
	 .verdict = VERDICT_CRITICAL, .reason = VERDICT_BY_OOM_KILL},
	{"stalls alone: a cgroup", 1000, .stalls = STALLS, .direct = DIRECT - 1,
	 .verdict = VERDICT_CGROUP, .reason = VERDICT_BY_STALL_ALONE},
	{"fewer stalls than that are nothing", 1000, .stalls = STALLS - 1, .direct = DIRECT,
	 .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"stalls, scanning, good ratio", 1000, .stalls = STALLS, .direct = 1000 * MIB,
	 .direct_got = 400 * MIB, .verdict = VERDICT_PRESSED, .reason = VERDICT_BY_STALL_SCAN},
	{"stalls, scanning, low ratio", 1000, .stalls = STALLS, .direct = 1000 * MIB,
	 .direct_got = 400 * MIB - 1, .verdict = VERDICT_THRASHING,
	 .reason = VERDICT_BY_STALL_RATIO},
	{"rates, not amounts", 10000, .stalls = 10 * STALLS - 1, .direct = 1000 * MIB,
	 .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"rates, not amounts: enough", 10000, .stalls = 10 * STALLS, .direct = 10 * DIRECT,
	 .verdict = VERDICT_THRASHING, .reason = VERDICT_BY_STALL_RATIO},
	{"background, low ratio", 1000, .async = ASYNC, .async_got = ASYNC / 3,
	 .verdict = VERDICT_STRUGGLING, .reason = VERDICT_BY_ASYNC_RATIO},
	{"background, good ratio", 1000, .async = ASYNC, .async_got = ASYNC / 2,
	 .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"background, not much", 1000, .async = ASYNC - 1, .verdict = VERDICT_FINE,
	 .reason = VERDICT_BY_QUIET},
	{"background, and a stall", 1000, .async = ASYNC, .stalls = 1, .verdict = VERDICT_FINE,
	 .reason = VERDICT_BY_QUIET},
	{"with tags, swapping is not looked at", 1000, .swap_in = 100 * SWAP, .available = 1,
	 .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"too close together", VERDICT_SPAN_MIN_MS - 1, .stalls = 1000, .direct = 1000 * MIB,
	 .verdict = VERDICT_UNKNOWN, .reason = VERDICT_BY_SPAN},
	{"just far enough", VERDICT_SPAN_MIN_MS, .stalls = 1000, .direct = 1000 * MIB,
	 .verdict = VERDICT_THRASHING, .reason = VERDICT_BY_STALL_RATIO},
	{"too far apart", VERDICT_SPAN_MAX_MS + 1, .kills = 1, .verdict = VERDICT_UNKNOWN,
	 .reason = VERDICT_BY_SPAN},
	{"huge counters", 1000, .stalls = 1ULL << 62, .direct = 1ULL << 63,
	 .direct_got = 1ULL << 63, .verdict = VERDICT_PRESSED, .reason = VERDICT_BY_STALL_SCAN},

	{"old: nothing", 1000, .old = true, .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"old: swaps in, and short", 1000, .swap_in = SWAP, .available = VERDICT_SHORT - 1,
	 .old = true, .verdict = VERDICT_THRASHING, .reason = VERDICT_BY_SWAP_IN},
	{"old: swaps in with plenty", 1000, .swap_in = SWAP, .available = VERDICT_SHORT,
	 .old = true, .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"old: swaps in slowly", 1000, .swap_in = SWAP - 1, .available = 5, .old = true,
	 .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"old: faults, and short", 1000, .faults = FAULTS, .available = 5, .old = true,
	 .verdict = VERDICT_PRESSED, .reason = VERDICT_BY_FAULTS},
	{"old: faults with plenty: a file is read", 1000, .faults = FAULTS, .available = 50,
	 .old = true, .verdict = VERDICT_FINE, .reason = VERDICT_BY_QUIET},
	{"old: swaps out, and short", 1000, .swap_out = SWAP, .available = 5, .old = true,
	 .verdict = VERDICT_STRUGGLING, .reason = VERDICT_BY_SWAP_OUT},
	{"old: very short", 1000, .available = VERDICT_VERY_SHORT - 1, .old = true,
	 .verdict = VERDICT_STRUGGLING, .reason = VERDICT_BY_AVAILABLE},
};

#define NEW_TAGS                                                                  \
	(1U << VIRTIO_BALLOON_S_OOM_KILL | 1U << VIRTIO_BALLOON_S_ALLOC_STALL |   \
	 1U << VIRTIO_BALLOON_S_SCAN_ASYNC | 1U << VIRTIO_BALLOON_S_SCAN_DIRECT | \
	 1U << VIRTIO_BALLOON_S_RECLAIM_ASYNC | 1U << VIRTIO_BALLOON_S_RECLAIM_DIRECT)

static void make(const struct row *r, struct guest_stats *older, struct guest_stats *newer)
{
	const uint64_t grew[VIRTIO_BALLOON_S_NR] = {
		[VIRTIO_BALLOON_S_SWAP_IN] = r->swap_in,
		[VIRTIO_BALLOON_S_SWAP_OUT] = r->swap_out,
		[VIRTIO_BALLOON_S_MAJFLT] = r->faults,
		[VIRTIO_BALLOON_S_OOM_KILL] = r->kills,
		[VIRTIO_BALLOON_S_ALLOC_STALL] = r->stalls,
		[VIRTIO_BALLOON_S_SCAN_ASYNC] = r->async,
		[VIRTIO_BALLOON_S_SCAN_DIRECT] = r->direct,
		[VIRTIO_BALLOON_S_RECLAIM_ASYNC] = r->async_got,
		[VIRTIO_BALLOON_S_RECLAIM_DIRECT] = r->direct_got,
	};

	*older = (struct guest_stats){.at_ms = 5000};
	for (unsigned int tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++)
		stats_put(older, tag, 77);
	if (r->old)
		older->known &= ~NEW_TAGS;
	*newer = *older;
	newer->at_ms += r->span_ms;
	for (unsigned int tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++)
		newer->value[tag] += grew[tag];
	newer->value[VIRTIO_BALLOON_S_MEMTOT] = 1000 * MIB;
	newer->value[VIRTIO_BALLOON_S_AVAIL] = (r->available ? r->available : 50) * 10 * MIB;
}

static void table(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];
		struct guest_stats older, newer;
		struct judgement j;

		make(r, &older, &newer);
		verdict_judge(&older, &newer, &j);
		if (j.verdict != r->verdict || j.reason != r->reason)
			fail_msg("%s: %s by %s", r->name, verdict_name(j.verdict),
				 verdict_reason_name(j.reason));
		assert_int_equal(j.numbers.span_ms, r->span_ms);
		if (j.verdict == VERDICT_UNKNOWN)
			continue;
		assert_int_equal(j.weak, r->old);
		assert_true(j.numbers.kills == r->kills && j.numbers.stalls == r->stalls);
		assert_true(j.numbers.scan_direct == r->direct);
		assert_true(j.numbers.reclaim_direct == r->direct_got);
		assert_true(j.numbers.scan_async == r->async);
		assert_true(j.numbers.swap_in == r->swap_in);
		assert_true(j.numbers.major_faults == r->faults);
		assert_true(j.numbers.total == 1000 * MIB);
	}
}

/* Any counter that goes back means another life of the guest. */
static void backwards(void **state)
{
	static const unsigned int counters[] = {
		VIRTIO_BALLOON_S_SWAP_IN,        VIRTIO_BALLOON_S_SWAP_OUT,
		VIRTIO_BALLOON_S_MAJFLT,         VIRTIO_BALLOON_S_OOM_KILL,
		VIRTIO_BALLOON_S_ALLOC_STALL,    VIRTIO_BALLOON_S_SCAN_ASYNC,
		VIRTIO_BALLOON_S_SCAN_DIRECT,    VIRTIO_BALLOON_S_RECLAIM_ASYNC,
		VIRTIO_BALLOON_S_RECLAIM_DIRECT,
	};
	const struct row row = {.span_ms = 1000, .kills = 1};
	struct guest_stats older, newer;
	struct judgement j;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		make(&row, &older, &newer);
		newer.value[counters[i]] = 76;
		verdict_judge(&older, &newer, &j);
		assert_int_equal(j.verdict, VERDICT_UNKNOWN);
		assert_int_equal(j.reason, VERDICT_BY_BACKWARDS);
	}
}

static void not_enough(void **state)
{
	const struct row row = {.span_ms = 1000, .kills = 1};
	struct guest_stats older, newer;
	struct judgement j;

	(void)state;
	make(&row, &older, &newer);
	verdict_judge(NULL, &newer, &j);
	assert_int_equal(j.verdict, VERDICT_UNKNOWN);
	assert_int_equal(j.reason, VERDICT_BY_NO_SAMPLES);
	/* The same time, and a time before. */
	newer.at_ms = older.at_ms;
	verdict_judge(&older, &newer, &j);
	assert_int_equal(j.reason, VERDICT_BY_SPAN);
	newer.at_ms--;
	verdict_judge(&older, &newer, &j);
	assert_int_equal(j.reason, VERDICT_BY_SPAN);
	/* No tag that could tell anything. */
	make(&row, &older, &newer);
	newer.known = 1U << VIRTIO_BALLOON_S_MEMTOT;
	verdict_judge(&older, &newer, &j);
	assert_int_equal(j.verdict, VERDICT_UNKNOWN);
	assert_int_equal(j.reason, VERDICT_BY_NO_TAGS);
	/* A tag that only one sample has is not compared. */
	make(&row, &older, &newer);
	older.known &= ~(1U << VIRTIO_BALLOON_S_OOM_KILL);
	verdict_judge(&older, &newer, &j);
	assert_int_equal(j.verdict, VERDICT_FINE);
}

/* Values that are unset are not known, nor are tags that are none. */
static void samples(void **state)
{
	struct guest_stats s = {.at_ms = 0};

	(void)state;
	stats_put(&s, VIRTIO_BALLOON_S_AVAIL, VIRTIO_BALLOON_S_UNSET);
	stats_put(&s, VIRTIO_BALLOON_S_NR, 1);
	stats_put(&s, UINT32_MAX, 1);
	assert_int_equal(s.known, 0);
	stats_put(&s, VIRTIO_BALLOON_S_AVAIL, 5);
	assert_true(stats_has(&s, VIRTIO_BALLOON_S_AVAIL));
	assert_int_equal(stats_get(&s, VIRTIO_BALLOON_S_AVAIL), 5);
	assert_int_equal(stats_get(&s, VIRTIO_BALLOON_S_MEMTOT), 0);
}

static void names(void **state)
{
	(void)state;
	for (int i = 0; i < VERDICT_COUNT; i++) {
		for (int k = 0; k < i; k++)
			assert_string_not_equal(verdict_name((enum verdict)i),
						verdict_name((enum verdict)k));
	}
	for (int i = 0; i < VERDICT_REASON_COUNT; i++) {
		assert_true(strlen(verdict_reason_text((enum verdict_reason)i)) > 5);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(verdict_reason_name((enum verdict_reason)i),
						verdict_reason_name((enum verdict_reason)k));
	}
	assert_string_equal(verdict_name(VERDICT_THRASHING), "thrashing");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),      cmocka_unit_test(backwards),
		cmocka_unit_test(not_enough), cmocka_unit_test(samples),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
