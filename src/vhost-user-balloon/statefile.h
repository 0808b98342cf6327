/* SPDX-License-Identifier: MIT */
/*
 * What an operator has set, in a file in --state-dir, for the next start of the program: lines
 * `key=value`, the first one `version=1`. Reasons of inhibitors are percent-encoded. A file that
 * is not understood as a whole is not used at all, and put aside under another name: nothing is
 * lost silently.
 */
#ifndef VUB_STATEFILE_H
#define VUB_STATEFILE_H

#include <stddef.h>

#include "settings.h"

/* The longest text that settings make. */
#define STATEFILE_MAX (256U + SETTINGS_INHIBITORS_MAX * (16U + 3U * SETTINGS_REASON_MAX))

/*
 * The file's name for a machine (NULL: it has none). Letters, digits and `-_.` of the name stand
 * as they are, others percent-encoded. -ENAMETOOLONG.
 */
int statefile_name(const char *machine, char *name, size_t size);

/* The text of the file; returns its length. */
size_t statefile_format(const struct settings *s, char text[STATEFILE_MAX]);

/*
 * Understands such a text, which is cut up. 0, or the number of the line that is wrong (a line
 * behind the last: something is missing), and *s is as it was.
 */
int statefile_parse(char *text, size_t len, struct settings *s);

/*
 * Reads the file `name` in dir (a descriptor). 0; -ENOENT: there is none; -EBADMSG: it makes no
 * sense from line *line on, and was renamed to `name`.bad; else -errno: it cannot be read.
 */
int statefile_load(int dir, const char *name, struct settings *s, int *line);

/*
 * Writes it so that at any moment, also when the machine loses power, there is the old one or the
 * new one. -errno: there is the old one.
 */
int statefile_save(int dir, const char *name, const struct settings *s);

#endif
