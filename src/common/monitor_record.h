/* SPDX-License-Identifier: MIT */
/* What of a monitor's client is known outside of the process that serves it: plain data. */
#ifndef COMMON_MONITOR_RECORD_H
#define COMMON_MONITOR_RECORD_H

#include <stdbool.h>
#include <stdint.h>

struct monitor_name {
	uint32_t id;     /* index of its record */
	uint32_t serial; /* not 0; no two clients have the same */
};

/* Of a client, by its id. All zero: none. */
struct monitor_record {
	uint32_t serial; /* 0: none */
	bool negotiated;
	bool clean; /* it will not notice when another process goes on with it */
};

#endif
