// SPDX-License-Identifier: MIT
#include "common/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/ratelimit.h"
#include "common/clock.h"
#include "qmp/json.h"

static const char *program_name = "aerostat";
static const char *vm_name;
static struct ratelimit limit = {.interval_ms = 10000, .burst = 10};

void log_set_name(const char *program, const char *name)
{
	program_name = program;
	vm_name = name;
}

/*
 * One line, whatever others have put into it: names and words of monitors, front ends and libvirt
 * are in what is logged, and a log is read on terminals.
 */
static void make_safe(char *line)
{
	size_t left = strlen(line), n;

	for (; left; line += n, left -= n) {
		n = qmp_utf8_len(line, left);
		if (n > 1 && !qmp_utf8_is_control(line))
			continue;
		n = n ? n : 1;
		if (n > 1 || (unsigned char)*line < ' ' || (unsigned char)*line >= 0x7f)
			memset(line, '?', n);
	}
}

__attribute__((format(printf, 1, 0))) static void vlog(const char *fmt, va_list ap)
{
	char line[512];

	vsnprintf(line, sizeof(line), fmt, ap);
	make_safe(line);
	fprintf(stderr, "%s%s%s%s: %s\n", program_name, vm_name ? "[" : "", vm_name ? vm_name : "",
		vm_name ? "]" : "", line);
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
