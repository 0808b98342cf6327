// SPDX-License-Identifier: MIT
/* Guest health: timelines of what happens and what is to be said about it, and random ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/health.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

enum event {
	END,     /* of a timeline: what its table does not fill */
	LOOK,    /* only time passes */
	NOBODY,  /* no driver */
	UNABLE,  /* a driver without statistics */
	STOP,    /* the VM stops */
	PULL,    /* it runs; nothing is asked, or what was asked is asked no more */
	ASKED,   /* ... and a request is under way */
	PUSH,    /* it runs and pushes every arg milliseconds */
	ARRIVAL, /* statistics */
	ANOTHER, /* another driver */
	EVENTS,
};

struct row {
	enum event event;
	uint64_t at, arg;
	enum health_state state;
	enum health_reason reason;
	uint64_t gap;
	uint64_t next; /* as health_next() */
};

#define NEVER UINT64_MAX

#define NO_DRIVER   HEALTH_UNKNOWN, HEALTH_NO_DRIVER
#define NO_STATS    HEALTH_UNKNOWN, HEALTH_NO_STATISTICS
#define NOT_ASKED   HEALTH_UNKNOWN, HEALTH_NOT_ASKED
#define AWAITED     HEALTH_UNKNOWN, HEALTH_AWAITED
#define PAUSED      HEALTH_PAUSED, HEALTH_STOPPED
#define WELL        HEALTH_HEALTHY, HEALTH_ON_TIME
#define SLOW_PUSH   HEALTH_SLOW, HEALTH_PUSH_LATE
#define SLOW_ANSWER HEALTH_SLOW, HEALTH_ANSWER_LATE
#define GONE_PUSH   HEALTH_UNRESPONSIVE, HEALTH_PUSH_LATE
#define GONE_ANSWER HEALTH_UNRESPONSIVE, HEALTH_ANSWER_LATE

struct timeline {
	const char *name;
	struct health_limits limits; /* all zero: the defaults */
	struct row rows[24];
};

static void apply(struct health *h, const struct row *row, struct instant now)
{
	switch (row->event) {
	case NOBODY:
		health_observe(h, HEALTH_SOURCE_NONE, 0, false, now);
		break;
	case UNABLE:
		health_observe(h, HEALTH_SOURCE_UNABLE, 0, false, now);
		break;
	case STOP:
		health_observe(h, HEALTH_SOURCE_STOPPED, 0, false, now);
		break;
	case PULL:
		health_observe(h, HEALTH_SOURCE_PULL, 0, false, now);
		break;
	case ASKED:
		health_observe(h, HEALTH_SOURCE_PULL, 0, true, now);
		break;
	case PUSH:
		health_observe(h, HEALTH_SOURCE_PUSH, (uint32_t)row->arg, false, now);
		break;
	case ARRIVAL:
		health_arrived(h, now, now);
		break;
	case ANOTHER:
		health_forget(h, now);
		break;
	case LOOK:
	case END:
	case EVENTS:
		break;
	}
}

/* The wall clock runs backwards: nothing may go by it. */
static struct instant at(uint64_t ms)
{
	return (struct instant){.mono_ms = ms, .wall_us = -(int64_t)(ms & 0xffffff)};
}

static void run(const struct timeline *t)
{
	static const struct health_limits unset;
	struct health h;
	bool defaults = memcmp(&t->limits, &unset, sizeof(unset)) == 0;
	uint64_t since = 1000, changes = 0;

	health_init(&h, defaults ? NULL : &t->limits, at(1000));
	assert_int_equal(h.state, HEALTH_UNKNOWN);
	assert_int_equal(h.reason, HEALTH_NO_DRIVER);
	for (const struct row *r = t->rows; r->event != END; r++) {
		enum health_state before = h.state;
		struct instant now = at(r->at);
		bool changed;

		apply(&h, r, now);
		changed = health_update(&h, now);
		if (h.state != r->state || h.reason != r->reason ||
		    health_gap_ms(&h, now) != r->gap || health_next(&h) != r->next)
			fail_msg("%s, row %d at %llu: %s, %s, gap %llu, next %lld", t->name,
				 (int)(r - t->rows), (unsigned long long)r->at,
				 health_state_name(h.state), health_reason_name(h.reason),
				 (unsigned long long)health_gap_ms(&h, now),
				 (long long)health_next(&h));
		assert_int_equal(changed, h.state != before);
		if (changed) {
			since = r->at;
			changes++;
		}
		assert_int_equal(h.since.mono_ms, since);
		assert_int_equal(h.changes, changes);
		/* Asking again at once finds nothing new. */
		assert_false(health_update(&h, now));
	}
}

