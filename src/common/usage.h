/* SPDX-License-Identifier: MIT */
/*
 * What the programs that read their command line with argp have in common: --help and --version,
 * and a complaint of one line instead of argp's own, which take several.
 */
#ifndef COMMON_USAGE_H
#define COMMON_USAGE_H

#include <argp.h>
#include <stdbool.h>

struct usage {
	const char *program; /* its name, before each complaint */
	bool complained;
};

/* The rows of --version and --help in a program's table of options; its own keys are others. */
enum usage_key {
	USAGE_VERSION = 0x1000,
	USAGE_HELP,
};
/* clang-format off */
#define USAGE_OPTIONS                                                           \
	{"version", USAGE_VERSION, NULL, 0, "Print the version, and exit", -1}, \
	{"help", USAGE_HELP, NULL, 0, "Print this help, and exit", -1}
/* clang-format on */

/* One line on stderr. EINVAL, which is for argp. */
__attribute__((format(printf, 2, 3))) error_t usage_error(struct usage *u, const char *fmt, ...);

/*
 * What a program's parser does with all keys that are not its own. --help and --version end the
 * process with status 0.
 */
error_t usage_option(struct usage *u, int key, const char *arg, const struct argp_state *state);

/*
 * Parses a command line; input is for argp's parser. -EINVAL or -ENOMEM: one line on stderr has
 * said why, and usage_status() of it is to be the exit status.
 */
int usage_parse(struct usage *u, const struct argp *argp, int argc, char **argv, void *input);

/* 2 after a command line that makes no sense; 1 after one that could not be read. */
int usage_status(int error);

#endif
