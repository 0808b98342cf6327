// SPDX-License-Identifier: MIT
/*
 * The baseline decides as Proxmox' own does: situations and outcomes from that project's test of
 * its algorithm (pve-manager, test/balloontest.pl).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxmox.h"

#define MB 1e6 /* these are decimal there */

/* min, current, free; all have 2000 MB and the first twice the shares of the others. */
#define VM(min_, current_, free_, shares_)                                                        \
	{                                                                                         \
		.min = (min_)*MB, .max = 2000 * MB, .current = (current_)*MB, .free = (free_)*MB, \
		.shares = (shares_)                                                               \
	}

/* cmocka's own is for float. */
#define assert_near(a, b) assert_true(fabs((a) - (b)) < 0.01)

static const struct proxmox_vm two[] = {VM(1000, 1000, 0, 2000), VM(1000, 1000, 0, 1000)};
static const struct proxmox_vm full[] = {VM(2000, 2000, 0, 2000), VM(1000, 1000, 0, 1000)};
static const struct proxmox_vm three[] = {VM(2000, 2000, 0, 2000), VM(1000, 1007, 0, 1000),
					  VM(1000, 1000, 512, 1000)};

static const struct {
	const struct proxmox_vm *vms;
	uint32_t n;
	double goal;
	double outcome[3];
} rounds[] = {
	{two, 2, 0, {1000, 1000}},           {two, 2, 90, {1060, 1030}},
	{two, 2, 150, {1100, 1050}},         {two, 2, 270, {1100, 1090}},
	{full, 2, 0, {2000, 1000}},          {full, 2, 18, {2000, 1018}},
	{full, 2, 500, {2000, 1100}},        {three, 3, 0, {2000, 1007, 1000}},
	{three, 3, 11, {2000, 1018, 1000}},  {three, 3, 80, {2000, 1087, 1000}},
	{three, 3, 200, {2000, 1107, 1000}},
};

static void one_round(void **state)
{
	struct proxmox_vm vms[3];

	(void)state;
	for (size_t i = 0; i < sizeof(rounds) / sizeof(rounds[0]); i++) {
		memcpy(vms, rounds[i].vms, rounds[i].n * sizeof(vms[0]));
		proxmox_balance(vms, rounds[i].n, rounds[i].goal * MB, 100 * MB);
		for (uint32_t k = 0; k < rounds[i].n; k++)
			assert_near(vms[k].wanted / MB, rounds[i].outcome[k]);
	}
}

/* Rounds until nothing moves; what was moved is no longer to be done, and changes what is free. */
static void settle(struct proxmox_vm *vms, uint32_t n, double goal)
{
	double moved;

	do {
		moved = 0;
		proxmox_balance(vms, n, goal, 100 * MB);
		for (uint32_t k = 0; k < n; k++) {
			double change = vms[k].wanted - vms[k].current;

			vms[k].current = vms[k].wanted;
			vms[k].free = vms[k].free + change > 0 ? vms[k].free + change : 0;
			goal -= change;
			moved += change > 0 ? change : -change;
		}
	} while (moved > 0);
}

static void until_settled(void **state)
{
	static const struct {
		double goal, outcome[2];
	} grows[] = {
		{180, {1120, 1060}}, {270, {1180, 1090}}, {600, {1300, 1300}}, {900, {1600, 1300}}};
	static const struct {
		double goal, outcome[2];
	} shrinks[] = {{-200, {1200, 1200}}, {-400, {1200, 1000}}, {-593, {1007, 1000}}};
	struct proxmox_vm vms[3], grown[3];

	(void)state;
	for (size_t i = 0; i < sizeof(grows) / sizeof(grows[0]); i++) {
		memcpy(vms, two, sizeof(two));
		settle(vms, 2, grows[i].goal * MB);
		assert_near(vms[0].current / MB, grows[i].outcome[0]);
		assert_near(vms[1].current / MB, grows[i].outcome[1]);
	}
	memcpy(grown, three, sizeof(three));
	settle(grown, 3, 593 * MB);
	assert_near(grown[1].current / MB, 1300);
	assert_near(grown[2].current / MB, 1300);
	for (size_t i = 0; i < sizeof(shrinks) / sizeof(shrinks[0]); i++) {
		memcpy(vms, grown, sizeof(grown));
		settle(vms, 3, shrinks[i].goal * MB);
		assert_near(vms[1].current / MB, shrinks[i].outcome[0]);
		assert_near(vms[2].current / MB, shrinks[i].outcome[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_round),
		cmocka_unit_test(until_settled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
