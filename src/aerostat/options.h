/* SPDX-License-Identifier: MIT */
/*
 * The command line, by tables: what verbs there are, what follows them, and which options they
 * take. The parser, --help and the shells' completions all read these tables, and nothing else.
 */
#ifndef AEROSTAT_OPTIONS_H
#define AEROSTAT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "status.h"

#define CONTROL_PATH "/run/aerostat/control" /* also in $AEROSTAT_CONTROL */

#define ARGUMENTS_MAX 3

enum verb_id {
	VERB_LIST,
	VERB_INFO,
	VERB_SET,
	VERB_STATS,
	VERB_EVENTS,
	VERB_HEALTH,
	VERB_RESERVE,
	VERB_RELEASE,
	VERB_EXPLAIN,
	VERB_RECORD,
	VERB_REPLAY,
	VERB_TOP,
	VERB_MONITOR,
	VERB_RELOAD,
	VERB_COUNT,
};

/* What a word of the command line is: for its check, and for completion. */
enum word {
	WORD_NONE, /* an option without a value */
	WORD_VM,   /* name or UUID */
	WORD_SIZE,
	WORD_SECONDS, /* with up to three decimals */
	WORD_COUNT,   /* a whole number */
	WORD_PERCENT, /* 0 to 100 */
	WORD_FILE,
	WORD_CHOICE, /* one of `choices` */
	WORD_LIST,   /* some of `choices`, with commas */
};

struct argument {
	enum word word;
	const char *name; /* as help shows it; NULL behind the last */
	bool optional;
};

struct verb {
	const char *name, *alias; /* alias: NULL if there is none */
	const char *text;
	struct argument arguments[ARGUMENTS_MAX];
	enum verb_id id;
	bool watch; /* as if --watch was given: of a second name for a verb */
};

struct option_spec {
	const char *name;  /* without "--" */
	const char *value; /* as help shows it; NULL: takes none */
	const char *text;  /* NULL: not shown */
	enum word word;
	uint32_t verbs;      /* bits by enum verb_id */
	size_t offset;       /* in struct options */
	const char *choices; /* of WORD_CHOICE and WORD_LIST, blanks between */
};

/* An option's number, and whether it was given. */
struct given {
	bool is;
	uint64_t value; /* bytes, milliseconds, ... */
};

struct options {
	const struct verb *verb;
	const char *called; /* the verb as it was written */
	const char *arguments[ARGUMENTS_MAX];
	size_t n_arguments;

	const char *control;
	bool json, table, help, version;
	const char *color;
	struct given timeout_ms;

	struct given floor, ceiling, priority;
	bool reset, wait;
	bool watch, follow;
	struct given interval_ms, count, after, hold_ms, seconds_ms;
	const char *policy;
	struct given budget, own, seed;
	const char *completion;
};

/* Each ends with an entry without a name. */
extern const struct verb verbs[];
extern const struct option_spec option_specs[];

/* Does the option belong to the verb? verb NULL: to all of them. */
bool option_is_for(const struct option_spec *spec, const struct verb *verb);

/* Reads the command line. Fails with STATUS_USAGE. Strings are those of argv, or constants. */
enum status options_parse(int argc, char **argv, struct options *o, struct failure *failure);

/* verb NULL: of the whole program. */
void help_print(FILE *file, const struct verb *verb);

/* A completion script for "bash" or "zsh". -EINVAL: there is none for that shell. */
int completion_print(FILE *file, const char *shell);

#endif
