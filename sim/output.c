// SPDX-License-Identifier: MIT
#include "output.h"

#include <errno.h>
#include <string.h>

#define HOUR_S 3600.0

static double gib_hours(double byte_seconds)
{
	return byte_seconds / GIB / HOUR_S;
}

static const char legend[] =
	"\nstall: time that guests waited for memory, or for what was taken too early; worst: of "
	"one"
	"\ndown: the same for programs that were killed, until they are back"
	"\ngiven: guests' sizes less what they had of the host, that is, memory for others"
	"\nhost short: seconds in which the host itself swapped\n";

void output_table(FILE *file, const struct world_options *options, const struct result *results,
		  uint32_t n)
{
	const struct result *first = &results[0];

	fprintf(file, "%u guests of %.0f GiB on a host of %.0f GiB, %u h, seed %llu, ",
		options->guests, first->sizes / GIB, first->host_total / GIB, options->hours,
		(unsigned long long)options->seed);
	fprintf(file, "%.0f %% with our driver\n\n", options->own * 100);
	fprintf(file, "%-14s %9s %8s %7s %8s %8s %9s %9s %9s %7s %6s\n", "policy", "stall", "worst",
		"OOM", "of them", "down", "given", "in", "moved", "host", "host");
	fprintf(file, "%-14s %9s %8s %7s %8s %8s %9s %9s %9s %7s %6s\n", "", "guest h", "guest s",
		"kills", "unavoid.", "guest h", "GiB h", "balloons", "M pages", "short s",
		"free %");
	for (uint32_t i = 0; i < n; i++) {
		const struct result *r = &results[i];

		fprintf(file, "%-14s %9.2f %8.0f %7llu %8llu %8.2f %9.0f %9.0f %9.0f %7.0f %6.1f\n",
			r->policy->name, r->stall_s / HOUR_S, r->stall_max_s,
			(unsigned long long)r->kills, (unsigned long long)r->kills_unavoidable,
			r->down_s / HOUR_S, gib_hours(r->freed), gib_hours(r->ballooned),
			r->moved / 1e6, r->host_short_s, 100 * r->available_mean / r->host_total);
	}
	fputs(legend, file);
}

/* --- JSON ------------------------------------------------------------------------------------ */

static void json_kinds(FILE *file, const struct result *r)
{
	const char *separator = "";

	fputs("\"kinds\": {", file);
	for (uint32_t k = 0; k < TRACE_KIND_COUNT; k++) {
		const struct kind_result *kind = &r->kind[k];

		if (!kind->guests)
			continue;
		fprintf(file,
			"%s\"%s\": {\"guests\": %u, \"stall-seconds\": %.3f, \"down-seconds\": "
			"%.3f, \"oom-kills\": %llu}",
			separator, trace_kind_name((enum trace_kind)k), kind->guests, kind->stall_s,
			kind->down_s, (unsigned long long)kind->kills);
		separator = ", ";
	}
	fputs("}", file);
}

static void json_samples(FILE *file, const struct result *r)
{
	fputs(",\n   \"guest-stall-seconds\": [", file);
	for (uint32_t i = 0; i < r->n_stalls; i++)
		fprintf(file, "%s%.3f", i ? ", " : "", r->stalls[i]);
	fputs("],\n   \"samples\": [", file);
	for (uint32_t i = 0; i < r->n_samples; i++) {
		const struct sample *s = &r->samples[i];

		fprintf(file,
			"%s\n    {\"at-seconds\": %.0f, \"wanted\": %.0f, \"kept\": %.0f, "
			"\"resident\": %.0f, "
			"\"available\": %.0f, \"stall-seconds\": %.3f, "
			"\"oom-kills\": %llu}",
			i ? "," : "", s->at_s, s->wanted, s->kept, s->resident, s->available,
			s->stall, (unsigned long long)s->kills);
	}
	fputs("]", file);
}

static void json_result(FILE *file, const struct result *r, bool samples)
{
	fprintf(file,
		"  {\"policy\": \"%s\", \"stall-seconds\": %.3f, \"stall-seconds-worst\": %.3f, "
		"\"down-seconds\": %.3f, "
		"\"oom-kills\": %llu, \"oom-kills-unavoidable\": %llu,\n   "
		"\"given-byte-seconds\": %.0f, \"balloon-byte-seconds\": %.0f, \"moved-pages\": "
		"%.0f, "
		"\"targets\": %llu,\n   \"refused-inflations\": %llu, \"pressure-messages\": %llu, "
		"\"host-short-seconds\": %.0f,\n   \"host-available-mean\": %.0f, "
		"\"host-available-min\": %.0f,\n   ",
		r->policy->name, r->stall_s, r->stall_max_s, r->down_s,
		(unsigned long long)r->kills, (unsigned long long)r->kills_unavoidable, r->freed,
		r->ballooned, r->moved, (unsigned long long)r->targets,
		(unsigned long long)r->puffs, (unsigned long long)r->messages, r->host_short_s,
		r->available_mean, r->available_min);
	json_kinds(file, r);
	if (r->notes[0])
		fprintf(file, ",\n   \"notes\": %s", r->notes);
	if (samples)
		json_samples(file, r);
	fputs("}", file);
}

void output_json(FILE *file, const struct world_options *options, const struct result *results,
		 uint32_t n, bool samples)
{
	fprintf(file,
		"{\"version\": 1, \"guests\": %u, \"hours\": %u, \"seed\": %llu, \"own-share\": "
		"%g, "
		"\"budget-share\": %g,\n \"floor-share\": %g, \"sizes\": %.0f, \"host-memory\": "
		"%.0f,\n "
		"\"results\": [\n",
		options->guests, options->hours, (unsigned long long)options->seed, options->own,
		options->budget, options->floor, results[0].sizes, results[0].host_total);
	for (uint32_t i = 0; i < n; i++) {
		json_result(file, &results[i], samples);
		fputs(i + 1 < n ? ",\n" : "\n", file);
	}
	fputs(" ]}\n", file);
}

/* --- traces ---------------------------------------------------------------------------------- */

static void write_trace(FILE *file, const char *kind, uint32_t guest, struct trace *t, double end_s)
{
	struct trace_point at = t->before;

	while (at.at_s < end_s) {
		fprintf(file, "%s-%u,%.3f,%.0f\n", kind, guest, at.at_s, at.bytes);
		at = t->after;
		trace_demand(t, at.at_s);
	}
	fprintf(file, "%s-%u,%.3f,%.0f\n", kind, guest, at.at_s, at.bytes);
}

int output_traces(const struct world_options *options, const char *path)
{
	FILE *file = fopen(path, "we");
	struct world w;
	int ret;

	if (!file) {
		ret = -errno;
		fprintf(stderr, "sim: %s: %s\n", path, strerror(errno));
		return ret;
	}
	ret = world_init(&w, options);
	if (ret == 0) {
		fputs("vm,seconds,bytes\n", file);
		for (uint32_t i = 0; i < w.n; i++)
			write_trace(file, trace_kind_name(w.guests[i].kind), i, &w.traces[i],
				    options->hours * HOUR_S);
	}
	world_free(&w);
	if (fclose(file) != 0 && ret == 0) {
		ret = -errno;
		fprintf(stderr, "sim: %s: %s\n", path, strerror(errno));
	}
	return ret;
}
