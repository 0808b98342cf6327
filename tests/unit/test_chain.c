// SPDX-License-Identifier: MIT
/*
 * The walker on descriptors that a guest gets wrong, in both layouts: threats to rings 1 and 3
 * to 5.
 */
#include "helpers.h"

#define N VRING_DESC_F_NEXT
#define W VRING_DESC_F_WRITE
#define I VRING_DESC_F_INDIRECT

#define TABLE_SIZE 8U

/*
 * Guest memory: A [0x10000, 0x20000) and B [0x20000, 0x30000) touch, C [0x40000, 0x50000) does not,
 * TOP ends one page short of 2^64. Indirect tables are put at the beginning of A.
 */
#define A   0x10000ULL
#define B   0x20000ULL
#define C   0x40000ULL
#define TOP (UINT64_MAX - 2 * PAGE + 1)

static struct guest_mem mem;
static uint8_t *host_a, *host_b, *host_c, *host_top;
static struct vq_chain chain;

static int set_up(void **state)
{
	(void)state;
	host_a = test_add_region(&mem, A, 0x10000, PAGE, NULL);
	host_b = test_add_region(&mem, B, 0x10000, PAGE, NULL);
	host_c = test_add_region(&mem, C, 0x10000, PAGE, NULL);
	host_top = aligned_alloc(PAGE, PAGE);
	assert_non_null(host_top);
	/* front-end addresses that do not wrap */
	assert_int_equal(
		guest_mem_add(&mem,
			      &(struct guest_region){
				      .gpa = TOP, .size = PAGE, .uaddr = PAGE, .page_size = PAGE},
			      host_top),
		0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(host_a);
	free(host_b);
	free(host_c);
	free(host_top);
	return 0;
}

struct test_case {
	const char *name;
	enum vq_error split, packed;
	uint32_t n_read, n_write; /* where there is no error */
	uint32_t head;
	struct test_desc desc[TABLE_SIZE]; /* split: next 0 stands for the following one */
	struct test_desc inner[4];         /* at A */
};

static const struct test_case cases[] = {
	{"one", VQ_OK, VQ_OK, 1, 0, 0, {{C, 4, 0, 0}}, {{0}}},
	{"last byte", VQ_OK, VQ_OK, 1, 0, 0, {{C + 0xffff, 1, 0, 0}}, {{0}}},
	{"read, write", VQ_OK, VQ_OK, 1, 1, 0, {{C, 4, N, 0}, {C, 4, W, 0}}, {{0}}},
	{"write, read",
	 VQ_ERR_DIRECTION,
	 VQ_ERR_DIRECTION,
	 0,
	 0,
	 0,
	 {{C, 4, N | W, 0}, {C, 4, 0, 0}},
	 {{0}}},
	{"zero length", VQ_ERR_LENGTH, VQ_ERR_LENGTH, 0, 0, 0, {{C, 0, 0, 0}}, {{0}}},
	{"zero length, writable", VQ_ERR_LENGTH, VQ_ERR_LENGTH, 0, 0, 0, {{C, 0, W, 0}}, {{0}}},
	{"zero length second",
	 VQ_ERR_LENGTH,
	 VQ_ERR_LENGTH,
	 0,
	 0,
	 0,
	 {{C, 1, N, 0}, {C, 0, 0, 0}},
	 {{0}}},
	/* addresses */
	{"gap below", VQ_ERR_ADDRESS, VQ_ERR_ADDRESS, 0, 0, 0, {{C - 1, 1, 0, 0}}, {{0}}},
	{"gap behind", VQ_ERR_ADDRESS, VQ_ERR_ADDRESS, 0, 0, 0, {{C + 0x10000, 1, 0, 0}}, {{0}}},
	{"into the gap", VQ_ERR_ADDRESS, VQ_ERR_ADDRESS, 0, 0, 0, {{C, 0x10001, 0, 0}}, {{0}}},
	{"across a gap", VQ_ERR_ADDRESS, VQ_ERR_ADDRESS, 0, 0, 0, {{B, 0x20001, 0, 0}}, {{0}}},
	{"adjacent regions", VQ_OK, VQ_OK, 2, 0, 0, {{B - 2, 4, 0, 0}}, {{0}}},
	{"all of two regions", VQ_OK, VQ_OK, 0, 2, 0, {{A, 0x20000, W, 0}}, {{0}}},
	{"nowhere", VQ_ERR_ADDRESS, VQ_ERR_ADDRESS, 0, 0, 0, {{UINT64_MAX, 1, 0, 0}}, {{0}}},
	{"wraps", VQ_ERR_ADDRESS, VQ_ERR_ADDRESS, 0, 0, 0, {{UINT64_MAX, 2, 0, 0}}, {{0}}},
	{"at the top", VQ_OK, VQ_OK, 1, 0, 0, {{TOP, PAGE, 0, 0}}, {{0}}},
	{"over the top", VQ_ERR_ADDRESS, VQ_ERR_ADDRESS, 0, 0, 0, {{TOP, PAGE + 1, 0, 0}}, {{0}}},
	{"wraps into memory",
	 VQ_ERR_ADDRESS,
	 VQ_ERR_ADDRESS,
	 0,
	 0,
	 0,
	 {{TOP, UINT32_MAX, 0, 0}},
	 {{0}}},
	/* following */
	{"head past the table", VQ_ERR_HEAD, VQ_ERR_HEAD, 0, 0, TABLE_SIZE, {{C, 4, 0, 0}}, {{0}}},
	{"head far past the table", VQ_ERR_HEAD, VQ_ERR_HEAD, 0, 0, 65535, {{C, 4, 0, 0}}, {{0}}},
	{"next past the table",
	 VQ_ERR_HEAD,
	 VQ_OK,
	 2,
	 0,
	 0,
	 {{C, 4, N, TABLE_SIZE}, {C, 4, 0, 0}},
	 {{0}}},
	{"next far past the table",
	 VQ_ERR_HEAD,
	 VQ_OK,
	 2,
	 0,
	 0,
	 {{C, 4, N, 65535}, {C, 4, 0, 0}},
	 {{0}}},
	{"next is itself",
	 VQ_ERR_LOOP,
	 VQ_OK,
	 4,
	 0,
	 3,
	 {[3] = {C, 4, N, 3}, {C, 4, N, 5}, {C, 4, N, 6}, {C, 4, 0, 0}},
	 {{0}}},
	{"cycle of two",
	 VQ_ERR_LOOP,
	 VQ_OK,
	 3,
	 0,
	 1,
	 {[1] = {C, 4, N, 2}, {C, 4, N, 1}, {C, 4, 0, 0}},
	 {{0}}},
	{"next is behind",
	 VQ_OK,
	 VQ_ERR_HEAD,
	 2,
	 0,
	 7,
	 /* packed: goes on in slot 0, which is not available for this lap's wrap */
	 {[2] = {C, 4, 0, 0}, [7] = {C, 4, N, 2}},
	 {{0}}},
	{"whole table",
	 VQ_OK,
	 VQ_OK,
	 8,
	 0,
	 0,
	 {{C, 4, N, 1},
	  {C, 4, N, 2},
	  {C, 4, N, 3},
	  {C, 4, N, 4},
	  {C, 4, N, 5},
	  {C, 4, N, 6},
	  {C, 4, N, 7},
	  {C, 4, 0, 0}},
	 {{0}}},
	/* indirect */
	{"indirect",
	 VQ_OK,
	 VQ_OK,
	 2,
	 1,
	 0,
	 {{A, 48, I, 0}},
	 {{C, 4, N, 1}, {C, 4, N, 2}, {C, 4, W, 0}}},
	{"direct, then indirect",
	 VQ_OK,
	 VQ_OK,
	 2,
	 0,
	 0,
	 {{C, 4, N, 1}, {A, 16, I, 0}},
	 {{C, 4, 0, 0}}},
	{"indirect, length 0", VQ_ERR_INDIRECT, VQ_ERR_INDIRECT, 0, 0, 0, {{A, 0, I, 0}}, {{0}}},
	{"indirect, misaligned length",
	 VQ_ERR_INDIRECT,
	 VQ_ERR_INDIRECT,
	 0,
	 0,
	 0,
	 {{A, 24, I, 0}},
	 {{C, 4, 0, 0}}},
	{"indirect, 15 bytes", VQ_ERR_INDIRECT, VQ_ERR_INDIRECT, 0, 0, 0, {{A, 15, I, 0}}, {{0}}},
	{"indirect, too long",
	 VQ_ERR_INDIRECT,
	 VQ_ERR_INDIRECT,
	 0,
	 0,
	 0,
	 {{A, 32769 * 16, I, 0}},
	 {{C, 4, 0, 0}}},
	{"indirect, 4 GiB",
	 VQ_ERR_INDIRECT,
	 VQ_ERR_INDIRECT,
	 0,
	 0,
	 0,
	 {{A, 0xfffffff0, I, 0}},
	 {{C, 4, 0, 0}}},
	{"indirect with NEXT",
	 VQ_ERR_INDIRECT,
	 VQ_ERR_INDIRECT,
	 0,
	 0,
	 0,
	 {{A, 16, I | N, 1}, {C, 4, 0, 0}},
	 {{C, 4, 0, 0}}},
	{"indirect, nowhere", VQ_ERR_ADDRESS, VQ_ERR_ADDRESS, 0, 0, 0, {{0, 16, I, 0}}, {{0}}},
	{"indirect, wraps",
	 VQ_ERR_ADDRESS,
	 VQ_ERR_ADDRESS,
	 0,
	 0,
	 0,
	 {{UINT64_MAX - 7, 16, I, 0}},
	 {{0}}},
	{"indirect, over two regions",
	 VQ_ERR_ADDRESS,
	 VQ_ERR_ADDRESS,
	 0,
	 0,
	 0,
	 {{B - 16, 32, I, 0}},
	 {{0}}},
	{"indirect, nested",
	 VQ_ERR_INDIRECT,
	 VQ_OK,
	 1,
	 0,
	 0,
	 {{A, 16, I, 0}},
	 /* packed: the flag means nothing in there */
	 {{C, 16, I, 0}}},
	{"indirect, next past its table",
	 VQ_ERR_HEAD,
	 VQ_OK,
	 1,
	 0,
	 0,
	 {{A, 16, I, 0}},
	 {{C, 4, N, 1}, {C, 4, 0, 0}}},
	{"indirect, cycle",
	 VQ_ERR_LOOP,
	 VQ_OK,
	 2,
	 0,
	 0,
	 {{A, 32, I, 0}},
	 {{C, 4, N, 1}, {C, 4, N, 0}}},
	{"indirect, zero length",
	 VQ_ERR_LENGTH,
	 VQ_ERR_LENGTH,
	 0,
	 0,
	 0,
	 {{A, 16, I, 0}},
	 {{C, 0, 0, 0}}},
	{"indirect, bad address",
	 VQ_ERR_ADDRESS,
	 VQ_ERR_ADDRESS,
	 0,
	 0,
	 0,
	 {{A, 16, I, 0}},
	 {{0, 4, 0, 0}}},
	{"indirect, write then read",
	 VQ_ERR_DIRECTION,
	 VQ_ERR_DIRECTION,
	 0,
	 0,
	 0,
	 {{A, 32, I, 0}},
	 {{C, 4, W | N, 1}, {C, 4, 0, 0}}},
	{"direct write, indirect read",
	 VQ_ERR_DIRECTION,
	 VQ_ERR_DIRECTION,
	 0,
	 0,
	 0,
	 {{C, 4, W | N, 1}, {A, 16, I, 0}},
	 {{C, 4, 0, 0}}},
};

static enum vq_error walk(const struct test_case *c, bool packed, bool indirect_ok)
{
	/* Exactly as long as the table, so that reading past it shows. */
	uint8_t *table = malloc(TABLE_SIZE * 16);
	struct desc_table t = {.base = table,
			       .size = TABLE_SIZE,
			       .layout = packed ? DESC_PACKED_RING : DESC_SPLIT,
			       .avail_flags = test_avail_flags(true)};
	enum vq_error error;

	assert_non_null(table);
	for (uint32_t i = 0; i < TABLE_SIZE; i++) {
		struct test_desc d = c->desc[i];

		if (!d.next)
			d.next = (uint16_t)(i + 1);
		if (packed) {
			d.flags = (uint16_t)(d.flags | test_avail_flags(true));
			d.next = (uint16_t)(100 + i);
		}
		test_put_desc(table, packed, i, d);
	}
	for (uint32_t i = 0; i < ARRAY_SIZE(c->inner); i++)
		test_put_desc(host_a, packed, i, c->inner[i]);
	error = chain_walk(&chain, &mem, &t, c->head, indirect_ok);
	free(table);
	return error;
}

static void check_segments(void)
{
	uint64_t read = 0, write = 0;

	for (uint32_t i = 0; i < chain.n_read + chain.n_write; i++) {
		const struct chain_seg *seg = &chain.seg[i];
		bool inside = false;

		assert_true(seg->len > 0);
		for (uint32_t r = 0; r < mem.n; r++)
			inside |= seg->host >= mem.host[r] &&
				  range_within((uint64_t)(seg->host - mem.host[r]), seg->len,
					       mem.region[r].size);
		assert_true(inside);
		*(i < chain.n_read ? &read : &write) += seg->len;
	}
	assert_true(read == chain.read_bytes && write == chain.write_bytes);
}

static void table_of_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (int packed = 0; packed < 2; packed++) {
			const struct test_case *c = &cases[i];
			enum vq_error expected = packed ? c->packed : c->split;
			enum vq_error got = walk(c, packed, true);

			if (got != expected)
				fail_msg("%s, %s: %s instead of %s", c->name,
					 packed ? "packed" : "split", vq_error_name(got),
					 vq_error_name(expected));
			if (got)
				continue;
			assert_int_equal(chain.n_read, c->n_read);
			assert_int_equal(chain.n_write, c->n_write);
			check_segments();
		}
	}
}