static const struct timeline pushing[] = {
	{.name = "the edges: up to 1.5 intervals, over 3",
	 .rows = {{PUSH, 2000, 1000, AWAITED, 0, 3501},
		  {ARRIVAL, 2010, 0, WELL, 0, 3511},
		  {ARRIVAL, 3010, 0, WELL, 0, 4511},
		  {LOOK, 4510, 0, WELL, 1500, 4511},
		  {LOOK, 4511, 0, SLOW_PUSH, 1501, 6011},
		  {LOOK, 6010, 0, SLOW_PUSH, 3000, 6011},
		  {LOOK, 6011, 0, GONE_PUSH, 3001, NEVER},
		  {LOOK, 99999, 0, GONE_PUSH, 96989, NEVER},
		  {ARRIVAL, 100000, 0, WELL, 0, 101501}}},
	{.name = "unresponsive takes a second, whatever the interval",
	 .rows = {{PUSH, 2000, 10, AWAITED, 0, 2016},
		  {ARRIVAL, 2001, 0, WELL, 0, 2017},
		  {LOOK, 2016, 0, WELL, 15, 2017},
		  {LOOK, 2017, 0, SLOW_PUSH, 16, 3001},
		  {LOOK, 2032, 0, SLOW_PUSH, 31, 3001},
		  {LOOK, 3000, 0, SLOW_PUSH, 999, 3001},
		  {LOOK, 3001, 0, GONE_PUSH, 1000, NEVER}}},
	{.name = "never heard of at all: late by the same rules",
	 .rows = {{PUSH, 2000, 1000, AWAITED, 0, 3501},
		  {LOOK, 3501, 0, SLOW_PUSH, 1501, 5001},
		  {LOOK, 5001, 0, GONE_PUSH, 3001, NEVER}}},
	{.name = "stopped time does not count, and the wait begins anew",
	 .rows = {{PUSH, 2000, 1000, AWAITED, 0, 3501},
		  {ARRIVAL, 3000, 0, WELL, 0, 4501},
		  {STOP, 4400, 0, PAUSED, 1400, NEVER},
		  {LOOK, 900000, 0, PAUSED, 1400, NEVER},
		  {PUSH, 900500, 1000, WELL, 0, 902001},
		  {LOOK, 902000, 0, WELL, 1500, 902001},
		  {LOOK, 902001, 0, SLOW_PUSH, 1501, 903501},
		  {STOP, 903400, 0, PAUSED, 2900, NEVER},
		  {PUSH, 910000, 1000, SLOW_PUSH, 0, 913001},
		  {LOOK, 913000, 0, SLOW_PUSH, 3000, 913001},
		  {LOOK, 913001, 0, GONE_PUSH, 3001, NEVER},
		  {STOP, 914000, 0, PAUSED, 4000, NEVER},
		  {PUSH, 915000, 1000, GONE_PUSH, 0, NEVER},
		  {ARRIVAL, 915001, 0, WELL, 0, 916502}}},
	{.name = "statistics that come while it is stopped",
	 .rows = {{PUSH, 2000, 1000, AWAITED, 0, 3501},
		  {LOOK, 5001, 0, AWAITED, 0, 6502}, /* nobody looked for that long */
		  {LOOK, 6502, 0, SLOW_PUSH, 1501, 8002},
		  {STOP, 6600, 0, PAUSED, 1599, NEVER},
		  {ARRIVAL, 6601, 0, PAUSED, 0, NEVER},
		  {PUSH, 9000, 1000, WELL, 0, 10501}}},
	{.name = "another interval makes nobody late",
	 .rows = {{PUSH, 2000, 60000, AWAITED, 0, 92001},
		  {ARRIVAL, 3000, 0, WELL, 0, 93001},
		  {PUSH, 50000, 10, WELL, 0, 50016},
		  {ARRIVAL, 50011, 0, WELL, 0, 50027},
		  {PUSH, 50020, 10, WELL, 9, 50027}, /* the same once more: no change */
		  {PUSH, 50025, 1000, WELL, 0, 51526},
		  {LOOK, 51526, 0, SLOW_PUSH, 1501, 53026},
		  {PUSH, 51600, 100000, SLOW_PUSH, 0, 351601}, /* slow until it is heard of */
		  {ARRIVAL, 51700, 0, WELL, 0, 201701}}},
	{.name = "pushed, then pulled, then pushed",
	 .rows = {{PUSH, 2000, 100, AWAITED, 0, 2151},
		  {ARRIVAL, 2010, 0, WELL, 0, 2161},
		  {PULL, 2100, 0, WELL, 0, NEVER},
		  {LOOK, 900000, 0, WELL, 0, NEVER},
		  {PUSH, 900000, 100, WELL, 0, 900151},
		  {LOOK, 900151, 0, SLOW_PUSH, 151, 901000},
		  {PULL, 900200, 0, SLOW_PUSH, 0, NEVER},
		  {ASKED, 950000, 0, SLOW_PUSH, 0, 953001},
		  {LOOK, 952999, 0, SLOW_ANSWER, 2999, 953001},
		  {LOOK, 953001, 0, GONE_ANSWER, 3001, NEVER},
		  {PUSH, 953100, 100, GONE_ANSWER, 0, NEVER},
		  {ARRIVAL, 953200, 0, WELL, 0, 953351}}},
	{.name = "other limits",
	 .limits = {.slow_milli = 2000, .unresponsive_milli = 2500, .unresponsive_min_ms = 0},
	 .rows = {{PUSH, 2000, 15, AWAITED, 0, 2031},
		  {LOOK, 2031, 0, SLOW_PUSH, 31, 2038}, /* 37.5 is the edge */
		  {LOOK, 2037, 0, SLOW_PUSH, 37, 2038},
		  {LOOK, 2038, 0, GONE_PUSH, 38, NEVER}}},
};

