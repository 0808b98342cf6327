/* SPDX-License-Identifier: MIT */
/* What systemd is told, and what it gives: readiness, the watchdog, sockets. */
#ifndef AEROSTATD_SERVICE_H
#define AEROSTATD_SERVICE_H

#include <stdbool.h>
#include <uv.h>

struct service {
	uv_timer_t watchdog;
	bool watched;
};

/* The control socket that systemd has opened for us; -1: none. */
int service_socket(void);

/* Begins to feed the watchdog from the loop, if there is one. */
void service_start(struct service *s, uv_loop_t *loop);

/* Says where we are: "READY=1", "RELOADING=1" (with its time), "STOPPING=1". */
void service_ready(void);
void service_reloading(void);
void service_stopping(void);

void service_stop(struct service *s);

#endif
