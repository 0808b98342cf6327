/* SPDX-License-Identifier: MIT */
/*
 * The manager of one host's memory, without its sockets: what is known of each VM and of the host,
 * and what to do when something happens. Events come in as calls, targets and news go out through
 * struct manager_ops. aerostatd wires monitors to it, the simulator wires simulated guests: the
 * same code decides in both.
 *
 * VMs live in slots 0 to n-1 that the caller hands out. An event costs O(1); manager_tick() makes a
 * pass over all VMs when one is due, O(n) up to the highest slot that is taken. It can be had in
 * portions (struct manager_config). Nothing is allocated: the caller gives the arrays.
 *
 * What happens when:
 *   pressure message   released fully in the same call, before anything else
 *   statistics         verdict and estimate are renewed; a bad verdict releases in the same call,
 *                      and a need that grew is met in the same call as far as there is room
 *   actual             progress; memory that came back is there for whoever waits: a pass soon
 *   host sample        kept for the next pass
 *   tick               silences, stalls, learned floors that end, reservations, and the balance
 *
 * Times are milliseconds of a monotonic clock, given as `now_ms`; one that goes back counts as
 * standing still. All sizes are bytes; targets and actual are what the VM *keeps* (its memory minus
 * the balloon), as QEMU's `balloon` and `query-balloon` have them. Guests lie: every figure is
 * clamped to what is possible.
 *
 * Calls for a slot that holds no VM are answered with -ENOENT, or ignored by void functions: an
 * answer may arrive after its VM has gone. The ops may call const functions of the manager, and
 * manager_target_answered(), manager_actual(), manager_stats(); none that adds or removes VMs, and
 * not manager_tick().
 */
#ifndef MANAGER_MANAGER_H
#define MANAGER_MANAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/balance.h"
#include "policy/decision.h"
#include "policy/demand.h"
#include "policy/health.h"
#include "policy/progress.h"
#include "policy/reserve.h"
#include "policy/stats.h"
#include "policy/verdict.h"

#define MANAGER_UNKNOWN UINT64_MAX /* of a size */
#define MANAGER_NEVER   UINT64_MAX /* of a time */
#define MANAGER_ALL     UINT32_MAX /* slot of an event that is nobody's alone */

/* Decisions that moved a target, kept for each VM. */
#define MANAGER_DECISIONS 8

/* A pass is due this often, and no more often than that when somebody waits for memory. */
#define MANAGER_PASS_MS      1000
#define MANAGER_PASS_SOON_MS 100

/*
 * Statistics older than this are not acted on, unless the caller says otherwise. Five times the
 * usual second: four were lost.
 */
#define MANAGER_STALE_MS 5000

/*
 * After the last sign of an emergency nothing is taken for this long: a guest whose programs were
 * starved needs some seconds to show how much they want.
 */
#define MANAGER_EMERGENCY_MS 10000

/* The same when more is promised than there is, and the guest is seen to have enough by then. */
#define MANAGER_EMERGENCY_MIN_MS 3000

/*
 * Learned floors: how long the first lasts, doubling with each that follows within twice its time,
 * and the longest. Long enough that taking, suffering and releasing is rare; short enough that a
 * bad hour is not remembered for a day.
 */
#define MANAGER_LEARNED_MS     120000
#define MANAGER_LEARNED_MAX_MS 1800000

/* The same for a guest that does not follow its targets: when it is tried again. */
#define MANAGER_RETRY_MS     60000
#define MANAGER_RETRY_MAX_MS 600000

/* Polls in a row without an answer that make a VM slow, and unresponsive. */
#define MANAGER_UNANSWERED_SLOW 1
#define MANAGER_UNANSWERED_HUNG 3

/*
 * A command that failed is tried again after this, doubling up to that. Each sign of an emergency
 * begins with the first again, and has it tried at once if the last try is that long ago.
 */
#define MANAGER_REFUSED_MS     1000
#define MANAGER_REFUSED_MAX_MS 60000

