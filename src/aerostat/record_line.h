/* SPDX-License-Identifier: MIT */
/* One line of a recording, as sim/trace.h reads it: "vm,seconds,bytes". */
#ifndef AEROSTAT_RECORD_LINE_H
#define AEROSTAT_RECORD_LINE_H

#include <stddef.h>
#include <stdint.h>

#include "qmp/json.h"

#define RECORD_NAME 64 /* bytes of a name with NUL: the reader takes no longer ones */

/*
 * A name as a recording can have it: no comma, no control characters, not so long, and no begin
 * that marks a comment or the heading. Returns buf.
 */
char *record_name(const char *name, char *buf, size_t len);

/* Appends a line. 0 or -ENOMEM. */
int record_line(struct qmp_buf *buf, const char *name, uint64_t ms, uint64_t bytes);

#endif
