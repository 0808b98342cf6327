// SPDX-License-Identifier: MIT
#include "sparkline.h"

#include <string.h>

#define STEPS 8

static const char *const blocks[STEPS] = {"\u2581", "\u2582", "\u2583", "\u2584",
					  "\u2585", "\u2586", "\u2587", "\u2588"};
static const char *const plain[STEPS] = {"_", ".", ":", "-", "=", "+", "*", "#"};

void history_add(struct history *h, uint64_t value)
{
	h->value[h->total % HISTORY_SAMPLES] = value;
	h->total++;
}

/* The highest of the samples with these numbers; HISTORY_UNKNOWN if none is known. */
static uint64_t highest(const struct history *h, uint64_t from, uint64_t to)
{
	uint64_t best = HISTORY_UNKNOWN;

	for (uint64_t i = from; i < to; i++) {
		uint64_t value = h->value[i % HISTORY_SAMPLES];

		/* What has been overwritten since is not what it was. */
		if (i >= h->total || h->total - i > HISTORY_SAMPLES || value == HISTORY_UNKNOWN)
			continue;
		if (best == HISTORY_UNKNOWN || value > best)
			best = value;
	}
	return best;
}

static const char *shape(uint64_t value, uint64_t top, bool unicode)
{
	const char *const *shapes = unicode ? blocks : plain;
	size_t step;

	if (value == HISTORY_UNKNOWN)
		return " ";
	if (!top || value >= top)
		return shapes[top ? STEPS - 1 : 0];
	step = (size_t)((double)value * STEPS / (double)top);
	return shapes[step < STEPS ? step : STEPS - 1];
}

char *sparkline(const struct history *h, uint64_t top, unsigned int cells, bool unicode, char *buf,
		size_t len)
{
	uint64_t each = cells ? (HISTORY_SAMPLES + cells - 1) / cells : 1;
	/* Cells begin at multiples of `each`, so that a cell once drawn moves, but does not change.
	 */
	uint64_t last = h->total ? (h->total - 1) / each : 0;
	size_t out = 0;

	for (unsigned int i = 0; i < cells; i++) {
		uint64_t back = cells - 1 - i;
		const char *cell = " ";

		if (back <= last && h->total)
			cell = shape(highest(h, (last - back) * each, (last - back + 1) * each),
				     top, unicode);
		if (out + strlen(cell) >= len)
			break;
		memcpy(buf + out, cell, strlen(cell));
		out += strlen(cell);
	}
	if (len)
		buf[out] = '\0';
	return buf;
}
