// SPDX-License-Identifier: MIT
/*
 * Proxmox VE's auto-ballooning, written anew from what it does (pve-manager: PVE/AutoBalloon.pm,
 * PVE/Service/pvestatd.pm; qemu-server: vmstatus()).
 *
 * Every 10 s: goal = 80 % of the host's memory less what is used. Over 10 MiB is handed out, less
 * than -10 MiB is taken back. A guest has "enough" when its free memory (caches not counted) is
 * over a quarter of its minimum. Growing goes to those without, taking begins with those with
 * enough; when that moves nothing, all take part. Within a group, memory above the minimum is
 * divided by shares; nobody moves by more than 100 MiB a round; what those at
 * an end of their range leave over goes round again.
 *
 * How much of the host is used: older versions do not count buffers and page cache, newer ones all
 * that is not available; ZFS' cache is used memory in either. --host-cache gives the host such one.
 */
#include "proxmox.h"

#include <math.h>
#include <stdlib.h>

#include "world.h"

#define CYCLE_S        10            /* pvestatd: $updatetime */
#define DEAD_BAND      (10.0 * MIB)  /* compute_alg1 */
#define MAX_CHANGE     (100.0 * MIB) /* auto_ballooning: $maxchange */
#define ENOUGH_SHARE   0.25          /* of the minimum: compute_alg1 */
#define DEFAULT_SHARES 1000.0        /* compute_alg1 */

/* What a VM gets of the room above the minima; repeat: it is at an end of its range. */
static double desire(const struct proxmox_vm *vm, double room, double shares, bool *repeat)
{
	double desired = vm->min + trunc(room / shares * vm->shares);

	if (desired > vm->max || desired < vm->min)
		*repeat = true;
	if (desired > vm->max)
		return vm->max;
	return desired < vm->min ? vm->min : desired;
}

/* Moves a VM towards what it desires, by at most most. False: it is there, or on the other side. */
static bool move(struct proxmox_vm *vm, double desired, bool growing, double most, double *change)
{
	double wanted, before = vm->wanted;

	if (growing && desired > vm->current)
		wanted = desired < vm->current + most ? desired : vm->current + most;
	else if (desired < vm->current)
		wanted = desired > vm->current - most ? desired : vm->current - most;
	else
		return false;
	vm->wanted = wanted;
	*change = wanted - before;
	return true;
}

enum group { ALL, WITH_ENOUGH, WITHOUT };

static bool takes_part(const struct proxmox_vm *vm, enum group group)
{
	bool enough = vm->free > vm->min * ENOUGH_SHARE && vm->current >= vm->min;

	return !vm->done && (group == ALL || enough == (group == WITH_ENOUGH));
}

/* Hands `bytes` out to a group, or takes them if negative; returns what is left over. */
static double spread(struct proxmox_vm *vms, uint32_t n, enum group group, double bytes,
		     double most)
{
	double rest = bytes;
	bool repeat = true;

	for (uint32_t i = 0; i < n; i++)
		vms[i].done = false;
	while (repeat && rest != 0) {
		double room = rest, shares = 0, moved = 0, progress = 0;

		repeat = false;
		for (uint32_t i = 0; i < n; i++) {
			if (!takes_part(&vms[i], group))
				continue;
			room += vms[i].wanted - vms[i].min;
			shares += vms[i].shares;
		}
		for (uint32_t i = 0; i < n; i++) {
			struct proxmox_vm *vm = &vms[i];
			double change = 0;

			if (!takes_part(vm, group))
				continue;
			if (!move(vm, desire(vm, room, shares, &repeat), bytes > 0, most, &change))
				vm->done = true;
			moved += change;
			progress += fabs(change);
			repeat |= change != 0;
		}
		if (progress < 1)
			break;
		rest -= moved;
	}
	return rest;
}

void proxmox_balance(struct proxmox_vm *vms, uint32_t n, double goal, double most)
{
	double rest;

	for (uint32_t i = 0; i < n; i++)
		vms[i].wanted = vms[i].current;
	if (goal > DEAD_BAND) {
		rest = spread(vms, n, WITHOUT, goal, most);
		if (rest >= goal)
			spread(vms, n, ALL, rest, most);
	} else if (goal < -DEAD_BAND) {
		rest = spread(vms, n, WITH_ENOUGH, goal, most);
		if (rest <= goal)
			spread(vms, n, ALL, rest, most);
	}
}

/* --- in a simulation ------------------------------------------------------------------------- */

static void *create(struct world *w)
{
	return calloc(w->n, sizeof(struct proxmox_vm));
}

static void look(struct proxmox_vm *vm, const struct world *w, const struct guest *g)
{
	struct driver_statistics s = {.set = 0};

	guest_statistics(g, &s);
	*vm = (struct proxmox_vm){.min = world_floor(w, g),
				  .max = g->size,
				  .current = g->size - g->balloon,
				  .free = (double)s.value[VIRTIO_BALLOON_S_MEMFREE],
				  .shares = DEFAULT_SHARES};
}

static void second(void *state, struct world *w)
{
	struct proxmox_vm *vms = state;
	double used = w->total - world_available(w) + world_host_cache(w);

	if (w->now_s % CYCLE_S)
		return;
	for (uint32_t i = 0; i < w->n; i++)
		look(&vms[i], w, &w->guests[i]);
	proxmox_balance(vms, w->n, w->total * HOST_GOAL - used, MAX_CHANGE);
	for (uint32_t i = 0; i < w->n; i++) {
		if (vms[i].wanted != vms[i].current)
			world_keep(w, &w->guests[i], vms[i].wanted);
	}
}

const struct policy policy_proxmox = {
	.name = "proxmox",
	.text = "Proxmox VE's auto-ballooning",
	.create = create,
	.second = second,
	.destroy = free,
};
