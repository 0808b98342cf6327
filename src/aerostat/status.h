/* SPDX-License-Identifier: MIT */
/* How the program ends: part of its interface, see aerostat(1). */
#ifndef AEROSTAT_STATUS_H
#define AEROSTAT_STATUS_H

enum status {
	STATUS_DONE = 0,
	STATUS_FAILED = 1,
	STATUS_USAGE = 2,
	STATUS_NOT_FOUND = 3,
	STATUS_TIMED_OUT = 4,
};

/* What went wrong, in words for people: without the program's name and without a newline. */
struct failure {
	enum status status;
	char text[640];
};

/* Fills it in. Returns status. */
enum status failure_set(struct failure *f, enum status status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
