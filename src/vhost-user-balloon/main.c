// SPDX-License-Identifier: MIT
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "options.h"
#include "server.h"
#include "unix_socket.h"

/* Large, and mostly never touched (struct vq_chain). */
static struct server server;

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

static void on_signal(uv_signal_t *handle, int sig)
{
	(void)sig;
	server_quit(handle->data);
}

static int listen_on(const char *option, const char *path)
{
	int fd = unix_socket_listen(path);

	if (fd == -EADDRINUSE)
		log_line("%s: %s: in use by another process", option, path);
	else if (fd == -EEXIST)
		log_line("%s: %s: exists and is no socket", option, path);
	else if (fd < 0)
		log_line("%s: %s: %s", option, path, strerror(-fd));
	return fd;
}

static int serve(const struct options *options)
{
	uv_signal_t signals[3];
	const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
	int vhost_fd = options->fd, qmp_fd = -1, r;

	if (options->socket_path)
		vhost_fd = listen_on("--socket-path", options->socket_path);
	if (vhost_fd < 0)
		return -EINVAL;
	if (options->qmp_path) {
		qmp_fd = listen_on("--qmp", options->qmp_path);
		if (qmp_fd < 0) {
			r = -EINVAL;
			goto out;
		}
	}
	r = server_start(&server, options, vhost_fd, qmp_fd);
	if (r < 0)
		goto out;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		uv_signal_init(&server.loop, &signals[i]);
		signals[i].data = &server;
		uv_signal_start(&signals[i], on_signal, numbers[i]);
	}
	server_run(&server);
out:
	if (qmp_fd >= 0)
		unlink(options->qmp_path);
	if (options->socket_path)
		unlink(options->socket_path);
	return r;
}

int main(int argc, char **argv)
{
	struct options options;

	if (options_parse(argc, argv, &options) < 0)
		return EXIT_FAILURE;
	if (options.print_capabilities)
		return print_capabilities();
	log_set_name(options.name);
	signal(SIGPIPE, SIG_IGN);
	return serve(&options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