static const struct timeline pulling[] = {
	{.name = "requests that are not answered",
	 .rows = {{PULL, 2000, 0, NOT_ASKED, 0, NEVER},
		  {LOOK, 800000, 0, NOT_ASKED, 0, NEVER},
		  {ASKED, 800000, 0, AWAITED, 0, 801501},
		  {ARRIVAL, 800300, 0, WELL, 0, NEVER},
		  {PULL, 800300, 0, WELL, 0, NEVER},
		  {LOOK, 900000, 0, WELL, 0, NEVER},
		  {ASKED, 900000, 0, WELL, 0, 901501},
		  {ASKED, 901000, 0, WELL, 1000, 901501}, /* the same request still */
		  {LOOK, 901500, 0, WELL, 1500, 901501},
		  {LOOK, 901501, 0, SLOW_ANSWER, 1501, 903001},
		  {LOOK, 903001, 0, GONE_ANSWER, 3001, NEVER},
		  {ARRIVAL, 903002, 0, WELL, 0, NEVER}}},
	{.name = "a new request at once after the answer",
	 .rows = {{ASKED, 2000, 0, AWAITED, 0, 3501},
		  {ARRIVAL, 3000, 0, WELL, 0, NEVER},
		  {ASKED, 3000, 0, WELL, 0, 4501},
		  {LOOK, 4501, 0, SLOW_ANSWER, 1501, 6001}}},
	{.name = "a request that nobody wants any more",
	 .rows = {{ASKED, 2000, 0, AWAITED, 0, 3501},
		  {PULL, 3000, 0, NOT_ASKED, 0, NEVER},
		  {ASKED, 4000, 0, AWAITED, 0, 5501},
		  {LOOK, 5501, 0, SLOW_ANSWER, 1501, 7001},
		  {PULL, 6000, 0, SLOW_ANSWER, 0, NEVER},
		  {LOOK, 90000, 0, SLOW_ANSWER, 0, NEVER}}},
	{.name = "stopped while a request is under way",
	 .rows = {{ASKED, 2000, 0, AWAITED, 0, 3501},
		  {STOP, 3500, 0, PAUSED, 1500, NEVER},
		  {LOOK, 80000, 0, PAUSED, 1500, NEVER},
		  {ASKED, 80000, 0, AWAITED, 0, 81501},
		  {LOOK, 81501, 0, SLOW_ANSWER, 1501, 83001}}},
};

