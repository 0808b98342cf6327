/* SPDX-License-Identifier: MIT */
/*
 * CRC-32 as in Ethernet, gzip and PNG: polynomial 0x04c11db7, reflected, all bits inverted at both
 * ends. It finds accidents, not intent.
 */
#ifndef BASE_CRC32_H
#define BASE_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Continues crc, 0 at first, over len more bytes. */
uint32_t crc32_add(uint32_t crc, const void *data, size_t len);

#endif
