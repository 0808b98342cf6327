// SPDX-License-Identifier: MIT
/*
 * A recording with anything in it, as `aerostat replay` reads it. What is taken from it are points
 * in the order of time, and the demand between them is what they say.
 */
#include <math.h>

#include "input_file.h"
#include "trace.h"

/* It says what is wrong on stderr, which is libFuzzer's. */
static FILE *quiet;
#undef stderr
#define stderr quiet
#include "../sim/recording.c"

#define YEAR_S (366.0 * 86400) /* nobody replays more */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_guest(const struct recording *r, uint32_t g)
{
	const struct trace_point *points = r->points + r->first[g];
	size_t n = r->first[g + 1] - r->first[g];
	double last = points[n - 1].at_s, demand;
	struct trace t;

	for (size_t i = 0; i < n; i++) {
		require(isfinite(points[i].at_s) && points[i].at_s >= 0);
		require(points[i].bytes >= 0 && points[i].bytes <= r->highest[g]);
		require(i == 0 || points[i].at_s >= points[i - 1].at_s);
	}
	trace_init_recorded(&t, points, n);
	for (int i = 0; i <= 8; i++) {
		demand = trace_demand(&t, fmin(last, YEAR_S) / 4 * i);
		require(demand >= 0 && demand <= r->highest[g] * (1 + 1e-9));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input_file file = input_file_make(data, size);
	struct recording r;

	if (!quiet)
		quiet = fopen("/dev/null", "w");
	if (recording_read(&r, file.path) == 0) {
		require(r.guests > 0 && r.guests <= r.n_points);
		require(r.first[0] == 0 && r.first[r.guests] == r.n_points);
		for (uint32_t g = 0; g < r.guests; g++) {
			require(r.first[g] < r.first[g + 1]);
			check_guest(&r, g);
		}
		recording_free(&r);
	}
	input_file_close(&file);
	return 0;
}
