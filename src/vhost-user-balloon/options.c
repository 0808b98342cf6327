// SPDX-License-Identifier: MIT
#include "options.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aerostat/virtio_balloon.h"
#include "base/checked.h"
#include "virtio/ring.h"

const struct feature_name feature_names[] = {
	{"must-tell-host", VIRTIO_BALLOON_F_MUST_TELL_HOST, false},
	{"stats", VIRTIO_BALLOON_F_STATS_VQ, true},
	{"deflate-on-oom", VIRTIO_BALLOON_F_DEFLATE_ON_OOM, true},
	{"indirect-desc", VIRTIO_F_INDIRECT_DESC, false},
	{"event-idx", VIRTIO_F_EVENT_IDX, false},
	{"version-1", VIRTIO_F_VERSION_1, false},
	{"packed-ring", VIRTIO_F_RING_PACKED, false},
	{NULL, 0, false},
};

static const char doc[] =
	"Serves a virtio memory balloon to a virtual machine over vhost-user: takes memory from "
	"the "
	"guest, gives it back to the host, and is operated through a QMP monitor."
	"\vSizes take K, M, G and T. See vhost-user-balloon(1) for the monitor's commands.";

enum option_key {
	KEY_SOCKET_PATH = 0x100,
	KEY_FD,
	KEY_QMP,
	KEY_NAME,
	KEY_FEATURES,
	KEY_TARGET,
	KEY_PRINT_CAPABILITIES,
	KEY_HELP,
	KEY_VERSION,
};

static const struct argp_option argp_options[] = {
	{"socket-path", KEY_SOCKET_PATH, "PATH", 0, "Listen for the VMM on this Unix socket", 1},
	{"fd", KEY_FD, "N", 0, "Use this open socket instead: a listening or a connected one", 1},
	{"qmp", KEY_QMP, "PATH", 0, "Offer the monitor on this Unix socket", 2},
	{"name", KEY_NAME, "NAME", 0, "Name of the virtual machine, for the log", 2},
	{"features", KEY_FEATURES, "LIST", 0,
	 "What to offer, separated by commas: stats, deflate-on-oom (both are by default), or the "
	 "same with `no-' in front",
	 3},
	{"target", KEY_TARGET, "SIZE", 0, "Memory wanted in the balloon from the start", 3},
	{"print-capabilities", KEY_PRINT_CAPABILITIES, NULL, 0,
	 "Print what this program can do as JSON, and exit", 4},
	{"version", KEY_VERSION, NULL, 0, "Print the version, and exit", -1},
	{"help", KEY_HELP, NULL, 0, "Print this help, and exit", -1},
	{0},
};

struct parse {
	struct options *options;
	const char *program;
	bool reported;
};

__attribute__((format(printf, 2, 3))) static error_t complain(struct parse *p, const char *fmt, ...)
{
	va_list ap;

	p->reported = true;
	fprintf(stderr, "%s: ", p->program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EINVAL;
}

int options_parse_size(const char *text, uint64_t *bytes)
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

static error_t parse_features(struct parse *p, char *list)
{
	char *word;

	while ((word = strsep(&list, ","))) {
		bool off = strncmp(word, "no-", 3) == 0;
		const char *name = off ? word + 3 : word;
		const struct feature_name *f = feature_names;

		while (f->name && !(f->optional && strcmp(f->name, name) == 0))
			f++;
		if (!f->name)
			return complain(p, "--features: unknown feature '%s'", name);
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
		return complain(p, "%s: the path is empty", option);
	*path = arg;
	return 0;
}

static error_t parse_fd(struct parse *p, const char *arg)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(arg, &end, 10);
	if (errno || *end || end == arg || value < 0 || value > INT32_MAX)
		return complain(p, "--fd: '%s' is no file descriptor number", arg);
	p->options->fd = (int)value;
	return 0;
}

static const struct argp argp;

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct parse *p = state->input;
	struct options *o = p->options;

	switch (key) {
	case KEY_SOCKET_PATH:
		return parse_path(p, "--socket-path", arg, &o->socket_path);
	case KEY_FD:
		return parse_fd(p, arg);
	case KEY_QMP:
		return parse_path(p, "--qmp", arg, &o->qmp_path);
	case KEY_NAME:
		o->name = arg;
		return 0;
	case KEY_FEATURES:
		return parse_features(p, arg);
	case KEY_TARGET:
		if (options_parse_size(arg, &o->target) < 0)
			return complain(p, "--target: '%s' is no size (such as 512M)", arg);
		return 0;
	case KEY_PRINT_CAPABILITIES:
		o->print_capabilities = true;
		return 0;
	case KEY_HELP:
		argp_help(&argp, stdout, ARGP_HELP_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC,
			  (char *)state->name);
		exit(EXIT_SUCCESS);
	case KEY_VERSION:
		puts("vhost-user-balloon (aerostat) " AEROSTAT_VERSION);
		exit(EXIT_SUCCESS);
	case ARGP_KEY_ARG:
		return complain(p, "unexpected argument '%s' (see --help)", arg);
	case ARGP_KEY_END:
		if (o->print_capabilities)
			return 0;
		if (!o->socket_path == (o->fd < 0))
			return complain(p, "give either --socket-path or --fd (see --help)");
		return 0;
	case ARGP_KEY_ERROR:
		if (!p->reported)
			complain(p, "bad option '%s' (see --help)", state->argv[state->next - 1]);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {.options = argp_options, .parser = parse_option, .doc = doc};

int options_parse(int argc, char **argv, struct options *options)
{
	struct parse p = {.options = options, .program = "vhost-user-balloon"};

	*options = (struct options){.fd = -1};
	for (const struct feature_name *f = feature_names; f->name; f++) {
		if (f->optional)
			options->features |= 1ULL << f->bit;
	}
	/* Our own words instead of argp's, which take several lines; argp's --help goes with them.
	 */
	return argp_parse(&argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP, NULL, &p) == 0 ? 0
											 : -EINVAL;
}
