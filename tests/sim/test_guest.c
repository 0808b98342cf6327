// SPDX-License-Identifier: MIT
/* The simulated guest: nothing is lost, and it suffers when and only when it should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "guest.h"

/* What the host does when a guest tells of pressure. */
struct host {
	uint32_t messages[VIRTIO_BALLOON_PRESSURE_NR];
	uint32_t relieved;
	bool releases;
};

static void on_pressure(void *opaque, struct guest *g, uint32_t level)
{
	struct host *host = opaque;

	host->messages[level]++;
	if (host->releases && level >= VIRTIO_BALLOON_PRESSURE_MEDIUM)
		g->target = 0;
}

static void on_relieved(void *opaque, struct guest *g)
{
	struct host *host = opaque;

	(void)g;
	host->relieved++;
}

static struct guest new_guest(double balloon, double wanted)
{
	struct guest g = {.size = 4 * GIB,
			  .kernel = 160 * MIB,
			  .hot = 200 * MIB,
			  .io = 2 * MIB,
			  .idle = 0.2,
			  .scan_tags = true};

	guest_start(&g, balloon, wanted);
	return g;
}

static void run(struct guest *g, double wanted, uint32_t seconds, struct host *host)
{
	const struct guest_ops ops = {on_pressure, on_relieved, host};

	for (uint32_t i = 0; i < seconds; i++)
		guest_step(g, wanted, 0, &ops);
}

static void check(const struct guest *g)
{
	const double slack = 1; /* of a byte: these are no integers */
	double used = g->kernel + g->anon + g->cache;

	assert_true(g->balloon >= 0 && g->balloon <= g->size);
	assert_true(g->anon >= -slack && g->cache >= -slack && g->swapped >= -slack);
	assert_true(g->swapped <= g->swap_size + slack);
	assert_true(used <= g->size - g->balloon + slack);
	assert_true(g->touched >= used - slack && g->touched <= g->size - g->balloon + slack);
	assert_true(g->stall >= 0 && g->stall <= 1);
}

/* Whatever programs and the host want, the parts of its memory fit into it. */
static void nothing_is_lost(void **state)
{
	struct rng r = rng_stream(7, 7);
	struct host host = {.releases = false};
	const struct guest_ops ops = {on_pressure, on_relieved, &host};

	(void)state;
	for (uint32_t round = 0; round < 50; round++) {
		struct guest g = new_guest(rng_between(&r, 0, 3 * GIB), GIB / 4);
		double wanted = GIB / 4;

		g.swap_size = round % 2 ? GIB : 0;
		g.messages = round % 3 == 0;
		host.releases = round % 5 == 0;
		for (uint32_t second = 0; second < 500; second++) {
			double before = g.balloon;

			if (rng_between(&r, 0, 1) < 0.05)
				wanted = rng_between(&r, 0, 4.5 * GIB);
			if (rng_between(&r, 0, 1) < 0.05)
				g.target = rng_between(&r, 0, g.size);
			g.hung = rng_between(&r, 0, 1) < 0.02;
			guest_step(&g, wanted, rng_between(&r, 0, 0.1), &ops);
			check(&g);
			assert_true(g.balloon - before <= INFLATE_RATE);
		}
	}
}

static void with_enough_it_never_waits(void **state)
{
	struct host host = {.releases = false};
	struct guest g = new_guest(0, GIB);

	(void)state;
	run(&g, GIB, 10, &host);
	run(&g, 3 * GIB, 600, &host);
	run(&g, GIB, 600, &host);
	run(&g, 3 * GIB, 600, &host);
	/* The second time caches had to go: that is fast, but it is not for nothing. */
	assert_true(g.stall_sum_s < 2);
	assert_int_equal(g.oom_kills, 0);
	assert_true(g.cache > 200 * MIB);
}

static void without_enough_it_is_killed(void **state)
{
	struct host host = {.releases = false};
	struct guest g = new_guest(2 * GIB, GIB);

	(void)state;
	run(&g, 3 * GIB, 60, &host);
	assert_true(g.oom_kills > 0);
	assert_int_equal(g.kills_unavoidable, 0);
	assert_true(g.stall_sum_s >= OOM_PATIENCE_S);
	g = new_guest(0, GIB);
	run(&g, 5 * GIB, 60, &host);
	assert_true(g.oom_kills > 0);
	assert_int_equal(g.kills_unavoidable, g.oom_kills);
}

