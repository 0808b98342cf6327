// SPDX-License-Identifier: MIT
/*
 * Completion scripts from the tables. Names of virtual machines are asked for when they are wanted,
 * by `aerostat list`, with little patience.
 */
#include <errno.h>
#include <string.h>

#include "options.h"

/* --- bash ------------------------------------------------------------------------------------ */

static void bash_options(FILE *file, const struct verb *verb, const char *separator, bool values)
{
	const char *between = "";

	for (const struct option_spec *s = option_specs; s->name; s++) {
		if (!s->text || (verb && !option_is_for(s, verb)) || (values && !s->value))
			continue;
		/* A "=" behind those that want a value. */
		fprintf(file, "%s--%s%s", between, s->name, s->value && !values ? "=" : "");
		between = separator;
	}
}

/* How the script completes a kind of word; "" for what nobody can know. */
static const char *bash_action(enum word word)
{
	if (word == WORD_VM)
		return "vm";
	return word == WORD_FILE ? "file" : "";
}

static void bash_values(FILE *file)
{
	fputs("\tcase $option in\n", file);
	for (const struct option_spec *s = option_specs; s->name; s++) {
		if (s->text && s->choices)
			fprintf(file, "\t--%s) _aerostat_words \"$word\" %s; return ;;\n", s->name,
				s->choices);
		else if (s->text && s->word == WORD_FILE)
			fprintf(file, "\t--%s) _aerostat_file \"$word\"; return ;;\n", s->name);
	}
	fputs("\t--*) return ;;\n\tesac\n", file);
}

static void bash_verbs(FILE *file)
{
	fputs("\tcase $verb in\n\t'') choices=\"", file);
	for (const struct verb *v = verbs; v->name; v++)
		fprintf(file, "%s%s%s ", v->name, v->alias ? " " : "", v->alias ? v->alias : "");
	bash_options(file, NULL, " ", false);
	fputs("\" ;;\n", file);
	for (const struct verb *v = verbs; v->name; v++) {
		fprintf(file, "\t%s%s%s) choices=\"", v->name, v->alias ? "|" : "",
			v->alias ? v->alias : "");
		bash_options(file, v, " ", false);
		fputs("\" actions=(", file);
		for (size_t i = 0; i < ARGUMENTS_MAX && v->arguments[i].name; i++)
			fprintf(file, "'%s' ", bash_action(v->arguments[i].word));
		fputs(") ;;\n", file);
	}
	fputs("\tesac\n", file);
}

static void bash_print(FILE *file)
{
	fputs("# bash completion for aerostat, made from its own tables\n"
	      "_aerostat_words() {\n"
	      "\tlocal word=$1\n\tshift\n"
	      "\tmapfile -t COMPREPLY < <(compgen -W \"$*\" -- \"$word\")\n"
	      "\t[[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace\n"
	      "}\n"
	      "_aerostat_file() {\n"
	      "\tcompopt -o filenames\n"
	      "\tmapfile -t COMPREPLY < <(compgen -f -- \"$1\")\n"
	      "}\n"
	      "_aerostat_vm() {\n"
	      "\tlocal name\n"
	      "\twhile IFS=$'\\t' read -r name _; do\n"
	      "\t\t[[ $name != \"$1\"* ]] || COMPREPLY+=(\"$(printf %q \"$name\")\")\n"
	      "\tdone < <(\"${COMP_WORDS[0]}\" list --timeout=1 2>/dev/null | tail -n +2)\n"
	      "}\n"
	      "_aerostat() {\n"
	      "\tlocal word=${COMP_WORDS[COMP_CWORD]} verb= option= choices= action at=1 n=0\n"
	      "\tlocal -a actions=()\n"
	      "\tCOMPREPLY=()\n"
	      "\twhile ((at < COMP_CWORD)); do\n"
	      "\t\tcase ${COMP_WORDS[at]} in\n\t\t",
	      file);
	/* bash takes "--name=value" apart into three words. */
	bash_options(file, NULL, "|", true);
	fputs(")\n"
	      "\t\t\toption=${COMP_WORDS[at]}\n"
	      "\t\t\t[[ ${COMP_WORDS[at + 1]} != = ]] || ((++at))\n"
	      "\t\t\tif ((++at < COMP_CWORD)); then option=; fi ;;\n"
	      "\t\t-*) ;;\n"
	      "\t\t*) if [[ $verb ]]; then ((++n)); else verb=${COMP_WORDS[at]}; fi ;;\n"
	      "\t\tesac\n"
	      "\t\t((++at))\n"
	      "\tdone\n"
	      "\t[[ $word != = ]] || word=\n",
	      file);
	bash_values(file);
	bash_verbs(file);
	fputs("\taction=${actions[n]-}\n"
	      "\tif [[ $word != -* && $action ]]; then\n"
	      "\t\t\"_aerostat_$action\" \"$word\"\n"
	      "\telse\n"
	      "\t\t_aerostat_words \"$word\" \"$choices\"\n"
	      "\tfi\n"
	      "}\n"
	      "complete -F _aerostat aerostat\n",
	      file);
}

