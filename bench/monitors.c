// SPDX-License-Identifier: MIT
/*
 * The monitors of many virtual machines, for a manager to be measured with:
 *
 *     monitors DIRECTORY N KIND CONTROL SETTLE-MS RUN-MS
 *
 * DIRECTORY gets the sockets of N monitors, vm0000.qmp and so on, behind which there are no guests
 * but figures that move as those of guests do, each machine's at a time of its own within the
 * second. KIND is `aerostat`: they push their statistics each second, as our device does; or
 * `qemu`: they have them to be asked for, as QEMU has. CONTROL is the manager's control socket.
 *
 * It says `listening`; when the manager has reached all and set them up, and SETTLE-MS are over,
 * `begin`; after RUN-MS `end`, and lines NAME P50 P99 MOST COUNT with times in microseconds,
 * counted from just before the monitor wrote an event to its socket:
 *
 *     pressure-target   GUEST_PRESSURE, until the command `balloon` with more was read here
 *     pressure-event    GUEST_PRESSURE, until PRESSURE of that machine was read from CONTROL
 *     stats-target      BALLOON with one more process killed, until the command `balloon` was read
 *     stats-event       the same, until VERDICT_CHANGE was read from CONTROL
 *
 * and then lines `statistics COUNT`, how many were sent or asked for, `targets COUNT`, how many
 * were set, and `lost COUNT`, what was waited for in vain. Only machines that were told to keep
 * less than they have are in need. There may be none when there are few machines; each of FEW or
 * less is therefore pinned to half of what it has, through CONTROL, and let go just before, and its
 * guest begins anew before that. No kills are told of these, and PRESSURE is not waited for.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_read.h"
#include "common/qmp_link.h"
#include "machine.h"
#include "qmp/json.h"

#define FEW          16
#define PERIOD_MS    1000 /* of statistics */
#define TICK_MS      1
#define EVENT_MS     10 /* from one event that is measured to the next */
#define EVENT_FEW_MS 50
#define PATIENCE_US  1000000U /* what has not come by then is lost */
#define SETTING_MS   60000    /* the manager is to have reached all by then */
#define SAMPLES_MAX  100000
#define LEAST_ROOM   (MACHINE_SIZE / 10) /* that one in need has in its balloon */

enum what { PRESSURE_TARGET, PRESSURE_EVENT, STATS_TARGET, STATS_EVENT, WHAT_COUNT };

static const char *const what_names[] = {
	[PRESSURE_TARGET] = "pressure-target",
	[PRESSURE_EVENT] = "pressure-event",
	[STATS_TARGET] = "stats-target",
	[STATS_EVENT] = "stats-event",
};
static_assert(sizeof(what_names) / sizeof(what_names[0]) == WHAT_COUNT, "all");
static_assert(sizeof(((struct machine *)0)->waits) / sizeof(uint64_t) == WHAT_COUNT, "all");

static struct {
	uv_loop_t *loop;
	struct machine *machines;
	uint32_t n;
	bool ours;
	struct qmp_link *control;
	uv_timer_t tick;
	uint64_t start_ms, settle_ms, run_ms, begin_ms, event_ms;
	uint32_t next; /* whose turn it is for an event */
	bool odd, served, running;
	bool pinning;     /* one of FEW is being pinned or let go */
	uint64_t done_ms; /* up to when statistics were sent */
	uint64_t statistics, targets, lost;
	uint32_t *samples[WHAT_COUNT];
	size_t n_samples[WHAT_COUNT];
} bench;

/* --- what is measured ------------------------------------------------------------------------- */

static void wait_for(struct machine *m, enum what what)
{
	m->waits[what] = uv_hrtime();
}

static void came(struct machine *m, enum what what)
{
	uint64_t since = m->waits[what];

	m->waits[what] = 0;
	if (since && bench.running && bench.n_samples[what] < SAMPLES_MAX)
		bench.samples[what][bench.n_samples[what]++] =
			(uint32_t)((uv_hrtime() - since) / 1000);
}

