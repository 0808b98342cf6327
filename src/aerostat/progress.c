// SPDX-License-Identifier: MIT
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BAR 30

void progress_begin(struct progress *p, const char *what, const struct style *style)
{
	const char *term = getenv("TERM");

	/* A terminal that cannot go back to the line's begin would be flooded. */
	*p = (struct progress){.what = what,
			       .unicode = style->unicode,
			       .on = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0};
}

void progress_show(struct progress *p, double part, const char *text)
{
	char bar[3 * BAR + 1];
	size_t out = 0;

	if (!p->on)
		return;
	for (int i = 0; i < BAR; i++) {
		const char *cell = part * BAR > i ? (p->unicode ? "\u2588" : "#") : ".";

		memcpy(bar + out, cell, strlen(cell));
		out += strlen(cell);
	}
	bar[out] = '\0';
	fprintf(stderr, "\r%s [%s] %3.0f %%  %s\033[K", p->what, bar, 100 * (part > 1 ? 1 : part),
		text);
	fflush(stderr);
}

void progress_end(struct progress *p)
{
	if (p->on)
		fputs("\r\033[K", stderr);
	fflush(stderr);
	p->on = false;
}
