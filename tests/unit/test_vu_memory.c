// SPDX-License-Identifier: MIT
#include "helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vhost_user/memory.h"

static struct vu_memory m;

static int memfd(uint64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* threats.md, socket, line 14. Whatever happens, the descriptor is taken over. */
static void refusals(void **state)
{
	static const struct {
		struct vu_mem_region r; /* of a file of 4 pages; one region is at 0x10000 already */
		int result;
	} cases[] = {
		{{0, 4 * PAGE, 0, 0}, 0},
		{{0, PAGE, 0, 3 * PAGE}, 0},
		{{0, 1, 0, 4 * PAGE - 1}, 0},
		{{0, 0, 0, 0}, -EINVAL},
		{{0, 4 * PAGE + 1, 0, 0}, -EFBIG},
		{{0, 4 * PAGE, 0, 1}, -EFBIG},
		{{0, PAGE, 0, 4 * PAGE}, -EFBIG},
		{{0, PAGE, 0, 1ULL << 62}, -EFBIG},
		{{0, PAGE, 0, UINT64_MAX}, -EINVAL},
		{{0, UINT64_MAX, 0, PAGE}, -EINVAL},
		{{0, UINT64_MAX, 0, 0}, -EFBIG},
		{{UINT64_MAX, PAGE, 0, 0}, -EINVAL},
		{{0, PAGE, UINT64_MAX - PAGE + 1, 0}, -EINVAL},
		{{0xf000, 2 * PAGE, 0x90000, 0}, -EEXIST},
		{{0x10000, PAGE, 0x90000, 0}, -EEXIST},
		{{0x90000, PAGE, 0x50000, 0}, -EEXIST},
		{{0x11000, PAGE, 0x51000, 0}, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct vu_mem_region there = {0x10000, PAGE, 0x50000, 0};
		int first = memfd(PAGE), fd = memfd(4 * PAGE);

		vu_memory_init(&m);
		assert_int_equal(vu_memory_add(&m, &there, first), 0);
		assert_int_equal(vu_memory_add(&m, &cases[i].r, fd), cases[i].result);
		assert_int_equal(m.mem.n, cases[i].result ? 1 : 2);
		assert_int_equal(is_open(fd), cases[i].result == 0);
		assert_true(is_open(first));
		vu_memory_clear(&m);
		assert_false(is_open(first));
		assert_false(is_open(fd));
		assert_int_equal(m.mem.n, 0);
	}
}

/* Things that are not files with a size, and files that may not be written. */
static void wrong_descriptors(void **state)
{
	const struct vu_mem_region r = {0, PAGE, 0, 0};
	int fds[6], pipe_fds[2];

	(void)state;
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	fds[0] = pipe_fds[0];
	fds[1] = pipe_fds[1];
	fds[2] = eventfd(0, EFD_CLOEXEC);
	fds[3] = open("/dev/zero", O_RDWR | O_CLOEXEC);
	fds[4] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fds[5] = memfd(PAGE);
	assert_int_equal(fcntl(fds[5], F_ADD_SEALS, F_SEAL_WRITE), 0);
	vu_memory_init(&m);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		assert_true(fds[i] >= 0);
		assert_true(vu_memory_add(&m, &r, fds[i]) < 0);
		assert_false(is_open(fds[i]));
	}
	assert_int_equal(vu_memory_add(&m, &r, INT32_MAX), -EBADF);
	assert_int_equal(m.mem.n, 0);
	vu_memory_clear(&m);
}

/* The bytes are those of the file from mmap_offset on, wherever that is in a page. */
static void contents(void **state)
{
	static const uint64_t offsets[] = {0, PAGE, 1, PAGE - 1, PAGE + 17};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		int fd = memfd(4 * PAGE);
		const struct vu_mem_region r = {0x1000, 2 * PAGE, 0x5000, offsets[i]};
		uint64_t len = UINT64_MAX;
		uint8_t *host;

		assert_int_equal(pwrite(fd, "begin", 5, (off_t)offsets[i]), 5);
		assert_int_equal(pwrite(fd, "end", 3, (off_t)(offsets[i] + 2 * PAGE - 3)), 3);
		vu_memory_init(&m);
		assert_int_equal(vu_memory_add(&m, &r, fd), 0);
		host = guest_mem_gpa(&m.mem, 0x1000, &len);
		assert_non_null(host);
		assert_int_equal(len, 2 * PAGE);
		assert_memory_equal(host, "begin", 5);
		assert_memory_equal(host + 2 * PAGE - 3, "end", 3);
		assert_ptr_equal(guest_mem_uaddr(&m.mem, 0x5000, 2 * PAGE), host);
		assert_int_equal(m.mem.region[0].backing_offset, offsets[i]);
		assert_int_equal(m.mem.region[0].page_size, (uint64_t)sysconf(_SC_PAGESIZE));
		vu_memory_clear(&m);
	}
}

