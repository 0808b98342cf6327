// SPDX-License-Identifier: MIT
#include "statefile.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char version_line[] = "version=1";
static const char hex[] = "0123456789ABCDEF";

static bool is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.';
}

/* Appends text, encoded, and a NUL. False: no room. */
static bool append_encoded(char *out, size_t size, size_t *len, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (*len + 4 > size)
			return false;
		if (is_plain(c)) {
			out[(*len)++] = (char)c;
			continue;
		}
		out[(*len)++] = '%';
		out[(*len)++] = hex[c >> 4];
		out[(*len)++] = hex[c & 15];
	}
	out[*len] = '\0';
	return true;
}

/* Decodes in place. False: not well-formed, or it holds a NUL. */
static bool decode(char *text)
{
	char *out = text;

	while (*text) {
		const char *high, *low;

		if (*text != '%') {
			if (!is_plain((unsigned char)*text))
				return false;
			*out++ = *text++;
			continue;
		}
		high = text[1] ? strchr(hex, text[1]) : NULL;
		low = high && text[2] ? strchr(hex, text[2]) : NULL;
		if (!low || (high == hex && low == hex))
			return false;
		*out++ = (char)((high - hex) << 4 | (low - hex));
		text += 3;
	}
	*out = '\0';
	return true;
}

int statefile_name(const char *machine, char *name, size_t size)
{
	size_t len = (size_t)snprintf(name, size, "vhost-user-balloon%s", machine ? "-" : "");
	static const char end[] = ".state";

	if (len >= size || !append_encoded(name, size, &len, machine ? machine : ""))
		return -ENAMETOOLONG;
	/* Room is left for what is appended while it is written, or when it is put aside. */
	if (len + sizeof(end) > size || len + sizeof(end) + 4 > NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name + len, end, sizeof(end));
	return 0;
}

size_t statefile_format(const struct settings *s, char text[STATEFILE_MAX])
{
	size_t len = (size_t)snprintf(text, STATEFILE_MAX,
				      "%s\n"
				      "target=%" PRIu64 "\n"
				      "guest-size=%" PRIu64 "\n"
				      "stats-poll-interval-ms=%" PRIu64 "\n"
				      "stats-push-interval-ms=%" PRIu32 "\n"
				      "inhibitors=%" PRIu32 "\n",
				      version_line, s->target, s->guest_size, s->poll_ms,
				      s->push_ms, s->n_inhibitors);

	for (uint32_t i = 0; i < s->n_inhibitors; i++) {
		len += (size_t)snprintf(text + len, STATEFILE_MAX - len, "inhibitor=");
		(void)append_encoded(text, STATEFILE_MAX, &len, s->inhibitor[i]);
		text[len++] = '\n';
	}
	return len;
}

static bool parse_number(const char *text, uint64_t max, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return !errno && !*end && *value <= max;
}

struct parsed {
	struct settings settings;
	uint64_t inhibitors; /* so many lines of them there should be */
	unsigned int seen;   /* bit n: numbers[n] */
};

struct number {
	const char *key;
	size_t offset;
	uint64_t max; /* tells the width too */
};

static const struct number numbers[] = {
	{"target", offsetof(struct parsed, settings.target), UINT64_MAX},
	{"guest-size", offsetof(struct parsed, settings.guest_size), UINT64_MAX},
	{"stats-poll-interval-ms", offsetof(struct parsed, settings.poll_ms), UINT64_MAX},
	{"stats-push-interval-ms", offsetof(struct parsed, settings.push_ms), UINT32_MAX},
	{"inhibitors", offsetof(struct parsed, inhibitors), SETTINGS_INHIBITORS_MAX},
};
#define NUMBERS (sizeof(numbers) / sizeof(numbers[0]))

static bool parse_line(char *line, struct parsed *p)
{
	char *value = strchr(line, '=');
	uint64_t number;

	if (!value)
		return false;
	*value++ = '\0';
	if (strcmp(line, "inhibitor") == 0)
		return decode(value) && settings_inhibit(&p->settings, value) == 0;
	for (unsigned int i = 0; i < NUMBERS; i++) {
		void *place = (char *)p + numbers[i].offset;

		if (strcmp(line, numbers[i].key) != 0)
			continue;
		if (p->seen >> i & 1 || !parse_number(value, numbers[i].max, &number))
			return false;
		p->seen |= 1U << i;
		if (numbers[i].max == UINT32_MAX)
			*(uint32_t *)place = (uint32_t)number;
		else
			*(uint64_t *)place = number;
		return true;
	}
	return false;
}

int statefile_parse(char *text, size_t len, struct settings *s)
{
	struct parsed found;
	int line = 1;
	char *next;

	memset(&found, 0, sizeof(found)); /* all of it: settings are compared as a whole */
	for (char *at = text; at < text + len; at = next, line++) {
		char *end = memchr(at, '\n', (size_t)(text + len - at));

		/* Without its end the last line may have been cut. */
		if (!end || memchr(at, '\0', (size_t)(end - at)))
			return line;
		*end = '\0';
		next = end + 1;
		if (line == 1 ? strcmp(at, version_line) != 0 : !parse_line(at, &found))
			return line;
	}
	if (found.seen != (1U << NUMBERS) - 1 || found.inhibitors != found.settings.n_inhibitors)
		return line;
	*s = found.settings;
	return 0;
}

/* The whole of a file. Bytes, or -errno; -EFBIG: more than a state file ever has. */
static ssize_t read_all(int fd, char *buf, size_t size)
{
	size_t have = 0;

	for (;;) {
		ssize_t n = read(fd, buf + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return (ssize_t)have;
		have += (size_t)n;
		if (have == size)
			return -EFBIG;
	}
}

int statefile_load(int dir, const char *name, struct settings *s, int *line)
{
	char text[STATEFILE_MAX + 1], aside[NAME_MAX + 1];
	/* Whoever may write there could put a pipe in its place, which would be waited for. */
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t len;

	*line = 0;
	if (fd < 0)
		return -errno;
	len = read_all(fd, text, sizeof(text));
	close(fd);
	if (len == -EFBIG)
		*line = 1;
	else if (len < 0)
		return (int)len;
	else
		*line = statefile_parse(text, (size_t)len, s);
	if (!*line)
		return 0;
	snprintf(aside, sizeof(aside), "%s.bad", name);
	return renameat(dir, name, dir, aside) < 0 ? -errno : -EBADMSG;
}

static int write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

int statefile_save(int dir, const char *name, const struct settings *s)
{
	char text[STATEFILE_MAX], temporary[NAME_MAX + 1];
	size_t len = statefile_format(s, text);
	int fd, r;

	snprintf(temporary, sizeof(temporary), "%s.new", name);
	/* One that is left from a crash may be anything. */
	if (unlinkat(dir, temporary, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, len);
	if (!r && fsync(fd) < 0)
		r = -errno;
	if (close(fd) < 0 && !r)
		r = -errno;
	if (!r && renameat(dir, temporary, dir, name) < 0)
		r = -errno;
	if (r)
		unlinkat(dir, temporary, 0);
	else if (fsync(dir) < 0)
		r = -errno;
	return r;
}
