// SPDX-License-Identifier: MIT
#include "common/usage.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

error_t usage_error(struct usage *u, const char *fmt, ...)
{
	va_list ap;

	u->complained = true;
	fprintf(stderr, "%s: ", u->program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EINVAL;
}

error_t usage_option(struct usage *u, int key, const char *arg, const struct argp_state *state)
{
	switch (key) {
	case USAGE_HELP:
		argp_help(state->root_argp, stdout,
			  ARGP_HELP_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, state->name);
		exit(EXIT_SUCCESS);
	case USAGE_VERSION:
		printf("%s (aerostat) %s\n", u->program, AEROSTAT_VERSION);
		exit(EXIT_SUCCESS);
	case ARGP_KEY_ARG:
		return usage_error(u, "unexpected argument '%s' (see --help)", arg);
	case ARGP_KEY_ERROR:
		/* Also what a parser has refused ends here, and that has been told of. */
		if (!u->complained)
			usage_error(u, "bad option '%s' (see --help)",
				    state->argv[state->next - 1]);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int usage_parse(struct usage *u, const struct argp *argp, int argc, char **argv, void *input)
{
	error_t err = argp_parse(argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP, NULL, input);

	if (err && !u->complained)
		usage_error(u, "cannot read the command line: %s", strerror(err));
	return -err;
}

int usage_status(int error)
{
	return error == -EINVAL ? 2 : EXIT_FAILURE;
}
