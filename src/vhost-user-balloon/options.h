/* SPDX-License-Identifier: MIT */
#ifndef VUB_OPTIONS_H
#define VUB_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
	const char *socket_path; /* or NULL */
	int fd;                  /* listening or connected vhost-user socket; -1: none */
	const char *qmp_path;    /* or NULL: no monitor */
	const char *name;        /* of the virtual machine; in log lines */
	uint64_t features;       /* balloon feature bits to offer */
	uint64_t target;         /* bytes wanted in the balloon from the start */
	bool print_capabilities;
};

/*
 * A balloon feature as users name it: in --features, --print-capabilities and the monitor.
 * `optional` ones can be switched off.
 */
struct feature_name {
	const char *name;
	unsigned int bit;
	bool optional;
};
extern const struct feature_name feature_names[]; /* ends with a NULL name */

/*
 * Parses the command line; --help and --version end the process with status 0. -EINVAL: something
 * is wrong with it, and one line on stderr says what.
 */
int options_parse(int argc, char **argv, struct options *options);

/*
 * A size such as 512M: bytes, or with K, M, G or T the next larger units of 1024. -EINVAL: not a
 * size, or over 2^64 - 1.
 */
int options_parse_size(const char *text, uint64_t *bytes);

#endif
