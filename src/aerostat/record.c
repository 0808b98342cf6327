// SPDX-License-Identifier: MIT
/*
 * record: once a second what guests use. A round of lines is written at once, so the file is whole
 * at any time; an aerostatd that is started anew leaves a gap, and no more.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json_read.h"
#include "record_line.h"
#include "verbs.h"
#include "vm.h"

#define ROUND_MS 1000

struct recording_state {
	int fd;
	uint64_t began_ms, lines, rounds;
	size_t most; /* virtual machines in one round */
	bool lost;   /* aerostatd is away, and that was said */
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	stopped = number;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/* One round: what is fresh. */
static enum status record_round(struct context *ctx, struct recording_state *r)
{
	struct json_object *vms = NULL;
	struct qmp_buf buf = {0};
	enum status status = ask_vms(ctx, NULL, &vms);
	uint64_t now = control_now() - r->began_ms, used, lines = 0;
	char instead[64];
	int ret;

	if (status != STATUS_DONE)
		return status;
	for (size_t i = 0; i < json_object_array_length(vms); i++) {
		struct json_object *vm = json_object_array_get_idx(vms, i);

		if (!vm_fresh(vm, 0, instead, sizeof(instead)) || !json_read_u64(vm, "used", &used))
			continue;
		record_line(&buf, vm_name(vm), now, used);
		lines++;
	}
	json_object_put(vms);
	ret = buf.failed ? -ENOMEM : write_all(r->fd, buf.data, buf.len);
	qmp_buf_free(&buf);
	if (ret < 0) {
		stopped = -1; /* nothing will help: see verb_record() */
		return failure_set(&ctx->failure, STATUS_FAILED, "%s: %s", ctx->o->arguments[0],
				   strerror(-ret));
	}
	r->lines += lines;
	r->rounds++;
	r->most = lines > r->most ? lines : r->most;
	return STATUS_DONE;
}

/* A round, or another attempt to find aerostatd. */
static void try_round(struct context *ctx, struct recording_state *r)
{
	if (!ctx->control)
		ctx->control =
			control_open(ctx->o->control, "aerostatd", ROUND_MS, NULL, &ctx->failure);
	if (ctx->control && record_round(ctx, r) == STATUS_DONE) {
		r->lost = false;
		return;
	}
	if (stopped)
		return;
	if (!r->lost)
		fprintf(stderr, "aerostat: %s; trying again\n", ctx->failure.text);
	r->lost = true;
	control_close(ctx->control);
	ctx->control = NULL;
}

/* The begin of a file that must not be there yet, or be empty. "-": stdout. The fd or -errno. */
static int begin_file(const char *path)
{
	static const char heading[] = "vm,seconds,bytes\n";
	struct stat st;
	int fd = STDOUT_FILENO, ret;

	if (strcmp(path, "-") != 0) {
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
		if (fd < 0)
			return -errno;
		if (fstat(fd, &st) == 0 && st.st_size > 0) {
			close(fd);
			return -EEXIST;
		}
	}
	ret = write_all(fd, heading, strlen(heading));
	return ret < 0 ? ret : fd;
}

static void catch_signals(void)
{
	const struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

static enum status report(struct context *ctx, const struct recording_state *r)
{
	struct json_object *members;
	uint64_t ms = control_now() - r->began_ms;

	if (r->fd == STDOUT_FILENO)
		return STATUS_DONE;
	if (ctx->style.json) {
		members = json_object_new_object();
		qmp_obj_add(&members, "file", json_object_new_string(ctx->o->arguments[0]));
		qmp_obj_add(&members, "duration-ms", json_object_new_uint64(ms));
		qmp_obj_add(&members, "lines", json_object_new_uint64(r->lines));
		qmp_obj_add(&members, "vms", json_object_new_uint64(r->most));
		return print_json(ctx, members);
	}
	fprintf(stderr, "aerostat: recorded %" PRIu64 " lines of %zu guests in %" PRIu64 " s\n",
		r->lines, r->most, ms / 1000);
	return STATUS_DONE;
}

enum status verb_record(struct context *ctx)
{
	struct recording_state r = {.began_ms = control_now()};
	uint64_t end = ctx->o->seconds_ms.is ? r.began_ms + ctx->o->seconds_ms.value : UINT64_MAX;
	enum status status = STATUS_DONE;

	r.fd = begin_file(ctx->o->arguments[0]);
	if (r.fd < 0)
		return failure_set(&ctx->failure, STATUS_FAILED, "%s: %s", ctx->o->arguments[0],
				   r.fd == -EEXIST ? "there is something in it already"
						   : strerror(-r.fd));
	catch_signals();
	for (uint64_t due = r.began_ms; !stopped && control_now() < end;) {
		try_round(ctx, &r);
		for (due += ROUND_MS; !stopped && control_now() < due && control_now() < end;) {
			uint64_t left = (due < end ? due : end) - control_now();

			/* A signal ends the wait. Being lost is found out by the next round. */
			if (!ctx->control ||
			    control_wait(ctx->control, left, &ctx->failure) != STATUS_DONE)
				poll(NULL, 0, left > 100 ? 100 : (int)left);
		}
	}
	if (stopped == -1)
		status = ctx->failure.status;
	if (r.fd != STDOUT_FILENO && close(r.fd) < 0 && status == STATUS_DONE)
		status = failure_set(&ctx->failure, STATUS_FAILED, "%s: %s", ctx->o->arguments[0],
				     strerror(errno));
	return status == STATUS_DONE ? report(ctx, &r) : status;
}
