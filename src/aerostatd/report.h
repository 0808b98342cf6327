/* SPDX-License-Identifier: MIT */
/* What is known, as JSON: for the control monitor. NULL anywhere means out of memory. */
#ifndef AEROSTATD_REPORT_H
#define AEROSTATD_REPORT_H

#include <json-c/json.h>

#include "base/instant.h"
#include "fleet.h"

struct json_object *report_vm(const struct fleet *fleet, uint32_t slot, struct instant now);
struct json_object *report_vms(const struct fleet *fleet, struct instant now);
struct json_object *report_host(const struct fleet *fleet, struct instant now);

/* One decision, with its sentence. */
struct json_object *report_decision(const struct decision *d, const char *name, struct instant now);

struct json_object *report_judgement(const struct judgement *j, const char *name);

/* Why the VM stands where it does, and the decisions that moved it. */
struct json_object *report_explanation(const struct fleet *fleet, uint32_t slot,
				       struct instant now);

struct json_object *report_news(const struct news_item *item, struct instant now);

#endif
