// SPDX-License-Identifier: MIT
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"

#define SECONDS_MAX (365u * 86400)

/* Digits only, no sign, no blank. */
static bool read_count(const char *text, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return !errno && !*end;
}

/* "1.5" is 1500 milliseconds. */
static bool read_seconds(const char *text, uint64_t *ms)
{
	static const unsigned int worth[] = {100, 10, 1};
	const char *point = strchr(text, '.');
	char whole[16];
	size_t n = point ? (size_t)(point - text) : strlen(text);
	uint64_t s;

	if (n >= sizeof(whole))
		return false;
	memcpy(whole, text, n);
	whole[n] = '\0';
	if (!read_count(whole, &s) || s > SECONDS_MAX)
		return false;
	*ms = s * 1000;
	if (!point)
		return true;
	if (!point[1] || strlen(point + 1) > 3)
		return false;
	for (size_t i = 0; i < sizeof(worth) / sizeof(worth[0]) && point[i + 1]; i++) {
		if (!isdigit((unsigned char)point[i + 1]))
			return false;
		*ms += worth[i] * (unsigned int)(point[i + 1] - '0');
	}
	return true;
}

/* Is the word, of that length, one of the choices? */
static bool is_choice(const char *choices, const char *word, size_t len)
{
	for (const char *at = choices; *at; at += strspn(at, " ")) {
		size_t n = strcspn(at, " ");

		if (n == len && memcmp(at, word, n) == 0)
			return true;
		at += n;
	}
	return false;
}

static bool are_choices(const char *choices, const char *list)
{
	for (;;) {
		size_t n = strcspn(list, ",");

		if (!is_choice(choices, list, n))
			return false;
		if (!list[n])
			return true;
		list += n + 1;
	}
}

/* Puts an option's value where it belongs. False: it is none. */
static bool take_value(const struct option_spec *spec, const char *text, struct options *o)
{
	void *at = (char *)o + spec->offset;
	struct given *given = at;
	uint64_t value = 0;
	bool good = false;

	switch (spec->word) {
	case WORD_NONE:
		*(bool *)at = true;
		return true;
	case WORD_CHOICE:
	case WORD_LIST:
		*(const char **)at = text;
		return spec->word == WORD_LIST ? are_choices(spec->choices, text)
					       : is_choice(spec->choices, text, strlen(text));
	case WORD_FILE:
	case WORD_VM:
		*(const char **)at = text;
		return *text != '\0';
	case WORD_SIZE:
		good = size_parse(text, &value) == 0;
		break;
	case WORD_SECONDS:
		good = read_seconds(text, &value);
		break;
	case WORD_COUNT:
		good = read_count(text, &value);
		break;
	case WORD_PERCENT:
		good = read_count(text, &value) && value <= 100;
		break;
	}
	*given = (struct given){.is = good, .value = value};
	return good;
}

static const char *what_it_takes(const struct option_spec *spec)
{
	static const char *const words[] = {
		[WORD_SIZE] = "a size such as 512M or 4G",
		[WORD_SECONDS] = "a number of seconds",
		[WORD_COUNT] = "a whole number",
		[WORD_PERCENT] = "a number from 0 to 100",
		[WORD_FILE] = "a path",
		[WORD_LIST] = "a list with commas",
	};

	return spec->word < sizeof(words) / sizeof(words[0]) && words[spec->word]
		       ? words[spec->word]
		       : spec->choices;
}

/* One "--name", "--name=value" or "--name value". *at: the index, moved on if the next is used. */
static enum status take_option(int argc, char **argv, int *at, uint32_t *seen, struct options *o,
			       struct failure *f)
{
	const char *word = argv[*at] + 2, *value = strchr(word, '=');
	size_t len = value ? (size_t)(value - word) : strlen(word);
	const struct option_spec *spec = option_specs;

	while (spec->name && (strlen(spec->name) != len || memcmp(spec->name, word, len) != 0))
		spec++;
	if (!spec->name)
		return failure_set(f, STATUS_USAGE, "--%.*s: there is no such option",
				   (int)(len > 60 ? 60 : len), word);
	if (!spec->value && value)
		return failure_set(f, STATUS_USAGE, "--%s takes no value", spec->name);
	if (spec->value && !value && ++*at == argc)
		return failure_set(f, STATUS_USAGE, "--%s takes %s", spec->name,
				   what_it_takes(spec));
	value = !spec->value ? "" : value ? value + 1 : argv[*at];
	if (!take_value(spec, value, o))
		return failure_set(f, STATUS_USAGE, "--%s: '%.60s' is not %s%s", spec->name, value,
				   spec->word == WORD_CHOICE ? "one of: " : "",
				   what_it_takes(spec));
	*seen |= 1u << (spec - option_specs);
	return STATUS_DONE;
}

static const struct verb *find_verb(const char *name)
{
	for (const struct verb *v = verbs; v->name; v++) {
		if (strcmp(v->name, name) == 0 || (v->alias && strcmp(v->alias, name) == 0))
			return v;
	}
	return NULL;
}