/* Weak verdicts that are bad, in a row, until they count like others. */
#define MANAGER_WEAK_RUN 2

enum manager_driver {
	MANAGER_DRIVER_NONE,     /* no driver is at work: the guest has all its memory */
	MANAGER_DRIVER_NO_STATS, /* one without statistics */
	MANAGER_DRIVER_FULL,
};

/* What a VM is, when it appears. */
struct manager_facts {
	uint64_t size;  /* without a balloon; 0 < size < BALANCE_SIZE_MAX */
	uint64_t floor; /* never told to keep less; MANAGER_UNKNOWN: manager_default_floor(size) */
	uint64_t ceiling; /* never told to keep more; MANAGER_UNKNOWN: size */
	uint32_t weight;  /* priority; 0: BALANCE_WEIGHT_DEFAULT */
	enum manager_driver driver;
	uint64_t actual; /* keeps now; MANAGER_UNKNOWN: its size */
	uint64_t target; /* was told to keep, before this manager; MANAGER_UNKNOWN: like actual */
};

/*
 * What of a VM should outlive this process: plain data, times as milliseconds from when it was
 * saved. The caller stores it under the VM's name or UUID.
 */
struct manager_saved {
	uint32_t version; /* MANAGER_SAVED_VERSION */
	uint32_t learned_hard;
	uint64_t size; /* of the VM it was; another size makes it void */
	uint64_t target;
	uint64_t learned, learned_left_ms, learned_span_ms, learned_used;
	uint64_t learned_free; /* was free when it was learned; MANAGER_UNKNOWN: perhaps all */
	uint64_t working, growth, cache; /* of the estimate */
};
#define MANAGER_SAVED_VERSION 1

struct manager_host {
	uint64_t total, available;       /* MemTotal, MemAvailable */
	uint64_t resident;               /* of all VMs' memory; MANAGER_UNKNOWN: what they keep */
	uint32_t some_centi, full_centi; /* PSI memory avg10 in hundredths of a percent; 0: none */
};

struct manager_config {
	uint64_t budget;   /* what all VMs may keep together; 0: as the host allows */
	uint64_t reserve;  /* of the host; MANAGER_UNKNOWN: manager_default_reserve() */
	uint32_t pass_ms;  /* 0: MANAGER_PASS_MS */
	uint32_t stale_ms; /* 0: MANAGER_STALE_MS */
	bool observe;      /* decide and explain, and change nothing */
	/* A pass makes way after so many calls to the ops, and goes on with the next tick; 0: it
	 * does not. */
	uint32_t portion;
};

enum manager_event_kind {
	MANAGER_EVENT_DECISION,    /* .decision moved a target (or would, when observing) */
	MANAGER_EVENT_VERDICT,     /* .judgement is another than before */
	MANAGER_EVENT_HEALTH,      /* .health is another than before */
	MANAGER_EVENT_PROGRESS,    /* .progress is stalled or uncooperative, or no more */
	MANAGER_EVENT_REFUSED,     /* a command to set the target failed */
	MANAGER_EVENT_RESERVATION, /* .change of .reservation */
	MANAGER_EVENT_SCARCE,      /* of all: what VMs need does not fit (.on), or does again */
};

/* Members that the kind does not name are 0 or NULL. Valid only during the call. */
struct manager_event {
	enum manager_event_kind kind;
	uint32_t slot; /* or MANAGER_ALL */
	uint64_t at_ms;
	const struct decision *decision;
	const struct judgement *judgement;
	enum health_state health;
	enum progress_state progress;
	enum reserve_change change;
	const struct reservation *reservation;
	bool on;
};

struct manager_ops {
	/*
	 * Tell the VM to keep so many bytes. The answer to the command is told by
	 * manager_target_answered(), now or later; a later target replaces an earlier one.
	 */
	void (*set_target)(void *opaque, uint32_t slot, uint64_t keep);
	void (*event)(void *opaque, const struct manager_event *event); /* may be NULL */
};

