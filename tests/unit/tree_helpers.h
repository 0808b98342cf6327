/* SPDX-License-Identifier: MIT */
/* Directories that tests make for themselves. */
#ifndef TREE_HELPERS_H
#define TREE_HELPERS_H

#include <ftw.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/*
 * Writes a pattern for mkdtemp() and mkstemp() to path, which has room for len bytes: in TMPDIR,
 * which whoever runs the test empties when it has died.
 */
static inline char *tree_pattern(char *path, size_t len)
{
	const char *directory = getenv("TMPDIR");

	snprintf(path, len, "%s/aerostat-XXXXXX", directory ? directory : "/tmp");
	return path;
}

static inline int tree_remove_one(const char *path, const struct stat *st, int kind,
				  struct FTW *where)
{
	(void)st;
	(void)kind;
	(void)where;
	return remove(path);
}

/* Removes a directory with all that is in it. 0, or what nftw() says. */
static inline int tree_remove(const char *directory)
{
	return nftw(directory, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
