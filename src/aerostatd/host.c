// SPDX-License-Identifier: MIT
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The beginning of a file below proc. 0 or -errno. */
static int read_text(const char *proc, const char *name, char *text, size_t room)
{
	char path[256];
	ssize_t n;
	int fd;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", proc, name) >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, room - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return (int)n;
	text[n] = '\0';
	return 0;
}

/* A number; *end is behind it. False: there is none, or it is too large. */
static bool read_number(const char *text, uint64_t *number, const char **end)
{
	char *behind;

	text += strspn(text, " ");
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, &behind, 10);
	*end = behind;
	return errno == 0;
}

/* The figure behind a word that begins a line, in bytes. */
static bool find_kib(const char *text, const char *word, uint64_t *bytes)
{
	const char *at = strstr(text, word), *end;
	uint64_t kib;

	if (!at || (at != text && at[-1] != '\n') || !read_number(at + strlen(word), &kib, &end) ||
	    strncmp(end, " kB", 3) != 0 || kib > UINT64_MAX >> 10)
		return false;
	*bytes = kib << 10;
	return true;
}

/* avg10 of the line that begins with the word, in hundredths of a percent. */
static uint32_t find_avg10(const char *text, const char *word)
{
	static const char key[] = " avg10=";
	const char *at = strstr(text, word), *end;
	uint64_t whole, part;

	if (!at || strncmp(at + strlen(word), key, strlen(key)) != 0 ||
	    !read_number(at + strlen(word) + strlen(key), &whole, &end) || whole > 100 ||
	    end[0] != '.' || !read_number(end + 1, &part, &end) || part > 99)
		return 0;
	return (uint32_t)(whole * 100 + part);
}

int host_read(const char *proc, struct manager_host *host, bool *psi)
{
	struct manager_host seen = {.resident = MANAGER_UNKNOWN};
	char text[4096];
	int r = read_text(proc, "meminfo", text, sizeof(text));

	if (r < 0)
		return r;
	if (!find_kib(text, "MemTotal:", &seen.total) ||
	    !find_kib(text, "MemAvailable:", &seen.available))
		return -EINVAL;
	if (seen.available > seen.total)
		return -EINVAL;
	*psi = read_text(proc, "pressure/memory", text, sizeof(text)) == 0;
	if (*psi) {
		seen.some_centi = find_avg10(text, "some");
		seen.full_centi = find_avg10(text, "full");
	}
	*host = seen;
	return 0;
}

bool host_waited_us(const char *proc, uint64_t *us)
{
	char text[4096], *end;
	const char *at;

	if (read_text(proc, "pressure/memory", text, sizeof(text)) < 0)
		return false;
	at = strstr(text, "total=");
	if (!at)
		return false;
	at += strlen("total=");
	*us = strtoull(at, &end, 10);
	return end != at;
}