static const struct timeline drivers[] = {
	{.name = "drivers come and go",
	 .rows = {{UNABLE, 2000, 0, NO_STATS, 0, NEVER},
		  {PUSH, 3000, 100, AWAITED, 0, 3151},
		  {LOOK, 3151, 0, SLOW_PUSH, 151, 4000},
		  {LOOK, 4000, 0, GONE_PUSH, 1000, NEVER},
		  {NOBODY, 5000, 0, NO_DRIVER, 0, NEVER},
		  {PUSH, 6000, 100, AWAITED, 0, 6151}, /* what was known is forgotten */
		  {ARRIVAL, 6100, 0, WELL, 0, 6251},
		  {UNABLE, 6200, 0, NO_STATS, 0, NEVER},
		  {PULL, 6300, 0, NOT_ASKED, 0, NEVER}}},
	{.name = "another driver, without a pause between them",
	 .rows = {{PUSH, 2000, 100, AWAITED, 0, 2151},
		  {LOOK, 2151, 0, SLOW_PUSH, 151, 3000},
		  {ANOTHER, 2200, 0, AWAITED, 0, 2351},
		  {ARRIVAL, 2300, 0, WELL, 0, 2451},
		  {ANOTHER, 2310, 0, AWAITED, 0, 2461}}},
	{.name = "another driver after a stop",
	 .rows = {{ASKED, 2000, 0, AWAITED, 0, 3501},
		  {LOOK, 3501, 0, SLOW_ANSWER, 1501, 5001},
		  {STOP, 3600, 0, PAUSED, 1600, NEVER},
		  {ANOTHER, 3700, 0, PAUSED, 0, NEVER},
		  {PULL, 3800, 0, NOT_ASKED, 0, NEVER}}},
	{.name = "stopped before there was a driver",
	 .rows = {{STOP, 2000, 0, PAUSED, 0, NEVER}, {PUSH, 90000, 100, AWAITED, 0, 90151}}},
};

static const struct timeline clocks[] = {
	{.name = "this process stood still: what it did not see does not count",
	 .rows = {{PUSH, 2000, 1000, AWAITED, 0, 3501},
		  {ARRIVAL, 3000, 0, WELL, 0, 4501},
		  {LOOK, 4000, 0, WELL, 1000, 4501},
		  {LOOK, 4602, 0, WELL, 0, 6103},         /* 101 ms after it should have looked */
		  {LOOK, 6203, 0, SLOW_PUSH, 1601, 7603}, /* 100 ms */
		  {LOOK, 999999, 0, SLOW_PUSH, 0, 1003000},
		  {LOOK, 1003000, 0, GONE_PUSH, 3001, NEVER},
		  {LOOK, 9999999, 0, GONE_PUSH, 9000000, NEVER} /* nothing was to be looked at */}},
	{.name = "a clock that goes backwards",
	 .rows = {{PUSH, 50000, 1000, AWAITED, 0, 51501},
		  {ARRIVAL, 51000, 0, WELL, 0, 52501},
		  {LOOK, 52000, 0, WELL, 1000, 52501},
		  {LOOK, 10, 0, WELL, 1000, 511},
		  {LOOK, 510, 0, WELL, 1500, 511},
		  {LOOK, 511, 0, SLOW_PUSH, 1501, 2011},
		  {ARRIVAL, 0, 0, WELL, 0, 1501}}},
	{.name = "a clock at its end",
	 .rows = {{PUSH, NEVER - 2000, 1000, AWAITED, 0, NEVER - 499},
		  {LOOK, NEVER - 499, 0, SLOW_PUSH, 1501, NEVER},
		  {LOOK, NEVER, 0, SLOW_PUSH, 2000, NEVER},
		  {LOOK, 0, 0, SLOW_PUSH, 2000, 1001},
		  {LOOK, 1001, 0, GONE_PUSH, 3001, NEVER}}},
	{.name = "the longest interval there is",
	 .rows = {{PUSH, 2000, UINT32_MAX, AWAITED, 0, 2001 + 4294967295ULL * 3 / 2},
		  {LOOK, 2001 + 4294967295ULL * 3 / 2, 0, SLOW_PUSH, 1 + 4294967295ULL * 3 / 2,
		   2001 + 4294967295ULL * 3}}},
	{.name = "an interval that is none",
	 .rows = {{PUSH, 2000, 0, AWAITED, 0, 2002}, {LOOK, 2002, 0, SLOW_PUSH, 2, 3000}}},
};

