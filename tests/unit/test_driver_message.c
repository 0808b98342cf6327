// SPDX-License-Identifier: MIT
/* The portable driver tells of memory pressure, and waits. */
#include "driver_helpers.h"

#include <errno.h>

#define QUEUE   VIRTIO_BALLOON_VQ_MESSAGE
#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define LOW     VIRTIO_BALLOON_PRESSURE_LOW
#define MEDIUM  VIRTIO_BALLOON_PRESSURE_MEDIUM
#define CRIT    VIRTIO_BALLOON_PRESSURE_CRITICAL
#define OFFER                                                             \
	(BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | BIT(VIRTIO_F_VERSION_1) | \
	 BIT(VIRTIO_BALLOON_F_MESSAGE_VQ))

static struct test_driver t;

static void press(uint32_t level, uint64_t now)
{
	assert_int_equal(driver_balloon_pressure(&t.d, level, now), 0);
}

/* The device takes a message: its type and argument; 0 if there is none. */
static uint32_t message(uint32_t *arg)
{
	struct chain_cursor at = {0};
	uint8_t raw[8];

	if (!td_pop(&t, QUEUE))
		return 0;
	assert_int_equal(td_chain.n_write, 0);
	assert_int_equal(td_chain.read_bytes, 8);
	assert_int_equal(chain_read(&td_chain, &at, raw, 8), 8);
	*arg = le32_get(raw + 4);
	return le32_get(raw);
}

static void expect_pressure(uint32_t level)
{
	uint32_t arg = ~0U;

	assert_int_equal(message(&arg), VIRTIO_BALLOON_MSG_PRESSURE);
	assert_int_equal(arg, level);
}

static void expect_relief(void)
{
	uint32_t arg = ~0U;

	assert_int_equal(message(&arg), VIRTIO_BALLOON_MSG_RELIEVED);
	assert_int_equal(arg, 0);
}

static void expect_nothing(void)
{
	uint32_t arg;

	assert_int_equal(message(&arg), 0);
}

/* From the notice on nothing is inflated, until the buffer is back; then by the target of then. */
static void stops_inflation(void **state)
{
	(void)state;
	for (uint32_t level = 0; level < VIRTIO_BALLOON_PRESSURE_NR; level++) {
		td_init(&t, OFFER);
		td_begin(&t, 0);
		td_set_target(&t, 1024, 1000);
		assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
		press(level, 1001);
		assert_int_equal(t.kicks[QUEUE], 1);
		/* The one that is on its way comes to its end, and no other is sent. */
		td_return(&t, INFLATE, 1002);
		expect_pressure(level);
		driver_balloon_tick(&t.d, 1500);
		td_set_target(&t, 2048, 1600);
		assert_int_equal(td_pop_pfns(&t, INFLATE), 0);
		/* What the host wants now is read when the message is back, notice or not. */
		td_set(&t, TD_FIELD(num_pages), 272);
		td_return(&t, QUEUE, 1700);
		assert_int_equal(td_pop_pfns(&t, INFLATE), 16);
		assert_int_equal(t.d.message.timeouts, 0);
		td_end(&t);
	}
}

/* Deflation is what pressure asks for: it goes on. */
static void deflates_meanwhile(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	td_begin(&t, 0);
	td_set_target(&t, 256, 0);
	td_serve_pages(&t, 0);
	press(CRIT, 1000);
	td_set_target(&t, 128, 1001);
	assert_int_equal(td_pop_pfns(&t, VIRTIO_BALLOON_VQ_DEFLATE), 128);
	td_end(&t);
}

/* One is out at a time. A worse level is sent next, others are spoken for. */
static void one_at_a_time(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	td_begin(&t, 0);
	press(LOW, 1000);
	expect_pressure(LOW);
	press(LOW, 1001);
	press(0, 1002);
	assert_int_equal(t.d.message.merged, 2);
	press(MEDIUM, 1003);
	press(CRIT, 1004);
	press(MEDIUM, 1005);
	assert_int_equal(t.d.message.merged, 3);
	expect_nothing();
	td_set_target(&t, 256, 1006);
	/* The worse one goes at once, and inflation waits for that too. */
	td_return(&t, QUEUE, 1010);
	expect_pressure(CRIT);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 0);
	td_return(&t, QUEUE, 1020);
	expect_nothing();
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	assert_int_equal(t.d.message.sent, 2);
	td_end(&t);
}

/* 100 ms from one to the next, unless the level rises. */
static void distance(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	td_begin(&t, 0);
	press(MEDIUM, 1000);
	expect_pressure(MEDIUM);
	td_return(&t, QUEUE, 1001);
	press(LOW, 1010);
	expect_nothing();
	/* Noticed is noticed: inflation waits, for longer than the host takes. */
	td_set_target(&t, 256, 1011);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 0);
	assert_int_equal(driver_balloon_next_tick(&t.d), 1100);
	driver_balloon_tick(&t.d, 1099);
	expect_nothing();
	driver_balloon_tick(&t.d, 1100);
	expect_pressure(LOW);
	td_return(&t, QUEUE, 1101);
	/* Up from there, at once, and higher; but not back and forth. */
	press(MEDIUM, 1110);
	expect_pressure(MEDIUM);
	td_return(&t, QUEUE, 1111);
	press(LOW, 1112);
	td_return(&t, INFLATE, 1113);
	expect_nothing();
	press(MEDIUM, 1114);
	expect_nothing();
	press(CRIT, 1115);
	expect_pressure(CRIT);
	td_return(&t, QUEUE, 1116);
	expect_nothing();
	press(CRIT, 1117);
	expect_nothing();
	driver_balloon_tick(&t.d, 1215);
	expect_pressure(CRIT);
	td_end(&t);
}

