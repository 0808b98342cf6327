// SPDX-License-Identifier: MIT
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "statefile.h"

#define INTERVAL_MS 1000U
#define RETRY_MS    10000U

static int open_dir(struct keeper *k, const struct options *options)
{
	int r = statefile_name(options->name, k->name, sizeof(k->name));

	if (r < 0) {
		log_line("--state-dir: the --name is too long for a file");
		return r;
	}
	k->dir = open(options->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = k->dir < 0 ? -errno : 0;
	/* Better now than when there is something to be lost. */
	if (!r && faccessat(k->dir, ".", W_OK, AT_EACCESS) < 0)
		r = -errno;
	if (r)
		log_line("--state-dir: %s: %s", options->state_dir, strerror(-r));
	return r;
}

static int load(struct keeper *k)
{
	int line, r = statefile_load(k->dir, k->name, &k->settings, &line);

	if (r == -EBADMSG) {
		log_line("--state-dir: %s: line %d makes no sense: kept as %s.bad, not used",
			 k->name, line, k->name);
		r = 0;
	} else if (r == -ENOENT) {
		r = 0;
	} else if (r < 0) {
		/* Going on would overwrite it. */
		log_line("--state-dir: %s: %s", k->name, strerror(-r));
	}
	return r;
}

int keeper_init(struct keeper *k, const struct options *options)
{
	struct settings found;
	int r;

	memset(k, 0, sizeof(*k));
	k->dir = -1;
	if (options->state_dir) {
		r = open_dir(k, options);
		if (!r)
			r = load(k);
		if (r)
			return r;
	}
	found = k->settings;
	if (options->target_given) {
		k->settings.target = options->target;
		k->settings.guest_size = 0;
	}
	if (options->push_interval_given)
		k->settings.push_ms = options->push_interval_ms;
	k->dirty = k->dir >= 0 && memcmp(&found, &k->settings, sizeof(found)) != 0;
	return 0;
}

void keeper_changed(struct keeper *k, const struct settings *settings)
{
	if (memcmp(&k->settings, settings, sizeof(*settings)) == 0)
		return;
	k->settings = *settings;
	k->dirty = k->dir >= 0;
	k->retry_ms = 0;
}

static void saved(struct keeper *k, int r, uint64_t now_ms)
{
	if (r == 0) {
		if (k->failing)
			log_line("--state-dir: %s is written again", k->name);
		k->failing = false;
		return;
	}
	/* One line, and another when it is well again. */
	if (!k->failing)
		log_line("--state-dir: cannot write %s: %s; the old one stays, more tries follow",
			 k->name, strerror(-r));
	k->failing = true;
	k->dirty = true;
	k->retry_ms = now_ms + RETRY_MS;
}

static int saver_result(int status)
{
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

void keeper_child(struct keeper *k, uint64_t now_ms)
{
	int status;

	if (!k->saver || waitpid(k->saver, &status, WNOHANG) <= 0)
		return;
	k->saver = 0;
	saved(k, saver_result(status), now_ms);
}

uint64_t keeper_next(const struct keeper *k)
{
	if (!k->dirty || k->saver)
		return UINT64_MAX;
	if (k->begun_ms && k->begun_ms + INTERVAL_MS > k->retry_ms)
		return k->begun_ms + INTERVAL_MS;
	return k->retry_ms;
}

void keeper_tick(struct keeper *k, uint64_t now_ms)
{
	if (now_ms < keeper_next(k))
		return;
	k->dirty = false;
	k->begun_ms = now_ms;
	k->saver = fork();
	if (k->saver == 0)
		_exit(-statefile_save(k->dir, k->name, &k->settings));
	if (k->saver < 0) {
		k->saver = 0;
		saved(k, -errno, now_ms);
	}
}

void keeper_finish(struct keeper *k)
{
	int status;

	if (k->saver && waitpid(k->saver, &status, 0) > 0)
		saved(k, saver_result(status), 0);
	k->saver = 0;
	if (k->dirty)
		saved(k, statefile_save(k->dir, k->name, &k->settings), 0);
	if (k->dir >= 0)
		close(k->dir);
	k->dir = -1;
}
