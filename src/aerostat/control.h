/* SPDX-License-Identifier: MIT */
/*
 * A QMP connection for a program that waits: lib/qmp/client.h with a socket and poll(2). The
 * control socket of aerostatd, or the monitor of a virtual machine.
 *
 * A simple verb opens it, asks, and closes it. A program that has more to wait for puts
 * control_prepare() and control_handle() around its own poll().
 */
#ifndef AEROSTAT_CONTROL_H
#define AEROSTAT_CONTROL_H

#include <json-c/json.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "qmp/client.h"
#include "status.h"

struct control;

struct control_hooks {
	/* May be NULL. */
	void (*event)(void *opaque, const struct qmp_client_event *event);
	/* Called about every idle_ms while control_ask() waits. May be NULL. */
	void (*idle)(void *opaque);
	uint32_t idle_ms;
	void *opaque;
	bool machine; /* it is a virtual machine's monitor: believed less than aerostatd */
};

/*
 * Connects, and waits until it is ready. hooks: NULL for none; copied. NULL: the failure says why;
 * whose is what messages call the other side.
 */
struct control *control_open(const char *path, const char *whose, uint64_t timeout_ms,
			     const struct control_hooks *hooks, struct failure *failure);

/* The same without waiting: control_handle() makes it ready. */
struct control *control_begin(const char *path, const char *whose, uint64_t timeout_ms,
			      const struct control_hooks *hooks, struct failure *failure);
bool control_ready(const struct control *c);

/* NULL is allowed. Requests that are pending have the answer LOST. */
void control_close(struct control *c);

/*
 * Asks and waits for the answer: a reference to what was returned in *value (may be NULL for one
 * who does not care). args: one reference, taken over; NULL: none.
 */
enum status control_ask(struct control *c, const char *command, struct json_object *args,
			uint64_t timeout_ms, struct json_object **value, struct failure *failure);

/* Asks without waiting; as qmp_client_execute(). */
int control_start(struct control *c, const char *command, struct json_object *args,
		  uint64_t timeout_ms, qmp_client_done *done, void *opaque);

/* Waits at most so long for whatever comes, and handles it. Lost: as the failure says. */
enum status control_wait(struct control *c, uint64_t timeout_ms, struct failure *failure);

/* What to poll for, and how long at most: *timeout_ms is lowered, -1 being forever. */
void control_prepare(struct control *c, struct pollfd *p, int *timeout_ms);

/* After the poll, whatever it said. Lost: as the failure says. */
enum status control_handle(struct control *c, short revents, struct failure *failure);

/* What an answer means: STATUS_DONE for a return, else the failure. */
enum status control_judge(const struct qmp_answer *answer, const char *command, const char *whose,
			  struct failure *failure);

/* Milliseconds of a clock that never goes back. */
uint64_t control_now(void);

#endif
