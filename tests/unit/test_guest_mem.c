// SPDX-License-Identifier: MIT
#include "helpers.h"

#include <errno.h>

static uint8_t room[1U << 20];

static struct guest_region region(uint64_t gpa, uint64_t size, uint64_t uaddr)
{
	return (struct guest_region){.gpa = gpa, .size = size, .uaddr = uaddr, .page_size = PAGE};
}

static void refusals(void **state)
{
	static const struct {
		struct guest_region r;
		int result;
	} cases[] = {
		{{.gpa = 0x9000, .size = 0, .page_size = PAGE}, -EINVAL},
		{{.gpa = 0x9000, .size = PAGE, .page_size = 0}, -EINVAL},
		{{.gpa = 0x9000, .size = PAGE, .page_size = 5000}, -EINVAL},
		{{.gpa = UINT64_MAX, .size = 1, .page_size = PAGE}, -EINVAL},
		{{.gpa = 1, .size = UINT64_MAX, .page_size = PAGE}, -EINVAL},
		{{.gpa = 0x9000, .size = PAGE, .uaddr = UINT64_MAX - 4095, .page_size = PAGE},
		 -EINVAL},
		/* the one there is: [0x1000, 0x3000) at front-end address 0x501000 */
		{{.gpa = 0x1000, .size = 0x2000, .uaddr = 0x501000, .page_size = PAGE}, -EEXIST},
		{{.gpa = 0, .size = 0x1001, .uaddr = 0x900000, .page_size = PAGE}, -EEXIST},
		{{.gpa = 0x2fff, .size = 1, .uaddr = 0x900000, .page_size = PAGE}, -EEXIST},
		{{.gpa = 0, .size = 0x10000, .uaddr = 0x900000, .page_size = PAGE}, -EEXIST},
		{{.gpa = 0x9000, .size = 0x1001, .uaddr = 0x500000, .page_size = PAGE}, -EEXIST},
		{{.gpa = 0x9000, .size = 1, .uaddr = 0x502fff, .page_size = PAGE}, -EEXIST},
		{{.gpa = 0, .size = 0x1000, .uaddr = 0x500000, .page_size = PAGE}, 0},
		{{.gpa = 0x3000, .size = 0x1000, .uaddr = 0x503000, .page_size = PAGE}, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct guest_region first = region(0x1000, 0x2000, 0x501000);
		struct guest_mem mem = {0};

		assert_int_equal(guest_mem_add(&mem, &first, room), 0);
		assert_int_equal(guest_mem_add(&mem, &cases[i].r, room), cases[i].result);
		assert_int_equal(mem.n, cases[i].result ? 1 : 2);
	}
}

/* 64 regions added in any order are found by binary search, each at its own host address. */
static void full_table(void **state)
{
	struct guest_mem mem = {0};
	struct guest_region one_more = region(0, 1, 0);

	(void)state;
	for (uint64_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++) {
		uint64_t k = i * 37 % GUEST_MEM_MAX_REGIONS;
		/* front-end addresses run the other way */
		struct guest_region r = region((k + 1) * 0x10000, 0x4000, (100 - k) * 0x10000);

		assert_int_equal(guest_mem_add(&mem, &r, room + k * 0x4000), 0);
	}
	assert_int_equal(guest_mem_add(&mem, &one_more, room), -ENOSPC);
	assert_int_equal(guest_mem_total(&mem), 64 * 0x4000);
	for (uint64_t k = 0; k < GUEST_MEM_MAX_REGIONS; k++) {
		uint64_t gpa = (k + 1) * 0x10000, len = UINT64_MAX;

		assert_int_equal(guest_mem_find(&mem, gpa - 1), -1);
		assert_int_equal(guest_mem_find(&mem, gpa), (int)k);
		assert_int_equal(guest_mem_find(&mem, gpa + 0x3fff), (int)k);
		assert_int_equal(guest_mem_find(&mem, gpa + 0x4000), -1);
		assert_ptr_equal(guest_mem_gpa(&mem, gpa + 0x3ff0, &len),
				 room + k * 0x4000 + 0x3ff0);
		assert_int_equal(len, 0x10);
		assert_ptr_equal(guest_mem_uaddr(&mem, (100 - k) * 0x10000 + 8, 0x3ff8),
				 room + k * 0x4000 + 8);
		assert_null(guest_mem_uaddr(&mem, (100 - k) * 0x10000 + 8, 0x3ff9));
	}
	assert_int_equal(guest_mem_find(&mem, UINT64_MAX), -1);

	guest_mem_remove(&mem, 63);
	guest_mem_remove(&mem, 0);
	guest_mem_remove(&mem, 30);
	assert_int_equal(mem.n, 61);
	assert_int_equal(guest_mem_find(&mem, 0x10000), -1);
	assert_int_equal(guest_mem_find(&mem, 64 * 0x10000), -1);
	assert_int_equal(guest_mem_find(&mem, 32 * 0x10000), -1);
	assert_int_equal(guest_mem_find(&mem, 0x20000), 0);
	assert_int_equal(guest_mem_find(&mem, 33 * 0x10000), 30);
	assert_ptr_equal(mem.host[30], room + 32 * 0x4000);
}

static void lookups(void **state)
{
	struct guest_mem mem = {0};
	struct guest_region top = region(UINT64_MAX - PAGE, PAGE, UINT64_MAX - PAGE);
	uint64_t len = 1;

	(void)state;
	assert_int_equal(guest_mem_find(&mem, 0), -1);
	assert_null(guest_mem_gpa(&mem, 0, &len));
	assert_null(guest_mem_uaddr(&mem, 0, 0));
	assert_int_equal(guest_mem_total(&mem), 0);

	assert_int_equal(guest_mem_add(&mem, &top, room), 0);
	len = UINT64_MAX;
	assert_ptr_equal(guest_mem_gpa(&mem, UINT64_MAX - 1, &len), room + PAGE - 1);
	assert_int_equal(len, 1);
	assert_int_equal(guest_mem_find(&mem, UINT64_MAX), -1);
	assert_null(guest_mem_uaddr(&mem, UINT64_MAX - 1, 2));
	assert_null(guest_mem_uaddr(&mem, UINT64_MAX - 1, UINT64_MAX));
	assert_non_null(guest_mem_uaddr(&mem, UINT64_MAX - 1, 1));
}

/* A ring must lie in one region, even where two regions meet in the front end's space. */
static void adjacent_in_front_end_space(void **state)
{
	struct guest_mem mem = {0};
	struct guest_region a = region(0, PAGE, 0x10000), b = region(0x100000, PAGE, 0x11000);

	(void)state;
	assert_int_equal(guest_mem_add(&mem, &a, room), 0);
	assert_int_equal(guest_mem_add(&mem, &b, room + PAGE), 0);
	assert_null(guest_mem_uaddr(&mem, 0x10ff0, 0x20));
	assert_ptr_equal(guest_mem_uaddr(&mem, 0x11000, 0x20), room + PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refusals),
		cmocka_unit_test(full_table),
		cmocka_unit_test(lookups),
		cmocka_unit_test(adjacent_in_front_end_space),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
