/* SPDX-License-Identifier: MIT */
/* The last minutes of a number, and how they look in one line. */
#ifndef AEROSTAT_SPARKLINE_H
#define AEROSTAT_SPARKLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HISTORY_SAMPLES 300
#define HISTORY_UNKNOWN UINT64_MAX

/* All zero: none yet. */
struct history {
	uint64_t value[HISTORY_SAMPLES];
	uint64_t total; /* samples ever; the next goes to total % HISTORY_SAMPLES */
};

void history_add(struct history *h, uint64_t value);

/*
 * So many cells, the newest at the right, each the highest of HISTORY_SAMPLES / cells samples,
 * where `top` (and more) is a full cell and 0 an empty one. Nothing known: a blank. A cell takes up
 * to three bytes. Returns buf.
 */
char *sparkline(const struct history *h, uint64_t top, unsigned int cells, bool unicode, char *buf,
		size_t len);

#endif
