/* SPDX-License-Identifier: MIT */
/* What the control monitor understands, and what it tells. */
#ifndef AEROSTATD_COMMANDS_H
#define AEROSTATD_COMMANDS_H

#include "control.h"
#include "qmp/schema.h"

/* Handlers find their struct control as the request's opaque. Events in the order of news_kind. */
extern const struct qmp_schema commands_schema;

/* Answers who waits for a reservation: it was granted, or not. *w is free then. */
void commands_reserved(struct control *c, struct control_waiter *w, enum reserve_change change);

#endif
