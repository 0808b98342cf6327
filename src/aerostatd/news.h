/* SPDX-License-Identifier: MIT */
/* What has happened of late, for those who ask later: the last events, with a sentence each. */
#ifndef AEROSTATD_NEWS_H
#define AEROSTATD_NEWS_H

#include <json-c/json.h>
#include <stdint.h>

#include "base/instant.h"

#define NEWS_KEPT 512U

/* One thing that has happened. */
struct news_item {
	uint64_t seq; /* counts from 1 */
	struct instant at;
	const char *event; /* static */
	char *text;
	struct json_object *data; /* or NULL */
};

struct news {
	uint64_t last; /* seq of the newest; 0: nothing has happened */
	struct news_item item[NEWS_KEPT];
};

/* text is copied; data: one reference, taken over. Out of memory leaves what could not be kept out.
 */
void news_add(struct news *news, const char *event, const char *text, struct json_object *data,
	      struct instant now);

/* The item of that seq, NULL if it is not kept (any more). */
const struct news_item *news_item(const struct news *news, uint64_t seq);

void news_free(struct news *news);

#endif
