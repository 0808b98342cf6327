// SPDX-License-Identifier: MIT
/* Threads for calls that block: what is posted comes back to the loop, each job is freed once, and
 * one that does not return stops nobody else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include <uv.h>

/* A clock that the test moves on. */
static atomic_uint skip_ms;

static uint64_t skipping_hrtime(void)
{
	return uv_hrtime() + atomic_load(&skip_ms) * 1000000ULL;
}

#define uv_hrtime skipping_hrtime
#include "../../src/aerostatd/crew.c"
#undef uv_hrtime

#define THREADS 4
#define WAIT_MS 20000

/* What all jobs of a test share. */
static struct {
	uv_loop_t loop;
	struct crew *crew;
	pthread_t main;
	atomic_int worked, dropped, waiting;
	int done;
	atomic_bool open;     /* the gate at which jobs can be made to wait */
	atomic_bool late;     /* the last job was worked on before another one had ended */
	struct crew_job *via; /* to be told by a thread */
} t;

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void count_drop(struct crew_job *job)
{
	atomic_fetch_add(&t.dropped, 1);
	free(job);
}

static void count_done(struct crew_job *job)
{
	(void)job;
	assert_true(pthread_equal(pthread_self(), t.main));
	t.done++;
}

static void count_work(struct crew_job *job)
{
	(void)job;
	if (pthread_equal(pthread_self(), t.main))
		abort();
	atomic_fetch_add(&t.worked, 1);
}

static void work_at_gate(struct crew_job *job)
{
	atomic_fetch_add(&t.waiting, 1);
	while (!atomic_load(&t.open))
		nap();
	atomic_fetch_sub(&t.waiting, 1);
	count_work(job);
}

static void work_last(struct crew_job *job)
{
	if (atomic_load(&t.waiting))
		atomic_store(&t.late, true);
	count_work(job);
}

static void work_and_tell(struct crew_job *job)
{
	crew_tell(t.crew, t.via);
	count_work(job);
}

static struct crew_job *job_of(void (*work)(struct crew_job *))
{
	struct crew_job *job = malloc(sizeof(*job));

	assert_non_null(job);
	*job = (struct crew_job){work, count_done, count_drop, NULL};
	return job;
}

static void run_until_done(int done)
{
	for (int ms = 0; t.done < done; ms++) {
		assert_true(ms < WAIT_MS);
		uv_run(&t.loop, UV_RUN_NOWAIT);
		nap();
	}
}

static void wait_for(const atomic_int *count, int value)
{
	for (int ms = 0; atomic_load(count) < value; ms++) {
		assert_true(ms < WAIT_MS);
		nap();
	}
}

static int setup(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	atomic_store(&skip_ms, 0);
	t.main = pthread_self();
	if (uv_loop_init(&t.loop) < 0)
		return -1;
	t.crew = crew_start(&t.loop, THREADS);
	return t.crew ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	atomic_store(&t.open, true);
	if (t.crew)
		crew_stop(t.crew, NULL);
	uv_run(&t.loop, UV_RUN_DEFAULT);
	return uv_loop_close(&t.loop) < 0 || !crew_wait(WAIT_MS) ? -1 : 0;
}

static void stop(struct crew_job *last)
{
	crew_stop(t.crew, last);
	t.crew = NULL;
	uv_run(&t.loop, UV_RUN_DEFAULT);
}

static void all_come_back(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++)
		crew_post(t.crew, job_of(count_work));
	run_until_done(1000);
	assert_int_equal(t.worked, 1000);
	assert_int_equal(t.dropped, 1000);
}

static void as_many_at_a_time_as_threads(void **state)
{
	(void)state;
	for (int i = 0; i < THREADS + 2; i++)
		crew_post(t.crew, job_of(work_at_gate));
	wait_for(&t.waiting, THREADS);
	for (int i = 0; i < 20; i++)
		nap();
	assert_int_equal(t.waiting, THREADS);
	atomic_store(&t.open, true);
	run_until_done(THREADS + 2);
}

static void one_that_hangs_stops_nobody(void **state)
{
	(void)state;
	for (int i = 0; i < THREADS - 1; i++)
		crew_post(t.crew, job_of(work_at_gate));
	for (int i = 0; i < 10; i++)
		crew_post(t.crew, job_of(count_work));
	run_until_done(10);
	assert_int_equal(t.worked, 10);
	assert_int_equal(t.waiting, THREADS - 1);
}

