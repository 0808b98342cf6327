// SPDX-License-Identifier: MIT
/*
 * When the state is committed: before each used buffer is shown to the guest (balloon_ops.commit),
 * before anything is told to a monitor client, after each event of the front end and before its
 * DONE, and otherwise before the loop waits. In the middle of an event, session and rings may not
 * fit together: then only the first of these commits, and all of it.
 */
#include "server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "commands.h"
#include "common/clock.h"
#include "common/log.h"
#include "qmp/json.h"
#include "save.h"

#define CHANGE_INTERVAL_MS 1000 /* between two BALLOON_CHANGE */
#define LEAVE_LOOK_MS      5    /* how often, */
#define LEAVE_LOOKS        20   /* and how many times, a worker that leaves looks after clients */
#define PAGE_SHIFT         VIRTIO_BALLOON_PFN_SHIFT

/* --- what is due ------------------------------------------------------------------------------ */

static void on_tick(uv_timer_t *timer);

/* Sets the timer to what is due next. */
static void schedule(struct server *s)
{
	uint64_t due = min_u64(balloon_next_tick(&s->balloon), control_next(&s->control));
	uint64_t now = clock_now().mono_ms;

	if (s->change_due)
		due = min_u64(due, s->change_after_ms);
	for (struct stats_waiter *w = s->waiters; w; w = w->next)
		due = min_u64(due, w->deadline_ms);
	if (due == UINT64_MAX)
		uv_timer_stop(&s->tick);
	else
		uv_timer_start(&s->tick, on_tick, due > now ? due - now : 0, 0);
}

/* What a cold start shall find. */
static void gather_settings(struct server *s)
{
	const struct balloon_state *st = &s->balloon.st;
	uint64_t pages = min_u64(st->wanted_pages, UINT64_MAX >> PAGE_SHIFT);

	s->settings.target = pages << PAGE_SHIFT;
	if (!s->guest_size_pending)
		s->settings.guest_size = 0;
	s->settings.poll_ms = st->poll_interval_ms;
	s->settings.push_ms = st->push_interval_ms;
	if (memcmp(&s->settings, &s->told_settings, sizeof(s->settings)) == 0)
		return;
	s->told_settings = s->settings;
	s->cold_changed = true;
	parent_tell_settings(&s->parent, &s->settings);
}

/* After anything that may have changed how the guest does. */
static void check_guest(struct server *s)
{
	s->dirty = true;
	control_check(&s->control, frontend_connected(&s->frontend), clock_now());
}

/* Something has happened: sees what follows from it, and saves it. */
static void settle(struct server *s)
{
	check_guest(s);
	s->dirty = false;
	hintfile_update(&s->frontend.reclaim.hints, &s->balloon);
	gather_settings(s);
	schedule(s);
	save_commit(s);
	if (s->released)
		parent_tell_state(&s->parent);
	s->released = false;
}

static void on_settle(uv_prepare_t *prepare)
{
	struct server *s = prepare->data;

	if (s->dirty)
		settle(s);
}

/* Ends the waiters whose time has come, or all of them when fresh figures are there. */
static void end_waiters(struct server *s, bool fresh, uint64_t now_ms)
{
	struct stats_waiter **at = &s->waiters;

	while (*at) {
		struct stats_waiter *w = *at;

		if (!fresh && now_ms < w->deadline_ms) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->done(w, fresh);
	}
}

/* At most one a second, and the last change is never left out. */
static void tell_change(struct server *s, struct instant now)
{
	struct json_object *data = NULL;
	uint64_t bytes;

	if (now.mono_ms < s->change_after_ms)
		return;
	s->change_due = false;
	s->change_after_ms = now.mono_ms + CHANGE_INTERVAL_MS;
	if (server_guest_size(s, &bytes) < 0)
		return;
	data = json_object_new_object();
	qmp_obj_add(&data, "actual", json_object_new_uint64(bytes));
	monitor_event(&s->monitor, EVENT_BALLOON_CHANGE, data, now);
}

static void on_tick(uv_timer_t *timer)
{
	struct server *s = timer->data;
	struct instant now = clock_now();

	frontend_run_rings(&s->frontend, balloon_tick(&s->balloon, now));
	frontend_check_memory(&s->frontend);
	if (s->change_due)
		tell_change(s, now);
	end_waiters(s, false, now.mono_ms);
	s->dirty = true;
}

