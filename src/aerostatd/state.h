/* SPDX-License-Identifier: MIT */
/*
 * What outlives the manager's process: of each VM, by its UUID or else its name, what was learned
 * of it and what an operator has set. A JSON file, written anew and renamed.
 */
#ifndef AEROSTATD_STATE_H
#define AEROSTATD_STATE_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/instant.h"
#include "manager/manager.h"

#define STATE_KEPT_DAYS 30 /* a VM that was not seen for so long is forgotten */

/*
 * So many are remembered: a monitor that gives itself another name each time must not make the file
 * so large that nobody can read it. Of more, those go first of which nothing was set by an
 * operator, and of these those not seen for longest. Twice as many as there can be at a time.
 */
#define STATE_VMS_MAX 8192

/* What an operator has set at run time; MANAGER_UNKNOWN, and 0 for priority: what the
 * configuration says. */
struct state_wishes {
	uint64_t floor, ceiling;
	uint32_t priority;
};

#define STATE_NO_WISHES ((struct state_wishes){MANAGER_UNKNOWN, MANAGER_UNKNOWN, 0})

struct state {
	char *path;              /* or NULL: nothing is kept */
	struct json_object *vms; /* by key */
	bool changed;
};

/*
 * Reads the file. A file that is not there is an empty state. Others that cannot be used: -errno,
 * with a line in error; the state is empty then, and the file is renamed to path.bad, so that the
 * next save does not replace it.
 */
int state_load(struct state *state, const char *path, char *error, size_t error_size);

/* Writes the file if something has changed. 0 or -errno. */
int state_save(struct state *state, struct instant now);

/*
 * The same in two steps, of which the second, the slow one, may be done by another thread. *text is
 * NULL if nothing has changed, else to be freed with free(). 0 or -errno.
 */
int state_render(struct state *state, struct instant now, char **text, size_t *len);
int state_write(const char *path, const char *text, size_t len);

/*
 * What is known of a VM; false: nothing, and *saved has version 0. What a file of an older program
 * does not say of it is MANAGER_UNKNOWN.
 */
bool state_get(const struct state *state, const char *key, struct manager_saved *saved,
	       struct state_wishes *wishes, struct instant now);

/* Keeps it from now on. */
void state_put(struct state *state, const char *key, const struct manager_saved *saved,
	       const struct state_wishes *wishes, struct instant now);

void state_free(struct state *state);

#endif
