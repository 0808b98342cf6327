// SPDX-License-Identifier: MIT
#include "options.h"

#include <ctype.h>
#include <stdlib.h>

#include "common/usage.h"

#define INTERVAL_MS     1000
#define INTERVAL_MIN_MS 100
#define INTERVAL_MAX_MS 60000

static const char doc[] =
	"Moves memory between the virtual machines of a host, through the monitors of QEMU and of "
	"vhost-user-balloon, and says why."
	"\vWithout a configuration it looks for monitors in /run/aerostat/vm. See aerostatd(8).";

enum option_key {
	KEY_CONFIG = 0x100,
	KEY_CONTROL,
	KEY_METRICS,
	KEY_STATE,
	KEY_INTERVAL,
	KEY_DRY_RUN,
	KEY_CHECK,
};

static const struct argp_option argp_options[] = {
	{"config", KEY_CONFIG, "FILE", 0,
	 "Read this configuration (default: " OPTIONS_CONFIG ", if it is there)", 1},
	{"control", KEY_CONTROL, "PATH", 0, "Offer the control monitor on this Unix socket", 1},
	{"metrics", KEY_METRICS, "ADDRESS:PORT|off", 0, "Offer metrics over HTTP there", 1},
	{"state", KEY_STATE, "FILE|off", 0, "Keep what was learned and set in this file", 1},
	{"interval", KEY_INTERVAL, "MS", 0,
	 "Have statistics of each VM so often, 100 to 60000 ms (default: 1000; QEMU's own balloon "
	 "has whole seconds)",
	 1},
	{"dry-run", KEY_DRY_RUN, NULL, 0, "Decide and explain, and change nothing", 2},
	{"check", KEY_CHECK, NULL, 0, "Say whether the configuration is right, and exit", 2},
	USAGE_OPTIONS,
	{0},
};

struct parse {
	struct usage usage;
	struct options *options;
};

static error_t parse_interval(struct parse *p, const char *arg)
{
	char *end;
	unsigned long n = strtoul(arg, &end, 10);

	if (*end || !isdigit((unsigned char)arg[0]) || n < INTERVAL_MIN_MS || n > INTERVAL_MAX_MS)
		return usage_error(&p->usage,
				   "--interval: '%s' is no number of milliseconds from %u to %u",
				   arg, INTERVAL_MIN_MS, INTERVAL_MAX_MS);
	p->options->interval_ms = (uint32_t)n;
	return 0;
}

static error_t take(struct parse *p, const char *option, const char *arg, const char **place)
{
	if (!*arg)
		return usage_error(&p->usage, "%s: nothing is given", option);
	*place = arg;
	return 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct parse *p = state->input;
	struct options *o = p->options;

	switch (key) {
	case KEY_CONFIG:
		o->config_given = true;
		return take(p, "--config", arg, &o->config);
	case KEY_CONTROL:
		return take(p, "--control", arg, &o->control);
	case KEY_METRICS:
		return take(p, "--metrics", arg, &o->metrics);
	case KEY_STATE:
		return take(p, "--state", arg, &o->state);
	case KEY_INTERVAL:
		return parse_interval(p, arg);
	case KEY_DRY_RUN:
		o->dry_run = true;
		return 0;
	case KEY_CHECK:
		o->check = true;
		return 0;
	default:
		return usage_option(&p->usage, key, arg, state);
	}
}

static const struct argp argp = {.options = argp_options, .parser = parse_option, .doc = doc};

int options_parse(int argc, char **argv, struct options *options)
{
	struct parse p = {.usage = {.program = "aerostatd"}, .options = options};

	*options = (struct options){.config = OPTIONS_CONFIG, .interval_ms = INTERVAL_MS};
	return usage_parse(&p.usage, &argp, argc, argv, &p);
}
