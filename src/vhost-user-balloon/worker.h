/* SPDX-License-Identifier: MIT */
/* The process that does all the parsing: started by the parent, see child.h and channel.h. */
#ifndef VUB_WORKER_H
#define VUB_WORKER_H

#include "options.h"

/* The process's whole life; returns its exit status. */
int worker_run(const struct options *options);

#endif
