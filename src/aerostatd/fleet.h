/* SPDX-License-Identifier: MIT */
/*
 * The virtual machines of this host: endpoints on one side, the manager on the other, and between
 * them a slot for each monitor that was found. A slot has an endpoint as long as its socket is
 * there, and a VM in the manager from when the monitor was first understood until its process is
 * gone. A VM whose monitor hangs stays: it has its memory still.
 */
#ifndef AEROSTATD_FLEET_H
#define AEROSTATD_FLEET_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/ratelimit.h"
#include "config.h"
#include "discover.h"
#include "endpoint.h"
#include "latency.h"
#include "libvirt.h"
#include "manager/manager.h"
#include "news.h"
#include "state.h"

#define FLEET_VMS_MAX 4096U /* monitors at a time; further ones are not looked at */

/* Counted since the start, for the metrics. */
struct fleet_counts {
	uint64_t decisions[ACTION_COUNT][REASON_COUNT];
	struct latency requests; /* commands to monitors */
	struct latency reclaims; /* from a lower target until it is reached */
	struct latency reliefs;  /* from a message about pressure until the guest keeps more */
};

struct fleet_vm {
	struct endpoint *endpoint; /* NULL: the slot is free */
	bool managed;              /* it is in the manager */
	bool configured;           /* named in the configuration, and not only found */
	char name[ENDPOINT_NAME_MAX];
	char key[ENDPOINT_NAME_MAX];  /* under which the state knows it; while managed */
	char told[ENDPOINT_NAME_MAX]; /* what its monitor called it then, */
	char uuid[ENDPOINT_UUID_MAX]; /* and its UUID */
	struct ratelimit news;        /* no monitor fills the log, nor the list of events */
	struct state_wishes wishes;
	uint64_t messages[VIRTIO_BALLOON_PRESSURE_NR]; /* about pressure, by level */
	uint64_t lowered_us, lowered_to;               /* a reclaim that is under way; 0: none */
	uint64_t pressed_us, pressed_at;               /* a relief that is */
};

struct fleet;

struct fleet_ops {
	/* Something has happened: event of the control monitor, with its sentence. data: borrowed.
	 */
	void (*news)(void *opaque, const struct news_item *item);
	/* A reservation was granted, or has failed. */
	void (*reserved)(void *opaque, uint64_t id, enum reserve_change change);
};

struct fleet {
	uv_loop_t *loop;
	struct config config;
	const struct fleet_ops *ops;
	void *opaque;
	struct manager manager;
	struct manager_vm *manager_vms;
	struct balance_vm *balance_vms;
	struct fleet_vm *vms; /* FLEET_VMS_MAX, as those two */
	uint32_t used;        /* slots below this may be taken */
	struct discover *directories[CONFIG_DIRECTORIES_MAX];
	size_t n_directories;
	struct libvirt *libvirt; /* NULL: not asked */
	struct state state;
	struct news news;
	struct fleet_counts counts;
	struct manager_host host;
	bool host_known, psi_known;
	uint64_t started_ms;
	int64_t started_wall_us;
	uint32_t interval_ms;
	uv_timer_t tick;      /* of the manager */
	uv_timer_t second;    /* the host, and now and then the state */
	uv_prepare_t settle;  /* before the loop waits: when the manager is due */
	uint64_t tick_due_ms; /* that the timer runs for */
	uint32_t seconds;
	bool full_told;
	uv_work_t saving; /* another thread writes the state: */
	char *saved_text; /* this; NULL: none does */
	size_t saved_len;
	int saved_status;
	bool save_again; /* something has changed meanwhile that does not wait */
};

/*
 * Begins: takes *config over (also when it fails), reads the state, looks for monitors. *fleet
 * must be zero. 0, -ENOMEM, or what state_load() says, which is only logged.
 */
int fleet_start(struct fleet *fleet, uv_loop_t *loop, struct config *config, uint32_t interval_ms,
		const struct fleet_ops *ops, void *opaque);

/* Another configuration, taken over. VMs stay where they are as far as it lets them. */
void fleet_configure(struct fleet *fleet, struct config *config);

/* Ends all that the loop knows; fleet_free(), which saves the state, when the loop is done. */
void fleet_stop(struct fleet *fleet);
void fleet_free(struct fleet *fleet);

/* The slot of a VM, by its name or UUID. -ENOENT. */
int fleet_find(const struct fleet *fleet, const char *name);

/* What an operator wishes, from now on and after a restart. -EINVAL: a floor above the ceiling.
 * -ENOTCONN: it is not managed now; nobody knows whose wishes these would be. */
int fleet_wish(struct fleet *fleet, uint32_t slot, const struct state_wishes *wishes);

/* Floor, ceiling and priority as they are in force. */
struct state_wishes fleet_bounds(const struct fleet *fleet, uint32_t slot);

#endif