static void indirect_not_negotiated(void **state)
{
	const struct test_case c = {.desc = {{A, 16, I, 0}}, .inner = {{C, 4, 0, 0}}};

	(void)state;
	assert_int_equal(walk(&c, false, false), VQ_ERR_INDIRECT);
	assert_int_equal(walk(&c, true, false), VQ_ERR_INDIRECT);
}

/* Id and slots of packed chains: id of the last descriptor in the ring, not in the table. */
static void packed_ids(void **state)
{
	const struct test_case direct = {.head = 2,
					 .desc = {[2] = {C, 4, N, 0}, {C, 4, N, 0}, {C, 4, 0, 0}}};
	const struct test_case indirect = {
		.head = 5, .desc = {[5] = {C, 4, N, 0}, {A, 16, I, 0}}, .inner = {{C, 4, 0, 7}}};

	(void)state;
	assert_int_equal(walk(&direct, true, true), VQ_OK);
	assert_int_equal(chain.id, 104);
	assert_int_equal(chain.slots, 3);
	assert_int_equal(walk(&indirect, true, true), VQ_OK);
	assert_int_equal(chain.id, 106);
	assert_int_equal(chain.slots, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_of_cases),
		cmocka_unit_test(indirect_not_negotiated),
		cmocka_unit_test(packed_ids),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
