// SPDX-License-Identifier: MIT
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>

#include "aerostat/virtio_balloon.h"
#include "common/size.h"
#include "common/usage.h"
#include "virtio/ring.h"

#define MIB_PAGES(n) ((uint64_t)(n) << (20 - VIRTIO_BALLOON_PFN_SHIFT))

/*
 * By default we offer all that is in the standard, and nothing that is not: stats-push has a bit
 * that other proposals in the wild use for something else, and message is our own.
 */
const struct feature_name feature_names[] = {
	{"must-tell-host", VIRTIO_BALLOON_F_MUST_TELL_HOST, false, true},
	{"stats", VIRTIO_BALLOON_F_STATS_VQ, true, true},
	{"deflate-on-oom", VIRTIO_BALLOON_F_DEFLATE_ON_OOM, true, true},
	{"free-page-hint", VIRTIO_BALLOON_F_FREE_PAGE_HINT, true, true},
	{"page-poison", VIRTIO_BALLOON_F_PAGE_POISON, true, true},
	{"page-reporting", VIRTIO_BALLOON_F_PAGE_REPORTING, true, true},
	{"stats-push", VIRTIO_BALLOON_F_STATS_PUSH, true, false},
	{"message", VIRTIO_BALLOON_F_MESSAGE_VQ, true, false},
	{"ranges", VIRTIO_BALLOON_F_RANGES, false, false}, /* reserved */
	{"indirect-desc", VIRTIO_F_INDIRECT_DESC, false, true},
	{"event-idx", VIRTIO_F_EVENT_IDX, false, true},
	{"version-1", VIRTIO_F_VERSION_1, false, true},
	{"packed-ring", VIRTIO_F_RING_PACKED, false, true},
	{NULL, 0, false, false},
};

static const char doc[] =
	"Serves a virtio memory balloon to a virtual machine over vhost-user: takes memory from "
	"the guest, gives it back to the host, and is operated through a QMP monitor."
	"\vSizes take K, M, G and T. See vhost-user-balloon(1) for the monitor's commands.";

enum option_key {
	KEY_SOCKET_PATH = 0x100,
	KEY_SOCKET_GROUP,
	KEY_FD,
	KEY_QMP,
	KEY_QMP_GROUP,
	KEY_NAME,
	KEY_STATE_DIR,
	KEY_SANDBOX,
	KEY_FEATURES,
	KEY_TARGET,
	KEY_STATS_PUSH_INTERVAL,
	KEY_ON_PRESSURE,
	KEY_PRESSURE_STEPS,
	KEY_MESSAGE_LIMIT,
	KEY_HEALTH_FACTORS,
	KEY_WORKER,
	KEY_PRINT_CAPABILITIES,
};

static const struct argp_option argp_options[] = {
	{"socket-path", KEY_SOCKET_PATH, "PATH", 0, "Listen for the VMM on this Unix socket", 1},
	{"socket-group", KEY_SOCKET_GROUP, "GROUP", 0,
	 "A VMM of this group may connect too (default: only of the owner of the process)", 1},
	{"fd", KEY_FD, "N", 0, "Use this open socket instead: a listening or a connected one", 1},
	{"qmp", KEY_QMP, "PATH", 0, "Offer the monitor on this Unix socket", 2},
	{"qmp-group", KEY_QMP_GROUP, "GROUP", 0,
	 "Who is in this group may use the monitor too (default: only the owner of the process)",
	 2},
	{"name", KEY_NAME, "NAME", 0, "Name of the virtual machine, for the log", 2},
	{"state-dir", KEY_STATE_DIR, "DIR", 0,
	 "Keep what operators set here, and begin with it after a cold start", 2},
	{"sandbox", KEY_SANDBOX, "on|off", 0,
	 "Keep the process that reads what guests write from everything else (default: on)", 2},
	{"features", KEY_FEATURES, "LIST", 0,
	 "What to offer, separated by commas: stats, deflate-on-oom, free-page-hint, page-poison, "
	 "page-reporting (all these are by default), stats-push, message; or one of them with "
	 "`no-' in front",
	 3},
	{"target", KEY_TARGET, "SIZE", 0, "Memory wanted in the balloon from the start", 3},
	{"stats-push-interval", KEY_STATS_PUSH_INTERVAL, "MS", 0,
	 "The guest sends statistics so often, in milliseconds, at least 10; 0: when asked for "
	 "(default). Takes the feature stats-push",
	 4},
	{"on-pressure", KEY_ON_PRESSURE, "report|hold|deflate", 0,
	 "When the guest says that memory is short: only tell the monitor (default), take no more, "
	 "or give some back",
	 4},
	{"pressure-steps", KEY_PRESSURE_STEPS, "LOW,MEDIUM,CRITICAL", 0,
	 "How much to give back, by how short it is (default: 64M,256M,1G)", 4},
	{"message-limit", KEY_MESSAGE_LIMIT, "N", 0,
	 "Messages of the guest that are served in a second (default: 100); 0: any number", 4},
	{"health-factors", KEY_HEALTH_FACTORS, "SLOW,UNRESPONSIVE", 0,
	 "How many intervals late make a guest slow and unresponsive (default: 1.5,3)", 4},
	{"print-capabilities", KEY_PRINT_CAPABILITIES, NULL, 0,
	 "Print what this program can do as JSON, and exit", 5},
	{"worker", KEY_WORKER, "FD", OPTION_HIDDEN, NULL, 5},
	USAGE_OPTIONS,
	{0},
};

