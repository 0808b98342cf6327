// SPDX-License-Identifier: MIT
/*
 * Nobody can end a thread that is in a call which does not return. So threads are detached, and
 * what they share is freed by the last who lets go of it: the loop, a thread, or who tells.
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

struct crew {
	pthread_mutex_t lock;
	pthread_cond_t more;    /* jobs, or the end */
	struct list jobs, done; /* that wait for a thread, and for the loop */
	struct crew_job *last;
	unsigned int threads; /* that are left */
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

/* The next job; NULL: this thread is to end. */
static struct crew_job *next_job(struct crew *crew)
{
	struct crew_job *job;

	pthread_mutex_lock(&crew->lock);
	while (!crew->jobs.first && !crew->stopped)
		pthread_cond_wait(&crew->more, &crew->lock);
	job = take(&crew->jobs);
	if (!job && --crew->threads == 0) {
		job = crew->last;
		crew->last = NULL;
		crew->threads += job != NULL; /* it comes here once more */
	}
	pthread_mutex_unlock(&crew->lock);
	return job;
}

static void *run(void *opaque)
{
	struct crew *crew = opaque;
	struct crew_job *job;

	while ((job = next_job(crew))) {
		job->work(job);
		crew_tell(crew, job);
	}
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

static bool start_thread(struct crew *crew)
{
	bool started;

	atomic_fetch_add(&threads_alive, 1);
	pthread_mutex_lock(&crew->lock);
	started = crew_thread(run, crew) == 0;
	if (started) {
		crew->threads++;
		crew->holders++;
	} else {
		atomic_fetch_sub(&threads_alive, 1);
	}
	pthread_mutex_unlock(&crew->lock);
	return started;
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
	while (threads && start_thread(crew))
		threads--;
	if (crew->threads)
		return crew; /* fewer are enough */
	crew_stop(crew, NULL);
	return NULL;
}

void crew_post(struct crew *crew, struct crew_job *job)
{
	pthread_mutex_lock(&crew->lock);
	put(&crew->jobs, job);
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
