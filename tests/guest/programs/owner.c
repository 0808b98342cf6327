// SPDX-License-Identifier: MIT
/*
 * Owns memory and knows what must be in every page of it:
 *
 *     owner MIB [SEED]
 *
 * Until it gets SIGTERM it checks pages, writes new contents to them, gives pages back to the
 * kernel and takes others, in runs of all lengths, so that its pages come to lie among those that
 * are free, in the balloon, reported or hinted. Every few seconds it gives a quarter of all back at
 * once and leaves that free for a while: only large blocks are reported and hinted. At the end all
 * pages that it owns are checked once more.
 *
 * It prints "ready" when it has owned everything once, a line for each wrong page, and at the end
 * lines NAME=VALUE: checked (pages), wrong (pages), taken and given (pages). It ends with 1 if any
 * page was wrong.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common.h"

#define WORDS     (PAGE_BYTES / sizeof(uint64_t))
#define LONGEST   256U     /* pages in a run */
#define BREATH_US 3000000U /* from one large gift to the next */
#define REST_US   2300000U /* how long that is left alone: Linux reports every two seconds */
#define MAX_SHOWN 20U      /* wrong pages that are described */
#define STEP      0x9e3779b97f4a7c15ULL

struct owner {
	uint64_t *memory;
	uint32_t *generation; /* by page; 0: not owned */
	size_t pages;
	size_t cursor; /* of the sweep that leaves no page out */
	uint32_t last_generation;
	uint64_t dice;
	size_t rest_from, rest_to; /* given, and not to be taken before rest_until_us */
	uint64_t rest_until_us, breath_us;
	uint64_t checked, wrong, taken, given;
};

static uint64_t throw_dice(struct owner *owner)
{
	uint64_t x = owner->dice;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return owner->dice = x;
}

/* --- contents of a page: its number, its generation, words that follow from these, their sum ----
 */

static uint64_t word_at(size_t page, uint32_t generation, size_t index)
{
	if (index == 0)
		return page;
	if (index == 1)
		return generation;
	return ((uint64_t)page << 32 | generation) * STEP + index * (STEP >> 7 | 1);
}

static void write_page(const struct owner *owner, size_t page, uint32_t generation)
{
	uint64_t *words = owner->memory + page * WORDS, sum = 0;

	for (size_t i = 0; i < WORDS - 1; i++)
		sum += words[i] = word_at(page, generation, i);
	words[WORDS - 1] = sum;
}

static void describe(const uint64_t *words, size_t page, uint32_t generation, size_t index)
{
	size_t zeros = 0;

	for (size_t i = 0; i < WORDS; i++)
		zeros += words[i] == 0;
	printf("wrong page %zu, generation %u: word %zu is %#llx, %zu words are 0, number %llu, "
	       "generation %llu\n",
	       page, generation, index, (unsigned long long)words[index], zeros,
	       (unsigned long long)words[0], (unsigned long long)words[1]);
	fflush(stdout);
}

static void check_page(struct owner *owner, size_t page)
{
	const uint64_t *words = owner->memory + page * WORDS;
	uint32_t generation = owner->generation[page];
	uint64_t sum = 0;
	size_t i;

	owner->checked++;
	for (i = 0; i < WORDS - 1; i++) {
		if (words[i] != word_at(page, generation, i))
			break;
		sum += words[i];
	}
	if (i == WORDS - 1 && words[i] == sum)
		return;
	if (owner->wrong++ < MAX_SHOWN)
		describe(words, page, generation, i);
	write_page(owner, page, generation);
}

/* --- pages that come and go ---------------------------------------------------------------------
 */

static void give(struct owner *owner, size_t first, size_t count)
{
	for (size_t page = first; page < first + count; page++) {
		if (!owner->generation[page])
			continue;
		check_page(owner, page);
		owner->generation[page] = 0;
		owner->given++;
	}
	madvise(owner->memory + first * WORDS, count * PAGE_BYTES, MADV_DONTNEED);
}

static void check_or_take(struct owner *owner, size_t page, bool rewrite)
{
	if (page >= owner->rest_from && page < owner->rest_to)
		return;
	if (owner->generation[page])
		check_page(owner, page);
	else
		owner->taken++;
	if (rewrite || !owner->generation[page]) {
		owner->generation[page] = ++owner->last_generation ? owner->last_generation : 1;
		write_page(owner, page, owner->generation[page]);
	}
}

/* One run of pages: at random, or the next ones of the sweep. */
static void run_of_pages(struct owner *owner)
{
	size_t count = throw_dice(owner) % LONGEST + 1, first = throw_dice(owner) % owner->pages;
	unsigned what = throw_dice(owner) % 8;

	if (what < 4) {
		first = owner->cursor;
		owner->cursor = (first + count) % owner->pages;
	}
	if (count > owner->pages - first)
		count = owner->pages - first;
	if (what == 7) {
		give(owner, first, count);
		return;
	}
	for (size_t page = first; page < first + count && !ending(); page++)
		check_or_take(owner, page, what % 2 == 0);
}

/* Gives a quarter back in one piece, and takes it again some time after. */
static void breathe(struct owner *owner)
{
	uint64_t now = now_us();

	if (now >= owner->rest_until_us)
		owner->rest_from = owner->rest_to = 0;
	if (now < owner->breath_us)
		return;
	owner->rest_from = owner->pages / 4 * (throw_dice(owner) % 4);
	owner->rest_to = owner->rest_from + owner->pages / 4;
	give(owner, owner->rest_from, owner->pages / 4);
	owner->rest_until_us = now + REST_US;
	owner->breath_us = now + BREATH_US;
}

static void check_everything(struct owner *owner)
{
	for (size_t page = 0; page < owner->pages; page++) {
		if (owner->generation[page])
			check_page(owner, page);
	}
}

int main(int argc, char **argv)
{
	struct owner owner = {.dice = 1};

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: owner MIB [SEED]\n");
		return 2;
	}
	owner.pages = number(argv[1]) * MIB_BYTES / PAGE_BYTES;
	if (argc > 2)
		owner.dice = number(argv[2]) * STEP | 1;
	end_on_signals();
	owner.memory = reserve(owner.pages * PAGE_BYTES);
	owner.generation = reserve(owner.pages * sizeof(*owner.generation));
	for (size_t page = 0; page < owner.pages && !ending(); page++)
		check_or_take(&owner, page, false);
	puts("ready");
	fflush(stdout);
	owner.breath_us = now_us() + BREATH_US;
	while (!ending()) {
		breathe(&owner);
		run_of_pages(&owner);
	}
	check_everything(&owner);
	printf("checked=%llu\nwrong=%llu\ntaken=%llu\ngiven=%llu\n",
	       (unsigned long long)owner.checked, (unsigned long long)owner.wrong,
	       (unsigned long long)owner.taken, (unsigned long long)owner.given);
	return owner.wrong ? 1 : 0;
}
