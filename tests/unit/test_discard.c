// SPDX-License-Identifier: MIT
/* On the real thing: memfds, private memory, and huge pages where the host has some to spare. */
#include "helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "discard/discard.h"

#define PAGES 64U
#define SIZE  (PAGES * PAGE)

struct fixture {
	int fd;
	uint8_t *host;
	struct discard_area area;
};

/* Memory of `pages` small pages, each filled with its number + 1. */
static void fill(uint8_t *host, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		memset(host + (size_t)i * PAGE, (int)(i + 1), PAGE);
}

/* An area of a memfd: [lead, lead + size) of a file that goes on behind it. */
static struct fixture on_memfd(uint64_t lead, uint64_t size)
{
	struct fixture f = {.fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
	uint8_t *map;

	assert_true(f.fd >= 0);
	assert_int_equal(ftruncate(f.fd, 2 * SIZE), 0);
	map = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
	assert_true(map != MAP_FAILED);
	fill(map, 2 * PAGES);
	f.host = map;
	discard_area_init(&f.area, map + lead, size, f.fd, lead, PAGE);
	return f;
}

static struct fixture on_private(void)
{
	struct fixture f = {.fd = -1};

	f.host = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(f.host != MAP_FAILED);
	/* No huge page may keep its neighbours. */
	(void)madvise(f.host, 2 * SIZE, MADV_NOHUGEPAGE);
	fill(f.host, 2 * PAGES);
	discard_area_init(&f.area, f.host, SIZE, -1, 0, PAGE);
	return f;
}

static void drop(struct fixture *f)
{
	munmap(f->host, 2 * SIZE);
	if (f->fd >= 0)
		close(f->fd);
}

/* Exactly pages [first, first + n) of the mapping read as zeros. */
static void check_gone(const struct fixture *f, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < 2 * PAGES; i++) {
		uint8_t expected = i >= first && i < first + n ? 0 : (uint8_t)(i + 1);

		assert_int_equal(f->host[(size_t)i * PAGE], expected);
		assert_int_equal(f->host[(size_t)i * PAGE + PAGE - 1], expected);
	}
}

