/* SPDX-License-Identifier: MIT */
/*
 * What backend.c shares with those who ask: endpoint.c and questions.c a monitor, and
 * libvirt_domain.c libvirt.
 */
#ifndef AEROSTATD_ENDPOINT_PARTS_H
#define AEROSTATD_ENDPOINT_PARTS_H

#include "base/instant.h"
#include "common/qmp_link.h"
#include "endpoint.h"

/* What can be asked, in the order in which it is. */
enum question {
	QUESTION_COMMANDS, /* what the monitor understands; decides what kind it is */
	QUESTION_NAME,
	QUESTION_UUID,
	QUESTION_STATUS,   /* whether the VM runs */
	QUESTION_SIZE,     /* its memory, of QEMU */
	QUESTION_NAMED,    /* where the balloon is, of QEMU: among the devices with a name */
	QUESTION_NAMELESS, /* and those without */
	QUESTION_POLLING,  /* have statistics asked for regularly */
	QUESTION_PUSHING,  /* and pushed, of ours */
	QUESTION_DEVICE,   /* all about it, of ours */
	QUESTION_BALLOON,  /* what the VM keeps */
	QUESTION_STATS,    /* the last statistics */
	QUESTION_HEALTH,   /* of ours */
	QUESTION_COUNT,
};

#define ASK(question) (1U << QUESTION_##question)
#define ASK_ALL       ((1U << QUESTION_COUNT) - 1)

/* Sizes above this are no memory of a machine. */
#define ENDPOINT_SIZE_MAX (1ULL << 47)

struct libvirt;
struct libvirt_job;

/* Whom it asks, and how. */
struct endpoint_backend {
	void (*on_timer)(uv_timer_t *timer);
	int (*set_target)(struct endpoint *e, uint64_t keep); /* only while SERVING */
	void (*observe)(struct endpoint *e);                  /* whether it only does has changed */
	void (*drop)(struct endpoint *e); /* it is given up: no answer is awaited any more */
};

struct endpoint {
	const struct endpoint_backend *backend;
	uv_loop_t *loop;
	uv_timer_t timer; /* RESTING: the next attempt; SERVING: the next beat */
	char *path;
	uint32_t interval_ms;
	bool observe;
	const struct endpoint_ops *ops;
	void *opaque;
	void *user;
	struct endpoint_view view;
	uint64_t rest_ms;
	uint64_t beats;
	uint64_t last_update;      /* QEMU's, seconds; 0: never */
	uint64_t forgotten_update; /* the same: of a driver that is gone */
	uint64_t runs_since_ms;    /* the VM, as far as is known */
	bool closing;

	union {
		struct { /* of a monitor */
			struct qmp_link *link;
			unsigned int round; /* questions of this round that are still to be asked */
			unsigned int next;  /* questions to ask when this round is over */
			enum question asked; /* waits for its answer, while round_busy */
			bool round_busy;
			uint64_t asked_us;
			uint32_t target_serial; /* of the last command; earlier ones are not told */
			unsigned int offers;    /* enum offer */
			char balloon[ENDPOINT_PATH_MAX]; /* empty: not found */
		};
		struct { /* of libvirt */
			struct libvirt *libvirt;
			struct libvirt_job *job; /* is under way */
			uint64_t wanted;         /* to be told after it, or MANAGER_UNKNOWN */
			bool target_asked;       /* the owner waits for an answer to its target */
			bool anew;               /* the next look is at everything */
		};
	};
};

/* What an answer means for the endpoint. */
enum verdict_on_answer {
	ANSWER_FINE,
	ANSWER_NO_BALLOON,
	ANSWER_NONSENSE,
};

/* May the question be asked now? Some are for one kind of monitor only, or for one that offers it.
 */
bool question_applies(const struct endpoint *e, enum question q);

/* The command, and its arguments as one reference; NULL: out of memory. */
const char *question_command(enum question q);
struct json_object *question_args(const struct endpoint *e, enum question q);

/* Takes what the monitor answered into the view; value is NULL if it answered with an error. Tells
 * what has changed by bits 1 << enum endpoint_change. */
enum verdict_on_answer question_answer(struct endpoint *e, enum question q,
				       struct json_object *value, struct instant now,
				       unsigned int *changes);

/* Takes statistics as guest-stats and the event BALLOON have them. True: they are new. */
bool endpoint_take_stats(struct endpoint *e, struct json_object *data, struct instant now);

/* Takes what the VM keeps. True: it is something else than before. */
bool endpoint_take_actual(struct endpoint *e, struct json_object *data);

bool endpoint_set_actual(struct endpoint *e, uint64_t actual);

/* Its memory has that size, or its driver is another; tells by bits 1 << enum endpoint_change. */
void endpoint_set_size(struct endpoint *e, uint64_t size, unsigned int *changes);
void endpoint_set_driver(struct endpoint *e, enum manager_driver driver, unsigned int *changes);

/* Takes figures of that age, and of QEMU's second `update`. False: they come too soon. */
bool endpoint_set_stats(struct endpoint *e, struct guest_stats *fresh, uint64_t update,
			uint64_t age_ms, struct instant now);

/* How old figures of that second are. */
uint64_t endpoint_wall_age_ms(uint64_t update, struct instant now);

/* Statistics that should be here by now, of a VM that runs. */
bool endpoint_overdue(const struct endpoint *e, uint64_t now_ms);

/* Text for names: without control characters, and cut where it is too long. */
void endpoint_take_text(char *place, size_t room, const char *text);

/* The VM runs from now on, or does not. */
void endpoint_take_running(struct endpoint *e, bool running, struct instant now);

/* Takes the verdict of a device of ours. True: it is another than before. */
bool endpoint_take_health(struct endpoint *e, struct json_object *data);

/* The guest is another, or its driver: nothing is known of it. */
void endpoint_forget_driver(struct endpoint *e);

/* Tells the owner of one thing, and of all in bits 1 << enum endpoint_change as far as they are of
 * interest. */
void endpoint_tell(struct endpoint *e, enum endpoint_change what);
void endpoint_tell_all(struct endpoint *e, unsigned int changes);

/* Gives the connection up, for that reason; the timer tries it again. */
void endpoint_rest(struct endpoint *e, enum endpoint_absence absence, const char *why);

/* An endpoint whose backend is called by its timer at once; else as endpoint_new(). */
struct endpoint *endpoint_create(uv_loop_t *loop, const char *path, uint32_t interval_ms,
				 bool observe, const struct endpoint_ops *ops, void *opaque,
				 const struct endpoint_backend *backend);

#endif
