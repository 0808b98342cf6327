/* SPDX-License-Identifier: MIT */
/*
 * Threads for calls that block, and may do so for ever. A job goes to whichever thread is free, and
 * comes back to the loop when it is done; the loop waits for none of them. libuv has such threads
 * too, but those also write files: somebody who does not answer must not keep these busy.
 */
#ifndef AEROSTATD_CREW_H
#define AEROSTATD_CREW_H

#include <stdbool.h>
#include <uv.h>

/* The head of a job, which is allocated by whoever has it done. */
struct crew_job {
	void (*work)(struct crew_job *job); /* in a thread */
	void (*done)(struct crew_job *job); /* in the loop, unless the crew was stopped meanwhile */
	void (*drop)(struct crew_job *job); /* frees it, in the end, in any thread */
	struct crew_job *next;
};

struct crew;

/*
 * A thread that has been at its job for so long is not counted on: with the next job that is posted
 * another takes its place, and whichever is one too many when it is back ends. So many can be late;
 * with more, jobs wait.
 */
#define CREW_LATE_MS  2000
#define CREW_LATE_MAX 64U

/* So many threads. NULL: out of memory, or out of threads. */
struct crew *crew_start(uv_loop_t *loop, unsigned int threads);

/* Has it done, after those that wait already. From the loop. */
void crew_post(struct crew *crew, struct crew_job *job);

/* Has the loop told: done() is called there, work() never. From any thread that holds the crew. */
void crew_tell(struct crew *crew, struct crew_job *job);

/*
 * From the loop: no done() is called from now on. Jobs that wait are dropped, but for `last`, which
 * may be NULL: it is worked on when all that are under way have ended. Nobody waits for that.
 */
void crew_stop(struct crew *crew, struct crew_job *last);

/* For who tells: the crew stays in memory as long as somebody holds it. */
void crew_hold(struct crew *crew);
void crew_release(struct crew *crew);

/*
 * A thread that nobody waits for, and that takes no signals: those are the loop's. Faults of its
 * own are not kept from it. 0 or an error number.
 */
int crew_thread(void *(*run)(void *), void *opaque);

/* Waits until the threads of all crews have ended, but no longer than ms. True: they have. */
bool crew_wait(unsigned int ms);

#endif
