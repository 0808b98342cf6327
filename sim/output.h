/* SPDX-License-Identifier: MIT */
/* Results for people and for programs. The same results give the same bytes. */
#ifndef SIM_OUTPUT_H
#define SIM_OUTPUT_H

#include <stdio.h>

#include "world.h"

void output_table(FILE *file, const struct world_options *options, const struct result *results,
		  uint32_t n);

/* One object; with `samples` also the time lines and each guest's stall time. */
void output_json(FILE *file, const struct world_options *options, const struct result *results,
		 uint32_t n, bool samples);

/* The generated traces as a file that recording_read() takes. -ENOMEM; or what writing gave. */
int output_traces(const struct world_options *options, const char *path);

#endif