struct parse {
	struct usage usage;
	struct options *options;
	const char *socket_group, *qmp_group;
};

int options_parse_factor(const char *text, uint32_t *milli)
{
	uint64_t value = 0;
	int decimals = -1; /* seen so far; -1: no point yet */

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	for (; *text; text++) {
		if (*text == '.' && decimals < 0 && isdigit((unsigned char)text[1])) {
			decimals = 0;
			continue;
		}
		if (!isdigit((unsigned char)*text) || decimals == 3)
			return -EINVAL;
		value = value * 10 + (unsigned int)(*text - '0');
		if (value > HEALTH_MILLI_MAX)
			return -EINVAL;
		decimals += decimals >= 0;
	}
	for (int i = decimals < 0 ? 0 : decimals; i < 3; i++)
		value *= 10;
	if (value < 1000 || value > HEALTH_MILLI_MAX)
		return -EINVAL;
	*milli = (uint32_t)value;
	return 0;
}

static error_t parse_features(struct parse *p, char *list)
{
	char *word;

	while ((word = strsep(&list, ","))) {
		bool off = strncmp(word, "no-", 3) == 0;
		const char *name = off ? word + 3 : word;
		const struct feature_name *f = feature_names;

		while (f->name && strcmp(f->name, name) != 0)
			f++;
		if (f->name && !f->optional && !f->wanted)
			return usage_error(&p->usage,
					   "--features: '%s' is reserved and cannot be offered yet",
					   name);
		if (f->name && !f->optional)
			return usage_error(&p->usage, "--features: '%s' is always offered", name);
		if (!f->name)
			return usage_error(&p->usage, "--features: unknown feature '%s'", name);
		if (off)
			p->options->features &= ~(1ULL << f->bit);
		else
			p->options->features |= 1ULL << f->bit;
	}
	return 0;
}

static error_t parse_path(struct parse *p, const char *option, const char *arg, const char **path)
{
	/* An empty one would be bound, to a name that nobody knows. */
	if (!*arg)
		return usage_error(&p->usage, "%s: the path is empty", option);
	*path = arg;
	return 0;
}

/* A decimal number up to max. */
static error_t parse_number(struct parse *p, const char *option, const char *what, const char *arg,
			    uint64_t max, uint64_t *value)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(arg, &end, 10);
	if (errno || *end || !isdigit((unsigned char)arg[0]) || n > max)
		return usage_error(&p->usage, "%s: '%s' is no %s", option, arg, what);
	*value = n;
	return 0;
}

static error_t parse_fd(struct parse *p, const char *option, const char *arg, int *fd)
{
	uint64_t value = 0;
	error_t r = parse_number(p, option, "file descriptor number", arg, INT32_MAX, &value);

	if (r == 0)
		*fd = (int)value;
	return r;
}

static error_t parse_u32(struct parse *p, const char *option, const char *what, const char *arg,
			 uint32_t *number)
{
	uint64_t value = 0;
	error_t r = parse_number(p, option, what, arg, UINT32_MAX, &value);

	if (r == 0)
		*number = (uint32_t)value;
	return r;
}

static error_t parse_on_pressure(struct parse *p, const char *arg)
{
	static const char *const names[] = {
		[BALLOON_PRESSURE_REPORT] = "report",
		[BALLOON_PRESSURE_HOLD] = "hold",
		[BALLOON_PRESSURE_DEFLATE] = "deflate",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(arg, names[i]) == 0) {
			p->options->policy.on_pressure = (enum balloon_pressure_policy)i;
			return 0;
		}
	}
	return usage_error(&p->usage, "--on-pressure: '%s' is none of report, hold and deflate",
			   arg);
}

