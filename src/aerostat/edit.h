/* SPDX-License-Identifier: MIT */
/* Lines that somebody types, with editing, completion and a history that is kept. */
#ifndef AEROSTAT_EDIT_H
#define AEROSTAT_EDIT_H

struct edit;

/*
 * Begins on the terminal. prompt is kept, not copied. words: what the first word of a line can be,
 * blanks between; copied. NULL: out of memory.
 */
struct edit *edit_begin(const char *prompt, const char *words);

/*
 * The next line, without its end; NULL at the end of input. Valid until the next call. Lines that
 * are not empty go into the history, and that into its file.
 */
const char *edit_line(struct edit *e);

/* The terminal is as it was. NULL is allowed. */
void edit_end(struct edit *e);

#endif