/* Fills the table, empties it in another order, fills it again. */
static void slots(void **state)
{
	int fds[GUEST_MEM_MAX_REGIONS], one_more;
	struct vu_mem_region r = {0, PAGE, 0, 0};

	(void)state;
	vu_memory_init(&m);
	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++) {
			uint64_t k = i * 29 % GUEST_MEM_MAX_REGIONS;

			fds[k] = memfd(PAGE);
			r.gpa = r.uaddr = k * 0x10000;
			assert_int_equal(vu_memory_add(&m, &r, fds[k]), 0);
		}
		r.gpa = r.uaddr = 0x5000000;
		one_more = memfd(PAGE);
		assert_int_equal(vu_memory_add(&m, &r, one_more), -ENOSPC);
		assert_false(is_open(one_more));
		for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++) {
			uint64_t k = i * 37 % GUEST_MEM_MAX_REGIONS;

			/* the backing that the region names is its own */
			assert_int_equal(
				m.backing[m.mem.region[guest_mem_find(&m.mem, k * 0x10000)].backing]
					.fd,
				fds[k]);
			r.gpa = r.uaddr = k * 0x10000;
			assert_int_equal(vu_memory_remove(&m, &r), 0);
			assert_false(is_open(fds[k]));
			assert_int_equal(vu_memory_remove(&m, &r), -ENOENT);
		}
		assert_int_equal(m.mem.n, 0);
	}
	vu_memory_clear(&m);
}

static void removals(void **state)
{
	static const struct vu_mem_region wrong[] = {
		{0x11000, PAGE, 0x51000, 0},     {0x10000, PAGE, 0x50000, 0},
		{0x10000, 3 * PAGE, 0x50000, 0}, {0x10000, 2 * PAGE, 0x51000, 0},
		{0, 2 * PAGE, 0x50000, 0},       {UINT64_MAX, 2 * PAGE, 0x50000, 0},
	};
	const struct vu_mem_region r = {0x10000, 2 * PAGE, 0x50000, 0};

	(void)state;
	vu_memory_init(&m);
	assert_int_equal(vu_memory_add(&m, &r, memfd(2 * PAGE)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(vu_memory_remove(&m, &wrong[i]), -ENOENT);
	assert_int_equal(vu_memory_remove(&m, &r), 0);
	vu_memory_clear(&m);
}

/* The file is truncated under the mapping: after the patch it can be touched, and is empty. */
static void patch(void **state)
{
	const struct vu_mem_region a = {0, 2 * PAGE, 0, PAGE + 5}, b = {0x10000, PAGE, 0x10000, 0};
	int fd = memfd(4 * PAGE), own = dup(fd);
	uint8_t *host, local;

	(void)state;
	vu_memory_init(&m);
	assert_int_equal(vu_memory_add(&m, &a, fd), 0);
	assert_int_equal(vu_memory_add(&m, &b, memfd(PAGE)), 0);
	host = m.mem.host[0];
	memset(host, 7, 2 * PAGE);
	m.mem.host[1][0] = 9;
	assert_int_equal(ftruncate(own, 0), 0);
	assert_false(vu_memory_patch(&m, &local));
	assert_false(vu_memory_patch(&m, NULL));
	assert_true(vu_memory_patch(&m, host + 2 * PAGE - 1));
	for (uint32_t i = 0; i < 2 * PAGE; i++)
		assert_int_equal(host[i], 0);
	host[0] = 1;
	assert_int_equal(m.mem.host[1][0], 9);
	vu_memory_clear(&m);
	close(own);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refusals), cmocka_unit_test(wrong_descriptors),
		cmocka_unit_test(contents), cmocka_unit_test(slots),
		cmocka_unit_test(removals), cmocka_unit_test(patch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
