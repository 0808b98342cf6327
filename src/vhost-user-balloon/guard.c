// SPDX-License-Identifier: MIT
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "common/clock.h"
#include "common/log.h"

#define PATIENCE_MS  2000U  /* with a worker that was told to go */
#define READY_MS     5000U  /* with one that was started: libseccomp may loop without memory */
#define LONG_LIFE_MS 10000U /* a worker that served so long was good for something */
#define START_TRIES  3U     /* for a new binary, before the old one is taken again */
#define LISTEN_MAX   64     /* datagrams in one go: a worker that never ends gets no more */
#define NEVER        UINT64_MAX

/* --- the worker's life ------------------------------------------------------------------------ */

static void plan_start(struct guard *g, uint64_t now)
{
	g->start_ms = now + child_backoff_ms(g->barren++);
}

static void give_up_new_program(struct guard *g)
{
	if (g->old_program < 0 || g->unready < START_TRIES)
		return;
	log_line("the new program does not get ready: going back to the one before");
	close(g->program);
	g->program = g->old_program;
	g->old_program = -1;
	g->unready = 0;
}

static void start_worker(struct guard *g, uint64_t now)
{
	int r = child_start(&g->child, g->program, g->argv, g->block_fd, g->held_fd, g->hints_fd);

	if (r < 0) {
		log_limited("cannot start a worker: %s", strerror(-r));
		if (!g->ever_ready) {
			g->finished = true;
			g->result = r;
		}
		g->unready++;
		give_up_new_program(g);
		plan_start(g, now);
		return;
	}
	g->state = GUARD_STARTING;
	g->started = g->complete = g->told = g->distrusted = g->dismissed = false;
	g->next = 0;
	g->kill_ms = now + READY_MS;
	g->progress = g->block->progress;
}

/* The worker has been told to go, or will be: it has some time for it. */
static void let_go(struct guard *g)
{
	g->kill_ms = clock_now().mono_ms + PATIENCE_MS;
}

void guard_stop(struct guard *g)
{
	if (!g->stop)
		let_go(g);
	g->stop = true;
}

void guard_kill(struct guard *g)
{
	if (g->child.pid)
		kill(g->child.pid, SIGKILL);
}

/* It says what it must not say, or has closed its end: whatever it is, it is no worker any more. */
static void distrust(struct guard *g, const char *why)
{
	log_limited("the worker %s: it is killed", why);
	g->distrusted = true;
	guard_kill(g);
	close(g->child.channel);
	g->child.channel = -1;
}

static void worker_ready(struct guard *g)
{
	g->state = GUARD_READY;
	g->ready_ms = clock_now().mono_ms;
	if (!g->stop)
		g->kill_ms = NEVER;
	g->unready = 0;
	g->ever_ready = true;
	/* One that is to go already says nothing about the program that comes next. */
	if (g->leave)
		return;
	if (g->old_program >= 0)
		close(g->old_program);
	g->old_program = -1;
}

static void drop_client(struct guard_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->sent = false;
}

static void on_worker_says(struct guard *g, const struct channel_message *m)
{
	const struct monitor_name *gone = &m->u.client;

	switch (m->type) {
	case CHANNEL_READY:
	case CHANNEL_DONE:
	case CHANNEL_STATE:
		if (!g->complete || (m->type == CHANNEL_READY) != (g->state == GUARD_STARTING) ||
		    !vmm_report(g->vmm, m->type, &m->u.report))
			distrust(g, "does not say what it should");
		else if (m->type == CHANNEL_READY)
			worker_ready(g);
		break;
	case CHANNEL_CLIENT_GONE:
		if (g->client[gone->id].serial == gone->serial)
			drop_client(&g->client[gone->id]);
		break;
	case CHANNEL_SETTINGS:
		keeper_changed(g->keeper, &m->u.settings);
		break;
	case CHANNEL_QUIT:
		guard_stop(g);
		break;
	case CHANNEL_START:
	case CHANNEL_SLOTS:
	case CHANNEL_CLIENT:
	case CHANNEL_GO:
	case CHANNEL_EVENT:
	case CHANNEL_LEAVE:
	case CHANNEL_STOP:
	case CHANNEL_TYPE_COUNT:
	default: /* channel_receive() lets none of these through */
		break;
	}
}