static error_t parse_pressure_steps(struct parse *p, char *arg)
{
	uint64_t *pages = p->options->policy.step_pages, bytes;
	uint32_t level = VIRTIO_BALLOON_PRESSURE_LOW;
	char *word;

	while ((word = strsep(&arg, ","))) {
		if (level == VIRTIO_BALLOON_PRESSURE_NR)
			return usage_error(&p->usage, "--pressure-steps: more than three sizes");
		if (size_parse(word, &bytes) < 0)
			return usage_error(&p->usage,
					   "--pressure-steps: '%s' is no size (such as 64M)", word);
		pages[level++] = bytes >> VIRTIO_BALLOON_PFN_SHIFT;
	}
	if (level != VIRTIO_BALLOON_PRESSURE_NR)
		return usage_error(&p->usage,
				   "--pressure-steps: give three sizes: LOW,MEDIUM,CRITICAL");
	if (pages[VIRTIO_BALLOON_PRESSURE_LOW] > pages[VIRTIO_BALLOON_PRESSURE_MEDIUM] ||
	    pages[VIRTIO_BALLOON_PRESSURE_MEDIUM] > pages[VIRTIO_BALLOON_PRESSURE_CRITICAL])
		return usage_error(&p->usage,
				   "--pressure-steps: a step is smaller than the one before it");
	/* A guest that does not say how short it is gets the least. */
	pages[VIRTIO_BALLOON_PRESSURE_UNSPECIFIED] = pages[VIRTIO_BALLOON_PRESSURE_LOW];
	return 0;
}

static error_t parse_health_factors(struct parse *p, char *arg)
{
	struct health_limits *health = &p->options->health;
	char *second = strchr(arg, ',');

	if (!second)
		return usage_error(&p->usage,
				   "--health-factors: give two factors: SLOW,UNRESPONSIVE");
	*second++ = '\0';
	if (options_parse_factor(arg, &health->slow_milli) < 0)
		return usage_error(&p->usage, "--health-factors: '%s' is no factor from 1 to 1000",
				   arg);
	if (options_parse_factor(second, &health->unresponsive_milli) < 0)
		return usage_error(&p->usage, "--health-factors: '%s' is no factor from 1 to 1000",
				   second);
	if (health->unresponsive_milli < health->slow_milli)
		return usage_error(&p->usage, "--health-factors: unresponsive comes before slow");
	return 0;
}

static error_t parse_sandbox(struct parse *p, const char *arg)
{
	p->options->sandbox = strcmp(arg, "on") == 0;
	if (!p->options->sandbox && strcmp(arg, "off") != 0)
		return usage_error(&p->usage, "--sandbox: '%s' is neither on nor off", arg);
	return 0;
}

/* Lists are cut up in a copy: a worker is started with the same command line. */
static error_t parse_list(struct parse *p, const char *arg,
			  error_t (*parse)(struct parse *, char *))
{
	char *copy = strdup(arg);
	error_t r;

	if (!copy) {
		(void)usage_error(&p->usage, "out of memory");
		return ENOMEM;
	}
	r = parse(p, copy);
	free(copy);
	return r;
}

/* By name, or by number if there is no such name. NULL: none was given. */
static error_t find_group(struct parse *p, const char *option, const char *name, gid_t *gid)
{
	const struct group *group;
	uint32_t number;

	if (!name)
		return 0;
	errno = 0;
	group = getgrnam(name);
	if (group) {
		*gid = group->gr_gid;
		return 0;
	}
	if (!isdigit((unsigned char)name[0]))
		return usage_error(&p->usage, "%s: there is no group '%s'", option, name);
	if (parse_u32(p, option, "number of a group", name, &number) != 0)
		return EINVAL;
	*gid = (gid_t)number;
	return *gid == OPTIONS_NO_GROUP
		       ? usage_error(&p->usage, "%s: '%s' is no group", option, name)
		       : 0;
}

static error_t find_groups(struct parse *p)
{
	struct options *o = p->options;

	if (p->socket_group && !o->socket_path)
		return usage_error(&p->usage, "--socket-group takes --socket-path");
	if (p->qmp_group && !o->qmp_path)
		return usage_error(&p->usage, "--qmp-group takes --qmp");
	/* The parent has made the sockets, and a worker may not be able to read the list. */
	if (o->worker_fd >= 0)
		return 0;
	if (find_group(p, "--socket-group", p->socket_group, &o->socket_group) != 0)
		return EINVAL;
	return find_group(p, "--qmp-group", p->qmp_group, &o->qmp_group);
}

