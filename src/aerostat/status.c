// SPDX-License-Identifier: MIT
#include "status.h"

#include <stdarg.h>
#include <stdio.h>

enum status failure_set(struct failure *f, enum status status, const char *fmt, ...)
{
	va_list ap;

	f->status = status;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	return status;
}