static void run_all(const struct timeline *t, size_t n)
{
	for (size_t i = 0; i < n; i++)
		run(&t[i]);
}

static void timelines(void **state)
{
	(void)state;
	run_all(pushing, ARRAY_SIZE(pushing));
	run_all(pulling, ARRAY_SIZE(pulling));
	run_all(drivers, ARRAY_SIZE(drivers));
	run_all(clocks, ARRAY_SIZE(clocks));
}

static void limits(void **state)
{
	static const struct {
		struct health_limits in;
		uint32_t slow, unresponsive;
	} cases[] = {
		{{0, 0, 0}, 1000, 1000},
		{{999, 3000, 0}, 1000, 3000},
		{{3000, 1500, 0}, 3000, 3000},
		{{UINT32_MAX, 1, 0}, HEALTH_MILLI_MAX, HEALTH_MILLI_MAX},
		{{1000, UINT32_MAX, 0}, 1000, HEALTH_MILLI_MAX},
	};
	struct health h;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		health_init(&h, &cases[i].in, at(0));
		assert_int_equal(h.limits.slow_milli, cases[i].slow);
		assert_int_equal(h.limits.unresponsive_milli, cases[i].unresponsive);
	}
}

static void silence(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, NULL, at(1000));
	health_observe(&h, HEALTH_SOURCE_PULL, 0, false, at(1000));
	assert_true(health_silence_ms(&h, at(9000)) == UINT64_MAX);
	health_arrived(&h, at(9000), at(9000));
	assert_int_equal(health_silence_ms(&h, at(9250)), 250);
	/* Another interval does not change what was, nor do times when the VM stood still. */
	health_observe(&h, HEALTH_SOURCE_PUSH, 50, false, at(9500));
	assert_int_equal(health_gap_ms(&h, at(9540)), 40);
	assert_int_equal(health_silence_ms(&h, at(9540)), 540);
	health_observe(&h, HEALTH_SOURCE_STOPPED, 0, false, at(9600));
	assert_int_equal(health_silence_ms(&h, at(99999)), 600);
	health_observe(&h, HEALTH_SOURCE_PULL, 0, false, at(100000));
	assert_int_equal(health_silence_ms(&h, at(100001)), 601);
}

/* An arrival is told once and again, late, and before it has come. */
static void told_again(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, NULL, at(1000));
	health_observe(&h, HEALTH_SOURCE_PUSH, 100, false, at(1000));
	health_arrived(&h, at(5000), at(1050));
	assert_false(health_update(&h, at(1050)));
	health_arrived(&h, at(1060), at(1070));
	assert_true(health_update(&h, at(1070)));
	assert_int_equal(health_next(&h), 1221);
	health_arrived(&h, at(1060), at(1221));
	assert_true(health_update(&h, at(1221)));
	assert_int_equal(h.state, HEALTH_SLOW);
	health_arrived(&h, at(1221), at(1221));
	assert_true(health_update(&h, at(1221)));
	assert_int_equal(h.state, HEALTH_HEALTHY);
	/* Of another driver, it is news. */
	health_forget(&h, at(1222));
	health_arrived(&h, at(1221), at(1223));
	assert_false(health_update(&h, at(1223)));
	assert_int_equal(h.state, HEALTH_HEALTHY);
}

