// SPDX-License-Identifier: MIT
/*
 * Does work for which it needs memory at some times, and nearly none at others:
 *
 *     worker FILE FILE-MIB ANON-MIB COLD-MIB PHASE-MS PHASES
 *
 * PHASES has a letter for each phase of PHASE-MS: `h`, hot, or `c`, cold. In a hot phase it works
 * as fast as it can on a set of FILE-MIB of the file (or block device), which it has mapped, and of
 * ANON-MIB of its own memory: first on all of it in order, then again and again on a page that it
 * takes by chance. It hashes what is in the page, and counts that as one piece of work; a page of
 * its own it writes to as well. What of the file is not in memory any more is read again, and what
 * was swapped comes back from there: that is how work takes longer with less memory. In a cold
 * phase it works on the first COLD-MIB of the file only, and rests most of the time; its own memory
 * it has given back.
 *
 * It prints lines NAME=VALUE: `phase-N` when phase N is over, the pieces of work that were done in
 * it, and before that `slowest-us`, the longest time that 16 of them took. At the end `hot` and
 * `cold` are the sums by kind, and `wrong` is how many pages of its own were found to have
 * something else in them than was written; with any, the exit status is 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define PIECES_A_LOOK  16U /* pieces of work for which the clock is read once */
#define COLD_PAUSE_MS  20
#define WORDS_PER_PAGE (PAGE_BYTES / sizeof(uint64_t))

struct worker {
	uint64_t *file;  /* to be read only */
	uint64_t *own;   /* word 0 of a page: its number; word 1: how often it was written to */
	uint32_t *wrote; /* the same by page, to compare with */
	size_t file_pages, own_pages, cold_pages;
	bool warm; /* the last phase was hot, too */
	uint64_t phase_us;
	uint64_t random;
	uint64_t sum; /* of all hashes, so that none is left out */
	uint64_t hot, cold, wrong;
};

static uint64_t next_random(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

/* As FNV-1a, by the word. */
static uint64_t hash_page(const uint64_t *page)
{
	uint64_t hash = 0xcbf29ce484222325U;

	for (size_t i = 0; i < WORDS_PER_PAGE; i++)
		hash = (hash ^ page[i]) * 0x100000001b3U;
	return hash;
}

/* Half of a page cannot be compressed: swap in memory takes memory. */
static void fill_page(struct worker *w, uint64_t *page, size_t number)
{
	page[0] = number;
	page[1] = 0;
	for (size_t i = WORDS_PER_PAGE / 2; i < WORDS_PER_PAGE; i++)
		page[i] = next_random(w);
}

static void work_on_own(struct worker *w, size_t number)
{
	uint64_t *page = w->own + number * WORDS_PER_PAGE;

	if (!w->wrote[number])
		fill_page(w, page, number);
	else if (page[0] != number || page[1] != w->wrote[number])
		w->wrong++;
	w->sum += hash_page(page);
	page[1] = ++w->wrote[number];
}

/* Whether what is near to a page of the file will be needed soon, so that it is read with it. */
static void expect_order(struct worker *w, bool in_order)
{
	madvise(w->file, w->file_pages * PAGE_BYTES, in_order ? MADV_NORMAL : MADV_RANDOM);
}

static void work_on(struct worker *w, size_t number)
{
	if (number >= w->file_pages)
		work_on_own(w, number - w->file_pages);
	else
		w->sum += hash_page(w->file + number * WORDS_PER_PAGE);
}

/* The next page; todo: how many of them are still to be taken in order. */
static void work_once(struct worker *w, bool hot, size_t *todo)
{
	size_t n = hot ? w->file_pages + w->own_pages : w->cold_pages;

	work_on(w, *todo ? n - *todo : next_random(w) % n);
	if (*todo && --*todo == 0)
		expect_order(w, false);
}

static void rest(void)
{
	struct timespec t = {.tv_nsec = COLD_PAUSE_MS * 1000000L};

	nanosleep(&t, NULL);
}

static void give_back(struct worker *w)
{
	madvise(w->own, w->own_pages * PAGE_BYTES, MADV_DONTNEED);
	memset(w->wrote, 0, w->own_pages * sizeof(*w->wrote));
}

/* Works until the end of the phase; the pieces of work that were done. */
static uint64_t work(struct worker *w, bool hot, uint64_t end_us)
{
	uint64_t done = 0, slowest = 0, before = now_us(), now = before;
	size_t todo = hot && !w->warm ? w->file_pages + w->own_pages : 0;

	if (todo)
		expect_order(w, true);
	w->warm = hot;
	while (now < end_us && !ending()) {
		for (unsigned int i = 0; i < PIECES_A_LOOK; i++)
			work_once(w, hot, &todo);
		done += PIECES_A_LOOK;
		now = now_us();
		if (now - before > slowest)
			slowest = now - before;
		if (!hot) {
			rest();
			now = now_us();
		}
		before = now;
	}
	printf("slowest-us=%llu\n", (unsigned long long)slowest);
	return done;
}

static void run(struct worker *w, const char *phases)
{
	uint64_t start = now_us();

	for (unsigned int i = 0; phases[i] && !ending(); i++) {
		bool hot = phases[i] == 'h';
		uint64_t done = work(w, hot, start + (i + 1) * w->phase_us);

		*(hot ? &w->hot : &w->cold) += done;
		printf("phase-%u=%llu\n", i, (unsigned long long)done);
		fflush(stdout);
		if (hot && phases[i + 1] != 'h')
			give_back(w);
	}
	printf("hot=%llu\ncold=%llu\nwrong=%llu\n", (unsigned long long)w->hot,
	       (unsigned long long)w->cold, (unsigned long long)w->wrong);
	fflush(stdout);
}

static uint64_t *map(const char *path, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *place = fd < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);

	if (place == MAP_FAILED || lseek(fd, 0, SEEK_END) < (off_t)bytes) {
		fprintf(stderr, "%s: %s\n", path, place == MAP_FAILED ? strerror(errno) : "short");
		exit(1);
	}
	close(fd);
	return place;
}

int main(int argc, char **argv)
{
	struct worker w = {.random = 0x9e3779b97f4a7c15U};

	if (argc != 7 || strspn(argv[6], "hc") != strlen(argv[6])) {
		fprintf(stderr, "usage: worker FILE FILE-MIB ANON-MIB COLD-MIB PHASE-MS PHASES\n");
		return 2;
	}
	w.file_pages = number(argv[2]) * MIB_BYTES / PAGE_BYTES;
	w.own_pages = number(argv[3]) * MIB_BYTES / PAGE_BYTES;
	w.cold_pages = number(argv[4]) * MIB_BYTES / PAGE_BYTES;
	w.phase_us = number(argv[5]) * 1000U;
	w.random ^= now_us() << 16;
	end_on_signals();
	w.file = map(argv[1], w.file_pages * PAGE_BYTES);
	w.own = reserve(w.own_pages * PAGE_BYTES);
	w.wrote = calloc(w.own_pages, sizeof(*w.wrote));
	if (!w.wrote || w.cold_pages > w.file_pages) {
		fprintf(stderr, "worker: no memory, or more of the file is cold than hot\n");
		return 1;
	}
	expect_order(&w, false);
	run(&w, argv[6]);
	return w.wrong ? 1 : 0;
}
