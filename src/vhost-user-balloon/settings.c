// SPDX-License-Identifier: MIT
#include "settings.h"

#include <errno.h>
#include <string.h>

static int find(const struct settings *s, const char *reason)
{
	for (uint32_t i = 0; i < s->n_inhibitors; i++) {
		if (strcmp(s->inhibitor[i], reason) == 0)
			return (int)i;
	}
	return -1;
}

bool settings_valid(const struct settings *s)
{
	if (s->n_inhibitors > SETTINGS_INHIBITORS_MAX)
		return false;
	for (uint32_t i = 0; i < s->n_inhibitors; i++) {
		if (!s->inhibitor[i][0] || !memchr(s->inhibitor[i], '\0', SETTINGS_REASON_MAX) ||
		    find(s, s->inhibitor[i]) != (int)i)
			return false;
	}
	return true;
}

int settings_inhibit(struct settings *s, const char *reason)
{
	size_t len = strlen(reason);

	if (!len)
		return -EINVAL;
	if (len >= SETTINGS_REASON_MAX)
		return -ENAMETOOLONG;
	if (find(s, reason) >= 0)
		return -EEXIST;
	if (s->n_inhibitors == SETTINGS_INHIBITORS_MAX)
		return -ENOSPC;
	memset(s->inhibitor[s->n_inhibitors], 0, SETTINGS_REASON_MAX);
	memcpy(s->inhibitor[s->n_inhibitors++], reason, len);
	return 0;
}

int settings_uninhibit(struct settings *s, const char *reason)
{
	int at = find(s, reason);

	if (at < 0)
		return -ENOENT;
	s->n_inhibitors--;
	memmove(s->inhibitor[at], s->inhibitor[at + 1],
		(s->n_inhibitors - (uint32_t)at) * SETTINGS_REASON_MAX);
	/* Nothing is left of it: the whole struct is compared with what was saved. */
	memset(s->inhibitor[s->n_inhibitors], 0, SETTINGS_REASON_MAX);
	return 0;
}
