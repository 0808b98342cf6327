// SPDX-License-Identifier: MIT
#include "record_line.h"

#include <inttypes.h>
#include <string.h>

char *record_name(const char *name, char *buf, size_t len)
{
	size_t out = 0, room = len < RECORD_NAME ? len : RECORD_NAME;

	if (*name == '#' || strcmp(name, "vm") == 0 || strncmp(name, "vm,", 3) == 0)
		buf[out++] = '_';
	for (; *name; name++) {
		unsigned char c = (unsigned char)*name;

		if (out + 1 >= room)
			break;
		buf[out++] = (char)(c < 0x20 || c == 0x7f || c == ',' ? '_' : c);
	}
	buf[out] = '\0';
	return buf;
}

int record_line(struct qmp_buf *buf, const char *name, uint64_t ms, uint64_t bytes)
{
	char safe[RECORD_NAME];

	return qmp_buf_printf(buf, "%s,%" PRIu64 ".%03" PRIu64 ",%" PRIu64 "\n",
			      record_name(name, safe, sizeof(safe)), ms / 1000, ms % 1000, bytes);
}
