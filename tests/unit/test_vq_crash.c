// SPDX-License-Identifier: MIT
/*
 * A device that dies while it serves a ring, and another that goes on with the state that was saved
 * last. The driver, which knows nothing of it and sleeps unless it is told of used buffers, must
 * get every buffer back, once, in order.
 */
#include "helpers.h"

#include <errno.h>

#include "driver/ring.h"

#define GPA     0x100000ULL
#define BUFFERS 0x8000U /* where in the region they are */
#define ROOM    0x10000U
#define PACKED  BIT(VIRTIO_F_RING_PACKED)
#define EVENT   BIT(VIRTIO_F_EVENT_IDX)
#define SPLIT   0ULL
#define FRESH   0x80008000U /* of a packed ring */

/* How far a push comes before the device dies. */
enum death {
	DEATH_POPPED,    /* nothing is saved since the last push */
	DEATH_HELD,      /* saved with buffers in hand */
	DEATH_PREPARED,  /* prepared, and not saved */
	DEATH_SAVED,     /* prepared and saved */
	DEATH_HALF,      /* ... and the entry written, but not what publishes it */
	DEATH_PUBLISHED, /* ... and published */
	DEATH_REUSED,    /* ... and the driver has taken the buffer and sent others */
	DEATH_ASKED,     /* ... and the driver was looked at, but not told */
	DEATH_NONE,
	DEATH_COUNT,
};

struct popped {
	uint16_t id, slots;
	uint32_t serial;
};

static struct {
	struct guest_mem mem;
	uint8_t *host;
	/* the driver: buffers have serial numbers, which stand in them */
	struct driver_ring driver;
	uint32_t serial[DRIVER_RING_MAX]; /* by id */
	uint32_t sent, returned;
	bool told;
	/* the device */
	struct vq vq;
	struct popped hand[DRIVER_RING_MAX];
	uint32_t in_hand;
	uint32_t next; /* serial that must be popped next */
	/* what outlives it */
	struct vq_state saved;
	uint32_t random;
} t;

static struct vq_chain chain;

