// SPDX-License-Identifier: MIT
#include "server.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/checked.h"
#include "clock.h"
#include "commands.h"
#include "log.h"
#include "qmp/json.h"

#define CHANGE_INTERVAL_MS 1000 /* between two BALLOON_CHANGE */
#define PAGE_SHIFT         VIRTIO_BALLOON_PFN_SHIFT

static void on_tick(uv_timer_t *timer);

/* Sets the timer to what is due next. */
static void schedule(struct server *s)
{
	uint64_t due = balloon_next_tick(&s->balloon), now = clock_now().mono_ms;

	if (s->change_due)
		due = min_u64(due, s->change_after_ms);
	for (struct stats_waiter *w = s->waiters; w; w = w->next)
		due = min_u64(due, w->deadline_ms);
	if (due == UINT64_MAX)
		uv_timer_stop(&s->tick);
	else
		uv_timer_start(&s->tick, on_tick, due > now ? due - now : 0, 0);
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

	balloon_tick(&s->balloon, now);
	frontend_check_memory(&s->frontend);
	if (s->change_due)
		tell_change(s, now);
	end_waiters(s, false, now.mono_ms);
	schedule(s);
}

static uint64_t on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	struct server *s = opaque;

	return reclaim_discard(&s->frontend.reclaim, ranges, n);
}

static void on_config_changed(void *opaque)
{
	struct server *s = opaque;

	frontend_config_changed(&s->frontend);
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

	switch (event) {
	case BALLOON_EVENT_ACTUAL:
		s->change_due = true;
		tell_change(s, now);
		break;
	case BALLOON_EVENT_STATS:
	default:
		monitor_event(&s->monitor, EVENT_BALLOON, commands_stats(&s->balloon.st.stats, now),
			      now);
		end_waiters(s, true, now.mono_ms);
		break;
	}
	schedule(s);
}

static const struct balloon_ops balloon_ops = {
	.discard = on_discard,
	.config_changed = on_config_changed,
	.notify = on_notify,
	.queue_broken = on_queue_broken,
	.event = on_balloon_event,
};

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

	if (!balloon_driver_active(&s->balloon))
		return;
	if (s->guest_size_pending)
		server_set_guest_size(s, s->guest_size);
	else
		balloon_update_target(&s->balloon);
}

static void on_finished(void *opaque)
{
	server_quit(opaque);
}

static const struct frontend_ops frontend_ops = {
	.connected = on_connected,
	.disconnected = on_disconnected,
	.guest_changed = on_guest_changed,
	.finished = on_finished,
};

void server_set_guest_size(struct server *s, uint64_t bytes)
{
	uint64_t total;

	s->guest_size_pending = !balloon_driver_active(&s->balloon);
	s->guest_size = bytes;
	if (s->guest_size_pending)
		return;
	total = guest_mem_total(s->balloon.mem);
	balloon_set_target(&s->balloon, (total - min_u64(bytes, total)) >> PAGE_SHIFT);
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
		schedule(s);
	}
	return 0;
}

void server_set_poll_interval(struct server *s, uint64_t interval_ms)
{
	balloon_set_poll_interval(&s->balloon, interval_ms, clock_now());
	frontend_check_memory(&s->frontend);
	schedule(s);
}

int server_start(struct server *s, const struct options *options, int vhost_fd, int qmp_fd)
{
	int r = uv_loop_init(&s->loop);

	if (r < 0) {
		log_line("cannot make an event loop: %s", uv_strerror(r));
		return r;
	}
	s->options = options;
	uv_timer_init(&s->loop, &s->tick);
	s->tick.data = s;
	r = monitor_start(&s->monitor, &s->loop, qmp_fd, &monitor_schema, s);
	if (r < 0) {
		log_line("cannot serve the monitor: %s", uv_strerror(r));
		return r;
	}
	balloon_init(&s->balloon, options->features, &balloon_ops, s);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		s->balloon.vq[i] = &s->frontend.session.ring[i].vq;
	r = frontend_start(&s->frontend, &s->loop, vhost_fd, &s->balloon, &frontend_ops, s);
	if (r < 0) {
		log_line("cannot serve the vhost-user socket: %s", strerror(-r));
		return r;
	}
	balloon_set_target(&s->balloon, options->target >> PAGE_SHIFT);
	return 0;
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
	/* Clients hear of the end, as far as their sockets take it. */
	frontend_stop(&s->frontend);
	end_waiters(s, false, UINT64_MAX);
	uv_run(&s->loop, UV_RUN_NOWAIT);
	monitor_stop(&s->monitor);
	uv_walk(&s->loop, close_handle, NULL);
	while (uv_run(&s->loop, UV_RUN_DEFAULT))
		;
	uv_loop_close(&s->loop);
}

void server_quit(struct server *s)
{
	uv_stop(&s->loop);
}
