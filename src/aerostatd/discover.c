// SPDX-License-Identifier: MIT
/*
 * An event of inotify says only that something has changed; what there is then is read anew, and
 * compared with what was there. So a lost event costs nothing but time, and there is one way to
 * find something out, not two. While a directory cannot be watched it is looked for by the clock.
 */
#include "discover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A socket: of two with the same name these say whether they are one. Numbers are used again. */
struct identity {
	uint64_t number;
	int64_t born_s;
	uint32_t born_ns; /* 0 where the file system does not tell */
};

struct name {
	char *text;
	struct identity identity;
	bool told;
};

struct names {
	struct name *name; /* sorted */
	size_t count;
};

struct discover {
	uv_fs_event_t watch;
	uv_timer_t timer; /* to the next look */
	char *directory;
	const struct discover_ops *ops;
	void *opaque;
	struct names known;
	bool settling; /* a change was seen, and the timer runs for it */
	bool complained;
	int handles; /* that the loop still has */
};

static void free_names(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->name[i].text);
	free(names->name);
	*names = (struct names){0};
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

/* 0, or -ENOMEM. */
static int add_name(struct names *names, size_t *room, const char *name,
		    const struct identity *identity)
{
	char *copy;

	if (names->count == *room) {
		size_t more = *room ? *room * 2 : 16;
		struct name *grown = realloc(names->name, more * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		names->name = grown;
		*room = more;
	}
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	names->name[names->count] = (struct name){.identity = *identity};
	names->name[names->count++].text = copy;
	return 0;
}

static bool is_socket(int directory, const char *name, struct identity *identity)
{
	struct statx st;

	if (statx(directory, name, 0, STATX_TYPE | STATX_INO | STATX_BTIME, &st) < 0 ||
	    !S_ISSOCK(st.stx_mode))
		return false;
	*identity = (struct identity){.number = st.stx_ino};
	if (st.stx_mask & STATX_BTIME) {
		identity->born_s = st.stx_btime.tv_sec;
		identity->born_ns = st.stx_btime.tv_nsec;
	}
	return true;
}

/* The sockets of a directory. 0 or -errno. */
static int list_sockets(const char *directory, struct names *names)
{
	DIR *dir = opendir(directory);
	const struct dirent *entry;
	struct identity identity;
	size_t room = 0;
	int status = 0;

	*names = (struct names){0};
	if (!dir)
		return -errno;
	while (status == 0 && names->count < DISCOVER_MAX) {
		errno = 0;
		entry = readdir(dir);
		if (!entry) {
			status = -errno; /* half of it would look as if the rest were gone */
			break;
		}
		if (entry->d_name[0] != '.' && is_socket(dirfd(dir), entry->d_name, &identity))
			status = add_name(names, &room, entry->d_name, &identity);
	}
	closedir(dir);
	if (status < 0)
		free_names(names);
	else if (names->count)
		qsort(names->name, names->count, sizeof(*names->name), compare);
	return status;
}

static struct name *find_same(const struct names *names, const struct name *name)
{
	struct name *found = NULL;

	if (names->count)
		found = bsearch(name, names->name, names->count, sizeof(*name), compare);
	if (!found || found->identity.number != name->identity.number ||
	    found->identity.born_s != name->identity.born_s ||
	    found->identity.born_ns != name->identity.born_ns)
		return NULL;
	return found;
}

/* What went is told before what came. */
static void tell_difference(struct discover *d, struct names *fresh)
{
	char path[4096];

	for (size_t i = 0; i < d->known.count; i++) {
		const struct name *name = &d->known.name[i];

		snprintf(path, sizeof(path), "%s/%s", d->directory, name->text);
		if (name->told && !find_same(fresh, name))
			d->ops->lost(d->opaque, path);
	}
	for (size_t i = 0; i < fresh->count; i++) {
		struct name *name = &fresh->name[i];
		const struct name *before = find_same(&d->known, name);
		int n = snprintf(path, sizeof(path), "%s/%s", d->directory, name->text);

		name->told = before && before->told;
		if (!name->told && n > 0 && (size_t)n < sizeof(path))
			name->told = d->ops->found(d->opaque, path);
	}
}

static void on_timer(uv_timer_t *timer);

/* Whatever it was: soon it is read. Further changes until then are read with it. */
static void on_change(uv_fs_event_t *watch, const char *file, int events, int status)
{
	struct discover *d = watch->data;

	(void)file;
	(void)events;
	(void)status;
	if (d->settling)
		return;
	d->settling = true;
	uv_timer_start(&d->timer, on_timer, DISCOVER_SETTLE_MS, 0);
}

static void on_timer(uv_timer_t *timer)
{
	struct discover *d = timer->data;
	struct names fresh;
	int status;

	/* Anew each time: there may be another directory of that name now. A failure is no matter:
	 * the clock brings us here again. */
	uv_fs_event_stop(&d->watch);
	uv_fs_event_start(&d->watch, on_change, d->directory, 0);
	d->settling = false;
	uv_timer_start(&d->timer, on_timer, DISCOVER_RETRY_MS, 0);
	status = list_sockets(d->directory, &fresh);
	if (status < 0 && !d->complained)
		d->ops->unreadable(d->opaque, d->directory, strerror(-status));
	d->complained = status < 0;
	/* That we cannot look says nothing about what is there. */
	if (status < 0 && status != -ENOENT && status != -ENOTDIR)
		return;
	tell_difference(d, &fresh);
	free_names(&d->known);
	d->known = fresh;
}

struct discover *discover_start(uv_loop_t *loop, const char *directory,
				const struct discover_ops *ops, void *opaque)
{
	struct discover *d = calloc(1, sizeof(*d));

	if (d)
		d->directory = strdup(directory);
	if (!d || !d->directory) {
		free(d);
		return NULL;
	}
	d->ops = ops;
	d->opaque = opaque;
	uv_fs_event_init(loop, &d->watch); /* neither of these can fail */
	uv_timer_init(loop, &d->timer);
	d->watch.data = d->timer.data = d;
	d->handles = 2;
	uv_timer_start(&d->timer, on_timer, 0, 0);
	return d;
}

const char *discover_directory(const struct discover *d)
{
	return d->directory;
}

static void on_closed(uv_handle_t *handle)
{
	struct discover *d = handle->data;

	if (--d->handles > 0)
		return;
	free_names(&d->known);
	free(d->directory);
	free(d);
}

void discover_stop(struct discover *d)
{
	if (!d)
		return;
	uv_close((uv_handle_t *)&d->watch, on_closed);
	uv_close((uv_handle_t *)&d->timer, on_closed);
}
