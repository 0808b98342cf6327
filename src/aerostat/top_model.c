// SPDX-License-Identifier: MIT
#include "top_model.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/json_read.h"
#include "vm.h"

static int by_name(const void *a, const void *b)
{
	const struct row *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static struct row *find(const struct model *m, size_t n, const char *name)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(name, m->rows[middle]->name);

		if (order == 0)
			return m->rows[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static void free_row(struct row *row)
{
	json_object_put(row->vm);
	free(row->name);
	free(row);
}

static struct row *add_row(struct model *m, const char *name)
{
	struct row *row;

	if (m->n == m->room) {
		size_t room = m->room ? 2 * m->room : 64;
		struct row **rows = realloc(m->rows, room * sizeof(struct row *)), **shown;

		if (!rows)
			return NULL;
		m->rows = rows;
		shown = realloc(m->shown, room * sizeof(struct row *));
		if (!shown)
			return NULL;
		m->shown = shown;
		m->room = room;
	}
	row = calloc(1, sizeof(*row));
	if (!row)
		return NULL;
	row->name = strdup(name);
	if (!row->name) {
		free(row);
		return NULL;
	}
	m->rows[m->n++] = row;
	return row;
}

static void remember(struct row *row)
{
	uint64_t used = HISTORY_UNKNOWN, actual = HISTORY_UNKNOWN;
	char instead[64];

	if (vm_fresh(row->vm, 0, instead, sizeof(instead)))
		json_read_u64(row->vm, "used", &used);
	json_read_u64(row->vm, "actual", &actual);
	history_add(&row->used, used);
	history_add(&row->actual, actual);
}

int model_update(struct model *m, struct json_object *vms, uint64_t now_ms)
{
	size_t known = m->n, kept = 0;
	int ret = 0;

	for (size_t i = 0; i < m->n; i++)
		m->rows[i]->seen = false;
	for (size_t i = 0; i < json_object_array_length(vms); i++) {
		struct json_object *vm = json_object_array_get_idx(vms, i);
		struct row *row = find(m, known, vm_name(vm));

		if (!row)
			row = add_row(m, vm_name(vm));
		if (!row) {
			ret = -ENOMEM;
			break;
		}
		json_object_put(row->vm);
		row->vm = json_object_get(vm);
		row->seen = true;
		remember(row);
	}
	for (size_t i = 0; i < m->n; i++) {
		if (m->rows[i]->seen)
			m->rows[kept++] = m->rows[i];
		else
			free_row(m->rows[i]);
	}
	m->n = kept;
	if (m->n)
		qsort(m->rows, m->n, sizeof(struct row *), by_name);
	m->told_ms = now_ms;
	model_arrange(m);
	return ret;
}

void model_host(struct model *m, struct json_object *host)
{
	json_object_put(m->host);
	m->host = json_object_get(host);
}

/* Larger numbers come first: who has most, is worst off, is oldest. */
static uint64_t key_of(const struct row *row, enum sort_key sort)
{
	static const char *const members[] = {
		[SORT_TARGET] = "target", [SORT_ACTUAL] = "actual", [SORT_RESIDENT] = "resident"};
	char instead[64];
	uint64_t value = 0;
	bool known;

	switch (sort) {
	case SORT_TARGET:
	case SORT_ACTUAL:
	case SORT_RESIDENT:
		known = json_read_u64(row->vm, members[sort], &value);
		break;
	case SORT_FREE:
	case SORT_AVAILABLE:
		known = vm_fresh(row->vm, 0, instead, sizeof(instead)) &&
			vm_stat(row->vm,
				sort == SORT_FREE ? "stat-free-memory" : "stat-available-memory",
				&value);
		break;
	case SORT_VERDICT:
		return vm_verdict_rank(row->vm);
	case SORT_HEALTH:
		return vm_health_rank(row->vm);
	case SORT_AGE:
		known = vm_stats_age(row->vm, 0, &value);
		break;
	case SORT_NAME:
	case SORT_COUNT:
	default:
		return 0;
	}
	/* The unknown is less than nothing. */
	return known && value < UINT64_MAX ? value + 1 : 0;
}

static int by_key(const void *a, const void *b)
{
	const struct row *const *x = a, *const *y = b;

	if ((*x)->key != (*y)->key)
		return (*x)->key < (*y)->key ? 1 : -1;
	return strcmp((*x)->name, (*y)->name);
}

void model_arrange(struct model *m)
{
	m->n_shown = 0;
	for (size_t i = 0; i < m->n; i++) {
		m->rows[i]->key = key_of(m->rows[i], m->sort);
		if (!m->filter[0] || strcasestr(m->rows[i]->name, m->filter))
			m->shown[m->n_shown++] = m->rows[i];
	}
	if (!m->n_shown)
		return;
	qsort(m->shown, m->n_shown, sizeof(struct row *), by_key);
	for (size_t i = 0; m->reverse && i < m->n_shown / 2; i++) {
		struct row *other = m->shown[m->n_shown - 1 - i];

		m->shown[m->n_shown - 1 - i] = m->shown[i];
		m->shown[i] = other;
	}
}

size_t model_find(const struct model *m, const char *name)
{
	size_t i = 0;

	while (i < m->n_shown && strcmp(m->shown[i]->name, name) != 0)
		i++;
	return i;
}

void model_free(struct model *m)
{
	for (size_t i = 0; i < m->n; i++)
		free_row(m->rows[i]);
	free(m->rows);
	free(m->shown);
	json_object_put(m->host);
	*m = (struct model){0};
}
