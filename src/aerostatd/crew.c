// SPDX-License-Identifier: MIT
/*
 * Nobody can end a thread that is in a call which does not return. So threads are detached, and
 * what they share is freed by the last who lets go of it: the loop, a thread, or who tells. A
 * thread whose call takes long is not counted on until it is back, and another takes its place.
 */
#include "crew.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct list {
	struct crew_job *first, *last;
};

struct thread {
	struct crew *crew;
	struct thread *next;
	uint64_t since_ms; /* at its job, by uv_hrtime(); 0: it waits for one */
};

struct crew {
	pthread_mutex_t lock;
	pthread_cond_t more;    /* jobs, or the end */
	struct list jobs, done; /* that wait for a thread, and for the loop */
	struct crew_job *last;
	struct thread *list;  /* of the threads that are left, */
	unsigned int threads; /* so many, */
	unsigned int wanted;  /* and so many that get on with their work */
	unsigned int holders; /* threads, the loop until its handle is closed, and who tells */
	bool stopped;
	uv_async_t wake;
};

static atomic_uint threads_alive;

static void put(struct list *list, struct crew_job *job)
{
	job->next = NULL;
	if (list->last)
		list->last->next = job;
	else
		list->first = job;
	list->last = job;
}

static struct crew_job *take(struct list *list)
{
	struct crew_job *job = list->first;

	if (!job)
		return NULL;
	list->first = job->next;
	if (!list->first)
		list->last = NULL;
	return job;
}

static void drop_all(struct list *list)
{
	struct crew_job *job;

	while ((job = take(list)))
		job->drop(job);
}

void crew_hold(struct crew *crew)
{
	pthread_mutex_lock(&crew->lock);
	crew->holders++;
	pthread_mutex_unlock(&crew->lock);
}

void crew_release(struct crew *crew)
{
	bool last;

	pthread_mutex_lock(&crew->lock);
	last = --crew->holders == 0;
	pthread_mutex_unlock(&crew->lock);
	if (!last)
		return;
	drop_all(&crew->jobs);
	drop_all(&crew->done);
	if (crew->last)
		crew->last->drop(crew->last);
	pthread_cond_destroy(&crew->more);
	pthread_mutex_destroy(&crew->lock);
	free(crew);
}

/* To the loop, or to nobody. */
void crew_tell(struct crew *crew, struct crew_job *job)
{
	bool stopped;

	pthread_mutex_lock(&crew->lock);
	stopped = crew->stopped;
	if (!stopped) {
		put(&crew->done, job);
		uv_async_send(&crew->wake);
	}
	pthread_mutex_unlock(&crew->lock);
	if (stopped)
		job->drop(job);
}

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

/* Threads that can be counted on. Under the lock. */
static unsigned int at_hand(const struct crew *crew)
{
	uint64_t now = now_ms();
	unsigned int n = 0;

	for (const struct thread *thread = crew->list; thread; thread = thread->next)
		n += !thread->since_ms || now - thread->since_ms < CREW_LATE_MS;
	return n;
}

/* Takes it off the list. The last one that leaves does what is to be done in the end, first. */
static struct crew_job *leave(struct crew *crew, struct thread *thread)
{
	struct thread **at = &crew->list;
	struct crew_job *job = NULL;

	if (crew->threads == 1 && crew->stopped) {
		job = crew->last;
		crew->last = NULL;
	}
	if (job)
		return job; /* it comes here once more */
	while (*at != thread)
		at = &(*at)->next;
	*at = thread->next;
	crew->threads--;
	if (crew->jobs.first)
		pthread_cond_signal(&crew->more); /* it may have been this one that was woken */
	return NULL;
}

/* The next job; NULL: this thread is to end. */
static struct crew_job *next_job(struct crew *crew, struct thread *thread)
{
	struct crew_job *job = NULL;

