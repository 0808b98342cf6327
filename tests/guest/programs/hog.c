// SPDX-License-Identifier: MIT
/*
 * Needs memory, as a program does that nobody has asked whether there is any:
 *
 *     hog MIB [STEP-KIB [PAUSE-MS [LOOK-MS [KEEP-MS]]]]
 *
 * It touches that much in steps, with a pause after each, and then keeps it and writes to all of it
 * again and again until it gets SIGTERM, upon which it ends with 0; 1 if a page has lost what was
 * written to it. After KEEP-MS it ends by itself, and needs no memory for that: who ends it in a
 * guest that has none left would be out of memory. Every LOOK-MS, 1 if nothing is said, it looks at
 * what the kernel does, which takes an emulated processor a while. It prints lines NAME=VALUE as it
 * comes to know them, times in microseconds:
 *
 *     start-us         the monotonic clock when it began, which the next two count from
 *     reclaim-us       when the kernel was first seen to reclaim memory since then
 *     relief-us        when, by then or later, a page was first seen to have left the balloon: the
 *                      driver may hear of a shortage before the kernel counts a page; neither is
 *                      looked for any more when it has everything
 *     grown-us         how long it took to have everything
 *     grow-stall-us    the longest time for 64 KiB while it grew
 *     keep-stall-us    and afterwards
 *     rounds           how often everything was written again
 *     wrong            pages that were found to have something else in them
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define PIECE_BYTES    (16U * PAGE_BYTES) /* what the clock is read for */
#define KEEP_PAUSE_MS  50
#define VMSTAT_BYTES   16384
#define DEFAULT_STEP   256UL /* KiB */
#define DEFAULT_LOOK   1UL   /* ms */
#define NOT_SEEN       UINT64_MAX
#define WORDS_PER_PAGE (PAGE_BYTES / sizeof(uint64_t))

struct hog {
	uint64_t *memory;
	size_t bytes, step;
	unsigned long pause_ms, look_ms, keep_ms;
	uint64_t start_us;
	uint64_t round; /* what is in each page, beside its number */
	uint64_t longest_us;
	uint64_t wrong;
	int vmstat;
	uint64_t reclaim_before, balloon_before;
	uint64_t reclaim_us, relief_us;
};

static void say(const char *name, uint64_t value)
{
	printf("%s=%llu\n", name, (unsigned long long)value);
	fflush(stdout);
}

static void pause_for(unsigned long ms)
{
	struct timespec t = {.tv_sec = (time_t)(ms / 1000),
			     .tv_nsec = (long)(ms % 1000) * 1000000L};

	if (ms > 0)
		nanosleep(&t, NULL);
}

/* --- what the kernel does meanwhile -------------------------------------------------------------
 */

static bool begins_with(const char *line, const char *prefix)
{
	return strncmp(line, prefix, strlen(prefix)) == 0;
}

/* Sums of /proc/vmstat: what tells of reclaim, and pages that have left the balloon. */
static void read_vmstat(const struct hog *hog, uint64_t *reclaim, uint64_t *balloon)
{
	static char text[VMSTAT_BYTES];
	ssize_t length = pread(hog->vmstat, text, sizeof(text) - 1, 0);
	char *rest = NULL;

	*reclaim = *balloon = 0;
	text[length > 0 ? length : 0] = '\0';
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		const char *value = strchr(line, ' ');

		if (!value)
			continue;
		if (begins_with(line, "allocstall_") || begins_with(line, "pgscan_kswapd ") ||
		    begins_with(line, "pgscan_direct "))
			*reclaim += strtoull(value, NULL, 10);
		else if (begins_with(line, "balloon_deflate "))
			*balloon += strtoull(value, NULL, 10);
	}
}

/* Looks again and again until both have been seen, or all is there. Who allocates sees nothing
 * while it waits for memory, so this is a process of its own, and comes before it. */
static void watch(struct hog *hog)
{
	uint64_t reclaim, balloon;

	while (hog->relief_us == NOT_SEEN) {
		uint64_t now;

		pause_for(hog->look_ms);
		read_vmstat(hog, &reclaim, &balloon);
		now = now_us() - hog->start_us;
		if (hog->reclaim_us == NOT_SEEN && reclaim != hog->reclaim_before) {
			hog->reclaim_us = now;
			say("reclaim-us", now);
		}
		if (hog->reclaim_us != NOT_SEEN && balloon != hog->balloon_before) {
			hog->relief_us = now;
			say("relief-us", now);
		}
	}
}

