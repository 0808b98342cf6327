// SPDX-License-Identifier: MIT
#include "log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/ratelimit.h"
#include "clock.h"

static const char *vm_name;
static struct ratelimit limit = {.interval_ms = 10000, .burst = 10};

void log_set_name(const char *name)
{
	vm_name = name;
}

__attribute__((format(printf, 1, 0))) static void vlog(const char *fmt, va_list ap)
{
	char line[512];

	vsnprintf(line, sizeof(line), fmt, ap);
	fprintf(stderr, "vhost-user-balloon%s%s%s: %s\n", vm_name ? "[" : "",
		vm_name ? vm_name : "", vm_name ? "]" : "", line);
}

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(fmt, ap);
	va_end(ap);
}

void log_limited(const char *fmt, ...)
{
	uint64_t suppressed;
	va_list ap;

	if (!ratelimit_pass(&limit, clock_now().mono_ms, &suppressed))
		return;
	if (suppressed)
		log_line("%" PRIu64 " messages like the following were left out", suppressed);
	va_start(ap, fmt);
	vlog(fmt, ap);
	va_end(ap);
}
