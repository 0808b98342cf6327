/* SPDX-License-Identifier: MIT */
/* What top shows: the virtual machines with their last minutes, sorted and filtered; the host. */
#ifndef AEROSTAT_TOP_MODEL_H
#define AEROSTAT_TOP_MODEL_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sparkline.h"

#define MODEL_FILTER 64

enum sort_key {
	SORT_NAME,
	SORT_TARGET,
	SORT_ACTUAL,
	SORT_RESIDENT,
	SORT_FREE,
	SORT_AVAILABLE,
	SORT_VERDICT,
	SORT_HEALTH,
	SORT_AGE,
	SORT_COUNT,
};

struct row {
	char *name;
	struct json_object *vm; /* as it was told last */
	struct history used, actual;
	bool seen;    /* in the answer that is being read */
	uint64_t key; /* by which it is sorted now; unknown ones last */
};

/* All zero, but for the sort order, is an empty one. */
struct model {
	struct row **rows; /* by name */
	size_t n, room;
	struct row **shown; /* those that the filter lets through, in their order */
	size_t n_shown;
	enum sort_key sort;
	bool reverse;
	char filter[MODEL_FILTER]; /* part of a name; empty: all */
	struct json_object *host;  /* NULL: not told yet */
	uint64_t told_ms;          /* when the rows were told; 0: never */
};

/* What query-vms answered: an array. Those that are not in it any more go. 0 or -ENOMEM. */
int model_update(struct model *m, struct json_object *vms, uint64_t now_ms);

/* What query-host answered; a reference is taken. */
void model_host(struct model *m, struct json_object *host);

/* Sorts and filters anew, after sort, reverse or filter was changed. */
void model_arrange(struct model *m);

/* Index among the shown of the row with that name; n_shown if it is not there. */
size_t model_find(const struct model *m, const char *name);

void model_free(struct model *m);

#endif
