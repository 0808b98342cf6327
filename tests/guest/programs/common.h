/* SPDX-License-Identifier: MIT */
/*
 * What the programs for guests have in common: a clock, an end that somebody else decides on, and
 * memory by the page.
 */
#ifndef AEROSTAT_TESTS_GUEST_PROGRAMS_COMMON_H
#define AEROSTAT_TESTS_GUEST_PROGRAMS_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096U
#define MIB_BYTES  (1UL << 20)

/* Microseconds on the monotonic clock. */
uint64_t now_us(void);

/* Takes SIGTERM and SIGINT for a wish to end, which ending() tells from then on. */
void end_on_signals(void);
bool ending(void);

/* Anonymous memory that is not there before it is touched. Ends the program where the kernel
 * refuses even that. */
void *reserve(size_t bytes);

/* A number above 0 on the command line; anything else ends the program with status 2. */
unsigned long number(const char *text);

#endif
