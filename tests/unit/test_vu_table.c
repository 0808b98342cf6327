// SPDX-License-Identifier: MIT
/* Memory under running rings, the channel back to the front end, and the end of a session. */
#include "vu_helpers.h"

#include <sys/socket.h>

static struct test_front f;

static void begin(uint32_t n)
{
	front_negotiate(&f, F_PROTOCOL);
	front_memory(&f);
	for (uint32_t i = 0; i < n; i++) {
		front_ring_prepare(&f, i, 0);
		front_enable(&f, i, true);
	}
}

static int send_table(const struct vu_mem_region *r, uint32_t n, uint32_t n_fds, uint32_t size)
{
	struct vu_header header = {VU_SET_MEM_TABLE, VU_FLAG_VERSION, size};
	struct vu_mem_table table = {.n = n};
	int fds[VU_FDS_MAX];

	for (uint32_t i = 0; i < n && i < VU_MEM_TABLE_MAX; i++)
		table.region[i] = r[i];
	for (uint32_t i = 0; i < n_fds; i++)
		fds[i] = dup(f.memory);
	return front_send_raw(&f, header, &table, fds, n_fds);
}

/* n regions of one page each. */
static uint32_t pages(struct vu_mem_region *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		r[i] = (struct vu_mem_region){i * 0x10000ULL, PAGE, i * 0x20000ULL,
					      i * 1ULL * PAGE};
	return 8 + n * 32;
}

static void tables(void **state)
{
	static const struct {
		uint32_t n, n_fds;
		int32_t more; /* bytes than the regions need */
		bool ok;
	} cases[] = {
		{0, 0, 0, true},    {1, 1, 0, true},           {8, 8, 0, true},
		{1, 1, 224, true},  {0, 0, 256, true},         {2, 1, 0, false},
		{1, 2, 0, false},   {2, 2, -32, false},        {2, 2, -1, false},
		{9, 8, -32, false}, {UINT32_MAX, 8, 0, false}, {1, 0, 0, false},
	};
	int before = front_count_fds();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vu_mem_region r[VU_MEM_TABLE_MAX];
		uint32_t size = pages(r, (uint32_t)min_u64(cases[i].n, 8));

		if (cases[i].n == 9)
			size += 32;
		begin(0);
		size = (uint32_t)((int32_t)size + cases[i].more);
		assert_int_equal(send_table(r, cases[i].n, cases[i].n_fds, size),
				 cases[i].ok ? 0 : -EPROTO);
		if (cases[i].ok)
			assert_int_equal(f.s.memory.mem.n, cases[i].n);
		front_end(&f);
		assert_int_equal(front_count_fds(), before);
	}
}

/* A table with one bad region in it changes nothing before the session ends. */
static void half_bad_table(void **state)
{
	int before = front_count_fds();

	(void)state;
	for (uint32_t bad = 0; bad < 3; bad++) {
		struct vu_mem_region r[VU_MEM_TABLE_MAX];
		uint32_t size = pages(r, 3);

		begin(1);
		r[bad].size = bad == 2 ? 0x100000 : 0;
		assert_int_equal(send_table(r, 3, 3, size), -EPROTO);
		assert_int_equal(f.s.memory.mem.n, 1);
		assert_true(front_runs(&f, 0));
		front_end(&f);
		assert_int_equal(front_count_fds(), before);
	}
}

/* The same memory again, or more of it: rings go on, at their new addresses. */
static void rings_follow_memory(void **state)
{
	struct vu_mem_single low = {.region = {0, PAGE, TEST_UADDR, 0}}, all = front_region();
	uint32_t served;

	(void)state;
	begin(2);
	front_serve(&f, 0, 3);
	served = f.changed;
	/* a region below moves the one with the rings */
	assert_int_equal(front_send(&f, VU_ADD_MEM_REG, &low, sizeof(low), dup(f.memory)), 0);
	assert_int_equal(f.s.memory.mem.n, 2);
	front_serve(&f, 0, 3);
	assert_int_equal(front_send(&f, VU_REM_MEM_REG, &low, sizeof(low), -1), 0);
	front_serve(&f, 1, 3);
	assert_int_equal(send_table(&all.region, 1, 1, 40), 0);
	front_serve(&f, 0, 3);
	assert_int_equal(vq_base(&f.s.ring[0].vq), 9);
	assert_int_equal(f.changed, served + 3);
	assert_int_equal(f.resets, 0);
	assert_int_equal(f.started[0], 1);
	front_end(&f);
}

/* threats.md, socket, line 14: memory goes while a ring points into it. */
static void memory_taken_away(void **state)
{
	struct vu_mem_single all = front_region();
	struct vu_mem_region other = {FRONT_GPA, PAGE, TEST_UADDR + FRONT_GPA, 0};
	int before = front_count_fds();

	(void)state;
	for (uint32_t how = 0; how < 3; how++) {
		begin(2);
		front_serve(&f, 0, 1);
		if (how == 0)
			assert_int_equal(front_send(&f, VU_REM_MEM_REG, &all, sizeof(all), -1),
					 -EPROTO);
		else
			assert_int_equal(send_table(&other, how - 1, how - 1, 40), -EPROTO);
		assert_false(front_runs(&f, 0));
		assert_false(front_runs(&f, 1));
		front_end(&f);
		assert_int_equal(front_count_fds(), before);
	}
	/* Of rings that do not run nothing is asked. */
	begin(2);
	front_enable(&f, 0, false);
	front_enable(&f, 1, false);
	assert_int_equal(front_send(&f, VU_REM_MEM_REG, &all, sizeof(all), -1), 0);
	assert_int_equal(front_send_state(&f, VU_SET_VRING_ENABLE, 0, 1), -EPROTO);
	front_end(&f);
}

