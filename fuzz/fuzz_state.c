// SPDX-License-Identifier: MIT
/*
 * A state file of aerostatd with anything in it. What is taken from it makes no VM of the manager's
 * that breaks its bounds; and what is written after that can be read again.
 */
#include "../src/aerostatd/state.h"
#include "input_file.h"

#define SIZE (1ULL << 30)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct instant now = {.mono_ms = 5000, .wall_us = 1700000000000000};

static void set_target(void *opaque, uint32_t slot, uint64_t keep)
{
	(void)opaque;
	(void)slot;
	require(keep <= SIZE);
}

static const struct manager_ops ops = {set_target, NULL};

/* A VM that was known by that name, in a manager of its own. */
static void use(const struct state *state, const char *key)
{
	static struct manager m;
	static struct manager_vm vm;
	static struct balance_vm balance;
	const struct manager_config config = {.reserve = MANAGER_UNKNOWN};
	struct manager_facts facts = {.size = SIZE,
				      .floor = MANAGER_UNKNOWN,
				      .ceiling = MANAGER_UNKNOWN,
				      .driver = MANAGER_DRIVER_FULL,
				      .actual = SIZE,
				      .target = MANAGER_UNKNOWN};
	struct manager_saved saved;
	struct state_wishes wishes;

	if (!state_get(state, key, &saved, &wishes, now))
		return; /* there is no object behind the name */
	require(wishes.priority <= BALANCE_WEIGHT_MAX);
	require(saved.version == 0 || saved.version == MANAGER_SAVED_VERSION);
	saved.size = saved.version ? SIZE : 0; /* else it is of another, and not used */
	require(manager_init(&m, &config, &ops, NULL, &vm, &balance, 1, now.mono_ms) == 0);
	require(manager_vm_add(&m, 0, &facts, saved.version ? &saved : NULL, now.mono_ms) == 0);
	require(balance.learned <= SIZE && balance.floor <= balance.ceiling);
	require(balance.ceiling <= SIZE && balance.target <= SIZE);
	manager_host(&m, &(struct manager_host){.total = 2 * SIZE, .available = SIZE}, now.mono_ms);
	manager_tick(&m, now.mono_ms + 1000);
	require(balance.target <= SIZE);
}

static void use_all(const struct state *state)
{
	json_object_object_foreach(state->vms, key, vm)
	{
		(void)vm;
		use(state, key);
	}
}

/* From what was written. Names that are no UTF-8 can be others then, or the same. */
static void check_written(struct state *state)
{
	struct input_file file;
	struct state again;
	char error[512] = "", *text;
	size_t len;

	state->changed = true;
	require(state_render(state, now, &text, &len) == 0 && text);
	file = input_file_make(text, len);
	require(state_load(&again, file.path, error, sizeof(error)) == 0);
	require(json_object_object_length(again.vms) <= json_object_object_length(state->vms));
	use_all(&again);
	state_free(&again);
	input_file_close(&file);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input_file file = input_file_make(data, size);
	char error[512] = "";
	struct state state;
	int status = state_load(&state, file.path, error, sizeof(error));

	if (status < 0) {
		require(error[0] && json_object_object_length(state.vms) == 0);
	} else {
		use_all(&state);
		check_written(&state);
	}
	state_free(&state);
	input_file_close(&file);
	return 0;
}