/* --- zsh ------------------------------------------------------------------------------------- */

/* Text within single quotes and within _arguments' own brackets and colons. */
static void zsh_text(FILE *file, const char *text)
{
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\'", file);
		else if (strchr("[]:\\", *text))
			fputc('\\', file);
		fputc(*text, file);
	}
}

static void zsh_action(FILE *file, enum word word, const char *name, const char *choices)
{
	fprintf(file, ":%s:", name);
	if (word == WORD_VM)
		fputs("_aerostat_vm", file);
	else if (word == WORD_FILE)
		fputs("_files", file);
	else if (word == WORD_CHOICE)
		fprintf(file, "(%s)", choices);
	else if (word == WORD_LIST)
		fprintf(file, "_sequence compadd - %s", choices);
}

static void zsh_options(FILE *file, const struct verb *verb)
{
	for (const struct option_spec *s = option_specs; s->name; s++) {
		if (!s->text || !option_is_for(s, verb))
			continue;
		fprintf(file, " \\\n\t\t'--%s%s[", s->name, s->value ? "=" : "");
		zsh_text(file, s->text);
		fputc(']', file);
		if (s->value)
			zsh_action(file, s->word, s->value, s->choices);
		fputc('\'', file);
	}
}

static void zsh_verb(FILE *file, const struct verb *v)
{
	fprintf(file, "\t%s%s%s) _arguments", v->name, v->alias ? "|" : "",
		v->alias ? v->alias : "");
	zsh_options(file, v);
	for (size_t i = 0; i < ARGUMENTS_MAX && v->arguments[i].name; i++) {
		fprintf(file, " \\\n\t\t'%zu%s", i + 1, v->arguments[i].optional ? ":" : "");
		zsh_action(file, v->arguments[i].word, v->arguments[i].name, "");
		fputc('\'', file);
	}
	fputs(" ;;\n", file);
}

static void zsh_print(FILE *file)
{
	fputs("#compdef aerostat\n"
	      "# zsh completion for aerostat, made from its own tables\n"
	      "_aerostat_vm() {\n"
	      "\tlocal -a lines names\n"
	      "\tlines=(${(f)\"$(aerostat list --timeout=1 2>/dev/null)\"})\n"
	      "\tnames=(${lines[2,-1]%%$'\\t'*})\n"
	      "\tcompadd -a names\n"
	      "}\n"
	      "local context state line\n"
	      "typeset -A opt_args\n"
	      "_arguments -C",
	      file);
	zsh_options(file, NULL);
	fputs(" \\\n\t\t'1:verb:->verb' '*::argument:->argument'\n"
	      "case $state in\n"
	      "verb)\n"
	      "\tlocal -a verbs=(",
	      file);
	for (const struct verb *v = verbs; v->name; v++) {
		fprintf(file, "\n\t\t'%s:", v->name);
		zsh_text(file, v->text);
		fputc('\'', file);
	}
	fputs(")\n"
	      "\t_describe verb verbs ;;\n"
	      "argument)\n"
	      "\tcase $words[1] in\n",
	      file);
	for (const struct verb *v = verbs; v->name; v++)
		zsh_verb(file, v);
	fputs("\tesac ;;\n"
	      "esac\n",
	      file);
}

int completion_print(FILE *file, const char *shell)
{
	if (strcmp(shell, "bash") == 0)
		bash_print(file);
	else if (strcmp(shell, "zsh") == 0)
		zsh_print(file);
	else
		return -EINVAL;
	return 0;
}
