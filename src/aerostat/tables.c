// SPDX-License-Identifier: MIT
/* What can be said on the command line. */
#include <stddef.h>

#include "options.h"

#define BIT(verb) (1u << (VERB_##verb))
#define ALL       UINT32_MAX

#define VERB(id_, name_, alias_, text_, ...)                                           \
	{                                                                              \
		.name = (name_), .alias = (alias_), .text = (text_), .id = VERB_##id_, \
		.arguments = {                                                         \
			__VA_ARGS__                                                    \
		}                                                                      \
	}

const struct verb verbs[] = {
	VERB(LIST, "list", "ls", "The virtual machines of this host, one a line", {0}),
	VERB(INFO, "info", "show", "All about the host, or about one virtual machine",
	     {WORD_VM, "VM", true}),
	VERB(SET, "set", "setmem",
	     "What a virtual machine may keep: exactly SIZE, or within bounds",
	     {WORD_VM, "VM", false}, {WORD_SIZE, "SIZE", true}),
	VERB(STATS, "stats", "dommemstat", "What guests say of their memory",
	     {WORD_VM, "VM", true}),
	{.name = "watch",
	 .id = VERB_STATS,
	 .text = "The same as stats --watch",
	 .arguments = {{WORD_VM, "VM", true}},
	 .watch = true},
	VERB(EVENTS, "events", NULL, "What has happened", {WORD_VM, "VM", true}),
	VERB(HEALTH, "health", NULL, "How guests do; fails if one does not respond",
	     {WORD_VM, "VM", true}),
	VERB(RESERVE, "reserve", NULL, "Frees memory of the host, and keeps it free for you",
	     {WORD_SIZE, "SIZE", false}),
	VERB(RELEASE, "release", NULL, "Gives a reservation up", {WORD_COUNT, "ID", false}),
	VERB(EXPLAIN, "explain", NULL, "Why a virtual machine has what it has",
	     {WORD_VM, "VM", false}),
	VERB(RECORD, "record", NULL, "Writes down what guests use, once a second",
	     {WORD_FILE, "FILE", false}),
	VERB(REPLAY, "replay", NULL, "Simulates what policies would have made of a recording",
	     {WORD_FILE, "FILE", false}),
	VERB(TOP, "top", NULL, "All of it on the whole screen, live", {0}),
	VERB(MONITOR, "monitor", NULL, "A virtual machine's own monitor; VM may be a socket's path",
	     {WORD_VM, "VM", false}),
	VERB(RELOAD, "reload", NULL, "Has aerostatd read its configuration anew", {0}),
	{0},
};

#define AT(member) offsetof(struct options, member)

const struct option_spec option_specs[] = {
	{"control", "PATH",
	 "aerostatd's control socket; also $AEROSTAT_CONTROL, else " CONTROL_PATH, WORD_FILE, ALL,
	 AT(control), NULL},
	{"timeout", "SECONDS",
	 "How long an answer may take (default: 10); for reserve, how long the memory may take",
	 WORD_SECONDS, ALL, AT(timeout_ms), NULL},
	{"json", NULL, "JSON, with bytes and milliseconds", WORD_NONE, ALL, AT(json), NULL},
	{"table", NULL, "Tables for people also where the output is no terminal", WORD_NONE, ALL,
	 AT(table), NULL},
	{"color", "WHEN", "auto (default: on a terminal, unless $NO_COLOR is set), always, never",
	 WORD_CHOICE, ALL, AT(color), "auto always never"},
	{"floor", "SIZE", "Never less than this", WORD_SIZE, BIT(SET), AT(floor), NULL},
	{"ceiling", "SIZE", "Never more than this", WORD_SIZE, BIT(SET), AT(ceiling), NULL},
	{"priority", "N", "Its weight when memory is short", WORD_COUNT, BIT(SET), AT(priority),
	 NULL},
	{"reset", NULL, "Back to what the configuration says", WORD_NONE, BIT(SET), AT(reset),
	 NULL},
	{"wait", NULL, "Until the guest has followed, for --timeout at most", WORD_NONE, BIT(SET),
	 AT(wait), NULL},
	{"watch", NULL, "Again and again, until interrupted", WORD_NONE, BIT(STATS), AT(watch),
	 NULL},
	{"interval", "SECONDS", "So often (default: 1)", WORD_SECONDS, BIT(STATS) | BIT(TOP),
	 AT(interval_ms), NULL},
	{"count", "N", "So many times, then end", WORD_COUNT, BIT(STATS), AT(count), NULL},
	{"follow", NULL, "Go on with those that come", WORD_NONE, BIT(EVENTS), AT(follow), NULL},
	{"after", "SEQ", "Only those after that one", WORD_COUNT, BIT(EVENTS), AT(after), NULL},
	{"hold", "SECONDS", "How long it is kept unless it is released before (default: 60)",
	 WORD_SECONDS, BIT(RESERVE), AT(hold_ms), NULL},
	{"seconds", "N", "For so long (default: until interrupted)", WORD_SECONDS, BIT(RECORD),
	 AT(seconds_ms), NULL},
	{"policy", "LIST", "Which policies, with commas, or all (default: aerostat)", WORD_LIST,
	 BIT(REPLAY), AT(policy), "aerostat proxmox mom mom-available static all"},
	{"budget", "PERCENT", "Of the guests' sizes: what they may keep together (default: 60)",
	 WORD_PERCENT, BIT(REPLAY), AT(budget), NULL},
	{"own", "PERCENT", "Guests whose driver tells of pressure (default: 50)", WORD_PERCENT,
	 BIT(REPLAY), AT(own), NULL},
	{"seed", "N", "For what a recording does not tell (default: 1)", WORD_COUNT, BIT(REPLAY),
	 AT(seed), NULL},
	{"help", NULL, "This text; behind a verb, about that verb", WORD_NONE, ALL, AT(help), NULL},
	{"version", NULL, "The version", WORD_NONE, ALL, AT(version), NULL},
	{"completion", "SHELL", NULL, WORD_CHOICE, ALL, AT(completion), "bash zsh"},
	{0},
};

bool option_is_for(const struct option_spec *spec, const struct verb *verb)
{
	if (!verb)
		return spec->verbs == ALL;
	return spec->verbs & (1u << verb->id);
}
