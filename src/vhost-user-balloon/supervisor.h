/* SPDX-License-Identifier: MIT */
/*
 * The parent: owns every socket and every received descriptor, starts the worker that does all the
 * parsing, and starts another when it dies.
 */
#ifndef VUB_SUPERVISOR_H
#define VUB_SUPERVISOR_H

#include "options.h"

/*
 * Serves until it is told to end. argv is the program's own command line, for the worker's. 0, or
 * -errno with a line in the log: it could not be started.
 */
int supervisor_run(const struct options *options, int argc, char **argv);

#endif