static void with_swap_it_thrashes(void **state)
{
	struct host host = {.releases = false};
	struct guest g = new_guest(2 * GIB, GIB);

	(void)state;
	g.swap_size = 4 * GIB;
	run(&g, 3 * GIB, 120, &host);
	assert_int_equal(g.oom_kills, 0);
	assert_true(g.stall > 0.3);
	assert_true(g.swap_out > GIB && g.swap_in > 10 * MIB &&
		    g.scan_direct > 2 * g.reclaim_direct);
	/* What is swapped and idle does no harm. */
	g = new_guest(0, GIB);
	g.swap_size = GIB;
	g.swapped = 0.1 * GIB;
	g.anon -= g.swapped;
	run(&g, GIB, 10, &host);
	assert_true(g.stall_sum_s == 0);
}

/* A guest that can say that it is short, to a host that has memory, hardly waits. */
static void messages_help(void **state)
{
	struct host host = {.releases = true};
	struct guest g = new_guest(2.5 * GIB, 0.5 * GIB);

	(void)state;
	g.messages = true;
	run(&g, 3 * GIB, 30, &host);
	assert_true(host.messages[VIRTIO_BALLOON_PRESSURE_MEDIUM] > 0);
	assert_int_equal(host.messages[VIRTIO_BALLOON_PRESSURE_CRITICAL], 0);
	assert_int_equal(g.oom_kills, 0);
	assert_true(g.stall_sum_s < 0.1);
	assert_int_equal(host.relieved, 1);
}

static void balloon_follows(void **state)
{
	struct host host = {.releases = false};
	struct guest g = new_guest(0, GIB);

	(void)state;
	g.target = 2 * GIB;
	run(&g, GIB, 1, &host);
	assert_true(g.balloon > 0.9 * GIB && g.balloon <= GIB);
	run(&g, GIB, 5, &host);
	assert_true(g.balloon == 2 * GIB);
	assert_true(g.touched <= 2 * GIB);
	/* It cannot give what programs have: it gets stuck. */
	g.target = 3.8 * GIB;
	run(&g, GIB, 60, &host);
	assert_true(g.balloon < 3 * GIB && g.puffs > 30);
	/* It comes back at once, and costs the host nothing before it is used. */
	g.target = 0;
	run(&g, GIB, 1, &host);
	assert_true(g.balloon == 0 && g.touched < 2 * GIB);
}

static void hung_does_nothing(void **state)
{
	struct host host = {.releases = false};
	struct guest g = new_guest(GIB, GIB), before;

	(void)state;
	g.hung = true;
	g.target = 0;
	before = g;
	run(&g, 3 * GIB, 60, &host);
	assert_memory_equal(&g, &before, sizeof(g));
}

static void statistics_add_up(void **state)
{
	struct host host = {.releases = false};
	struct guest g = new_guest(GIB, GIB);
	struct driver_statistics s = {.set = 0};

	(void)state;
	run(&g, GIB, 100, &host);
	guest_statistics(&g, &s);
	assert_int_equal(s.set, 0xfcff);
	assert_true(s.value[VIRTIO_BALLOON_S_MEMTOT] == (uint64_t)(3 * GIB - 80 * MIB));
	assert_true(s.value[VIRTIO_BALLOON_S_MEMFREE] < s.value[VIRTIO_BALLOON_S_AVAIL]);
	assert_true(s.value[VIRTIO_BALLOON_S_AVAIL] <
		    s.value[VIRTIO_BALLOON_S_MEMFREE] + s.value[VIRTIO_BALLOON_S_CACHES]);
	g.scan_tags = false;
	s.set = 0;
	guest_statistics(&g, &s);
	assert_int_equal(s.set, 0xff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost),
		cmocka_unit_test(with_enough_it_never_waits),
		cmocka_unit_test(without_enough_it_is_killed),
		cmocka_unit_test(with_swap_it_thrashes),
		cmocka_unit_test(messages_help),
		cmocka_unit_test(balloon_follows),
		cmocka_unit_test(hung_does_nothing),
		cmocka_unit_test(statistics_add_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
