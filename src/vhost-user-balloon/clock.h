/* SPDX-License-Identifier: MIT */
/* The one place where clocks are read. */
#ifndef VUB_CLOCK_H
#define VUB_CLOCK_H

#include "base/instant.h"

struct instant clock_now(void);

#endif
