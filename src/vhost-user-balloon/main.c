// SPDX-License-Identifier: MIT
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/usage.h"
#include "options.h"
#include "supervisor.h"
#include "worker.h"

/* As QEMU's back-end program conventions want it (docs/interop/vhost-user.json there). */
static int print_capabilities(void)
{
	struct json_object *features = json_object_new_array();
	struct json_object *top = json_object_new_object();

	for (const struct feature_name *f = feature_names; f->name; f++) {
		if (f->optional)
			json_object_array_add(features, json_object_new_string(f->name));
	}
	json_object_object_add(top, "type", json_object_new_string("balloon"));
	json_object_object_add(top, "features", features);
	puts(json_object_to_json_string_ext(top, JSON_C_TO_STRING_SPACED));
	json_object_put(top);
	return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	struct options options;
	int r = options_parse(argc, argv, &options);

	if (r < 0)
		return usage_status(r);
	if (options.print_capabilities)
		return print_capabilities();
	log_set_name("vhost-user-balloon", options.name);
	if (options.worker_fd >= 0)
		return worker_run(&options);
	return supervisor_run(&options, argc, argv) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
