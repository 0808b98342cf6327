/* SPDX-License-Identifier: MIT */
/* What fleet.c, fleet_names.c and roster.c share. */
#ifndef AEROSTATD_FLEET_PARTS_H
#define AEROSTATD_FLEET_PARTS_H

#include "fleet.h"

/* What the fleet does when an endpoint tells something. */
extern const struct endpoint_ops fleet_endpoint_ops;

/* Names it by what its monitor says, or by its socket. */
void fleet_name_vm(struct fleet *f, struct fleet_vm *vm);

/*
 * Under what the state knows it: a UUID is the same after a VM was renamed. Of two that say they
 * have the same one it is that of the first, and none has it by its name. The VM is named already.
 */
void fleet_key(const struct fleet *f, const struct fleet_vm *vm, char *key, size_t room);

/* It is the manager's no more, if it was; what was learned of it is remembered. */
void fleet_unmanage(struct fleet *f, uint32_t slot, const char *why);

/* Monitors that the configuration names. */
void roster_add_configured(struct fleet *f);

/* Watches its directories, those that are not watched yet, and asks libvirt. */
void roster_watch(struct fleet *f);

/* Stops watching directories that it does not name, and drops what was found there. */
void roster_leave(struct fleet *f);
void roster_drop_strangers(struct fleet *f);

#endif
