// SPDX-License-Identifier: MIT
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json_read.h"
#include "qmp/json.h"

#define STATE_VERSION 1
#define SIZE_LIMIT    (64L * 1024 * 1024) /* of a file that is worth reading */

/* One member of struct manager_saved, and what the file calls it. */
static const struct {
	const char *name;
	size_t offset;
	bool optional; /* older programs did not write it */
} saved_members[] = {
	{"size", offsetof(struct manager_saved, size), false},
	{"target", offsetof(struct manager_saved, target), false},
	{"learned-floor", offsetof(struct manager_saved, learned), false},
	{"learned-left-ms", offsetof(struct manager_saved, learned_left_ms), false},
	{"learned-span-ms", offsetof(struct manager_saved, learned_span_ms), false},
	{"learned-used", offsetof(struct manager_saved, learned_used), false},
	{"learned-free", offsetof(struct manager_saved, learned_free), true},
	{"working", offsetof(struct manager_saved, working), false},
	{"growth", offsetof(struct manager_saved, growth), false},
	{"cache", offsetof(struct manager_saved, cache), false},
};
#define MEMBERS (sizeof(saved_members) / sizeof(saved_members[0]))

/* --- the file --------------------------------------------------------------------------------- */

/* The whole file as text; NULL with errno set. */
static char *read_whole(const char *path)
{
	char *text = NULL;
	FILE *file = fopen(path, "re");
	long size = -1;

	if (!file)
		return NULL;
	if (fseek(file, 0, SEEK_END) == 0)
		size = ftell(file);
	errno = EFBIG;
	if (size >= 0 && size <= SIZE_LIMIT && fseek(file, 0, SEEK_SET) == 0)
		text = calloc(1, (size_t)size + 1);
	if (text && fread(text, 1, (size_t)size, file) != (size_t)size) {
		free(text);
		text = NULL;
		errno = EIO;
	}
	fclose(file);
	return text;
}

/* What cannot be used is not overwritten: perhaps somebody can. */
static void set_aside(const char *path, const char *why, char *error, size_t error_size)
{
	char bad[4096];

	if ((size_t)snprintf(bad, sizeof(bad), "%s.bad", path) < sizeof(bad) &&
	    rename(path, bad) == 0)
		snprintf(error, error_size, "%s: %s: kept as %s", path, why, bad);
	else
		snprintf(error, error_size, "%s: %s", path, why);
}

int state_load(struct state *state, const char *path, char *error, size_t error_size)
{
	struct json_object *root = NULL, *vms;
	uint64_t version = 0;
	char *text;
	int status = 0;

	*state =
		(struct state){.path = path ? strdup(path) : NULL, .vms = json_object_new_object()};
	if (!state->vms || (path && !state->path))
		return -ENOMEM;
	if (!path)
		return 0;
	text = read_whole(path);
	if (!text) {
		status = errno == ENOENT ? 0 : -errno;
		if (status && status != -ENOMEM)
			set_aside(path, strerror(-status), error, error_size);
		return status;
	}
	root = json_tokener_parse(text);
	free(text);
	vms = json_read(root, "vms");
	if (json_read_u64(root, "version", &version) && version == STATE_VERSION &&
	    json_object_is_type(vms, json_type_object)) {
		json_object_put(state->vms);
		state->vms = json_object_get(vms);
	} else {
		set_aside(path, "no state of this program", error, error_size);
		status = -EINVAL;
	}
	json_object_put(root);
	return status;
}

struct remembered {
	const char *key;
	struct json_object *vm;
	uint64_t seen;
	bool set; /* something was set by an operator */
};

/* The one that is kept longer comes first. */
static int compare(const void *a, const void *b)
{
	const struct remembered *x = a, *y = b;

	if (x->set != y->set)
		return x->set ? -1 : 1;
	return x->seen == y->seen ? 0 : x->seen > y->seen ? -1 : 1;
}

/* Those that were seen of late, as many as are remembered; how many. */
static size_t choose(const struct state *state, struct instant now, struct remembered *chosen)
{
	int64_t oldest = now.wall_us / 1000000 - (int64_t)STATE_KEPT_DAYS * 86400;
	struct json_object_iterator at = json_object_iter_begin(state->vms);
	struct json_object_iterator end = json_object_iter_end(state->vms);
	size_t n = 0;

	for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
		struct remembered *r = &chosen[n];

		r->vm = json_object_iter_peek_value(&at);
		if (!json_read_u64(r->vm, "seen", &r->seen) || (int64_t)r->seen < oldest)
			continue;
		r->key = json_object_iter_peek_name(&at);
		r->set = json_read(r->vm, "floor") || json_read(r->vm, "ceiling") ||
			 json_read(r->vm, "priority");
		n++;
	}
	if (n <= STATE_VMS_MAX)
		return n;
	qsort(chosen, n, sizeof(*chosen), compare);
	return STATE_VMS_MAX;
}

/* Those that were not seen for long, and those that are too many. */
static void forget_some(struct state *state, struct instant now)
{
	size_t n = (size_t)json_object_object_length(state->vms);
	struct remembered *chosen = calloc(n + 1, sizeof(*chosen));
	struct json_object *kept = json_object_new_object();

	n = chosen ? choose(state, now, chosen) : 0;
	for (size_t i = 0; i < n; i++)
		qmp_obj_add(&kept, chosen[i].key, json_object_get(chosen[i].vm));
	if (chosen && kept) {
		json_object_put(state->vms);
		state->vms = kept;
	} else {
		json_object_put(kept);
	}
	free(chosen);
}