static unsigned int threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	unsigned int n = 0;

	assert_non_null(tasks);
	while (readdir(tasks))
		n++;
	closedir(tasks);
	return n - 2; /* . and .. */
}

/* However many hang: after a while others take their place, and go when those are back. */
static void all_hang(void **state)
{
	unsigned int before = threads();

	(void)state;
	for (int i = 0; i < THREADS; i++)
		crew_post(t.crew, job_of(work_at_gate));
	wait_for(&t.waiting, THREADS);
	crew_post(t.crew, job_of(count_work));
	for (int i = 0; i < 20; i++)
		nap();
	assert_int_equal(t.worked, 0);
	atomic_store(&skip_ms, CREW_LATE_MS);
	for (int i = 0; i < 10; i++)
		crew_post(t.crew, job_of(count_work));
	run_until_done(11);
	assert_int_equal(t.waiting, THREADS);
	assert_in_range(threads(), before + 1, before + THREADS);
	atomic_store(&t.open, true);
	run_until_done(11 + THREADS);
	for (int ms = 0; threads() > before; ms++) {
		assert_true(ms < WAIT_MS);
		nap();
	}
	/* And as many as there were are left. */
	atomic_store(&t.open, false);
	for (int i = 0; i < THREADS; i++)
		crew_post(t.crew, job_of(work_at_gate));
	wait_for(&t.waiting, THREADS);
	atomic_store(&t.open, true);
	run_until_done(11 + 2 * THREADS);
	assert_int_equal(threads(), before);
}

/* Somebody who hangs for ever, and others with him, do not fill the machine with threads. */
static void too_many_hang(void **state)
{
	const int most = THREADS + (int)CREW_LATE_MAX;

	(void)state;
	for (int i = 0; i < most + 5; i++) {
		crew_post(t.crew, job_of(work_at_gate));
		wait_for(&t.waiting, i < most ? i + 1 : most);
		atomic_fetch_add(&skip_ms, CREW_LATE_MS);
	}
	for (int i = 0; i < 20; i++)
		nap();
	assert_int_equal(t.waiting, most);
	atomic_store(&t.open, true);
	run_until_done(most + 5);
}

static void a_thread_tells(void **state)
{
	(void)state;
	t.via = job_of(NULL);
	crew_post(t.crew, job_of(work_and_tell));
	run_until_done(2);
	assert_int_equal(t.worked, 1);
	assert_int_equal(t.dropped, 2);
}

/* Those under way end by themselves; what waits is dropped; the last one is worked on, after all.
 */
static void stopped_while_busy(void **state)
{
	(void)state;
	for (int i = 0; i < THREADS; i++)
		crew_post(t.crew, job_of(work_at_gate));
	wait_for(&t.waiting, THREADS);
	for (int i = 0; i < 5; i++)
		crew_post(t.crew, job_of(count_work));
	stop(job_of(work_last));
	assert_int_equal(t.dropped, 5);
	assert_int_equal(t.worked, 0);
	assert_false(crew_wait(5));
	atomic_store(&t.open, true);
	assert_true(crew_wait(WAIT_MS));
	assert_int_equal(t.worked, THREADS + 1);
	assert_int_equal(t.dropped, 5 + THREADS + 1);
	assert_int_equal(t.done, 0);
	assert_false(t.late);
}

/* What was done and not yet told when it was stopped is dropped too. */
static void stopped_before_it_was_told(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		crew_post(t.crew, job_of(count_work));
	wait_for(&t.worked, 3);
	stop(NULL);
	assert_true(crew_wait(WAIT_MS));
	assert_int_equal(t.done, 0);
	assert_int_equal(t.dropped, 3);
}

static void told_when_it_is_stopped(void **state)
{
	struct crew *crew = t.crew;

	(void)state;
	crew_hold(crew);
	stop(NULL);
	assert_true(crew_wait(WAIT_MS));
	crew_tell(crew, job_of(NULL));
	assert_int_equal(t.dropped, 1);
	assert_int_equal(t.done, 0);
	crew_release(crew);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(as_many_at_a_time_as_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(one_that_hangs_stops_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(all_hang, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many_hang, setup, teardown),
		cmocka_unit_test_setup_teardown(a_thread_tells, setup, teardown),
		cmocka_unit_test_setup_teardown(stopped_while_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(stopped_before_it_was_told, setup, teardown),
		cmocka_unit_test_setup_teardown(told_when_it_is_stopped, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
