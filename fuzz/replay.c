// SPDX-License-Identifier: MIT
/*
 * Runs a fuzz target without libFuzzer: on each file of the directories named as arguments, and on
 * a fixed number of variations of each, the same ones every time.  It ends with the target's own
 * crash or sanitizer report, or with 0; 1 means that there was nothing to run.
 */
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_SIZE (1u << 20)
#define VARIATIONS 64u

/* What libFuzzer declares for every target. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* xorshift64: the same sequence on every machine. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A block of exactly the input's size, so that a sanitizer sees the first byte read past it. */
static void run_copy(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size);

	if (!copy && size)
		abort();
	if (size)
		memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

/* Up to four bytes changed, and every third variation also cut short. */
static void run_variation(const uint8_t *data, size_t size, uint64_t *state)
{
	uint8_t *copy = malloc(size);

	if (!copy)
		abort();
	memcpy(copy, data, size);
	for (unsigned int i = 0; i < 4; i++)
		copy[next_random(state) % size] = (uint8_t)next_random(state);
	if (next_random(state) % 3 == 0)
		size = next_random(state) % size;
	run_copy(copy, size);
	free(copy);
}

/* Returns 0, or -errno when the file cannot be read. */
static int run_file(const char *path)
{
	static uint8_t data[INPUT_SIZE];
	uint64_t state = 0x9e3779b97f4a7c15u;
	FILE *file = fopen(path, "rb");
	size_t size;

	if (!file)
		return -errno;
	size = fread(data, 1, sizeof(data), file);
	fclose(file);
	run_copy(data, size);
	for (unsigned int i = 0; size && i < VARIATIONS; i++)
		run_variation(data, size, &state);
	return 0;
}

/* Returns how many files were run, or -errno. */
static int run_directory(const char *path)
{
	DIR *directory = opendir(path);
	const struct dirent *entry;
	int files = 0;

	if (!directory)
		return -errno;
	while ((entry = readdir(directory))) {
		char name[4096];
		int error;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		error = run_file(name);
		if (error) {
			closedir(directory);
			return error;
		}
		files++;
	}
	closedir(directory);
	return files;
}

int main(int argc, char **argv)
{
	int files = 0;

	for (int i = 1; i < argc; i++) {
		int found = run_directory(argv[i]);

		if (found < 0) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(-found));
			return 1;
		}
		files += found;
	}
	printf("%d inputs, %u variations each\n", files, VARIATIONS);
	return files ? 0 : 1;
}