/* --- the balloon ------------------------------------------------------------------------------ */

static uint64_t on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	struct server *s = opaque;

	return reclaim_discard(&s->frontend.reclaim, ranges, n);
}

static void on_config_changed(void *opaque)
{
	struct server *s = opaque;

	frontend_config_changed(&s->frontend, !s->commanded);
}

static void on_notify(void *opaque, uint32_t queue)
{
	struct server *s = opaque;

	frontend_notify(&s->frontend, queue);
}

static void on_queue_broken(void *opaque, uint32_t queue)
{
	struct server *s = opaque;

	frontend_queue_broken(&s->frontend, queue);
}

static void on_balloon_event(void *opaque, enum balloon_event event)
{
	struct server *s = opaque;
	struct instant now = clock_now();
	uint64_t bytes = UINT64_MAX;

	s->dirty = true;
	switch (event) {
	case BALLOON_EVENT_ACTUAL:
		s->change_due = true;
		tell_change(s, now);
		break;
	case BALLOON_EVENT_PRESSURE:
		monitor_event(&s->monitor, EVENT_GUEST_PRESSURE,
			      commands_pressure_event(&s->balloon), now);
		break;
	case BALLOON_EVENT_HINT:
		monitor_event(&s->monitor, EVENT_FREE_PAGE_HINT, commands_hint(&s->balloon), now);
		break;
	case BALLOON_EVENT_STATS:
	default:
		(void)server_guest_size(s, &bytes);
		monitor_event(&s->monitor, EVENT_BALLOON,
			      commands_stats_event(&s->balloon.st.stats, bytes, now), now);
		end_waiters(s, true, now.mono_ms);
		break;
	}
}

/* The data path's commit. */
static void on_commit(void *opaque)
{
	struct server *s = opaque;
	struct block_busy *busy = &s->block->busy;

	if (s->frontend.changing)
		s->cold_changed = true;
	save_commit(s);
	s->block->progress++;
	/* From here on it is the next buffer that one may die of. */
	if (busy->work == BLOCK_RING)
		busy->serial = frontend_served(&s->frontend, busy->index);
}

static const struct balloon_ops balloon_ops = {
	.discard = on_discard,
	.config_changed = on_config_changed,
	.notify = on_notify,
	.queue_broken = on_queue_broken,
	.event = on_balloon_event,
	.commit = on_commit,
};

static void on_touched(void *opaque)
{
	struct server *s = opaque;

	frontend_check_memory(&s->frontend);
	s->cold_changed = true; /* settings are there */
	check_guest(s);
}

static void on_health_changed(void *opaque)
{
	struct server *s = opaque;
	struct instant now = clock_now();

	monitor_event(&s->monitor, EVENT_GUEST_HEALTH_CHANGE,
		      commands_health(&s->control.health, now), now);
}

static const struct control_ops control_ops = {
	.touched = on_touched,
	.health_changed = on_health_changed,
};

/* --- the front end ---------------------------------------------------------------------------- */

static void on_connected(void *opaque)
{
	struct server *s = opaque;

	log_limited("VMM connected");
	monitor_event(&s->monitor, EVENT_VMM_CONNECTED, NULL, clock_now());
}

static void on_disconnected(void *opaque, const char *reason)
{
	struct server *s = opaque;
	struct json_object *data = json_object_new_object();

	log_limited("VMM disconnected: %s", reason);
	qmp_obj_add(&data, "reason", json_object_new_string(reason));
	monitor_event(&s->monitor, EVENT_VMM_DISCONNECTED, data, clock_now());
}

/* Front ends share memory piece by piece: all of it is there when the driver begins to work. */
static void on_guest_changed(void *opaque)
{
	struct server *s = opaque;

	s->dirty = true;
	if (!balloon_driver_active(&s->balloon))
		return;
	if (s->guest_size_pending)
		server_set_guest_size(s, s->settings.guest_size);
	else
		balloon_update_target(&s->balloon);
}

static void on_frontend_touched(void *opaque)
{
	struct server *s = opaque;

	s->dirty = true;
}

static void on_released(void *opaque)
{
	struct server *s = opaque;

	s->dirty = s->cold_changed = s->released = true;
}

