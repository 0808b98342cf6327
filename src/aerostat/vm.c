// SPDX-License-Identifier: MIT
#include "vm.h"

#include <stdio.h>
#include <string.h>

#include "common/json_read.h"
#include "format.h"

struct word {
	const char *name;
	enum paint paint;
	unsigned int rank;
};

static const struct word verdicts[] = {
	{"fine", PAINT_GOOD, 0},       {"unknown", PAINT_DIM, 1},  {"cgroup", PAINT_WARN, 2},
	{"struggling", PAINT_WARN, 3}, {"pressed", PAINT_WARN, 4}, {"thrashing", PAINT_BAD, 5},
	{"critical", PAINT_BAD, 6},    {NULL, PAINT_NONE, 1},
};

static const struct word healths[] = {
	{"healthy", PAINT_GOOD, 0}, {"unknown", PAINT_DIM, 1},      {"paused", PAINT_DIM, 2},
	{"slow", PAINT_WARN, 3},    {"unresponsive", PAINT_BAD, 4}, {NULL, PAINT_NONE, 1},
};

static const struct word *look_up(const struct word *words, const char *name)
{
	while (words->name && (!name || strcmp(words->name, name) != 0))
		words++;
	return words;
}

const char *vm_name(struct json_object *vm)
{
	const char *name = json_read_str(vm, "name");

	return name ? name : "?";
}

bool vm_stat(struct json_object *vm, const char *name, uint64_t *value)
{
	return json_read_u64(json_read(vm, "stats"), name, value);
}

bool vm_stats_age(struct json_object *vm, uint64_t later_ms, uint64_t *ms)
{
	if (!json_read_u64(vm, "stats-age-ms", ms) || *ms > UINT64_MAX - later_ms)
		return false;
	*ms += later_ms;
	return true;
}

void vm_size_cell(struct table *t, struct json_object *vm, const char *key)
{
	uint64_t value = 0;
	bool known = json_read_u64(vm, key, &value);

	table_size(t, known, value);
}

void vm_stat_cell(struct table *t, struct json_object *vm, const char *name)
{
	uint64_t value = 0;
	bool known = vm_stat(vm, name, &value);

	table_size(t, known, value);
}

void vm_age_cell(struct table *t, struct json_object *vm)
{
	uint64_t age = 0;
	bool known = vm_stats_age(vm, 0, &age);

	table_age(t, known, age);
}

const char *vm_state(struct json_object *vm, enum paint *paint)
{
	const char *state = json_read_str(vm, "state"), *absence = json_read_str(vm, "absence");

	*paint = PAINT_NONE;
	if (state && strcmp(state, "serving") == 0)
		return state;
	*paint = absence ? PAINT_BAD : PAINT_DIM;
	if (absence && strcmp(absence, "no-balloon") == 0)
		return "no balloon";
	if (absence)
		return absence;
	return state ? state : "unknown";
}

bool vm_fresh(struct json_object *vm, uint64_t later_ms, char *instead, size_t len)
{
	const char *driver = json_read_str(vm, "driver"), *state;
	char text[FORMAT_ROOM];
	enum paint paint;
	uint64_t age;

	state = vm_state(vm, &paint);
	if (strcmp(state, "serving") != 0)
		snprintf(instead, len, "%s", state);
	else if (driver && strcmp(driver, "none") == 0)
		snprintf(instead, len, "no driver");
	else if (driver && strcmp(driver, "no-statistics") == 0)
		snprintf(instead, len, "statistics off");
	else if (!json_read(vm, "stats") || !vm_stats_age(vm, later_ms, &age))
		snprintf(instead, len, "none yet");
	else if (age > VM_STALE_MS)
		snprintf(instead, len, "stale %s", format_age(age, text, sizeof(text)));
	else
		return true;
	return false;
}

const char *vm_verdict(struct json_object *vm, enum paint *paint, char *buf, size_t len)
{
	const char *name = json_read_str(vm, "verdict");
	bool weak = false;

	*paint = look_up(verdicts, name)->paint;
	json_read_bool(vm, "verdict-weak", &weak);
	snprintf(buf, len, "%s%s", name ? name : "unknown", weak ? "?" : "");
	return buf;
}

const char *vm_health(struct json_object *vm, enum paint *paint)
{
	const char *name = json_read_str(vm, "health");

	*paint = look_up(healths, name)->paint;
	return name ? name : "unknown";
}

unsigned int vm_verdict_rank(struct json_object *vm)
{
	return look_up(verdicts, json_read_str(vm, "verdict"))->rank;
}

unsigned int vm_health_rank(struct json_object *vm)
{
	return look_up(healths, json_read_str(vm, "health"))->rank;
}
