/* SPDX-License-Identifier: MIT */
/* What this process uses, under the names that all exporters have for it. */
#ifndef AEROSTATD_METRICS_PROCESS_H
#define AEROSTATD_METRICS_PROCESS_H

#include "metrics_text.h"

/* started_wall_us: since the epoch. What the system does not tell is left out. */
void metrics_process(struct metrics_text *t, int64_t started_wall_us);

#endif