/* Nor is telling of relief in between a way around it. */
static void relief(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	td_begin(&t, 0);
	press(MEDIUM, 1000);
	expect_pressure(MEDIUM);
	td_return(&t, QUEUE, 1001);
	assert_int_equal(driver_balloon_relieved(&t.d, 1002), 0);
	expect_nothing();
	driver_balloon_tick(&t.d, 1100);
	expect_relief();
	/* It does not stop inflation. */
	td_set_target(&t, 256, 1101);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	td_return(&t, INFLATE, 1101);
	td_return(&t, QUEUE, 1102);
	press(MEDIUM, 1110);
	expect_pressure(MEDIUM);
	td_return(&t, QUEUE, 1111);
	assert_int_equal(driver_balloon_relieved(&t.d, 1112), 0);
	expect_nothing();
	/* Pressure again: there is no relief to tell of. */
	press(MEDIUM, 1113);
	expect_nothing();
	driver_balloon_tick(&t.d, 1210);
	expect_pressure(MEDIUM);
	td_return(&t, QUEUE, 1211);
	driver_balloon_tick(&t.d, 1400);
	expect_nothing();
	/* Told of while a message is out, it comes after that. */
	press(LOW, 1401);
	expect_pressure(LOW);
	assert_int_equal(driver_balloon_relieved(&t.d, 1402), 0);
	td_return(&t, QUEUE, 1403);
	driver_balloon_tick(&t.d, 1501);
	expect_relief();
	td_return(&t, QUEUE, 1502);
	expect_nothing();
	assert_int_equal(t.d.message.sent, 6);
	td_end(&t);
}

/* A dead host does not hang the guest. */
static void bounded_wait(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	td_begin(&t, 0);
	td_set_target(&t, 256, 900);
	td_serve_pages(&t, 900);
	press(LOW, 1000);
	expect_pressure(LOW);
	td_set_target(&t, 512, 1001);
	assert_int_equal(driver_balloon_next_tick(&t.d), 6000);
	driver_balloon_tick(&t.d, 5999);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 0);
	driver_balloon_tick(&t.d, 6000);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	assert_int_equal(t.d.message.timeouts, 1);
	td_return(&t, INFLATE, 6001);
	/* Pressure again: it waits again, as long; there is no buffer to send it with. */
	td_set_target(&t, 768, 7000);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	press(LOW, 7001);
	td_return(&t, INFLATE, 7002);
	td_set_target(&t, 1024, 7003);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 0);
	expect_nothing();
	driver_balloon_tick(&t.d, 12001);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	assert_int_equal(t.d.message.timeouts, 2);
	/* The host lives: it hears of the second one as well. */
	td_return(&t, QUEUE, 20000);
	expect_pressure(LOW);
	td_return(&t, QUEUE, 20001);
	expect_nothing();
	assert_int_equal(driver_balloon_next_tick(&t.d), UINT64_MAX);
	td_end(&t);
}

/* However often a level is noticed, the wait ends. */
static void wait_is_not_prolonged(void **state)
{
	(void)state;
	td_init(&t, OFFER);
	td_begin(&t, 0);
	press(MEDIUM, 1000);
	expect_pressure(MEDIUM);
	for (uint64_t now = 1001; now < 5999; now += 7)
		press(now % 2 ? MEDIUM : LOW, now);
	driver_balloon_tick(&t.d, 6000);
	assert_false(t.d.message.waiting);
	assert_int_equal(t.d.message.timeouts, 1);
	td_end(&t);
}

static void errors(void **state)
{
	(void)state;
	td_init(&t, OFFER & ~BIT(VIRTIO_BALLOON_F_MESSAGE_VQ));
	td_begin(&t, 0);
	assert_int_equal(driver_balloon_pressure(&t.d, LOW, 0), -ENOTSUP);
	assert_int_equal(driver_balloon_relieved(&t.d, 0), -ENOTSUP);
	td_set_target(&t, 256, 1);
	assert_int_equal(td_pop_pfns(&t, INFLATE), 256);
	td_end(&t);

	td_init(&t, OFFER);
	td_begin(&t, 0);
	assert_int_equal(driver_balloon_pressure(&t.d, VIRTIO_BALLOON_PRESSURE_NR, 0), -EINVAL);
	expect_nothing();
	td_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stops_inflation),
		cmocka_unit_test(deflates_meanwhile),
		cmocka_unit_test(one_at_a_time),
		cmocka_unit_test(distance),
		cmocka_unit_test(relief),
		cmocka_unit_test(bounded_wait),
		cmocka_unit_test(wait_is_not_prolonged),
		cmocka_unit_test(errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