/* Only whole pages, inwards; nothing outside. On files and on private memory alike. */
static void spans(void **state)
{
	static const struct {
		uint64_t offset, len;
		uint32_t first, n;
		int result;
	} cases[] = {
		{0, SIZE, 0, PAGES, 0},
		{0, PAGE, 0, 1, 0},
		{3 * PAGE, 2 * PAGE, 3, 2, 0},
		{1, 3 * PAGE, 1, 2, 0},
		{1, PAGE, 0, 0, 0},
		{PAGE - 1, PAGE + 2, 1, 1, 0},
		{5, 0, 0, 0, 0},
		{SIZE - PAGE, PAGE, PAGES - 1, 1, 0},
		{SIZE, 0, 0, 0, 0},
		{SIZE - PAGE, PAGE + 1, 0, 0, -EINVAL},
		{SIZE + 1, 0, 0, 0, -EINVAL},
		{UINT64_MAX, 2, 0, 0, -EINVAL},
		{0, UINT64_MAX, 0, 0, -EINVAL},
		{PAGE, UINT64_MAX - PAGE + 2, 0, 0, -EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (int private = 0; private < 2; private ++) {
			struct fixture f = private ? on_private() : on_memfd(0, SIZE);
			uint64_t before = discard_resident(&f.area), freed;

			assert_int_equal(discard_span(&f.area, cases[i].offset, cases[i].len),
					 cases[i].result);
			freed = before - discard_resident(&f.area);
			assert_int_equal(freed, (uint64_t)cases[i].n * PAGE);
			check_gone(&f, cases[i].first, cases[i].n);
			assert_int_equal(f.area.failed, 0);
			drop(&f);
		}
	}
}

/* An area that begins within a page of its file: pages are the file's. */
static void off_alignment(void **state)
{
	struct fixture f = on_memfd(5 * PAGE + 100, 3 * PAGE);

	(void)state;
	assert_int_equal(discard_span(&f.area, 0, PAGE), 0);
	check_gone(&f, 0, 0);
	assert_int_equal(discard_span(&f.area, 0, 3 * PAGE), 0);
	check_gone(&f, 6, 2);
	drop(&f);
	f = on_memfd(5 * PAGE, 10 * PAGE);
	assert_int_equal(discard_span(&f.area, 2 * PAGE, 3 * PAGE), 0);
	check_gone(&f, 7, 3);
	drop(&f);
}

/* The file's blocks do not depend on the area, nor on this process having touched them. */
static void resident(void **state)
{
	struct fixture f = on_memfd(0, PAGE), p = on_private();

	(void)state;
	assert_int_equal(discard_resident(&f.area), 2 * SIZE);
	assert_int_equal(ftruncate(f.fd, 0), 0);
	assert_int_equal(discard_resident(&f.area), 0);
	assert_int_equal(discard_resident(&p.area), SIZE);
	assert_int_equal(madvise(p.host, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(discard_resident(&p.area), SIZE - PAGE);
	drop(&p);
	drop(&f);
}

/* A descriptor that cannot be punched gives way to MADV_REMOVE on the mapping. */
static void read_only_descriptor(void **state)
{
	struct fixture f = on_memfd(0, SIZE);
	char path[64];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f.fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	f.area.fd = fd;
	assert_int_equal(f.area.method, DISCARD_PUNCH_HOLE);
	assert_int_equal(discard_span(&f.area, PAGE, PAGE), 0);
	assert_int_equal(f.area.method, DISCARD_MADV_REMOVE);
	assert_int_equal(f.area.failed, 1);
	assert_int_equal(f.area.last_error, EBADF);
	check_gone(&f, 1, 1);
	assert_int_equal(discard_span(&f.area, 2 * PAGE, PAGE), 0);
	check_gone(&f, 1, 2);
	assert_int_equal(f.area.failed, 1);
	close(fd);
	drop(&f);
}

/* A sealed file is never changed; every call says so, and nothing worse happens. */
static void sealed(void **state)
{
	struct fixture f = on_memfd(0, SIZE);
	void *map;

	(void)state;
	munmap(f.host, 2 * SIZE);
	assert_int_equal(fcntl(f.fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	map = mmap(NULL, 2 * SIZE, PROT_READ, MAP_SHARED, f.fd, 0);
	assert_true(map != MAP_FAILED);
	f.host = f.area.host = map;
	assert_true(discard_span(&f.area, 0, PAGE) < 0);
	assert_int_equal(f.area.method, DISCARD_NONE);
	assert_true(discard_span(&f.area, 0, PAGE) < 0);
	assert_int_equal(discard_span(&f.area, 0, 1), 0); /* no whole page: nothing to refuse */
	check_gone(&f, 0, 0);
	assert_int_equal(discard_resident(&f.area), 2 * SIZE);
	drop(&f);
}

static void bad_descriptor(void **state)
{
	static uint8_t host[SIZE];
	struct discard_area area;

	(void)state;
	discard_area_init(&area, host, SIZE, INT32_MAX, 0, PAGE);
	assert_int_equal(discard_resident(&area), 0);
	assert_true(discard_span(&area, 0, PAGE) < 0);
}

/* Sets the number of 2 MiB pages that the host keeps; returns the old one, or -1. */
static long reserve_huge_pages(long n)
{
	FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "r+e");
	char line[32];
	long old = -1;

	if (!f)
		return -1;
	if (fgets(line, sizeof(line), f))
		old = strtol(line, NULL, 10);
	rewind(f);
	if (old >= 0 && (fprintf(f, "%ld", n) < 0 || fflush(f) != 0))
		old = -1;
	if (fclose(f) != 0)
		old = -1;
	return old;
}

#define HUGE_PAGE 0x200000UL
#define HUGE_2MB  (21U << MAP_HUGE_SHIFT)

static void huge_pages(void **state)
{
	long before = reserve_huge_pages(4);
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | HUGE_2MB);
	uint8_t *map = MAP_FAILED;
	struct discard_area area;

	(void)state;
	if (fd >= 0 && ftruncate(fd, 3 * HUGE_PAGE) == 0)
		map = mmap(NULL, 3 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		if (fd >= 0)
			close(fd);
		if (before >= 0)
			(void)reserve_huge_pages(before);
		skip();
	}
	memset(map, 1, 3 * HUGE_PAGE);
	/* The area begins half a page into the file. */
	discard_area_init(&area, map + HUGE_PAGE / 2, 2 * HUGE_PAGE, fd, HUGE_PAGE / 2, HUGE_PAGE);
	assert_int_equal(discard_resident(&area), 3 * HUGE_PAGE);
	assert_int_equal(discard_span(&area, 0, HUGE_PAGE), 0);
	assert_int_equal(discard_span(&area, HUGE_PAGE / 2, HUGE_PAGE - PAGE), 0);
	assert_int_equal(discard_resident(&area), 3 * HUGE_PAGE);
	assert_int_equal(discard_span(&area, 0, 2 * HUGE_PAGE), 0);
	assert_int_equal(discard_resident(&area), 2 * HUGE_PAGE);
	assert_int_equal(map[HUGE_PAGE - 1], 1);
	assert_int_equal(map[2 * HUGE_PAGE], 1);
	assert_int_equal(area.failed, 0);
	munmap(map, 3 * HUGE_PAGE);
	close(fd);
	if (before >= 0)
		(void)reserve_huge_pages(before);
}

static void names(void **state)
{
	(void)state;
	assert_string_equal(discard_method_name(DISCARD_PUNCH_HOLE), "punch-hole");
	assert_string_equal(discard_method_name(DISCARD_NONE), "none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans),      cmocka_unit_test(off_alignment),
		cmocka_unit_test(resident),   cmocka_unit_test(read_only_descriptor),
		cmocka_unit_test(sealed),     cmocka_unit_test(bad_descriptor),
		cmocka_unit_test(huge_pages), cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
