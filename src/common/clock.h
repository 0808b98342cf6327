/* SPDX-License-Identifier: MIT */
/* The one place where clocks are read. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include "base/instant.h"

struct instant clock_now(void);

#endif