void guard_listen(struct guard *g)
{
	struct channel_message m;
	int fds[CHANNEL_FDS_MAX];
	uint32_t n_fds;

	for (int i = 0; i < LISTEN_MAX && g->child.channel >= 0; i++) {
		int r = channel_receive(g->child.channel, CHANNEL_WORKER, &m, fds, &n_fds);

		if (r == -EAGAIN)
			return;
		if (r == -ECONNRESET) {
			/* It dies, and how it dies will be heard of; or it should. */
			if (g->kill_ms == NEVER)
				let_go(g);
			close(g->child.channel);
			g->child.channel = -1;
		} else if (r < 0) {
			distrust(g, "does not say what it should");
		} else {
			on_worker_says(g, &m);
		}
	}
}

/* What is to be known of a death, for its successor and for people. */
static void note_death(struct guard *g, int status)
{
	char how[CHANNEL_REASON_MAX / 2];

	g->fault = !g->leave && !g->stop && (g->distrusted || child_fault(status));
	if (g->leave && (g->dismissed || (WIFEXITED(status) && WEXITSTATUS(status) == 0))) {
		strcpy(g->reason, "replaced by another program");
		return;
	}
	child_describe(status, how, sizeof(how));
	snprintf(g->reason, sizeof(g->reason), "died: %s", how);
	if (!g->stop)
		log_limited("worker %s%s", g->reason,
			    g->state == GUARD_STARTING ? ", before it was ready" : "");
}

/* The event in hand was what it died of. */
static bool of_event(const struct guard *g)
{
	return g->fault && g->block->busy.work == BLOCK_EVENT &&
	       g->block->busy.serial == g->vmm->event.u.event.seq;
}

static void on_worker_death(struct guard *g, int status, uint64_t now)
{
	const char *over;

	guard_listen(g);
	child_forget(&g->child);
	note_death(g, status);
	if (g->stop) {
		g->finished = true;
		if (g->told && child_fault(status)) {
			log_line("worker %s", g->reason);
			g->result = -EIO;
		}
		return;
	}
	if (g->block->progress != g->progress || g->leave ||
	    (g->state == GUARD_READY && now - g->ready_ms >= LONG_LIFE_MS))
		g->barren = 0;
	if (g->state == GUARD_STARTING)
		g->unready++;
	if (g->fault)
		block_blame(g->block);
	over = vmm_worker_gone(g->vmm, of_event(g));
	if (over)
		log_line("VMM dropped: %s", over);
	block_idle(g->block);
	for (uint32_t i = 0; i < CHANNEL_CLIENT_COUNT; i++)
		g->client[i].sent = false;
	g->state = GUARD_NONE;
	g->leave = g->told = false;
	g->kill_ms = NEVER;
	g->restarts++;
	if (!g->ever_ready && g->fault) {
		g->finished = true;
		g->result = -EIO;
	}
	give_up_new_program(g);
	plan_start(g, now);
}

/* --- what goes to the worker ------------------------------------------------------------------ */

static int send_start(struct guard *g)
{
	struct channel_message m = {.type = CHANNEL_START};
	struct channel_start *start = &m.u.start;

	start->restarts = g->restarts;
	start->fault = g->fault;
	start->hints_fd = g->hints_fd;
	start->parent = getpid();
	start->uid = g->uid;
	start->gid = g->gid;
	memcpy(start->reason, g->reason, sizeof(start->reason));
	start->settings = g->keeper->settings;
	return channel_send(g->child.channel, &m, NULL, 0);
}

/* The next descriptors of the front end. 1: all are sent. */
static int send_slots(struct guard *g)
{
	struct channel_message m = {.type = CHANNEL_SLOTS};
	int fds[CHANNEL_FDS_MAX], r;
	uint32_t at = g->next;

	for (; at < CHANNEL_SLOT_COUNT && m.u.slots.n < CHANNEL_FDS_MAX; at++) {
		if (g->vmm->slot[at] < 0)
			continue;
		fds[m.u.slots.n] = g->vmm->slot[at];
		m.u.slots.slot[m.u.slots.n++] = (uint8_t)at;
	}
	if (!m.u.slots.n)
		return 1;
	r = channel_send(g->child.channel, &m, fds, m.u.slots.n);
	if (r == 0)
		g->next = at;
	return r;
}

