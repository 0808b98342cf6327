/* SPDX-License-Identifier: MIT */
/* An allocator for a test program: the real one, but for the one call that is to fail. */
#ifndef ALLOC_HELPERS_H
#define ALLOC_HELPERS_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static unsigned long alloc_countdown; /* calls until the one that fails; 0: none does */
static bool alloc_has_failed;

static bool alloc_fails(void)
{
	if (!alloc_countdown || --alloc_countdown)
		return false;
	alloc_has_failed = true;
	errno = ENOMEM;
	return true;
}

/* The n-th call from now on fails; 0: none does. */
static inline void alloc_fail_at(unsigned long n)
{
	alloc_countdown = n;
	if (n)
		alloc_has_failed = false;
}

static inline bool alloc_failed(void)
{
	return alloc_has_failed;
}

/* Under a sanitizer the real ones are its interceptors, else they are glibc's. */
#define REAL(name) __interceptor_##name
extern void *REAL(malloc)(size_t size) __attribute__((weak));
extern void *REAL(calloc)(size_t n, size_t size) __attribute__((weak));
extern void *REAL(realloc)(void *old, size_t size) __attribute__((weak));
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
	if (alloc_fails())
		return NULL;
	return REAL(malloc) ? REAL(malloc)(size) : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	if (alloc_fails())
		return NULL;
	return REAL(calloc) ? REAL(calloc)(n, size) : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
	if (alloc_fails())
		return NULL;
	return REAL(realloc) ? REAL(realloc)(old, size) : __libc_realloc(old, size);
}

/*
 * As malloc() above. A program that defines ALLOC_STRDUP_WORKS has one that never fails: the
 * tokener of json-c 0.16 does not look at the result when it copies a key (0.17 does), and there is
 * no way around that from outside.
 */
char *strdup(const char *text)
{
	size_t size = strlen(text) + 1;
#ifdef ALLOC_STRDUP_WORKS
	char *copy = REAL(malloc) ? REAL(malloc)(size) : __libc_malloc(size);
#else
	char *copy = malloc(size);
#endif

	return copy ? memcpy(copy, text, size) : NULL;
}

#endif
