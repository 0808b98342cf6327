/* SPDX-License-Identifier: MIT */
#ifndef QMP_CLIENT_H
#define QMP_CLIENT_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qmp/scan.h"
#include "qmp/schema.h"

/*
 * The other end of a QMP connection: one who asks. Bytes in, bytes out; the program owns the socket
 * and the time. Theory at the head of client.c. For a loop over many monitors:
 *
 *	readable:          qmp_client_feed(), as long as qmp_client_wants_input()
 *	writable:          what qmp_client_take_output() gave; then qmp_client_written()
 *	end of file:       qmp_client_close(), and later qmp_client_free()
 *	at the time that qmp_client_next_deadline() says: qmp_client_tick()
 *
 * After each of these calls, output may wait and the next deadline may be another one.
 *
 * Times are milliseconds on any clock that never goes back.
 *
 * From a callback all functions may be called for the same client but feed, tick and free.
 */

#define QMP_CLIENT_PENDING_MAX 16u           /* requests that wait for their answers */
#define QMP_CLIENT_OUTPUT_MAX  (64u * 1024)  /* bytes not written yet; above, no request is taken */
#define QMP_CLIENT_BATCH       32u           /* messages handled in one call of feed or tick */
#define QMP_CLIENT_PARKED_MAX  (256u * 1024) /* bytes of input that wait for the next tick */

#define QMP_CLIENT_NEVER UINT64_MAX /* no deadline */

struct qmp_client;

enum qmp_client_state {
	QMP_CLIENT_GREETING,    /* from the start: the greeting has not come */
	QMP_CLIENT_NEGOTIATING, /* it has; capabilities negotiation is not answered */
	QMP_CLIENT_READY,       /* requests are taken, events come */
	QMP_CLIENT_LOST,        /* for good: the connection must be closed */
	QMP_CLIENT_STATE_COUNT,
};

/* How a request ended. */
enum qmp_answer_kind {
	QMP_ANSWER_RETURN,  /* @value has what it returned */
	QMP_ANSWER_ERROR,   /* the monitor answered with an error: @error */
	QMP_ANSWER_TIMEOUT, /* no answer by its deadline; if one comes still, nobody hears of it */
	QMP_ANSWER_LOST,    /* the connection went first; whether the command ran is unknown */
};

struct qmp_answer {
	enum qmp_answer_kind kind;
	struct json_object
		*value; /* RETURN, any type (NULL is null); borrowed, see json_object_get() */
	const struct qmp_error *error; /* ERROR; its words are the monitor's, see below */
};

struct qmp_client_event {
	const char *name;
	struct json_object *data; /* an object, or NULL: the event has none; borrowed */
	int64_t seconds;          /* since the epoch by the monitor's clock; -1: it did not tell */
	int32_t microseconds;
	uint64_t dropped; /* earlier ones of this name that our own monitor says were lost */
};

/*
 * What the monitor sends is hostile until checked: names, words and values are valid UTF-8 without
 * NUL, and nothing more. Text that goes to a terminal or a log may hold control characters.
 */
struct qmp_client_ops {
	/* Negotiation is over. @greeting: what stands below "QMP"; borrowed. */
	void (*ready)(void *opaque, struct json_object *greeting);
	void (*event)(void *opaque, const struct qmp_client_event *event);
	/*
	 * The client is lost, and each request that was pending has had its answer LOST. At most
	 * once. @error: -errno, @why in words. -EPROTO: the monitor broke the protocol or a limit,
	 * or refused to negotiate; -ETIMEDOUT: no negotiation by its deadline; -ENOMEM; -ENOBUFS:
	 * fed although no input was wanted; or what qmp_client_close() said.
	 */
	void (*lost)(void *opaque, int error, const char *why);
};

/* Called exactly once for each request taken, never from within qmp_client_execute(). */
typedef void qmp_client_done(void *opaque, const struct qmp_answer *answer);

/*
 * A client for a connection that was just made. @deadline: when it must be ready. @ops lives as
 * long as the client does; each of them must be there. @limits of one message of the monitor: NULL
 * for the scanner's (64 KiB, 4096 tokens; QEMU's query-qmp-schema needs more). NULL: out of memory.
 */
struct qmp_client *qmp_client_new(const struct qmp_client_ops *ops, void *opaque, uint64_t deadline,
				  const struct qmp_limits *limits);

/* Ends it: each request that is still pending has its answer LOST. NULL is allowed. */
void qmp_client_free(struct qmp_client *client);

/*
 * Asks for @command. @args: an object, empty for none; one reference, taken over, also on failure.
 * NULL is one that could not be made: -ENOMEM.
 * 0: @done will be called with @opaque. -ENOTCONN: not ready. -EBUSY: QMP_CLIENT_PENDING_MAX
 * requests are pending. -ENOBUFS: the monitor does not read. -EINVAL: @args is no object.
 * -EMSGSIZE: more than QMP_MESSAGE_MAX bytes. -ENOMEM. After a failure nothing is sent, and all is
 * as before.
 */
int qmp_client_execute(struct qmp_client *client, const char *command, struct json_object *args,
		       uint64_t deadline, qmp_client_done *done, void *opaque);

/*
 * Bytes from the monitor, in any split. At most QMP_CLIENT_BATCH messages are handled, what is
 * behind them waits for qmp_client_tick(), up to QMP_CLIENT_PARKED_MAX bytes. 0, or the -errno with
 * which the client is lost now, or was before.
 */
int qmp_client_feed(struct qmp_client *client, const void *data, size_t len);

/* Whether the program should read from this monitor now. */
bool qmp_client_wants_input(const struct qmp_client *client);

/* Handles input that waits, as feed does, then ends whatever has its deadline at @now or before. */
void qmp_client_tick(struct qmp_client *client, uint64_t now);

/*
 * When qmp_client_tick() is to be called next, QMP_CLIENT_NEVER if there is nothing to wait for. 0
 * where input waits: as soon as others had their turn.
 */
uint64_t qmp_client_next_deadline(const struct qmp_client *client);

/*
 * Hands out all bytes that wait for the monitor, NULL if there are none. The caller frees them with
 * free() and says qmp_client_written() when they are written; until then they count as waiting.
 */
char *qmp_client_take_output(struct qmp_client *client, size_t *len);
void qmp_client_written(struct qmp_client *client, size_t len);

/*
 * The connection is gone, or given up: the client is lost with @error (-errno) and @why, if it was
 * not before.
 */
void qmp_client_close(struct qmp_client *client, int error, const char *why);

enum qmp_client_state qmp_client_state(const struct qmp_client *client);

/* Requests that wait for their answers. */
size_t qmp_client_pending(const struct qmp_client *client);

/* Answers that came after their requests had timed out, or once more, and were dropped. */
uint64_t qmp_client_late(const struct qmp_client *client);

#endif
