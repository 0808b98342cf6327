/* SPDX-License-Identifier: MIT */
#ifndef AEROSTATD_OPTIONS_H
#define AEROSTATD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define OPTIONS_CONFIG "/etc/aerostat/aerostatd.conf"

struct options {
	const char *config;   /* path of the configuration */
	bool config_given;    /* then it must be there */
	const char *control;  /* instead of the configuration's; NULL: that */
	const char *metrics;  /* the same; "off": none */
	const char *state;    /* the same; "off": none */
	uint32_t interval_ms; /* between two statistics of a VM */
	bool dry_run;
	bool check; /* only read the configuration */
};

/*
 * Parses the command line; --help and --version end the process with status 0. -EINVAL: something
 * is wrong with it, -ENOMEM; one line on stderr says what.
 */
int options_parse(int argc, char **argv, struct options *options);

#endif