static int send_clients(struct guard *g)
{
	for (uint32_t i = 0; i < CHANNEL_CLIENT_COUNT; i++) {
		struct guard_client *c = &g->client[i];
		const struct channel_message m = {.type = CHANNEL_CLIENT,
						  .u.client = {.id = i, .serial = c->serial}};
		int r;

		if (c->fd < 0 || c->sent)
			continue;
		r = channel_send(g->child.channel, &m, &c->fd, 1);
		if (r < 0)
			return r;
		c->sent = true;
	}
	return 1;
}

static int send_word(struct guard *g, enum channel_type word)
{
	const struct channel_message m = {.type = word};

	return channel_send(g->child.channel, &m, NULL, 0);
}

static int send_event(struct guard *g)
{
	int fds[VU_FDS_MAX];
	const struct channel_message *m = vmm_due(g->vmm, fds);
	int r;

	if (!m)
		return 1;
	r = channel_send(g->child.channel, m, fds, m->u.event.n_slots);
	if (r == 0)
		vmm_was_sent(g->vmm);
	return r;
}

/* What a worker that has just been started must have before it can begin. 1: it has all. */
static int send_beginning(struct guard *g)
{
	int r = 1;

	if (!g->started) {
		r = send_start(g);
		g->started = r == 0;
	}
	while (r >= 0 && g->next < CHANNEL_SLOT_COUNT) {
		r = send_slots(g);
		if (r == 1)
			g->next = CHANNEL_SLOT_COUNT;
	}
	if (r >= 0)
		r = send_clients(g);
	if (r >= 0 && !g->complete) {
		r = send_word(g, CHANNEL_GO);
		g->complete = r == 0;
	}
	return r < 0 ? r : 1;
}

int guard_talk(struct guard *g)
{
	int r = 1;

	if (g->child.channel < 0)
		return 0;
	if (!g->complete)
		r = send_beginning(g);
	if (r < 0 || g->state != GUARD_READY)
		return r < 0 ? r : 0;
	if (g->leave || g->stop) {
		if (g->told)
			return 0;
		r = send_word(g, g->stop ? CHANNEL_STOP : CHANNEL_LEAVE);
		g->told = r == 0;
		return r;
	}
	r = send_clients(g);
	if (r >= 0)
		r = send_event(g);
	return r < 0 ? r : 0;
}

/* --- for the parent -------------------------------------------------------------------------- */

void guard_child(struct guard *g, uint64_t now)
{
	int status;

	if (g->child.pid && waitpid(g->child.pid, &status, WNOHANG) > 0)
		on_worker_death(g, status, now);
}

void guard_tick(struct guard *g, uint64_t now)
{
	if (now >= g->kill_ms) {
		bool late = g->state == GUARD_STARTING && !g->stop;

		log_line("the worker does not %s: it is killed", late ? "get ready" : "go");
		g->distrusted |= late;
		if (late)
			g->unready = START_TRIES - 1; /* the guest waits: no second try */
		guard_kill(g);
		g->kill_ms = NEVER;
	}
	if (g->state != GUARD_NONE || g->finished)
		return;
	if (g->stop)
		g->finished = true;
	else if (now >= g->start_ms)
		start_worker(g, now);
}

uint64_t guard_next(const struct guard *g)
{
	return g->state == GUARD_NONE ? min_u64(g->start_ms, g->kill_ms) : g->kill_ms;
}

int guard_add_client(struct guard *g, int fd)
{
	for (uint32_t i = 0; i < CHANNEL_CLIENT_COUNT; i++) {
		struct guard_client *c = &g->client[i];

		if (c->fd >= 0)
			continue;
		c->fd = fd;
		c->serial = ++g->last_client;
		c->sent = false;
		return 0;
	}
	close(fd);
	return -ENOSPC;
}

