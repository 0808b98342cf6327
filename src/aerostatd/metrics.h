/* SPDX-License-Identifier: MIT */
/* All figures as text for Prometheus. */
#ifndef AEROSTATD_METRICS_H
#define AEROSTATD_METRICS_H

#include <stdbool.h>

#include "base/instant.h"
#include "fleet.h"

/*
 * The whole of /metrics, to be freed by the caller: OpenMetrics, or the format that Prometheus had
 * before. NULL: out of memory.
 */
char *metrics_text(const struct fleet *fleet, struct instant now, bool openmetrics);

#endif
