// SPDX-License-Identifier: MIT
/* Moving the device's state: the two requests, and rings that go on with a state from elsewhere. */
#include "vu_helpers.h"

static struct test_front f;

#define REFUSED (VU_TRANSFER_FAILED | VU_TRANSFER_NO_FD)

static int some_fd(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

/* SET_DEVICE_STATE_FD with fd; the reply's value. The session goes on, whatever it is. */
static uint64_t begin_transfer(uint32_t direction, uint32_t phase, int fd)
{
	struct vu_transfer t = {direction, phase};
	struct vu_header header = {0};
	union vu_payload payload;

	assert_int_equal(front_send(&f, VU_SET_DEVICE_STATE_FD, &t, sizeof(t), fd), 0);
	assert_true(front_reply(&f, &header, &payload));
	assert_int_equal(header.request, VU_SET_DEVICE_STATE_FD);
	assert_int_equal(header.size, 8);
	return payload.u64;
}

static uint64_t check_transfer(void)
{
	struct vu_header header = {0};
	union vu_payload payload;

	assert_int_equal(front_send(&f, VU_CHECK_DEVICE_STATE, NULL, 0, -1), 0);
	assert_true(front_reply(&f, &header, &payload));
	assert_int_equal(header.request, VU_CHECK_DEVICE_STATE);
	assert_int_equal(header.size, 8);
	return payload.u64;
}

static void connect_front(void)
{
	front_init(&f);
	assert_int_equal(front_send_u64(&f, VU_SET_PROTOCOL_FEATURES, VU_PROTOCOL_FEATURES, -1), 0);
}

static void load(void)
{
	assert_int_equal(begin_transfer(VU_TRANSFER_LOAD, 0, some_fd()), VU_TRANSFER_NO_FD);
	assert_int_equal(check_transfer(), 0);
}

/* What a front end sends between the load and the guest's first step. */
static void set_up(uint64_t features, uint32_t n, const uint32_t *base)
{
	assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, features, -1), 0);
	front_memory(&f);
	for (uint32_t i = 0; i < n; i++)
		front_ring_prepare(&f, i, base[i]);
}

static void offered_where_the_device_can(void **state)
{
	static const struct vu_device_ops device = {.reset = front_reset,
						    .set_features = front_set_features};
	static const struct vu_ring_ops rings = {.memory_changing = front_changing,
						 .memory_changed = front_changed};
	struct vu_header header = {0};
	union vu_payload payload;

	(void)state;
	memset(&f, 0, sizeof(f));
	vu_session_init(&f.s, &device, &rings, &f);
	assert_int_equal(front_send(&f, VU_GET_PROTOCOL_FEATURES, NULL, 0, -1), 0);
	assert_true(front_reply(&f, &header, &payload));
	assert_true(payload.u64 == (VU_PROTOCOL_FEATURES & ~BIT(VU_PF_DEVICE_STATE)));
	assert_int_equal(front_send_u64(&f, VU_SET_PROTOCOL_FEATURES, BIT(VU_PF_DEVICE_STATE), -1),
			 -EPROTO);
	vu_session_end(&f.s);
}

static void save(void **state)
{
	(void)state;
	for (int failing = 0; failing < 3; failing++) {
		int fd = some_fd();

		connect_front();
		f.transfer_result = failing == 1 ? -EBADF : 0;
		f.check_result = failing == 2 ? -EPIPE : 0;
		assert_int_equal(begin_transfer(VU_TRANSFER_SAVE, 0, fd),
				 failing == 1 ? REFUSED : VU_TRANSFER_NO_FD);
		assert_int_equal(f.transfers, 1);
		assert_false(f.transfer_load);
		assert_int_equal(f.transfer_fd, fd);
		assert_true(fcntl(fd, F_GETFD) >= 0); /* the device's */
		assert_int_equal(check_transfer() != 0, failing == 2);
		assert_int_equal(f.checks, 1);
		assert_false(f.s.loaded);
		front_end(&f);
	}
}

/* Refused here, and the device is not asked; the session goes on. */
static void bad_parameters(void **state)
{
	static const struct {
		uint32_t direction, phase;
	} cases[] = {{2, 0}, {UINT32_MAX, 0}, {0, 1}, {1, 1}, {1, UINT32_MAX}};
	int before = front_count_fds();

	(void)state;
	connect_front();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(begin_transfer(cases[i].direction, cases[i].phase, some_fd()),
				 REFUSED);
		assert_int_equal(front_count_fds(), before);
	}
	assert_int_equal(f.transfers, 0);
	front_end(&f);
}

/* threats.md, socket, line 13: one descriptor, not none and not two. */
static void descriptors(void **state)
{
	struct vu_header header = {VU_SET_DEVICE_STATE_FD, VU_FLAG_VERSION, 8};
	struct vu_transfer t = {VU_TRANSFER_SAVE, 0};
	int before = front_count_fds();

	(void)state;
	for (uint32_t n = 0; n < 4; n++) {
		int fds[4];

		connect_front();
		for (uint32_t i = 0; i < n; i++)
			fds[i] = some_fd();
		assert_int_equal(front_send_raw(&f, header, &t, fds, n), n == 1 ? 0 : -EPROTO);
		assert_int_equal(f.transfers, n == 1);
		front_end(&f);
		assert_int_equal(front_count_fds(), before);
	}
}

