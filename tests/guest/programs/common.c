// SPDX-License-Identifier: MIT
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common.h"

static volatile sig_atomic_t told_to_end;

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_nsec / 1000U;
}

static void note_the_end(int signal)
{
	(void)signal;
	told_to_end = 1;
}

void end_on_signals(void)
{
	struct sigaction action = {.sa_handler = note_the_end};

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
}

bool ending(void)
{
	return told_to_end != 0;
}

void *reserve(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED) {
		fprintf(stderr, "%zu bytes: %s\n", bytes, strerror(errno));
		exit(1);
	}
	return memory;
}

unsigned long number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end != '\0' || value == 0) {
		fprintf(stderr, "not a number above 0: %s\n", text);
		exit(2);
	}
	return value;
}
