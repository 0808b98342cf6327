/* SPDX-License-Identifier: MIT */
/* How much memory the host has, by /proc. */
#ifndef AEROSTATD_HOST_H
#define AEROSTATD_HOST_H

#include "manager/manager.h"

/*
 * Reads proc/meminfo and proc/pressure/memory; "/proc" but in tests. resident is left unknown. A
 * kernel without PSI has 0 there, and *psi is false. 0, or -errno with *host untouched: nothing is
 * known then.
 */
int host_read(const char *proc, struct manager_host *host, bool *psi);

/* Microseconds that tasks have waited for memory since boot ("some"). False: the kernel has no PSI.
 */
bool host_waited_us(const char *proc, uint64_t *us);

#endif
