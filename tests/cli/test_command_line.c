// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "options.h"

#define ARGS_MAX 16

/* Parses words with blanks between; they stay where they are until the next call. */
static enum status parse(const char *line, struct options *o)
{
	static char text[256];
	char *argv[ARGS_MAX] = {(char[]){"aerostat"}};
	struct failure failure = {0};
	enum status status;
	int argc = 1;

	strncpy(text, line, sizeof(text) - 1);
	for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	status = options_parse(argc, argv, o, &failure);
	assert_int_equal(status == STATUS_DONE, failure.text[0] == '\0');
	return status;
}

static void anywhere(void **state)
{
	static const char *const lines[] = {
		"--json set web1 --floor=1G --timeout 2.5",
		"set --json web1 --timeout=2.500 --floor 1024M",
		"set --floor=1048576K web1 --timeout=2.5 --json",
		"--timeout=2.5 --floor=1G --json set -- web1",
	};
	struct options o;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		assert_int_equal(parse(lines[i], &o), STATUS_DONE);
		assert_int_equal(o.verb->id, VERB_SET);
		assert_int_equal(o.n_arguments, 1);
		assert_string_equal(o.arguments[0], "web1");
		assert_true(o.json && o.floor.is && o.timeout_ms.is && !o.ceiling.is);
		assert_int_equal(o.floor.value, 1ULL << 30);
		assert_int_equal(o.timeout_ms.value, 2500);
	}
}

static void seconds(void **state)
{
	static const struct {
		const char *line;
		uint64_t ms; /* UINT64_MAX: refused */
	} table[] = {
		{"list --timeout=0", 0},
		{"list --timeout=0.001", 1},
		{"list --timeout=0.25", 250},
		{"list --timeout=31536000", 31536000000},
		{"list --timeout=31536001", UINT64_MAX},
		{"list --timeout=99999999999999999999", UINT64_MAX},
		{"list --timeout=1.", UINT64_MAX},
		{"list --timeout=.5", UINT64_MAX},
		{"list --timeout=1.2345", UINT64_MAX},
		{"list --timeout=1.-5", UINT64_MAX},
		{"list --timeout=-1", UINT64_MAX},
		{"list --timeout=1s", UINT64_MAX},
		{"list --timeout=", UINT64_MAX},
	};
	struct options o;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		bool good = table[i].ms != UINT64_MAX;

		assert_int_equal(parse(table[i].line, &o), good ? STATUS_DONE : STATUS_USAGE);
		assert_true(!good || o.timeout_ms.value == table[i].ms);
	}
}

static void second_names(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(parse("dommemstat web1", &o), STATUS_DONE);
	assert_int_equal(o.verb->id, VERB_STATS);
	assert_false(o.watch);
	assert_int_equal(parse("watch", &o), STATUS_DONE);
	assert_int_equal(o.verb->id, VERB_STATS);
	assert_true(o.watch);
	/* virsh means KiB by a number that has no unit. */
	assert_int_equal(parse("setmem web1 1048576", &o), STATUS_USAGE);
	assert_int_equal(parse("setmem web1 1048576K", &o), STATUS_DONE);
	assert_int_equal(parse("set web1 1048576", &o), STATUS_DONE);
}

static void control_path(void **state)
{
	struct options o;

	(void)state;
	unsetenv("AEROSTAT_CONTROL");
	assert_int_equal(parse("list", &o), STATUS_DONE);
	assert_string_equal(o.control, CONTROL_PATH);
	setenv("AEROSTAT_CONTROL", "", 1);
	assert_int_equal(parse("list", &o), STATUS_DONE);
	assert_string_equal(o.control, CONTROL_PATH);
	setenv("AEROSTAT_CONTROL", "/there", 1);
	assert_int_equal(parse("list", &o), STATUS_DONE);
	assert_string_equal(o.control, "/there");
	assert_int_equal(parse("list --control=/here", &o), STATUS_DONE);
	assert_string_equal(o.control, "/here");
}

/* The tables keep what the parser takes for granted. */
static void tables(void **state)
{
	bool seen[VERB_COUNT] = {false};

	(void)state;
	for (const struct verb *v = verbs; v->name; v++) {
		bool optional = false;

		seen[v->id] = true;
		assert_non_null(v->text);
		for (size_t i = 0; i < ARGUMENTS_MAX && v->arguments[i].name; i++) {
			/* Nothing that must be there stands behind what may be missing. */
			assert_true(v->arguments[i].optional || !optional);
			optional = v->arguments[i].optional;
		}
	}
	for (size_t i = 0; i < VERB_COUNT; i++)
		assert_true(seen[i]);
	for (const struct option_spec *s = option_specs; s->name; s++) {
		bool chosen = s->word == WORD_CHOICE || s->word == WORD_LIST;

		assert_int_equal(s->word == WORD_NONE, s->value == NULL);
		assert_int_equal(chosen, s->choices != NULL);
		for (const struct option_spec *other = s + 1; other->name; other++)
			assert_string_not_equal(s->name, other->name);
	}
	/* The parser has a bit for each option. */
	for (size_t n = 0; option_specs[n].name; n++)
		assert_true(n < 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(anywhere),     cmocka_unit_test(seconds),
		cmocka_unit_test(second_names), cmocka_unit_test(control_path),
		cmocka_unit_test(tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
