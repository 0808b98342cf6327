/* SPDX-License-Identifier: MIT */
/* Lines on stderr, for journald or a terminal. */
#ifndef VUB_LOG_H
#define VUB_LOG_H

/* What log lines carry behind the program's name; NULL: nothing. Kept, not copied. */
void log_set_name(const char *name);

/* One line, without "\n" in fmt. */
void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same for what a guest or front end can cause as often as it likes: a few, then counted. */
void log_limited(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
