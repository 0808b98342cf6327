// SPDX-License-Identifier: MIT
/*
 * Pages of which each says which one it is, in the files of a folder:
 *
 *     pattern SEED PAGES               writes them to standard output
 *     pattern SEED PAGES FIRST LAST    writes files SEED-FIRST to SEED-LAST here, each with its own
 *                                      name for a seed
 *     pattern check PAGES              reads names of files here, one a line, and says which of
 *                                      them are not as they were written
 *
 * A page is "SEED:NUMBER", blanks, and a newline at its end. The host knows the same bytes by
 * itself (vmm/data.py).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

#define MAX_NAME  256U
#define MAX_LABEL (MAX_NAME + 32U)
#define AT_ONCE   16U /* pages in one system call: each call is slow where it is emulated */
#define WORDS     (PAGE_BYTES / sizeof(uint64_t))

/* Pages that are blank but for the labels that they had last. */
struct pages {
	uint64_t words[AT_ONCE][WORDS];
	size_t label_length[AT_ONCE];
};

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void make_blank(struct pages *pages)
{
	for (size_t i = 0; i < AT_ONCE; i++) {
		char *page = (char *)pages->words[i];

		memset(page, ' ', PAGE_BYTES - 1);
		page[PAGE_BYTES - 1] = '\n';
		pages->label_length[i] = 0;
	}
}

/* Only the label is written: to copy a page is slow where the processor is emulated. */
static void put_label(struct pages *pages, size_t index, const char *seed, unsigned long number)
{
	char label[MAX_LABEL];
	char *page = (char *)pages->words[index];

	memset(page, ' ', pages->label_length[index]);
	pages->label_length[index] = (size_t)snprintf(label, sizeof(label), "%s:%lu", seed, number);
	memcpy(page, label, pages->label_length[index]);
}

/* By words: what memcmp() does with vectors is slow there too. */
static bool same(const uint64_t *a, const uint64_t *b)
{
	uint64_t difference = 0;

	for (size_t i = 0; i < WORDS; i++)
		difference |= a[i] ^ b[i];
	return difference == 0;
}

static void write_all(int fd, const char *data, size_t size, const char *name)
{
	while (size > 0) {
		ssize_t written = write(fd, data, size);

		if (written < 0)
			fail(name);
		data += written;
		size -= (size_t)written;
	}
}

static void write_pages(int fd, const char *seed, unsigned long count)
{
	static struct pages pages;
	unsigned long number = 0;

	make_blank(&pages);
	while (number < count) {
		size_t filled = 0;

		for (; filled < AT_ONCE && number < count; filled++, number++)
			put_label(&pages, filled, seed, number);
		write_all(fd, (const char *)pages.words, filled * PAGE_BYTES, seed);
	}
}

static void write_file(const char *name, unsigned long pages)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		fail(name);
	write_pages(fd, name, pages);
	if (close(fd) != 0)
		fail(name);
}

/* Up to `size` bytes; fewer only at the end of the file. */
static size_t read_all(int fd, char *data, size_t size, const char *name)
{
	size_t have = 0;

	while (have < size) {
		ssize_t got = read(fd, data + have, size - have);

		if (got < 0)
			fail(name);
		if (got == 0)
			break;
		have += (size_t)got;
	}
	return have;
}

static bool is_right(const char *name, unsigned long count)
{
	static uint64_t have[AT_ONCE][WORDS];
	static struct pages want;
	unsigned long number = 0;
	bool right = true;
	size_t size;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	make_blank(&want);
	while (right && (size = read_all(fd, (char *)have, sizeof(have), name)) > 0) {
		right = size % PAGE_BYTES == 0;
		for (size_t i = 0; right && i < size / PAGE_BYTES; i++, number++) {
			put_label(&want, 0, name, number);
			right = same(have[i], want.words[0]);
		}
	}
	close(fd);
	return right && number == count;
}

static int check_files(unsigned long pages)
{
	char name[MAX_NAME];
	int status = 0;

	while (fgets(name, sizeof(name), stdin) != NULL) {
		name[strcspn(name, "\n")] = '\0';
		if (!is_right(name, pages)) {
			printf("%s\n", name);
			status = 1;
		}
	}
	return status;
}

/* As number(), but 0 is one. */
static unsigned long number_from_0(const char *text)
{
	return strcmp(text, "0") == 0 ? 0 : number(text);
}

int main(int argc, char **argv)
{
	char name[MAX_NAME];

	if ((argc != 3 && argc != 5) || strlen(argv[1]) > MAX_NAME - 32U) {
		fputs("usage: pattern SEED PAGES [FIRST LAST] | pattern check PAGES\n", stderr);
		return 2;
	}
	if (argc == 3 && strcmp(argv[1], "check") == 0)
		return check_files(number(argv[2]));
	if (argc == 3) {
		write_pages(STDOUT_FILENO, argv[1], number(argv[2]));
		return 0;
	}
	for (unsigned long i = number_from_0(argv[3]); i <= number_from_0(argv[4]); i++) {
		snprintf(name, sizeof(name), "%s-%lu", argv[1], i);
		write_file(name, number(argv[2]));
	}
	return 0;
}
