// SPDX-License-Identifier: MIT
/*
 * A configuration of aerostatd with anything in it. It is refused with a line that says why, or
 * what came of it keeps all bounds.
 */
#include <errno.h>

#include "../src/aerostatd/config.h"
#include "input_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct config *c)
{
	require(c->control && c->control[0] == '/');
	require(!c->state || c->state[0] == '/');
	require(!c->metrics || strchr(c->metrics, ':'));
	require(c->n_directories >= 1 && c->n_directories <= CONFIG_DIRECTORIES_MAX);
	for (size_t i = 0; i < c->n_directories; i++) {
		size_t len = strlen(c->directories[i]);

		require(c->directories[i][0] == '/');
		require(len == 1 || c->directories[i][len - 1] != '/');
	}
	require(c->n_vms <= CONFIG_VMS_MAX);
	for (size_t i = 0; i < c->n_vms; i++) {
		const struct config_vm *vm = &c->vms[i];

		require(vm->name[0] && config_find_vm(c, vm->name) == vm);
		require(vm->priority >= 1 && vm->priority <= CONFIG_PRIORITY_MAX);
		require(!vm->monitor || vm->monitor[0] == '/');
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input_file file = input_file_make(data, size);
	struct config config = {0};
	char error[512] = "";
	int status = config_load(file.path, true, &config, error, sizeof(error));

	if (status < 0) {
		require(error[0] && memchr(error, '\0', sizeof(error)));
		require(!config.control && !config.vms);
	} else {
		check(&config);
		config_free(&config);
	}
	input_file_close(&file);
	return 0;
}
