// SPDX-License-Identifier: MIT
/*
 * sim: the manager of a host and the published algorithms, each against the same simulated guests.
 * Every policy has a world of its own, so they run at the same time, one thread each.
 */
#include <argp.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "world.h"

#define MAX_POLICIES 8
#define MAX_GUESTS   10000
#define MAX_HOURS    (24 * 366)

struct settings {
	struct world_options world;
	const struct policy *chosen[MAX_POLICIES];
	uint32_t n_chosen;
	const char *trace, *write_trace, *output;
	bool json;
};

struct job {
	const struct settings *settings;
	struct result results[MAX_POLICIES];
	int failures[MAX_POLICIES];
	atomic_uint_fast64_t progress[MAX_POLICIES];
	atomic_uint next, done;
};

enum option_key {
	OPTION_GUESTS = 1000,
	OPTION_HOURS,
	OPTION_SEED,
	OPTION_POLICY,
	OPTION_TRACE,
	OPTION_WRITE_TRACE,
	OPTION_OWN,
	OPTION_BUDGET,
	OPTION_FLOOR,
	OPTION_HOST_CACHE,
	OPTION_JSON,
	OPTION_OUTPUT,
};

static const struct argp_option options[] = {
	{"guests", OPTION_GUESTS, "N", 0, "So many guests, up to 10000; 1000 if not said", 0},
	{"hours", OPTION_HOURS, "H", 0, "For so long; 24 if not said", 0},
	{"seed", OPTION_SEED, "S", 0, "What guests are and do; 1 if not said", 0},
	{"policy", OPTION_POLICY, "LIST", 0,
	 "aerostat, proxmox, mom, mom-available, static, with commas between; all if not said", 0},
	{"trace", OPTION_TRACE, "FILE", 0,
	 "What guests want, instead of what is generated: lines \"vm,seconds,bytes\"", 0},
	{"write-trace", OPTION_WRITE_TRACE, "FILE", 0,
	 "Write what is generated to such a file, and run nothing", 0},
	{"own", OPTION_OWN, "PERCENT", 0,
	 "Guests with our driver, which tells of pressure; 50 if not said", 0},
	{"budget", OPTION_BUDGET, "PERCENT", 0,
	 "Of guests' sizes: what they may keep together when the host is used as wanted; 60 if not "
	 "said",
	 0},
	{"floor", OPTION_FLOOR, "PERCENT", 0, "Of its size: what each guest keeps; 25 if not said",
	 0},
	{"host-cache", OPTION_HOST_CACHE, "PERCENT", 0,
	 "Of the host's memory: its own cache that can be reclaimed; 0 if not said", 0},
	{"json", OPTION_JSON, NULL, 0, "JSON on standard output instead of a table", 0},
	{"output", OPTION_OUTPUT, "FILE", 0, "Write JSON with time lines there, for plots", 0},
	{0},
};

static void parse_number(struct argp_state *state, const char *text, double low, double high,
			 double *value)
{
	char *end;

	errno = 0;
	*value = strtod(text, &end);
	if (end == text || *end || errno || !(*value >= low && *value <= high))
		argp_error(state, "%s: no number from %g to %g", text, low, high);
}

static uint32_t parse_count(struct argp_state *state, const char *text, uint32_t most)
{
	double value = 0;

	parse_number(state, text, 1, most, &value);
	if (value != (double)(uint32_t)value)
		argp_error(state, "%s: no whole number", text);
	return (uint32_t)value;
}

static double parse_percent(struct argp_state *state, const char *text, double low)
{
	double value = 0;

	parse_number(state, text, low, 100, &value);
	return value / 100;
}

static void parse_seed(struct argp_state *state, const char *text, uint64_t *seed)
{
	char *end;

	errno = 0;
	*seed = strtoull(text, &end, 0);
	if (end == text || *end || errno || *text == '-')
		argp_error(state, "%s: no seed", text);
}