static void names(void **state)
{
	(void)state;
	for (int i = 0; i < HEALTH_STATE_COUNT; i++) {
		for (int j = 0; j < i; j++)
			assert_string_not_equal(health_state_name((enum health_state)i),
						health_state_name((enum health_state)j));
	}
	for (int i = 0; i < HEALTH_REASON_COUNT; i++) {
		assert_true(strlen(health_reason_text((enum health_reason)i)) > 5);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(health_reason_name((enum health_reason)i),
						health_reason_name((enum health_reason)j));
	}
	assert_string_equal(health_state_name(HEALTH_UNRESPONSIVE), "unresponsive");
	assert_string_equal(health_reason_name(HEALTH_ANSWER_LATE), "answer-late");
}

/*
 * A guest that is always on time, seen through pauses, other intervals, pulls and frozen processes
 * at random moments, is never late.
 */
static void never_falsely_late(void **state)
{
	static const uint32_t intervals[] = {10, 100, 1000, 60000};
	struct health h;
	uint64_t now = 5000, due = 0;
	uint32_t interval = 0; /* 0: pull */

	(void)state;
	srandom(3);
	health_init(&h, NULL, at(now));
	for (int i = 0; i < 200000; i++) {
		uint32_t unit = interval ? interval : HEALTH_ANSWER_MS;

		switch (random() % 8) {
		case 0: /* a pause, that the guest's timer may or may not have noticed */
			health_observe(&h, HEALTH_SOURCE_STOPPED, 0, false, at(now));
			(void)health_update(&h, at(now));
			now += (uint64_t)random() % 100000;
			due = now + (uint64_t)random() % unit;
			break;
		case 1: /* other terms */
			interval = random() % 5 ? intervals[random() % 4] : 0;
			due = now + (interval ? interval : HEALTH_ANSWER_MS);
			break;
		case 2: /* all stood still */
			now += due - now + (uint64_t)random() % 100000 + 4ULL * unit + 1000;
			due = now + (uint64_t)random() % unit;
			break;
		default: /* the guest sends, up to half an interval late */
			now = due + (uint64_t)random() % (unit / 2 + 1);
			health_observe(&h, interval ? HEALTH_SOURCE_PUSH : HEALTH_SOURCE_PULL,
				       interval, true, at(now));
			health_arrived(&h, at(now), at(now));
			due = now + unit;
			break;
		}
		health_observe(&h, interval ? HEALTH_SOURCE_PUSH : HEALTH_SOURCE_PULL, interval,
			       true, at(now));
		(void)health_update(&h, at(now));
		assert_true(h.state == HEALTH_HEALTHY || h.state == HEALTH_UNKNOWN);
		if (due < now)
			due = now;
	}
}

/* Looking only when health_next() says so finds what looking all the time does, and when. */
static void next_is_enough(void **state)
{
	struct health lazy, eager;
	uint64_t now = 100;

	(void)state;
	srandom(4);
	health_init(&lazy, NULL, at(now));
	health_init(&eager, NULL, at(now));
	for (int i = 0; i < 3000; i++) {
		struct row row = {.event = (enum event)(random() % EVENTS),
				  .arg = (uint64_t)random() % 300 + 10};
		uint64_t until;

		apply(&lazy, &row, at(now));
		apply(&eager, &row, at(now));
		(void)health_update(&lazy, at(now));
		(void)health_update(&eager, at(now));
		until = now + (uint64_t)random() % 1500;
		for (; now < until; now++) {
			(void)health_update(&eager, at(now));
			if (now >= health_next(&lazy))
				assert_true(health_update(&lazy, at(now)));
			assert_int_equal(lazy.state, eager.state);
			assert_int_equal(lazy.since.mono_ms, eager.since.mono_ms);
			assert_int_equal(health_gap_ms(&lazy, at(now)),
					 health_gap_ms(&eager, at(now)));
		}
	}
	assert_true(lazy.changes > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timelines),      cmocka_unit_test(limits),
		cmocka_unit_test(silence),        cmocka_unit_test(told_again),
		cmocka_unit_test(names),          cmocka_unit_test(never_falsely_late),
		cmocka_unit_test(next_is_enough),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
