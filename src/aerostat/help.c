// SPDX-License-Identifier: MIT
#include <string.h>

#include "options.h"

#define TEXT_AT 28 /* column at which explanations begin */
#define WIDTH   80

/* Text with its words broken before WIDTH, further lines below the first. */
static void print_text(FILE *file, int at, const char *text)
{
	int column = at;

	if (column >= TEXT_AT) {
		fputc('\n', file);
		column = 0;
	}
	column += fprintf(file, "%*s", TEXT_AT - column, "");
	for (bool first = true; *text; first = false) {
		int word = (int)strcspn(text, " ");

		if (!first && column + 1 + word > WIDTH) {
			fprintf(file, "\n%*s", TEXT_AT, "");
			column = TEXT_AT;
		} else if (!first) {
			column += fprintf(file, " ");
		}
		column += fprintf(file, "%.*s", word, text);
		text += word;
		text += *text == ' ';
	}
	fputc('\n', file);
}

static int print_synopsis(FILE *file, const struct verb *verb)
{
	int n = fprintf(file, "%s", verb->name);

	for (size_t i = 0; i < ARGUMENTS_MAX && verb->arguments[i].name; i++)
		n += fprintf(file, verb->arguments[i].optional ? " [%s]" : " %s",
			     verb->arguments[i].name);
	return n;
}

static void print_options(FILE *file, const struct verb *verb, bool own)
{
	for (const struct option_spec *s = option_specs; s->name; s++) {
		int n;

		if (!s->text || (own ? !verb || option_is_for(s, NULL) || !option_is_for(s, verb)
				     : !option_is_for(s, NULL)))
			continue;
		n = fprintf(file, "  --%s%s%s", s->name, s->value ? "=" : "",
			    s->value ? s->value : "");
		print_text(file, n, s->text);
	}
}

void help_print(FILE *file, const struct verb *verb)
{
	fputs("usage: aerostat ", file);
	if (verb) {
		print_synopsis(file, verb);
		fprintf(file, " [OPTION...]\n\n%s.\n", verb->text);
		if (verb->alias)
			fprintf(file, "Also called %s.\n", verb->alias);
		fputs("\nOptions:\n", file);
		print_options(file, verb, true);
		print_options(file, verb, false);
		return;
	}
	fputs("VERB [OPTION...]\n\nShows and steers how aerostatd shares the memory of this host "
	      "among\n"
	      "virtual machines.\n\n",
	      file);
	for (const struct verb *v = verbs; v->name; v++) {
		int n = fprintf(file, "  ");

		n += print_synopsis(file, v);
		print_text(file, n, v->text);
	}
	fputs("\nOptions of every verb (aerostat VERB --help for the others):\n", file);
	print_options(file, NULL, false);
	fputs("\nSizes take K, M, G and T. Exit status: 0 done, 1 failed, 2 wrong usage, 3 not\n"
	      "found, 4 timed out. See aerostat(1).\n",
	      file);
}
