// SPDX-License-Identifier: MIT
/* Recorded traces: read as they come, then sorted by guest, in the order in which they were met. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"

#define NAME_BYTES 64
#define MAX_GUESTS 10000

struct line {
	uint32_t guest;
	struct trace_point point;
};

struct reading {
	struct line *lines;
	size_t n, room;
	char (*names)[NAME_BYTES];
	uint32_t guests;
	uint32_t last; /* whose line came last: mostly the next one's too */
};

static int find_guest(struct reading *in, const char *name, size_t len, uint32_t *guest)
{
	char(*names)[NAME_BYTES] = in->names;

	for (uint32_t i = 0; i < in->guests; i++) {
		uint32_t at = (in->last + i) % in->guests;

		if (strlen(names[at]) == len && memcmp(names[at], name, len) == 0) {
			*guest = in->last = at;
			return 0;
		}
	}
	if (!len || len >= NAME_BYTES || in->guests == MAX_GUESTS)
		return -EINVAL;
	memcpy(names[in->guests], name, len);
	names[in->guests][len] = '\0';
	*guest = in->last = in->guests++;
	return 0;
}

/* A number that is not negative, and what follows it. */
static bool number(const char **at, double *value)
{
	char *end;

	errno = 0;
	*value = strtod(*at, &end);
	if (end == *at || errno || !isfinite(*value) || *value < 0)
		return false;
	*at = end;
	return true;
}

static int read_line(struct reading *in, const char *text)
{
	const char *comma = strchr(text, ','), *at;
	struct line *line;

	if (!comma)
		return -EINVAL;
	if (in->n == in->room) {
		size_t room = in->room ? 2 * in->room : 4096;

		line = realloc(in->lines, room * sizeof(*line));
		if (!line)
			return -ENOMEM;
		in->lines = line;
		in->room = room;
	}
	line = &in->lines[in->n];
	at = comma + 1;
	if (find_guest(in, text, (size_t)(comma - text), &line->guest) < 0 ||
	    !number(&at, &line->point.at_s) || *at++ != ',' || !number(&at, &line->point.bytes) ||
	    *at)
		return -EINVAL;
	in->n++;
	return 0;
}

static int read_lines(struct reading *in, FILE *file, const char *path)
{
	char text[256];

	for (unsigned int number = 1; fgets(text, sizeof(text), file); number++) {
		int ret;

		text[strcspn(text, "\r\n")] = '\0';
		if (!*text || *text == '#' || strncmp(text, "vm,", 3) == 0)
			continue;
		ret = read_line(in, text);
		if (ret < 0) {
			fprintf(stderr, "sim: %s:%u: no \"vm,seconds,bytes\"\n", path, number);
			return ret;
		}
	}
	if (in->guests)
		return 0;
	fprintf(stderr, "sim: %s: no traces in it\n", path);
	return -EINVAL;
}

/* Puts each guest's points together, in the order in which they came. */
static int sort(struct recording *r, const struct reading *in, const char *path)
{
	size_t *at;

	r->guests = in->guests;
	r->n_points = in->n;
	r->points = calloc(in->n, sizeof(*r->points));
	r->first = calloc(in->guests + 1u, sizeof(*r->first));
	r->highest = calloc(in->guests, sizeof(*r->highest));
	at = calloc(in->guests, sizeof(*at));
	if (!r->points || !r->first || !r->highest || !at) {
		free(at);
		return -ENOMEM;
	}
	for (size_t i = 0; i < in->n; i++)
		r->first[in->lines[i].guest + 1u]++;
	for (uint32_t g = 0; g < in->guests; g++) {
		r->first[g + 1] += r->first[g];
		at[g] = r->first[g];
	}
	for (size_t i = 0; i < in->n; i++) {
		const struct line *line = &in->lines[i];
		uint32_t g = line->guest;

		if (at[g] > r->first[g] && r->points[at[g] - 1].at_s > line->point.at_s) {
			fprintf(stderr, "sim: %s: times of %s go backwards\n", path, in->names[g]);
			free(at);
			return -EINVAL;
		}
		r->points[at[g]++] = line->point;
		if (line->point.bytes > r->highest[g])
			r->highest[g] = line->point.bytes;
	}
	free(at);
	return 0;
}

int recording_read(struct recording *r, const char *path)
{
	struct reading in = {0};
	FILE *file = fopen(path, "re");
	int ret;

	*r = (struct recording){0};
	if (!file) {
		ret = -errno;
		fprintf(stderr, "sim: %s: %s\n", path, strerror(errno));
		return ret;
	}
	in.names = calloc(MAX_GUESTS, sizeof(*in.names));
	ret = in.names ? read_lines(&in, file, path) : -ENOMEM;
	if (ret == 0)
		ret = sort(r, &in, path);
	if (ret < 0)
		recording_free(r);
	fclose(file);
	free(in.names);
	free(in.lines);
	return ret;
}

void recording_free(struct recording *r)
{
	free(r->points);
	free(r->first);
	free(r->highest);
	*r = (struct recording){0};
}
