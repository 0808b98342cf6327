/* SPDX-License-Identifier: MIT */
/* Lines on stderr, for journald or a terminal. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

/*
 * What log lines begin with: the program's name and, unless it is NULL, that of the virtual machine
 * that it serves. Kept, not copied.
 */
void log_set_name(const char *program, const char *name);

/* One line, without "\n" in fmt. */
void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same for what a guest or front end can cause as often as it likes: a few, then counted. */
void log_limited(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