static const struct frontend_ops frontend_ops = {
	.connected = on_connected,
	.disconnected = on_disconnected,
	.guest_changed = on_guest_changed,
	.touched = on_frontend_touched,
	.released = on_released,
};

/* --- the monitor ------------------------------------------------------------------------------ */

static void on_telling(void *opaque)
{
	struct server *s = opaque;

	/*
	 * Within an event or a turn of a ring these can only be the monitor's events, of what may
	 * still be done again: nobody relies on them. What is half done must not be saved.
	 */
	if (s->frontend.changing || s->block->busy.work != BLOCK_IDLE)
		return;
	gather_settings(s);
	save_commit(s);
}

static void on_client_gone(void *opaque, const struct monitor_name *client)
{
	struct server *s = opaque;

	parent_tell_gone(&s->parent, client);
}

static const struct monitor_ops monitor_ops = {
	.telling = on_telling,
	.gone = on_client_gone,
};

void server_set_guest_size(struct server *s, uint64_t bytes)
{
	uint64_t total;

	s->dirty = s->cold_changed = true;
	s->guest_size_pending = !balloon_driver_active(&s->balloon);
	s->settings.guest_size = bytes;
	if (s->guest_size_pending)
		return;
	total = guest_mem_total(s->balloon.mem);
	s->commanded = true;
	balloon_set_target(&s->balloon, (total - min_u64(bytes, total)) >> PAGE_SHIFT);
	s->commanded = false;
}

int server_guest_size(const struct server *s, uint64_t *bytes)
{
	uint64_t total;

	if (!balloon_driver_active(&s->balloon))
		return -ENODEV;
	total = guest_mem_total(s->balloon.mem);
	*bytes = total - balloon_actual_bytes(&s->balloon, total);
	return 0;
}

int server_request_stats(struct server *s, struct stats_waiter *waiter)
{
	int r = balloon_request_stats(&s->balloon);

	frontend_check_memory(&s->frontend);
	if (r < 0)
		return r;
	if (waiter) {
		waiter->deadline_ms = clock_now().mono_ms + STATS_TIMEOUT_MS;
		waiter->next = s->waiters;
		s->waiters = waiter;
	}
	check_guest(s);
	return 0;
}

void server_set_poll_interval(struct server *s, uint64_t interval_ms)
{
	balloon_set_poll_interval(&s->balloon, interval_ms, clock_now());
	frontend_check_memory(&s->frontend);
	check_guest(s);
}

/* --- the parent ------------------------------------------------------------------------------- */

static void on_state(void *opaque, struct channel_report *report)
{
	const struct server *s = opaque;

	report->handled = s->handled;
	report->session = s->frontend.connection;
	frontend_slots(&s->frontend, report->in_use);
	report->reply_len = s->reply_len;
	memcpy(report->reply, s->reply, s->reply_len);
}

static void on_event(void *opaque, const struct channel_event *event, struct channel_report *report)
{
	struct server *s = opaque;

	/* What has been done before must not be found half done with this. */
	if (s->dirty)
		settle(s);
	frontend_event(&s->frontend, event, s->reply, &s->reply_len);
	s->handled = event->seq;
	s->cold_changed = true;
	s->released = false; /* the report says it */
	s->block->progress++;
	settle(s);
	on_state(s, report);
}

static void on_client(void *opaque, const struct monitor_name *client, int fd)
{
	struct server *s = opaque;

	monitor_add_client(&s->monitor, client, fd);
}

static void on_leave_look(uv_timer_t *timer)
{
	struct server *s = timer->data;

	if (!monitor_busy(&s->monitor) || ++s->leave_looks >= LEAVE_LOOKS)
		uv_stop(&s->loop);
}

static void on_leave(void *opaque)
{
	struct server *s = opaque;

	s->leaving = true;
	uv_timer_start(&s->leave, on_leave_look, 0, LEAVE_LOOK_MS);
}

static void on_stop(void *opaque)
{
	struct server *s = opaque;

	s->leaving = false;
	uv_stop(&s->loop);
}

static const struct parent_ops parent_ops = {
	.event = on_event,
	.state = on_state,
	.client = on_client,
	.leave = on_leave,
	.stop = on_stop,
};

void server_quit(struct server *s)
{
	parent_tell_quit(&s->parent);
}