static pid_t start_watching(struct hog *hog)
{
	pid_t parent = getpid(), child = fork();

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpriority(PRIO_PROCESS, 0, -20);
		signal(SIGTERM, SIG_DFL);
		if (getppid() == parent)
			watch(hog);
		_exit(0);
	}
	return child;
}

static void stop_watching(pid_t child)
{
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
}

/* --- memory -------------------------------------------------------------------------------------
 */

static void check_page(struct hog *hog, size_t page)
{
	const uint64_t *word = hog->memory + page * WORDS_PER_PAGE;

	if (word[0] != page || word[1] != hog->round) {
		printf("page %zu: %llu %llu in round %llu\n", page, (unsigned long long)word[0],
		       (unsigned long long)word[1], (unsigned long long)hog->round);
		hog->wrong++;
	}
}

/* Writes to the pages from this byte on, after it has looked at what is there from the round
 * before. */
static void touch_piece(struct hog *hog, size_t from, bool again)
{
	uint64_t begin = now_us(), took;
	size_t to = from + PIECE_BYTES < hog->bytes ? from + PIECE_BYTES : hog->bytes;

	for (size_t page = from / PAGE_BYTES; page < to / PAGE_BYTES; page++) {
		uint64_t *word = hog->memory + page * WORDS_PER_PAGE;

		if (again)
			check_page(hog, page);
		word[0] = page;
		word[1] = again ? hog->round + 1 : hog->round;
	}
	took = now_us() - begin;
	if (took > hog->longest_us)
		hog->longest_us = took;
}

static void grow(struct hog *hog)
{
	size_t next = hog->step;

	for (size_t at = 0; at < hog->bytes && !ending(); at += PIECE_BYTES) {
		touch_piece(hog, at, false);
		if (at + PIECE_BYTES < next && at + PIECE_BYTES < hog->bytes)
			continue;
		next += hog->step;
		pause_for(hog->pause_ms);
	}
	if (!ending())
		say("grown-us", now_us() - hog->start_us);
	say("grow-stall-us", hog->longest_us);
	hog->longest_us = 0;
}

static void keep(struct hog *hog)
{
	uint64_t rounds = 0, begin = now_us();

	while (!ending() && (!hog->keep_ms || now_us() - begin < hog->keep_ms * 1000)) {
		for (size_t at = 0; at < hog->bytes; at += PIECE_BYTES)
			touch_piece(hog, at, true);
		hog->round++;
		rounds++;
		pause_for(KEEP_PAUSE_MS);
	}
	munmap(hog->memory, hog->bytes);
	say("keep-stall-us", hog->longest_us);
	say("rounds", rounds);
	say("wrong", hog->wrong);
}

int main(int argc, char **argv)
{
	struct hog hog = {
		.step = DEFAULT_STEP << 10,
		.look_ms = DEFAULT_LOOK,
		.reclaim_us = NOT_SEEN,
		.relief_us = NOT_SEEN,
	};
	pid_t watcher;

	if (argc < 2 || argc > 6) {
		fprintf(stderr, "usage: hog MIB [STEP-KIB [PAUSE-MS [LOOK-MS [KEEP-MS]]]]\n");
		return 2;
	}
	hog.bytes = number(argv[1]) * MIB_BYTES;
	if (argc > 2)
		hog.step = number(argv[2]) << 10;
	if (argc > 3)
		hog.pause_ms = number(argv[3]);
	if (argc > 4)
		hog.look_ms = number(argv[4]);
	if (argc > 5)
		hog.keep_ms = number(argv[5]);
	end_on_signals();
	hog.memory = reserve(hog.bytes);
	hog.vmstat = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	read_vmstat(&hog, &hog.reclaim_before, &hog.balloon_before);
	hog.start_us = now_us();
	say("start-us", hog.start_us);
	watcher = start_watching(&hog);
	grow(&hog);
	stop_watching(watcher);
	keep(&hog);
	return hog.wrong ? 1 : 0;
}
