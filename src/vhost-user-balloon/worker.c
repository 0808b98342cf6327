// SPDX-License-Identifier: MIT
#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "child.h"
#include "common/log.h"
#include "sandbox.h"
#include "server.h"

/* Large, and mostly never touched (struct vq_chain). */
static struct server server;
static struct server_start start;

/* What ends the program ends the parent, which then tells the worker: also where a service manager
 * or a terminal signals all of a group. */
static void ignore_signals(void)
{
	static const int ignored[] = {SIGPIPE, SIGTERM, SIGINT, SIGHUP};

	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
}

static int prepare(void)
{
	int r = block_map(CHILD_FD_BLOCK, &start.block);

	if (r == -EPROTONOSUPPORT) {
		log_line("this program cannot go on for the one that runs: other state (wants "
			 "version "
			 "%u); restart it",
			 BLOCK_VERSION);
		return r;
	}
	if (!r)
		r = parent_begin(CHILD_FD_CHANNEL, &start.beginning);
	if (r == -ECONNRESET)
		return r; /* the parent is gone, and that is all */
	if (r)
		log_line("the worker cannot begin: %s", strerror(-r));
	start.channel = CHILD_FD_CHANNEL;
	start.held_fd = CHILD_FD_HELD;
	start.hints_fd = CHILD_FD_HINTS;
	return r;
}

/* From here on nothing can be opened, and soon what others have written is looked at. */
static int enter_sandbox(void)
{
	const struct channel_start *told = &start.beginning.start;
	const struct sandbox_options options = {
		.uid = told->uid, .gid = told->gid, .parent = told->parent};
	struct sandbox_report report;
	char text[SANDBOX_TEXT_MAX];
	int r = sandbox_enter(&options, &report);

	if (r == -ESRCH)
		return r; /* the parent is gone, and that is all */
	if (r < 0)
		log_line("sandbox: %s (see --sandbox)",
			 report.lacking ? report.lacking : strerror(-r));
	else if (!told->reason[0])
		log_line("sandbox: %s", sandbox_describe(&report, text, sizeof(text)));
	return r;
}

int worker_run(const struct options *options)
{
	ignore_signals();
	prctl(PR_SET_NAME, "balloon-worker");
	if (prepare() < 0)
		return EXIT_FAILURE;
	if (options->sandbox && enter_sandbox() < 0)
		_exit(EXIT_FAILURE);
	/* Inside: a libuv that tries io_uring is then refused at once, and goes on without. */
	if (server_prepare(&server) < 0 || server_start(&server, options, &start) < 0)
		_exit(EXIT_FAILURE);
	server_run(&server);
	/* Exit handlers may want what is closed to them in there. */
	if (options->sandbox)
		_exit(EXIT_SUCCESS);
	return EXIT_SUCCESS;
}