/* --- beginning and end ------------------------------------------------------------------------ */

int server_prepare(struct server *s)
{
	int r = uv_loop_init(&s->loop);

	if (r < 0) {
		log_line("cannot make an event loop: %s", uv_strerror(r));
		return r;
	}
	uv_timer_init(&s->loop, &s->tick);
	uv_timer_init(&s->loop, &s->leave);
	uv_prepare_init(&s->loop, &s->settle);
	s->tick.data = s->leave.data = s->settle.data = s;
	uv_prepare_start(&s->settle, on_settle);
	return 0;
}

/* Nobody went before: what the operator has set the last time, or on the command line. */
static void start_cold(struct server *s)
{
	balloon_set_target(&s->balloon, s->settings.target >> PAGE_SHIFT);
	if (s->settings.guest_size)
		server_set_guest_size(s, s->settings.guest_size);
	balloon_set_poll_interval(&s->balloon, s->settings.poll_ms, clock_now());
}

/* Tells clients that another worker went on, once they are there. */
static void tell_restart(struct server *s, const struct channel_start *start, int restored)
{
	struct instant now = clock_now();

	if (restored < 0 && restored != -ENODATA)
		on_disconnected(s, s->frontend.reason);
	if (start->restarts)
		monitor_event(&s->monitor, EVENT_DEVICE_RESTARTED,
			      commands_restarted(start->reason, start->restarts), now);
}

static void take_over(struct server *s, struct server_start *start)
{
	const struct parent_beginning *b = &start->beginning;
	uint64_t in_use[CHANNEL_SLOT_COUNT / 64];
	int r = save_restore(s);

	if (r == -ENODATA)
		start_cold(s);
	s->cold_changed = true;
	settle(s);
	frontend_slots(&s->frontend, in_use);
	parent_close_slots(b->slots, in_use);
	for (uint32_t i = 0; i < b->n_clients; i++)
		monitor_add_client(&s->monitor, &b->client[i], b->client_fd[i]);
	tell_restart(s, &b->start, r);
}

int server_start(struct server *s, const struct options *options, struct server_start *start)
{
	const struct channel_start *told = &start->beginning.start;
	struct channel_report ready = {0};
	int r;

	s->options = options;
	s->block = start->block;
	s->settings = s->told_settings = told->settings;
	parent_init(&s->parent, &s->loop, start->channel, &parent_ops, s);
	monitor_start(&s->monitor, &s->loop, &monitor_schema, s->block->client, &monitor_ops, s);
	balloon_init(&s->balloon, options->features, &balloon_ops, s);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		s->balloon.vq[i] = &s->frontend.session.ring[i].vq;
	r = reclaim_init(&s->frontend.reclaim, start->held_fd, BLOCK_HELD_BYTES, start->hints_fd);
	if (r < 0) {
		log_line("cannot map the file of hints: %s", strerror(-r));
		return r;
	}
	frontend_start(&s->frontend, &s->loop, &s->balloon, s->block, &frontend_ops, s);
	control_init(&s->control, &s->balloon, &s->settings, options, &control_ops, s, clock_now());
	s->control.restarts = told->restarts;
	snprintf(s->control.hints_path, sizeof(s->control.hints_path), "/proc/%d/fd/%d",
		 told->parent, told->hints_fd);
	take_over(s, start);
	on_state(s, &ready);
	r = parent_start(&s->parent, &ready);
	if (r < 0)
		log_line("cannot speak to the parent process: %s", strerror(-r));
	return r;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
	(void)arg;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

void server_run(struct server *s)
{
	uv_run(&s->loop, UV_RUN_DEFAULT);
	if (s->leaving) {
		settle(s);
		frontend_leave(&s->frontend);
		monitor_leave(&s->monitor);
	} else {
		/* Clients hear of the end, as far as their sockets take it. */
		frontend_stop(&s->frontend);
		end_waiters(s, false, UINT64_MAX);
		uv_run(&s->loop, UV_RUN_NOWAIT);
		monitor_stop(&s->monitor);
	}
	parent_stop(&s->parent);
	uv_walk(&s->loop, close_handle, NULL);
	while (uv_run(&s->loop, UV_RUN_DEFAULT))
		;
	uv_loop_close(&s->loop);
}