void guard_upgrade(struct guard *g)
{
	int program;

	if (g->stop)
		return;
	program = child_open(g->path);
	if (program < 0) {
		log_line("SIGHUP: %s: %s; the worker stays", g->path, strerror(-program));
		return;
	}
	if (g->old_program >= 0)
		close(g->program); /* it was never ready */
	else
		g->old_program = g->program;
	g->program = program;
	g->unready = 0;
	if (g->leave)
		return; /* the worker that goes makes room for this one */
	log_line("SIGHUP: the worker is replaced");
	g->leave = true;
	g->dismissed = g->state == GUARD_STARTING;
	if (g->state == GUARD_STARTING)
		guard_kill(g);
	else if (g->state == GUARD_READY)
		let_go(g);
	else
		g->leave = false; /* the next one is of that binary anyway */
}

static int fail(const char *what, int err)
{
	log_line("%s: %s", what, strerror(-err));
	return err;
}

/* The worker's command line: this program's own, and which descriptor it is to listen to. */
static int make_arguments(struct guard *g, int argc, char **argv)
{
	static char worker[] = "--worker=3";

	static_assert(CHILD_FD_CHANNEL == 3, "where a worker finds its channel");
	g->argv = calloc((size_t)argc + 2, sizeof(g->argv[0]));
	if (!g->argv)
		return fail("cannot start", -ENOMEM);
	g->argv[0] = argv[0];
	g->argv[1] = worker;
	for (int i = 1; i < argc; i++)
		g->argv[i + 1] = argv[i];
	return 0;
}

static int open_program(struct guard *g)
{
	int r = child_own_path(g->path, sizeof(g->path));

	/* What runs, not what is at that place by now. */
	g->program = r < 0 ? r : child_open("/proc/self/exe");
	return g->program < 0 ? fail("cannot find this program (is /proc there?)", g->program) : 0;
}

static int moved(int fd)
{
	return fd < 0 ? fd : child_move_fd(fd);
}

static int create_files(struct guard *g)
{
	int r;

	g->block_fd = moved(block_create());
	g->held_fd = moved(block_create_file("aerostat-held", BLOCK_HELD_PARTS * BLOCK_HELD_BYTES));
	g->hints_fd = moved(block_create_file("aerostat-hints", BLOCK_HINTS_BYTES));
	r = g->block_fd < 0 ? g->block_fd : g->held_fd < 0 ? g->held_fd : g->hints_fd;
	if (r >= 0)
		r = block_map(g->block_fd, &g->block);
	return r < 0 ? fail("cannot make the shared memory", r) : 0;
}

/*
 * Who the worker shall be. Looking it up leaves half a megabyte of libraries and caches behind: in
 * a process that ends.
 */
static void find_account(struct guard *g)
{
	uint32_t found[2] = {g->uid, g->gid};
	int pipe_fds[2];
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return;
	pid = fork();
	if (pid == 0) {
		sandbox_account(&found[0], &found[1]);
		_exit(write(pipe_fds[1], found, sizeof(found)) != sizeof(found));
	}
	close(pipe_fds[1]);
	if (pid > 0 && read(pipe_fds[0], found, sizeof(found)) == sizeof(found)) {
		g->uid = found[0];
		g->gid = found[1];
	}
	close(pipe_fds[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

int guard_init(struct guard *g, struct vmm *vmm, struct keeper *keeper,
	       const struct options *options, int argc, char **argv)
{
	int r;

	memset(g, 0, sizeof(*g));
	g->vmm = vmm;
	g->keeper = keeper;
	g->block_fd = g->held_fd = g->hints_fd = g->program = g->old_program = -1;
	g->child.channel = -1;
	g->kill_ms = NEVER;
	g->uid = SANDBOX_NO_UID;
	g->gid = SANDBOX_NO_GID;
	if (options->sandbox && geteuid() == 0)
		find_account(g);
	for (uint32_t i = 0; i < CHANNEL_CLIENT_COUNT; i++)
		g->client[i].fd = -1;
	r = make_arguments(g, argc, argv);
	if (!r)
		r = open_program(g);
	if (!r)
		r = create_files(g);
	return r;
}

void guard_close(struct guard *g)
{
	const int fds[] = {g->block_fd, g->held_fd, g->hints_fd, g->program, g->old_program};

	if (g->child.pid) {
		guard_kill(g);
		waitpid(g->child.pid, NULL, 0);
	}
	child_forget(&g->child);
	for (uint32_t i = 0; i < CHANNEL_CLIENT_COUNT; i++)
		drop_client(&g->client[i]);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	if (g->block)
		block_unmap(g->block);
	free(g->argv);
}
