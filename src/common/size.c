// SPDX-License-Identifier: MIT
#include "common/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

int size_parse(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	uint64_t scale = 1, value;
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			return -EINVAL;
		scale = 1ULL << (10 * (unit - units + 1));
	}
	return checked_mul(value, scale, bytes) ? 0 : -EINVAL;
}
