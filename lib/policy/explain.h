/* SPDX-License-Identifier: MIT */
/*
 * Decisions and verdicts as one English sentence each, with their numbers.
 *
 * All functions write at most len bytes including the terminating NUL (nothing at all if len is 0),
 * and return how many characters the whole sentence has, as snprintf() does. EXPLAIN_ROOM is enough
 * for any of them with a name of up to 64 characters; characters of the name below ' ' and DEL are
 * replaced by '?'.
 */
#ifndef POLICY_EXPLAIN_H
#define POLICY_EXPLAIN_H

#include <stddef.h>
#include <stdint.h>

#include "policy/decision.h"
#include "policy/verdict.h"

#define EXPLAIN_ROOM 1024

/* "web1: lowered from 3.0 GiB to 2.5 GiB, because ...: uses 1.2 GiB (...)." */
size_t explain_decision(const struct decision *d, const char *name, char *buf, size_t len);

/* "web1: thrashing, because ... (12 stalls, ... in 1.0 s)." */
size_t explain_judgement(const struct judgement *j, const char *name, char *buf, size_t len);

/* A size for people: "812 KiB", "1.5 GiB"; 1024-based, one decimal below 10 units. */
size_t explain_bytes(uint64_t bytes, char *buf, size_t len);

#endif
