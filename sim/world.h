/* SPDX-License-Identifier: MIT */
/*
 * A host with its guests, and the policy that moves memory between them: all of one run.
 *
 * The host has `total` bytes, of which it needs `own` itself. A guest's memory becomes the host's
 * again as the balloon takes it; what a guest has never touched since costs nothing. When guests
 * have touched more than there is, the host swaps, and all of them wait for it.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "guest.h"
#include "trace.h"

/*
 * What the published algorithms aim at: 80 % of the host used (Proxmox), 20 % of it free (MOM). All
 * policies are given the same goal, so that they are compared at the same price.
 */
#define HOST_GOAL 0.8

/*
 * What the host needs itself (its kernel, services, backups), as share of its memory: on average,
 * and how far it goes from there, to another place every five minutes.
 */
#define HOST_OWN       0.02
#define HOST_OWN_RANGE 0.01
#define HOST_OWN_S     300

/* Of what a host swaps that is short of memory so much is missed; it knows idle pages badly. */
#define HOST_SWAP_HOT 0.5

#define NOTES_BYTES 2048

#define SAMPLE_S 60 /* seconds between two samples of the time line */

struct world_options {
	uint32_t guests;
	uint32_t hours;
	uint64_t seed;
	double own;        /* share of guests with our driver, 0 to 1 */
	double budget;     /* memory that guests may keep at the goal, as share of their sizes */
	double floor;      /* of each guest, as share of its size */
	double host_cache; /* reclaimable cache of the host, as share of its memory, if it fits */
	const struct recording *recording; /* NULL: generated */
};

struct world;

struct policy {
	const char *name;
	const char *text; /* what it is, for people */
	/* NULL: out of memory. */
	void *(*create)(struct world *w);
	/* The guests have moved by a second; sets targets. */
	void (*second)(void *state, struct world *w);
	/* A guest's driver has told of pressure. NULL: this policy knows no messages. */
	void (*pressure)(void *state, struct world *w, struct guest *g, uint32_t level);
	void (*relieved)(void *state, struct world *w, struct guest *g); /* NULL as above */
	/* Says in JSON what it did and why, in at most len bytes with the 0. NULL: says nothing. */
	void (*notes)(const void *state, char *buf, size_t len);
	void (*destroy)(void *state);
};

/* Policies by name; NULL behind the last. */
extern const struct policy *const policies[];
extern const struct policy policy_static, policy_proxmox, policy_mom, policy_mom_available,
	policy_aerostat;

/* At one moment of a run. */
struct sample {
	double at_s;
	double wanted;    /* bytes that programs want */
	double kept;      /* sizes less balloons */
	double resident;  /* bytes that guests have of the host */
	double available; /* bytes that the host has left; negative: it swaps */
	double stall;     /* seconds waited in the last SAMPLE_S, all guests together */
	uint64_t kills;   /* so far */
};

struct kind_result {
	uint32_t guests;
	double stall_s, down_s;
	uint64_t kills;
};

struct result {
	const struct policy *policy;
	double run_s, cpu_s; /* how long it took, and of that on a processor */
	double stall_s;      /* guest seconds */
	double stall_max_s;  /* of one guest */
	double down_s; /* guest seconds, by the part of the programs that was down after kills */
	uint64_t kills, kills_unavoidable;
	double freed;     /* byte seconds: sizes less what guests had of the host */
	double ballooned; /* byte seconds in balloons */
	double moved;     /* pages into balloons and out of them */
	uint64_t targets; /* that were set anew */
	uint64_t puffs, messages;
	double host_short_s;   /* seconds in which the host swapped */
	double available_min;  /* bytes */
	double available_mean; /* bytes */
	double sizes;          /* of all guests, bytes */
	double host_total;     /* bytes */
	struct kind_result kind[TRACE_KIND_COUNT];
	char notes[NOTES_BYTES]; /* JSON, or empty */
	double *stalls;          /* by guest, seconds */
	uint32_t n_stalls;
	struct sample *samples;
	uint32_t n_samples;
};

struct world {
	const struct world_options *options;
	const struct policy *policy;
	void *state;
	uint32_t n;
	struct guest *guests;
	struct trace *traces;

	uint64_t now_s;
	double sizes;
	double total, own; /* of the host, bytes */
	struct rng rng;    /* for the host */
	double own_next;   /* where `own` goes until own_until_s */
	uint64_t own_until_s;
	double resident; /* bytes that guests have of it */
	double stalled;  /* part of the last second that guests waited for the host, on average */
	double psi;      /* the same, averaged over 10 s as /proc/pressure does */
	double wanted;
	uint64_t targets;
};

/* Bytes that guests and the host can still have; negative when the host swaps. */
double world_available(const struct world *w);

/* Reclaimable cache that the host has now. */
double world_host_cache(const struct world *w);

/* Bytes that all guests together may keep, on average, to leave the host what HOST_GOAL says. */
double world_goal(const struct world *w);

double world_floor(const struct world *w, const struct guest *g);

/* Lets a guest keep so many bytes, within its floor and its size. */
void world_keep(struct world *w, struct guest *g, double bytes);

/*
 * Runs a policy. progress (may be NULL) is set to the simulated seconds as they pass. -ENOMEM.
 * result is to be freed with result_free() in either case.
 */
int world_run(const struct world_options *options, const struct policy *policy,
	      atomic_uint_fast64_t *progress, struct result *result);
void result_free(struct result *r);

/*
 * Makes the guests of a run as the options say: the same ones each time. world_free() in either
 * case. -ENOMEM.
 */
int world_init(struct world *w, const struct world_options *options);
void world_free(struct world *w);

#endif
