// SPDX-License-Identifier: MIT
/*
 * An event of inotify says only that something has changed; what there is then is read anew, and
 * compared with what was there. So a lost event costs nothing but time, and there is one way to
 * find something out, not two. While a directory cannot be watched it is looked for by the clock.
 *
 * Whoever may put a monitor there may put anything there, as much and as often as he likes. So no
 * more of it than so much is read; the longer a look takes, the longer it is until the next one; a
 * socket that was told is lost only when it is gone, and not when too many others stand before it;
 * and where a link leads is believed only of root and of ourselves: we may connect to what its
 * maker may not.
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

#include "common/unix_socket.h"

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

/* What a look has found. */
struct look {
	struct names names;
	size_t room;
	bool cut; /* there is more in the directory than was read */
};

struct discover {
	uv_fs_event_t watch;
	uv_timer_t timer; /* to the next look */
	char *directory;
	const struct discover_ops *ops;
	void *opaque;
	struct names known;
	uint64_t rest_until_ms; /* no look before, by uv_hrtime() */
	bool settling;          /* a change was seen, and the timer runs for it */
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
static int add_name(struct look *look, const char *name, const struct identity *identity)
{
	struct names *names = &look->names;
	char *copy;

	if (names->count == look->room) {
		size_t more = look->room ? look->room * 2 : 16;
		struct name *grown = realloc(names->name, more * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		names->name = grown;
		look->room = more;
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

	if (unix_socket_is_foreign(directory, name) ||
	    statx(directory, name, 0, STATX_TYPE | STATX_INO | STATX_BTIME, &st) < 0 ||
	    !S_ISSOCK(st.stx_mode))
		return false;
	*identity = (struct identity){.number = st.stx_ino};
	if (st.stx_mask & STATX_BTIME) {
		identity->born_s = st.stx_btime.tv_sec;
		identity->born_ns = st.stx_btime.tv_nsec;
	}
	return true;
}

/* Can it be a socket, or lead to one? Where the file system tells, the rest costs nothing. */
static bool may_be_socket(const struct dirent *entry)
{
	return entry->d_name[0] != '.' &&
	       (entry->d_type == DT_SOCK || entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN);
}

/* The sockets among its entries, in any order. 0 or -errno. */
static int read_entries(DIR *dir, struct look *look)
{
	const struct dirent *entry;
	struct identity identity;
	int status = 0;

	for (size_t n = 0; status == 0; n++) {
		errno = 0;
		entry = readdir(dir);
		if (!entry)
			return -errno; /* half of it would look as if the rest were gone */
		look->cut = n == DISCOVER_ENTRIES_MAX || look->names.count == DISCOVER_MAX;
		if (look->cut)
			return 0;
		if (may_be_socket(entry) && is_socket(dirfd(dir), entry->d_name, &identity))
			status = add_name(look, entry->d_name, &identity);
	}
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

/*
 * Those that were told and are still there, though not among what was read, which is sorted. 0 or
 * -ENOMEM.
 */
static int keep_known(int directory, const struct names *known, struct look *look)
{
	size_t seen = look->names.count;
	struct identity identity;
	int status = 0;

	for (size_t i = 0; status == 0 && i < known->count; i++) {
		const struct name *name = &known->name[i];

		if (!name->told ||
		    (seen && bsearch(name, look->names.name, seen, sizeof(*name), compare)) ||
		    !is_socket(directory, name->text, &identity))
			continue;
		status = add_name(look, name->text, &identity);
	}
	return status;
}

static void sort(struct names *names)
{
	if (names->count)
		qsort(names->name, names->count, sizeof(*names->name), compare);
}

/* The sockets of a directory, sorted. 0 or -errno. */
static int list_sockets(const struct discover *d, struct look *look)
{
	DIR *dir = opendir(d->directory);
	int status;

	*look = (struct look){.cut = false};
	if (!dir)
		return -errno;
	status = read_entries(dir, look);
	sort(&look->names);
	if (status == 0 && look->cut) {
		status = keep_known(dirfd(dir), &d->known, look);
		sort(&look->names);
	}
	closedir(dir);
	if (status < 0)
		free_names(&look->names);
	return status;
}

/* What went is told before what came. */
static void tell_difference(struct discover *d, struct names *fresh)
{
	bool refused = false;
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
		/* Where one is refused there is no room, and the others can wait with it. */
		if (!name->told && !refused && n > 0 && (size_t)n < sizeof(path)) {
			name->told = d->ops->found(d->opaque, path);
			refused = !name->told;
		}
	}
}

static void on_timer(uv_timer_t *timer);

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

/* Looks after that time, or when the last look has been paid for. */
static void look_in(struct discover *d, uint64_t ms)
{
	uint64_t now = now_ms();

	if (d->rest_until_ms > now + ms)
		ms = d->rest_until_ms - now;
	uv_timer_start(&d->timer, on_timer, ms, 0);
}

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
	look_in(d, DISCOVER_SETTLE_MS);
}

static void complain(struct discover *d, int status, bool cut)
{
	if ((status < 0 || cut) && !d->complained)
		d->ops->unreadable(d->opaque, d->directory,
				   status < 0 ? strerror(-status)
					      : "there is too much in it: some is left out");
	d->complained = status < 0 || cut;
}

static void on_timer(uv_timer_t *timer)
{
	struct discover *d = timer->data;
	uint64_t began = now_ms();
	struct look look;
	int status;

	/* Anew each time: there may be another directory of that name now. A failure is no matter:
	 * the clock brings us here again. */
	uv_fs_event_stop(&d->watch);
	uv_fs_event_start(&d->watch, on_change, d->directory, 0);
	d->settling = false;
	status = list_sockets(d, &look);
	d->rest_until_ms = now_ms() + (now_ms() - began) * DISCOVER_SHARE;
	complain(d, status, look.cut);
	/* That we cannot look says nothing about what is there. */
	if (status == 0 || status == -ENOENT || status == -ENOTDIR) {
		tell_difference(d, &look.names);
		free_names(&d->known);
		d->known = look.names;
	}
	look_in(d, DISCOVER_RETRY_MS);
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
