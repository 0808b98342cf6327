/* SPDX-License-Identifier: MIT */
/*
 * Numbers and names for people. All of these write at most len bytes with the terminating NUL and
 * return buf. FORMAT_ROOM bytes are enough for any number.
 */
#ifndef AEROSTAT_FORMAT_H
#define AEROSTAT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FORMAT_ROOM 32

/* Three digits and a unit of 1024: "0", "812", "4.00K", "1.53G". size_parse() takes the whole ones.
 */
char *format_size(uint64_t bytes, char *buf, size_t len);

/* A time that has passed, or is left: "0.4 s", "12 s", "3 min", "2 h", "5 d". */
char *format_age(uint64_t ms, char *buf, size_t len);

/* A count that may be large: "812", "4.00k", "1.53M"; units of 1000. */
char *format_count(uint64_t count, char *buf, size_t len);

/*
 * Text that somebody else wrote, fit for a terminal: what is not UTF-8, moves the cursor or has no
 * shape of its own becomes '?'. Without unicode so does all that is not ASCII.
 */
char *format_safe(const char *text, bool unicode, char *buf, size_t len);

/* Cells that a text of format_safe() takes on a terminal. */
unsigned int format_width(const char *text);

/*
 * The same text in at most so many cells: if it has to be cut, its end says so. Fewer than the
 * cells asked for only where a wide character does not fit.
 */
char *format_fit(const char *text, unsigned int cells, bool unicode, char *buf, size_t len);

#endif