static int set_up(void **state)
{
	(void)state;
	t.host = test_add_region(&t.mem, GPA, ROOM, PAGE, NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(t.host);
	return 0;
}

static uint32_t random_below(uint32_t n)
{
	t.random = t.random * 1664525U + 1013904223U;
	return (t.random >> 8) % n;
}

static void save(void)
{
	t.saved = t.vq.st;
}

static void start(uint64_t features, uint16_t size)
{
	const bool packed = features & PACKED;
	struct vq_state *st = &t.vq.st;

	memset(t.host, 0, ROOM);
	driver_ring_init(&t.driver, packed, features & EVENT, size, t.host);
	driver_ring_enable_notify(&t.driver);
	t.sent = t.returned = t.in_hand = t.next = 0;
	t.told = true;
	memset(&t.vq, 0, sizeof(t.vq));
	vq_set_features(&t.vq, features);
	vq_set_base(&t.vq, vq_fresh_base(packed));
	st->size = size;
	st->desc_uaddr = TEST_UADDR + GPA;
	st->driver_uaddr = st->desc_uaddr + driver_ring_driver_offset(size);
	st->device_uaddr = st->desc_uaddr + driver_ring_device_offset(packed, size);
	assert_int_equal(vq_start(&t.vq, &t.mem), 0);
	save();
}

/* Sends as many buffers, of random length, as the ring holds. */
static void driver_send(void)
{
	for (;;) {
		uint32_t at = BUFFERS + t.sent % DRIVER_RING_MAX * 16;
		struct driver_buf buf[3] = {{GPA + at, 4}, {GPA + at + 4, 4}, {GPA + at + 8, 4}};
		uint16_t n = (uint16_t)(1 + random_below(3));
		int id;

		le32_put(t.host + at, t.sent);
		id = driver_ring_add(&t.driver, buf, n, n);
		if (id < 0 && n > 1)
			id = driver_ring_add(&t.driver, buf, 1, 1);
		if (id < 0)
			return;
		t.serial[id] = t.sent++;
	}
}

/* Takes what is used; sleeps when there is nothing more. */
static void driver_take(void)
{
	uint32_t written = 0;
	uint16_t id = 0;

	do {
		while (driver_ring_used(&t.driver, &id, &written)) {
			assert_int_equal(t.serial[id], t.returned);
			assert_int_equal(written, t.returned % 3);
			t.returned++;
		}
		driver_ring_enable_notify(&t.driver);
		t.told = driver_ring_used(&t.driver, &id, &written);
		assert_false(t.told); /* there is nobody else who could have sent one meanwhile */
	} while (t.told);
}

static void driver_run(void)
{
	if (t.told)
		driver_take();
	driver_send();
}

static void device_pop(void)
{
	struct chain_cursor at = {0};
	uint8_t raw[4] = {0};

	assert_int_equal(vq_pop(&t.vq, &chain), 1);
	assert_int_equal(chain_read(&chain, &at, raw, 4), 4);
	assert_int_equal(le32_get(raw), t.next);
	t.hand[t.in_hand++] = (struct popped){chain.id, chain.slots, t.next++};
}

/* Writes of a push what is written before the driver can see it. */
static void write_half(void)
{
	struct vq_state st = t.vq.st;
	uint8_t *idx = t.driver.packed ? NULL : t.driver.device + VRING_USED_IDX;
	uint8_t flags[DRIVER_RING_MAX][2];

	for (uint32_t i = 0; i < t.driver.size; i++)
		memcpy(flags[i], t.driver.desc + (size_t)i * VRING_DESC_SIZE + 14, 2);
	vq_push_publish(&t.vq);
	t.vq.st = st;
	if (idx)
		le16_put(idx, (uint16_t)(st.used - 1));
	for (uint32_t i = 0; t.driver.packed && i < t.driver.size; i++)
		memcpy(t.driver.desc + (size_t)i * VRING_DESC_SIZE + 14, flags[i], 2);
}

/* Pushes the oldest buffer in hand, as far as the device lives. True: the push is a fact. */
static bool device_push(enum death death)
{
	const struct popped oldest = t.hand[0];

	if (death == DEATH_HELD)
		save();
	if (death <= DEATH_HELD)
		return false;
	vq_push_prepare(&t.vq, oldest.id, oldest.slots, oldest.serial % 3);
	if (death == DEATH_PREPARED)
		return false;
	save();
	if (death == DEATH_HALF)
		write_half();
	if (death <= DEATH_HALF)
		return true;
	vq_push_publish(&t.vq);
	if (death == DEATH_REUSED) {
		driver_take();
		driver_send();
	}
	if (death <= DEATH_REUSED)
		return true;
	if (vq_should_notify(&t.vq) && death == DEATH_NONE)
		t.told = true;
	if (death == DEATH_ASKED && random_below(2))
		save();
	t.in_hand--;
	memmove(t.hand, t.hand + 1, t.in_hand * sizeof(t.hand[0]));
	return true;
}

/* Another device goes on; `pushed` buffers are a fact by now. */
static void device_reborn(uint32_t pushed)
{
	memset(&t.vq, 0xee, sizeof(t.vq));
	t.vq = (struct vq){.st = t.saved};
	t.in_hand = 0;
	t.next = pushed;
	assert_int_equal(vq_recover(&t.vq, &t.mem), 0);
	assert_int_equal(t.vq.st.in_use, 0);
	assert_int_equal(t.vq.st.pushing, 0);
	if (vq_should_notify(&t.vq))
		t.told = true;
	/* Before the first thing that it saves it may die once more, and again. */
	if (random_below(2))
		save();
}

/* `always`: the one way to die, DEATH_COUNT: any. */
static void serve_and_die(uint64_t features, uint16_t size, enum death always, uint32_t rounds)
{
	uint32_t pushed = 0;

	start(features, size);
	for (uint32_t i = 0; i < rounds; i++) {
		enum death death =
			always == DEATH_COUNT ? (enum death)random_below(DEATH_COUNT) : always;

		/* Who dies always before a push is saved gets nothing done. */
		if (always <= DEATH_PREPARED && i % 2)
			death = DEATH_NONE;
		driver_run();
		for (uint32_t n = 1 + random_below(3); n > t.in_hand && t.next < t.sent;)
			device_pop();
		/* Else the driver sleeps, with all its buffers back. */
		assert_true(t.in_hand > 0);
		/* Sometimes the state is saved for the sake of another ring. */
		if (!random_below(4))
			save();
		pushed += device_push(death);
		if (death != DEATH_NONE)
			device_reborn(pushed);
		if (t.next == t.sent)
			assert_false(vq_enable_kicks(&t.vq));
		assert_in_range(t.returned, 0, pushed);
	}
	driver_take();
	assert_int_equal(t.returned, pushed);
	assert_in_range(pushed, rounds / 3, rounds);
}

static const uint64_t kinds[] = {SPLIT, EVENT, PACKED, PACKED | EVENT};

static void each_death(void **state)
{
	static const uint16_t sizes[2][4] = {{1, 2, 4, 16}, {1, 3, 5, 16}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (size_t k = 0; k < 4; k++) {
			uint16_t size = sizes[kinds[i] & PACKED ? 1 : 0][k];

			for (int death = 0; death < DEATH_COUNT; death++)
				serve_and_die(kinds[i], size, (enum death)death, 300);
			serve_and_die(kinds[i], size, DEATH_COUNT, 3000);
		}
	}
}

/* Until the indices of a split ring wrap. */
static void many_deaths(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		serve_and_die(kinds[i], 8, DEATH_COUNT, 120000);
		assert_in_range(t.returned, UINT16_MAX + 1, UINT32_MAX);
	}
}

