// SPDX-License-Identifier: MIT
/* Static shares: every guest keeps the same part of its size, for ever. */
#include "world.h"

static void *create(struct world *w)
{
	for (uint32_t i = 0; i < w->n; i++)
		world_keep(w, &w->guests[i], w->guests[i].size * world_goal(w) / w->sizes);
	return w;
}

static void second(void *state, struct world *w)
{
	(void)state;
	(void)w;
}

static void destroy(void *state)
{
	(void)state;
}

const struct policy policy_static = {
	.name = "static",
	.text = "each guest keeps the same share of its size",
	.create = create,
	.second = second,
	.destroy = destroy,
};