	pthread_mutex_lock(&crew->lock);
	thread->since_ms = 0;
	/* One that is back may be one too many. */
	while (!crew->jobs.first && !crew->stopped && at_hand(crew) <= crew->wanted)
		pthread_cond_wait(&crew->more, &crew->lock);
	if (crew->stopped || at_hand(crew) <= crew->wanted)
		job = take(&crew->jobs);
	if (!job)
		job = leave(crew, thread);
	if (job)
		thread->since_ms = now_ms();
	pthread_mutex_unlock(&crew->lock);
	return job;
}

static void *run(void *opaque)
{
	struct thread *thread = opaque;
	struct crew *crew = thread->crew;
	struct crew_job *job;

	while ((job = next_job(crew, thread))) {
		job->work(job);
		crew_tell(crew, job);
	}
	free(thread);
	crew_release(crew);
	atomic_fetch_sub(&threads_alive, 1);
	return NULL;
}

int crew_thread(void *(*body)(void *), void *opaque)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
	pthread_attr_t attr;
	sigset_t blocked, before;
	pthread_t thread;
	int r;

	sigfillset(&blocked);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&blocked, faults[i]);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attr, body, opaque);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

/* Under the lock. */
static bool start_thread(struct crew *crew)
{
	struct thread *thread = calloc(1, sizeof(*thread));

	if (!thread)
		return false;
	thread->crew = crew;
	atomic_fetch_add(&threads_alive, 1);
	if (crew_thread(run, thread) != 0) {
		atomic_fetch_sub(&threads_alive, 1);
		free(thread);
		return false;
	}
	thread->next = crew->list;
	crew->list = thread;
	crew->threads++;
	crew->holders++;
	return true;
}

static void on_wake(uv_async_t *wake)
{
	struct crew *crew = wake->data;
	struct list done;
	struct crew_job *job;

	pthread_mutex_lock(&crew->lock);
	done = crew->done;
	crew->done = (struct list){0};
	pthread_mutex_unlock(&crew->lock);
	while ((job = take(&done))) {
		/* The job before may have stopped the crew; only the loop does. */
		if (!crew->stopped)
			job->done(job);
		job->drop(job);
	}
}

struct crew *crew_start(uv_loop_t *loop, unsigned int threads)
{
	struct crew *crew = calloc(1, sizeof(*crew));

	if (!crew)
		return NULL;
	if (uv_async_init(loop, &crew->wake, on_wake) < 0) {
		free(crew);
		return NULL;
	}
	pthread_mutex_init(&crew->lock, NULL);
	pthread_cond_init(&crew->more, NULL);
	crew->wake.data = crew;
	crew->holders = 1;
	crew->wanted = threads;
	pthread_mutex_lock(&crew->lock);
	while (crew->threads < threads && start_thread(crew))
		continue;
	threads = crew->threads;
	pthread_mutex_unlock(&crew->lock);
	if (threads)
		return crew; /* fewer are enough */
	crew_stop(crew, NULL);
	return NULL;
}

void crew_post(struct crew *crew, struct crew_job *job)
{
	pthread_mutex_lock(&crew->lock);
	put(&crew->jobs, job);
	if (at_hand(crew) < crew->wanted && crew->threads < crew->wanted + CREW_LATE_MAX)
		(void)start_thread(crew); /* if not now, then with the next job */
	pthread_cond_signal(&crew->more);
	pthread_mutex_unlock(&crew->lock);
}

static void on_closed(uv_handle_t *handle)
{
	crew_release(handle->data);
}

void crew_stop(struct crew *crew, struct crew_job *last)
{
	struct list jobs;

	pthread_mutex_lock(&crew->lock);
	crew->stopped = true;
	crew->last = last;
	jobs = crew->jobs;
	crew->jobs = (struct list){0};
	pthread_cond_broadcast(&crew->more);
	pthread_mutex_unlock(&crew->lock);
	drop_all(&jobs);
	uv_close((uv_handle_t *)&crew->wake, on_closed);
}

bool crew_wait(unsigned int ms)
{
	const struct timespec nap = {.tv_nsec = 1000000};

	for (; atomic_load(&threads_alive) && ms; ms--)
		nanosleep(&nap, NULL);
	return !atomic_load(&threads_alive);
}
