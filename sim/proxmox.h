/* SPDX-License-Identifier: MIT */
/* The algorithm of Proxmox VE's auto-ballooning; see proxmox.c. */
#ifndef SIM_PROXMOX_H
#define SIM_PROXMOX_H

#include <stdbool.h>
#include <stdint.h>

struct proxmox_vm {
	/* Bytes. current: what it keeps when the round begins; free: by its statistics. */
	double min, max, current, free;
	double shares; /* 1000 if nothing is said */

	double wanted; /* out: what it is to keep */
	bool done;     /* within a round */
};

/* One round: hands goal bytes out to n VMs, or takes them if negative; at most `most` for each. */
void proxmox_balance(struct proxmox_vm *vms, uint32_t n, double goal, double most);

#endif