/* Do the words behind the verb fit it? */
static enum status check_arguments(const struct options *o, struct failure *f)
{
	const struct argument *a = o->verb->arguments;
	uint64_t number;

	for (size_t i = 0; i < ARGUMENTS_MAX && a[i].name; i++) {
		const char *text = o->arguments[i];

		if (i >= o->n_arguments && a[i].optional)
			return STATUS_DONE;
		if (i >= o->n_arguments)
			return failure_set(f, STATUS_USAGE, "%s: %s is missing", o->called,
					   a[i].name);
		if (!*text)
			return failure_set(f, STATUS_USAGE, "%s: %s is empty", o->called,
					   a[i].name);
		if (a[i].word == WORD_SIZE && size_parse(text, &number) < 0)
			return failure_set(f, STATUS_USAGE,
					   "%s: '%.60s' is no size such as 512M or 4G", o->called,
					   text);
		if (a[i].word == WORD_COUNT && !read_count(text, &number))
			return failure_set(f, STATUS_USAGE, "%s: '%.60s' is no %s", o->called, text,
					   a[i].name);
	}
	return STATUS_DONE;
}

/* Do verb and options go together? */
static enum status check_set(const struct options *o, struct failure *f)
{
	bool bounds = o->floor.is || o->ceiling.is || o->priority.is;
	bool size = o->n_arguments == 2;

	if (size + o->reset > 1 || (o->reset && bounds) || (size && (o->floor.is || o->ceiling.is)))
		return failure_set(f, STATUS_USAGE,
				   "%s: SIZE, bounds and --reset exclude each other", o->called);
	if (!size && !bounds && !o->reset)
		return failure_set(f, STATUS_USAGE,
				   "%s: say what: SIZE, --floor, --ceiling, --priority or --reset",
				   o->called);
	if (o->floor.is && o->ceiling.is && o->floor.value > o->ceiling.value)
		return failure_set(f, STATUS_USAGE, "%s: the floor is above the ceiling",
				   o->called);
	/* virsh's number is in KiB: whoever is used to it must not lose 1023 parts of 1024. */
	if (size && strcmp(o->called, "setmem") == 0 &&
	    isdigit((unsigned char)o->arguments[1][strlen(o->arguments[1]) - 1]))
		return failure_set(f, STATUS_USAGE,
				   "setmem: say the unit: %sK as virsh means it (numbers without "
				   "one are bytes here)",
				   o->arguments[1]);
	return STATUS_DONE;
}

static enum status check(struct options *o, uint32_t seen, struct failure *f)
{
	enum status status;

	if (!o->verb)
		return failure_set(f, STATUS_USAGE, "say a verb (aerostat --help)");
	for (size_t i = 0; option_specs[i].name; i++) {
		if ((seen & (1u << i)) && !option_is_for(&option_specs[i], o->verb))
			return failure_set(f, STATUS_USAGE, "%s takes no --%s", o->called,
					   option_specs[i].name);
	}
	status = check_arguments(o, f);
	if (status == STATUS_DONE && o->verb->id == VERB_SET)
		status = check_set(o, f);
	if (status == STATUS_DONE && o->interval_ms.is && o->interval_ms.value < 100)
		status = failure_set(f, STATUS_USAGE, "--interval: at least 0.1 seconds");
	return status;
}

static enum status take_word(const char *word, struct options *o, struct failure *f)
{
	size_t most = 0;

	if (!o->verb) {
		o->verb = find_verb(word);
		o->called = word;
		if (!o->verb)
			return failure_set(f, STATUS_USAGE,
					   "'%.60s': there is no such verb (aerostat --help)",
					   word);
		o->watch |= o->verb->watch;
		return STATUS_DONE;
	}
	while (most < ARGUMENTS_MAX && o->verb->arguments[most].name)
		most++;
	if (o->n_arguments == most)
		return failure_set(f, STATUS_USAGE, "%s: '%.60s' is one word too many", o->called,
				   word);
	o->arguments[o->n_arguments++] = word;
	return STATUS_DONE;
}

enum status options_parse(int argc, char **argv, struct options *o, struct failure *f)
{
	enum status status = STATUS_DONE;
	bool words_only = false;
	uint32_t seen = 0;

	*o = (struct options){.color = "auto", .policy = "aerostat"};
	o->control = getenv("AEROSTAT_CONTROL");
	if (!o->control || !*o->control)
		o->control = CONTROL_PATH;
	for (int i = 1; i < argc && status == STATUS_DONE; i++) {
		if (words_only || argv[i][0] != '-' || !argv[i][1])
			status = take_word(argv[i], o, f);
		else if (strcmp(argv[i], "--") == 0)
			words_only = true;
		else if (strcmp(argv[i], "-h") == 0)
			o->help = true;
		else if (argv[i][1] != '-')
			status = failure_set(f, STATUS_USAGE, "%.60s: there is no such option",
					     argv[i]);
		else
			status = take_option(argc, argv, &i, &seen, o, f);
	}
	if (status == STATUS_DONE && !o->help && !o->version && !o->completion)
		status = check(o, seen, f);
	return status;
}
