/* SPDX-License-Identifier: MIT */
/* What aerostatd says of a virtual machine, read with the care of one who shows it to people. */
#ifndef AEROSTAT_VM_H
#define AEROSTAT_VM_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "table.h"

/* Statistics older than this are shown as stale: aerostatd does not act on such ones either. */
#define VM_STALE_MS 5000

/* Its name, "?" if it has none. Valid as long as vm. */
const char *vm_name(struct json_object *vm);

/*
 * Are the guest's own numbers fresh? If not, `instead` says what stands in their place: "no
 * driver", "statistics off", "stale 12 s", ... later_ms: time since aerostatd said so.
 */
bool vm_fresh(struct json_object *vm, uint64_t later_ms, char *instead, size_t len);

/* A statistic such as "stat-free-memory". */
bool vm_stat(struct json_object *vm, const char *name, uint64_t *value);

/* How old they are now. */
bool vm_stats_age(struct json_object *vm, uint64_t later_ms, uint64_t *ms);

/* The next cell of a table: a size that it is said to have, a statistic that is a size, its age. */
void vm_size_cell(struct table *t, struct json_object *vm, const char *key);
void vm_stat_cell(struct table *t, struct json_object *vm, const char *name);
void vm_age_cell(struct table *t, struct json_object *vm);

/* A word and its colour; never NULL. A weak verdict ends with '?'. */
const char *vm_verdict(struct json_object *vm, enum paint *paint, char *buf, size_t len);
const char *vm_health(struct json_object *vm, enum paint *paint);

/* How it is connected: "serving", or why not. */
const char *vm_state(struct json_object *vm, enum paint *paint);

/* How bad a verdict or a health is, for sorting: 0 is fine. */
unsigned int vm_verdict_rank(struct json_object *vm);
unsigned int vm_health_rank(struct json_object *vm);

#endif
