// SPDX-License-Identifier: MIT
/* The block of shared memory. The module is part of a program, so its source is compiled in. */
#include "helpers.h"

#include "../../src/vhost-user-balloon/block.c"

struct pair {
	int fd;
	struct block *worker;
	struct block *parent;
};

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));

	p->fd = block_create();
	assert_true(p->fd >= 0);
	assert_int_equal(block_map(p->fd, &p->worker), 0);
	assert_int_equal(block_map(p->fd, &p->parent), 0);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	block_unmap(p->worker);
	block_unmap(p->parent);
	close(p->fd);
	free(p);
	return 0;
}

static void a_new_one_says_nothing(void **state)
{
	const struct pair *p = *state;

	assert_false(block_hot(p->parent)->valid);
	assert_int_equal(block_cold(p->parent)->handled, 0);
	assert_int_equal(block_deaths(p->parent, BLOCK_RING, 0, 0), 0);
}

static void size_and_seals_hold(void **state)
{
	const struct pair *p = *state;

	assert_int_equal(ftruncate(p->fd, 1), -1);
	assert_int_equal(ftruncate(p->fd, 1 << 30), -1);
	assert_int_equal(fcntl(p->fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
}

static void other_layouts_are_refused(void **state)
{
	struct pair *p = *state;
	struct block *b;
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	/* Not sealed, though all else is right. */
	assert_int_equal(ftruncate(fd, sizeof(struct block)), 0);
	assert_int_equal(pwrite(fd, p->parent, sizeof(struct block), 0), sizeof(struct block));
	assert_int_equal(block_map(fd, &b), -EPROTONOSUPPORT);
	close(fd);

	p->parent->head.version++;
	assert_int_equal(block_map(p->fd, &b), -EPROTONOSUPPORT);
	p->parent->head.version--;
	p->parent->head.magic ^= 1;
	assert_int_equal(block_map(p->fd, &b), -EPROTONOSUPPORT);
	p->parent->head.magic ^= 1;
	p->parent->head.size--;
	assert_int_equal(block_map(p->fd, &b), -EPROTONOSUPPORT);
	p->parent->head.size++;
	assert_int_equal(block_map(p->fd, &b), 0);
	block_unmap(b);

	fd = block_create_file("test", sizeof(struct block) + 1);
	assert_int_equal(block_map(fd, &b), -EPROTONOSUPPORT);
	close(fd);
}

/* Dies at any place within a commit: what is found is the last whole one. */
static void nothing_shows_before_the_commit(void **state)
{
	const struct pair *p = *state;
	struct block_hot *hot;
	struct block_cold *cold;

	cold = block_next_cold(p->worker);
	hot = block_next_hot(p->worker);
	hot->balloon.actual = 1;
	cold->handled = 10;
	assert_int_equal(block_hot(p->parent)->balloon.actual, 0);
	assert_int_equal(block_cold(p->parent)->handled, 0);
	/* block_next_hot() has begun a commit without the cold part: the last call counts. */
	cold = block_next_cold(p->worker);
	block_commit(p->worker);
	assert_int_equal(block_hot(p->parent)->balloon.actual, 1);
	assert_int_equal(block_cold(p->parent)->handled, 10);

	hot = block_next_hot(p->worker);
	hot->balloon.actual = 2;
	assert_int_equal(block_hot(p->parent)->balloon.actual, 1);
	block_commit(p->worker);
	assert_int_equal(block_hot(p->parent)->balloon.actual, 2);
	assert_int_equal(block_cold(p->parent)->handled, 10); /* stays with the hot ones */

	hot = block_next_hot(p->worker);
	cold = block_next_cold(p->worker);
	assert_ptr_not_equal(cold, block_cold(p->parent));
	hot->balloon.actual = 3;
	cold->handled = 11;
	assert_int_equal(block_hot(p->parent)->balloon.actual, 2);
	assert_int_equal(block_cold(p->parent)->handled, 10);
	block_commit(p->worker);
	assert_int_equal(block_hot(p->parent)->balloon.actual, 3);
	assert_int_equal(block_cold(p->parent)->handled, 11);
}

/* The worker writes into it what it likes. */
static void indices_out_of_range(void **state)
{
	const struct pair *p = *state;

	p->worker->current = UINT32_MAX;
	p->worker->hot[0].cold = p->worker->hot[1].cold = UINT32_MAX;
	assert_ptr_equal(block_hot(p->parent), &p->parent->hot[1]);
	assert_ptr_equal(block_cold(p->parent), &p->parent->cold[1]);
	assert_in_range(block_next_hot(p->worker) - p->worker->hot, 0, 1);
	assert_in_range(block_next_cold(p->worker) - p->worker->cold, 0, 1);
}

static void die(const struct pair *p, enum block_work work, uint32_t index, uint64_t serial)
{
	block_busy(p->worker, work, index, serial);
	block_blame(p->parent);
	block_idle(p->parent);
}

static void deaths_are_counted_by_what_they_are_of(void **state)
{
	const struct pair *p = *state;

	die(p, BLOCK_RING, 2, 7);
	die(p, BLOCK_RING, 2, 7);
	assert_int_equal(block_deaths(p->worker, BLOCK_RING, 2, 7), 2);
	assert_int_equal(block_deaths(p->worker, BLOCK_RING, 1, 7), 0);
	assert_int_equal(block_deaths(p->worker, BLOCK_RING, 2, 8), 0);
	assert_int_equal(block_deaths(p->worker, BLOCK_EVENT, 2, 7), 0);
	/* A death of nothing in particular tells neither way. */
	block_blame(p->parent);
	assert_int_equal(block_deaths(p->worker, BLOCK_RING, 2, 7), 2);
	die(p, BLOCK_RING, 2, 7);
	assert_int_equal(block_deaths(p->worker, BLOCK_RING, 2, 7), 3);
	/* The next buffer is another matter. */
	die(p, BLOCK_RING, 2, 8);
	assert_int_equal(block_deaths(p->worker, BLOCK_RING, 2, 8), 1);
	assert_int_equal(block_deaths(p->worker, BLOCK_RING, 2, 7), 0);
	/* Through with it. */
	block_busy(p->worker, BLOCK_EVENT, 0, 9);
	block_idle(p->worker);
	block_blame(p->parent);
	assert_int_equal(block_deaths(p->worker, BLOCK_EVENT, 0, 9), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_new_one_says_nothing),    TEST(size_and_seals_hold),
		TEST(other_layouts_are_refused), TEST(nothing_shows_before_the_commit),
		TEST(indices_out_of_range),      TEST(deaths_are_counted_by_what_they_are_of),
	};

	return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