/* To a file beside it first. */
int state_write(const char *path, const char *text, size_t len)
{
	char fresh[4096];
	ssize_t n;
	int fd, status = 0;

	if ((size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) >= sizeof(fresh))
		return -ENAMETOOLONG;
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	for (size_t done = 0; status == 0 && done < len; done += (size_t)n) {
		n = write(fd, text + done, len - done);
		if (n < 0)
			status = -errno;
	}
	if (status == 0 && fsync(fd) < 0)
		status = -errno;
	if (close(fd) < 0 && status == 0)
		status = -errno;
	if (status == 0 && rename(fresh, path) < 0)
		status = -errno;
	if (status < 0)
		unlink(fresh);
	return status;
}

int state_render(struct state *state, struct instant now, char **text, size_t *len)
{
	struct json_object *root;
	struct qmp_buf buf = {0};
	int status;

	*text = NULL;
	*len = 0;
	if (!state->changed || !state->path)
		return 0;
	forget_some(state, now);
	root = json_object_new_object();
	qmp_obj_add(&root, "version", json_object_new_int(STATE_VERSION));
	qmp_obj_add(&root, "vms", json_object_get(state->vms));
	status = root ? qmp_json_write(&buf, root) : -ENOMEM;
	json_object_put(root);
	if (status == 0)
		status = qmp_buf_append(&buf, "\n", 1);
	if (status < 0) {
		qmp_buf_free(&buf);
		return status;
	}
	*text = buf.data;
	*len = buf.len;
	state->changed = false;
	return 0;
}

int state_save(struct state *state, struct instant now)
{
	size_t len;
	char *text;
	int status = state_render(state, now, &text, &len);

	if (text) {
		status = state_write(state->path, text, len);
		state->changed = status < 0;
	}
	free(text);
	return status;
}

/* --- one VM ----------------------------------------------------------------------------------- */

bool state_get(const struct state *state, const char *key, struct manager_saved *saved,
	       struct state_wishes *wishes, struct instant now)
{
	struct json_object *vm = json_read(state->vms, key);
	struct manager_saved found = {
		.version = MANAGER_SAVED_VERSION,
		.learned_free = MANAGER_UNKNOWN,
	};
	uint64_t seen = 0, priority = 0, passed_ms;
	bool hard = false, whole = true;

	*saved = (struct manager_saved){0};
	*wishes = STATE_NO_WISHES;
	if (!vm)
		return false;
	(void)json_read_u64(vm, "floor", &wishes->floor);
	(void)json_read_u64(vm, "ceiling", &wishes->ceiling);
	if (json_read_u64(vm, "priority", &priority) && priority <= BALANCE_WEIGHT_MAX)
		wishes->priority = (uint32_t)priority;
	for (size_t i = 0; i < MEMBERS; i++) {
		void *place = (char *)&found + saved_members[i].offset;

		if (!json_read_u64(vm, saved_members[i].name, place))
			whole = whole && saved_members[i].optional;
	}
	(void)json_read_bool(vm, "learned-hard", &hard);
	found.learned_hard = hard;
	/* What was learned runs out while nobody is here, too. */
	if (json_read_u64(vm, "seen", &seen) && now.wall_us / 1000000 > (int64_t)seen) {
		passed_ms = ((uint64_t)(now.wall_us / 1000000) - seen) * 1000;
		found.learned_left_ms =
			found.learned_left_ms > passed_ms ? found.learned_left_ms - passed_ms : 0;
	}
	if (whole)
		*saved = found;
	return true;
}

void state_put(struct state *state, const char *key, const struct manager_saved *saved,
	       const struct state_wishes *wishes, struct instant now)
{
	struct json_object *vm = json_object_new_object();

	qmp_obj_add(&vm, "seen", json_object_new_int64(now.wall_us / 1000000));
	if (wishes->floor != MANAGER_UNKNOWN)
		qmp_obj_add(&vm, "floor", json_object_new_uint64(wishes->floor));
	if (wishes->ceiling != MANAGER_UNKNOWN)
		qmp_obj_add(&vm, "ceiling", json_object_new_uint64(wishes->ceiling));
	if (wishes->priority)
		qmp_obj_add(&vm, "priority", json_object_new_uint64(wishes->priority));
	for (size_t i = 0; saved->version == MANAGER_SAVED_VERSION && i < MEMBERS; i++) {
		uint64_t value;

		memcpy(&value, (const char *)saved + saved_members[i].offset, sizeof(value));
		qmp_obj_add(&vm, saved_members[i].name, json_object_new_uint64(value));
	}
	qmp_obj_add(&vm, "learned-hard", json_object_new_boolean(saved->learned_hard != 0));
	if (!vm)
		return;
	if (json_object_object_add(state->vms, key, vm) < 0)
		json_object_put(vm);
	state->changed = true;
	if (json_object_object_length(state->vms) > 2 * STATE_VMS_MAX)
		forget_some(state, now);
}

void state_free(struct state *state)
{
	free(state->path);
	json_object_put(state->vms);
	*state = (struct state){0};
}