/* Neither request does anything while a ring runs. */
static void not_while_rings_run(void **state)
{
	int before;

	(void)state;
	front_negotiate(&f, F_PROTOCOL);
	front_memory(&f);
	front_ring_prepare(&f, 3, 0);
	front_enable(&f, 3, true);
	before = front_count_fds();
	for (uint32_t direction = 0; direction < 2; direction++) {
		assert_int_equal(begin_transfer(direction, 0, some_fd()), REFUSED);
		assert_int_equal(check_transfer(), 1);
	}
	assert_int_equal(front_count_fds(), before);
	assert_int_equal(f.transfers + f.checks, 0);
	assert_true(front_runs(&f, 3));
	(void)front_get_base(&f, 3);
	assert_int_equal(begin_transfer(VU_TRANSFER_SAVE, 0, some_fd()), VU_TRANSFER_NO_FD);
	assert_int_equal(check_transfer(), 0);
	front_end(&f);
}

/* The whole way of a guest that arrives: nothing of it is a reset, and every ring goes on. */
static void load_then_start(void **state)
{
	static const struct {
		uint64_t features;
		uint32_t base[4];
	} cases[] = {
		{F_PROTOCOL, {5, 0, 65535, 1}},
		{F_PROTOCOL | F_EVENT | F_V1, {0, 0, 0, 0}},
		{F_PROTOCOL | F_PACKED | F_V1, {0x80008000, 0x00038003, 0x80070007, 0x80000000}},
		/* 0 means what it says: both wrap counters are 0. */
		{F_PROTOCOL | F_PACKED, {0, 0, 0x80008000, 0}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		connect_front();
		load();
		assert_true(f.transfer_load);
		set_up(cases[i].features, 4, cases[i].base);
		for (uint32_t q = 0; q < 4; q++) {
			front_enable(&f, q, true);
			assert_true(front_runs(&f, q));
			assert_true(f.resumed[q]);
			assert_true(vq_base(&f.s.ring[q].vq) == cases[i].base[q]);
		}
		assert_int_equal(f.resets, 0);
		/* From here on it is a guest like any other: this one starts afresh. */
		front_enable(&f, 2, false);
		(void)front_get_base(&f, 2);
		front_serve(&f, 0, 1);
		assert_int_equal(front_send_state(&f, VU_SET_VRING_BASE, 0, 0), 0);
		assert_int_equal(f.resets, 1);
		front_end(&f);
	}
}

/* Once it runs it may stop and start like any other: what holds for its first start holds no more.
 */
static void second_start(void **state)
{
	static const uint32_t base[] = {0x80038003};

	(void)state;
	for (int how = 0; how < 3; how++) {
		connect_front();
		load();
		set_up(F_PROTOCOL | F_PACKED, 1, base);
		front_enable(&f, 0, true);
		front_serve(&f, 0, 1);
		if (how == 0) {
			/* a driver that starts anew, with other features */
			assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, F_PROTOCOL, -1), 0);
		} else {
			assert_true(front_get_base(&f, 0) == 0x80048004);
			front_ring_prepare(&f, 0, how == 1 ? 0 : 0x80048004);
			assert_true(front_runs(&f, 0));
			assert_true(f.resumed[0] == (how == 2));
			assert_true(vq_base(&f.s.ring[0].vq) ==
				    (how == 1 ? 0x80008000 : 0x80048004));
		}
		assert_int_equal(f.resets, how < 2);
		front_end(&f);
	}
}

/* Without SET_VRING_ENABLE, or with it ring by ring: later ones come when some run already. */
static void rings_one_by_one(void **state)
{
	static const uint64_t features[] = {F_V1, F_PROTOCOL};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		connect_front();
		load();
		assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, features[i], -1), 0);
		front_memory(&f);
		for (uint32_t q = 0; q < 3; q++) {
			front_ring_prepare(&f, q, 7 + q);
			if (features[i] & F_PROTOCOL)
				front_enable(&f, q, true);
			assert_true(front_runs(&f, q));
			assert_true(f.resumed[q]);
			front_serve(&f, q, 2);
		}
		assert_int_equal(f.resets, 0);
		front_end(&f);
	}
}

/* Everything may also be set up before the state comes; only no ring may run. */
static void load_after_set_up(void **state)
{
	static const uint32_t base[] = {9, 0};

	(void)state;
	connect_front();
	set_up(F_PROTOCOL, 2, base);
	f.resets = 0;
	load();
	front_enable(&f, 0, true);
	front_enable(&f, 1, true);
	assert_true(f.resumed[0] && f.resumed[1]);
	assert_int_equal(f.resets, 0);
	front_end(&f);
}