/* As statistics are: one buffer, which is kept for long, is all there is. */
static void one_held(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		uint32_t pushed = 0;

		start(kinds[i], 4);
		for (uint32_t k = 0; k < 50; k++) {
			struct driver_buf buf[2] = {{GPA + BUFFERS, 4}, {GPA + BUFFERS + 4, 4}};
			uint16_t n = (uint16_t)(1 + k % 2);
			int id;

			if (t.told)
				driver_take();
			assert_int_equal(t.returned, k);
			le32_put(t.host + BUFFERS, k);
			id = driver_ring_add(&t.driver, buf, n, n);
			assert_true(id >= 0);
			t.serial[id] = t.sent++;
			device_pop();
			for (uint32_t deaths = k % 4; deaths; deaths--) {
				save();
				assert_int_equal(t.vq.st.in_use, kinds[i] & PACKED ? n : 1);
				device_reborn(pushed);
				device_pop(); /* it comes again */
				assert_int_equal(vq_pop(&t.vq, &chain), 0);
			}
			pushed += device_push(DEATH_NONE);
			assert_true(t.told);
		}
	}
}

/* Who goes on with a broken queue has a broken queue; what was prepared comes out all the same. */
static void broken(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (uint32_t prepared = 0; prepared < 2; prepared++) {
			start(kinds[i], 4);
			driver_send();
			device_pop();
			vq_break(&t.vq, VQ_ERR_DIRECTION);
			(void)device_push(prepared ? DEATH_SAVED : DEATH_HELD);
			device_reborn(prepared);
			assert_int_equal(t.vq.st.error, VQ_ERR_DIRECTION);
			assert_int_equal(vq_pop(&t.vq, &chain), -EPROTO);
			assert_false(vq_enable_kicks(&t.vq));
			driver_take();
			assert_int_equal(t.returned, prepared);
			/* Started anew it serves again. */
			vq_stop(&t.vq);
			assert_int_equal(vq_start(&t.vq, &t.mem), 0);
			device_pop();
		}
	}
}

/* Nothing prepared, nothing in hand: nothing is written. */
static void idle(void **state)
{
	uint8_t before[ROOM / 16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (uint32_t k = 0; k < 11; k++) {
			start(kinds[i], 4);
			for (uint32_t n = 0; n < k; n++) {
				driver_run();
				device_pop();
				(void)device_push(DEATH_NONE);
			}
			save();
			memcpy(before, t.host, sizeof(before));
			device_reborn(k);
			assert_memory_equal(before, t.host, sizeof(before));
			assert_int_equal(vq_base(&t.vq), vq_base(&(struct vq){.st = t.saved}));
			/* It is not known whether the driver was told of the last one. */
			t.vq.st = t.saved;
			vq_stop(&t.vq);
			assert_int_equal(vq_recover(&t.vq, &t.mem), 0);
			assert_true(vq_should_notify(&t.vq));
			assert_false(vq_should_notify(&t.vq));
		}
	}
}