/* One VM's record. To be read through the functions below; laid open for the caller's arrays. */
struct manager_vm {
	bool present;
	bool failing; /* the last one failed */
	bool stats_ever;
	bool backed_off; /* since it stalled last */
	uint8_t unanswered, weak_run;
	uint8_t decisions; /* in the ring, at most MANAGER_DECISIONS */
	uint8_t newest;    /* its index */
	enum manager_driver driver;
	enum health_state health;
	struct guest_stats base, last; /* the older one judged by, and the last that came */
	struct judgement judgement;
	struct demand demand;
	struct progress progress;
	uint32_t pressure;         /* level of the last message */
	uint64_t pressure_ms;      /* when it came; 0: never */
	uint64_t emergency_end_ms; /* 0: none */
	uint64_t learned_end_ms, learned_span_ms, learned_used, learned_free;
	uint64_t retry_ms, retry_span_ms;     /* of an uncooperative one */
	uint64_t refused_ms, refused_span_ms; /* of a failing one */
	uint64_t sent_ms;                     /* when a command was sent last */
	uint64_t actual_ms;                   /* when actual changed last */
	uint64_t heard_ms;                    /* when statistics came last */
	uint64_t releases, oom_kills;
	struct decision standing; /* the last one made, also those to keep */
	struct decision ring[MANAGER_DECISIONS];
};

/* A pass that is under way: see pass.c. */
enum manager_pass_step { PASS_NONE, PASS_UPKEEP, PASS_MOVES };

struct manager_pass {
	enum manager_pass_step step;
	uint32_t cursor;      /* the slot whose turn is next */
	uint64_t room, unmet; /* by its plan, when that was made */
};

struct manager {
	const struct manager_ops *ops;
	void *opaque;
	struct manager_config config;
	struct manager_vm *vms;
	struct balance_vm *balance; /* the same slots */
	uint32_t n;
	uint32_t used; /* slots below this may be taken */
	uint32_t present;
	uint64_t now_ms;            /* of the last call */
	uint64_t passed_ms, due_ms; /* the last pass, and when the next is due */
	bool host_known, scarce;
	struct manager_host host;
	struct balance_plan plan;
	struct reserve reserve;
	struct manager_pass pass;
	uint64_t passes, moves;
	uint64_t calls; /* to the ops */
};

/* What a VM keeps at least when nobody says how much: an 8th of it and 32 MiB, but not more than it
 * has. */
uint64_t manager_default_floor(uint64_t size);

/* What a host keeps free when nobody says how much: a 20th, at least 256 MiB, at most 8 GiB and
 * never more than a quarter. */
uint64_t manager_default_reserve(uint64_t total);

/*
 * Begins with no VM. vms and balance have n entries each and live as long as the manager.
 * -EINVAL: n is 0 or above BALANCE_VMS_MAX, or an op is missing.
 */
int manager_init(struct manager *m, const struct manager_config *config,
		 const struct manager_ops *ops, void *opaque, struct manager_vm *vms,
		 struct balance_vm *balance, uint32_t n, uint64_t now_ms);

/* Other settings from now on. What is left of a pass is dropped, and the next one is soon. */
void manager_configure(struct manager *m, const struct manager_config *config, uint64_t now_ms);

/* --- VMs ------------------------------------------------------------------------------------- */

/*
 * A VM is there. saved may be NULL. -EINVAL: no such slot, or facts that make no sense; -EEXIST:
 * the slot is taken. Nothing is sent: the first pass that has statistics decides.
 */
int manager_vm_add(struct manager *m, uint32_t slot, const struct manager_facts *facts,
		   const struct manager_saved *saved, uint64_t now_ms);

/* It is gone; what it had is there for others. -ENOENT. */
int manager_vm_remove(struct manager *m, uint32_t slot, uint64_t now_ms);

/*
 * Another floor, ceiling and weight (0 and MANAGER_UNKNOWN as in struct manager_facts): at once for
 * those that are beyond the new bounds. -ENOENT, -EINVAL.
 */
