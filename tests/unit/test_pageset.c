// SPDX-License-Identifier: MIT
#include "helpers.h"

#include "base/bitmap.h"

static uint8_t host[1]; /* never touched: regions here are numbers only */

static void add(struct guest_mem *mem, uint64_t gpa, uint64_t size)
{
	struct guest_region r = {.gpa = gpa, .size = size, .uaddr = gpa, .page_size = PAGE};

	assert_int_equal(guest_mem_add(mem, &r, host), 0);
}

static uint64_t *lay_out(struct pageset *held, const struct guest_mem *mem,
			 const struct pageset *old)
{
	/* One byte past the bitmap is one too many. */
	uint64_t *map = calloc(pageset_words(mem) ? pageset_words(mem) : 1, sizeof(*map));

	assert_non_null(map);
	pageset_init(held, mem, map, old);
	return map;
}

/* pageset_locate() page by page, and in one go from every page to every end, say the same. */
static void check_locate(const struct pageset *held, const struct guest_mem *mem, uint64_t end)
{
	for (uint64_t pfn = 0; pfn < end; pfn++) {
		uint64_t n = 1, page = 0, gpa = pfn * PAGE, long_n = end, long_page = 0;
		int index = pageset_locate(held, pfn, &n, &page), expected = -1, again;

		for (uint32_t i = 0; i < mem->n; i++) {
			const struct guest_region *r = &mem->region[i];

			if (gpa >= r->gpa && range_within(gpa - r->gpa, PAGE, r->size))
				expected = (int)i;
		}
		assert_int_equal(index, expected);
		assert_int_equal(n, 1);
		again = pageset_locate(held, pfn, &long_n, &long_page);
		assert_int_equal(again, expected);
		assert_true(long_n >= 1);
		for (uint64_t k = 1; k < long_n && pfn + k < end; k++) {
			uint64_t one = 1, p;

			assert_int_equal(pageset_locate(held, pfn + k, &one, &p), expected);
			if (expected >= 0)
				assert_int_equal(p, page + k);
		}
	}
}

static void locate(void **state)
{
	struct guest_mem mem = {0};
	struct pageset held, none = {0};
	uint64_t *map;

	(void)state;
	add(&mem, 0x2000, 0x3000);
	add(&mem, 0x5000, 0x1000); /* touches */
	add(&mem, 0x8800, 0x3000); /* begins and ends within a page */
	add(&mem, 0xb800, 0x100);  /* holds no whole page */
	add(&mem, 0xb900, 0x2700); /* the page that it shares is in neither */
	add(&mem, 0x10000, 0x45000);
	map = lay_out(&held, &mem, &none);
	check_locate(&held, &mem, 0x70);
	assert_int_equal(held.count, 0);
	assert_int_equal(pageset_words(&mem), 1 + 1 + 1 + 0 + 1 + 2);
	free(map);
}

static void limits(void **state)
{
	struct guest_mem mem = {0};
	struct pageset held, none = {0};
	uint64_t n, page, *map;

	(void)state;
	map = lay_out(&held, &mem, &none);
	n = 5;
	assert_int_equal(pageset_locate(&held, 0, &n, &page), -1);
	assert_int_equal(n, 5);
	free(map);

	/* As many regions as there can be, and a page behind the last one. */
	for (uint64_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++)
		add(&mem, i * 2 * PAGE, PAGE);
	map = lay_out(&held, &mem, &none);
	check_locate(&held, &mem, 140);
	for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++)
		assert_int_equal(pageset_set(&held, i, 0, 1), 1);
	assert_int_equal(held.count, 64);
	pageset_clear(&held);
	assert_int_equal(held.count, 0);
	for (uint64_t i = 0; i < pageset_words(&mem); i++)
		assert_int_equal(map[i], 0);
	free(map);

	/* The last page that a PFN can name, and memory above it. */
	mem.n = 0;
	add(&mem, 0xfffffffULL * 16 * PAGE, 32ULL * PAGE);
	map = lay_out(&held, &mem, &none);
	n = 1;
	assert_int_equal(pageset_locate(&held, UINT32_MAX, &n, &page), 0);
	assert_int_equal(page, 15);
	free(map);
	/* Up to the top of the address space. */
	mem.n = 0;
	add(&mem, UINT64_MAX - 0x2800, 0x2800);
	map = lay_out(&held, &mem, &none);
	assert_int_equal(held.at.region[0].pages, 1);
	assert_true(held.at.region[0].first_pfn == UINT64_MAX / PAGE - 1);
	free(map);
}

static void set_and_unset(void **state)
{
	struct guest_mem mem = {0};
	struct pageset held, none = {0};
	uint64_t *map;

	(void)state;
	add(&mem, 0, 100ULL * PAGE);
	add(&mem, 100ULL * PAGE, 200ULL * PAGE);
	map = lay_out(&held, &mem, &none);
	assert_int_equal(pageset_set(&held, 0, 60, 40), 40);
	assert_int_equal(pageset_set(&held, 0, 0, 100), 60);
	assert_int_equal(pageset_set(&held, 0, 0, 100), 0);
	assert_true(pageset_all(&held, 0, 0, 100));
	assert_false(pageset_all(&held, 1, 0, 1)); /* the neighbour's bits are others */
	assert_int_equal(pageset_set(&held, 1, 63, 2), 2);
	assert_true(pageset_all(&held, 1, 63, 2));
	assert_false(pageset_all(&held, 1, 62, 2));
	assert_false(pageset_all(&held, 1, 64, 2));
	assert_true(pageset_all(&held, 1, 5, 0));
	assert_int_equal(held.count, 102);
	assert_int_equal(pageset_unset(&held, 1, 0, 200), 2);
	assert_int_equal(pageset_unset(&held, 0, 99, 1), 1);
	assert_int_equal(held.count, 99);
	free(map);
}

