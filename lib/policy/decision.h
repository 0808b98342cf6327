/* SPDX-License-Identifier: MIT */
/*
 * One decision about one VM, as data: what was done or why nothing was, and the numbers that led to
 * it. explain.h makes a sentence of it.
 */
#ifndef POLICY_DECISION_H
#define POLICY_DECISION_H

#include <stdint.h>

#include "policy/verdict.h"

enum action {
	ACTION_KEEP,    /* the target stays */
	ACTION_TAKE,    /* it falls: the balloon grows */
	ACTION_GIVE,    /* it rises */
	ACTION_RELEASE, /* it rises to all that the VM may have, at once: an emergency */
	ACTION_COUNT,
};

enum reason {
	/* For a release. */
	REASON_PRESSURE,     /* the guest's driver reported medium or critical pressure */
	REASON_VERDICT,      /* its statistics show it: see .verdict */
	REASON_SILENT_SHORT, /* it went silent when it was short of memory */
	REASON_TOOK_BACK,    /* its driver took memory back by itself, as before a kill */
	/* For giving. */
	REASON_GROWTH,       /* what it uses grows */
	REASON_SHORT,        /* little is available in it */
	REASON_LOW_PRESSURE, /* it reported low pressure, or struggles in the background */
	REASON_PLENTY,       /* its share of what nobody else needs */
	REASON_STALLED,      /* it cannot give what was asked: backed off */
	REASON_RELEARNED,    /* it got into trouble with less than this */
	REASON_BOUNDS,       /* its floor or ceiling is on the other side; also for taking */
	/* For taking. */
	REASON_IDLE,        /* it does not use it; kept free for whoever needs it next */
	REASON_SCARCE,      /* others use theirs more, or come first */
	REASON_HOST,        /* the host is under pressure */
	REASON_RESERVATION, /* somebody reserved memory */
	/* For keeping. */
	REASON_SETTLED,       /* it is within the dead band of where it should be */
	REASON_JUST_MOVED,    /* it was moved the other way a moment ago */
	REASON_PENDING,       /* an older target is not reached yet */
	REASON_EMERGENCY,     /* an emergency is a moment ago */
	REASON_LEARNED,       /* it got into trouble with less, or could not give more */
	REASON_NO_ROOM,       /* it should have more, and there is nothing yet to give */
	REASON_NO_DRIVER,     /* no driver is at work */
	REASON_NO_STATISTICS, /* it sends none */
	REASON_STALE,         /* its statistics are too old to act on */
	REASON_UNRESPONSIVE,  /* it hangs */
	REASON_PAUSED,        /* it does not run */
	REASON_UNCOOPERATIVE, /* it does not follow its targets */
	REASON_INHIBITED,     /* the balloon must not be used now, or refuses */
	REASON_NO_HOST,       /* nothing is known of the host, and there is no budget */
	REASON_COUNT,
};

#define DECISION_UNKNOWN UINT64_MAX /* of a number */

/* All in bytes, where not said otherwise. DECISION_UNKNOWN for what is not known. */
struct decision {
	uint64_t at_ms;
	uint64_t from, to; /* what the VM may keep, before and after */
	enum action action;
	enum reason reason;
	enum verdict verdict; /* at that time */
	uint32_t pressure;    /* level of the message, for REASON_PRESSURE and LOW_PRESSURE */
	uint64_t goal;        /* where it should be, if nothing stood in the way */
	uint64_t actual, used, working, available, growth; /* growth: a second */
	uint64_t learned;                                  /* learned floor; 0: none */
	uint64_t age_ms;                                   /* of the statistics */
	uint64_t budget; /* what all VMs of the host may keep together */
	uint64_t room;   /* what was left of it to give */
};

const char *action_name(enum action action);
const char *reason_name(enum reason reason);

#endif
