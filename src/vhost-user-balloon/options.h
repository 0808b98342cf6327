/* SPDX-License-Identifier: MIT */
#ifndef VUB_OPTIONS_H
#define VUB_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "balloon/balloon.h"
#include "policy/health.h"

#define OPTIONS_NO_GROUP ((gid_t)-1)

struct options {
	const char *socket_path; /* or NULL */
	int fd;                  /* listening or connected vhost-user socket; -1: none */
	gid_t socket_group;      /* may connect as a front end too, mode 0660; as qmp_group */
	const char *qmp_path;    /* or NULL: no monitor */
	gid_t qmp_group;         /* may use the monitor too, mode 0660; OPTIONS_NO_GROUP: mode 0600.
				    A worker's is always that: the socket is its parent's. */
	const char *name;        /* of the virtual machine; in log lines */
	const char *state_dir;   /* or NULL: a cold start finds nothing */
	uint64_t features;       /* balloon feature bits to offer */
	uint64_t target;         /* bytes wanted in the balloon from the start */
	uint32_t push_interval_ms;    /* statistics come every so often; 0: when asked for */
	struct balloon_policy policy; /* on messages about pressure */
	struct health_limits health;
	bool target_given, push_interval_given; /* what is not comes from state_dir */
	bool sandbox;
	int worker_fd; /* this process is a worker, and that its channel; -1: it is not */
	bool print_capabilities;
};

/*
 * A feature as users name it: in --features, --print-capabilities and the monitor. `optional` ones
 * can be switched on and off; which it is without a word from the user stands in `wanted`.
 */
struct feature_name {
	const char *name;
	unsigned int bit;
	bool optional;
	bool wanted;
};
extern const struct feature_name feature_names[]; /* ends with a NULL name */

/*
 * Parses the command line; --help and --version end the process with status 0. -EINVAL: something
 * is wrong with it, -ENOMEM; one line on stderr says what.
 */
int options_parse(int argc, char **argv, struct options *options);

/*
 * A factor such as 1.5, from 1 to HEALTH_MILLI_MAX / 1000 with at most three decimals, in
 * thousandths. -EINVAL.
 */
int options_parse_factor(const char *text, uint32_t *milli);

#endif
