/* SPDX-License-Identifier: MIT */
/* Fuzz input as a file, for what reads files by their names. */
#ifndef FUZZ_INPUT_FILE_H
#define FUZZ_INPUT_FILE_H

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "input.h"

struct input_file {
	int fd;
	char path[32];
};

static inline struct input_file input_file_make(const void *data, size_t size)
{
	struct input_file f = {.fd = memfd_create("input", MFD_CLOEXEC)};

	require(f.fd >= 0 && write(f.fd, data, size) == (ssize_t)size);
	snprintf(f.path, sizeof(f.path), "/proc/self/fd/%d", f.fd);
	return f;
}

static inline void input_file_close(const struct input_file *f)
{
	close(f->fd);
}

#endif
