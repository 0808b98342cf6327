// SPDX-License-Identifier: MIT
#include "control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/unix_socket.h"
#include "fleet_events.h"
#include "report.h"

static void on_later(uv_timer_t *timer);

static void on_client_gone(void *opaque, const struct monitor_name *client)
{
	struct control *c = opaque;

	c->record[client->id].serial = 0;
	/* Its connection goes when this call is over. */
	uv_timer_start(&c->later, on_later, 0, 0);
}

/* What clients are told holds as soon as it is said: there is nothing to be made safe first. */
static void on_telling(void *opaque)
{
	(void)opaque;
}

static const struct monitor_ops monitor_ops = {on_telling, on_client_gone};

/* What somebody waited for who is gone: nobody would release it. */
static void give_up_orphans(struct control *c)
{
	for (size_t i = 0; i < CONTROL_RESERVATIONS_MAX; i++) {
		struct control_waiter *w = &c->waiter[i];

		if (!w->request || qmp_request_conn(w->request))
			continue;
		(void)manager_release(&c->fleet->manager, w->id, clock_now().mono_ms);
		commands_reserved(c, w, RESERVE_HAS_FAILED);
	}
}

static void on_answers(uv_timer_t *timer)
{
	struct control *c = timer->data;

	for (size_t i = 0; i < CONTROL_RESERVATIONS_MAX; i++) {
		if (c->waiter[i].request && c->waiter[i].change != RESERVE_NOTHING)
			commands_reserved(c, &c->waiter[i], c->waiter[i].change);
	}
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct control *c = poll->data;
	struct monitor_name client = {0};
	int fd;

	(void)events;
	if (status < 0)
		return;
	fd = unix_socket_accept(c->fd);
	if (fd < 0 && fd != -EAGAIN) {
		/* No descriptor is left, say: the socket stays readable, and must not keep us busy.
		 */
		log_limited("control: no connection can be taken: %s", strerror(-fd));
		uv_poll_stop(poll);
		uv_timer_start(&c->later, on_later, CONTROL_RETRY_MS, 0);
	}
	if (fd < 0)
		return;
	while (client.id < CONTROL_CLIENTS_MAX && c->record[client.id].serial)
		client.id++;
	if (client.id == CONTROL_CLIENTS_MAX) {
		log_limited("control: more than %u clients: one was hung up on",
			    CONTROL_CLIENTS_MAX);
		close(fd);
		return;
	}
	if (!++c->serial)
		c->serial = 1;
	client.serial = c->serial;
	monitor_add_client(&c->monitor, &client, fd);
}

static void on_later(uv_timer_t *timer)
{
	struct control *c = timer->data;

	give_up_orphans(c);
	if (!uv_is_active((uv_handle_t *)&c->poll))
		uv_poll_start(&c->poll, UV_READABLE, on_connection);
}

int control_start(struct control *c, uv_loop_t *loop, const char *path, int fd, struct fleet *fleet,
		  const struct control_ops *ops, void *opaque)
{
	*c = (struct control){.fleet = fleet, .ops = ops, .opaque = opaque, .fd = fd};
	if (fd < 0) {
		c->path = strdup(path);
		if (!c->path)
			return -ENOMEM;
		c->fd = unix_socket_listen(path, (gid_t)-1);
		if (c->fd < 0) {
			free(c->path);
			c->path = NULL;
			return c->fd;
		}
	}
	monitor_start(&c->monitor, loop, &commands_schema, c->record, &monitor_ops, c);
	uv_timer_init(loop, &c->later);
	c->later.data = c;
	uv_timer_init(loop, &c->answers);
	c->answers.data = c;
	uv_poll_init(loop, &c->poll, c->fd);
	c->poll.data = c;
	uv_poll_start(&c->poll, UV_READABLE, on_connection);
	return 0;
}

void control_news(struct control *c, const struct news_item *item)
{
	size_t event = 0;
	struct json_object *data;

	while (event < NEWS_COUNT && strcmp(news_names[event], item->event) != 0)
		event++;
	if (event == NEWS_COUNT || !item->data)
		return;
	data = NULL;
	/* A copy: it gets the sentence, which the list of events has beside it. */
	if (json_object_deep_copy(item->data, &data, NULL) < 0)
		return;
	if (item->text && !json_object_object_get_ex(data, "text", NULL))
		json_object_object_add(data, "text", json_object_new_string(item->text));
	monitor_event(&c->monitor, event, data, item->at);
}

void control_reserved(struct control *c, uint64_t id, enum reserve_change change)
{
	for (size_t i = 0; i < CONTROL_RESERVATIONS_MAX; i++) {
		struct control_waiter *w = &c->waiter[i];

		if (!w->request || w->id != id)
			continue;
		w->change = change;
		uv_timer_start(&c->answers, on_answers, 0, 0);
		return;
	}
}

void control_stop(struct control *c)
{
	monitor_stop(&c->monitor);
	for (size_t i = 0; i < CONTROL_RESERVATIONS_MAX; i++) {
		if (c->waiter[i].request)
			commands_reserved(c, &c->waiter[i], RESERVE_HAS_FAILED);
	}
	uv_close((uv_handle_t *)&c->answers, NULL);
	uv_close((uv_handle_t *)&c->poll, NULL);
	uv_close((uv_handle_t *)&c->later, NULL);
	close(c->fd);
	if (c->path)
		unlink(c->path);
	free(c->path);
	c->path = NULL;
}
