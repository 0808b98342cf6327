/* SPDX-License-Identifier: MIT */
/* Amounts of memory as people write them. */
#ifndef COMMON_SIZE_H
#define COMMON_SIZE_H

#include <stddef.h>
#include <stdint.h>

/*
 * A size such as 512M: bytes, or with K, M, G or T the next larger units of 1024. -EINVAL: not a
 * size, or over 2^64 - 1.
 */
int size_parse(const char *text, uint64_t *bytes);

#endif
