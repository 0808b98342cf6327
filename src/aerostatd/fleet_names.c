// SPDX-License-Identifier: MIT
/* What a VM is called: by people, and by the state. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fleet_parts.h"
#include "qmp/json.h"

int fleet_find(const struct fleet *fleet, const char *name)
{
	int by_uuid = -ENOENT;

	for (uint32_t i = 0; i < fleet->used; i++) {
		const struct fleet_vm *vm = &fleet->vms[i];

		if (!vm->endpoint)
			continue;
		if (strcmp(vm->name, name) == 0)
			return (int)i;
		if (strcmp(endpoint_view(vm->endpoint)->uuid, name) == 0)
			by_uuid = (int)i;
	}
	return by_uuid;
}

void fleet_key(const struct fleet *f, const struct fleet_vm *vm, char *key, size_t room)
{
	const struct endpoint_view *view = endpoint_view(vm->endpoint);
	bool has_uuid = view->uuid[0];

	for (uint32_t i = 0; has_uuid && i < f->used; i++) {
		if (&f->vms[i] != vm && f->vms[i].managed && strcmp(f->vms[i].key, view->uuid) == 0)
			has_uuid = false;
	}
	if (has_uuid)
		snprintf(key, room, "%s", view->uuid);
	else
		snprintf(key, room, "%s%s", endpoint_is_uuid(vm->name) ? "name " : "", vm->name);
}

/* A name of a file can hold any byte; a name of a VM is text that fits on one line. */
static void take_file_name(char *place, size_t room, const char *file, size_t len)
{
	size_t n = 0, step;

	for (size_t i = 0; i < len; i += step) {
		size_t valid = qmp_utf8_len(file + i, len - i);
		bool bad = !valid || (unsigned char)file[i] < ' ' || file[i] == 0x7f;

		step = valid ? valid : 1;
		if (n + (bad ? 1 : step) >= room)
			break;
		memcpy(place + n, bad ? "?" : file + i, bad ? 1 : step);
		n += bad ? 1 : step;
	}
	place[n] = '\0';
}

static bool is_gone(const struct fleet_vm *vm)
{
	return endpoint_view(vm->endpoint)->absence == ENDPOINT_GONE;
}

/* May it have that name? One that is gone gives its name to one that is here, which may be the same
 * at another socket. */
static bool is_free(const struct fleet *f, const struct fleet_vm *vm, const char *name)
{
	int other = fleet_find(f, name);

	return name[0] &&
	       (other < 0 || &f->vms[other] == vm || (is_gone(&f->vms[other]) && !is_gone(vm)));
}

static void take_name(struct fleet *f, struct fleet_vm *vm, const char *name)
{
	int before = fleet_find(f, name);

	snprintf(vm->name, sizeof(vm->name), "%s", name);
	if (before < 0 || &f->vms[before] == vm)
		return;
	f->vms[before].name[0] = '\0';
	fleet_name_vm(f, &f->vms[before]); /* it is gone, and takes from nobody */
}

/*
 * The name by which a VM is known here: its own if no other has it, else its socket's, the path of
 * that, or at last a number. No two have the same: series and what an operator says go by it.
 */
void fleet_name_vm(struct fleet *f, struct fleet_vm *vm)
{
	const struct endpoint_view *view = endpoint_view(vm->endpoint);
	const char *path = endpoint_path(vm->endpoint), *file = strrchr(path, '/') + 1;
	const char *end = strrchr(file, '.');
	char stem[ENDPOINT_NAME_MAX] = "", whole[ENDPOINT_NAME_MAX] = "";
	const char *const names[] = {view->name, stem, whole};

	take_file_name(stem, sizeof(stem), file,
		       end && end != file ? (size_t)(end - file) : strlen(file));
	take_file_name(whole, sizeof(whole), path, strlen(path));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (is_free(f, vm, names[i])) {
			take_name(f, vm, names[i]);
			return;
		}
	}
	vm->name[0] = '\0'; /* another's number must not be taken for ours */
	for (unsigned int i = 2; !vm->name[0]; i++) {
		take_file_name(stem, sizeof(stem) - 16, whole, strlen(whole));
		snprintf(stem + strlen(stem), 16, "#%u", i);
		if (is_free(f, vm, stem))
			snprintf(vm->name, sizeof(vm->name), "%s", stem);
	}
}