static void single_regions(void **state)
{
	struct vu_mem_single all = front_region(), r = {.region = {0, PAGE, 0, 0}};
	int before = front_count_fds();

	(void)state;
	begin(0);
	assert_int_equal(front_send(&f, VU_ADD_MEM_REG, &all, sizeof(all), dup(f.memory)), -EPROTO);
	front_end(&f);
	begin(0);
	assert_int_equal(front_send(&f, VU_REM_MEM_REG, &r, sizeof(r), -1), -EPROTO);
	front_end(&f);
	begin(0);
	/* Some front ends send the descriptor along. */
	assert_int_equal(front_send(&f, VU_REM_MEM_REG, &all, sizeof(all), dup(f.memory)), 0);
	f.changed_result = -ENOMEM;
	assert_int_equal(front_send(&f, VU_ADD_MEM_REG, &all, sizeof(all), dup(f.memory)), -EPROTO);
	front_end(&f);
	begin(0);
	for (uint64_t i = 0; i < GUEST_MEM_MAX_REGIONS - 1; i++) {
		r.region.gpa = (i + 16) * BIT(20);
		r.region.uaddr = (i + 1) * BIT(20);
		assert_int_equal(front_send(&f, VU_ADD_MEM_REG, &r, sizeof(r), dup(f.memory)), 0);
	}
	r.region.gpa = r.region.uaddr = BIT(40);
	assert_int_equal(front_send(&f, VU_ADD_MEM_REG, &r, sizeof(r), dup(f.memory)), -EPROTO);
	assert_string_equal(f.s.error, "too many memory regions");
	front_end(&f);
	assert_int_equal(front_count_fds(), before);
}

static bool due(void)
{
	struct vu_header h;

	if (!vu_session_backend_output(&f.s, &h))
		return false;
	assert_int_equal(h.request, VU_BACKEND_CONFIG_CHANGE);
	assert_int_equal(h.flags, VU_FLAG_VERSION);
	assert_int_equal(h.size, 0);
	return true;
}

/* The message about the configuration waits until it is safe, and is not lost meanwhile. */
static void config_change(void **state)
{
	int pair[2];

	(void)state;
	begin(0);
	assert_false(due());
	vu_session_config_changed(&f.s);
	assert_false(due()); /* no channel */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(front_send(&f, VU_SET_BACKEND_REQ_FD, NULL, 0, pair[0]), 0);
	assert_false(due()); /* no rings */
	for (uint32_t i = 0; i < 3; i++)
		front_ring_prepare(&f, i, 0);
	for (uint32_t i = 0; i < 3; i++) {
		assert_false(due()); /* not all of them run */
		front_enable(&f, i, true);
	}
	assert_true(due());
	assert_true(due());
	vu_session_backend_sent(&f.s);
	assert_false(due());
	/* Paused: later. */
	front_enable(&f, 1, false);
	vu_session_config_changed(&f.s);
	assert_false(due());
	for (uint32_t i = 0; i < 3; i++)
		(void)front_get_base(&f, i);
	assert_false(due());
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(front_kick(&f, i), 0);
	assert_false(due());
	front_enable(&f, 1, true);
	assert_true(due());
	vu_session_backend_lost(&f.s);
	assert_false(due());
	close(pair[1]);
	/* It outlives the session: the next front end hears of it. */
	front_end(&f);
	assert_true(f.s.config_change_due);
}

/* A new channel replaces the old one, which is closed. */
static void channels(void **state)
{
	int before = front_count_fds();

	(void)state;
	front_negotiate(&f, F_PROTOCOL);
	for (int i = 0; i < 5; i++)
		assert_int_equal(
			front_send(&f, VU_SET_BACKEND_REQ_FD, NULL, 0, eventfd(0, EFD_CLOEXEC)), 0);
	assert_int_equal(front_count_fds(), before + 1);
	front_end(&f);
	assert_int_equal(front_count_fds(), before);
}

/* The end, at any point: everything stopped once, reset, closed; and the next session is new. */
static void ends(void **state)
{
	int before = front_count_fds();

	(void)state;
	for (uint32_t rings = 0; rings <= 6; rings++) {
		begin(rings);
		for (uint32_t i = 0; i < rings; i++) {
			front_serve(&f, i, i + 1);
			assert_int_equal(
				front_send_u64(&f, VU_SET_VRING_CALL, i, eventfd(0, EFD_CLOEXEC)),
				0);
			assert_int_equal(
				front_send_u64(&f, VU_SET_VRING_ERR, i, eventfd(0, EFD_CLOEXEC)),
				0);
		}
		front_end(&f);
		assert_int_equal(front_count_fds(), before);
		assert_int_equal(f.resets, 1);
		assert_int_equal(f.s.state, VU_STATE_NEW);
		assert_true(f.s.features == 0 && f.s.protocol_features == 0);
		assert_int_equal(front_send_state(&f, VU_SET_VRING_NUM, 0, 8), -EPROTO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables),
		cmocka_unit_test(half_bad_table),
		cmocka_unit_test(rings_follow_memory),
		cmocka_unit_test(memory_taken_away),
		cmocka_unit_test(single_regions),
		cmocka_unit_test(config_change),
		cmocka_unit_test(channels),
		cmocka_unit_test(ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
