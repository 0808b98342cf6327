/* SPDX-License-Identifier: MIT */
/* Directories that tests make for themselves. */
#ifndef TREE_HELPERS_H
#define TREE_HELPERS_H

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

static int tree_remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
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