/* A device that has served another guest before takes the state of a new one. */
static void load_into_a_used_session(void **state)
{
	static const uint32_t fresh[] = {0, 0}, base[] = {0, 12};

	(void)state;
	connect_front();
	set_up(F_PROTOCOL, 2, fresh);
	for (uint32_t q = 0; q < 2; q++) {
		front_enable(&f, q, true);
		front_serve(&f, q, 3);
		assert_int_equal(front_get_base(&f, q), 3);
	}
	f.resets = 0;
	load();
	for (uint32_t q = 0; q < 2; q++)
		front_ring_prepare(&f, q, base[q]);
	assert_true(front_runs(&f, 0) && front_runs(&f, 1));
	assert_true(f.resumed[0] && f.resumed[1]);
	assert_int_equal(f.resets, 0);
	front_end(&f);
}

/* A load that fails has changed nothing: the device is one that nobody has used. */
static void failed_load(void **state)
{
	(void)state;
	for (int how = 0; how < 3; how++) {
		connect_front();
		f.transfer_result = how == 0 ? -ENOMEM : 0;
		f.check_result = how == 1 ? -EBADMSG : 0;
		assert_int_equal(begin_transfer(VU_TRANSFER_LOAD, 0, some_fd()),
				 how == 0 ? REFUSED : VU_TRANSFER_NO_FD);
		if (how == 1)
			assert_int_equal(check_transfer(), 1);
		/* how == 2: it was never checked */
		assert_false(f.s.loaded);
		set_up(F_PROTOCOL | F_EVENT, 1, (const uint32_t[]){0});
		assert_int_equal(f.resets, 1); /* for the features */
		front_enable(&f, 0, true);
		assert_false(f.resumed[0]);
		front_end(&f);
	}
}

/* A save that is checked well does not make the device one that was loaded. */
static void save_after_load_that_was_not_checked(void **state)
{
	(void)state;
	connect_front();
	assert_int_equal(begin_transfer(VU_TRANSFER_LOAD, 0, some_fd()), VU_TRANSFER_NO_FD);
	assert_int_equal(begin_transfer(VU_TRANSFER_SAVE, 0, some_fd()), VU_TRANSFER_NO_FD);
	assert_int_equal(check_transfer(), 0);
	assert_false(f.s.loaded);
	front_end(&f);
	/* ... nor one that takes the place of a load, and cannot begin. */
	connect_front();
	assert_int_equal(begin_transfer(VU_TRANSFER_LOAD, 0, some_fd()), VU_TRANSFER_NO_FD);
	f.transfer_result = -EBADF;
	assert_int_equal(begin_transfer(VU_TRANSFER_SAVE, 0, some_fd()), REFUSED);
	assert_int_equal(check_transfer(), 0);
	assert_false(f.s.loaded);
	front_end(&f);
	/* ... nor does a ring that ran between the load and its check. */
	connect_front();
	assert_int_equal(begin_transfer(VU_TRANSFER_LOAD, 0, some_fd()), VU_TRANSFER_NO_FD);
	set_up(F_PROTOCOL, 1, (const uint32_t[]){0});
	front_enable(&f, 0, true);
	(void)front_get_base(&f, 0);
	(void)check_transfer();
	assert_false(f.s.loaded);
	front_end(&f);
}

/* What is a reset stays one. */
static void reset_after_load(void **state)
{
	(void)state;
	connect_front();
	load();
	assert_int_equal(front_send(&f, VU_RESET_OWNER, NULL, 0, -1), 0);
	assert_int_equal(f.resets, 1);
	set_up(F_PROTOCOL, 1, (const uint32_t[]){0});
	front_enable(&f, 0, true);
	assert_false(f.resumed[0]);
	front_end(&f);
	/* The next session knows nothing of it. */
	connect_front();
	load();
	front_end(&f);
	assert_false(f.s.loaded);
	assert_false(f.s.ring[0].loaded);
}

/* The source goes on if the move comes to nothing: its own state is as it was. */
static void save_and_go_on(void **state)
{
	(void)state;
	front_negotiate(&f, F_PROTOCOL);
	front_memory(&f);
	front_ring_prepare(&f, 0, 0);
	front_enable(&f, 0, true);
	front_serve(&f, 0, 5);
	f.resets = 0;
	assert_int_equal(front_get_base(&f, 0), 5);
	assert_int_equal(begin_transfer(VU_TRANSFER_SAVE, 0, some_fd()), VU_TRANSFER_NO_FD);
	assert_int_equal(check_transfer(), 0);
	front_ring_prepare(&f, 0, 5);
	assert_true(front_runs(&f, 0));
	assert_true(f.resumed[0]);
	assert_int_equal(f.resets, 0);
	front_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(offered_where_the_device_can),
		cmocka_unit_test(save),
		cmocka_unit_test(bad_parameters),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(not_while_rings_run),
		cmocka_unit_test(load_then_start),
		cmocka_unit_test(second_start),
		cmocka_unit_test(rings_one_by_one),
		cmocka_unit_test(load_after_set_up),
		cmocka_unit_test(load_into_a_used_session),
		cmocka_unit_test(failed_load),
		cmocka_unit_test(save_after_load_that_was_not_checked),
		cmocka_unit_test(reset_after_load),
		cmocka_unit_test(save_and_go_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