/* Pages that are held stay so when regions come, go, split, join and move in the table. */
static void changes_of_the_table(void **state)
{
	struct guest_mem before = {0}, after = {0};
	struct pageset old, held, none = {0};
	uint64_t *old_map, *map, n, page, bits = 0;

	(void)state;
	add(&before, 0x100 * PAGE, 0x100 * PAGE);
	add(&before, 0x400 * PAGE, 0x100 * PAGE);
	add(&before, 0x800 * PAGE, 0x100 * PAGE);
	old_map = lay_out(&old, &before, &none);
	pageset_set(&old, 0, 0, 0x100);
	pageset_set(&old, 1, 0x3f, 2);
	pageset_set(&old, 1, 0xff, 1);
	pageset_set(&old, 2, 0x80, 0x80);

	add(&after, 0, 0x10 * PAGE);                 /* new, moves all others on */
	add(&after, 0x100 * PAGE, 0x33 * PAGE);      /* cut in two, with a hole */
	add(&after, 0x140 * PAGE, 0x100 * PAGE);     /* and grown */
	add(&after, 0x8c0 * PAGE + 0x800, 8 * PAGE); /* off by half a page; the one at 0x400 gone */
	map = lay_out(&held, &after, &old);

	for (uint64_t pfn = 0; pfn < 0xa00; pfn++) {
		bool was = (pfn >= 0x100 && pfn < 0x200) || (pfn >= 0x880 && pfn < 0x900);
		int index;

		n = 1;
		index = pageset_locate(&held, pfn, &n, &page);
		if (index >= 0)
			assert_int_equal(pageset_all(&held, (uint32_t)index, page, 1), was);
	}
	assert_int_equal(held.count, 0x33 + 0xc0 + 7);
	for (uint64_t i = 0; i < pageset_words(&after); i++)
		bits += (uint64_t)__builtin_popcountll(map[i]);
	assert_int_equal(held.count, bits);

	/* To nothing, and back: forgotten. */
	after.n = 0;
	pageset_init(&old, &after, old_map, &held);
	assert_int_equal(old.count, 0);
	free(old_map);
	old_map = lay_out(&held, &before, &old);
	assert_int_equal(held.count, 0);
	free(old_map);
	free(map);
}

/* A bitmap that is found: what is in it counts, whoever has put it there last. */
static void attach(void **state)
{
	struct guest_mem mem = {0};
	struct pageset first, again, none = {0};
	uint64_t *map;

	(void)state;
	add(&mem, 0, 100ULL * PAGE);
	add(&mem, 0x100000, 200ULL * PAGE);
	map = lay_out(&first, &mem, &none);
	assert_int_equal(pageset_layout_words(&first.at), pageset_words(&mem));
	pageset_set(&first, 0, 3, 1);
	pageset_set(&first, 0, 99, 1);
	pageset_set(&first, 1, 0, 200);
	memset(&again, 0xff, sizeof(again));
	pageset_attach(&again, &first.at, map);
	assert_int_equal(again.count, 202);
	assert_ptr_equal(again.map, map);
	assert_true(pageset_all(&again, 1, 0, 200));
	check_locate(&again, &mem, 0x200);
	pageset_clear(&again);
	assert_int_equal(again.count, 0);
	pageset_attach(&first, &again.at, map);
	assert_int_equal(first.count, 0);
	pageset_attach(&first, &again.at, NULL);
	assert_int_equal(first.count, 0);
	free(map);
}

/* The runs of a region, from anywhere, to its end and not into the next one's. */
static void runs(void **state)
{
	struct guest_mem mem = {0};
	struct pageset set, none = {0};
	uint64_t *map, page, n;

	(void)state;
	add(&mem, 0, 100ULL * PAGE);
	add(&mem, 100ULL * PAGE, 64ULL * PAGE);
	map = lay_out(&set, &mem, &none);
	pageset_set(&set, 0, 0, 2);
	pageset_set(&set, 0, 60, 40);
	pageset_set(&set, 1, 0, 64);
	page = 0;
	assert_true(pageset_next_run(&set, 0, &page, &n));
	assert_true(page == 0 && n == 2);
	page = 2;
	assert_true(pageset_next_run(&set, 0, &page, &n));
	assert_true(page == 60 && n == 40);
	page = 77;
	assert_true(pageset_next_run(&set, 0, &page, &n));
	assert_true(page == 77 && n == 23);
	page = 100;
	assert_false(pageset_next_run(&set, 0, &page, &n));
	page = 1;
	assert_true(pageset_next_run(&set, 1, &page, &n));
	assert_true(page == 1 && n == 63);
	page = 64;
	assert_false(pageset_next_run(&set, 1, &page, &n));
	free(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(locate),        cmocka_unit_test(limits),
		cmocka_unit_test(set_and_unset), cmocka_unit_test(changes_of_the_table),
		cmocka_unit_test(attach),        cmocka_unit_test(runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