static void parse_policies(struct argp_state *state, char *text, struct settings *s)
{
	char *rest = NULL;

	s->n_chosen = 0;
	for (char *name = strtok_r(text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
		const struct policy *const *p = policies;

		while (*p && strcmp((*p)->name, name) != 0)
			p++;
		if (!*p || s->n_chosen == MAX_POLICIES)
			argp_error(state, "%s: no such policy", name);
		s->chosen[s->n_chosen++] = *p;
	}
	if (!s->n_chosen)
		argp_error(state, "no policy named");
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct settings *s = state->input;

	switch (key) {
	case OPTION_GUESTS:
		s->world.guests = parse_count(state, text, MAX_GUESTS);
		return 0;
	case OPTION_HOURS:
		s->world.hours = parse_count(state, text, MAX_HOURS);
		return 0;
	case OPTION_SEED:
		parse_seed(state, text, &s->world.seed);
		return 0;
	case OPTION_POLICY:
		parse_policies(state, text, s);
		return 0;
	case OPTION_TRACE:
		s->trace = text;
		return 0;
	case OPTION_WRITE_TRACE:
		s->write_trace = text;
		return 0;
	case OPTION_OWN:
		s->world.own = parse_percent(state, text, 0);
		return 0;
	case OPTION_BUDGET:
		s->world.budget = parse_percent(state, text, 1);
		return 0;
	case OPTION_FLOOR:
		s->world.floor = parse_percent(state, text, 0);
		return 0;
	case OPTION_HOST_CACHE:
		s->world.host_cache = parse_percent(state, text, 0);
		return 0;
	case OPTION_JSON:
		s->json = true;
		return 0;
	case OPTION_OUTPUT:
		s->output = text;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "%s: unknown argument", text);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* --- running --------------------------------------------------------------------------------- */

static void *work(void *opaque)
{
	struct job *job = opaque;
	const struct settings *s = job->settings;
	uint32_t i;

	while ((i = atomic_fetch_add(&job->next, 1)) < s->n_chosen) {
		job->failures[i] =
			world_run(&s->world, s->chosen[i], &job->progress[i], &job->results[i]);
		atomic_fetch_add(&job->done, 1);
	}
	return NULL;
}

static void show_progress(struct job *job)
{
	const struct settings *s = job->settings;
	double whole = s->world.hours * 3600.0 * s->n_chosen;

	while (atomic_load(&job->done) < s->n_chosen) {
		double passed = 0;

		for (uint32_t i = 0; i < s->n_chosen; i++)
			passed += (double)atomic_load(&job->progress[i]);
		fprintf(stderr, "\rsim: %3.0f %%", 100 * passed / whole);
		usleep(200000);
	}
	fputs("\r           \r", stderr);
}

/* As many threads as there are processors, at most one for each policy. */
static int run_all(struct job *job)
{
	uint32_t processors = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), threads = 0;
	pthread_t thread[MAX_POLICIES];

	while (threads < job->settings->n_chosen && threads < processors) {
		if (pthread_create(&thread[threads], NULL, work, job) != 0)
			break;
		threads++;
	}
	if (!threads)
		work(job);
	else if (isatty(STDERR_FILENO))
		show_progress(job);
	for (uint32_t i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	for (uint32_t i = 0; i < job->settings->n_chosen; i++) {
		if (job->failures[i] < 0)
			return job->failures[i];
		fprintf(stderr, "sim: %s took %.1f s, %.1f s of processor time\n",
			job->results[i].policy->name, job->results[i].run_s, job->results[i].cpu_s);
	}
	return 0;
}

static int write_results(const struct settings *s, const struct result *results)
{
	int failed = 0;

	if (s->json)
		output_json(stdout, &s->world, results, s->n_chosen, false);
	else
		output_table(stdout, &s->world, results, s->n_chosen);
	if (s->output) {
		FILE *file = fopen(s->output, "we");

		if (file)
			output_json(file, &s->world, results, s->n_chosen, true);
		if (!file || fclose(file) != 0) {
			fprintf(stderr, "sim: %s: %s\n", s->output, strerror(errno));
			failed = 1;
		}
	}
	return fflush(stdout) != 0 ? 1 : failed;
}

static int run(const struct settings *s)
{
	struct job job = {.settings = s};
	int ret = run_all(&job);

	if (ret < 0) {
		fprintf(stderr, "sim: %s\n", strerror(-ret));
		ret = 1;
	} else {
		ret = write_results(s, job.results);
	}
	for (uint32_t i = 0; i < s->n_chosen; i++)
		result_free(&job.results[i]);
	return ret;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.doc = "Simulates a host whose guests want more memory than it has, once for each "
		       "policy that moves memory between them.",
	};
	struct settings s = {.world = {.guests = 1000,
				       .hours = 24,
				       .seed = 1,
				       .own = 0.5,
				       .budget = 0.6,
				       .floor = 0.25}};
	struct recording recording = {0};
	int ret;

	for (const struct policy *const *p = policies; *p; p++)
		s.chosen[s.n_chosen++] = *p;
	argp_err_exit_status = 2;
	if (argp_parse(&argp, argc, argv, 0, NULL, &s) != 0)
		return 2;
	if (s.trace) {
		if (recording_read(&recording, s.trace) < 0)
			return 1;
		s.world.guests = recording.guests;
		s.world.recording = &recording;
	}
	if (s.write_trace)
		ret = output_traces(&s.world, s.write_trace) < 0;
	else
		ret = run(&s);
	recording_free(&recording);
	return ret;
}