/* A state that no ring can be in is refused, and nothing is touched. */
static void impossible(void **state)
{
	uint8_t before[ROOM / 16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (uint32_t what = 0; what < 6; what++) {
			bool packed = kinds[i] & PACKED;
			int expected = -EINVAL;

			start(kinds[i], 4);
			driver_send();
			device_pop();
			vq_push_prepare(&t.vq, t.hand[0].id, t.hand[0].slots, 0);
			save();
			memcpy(before, t.host, sizeof(before));
			if (what == 0)
				t.saved.in_use = 5;
			else if (what == 1)
				t.saved.pushing = 5;
			else if (what == 2)
				t.saved.size = 0;
			else if (what == 3)
				t.saved.size = UINT32_MAX;
			else if (packed && what == 4)
				t.saved.used = 4;
			else if (packed)
				t.saved.avail = UINT16_MAX;
			else if (what == 4)
				t.saved.size = 3;
			else
				expected = -EFAULT;
			if (expected == -EFAULT)
				t.saved.device_uaddr += ROOM;
			t.vq = (struct vq){.st = t.saved};
			assert_int_equal(vq_recover(&t.vq, &t.mem), expected);
			assert_false(vq_started(&t.vq));
			assert_memory_equal(before, t.host, sizeof(before));
		}
	}
}

/* Whatever stands in the ring's memory by then, and whatever is to be published: no harm. */
static void hostile(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (uint32_t round = 0; round < 3000; round++) {
			struct vq_state *st = &t.saved;
			uint16_t size = kinds[i] & PACKED ? (uint16_t)(1 + random_below(16)) : 8;

			start(kinds[i], size);
			st->avail = (uint16_t)random_below(kinds[i] & PACKED ? size : 65536);
			st->used = (uint16_t)random_below(kinds[i] & PACKED ? size : 65536);
			st->in_use = (uint16_t)random_below(size + 1U);
			st->pushing = (uint16_t)random_below(kinds[i] & PACKED ? size + 1U : 2);
			st->push_id = (uint16_t)random_below(65536);
			st->avail_wrap = random_below(2);
			st->used_wrap = random_below(2);
			for (uint32_t at = 0; at < ROOM / 16; at++)
				t.host[at] = (uint8_t)random_below(256);
			t.vq = (struct vq){.st = *st};
			assert_int_equal(vq_recover(&t.vq, &t.mem), 0);
			assert_int_equal(t.vq.st.pushing, 0);
			while (vq_pop(&t.vq, &chain) > 0)
				vq_push(&t.vq, chain.id, chain.slots, 0);
			(void)vq_should_notify(&t.vq);
			(void)vq_enable_kicks(&t.vq);
		}
	}
}

/* The two steps are the one, and the second does nothing twice. */
static void two_steps(void **state)
{
	uint8_t before[ROOM / 16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		start(kinds[i], 4);
		driver_send();
		device_pop();
		memcpy(before, t.host, sizeof(before));
		vq_push_publish(&t.vq);
		assert_memory_equal(before, t.host, sizeof(before));
		vq_push_prepare(&t.vq, t.hand[0].id, t.hand[0].slots, 0);
		assert_memory_equal(before, t.host, sizeof(before));
		assert_int_equal(t.vq.st.in_use, 0);
		assert_true(t.vq.st.served);
		vq_push_publish(&t.vq);
		driver_take();
		assert_int_equal(t.returned, 1);
		memcpy(before, t.host, sizeof(before));
		vq_push_publish(&t.vq);
		assert_memory_equal(before, t.host, sizeof(before));
		/* A stop or another base forgets what is prepared. */
		t.in_hand = 0;
		device_pop();
		for (uint32_t how = 0; how < 2; how++) {
			vq_push_prepare(&t.vq, t.hand[0].id, t.hand[0].slots, 0);
			if (how)
				vq_stop(&t.vq);
			else
				vq_set_base(&t.vq, vq_base(&t.vq));
			assert_int_equal(t.vq.st.pushing, 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_death), cmocka_unit_test(many_deaths),
		cmocka_unit_test(one_held),   cmocka_unit_test(broken),
		cmocka_unit_test(idle),       cmocka_unit_test(impossible),
		cmocka_unit_test(hostile),    cmocka_unit_test(two_steps),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
