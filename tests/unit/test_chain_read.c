// SPDX-License-Identifier: MIT
/* The longest chains there are, and reading from chains. */
#include "helpers.h"

#include <sys/mman.h>

#define N VRING_DESC_F_NEXT
#define W VRING_DESC_F_WRITE
#define I VRING_DESC_F_INDIRECT
#define A 0x10000ULL

static struct vq_chain chain;

/* The longest there are: 2^32 bytes, 32768 descriptors; and one more of each. */
static void limits(void **state)
{
	const uint32_t size = VRING_SIZE_MAX;
	const uint64_t big_gpa = 1ULL << 33;
	uint8_t *table = malloc((size_t)size * 16), *inner = malloc(32);
	void *big = mmap(NULL, 1ULL << 33, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			 -1, 0);
	struct desc_table t = {.base = table, .size = size, .layout = DESC_SPLIT};
	struct guest_mem huge = {0};

	(void)state;
	assert_non_null(table);
	assert_non_null(inner);
	assert_true(big != MAP_FAILED);
	test_add_region(&huge, big_gpa, 1ULL << 33, PAGE, big);
	test_add_region(&huge, A, 32, PAGE, inner);

	test_put_desc(table, false, 0, (struct test_desc){big_gpa, UINT32_MAX, N, 1});
	test_put_desc(table, false, 1, (struct test_desc){big_gpa, 1, 0, 0});
	assert_int_equal(chain_walk(&chain, &huge, &t, 0, true), VQ_OK);
	assert_true(chain.read_bytes == 1ULL << 32);
	test_put_desc(table, false, 1, (struct test_desc){big_gpa, 2, 0, 0});
	assert_int_equal(chain_walk(&chain, &huge, &t, 0, true), VQ_ERR_LENGTH);
	test_put_desc(table, false, 1, (struct test_desc){big_gpa, 2, W, 0});
	assert_int_equal(chain_walk(&chain, &huge, &t, 0, true), VQ_ERR_LENGTH);

	for (uint32_t i = 0; i < size; i++)
		test_put_desc(table, false, i,
			      (struct test_desc){big_gpa + i, 1, i + 1 < size ? N : 0,
						 (uint16_t)(i + 1)});
	assert_int_equal(chain_walk(&chain, &huge, &t, 0, true), VQ_OK);
	assert_int_equal(chain.n_read, size);
	/* the last one leads to a table of two */
	test_put_desc(table, false, size - 1, (struct test_desc){A, 32, I, 0});
	test_put_desc(inner, false, 0, (struct test_desc){big_gpa, 1, 0, 1});
	test_put_desc(inner, false, 1, (struct test_desc){big_gpa, 1, 0, 0});
	assert_int_equal(chain_walk(&chain, &huge, &t, 0, true), VQ_OK);
	test_put_desc(inner, false, 0, (struct test_desc){big_gpa, 1, N, 1});
	assert_int_equal(chain_walk(&chain, &huge, &t, 0, true), VQ_ERR_SEGMENTS);
	munmap(big, 1ULL << 33);
	free(table);
	free(inner);
}

/* Reading and skipping in pieces of every size, over segments of uneven lengths. */
static void cursors(void **state)
{
	uint8_t data[64], got[64];
	struct vq_chain *c = &chain;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	c->n_read = 5;
	c->n_write = 1;
	c->seg[0] = (struct chain_seg){data, 1};
	c->seg[1] = (struct chain_seg){data + 1, 2};
	c->seg[2] = (struct chain_seg){data + 3, 7};
	c->seg[3] = (struct chain_seg){data + 10, 1};
	c->seg[4] = (struct chain_seg){data + 11, 19};
	c->seg[5] = (struct chain_seg){data + 30, 34}; /* writable: never read */
	for (size_t skip = 0; skip <= 32; skip++) {
		for (size_t step = 1; step <= 33; step++) {
			struct chain_cursor at = {0};
			size_t have = skip < 30 ? skip : 30, n;

			chain_skip(c, &at, skip);
			while ((n = chain_read(c, &at, got, step))) {
				assert_memory_equal(got, data + have, n);
				have += n;
				assert_true(n == step || have == 30);
			}
			assert_int_equal(have, 30);
			assert_int_equal(chain_read(c, &at, got, 1), 0);
			chain_skip(c, &at, UINT64_MAX);
		}
	}
}

static void names(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < VQ_ERR_COUNT; i++) {
		for (unsigned int j = 0; j < i; j++)
			assert_string_not_equal(vq_error_name((enum vq_error)i),
						vq_error_name((enum vq_error)j));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits),
		cmocka_unit_test(cursors),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
