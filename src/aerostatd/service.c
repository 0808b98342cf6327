// SPDX-License-Identifier: MIT
#include "service.h"

#if HAVE_SYSTEMD

#include <inttypes.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <time.h>

static void on_watchdog(uv_timer_t *timer)
{
	(void)timer;
	sd_notify(0, "WATCHDOG=1");
}

int service_socket(void)
{
	int n = sd_listen_fds(1);

	if (n != 1 || sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_STREAM, 1, NULL, 0) <= 0)
		return -1;
	return SD_LISTEN_FDS_START;
}

void service_start(struct service *s, uv_loop_t *loop)
{
	uint64_t us = 0;

	uv_timer_init(loop, &s->watchdog);
	s->watched = sd_watchdog_enabled(1, &us) > 0;
	/* Twice in each of its periods, as sd_watchdog_enabled(3) says. */
	if (s->watched)
		uv_timer_start(&s->watchdog, on_watchdog, us / 2000, us / 2000);
}

void service_ready(void)
{
	sd_notify(0, "READY=1");
}

void service_reloading(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		   (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

void service_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}

#else /* nobody to talk to */

int service_socket(void)
{
	return -1;
}

void service_start(struct service *s, uv_loop_t *loop)
{
	uv_timer_init(loop, &s->watchdog);
}

void service_ready(void)
{
}

void service_reloading(void)
{
}

void service_stopping(void)
{
}

#endif

void service_stop(struct service *s)
{
	uv_close((uv_handle_t *)&s->watchdog, NULL);
}