/* What was waited for in vain is over. True: nothing is waited for. */
static bool is_free(struct machine *m)
{
	bool waits = false;

	for (enum what i = 0; i < WHAT_COUNT; i++) {
		if (!m->waits[i])
			continue;
		waits = true;
		if ((uv_hrtime() - m->waits[i]) / 1000 > PATIENCE_US) {
			m->waits[i] = 0;
			bench.lost += bench.running;
		}
	}
	return !waits;
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void report(enum what what)
{
	uint32_t *samples = bench.samples[what];
	size_t n = bench.n_samples[what];

	if (n == 0)
		return;
	qsort(samples, n, sizeof(*samples), compare);
	printf("%s %u %u %u %zu\n", what_names[what], samples[n / 2], samples[n * 99 / 100],
	       samples[n - 1], n);
}

static void on_asked(struct machine *m)
{
	bench.statistics += !m->ours;
}

static void on_target(struct machine *m, uint64_t keep)
{
	bench.targets += bench.running;
	if (keep > m->keeps) {
		came(m, PRESSURE_TARGET);
		came(m, STATS_TARGET);
	}
}

/* --- the manager's control monitor ------------------------------------------------------------ */

static void on_ready(void *opaque, struct json_object *greeting)
{
	(void)opaque;
	(void)greeting;
}

static void on_lost(void *opaque, int error, const char *why)
{
	(void)opaque;
	(void)error;
	fprintf(stderr, "monitors: the control monitor: %s\n", why);
	exit(1);
}

static void on_event(void *opaque, const struct qmp_client_event *event)
{
	const char *name = json_read_str(event->data, "name");
	unsigned long number;

	(void)opaque;
	if (!name || strncmp(name, "vm", 2) != 0)
		return;
	number = strtoul(name + 2, NULL, 10);
	if (number >= bench.n)
		return;
	if (strcmp(event->name, "PRESSURE") == 0)
		came(&bench.machines[number], PRESSURE_EVENT);
	else if (strcmp(event->name, "VERDICT_CHANGE") == 0)
		came(&bench.machines[number], STATS_EVENT);
}

static const struct qmp_client_ops control_ops = {on_ready, on_event, on_lost};

static void open_control(const char *path)
{
	static const struct qmp_limits limits = {.bytes = 1024 * 1024, .tokens = 64 * 1024};

	bench.control = qmp_link_connect(bench.loop, path, SETTING_MS, &limits, &control_ops, NULL);
	if (!bench.control)
		on_lost(NULL, -ENOMEM, "out of memory");
}

/* --- events ----------------------------------------------------------------------------------- */

/* With one that was killed, if that is due. */
static void send_statistics(struct machine *m)
{
	if (m->kill_due) {
		m->kill_due = false;
		m->kills++;
		wait_for(m, STATS_TARGET);
		wait_for(m, STATS_EVENT);
	}
	bench.statistics += machine_send_statistics(m);
}

static void send_pressure(struct machine *m)
{
	wait_for(m, PRESSURE_TARGET);
	/* Of a machine that is in need all the time not every event is told. */
	if (bench.n > FEW)
		wait_for(m, PRESSURE_EVENT);
	machine_send_pressure(m);
}

/* One machine that was told to keep less than it has, if there is any, is in need. */
static void send_event(void)
{
	for (uint32_t i = 0; i < bench.n; i++) {
		struct machine *m = &bench.machines[bench.next];

		bench.next = (bench.next + 1) % bench.n;
		if (!is_free(m) || m->kill_due || m->keeps > MACHINE_SIZE - LEAST_ROOM)
			continue;
		if (bench.odd)
			m->kill_due = true;
		else
			send_pressure(m);
		bench.odd = !bench.odd;
		return;
	}
}

static void bound(struct machine *m, uint64_t floor, uint64_t ceiling, qmp_client_done *done)
{
	struct json_object *args = json_object_new_object();
	char name[16];

	snprintf(name, sizeof(name), "vm%04u", m->number);
	qmp_obj_add(&args, "name", json_object_new_string(name));
	qmp_obj_add(&args, "floor", json_object_new_uint64(floor));
	qmp_obj_add(&args, "ceiling", json_object_new_uint64(ceiling));
	if (qmp_link_execute(bench.control, "set-vm", args, SETTING_MS, done, m) < 0)
		on_lost(NULL, -EPROTO, "it takes no command");
}

static void on_let_go(void *opaque, const struct qmp_answer *answer)
{
	struct machine *m = opaque;

	bench.pinning = false;
	if (answer->kind == QMP_ANSWER_RETURN && m->keeps <= MACHINE_SIZE - LEAST_ROOM)
		send_pressure(m);
}

static void on_pinned(void *opaque, const struct qmp_answer *answer)
{
	(void)answer;
	bound(opaque, MACHINE_SIZE / 4, MACHINE_SIZE, on_let_go);
}

static void send_event_to_few(void)
{
	struct machine *m = &bench.machines[bench.next];

	if (bench.pinning || !is_free(m))
		return;
	/* Every other time: the manager is to forget the last emergency. */
	bench.odd = !bench.odd;
	if (bench.odd) {
		machine_send_reset(m);
		send_statistics(m);
		return;
	}
	bench.next = (bench.next + 1) % bench.n;
	bench.pinning = true;
	bound(m, MACHINE_SIZE / 2, MACHINE_SIZE / 2, on_pinned);
}

/* --- time ------------------------------------------------------------------------------------- */

/* Each machine's statistics have their own millisecond of the second. */
static void send_due(uint64_t now_ms)
{
	if (now_ms - bench.done_ms > PERIOD_MS)
		bench.done_ms = now_ms - PERIOD_MS;
	for (; bench.done_ms < now_ms; bench.done_ms++) {
		uint64_t at = (bench.done_ms + 1) % PERIOD_MS;
		uint64_t from = (at * bench.n + PERIOD_MS - 1) / PERIOD_MS;
		uint64_t to = ((at + 1) * bench.n + PERIOD_MS - 1) / PERIOD_MS;

		for (uint64_t i = from; i < to && i < bench.n; i++)
			send_statistics(&bench.machines[i]);
	}
}

static void finish(void)
{
	puts("end");
	for (enum what i = 0; i < WHAT_COUNT; i++)
		report(i);
	printf("statistics %llu\ntargets %llu\nlost %llu\n", (unsigned long long)bench.statistics,
	       (unsigned long long)bench.targets, (unsigned long long)bench.lost);
	fflush(stdout);
	exit(0);
}

/* False: not all machines are served yet. */
static bool look_for_manager(uint64_t now_ms)
{
	if (bench.served)
		return true;
	for (uint32_t i = 0; i < bench.n; i++) {
		if (bench.machines[i].served)
			continue;
		if (now_ms - bench.start_ms > SETTING_MS) {
			fputs("monitors: the manager does not reach all\n", stderr);
			exit(1);
		}
		return false;
	}
	bench.served = true;
	bench.begin_ms = now_ms + bench.settle_ms;
	return true;
}

static void on_tick(uv_timer_t *timer)
{
	uint64_t now_ms = uv_hrtime() / 1000000;
	bool few = bench.n <= FEW;

	(void)timer;
	send_due(now_ms);
	if (!look_for_manager(now_ms))
		return;
	if (!bench.running && now_ms >= bench.begin_ms) {
		bench.running = true;
		bench.statistics = 0;
		puts("begin");
		fflush(stdout);
	}
	if (bench.running && now_ms >= bench.begin_ms + bench.run_ms)
		finish();
	if (!bench.ours || now_ms < bench.event_ms)
		return;
	bench.event_ms = now_ms + (few ? EVENT_FEW_MS : EVENT_MS);
	if (few)
		send_event_to_few();
	else
		send_event();
}

/* --- beginning -------------------------------------------------------------------------------- */

static bool prepare(const char *directory)
{
	static const struct machine_ops ops = {on_asked, on_target};

	bench.loop = uv_default_loop();
	bench.start_ms = bench.done_ms = uv_hrtime() / 1000000;
	bench.machines = calloc(bench.n, sizeof(*bench.machines));
	if (!bench.machines)
		return false;
	for (enum what i = 0; i < WHAT_COUNT; i++) {
		bench.samples[i] = calloc(SAMPLES_MAX, sizeof(*bench.samples[i]));
		if (!bench.samples[i])
			return false;
	}
	for (uint32_t i = 0; i < bench.n; i++)
		machine_start(&bench.machines[i], bench.loop, directory, i, bench.ours, &ops);
	return true;
}

int main(int argc, char **argv)
{
	if (argc != 7) {
		fputs("usage: monitors DIRECTORY N KIND CONTROL SETTLE-MS RUN-MS\n", stderr);
		return 2;
	}
	bench.n = (uint32_t)strtoul(argv[2], NULL, 10);
	bench.ours = strcmp(argv[3], "aerostat") == 0;
	bench.settle_ms = strtoull(argv[5], NULL, 10);
	bench.run_ms = strtoull(argv[6], NULL, 10);
	if (bench.n == 0 || !prepare(argv[1])) {
		fputs("monitors: no machines, or out of memory\n", stderr);
		return 1;
	}
	open_control(argv[4]);
	puts("listening");
	fflush(stdout);
	uv_timer_init(bench.loop, &bench.tick);
	uv_timer_start(&bench.tick, on_tick, TICK_MS, TICK_MS);
	return uv_run(bench.loop, UV_RUN_DEFAULT);
}
