/* SPDX-License-Identifier: MIT */
/* How far long work is: one line on stderr that is written again and again, if that is a terminal.
 */
#ifndef AEROSTAT_PROGRESS_H
#define AEROSTAT_PROGRESS_H

#include <stdbool.h>

#include "table.h"

struct progress {
	const char *what;
	bool on, unicode;
};

/* what: kept, not copied. Nothing is shown yet. */
void progress_begin(struct progress *p, const char *what, const struct style *style);

/* part: 0 to 1. */
void progress_show(struct progress *p, double part, const char *text);

/* The line goes. */
void progress_end(struct progress *p);

#endif