int manager_vm_set(struct manager *m, uint32_t slot, uint64_t floor, uint64_t ceiling,
		   uint32_t weight, uint64_t now_ms);

/*
 * A driver came or went, or the guest was restarted (then also with the same value): what was known
 * of the old one is forgotten, and its balloon is empty. Between NO_STATS and FULL it is the one
 * that was there, of which more is known now, or less.
 */
void manager_driver(struct manager *m, uint32_t slot, enum manager_driver driver, uint64_t now_ms);

/*
 * Fresh statistics. They should be told after the manager_actual() that belongs to them. Those that
 * are not newer than the last are ignored.
 */
void manager_stats(struct manager *m, uint32_t slot, const struct guest_stats *stats,
		   uint64_t now_ms);

/* What the VM keeps now, by its driver. */
void manager_actual(struct manager *m, uint32_t slot, uint64_t keeps, uint64_t now_ms);

/*
 * The guest sent a message of type PRESSURE: level is of enum virtio_balloon_pressure. MEDIUM,
 * CRITICAL and levels that nobody knows are emergencies; LOW and UNSPECIFIED ask for some more.
 */
void manager_pressure(struct manager *m, uint32_t slot, uint32_t level, uint64_t now_ms);

/* The guest sent a message of type RELIEVED: the emergency, if any, is over in half its time. */
void manager_relieved(struct manager *m, uint32_t slot, uint64_t now_ms);

/* The command of the last set_target was answered. Not ok: it was refused, or timed out. */
void manager_target_answered(struct manager *m, uint32_t slot, bool ok, uint64_t now_ms);

/* A poll for statistics was not answered in time, or brought the same ones again. */
void manager_unanswered(struct manager *m, uint32_t slot, uint64_t now_ms);

/* What the device says of the guest's health; statistics that arrive make it healthy, too. */
void manager_health(struct manager *m, uint32_t slot, enum health_state health, uint64_t now_ms);

/* --- The host -------------------------------------------------------------------------------- */

void manager_host(struct manager *m, const struct manager_host *host, uint64_t now_ms);

/*
 * Reserves bytes within timeout_ms, held for hold_ms once granted (0: RESERVE_HOLD_MS). The outcome
 * comes as an event, from this call (if the memory is free already) or a later one. Errors as
 * reserve_open(): -ENOSPC also when the balance could not free so much without taking from somebody
 * what he uses.
 */
int manager_reserve(struct manager *m, uint64_t bytes, uint64_t timeout_ms, uint64_t hold_ms,
		    uint64_t now_ms, uint64_t *id);

/* Gives up or releases it, without an event. -ENOENT. */
int manager_release(struct manager *m, uint64_t id, uint64_t now_ms);

/* Does what is due; returns when to call again at the latest (an event may make it sooner: ask
 * manager_next()). */
uint64_t manager_tick(struct manager *m, uint64_t now_ms);

/* When the next manager_tick() is due: now, while a pass is under way. */
uint64_t manager_next(const struct manager *m);

/* --- Looking --------------------------------------------------------------------------------- */

/* NULL: no VM there. The structures are the manager's own. */
const struct manager_vm *manager_vm(const struct manager *m, uint32_t slot);
const struct balance_vm *manager_balance(const struct manager *m, uint32_t slot);

/* The i-th decision that moved the VM's target, 0 being the last; NULL: there is none. */
const struct decision *manager_decision(const struct manager *m, uint32_t slot, uint32_t i);

/*
 * Why the VM stands where it does: its last move, and why it stays. As explain_decision(); two
 * sentences, in at most 2 * EXPLAIN_ROOM bytes.
 */
size_t manager_explain(const struct manager *m, uint32_t slot, const char *name, char *buf,
		       size_t len);

/* What should outlive this process. -ENOENT. */
int manager_save(const struct manager *m, uint32_t slot, struct manager_saved *saved,
		 uint64_t now_ms);

#endif