/* What can only be said when all options are known. */
static error_t check_all(struct parse *p)
{
	struct options *o = p->options;

	if (o->print_capabilities)
		return 0;
	if (!o->socket_path == (o->fd < 0))
		return usage_error(&p->usage, "give either --socket-path or --fd (see --help)");
	/* There is nothing to push then. */
	if (!(o->features >> VIRTIO_BALLOON_F_STATS_VQ & 1))
		o->features &= ~(1ULL << VIRTIO_BALLOON_F_STATS_PUSH);
	if (o->push_interval_ms && !(o->features >> VIRTIO_BALLOON_F_STATS_PUSH & 1))
		return usage_error(&p->usage, "--stats-push-interval takes --features=stats-push");
	return find_groups(p);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct parse *p = state->input;
	struct options *o = p->options;

	switch (key) {
	case KEY_SOCKET_PATH:
		return parse_path(p, "--socket-path", arg, &o->socket_path);
	case KEY_SOCKET_GROUP:
		p->socket_group = arg;
		return 0;
	case KEY_FD:
		return parse_fd(p, "--fd", arg, &o->fd);
	case KEY_QMP:
		return parse_path(p, "--qmp", arg, &o->qmp_path);
	case KEY_QMP_GROUP:
		p->qmp_group = arg;
		return 0;
	case KEY_NAME:
		o->name = arg;
		return 0;
	case KEY_STATE_DIR:
		return parse_path(p, "--state-dir", arg, &o->state_dir);
	case KEY_SANDBOX:
		return parse_sandbox(p, arg);
	case KEY_FEATURES:
		return parse_list(p, arg, parse_features);
	case KEY_TARGET:
		o->target_given = true;
		if (size_parse(arg, &o->target) < 0)
			return usage_error(&p->usage, "--target: '%s' is no size (such as 512M)",
					   arg);
		return 0;
	case KEY_STATS_PUSH_INTERVAL:
		o->push_interval_given = true;
		return parse_u32(p, "--stats-push-interval", "number of milliseconds", arg,
				 &o->push_interval_ms);
	case KEY_ON_PRESSURE:
		return parse_on_pressure(p, arg);
	case KEY_PRESSURE_STEPS:
		return parse_list(p, arg, parse_pressure_steps);
	case KEY_MESSAGE_LIMIT:
		return parse_u32(p, "--message-limit", "number of messages", arg,
				 &o->policy.messages_per_second);
	case KEY_HEALTH_FACTORS:
		return parse_list(p, arg, parse_health_factors);
	case KEY_WORKER:
		return parse_fd(p, "--worker", arg, &o->worker_fd);
	case KEY_PRINT_CAPABILITIES:
		o->print_capabilities = true;
		return 0;
	case ARGP_KEY_END:
		return check_all(p);
	default:
		return usage_option(&p->usage, key, arg, state);
	}
}

static const struct argp argp = {.options = argp_options, .parser = parse_option, .doc = doc};

int options_parse(int argc, char **argv, struct options *options)
{
	struct parse p = {.usage = {.program = "vhost-user-balloon"}, .options = options};

	*options = (struct options){
		.fd = -1,
		.socket_group = OPTIONS_NO_GROUP,
		.qmp_group = OPTIONS_NO_GROUP,
		.policy = {.on_pressure = BALLOON_PRESSURE_REPORT,
			   .step_pages = {[VIRTIO_BALLOON_PRESSURE_UNSPECIFIED] = MIB_PAGES(64),
					  [VIRTIO_BALLOON_PRESSURE_LOW] = MIB_PAGES(64),
					  [VIRTIO_BALLOON_PRESSURE_MEDIUM] = MIB_PAGES(256),
					  [VIRTIO_BALLOON_PRESSURE_CRITICAL] = MIB_PAGES(1024)},
			   .messages_per_second = 100},
		.health = HEALTH_LIMITS_DEFAULT,
		.sandbox = true,
		.worker_fd = -1,
	};
	for (const struct feature_name *f = feature_names; f->name; f++) {
		if (f->optional && f->wanted)
			options->features |= 1ULL << f->bit;
	}
	return usage_parse(&p.usage, &argp, argc, argv, &p);
}
