// SPDX-License-Identifier: MIT
/* Vring messages that make no sense. */
#include "vu_helpers.h"

static struct test_front f;

/* Requests with an index or number that makes no sense. */
static void bad_numbers(void **state)
{
	static const uint32_t indexed[] = {VU_SET_VRING_NUM, VU_SET_VRING_BASE, VU_GET_VRING_BASE,
					   VU_SET_VRING_ENABLE};
	static const uint32_t with_fd[] = {VU_SET_VRING_KICK, VU_SET_VRING_CALL, VU_SET_VRING_ERR};
	static const uint64_t indices[] = {6, 7, 0xff, 0x10000, UINT32_MAX};
	static const uint64_t values[] = {6,          0xff,       0x200,
					  1ULL << 32, UINT64_MAX, VU_VRING_NO_FD | 6};
	static const uint32_t sizes[] = {0, 3, 32769, 65536, UINT32_MAX};
	int before = front_count_fds();

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(indices); k++) {
		uint32_t index = (uint32_t)indices[k];
		struct vu_vring_addr addr = front_addr(0);

		for (size_t i = 0; i < ARRAY_SIZE(indexed); i++) {
			front_negotiate(&f, F_PROTOCOL);
			assert_int_equal(front_send_state(&f, indexed[i], index, 1), -EPROTO);
			front_end(&f);
		}
		front_negotiate(&f, F_PROTOCOL);
		addr.index = index;
		assert_int_equal(front_send(&f, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1),
				 -EPROTO);
		front_end(&f);
	}
	for (size_t i = 0; i < ARRAY_SIZE(with_fd); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(values); k++) {
			for (int fd = 0; fd < 2; fd++) {
				front_negotiate(&f, F_PROTOCOL);
				assert_int_equal(front_send_u64(&f, with_fd[i], values[k],
								fd ? eventfd(0, EFD_CLOEXEC) : -1),
						 -EPROTO);
				front_end(&f);
			}
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		front_negotiate(&f, F_PROTOCOL);
		assert_int_equal(front_send_state(&f, VU_SET_VRING_NUM, 0, sizes[i]), -EPROTO);
		front_end(&f);
	}
	assert_int_equal(front_count_fds(), before);
}

/* A ring that cannot run ends the session when it should start. */
static void bad_rings(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 6; i++) {
		struct vu_vring_addr addr = front_addr(0);

		front_negotiate(&f, F_PROTOCOL);
		front_memory(&f);
		if (i > 0)
			assert_int_equal(front_send_state(&f, VU_SET_VRING_NUM, 0, 8), 0);
		addr.desc += i == 1 ? 8 : i == 2 ? 1ULL << 40 : 0;
		addr.avail += i == 3 ? 1 : i == 4 ? UINT64_MAX / 2 : 0;
		f.start_result = i == 5 ? -EINVAL : 0;
		assert_int_equal(front_send(&f, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1), 0);
		assert_int_equal(front_kick(&f, 0), 0);
		assert_int_equal(front_send_state(&f, VU_SET_VRING_ENABLE, 0, 1), -EPROTO);
		assert_false(vq_started(&f.s.ring[0].vq));
		front_end(&f);
	}
}

/* Only what can be waited for, and matches what the message says. */
static void vring_descriptors(void **state)
{
	static const uint32_t requests[] = {VU_SET_VRING_KICK, VU_SET_VRING_CALL, VU_SET_VRING_ERR};
	int before = front_count_fds();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		for (int what = 0; what < 6; what++) {
			bool none = what == 4;
			int fd = -1, pipe_fds[2];

			front_negotiate(&f, F_PROTOCOL);
			assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
			if (what == 0)
				fd = dup(pipe_fds[requests[i] == VU_SET_VRING_KICK ? 0 : 1]);
			else if (what == 1)
				fd = memfd_create("no", MFD_CLOEXEC);
			else if (what == 2)
				fd = open("/dev/null", O_RDWR | O_CLOEXEC);
			else if (what == 4 || what == 5)
				fd = what == 4 ? eventfd(0, EFD_CLOEXEC) : -1;
			else
				fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			assert_int_equal(
				front_send_u64(&f, requests[i], none ? VU_VRING_NO_FD : 0, fd),
				what == 0 ? 0 : -EPROTO);
			if (what == 0) {
				/* Not to block on is the device's own business. */
				assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
				/* another takes its place */
				assert_int_equal(
					front_send_u64(&f, requests[i], VU_VRING_NO_FD, -1), 0);
				assert_true(fcntl(fd, F_GETFD) < 0);
			}
			front_end(&f);
			close(pipe_fds[0]);
			close(pipe_fds[1]);
		}
	}
	assert_int_equal(front_count_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_numbers),
		cmocka_unit_test(bad_rings),
		cmocka_unit_test(vring_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
