/* SPDX-License-Identifier: MIT */
/*
 * One virtual machine's monitor: connects to it, finds out what it can do by asking, keeps what it
 * says up to date, and passes targets on. QEMU's monitor and our device's differ in what they
 * offer; who uses an endpoint does not see which it is.
 *
 *	RESTING     after a failure, until the next attempt; the time between doubles
 *	CONNECTING  until the monitor has greeted and negotiated
 *	ASKING      the questions of questions.c, one after the other
 *	SERVING     statistics, actual and events come, targets go
 *
 * What a monitor says is hostile until validated: sizes are bounded, names have no control
 * characters, and statistics that are no numbers are not there.
 */
#ifndef AEROSTATD_ENDPOINT_H
#define AEROSTATD_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "manager/manager.h"
#include "policy/health.h"
#include "policy/stats.h"

#define ENDPOINT_NAME_MAX 128U /* bytes, with the NUL */
#define ENDPOINT_UUID_MAX 37U
#define ENDPOINT_WHY_MAX  160U
#define ENDPOINT_PATH_MAX 64U /* of the balloon in QEMU's tree of objects */

/* A monitor answers within this, or is hung. */
#define ENDPOINT_ANSWER_MS 3000

/* Between two attempts: from, doubling, to. */
#define ENDPOINT_REST_MS     200
#define ENDPOINT_REST_MAX_MS 10000

enum endpoint_phase {
	ENDPOINT_RESTING,
	ENDPOINT_CONNECTING,
	ENDPOINT_ASKING,
	ENDPOINT_SERVING,
	ENDPOINT_PHASE_COUNT,
};

enum endpoint_kind {
	ENDPOINT_KIND_UNKNOWN,
	ENDPOINT_KIND_QEMU,     /* QEMU's monitor, with a balloon of its own */
	ENDPOINT_KIND_AEROSTAT, /* the monitor of vhost-user-balloon */
	ENDPOINT_KIND_LIBVIRT,  /* libvirt, of a domain with a balloon of QEMU */
	ENDPOINT_KIND_COUNT,
};

/* Why there is no connection. */
enum endpoint_absence {
	ENDPOINT_PRESENT,    /* there is one, or none was tried yet */
	ENDPOINT_GONE,       /* nobody listens, or the monitor hung up: its process has ended */
	ENDPOINT_HUNG,       /* it does not answer */
	ENDPOINT_MISBEHAVED, /* what it says is no QMP, or makes no sense */
	ENDPOINT_NO_BALLOON, /* a monitor, but of nothing that has a balloon */
};

/* What a driver can do wrong, as a device of ours counts it; others are not looked at. */
enum endpoint_error {
	ENDPOINT_ERROR_PFN,
	ENDPOINT_ERROR_INFLATED_TWICE,
	ENDPOINT_ERROR_NOT_HELD,
	ENDPOINT_ERROR_DUPLICATE,
	ENDPOINT_ERROR_PARTIAL,
	ENDPOINT_ERROR_STATS_TWICE,
	ENDPOINT_ERROR_STATS_LONG,
	ENDPOINT_ERROR_ACTUAL,
	ENDPOINT_ERROR_UNKNOWN_QUEUE,
	ENDPOINT_ERROR_MESSAGE_SHORT,
	ENDPOINT_ERROR_MESSAGE_FLOOD,
	ENDPOINT_ERROR_HINT_ID,
	ENDPOINT_ERROR_BROKEN,
	ENDPOINT_ERROR_COUNT,
};

/* What a device of ours counts, in bytes; all 0 for QEMU's. */
struct endpoint_device {
	bool known;
	uint64_t at_ms;
	uint64_t resident, freed, inflated, deflated, reported;
	uint64_t errors[ENDPOINT_ERROR_COUNT];
	uint32_t errors_known;      /* bits 1 << enum endpoint_error: those that it tells */
	bool stats, push, messages; /* negotiated */
};

/* What is known of the VM. The last values stay when the connection is lost. */
struct endpoint_view {
	enum endpoint_phase phase;
	enum endpoint_kind kind;
	enum endpoint_absence absence;
	char why[ENDPOINT_WHY_MAX]; /* in words; empty while present */
	char name[ENDPOINT_NAME_MAX];
	char uuid[ENDPOINT_UUID_MAX]; /* empty: it has none */
	bool ready;                   /* size and actual are known: it can be managed */
	bool running;
	uint64_t size;   /* of its memory without a balloon, bytes */
	uint64_t actual; /* it keeps, bytes */
	uint64_t target; /* it was told to keep, MANAGER_UNKNOWN if not known */
	enum manager_driver driver;
	enum health_state health; /* as a device of ours says; HEALTH_UNKNOWN else */
	struct guest_stats stats; /* the last; at_ms is 0 before */
	struct endpoint_device device;
};

/* What has changed in the view. */
enum endpoint_change {
	ENDPOINT_CHANGE_UP,     /* it is SERVING, or its size is another: take everything anew */
	ENDPOINT_CHANGE_DOWN,   /* it is not: see absence */
	ENDPOINT_CHANGE_DRIVER, /* a driver came, went, or started anew */
	ENDPOINT_CHANGE_ACTUAL,
	ENDPOINT_CHANGE_STATS,
	ENDPOINT_CHANGE_HEALTH, /* health or running */
	ENDPOINT_CHANGE_DEVICE,
};

struct endpoint;

struct endpoint_ops {
	void (*changed)(void *opaque, struct endpoint *e, enum endpoint_change what);
	/* The guest sent a message: level of enum virtio_balloon_pressure, or relieved. */
	void (*pressure)(void *opaque, struct endpoint *e, bool relieved, uint32_t level);
	/* The command of the last endpoint_set_target() has ended. */
	void (*target_answered)(void *opaque, struct endpoint *e, bool ok);
	/* A poll brought nothing, or the same as before. */
	void (*unanswered)(void *opaque, struct endpoint *e);
	/* How long a command took, for the metrics. */
	void (*took)(void *opaque, uint64_t us);
};

/*
 * An endpoint for the monitor at path, which is tried at once, from the loop. Statistics are wanted
 * every interval_ms. observe: nothing is changed in the VM, also not how often it tells statistics.
 * NULL: out of memory.
 */
struct endpoint *endpoint_new(uv_loop_t *loop, const char *path, uint32_t interval_ms, bool observe,
			      const struct endpoint_ops *ops, void *opaque);

/* Ends it; nothing is told any more. The loop frees it. */
void endpoint_free(struct endpoint *e);

/* Only observe from now on, or no longer. */
void endpoint_observe(struct endpoint *e, bool observe);

/* Ask the VM to keep so many bytes. -ENOTCONN and others as qmp_client_execute(): it was not sent,
 * and target_answered() is not called. */
int endpoint_set_target(struct endpoint *e, uint64_t keep);

const struct endpoint_view *endpoint_view(const struct endpoint *e);
const char *endpoint_path(const struct endpoint *e);

/* For who uses it: a pointer that the endpoint keeps, NULL at first. */
void endpoint_set_user(struct endpoint *e, void *user);
void *endpoint_user(const struct endpoint *e);

const char *endpoint_phase_name(enum endpoint_phase phase);
const char *endpoint_kind_name(enum endpoint_kind kind);

/* Whether text has the form of a UUID. */
bool endpoint_is_uuid(const char *text);

/* As the device's monitor has it, such as "hint-id", and on which of its queues it happens: several
 * of them, or none, have a word of their own. */
const char *endpoint_error_name(enum endpoint_error error);
const char *endpoint_error_queue(enum endpoint_error error);

#endif
