// SPDX-License-Identifier: MIT
#include "news.h"

#include <stdlib.h>
#include <string.h>

static void forget(struct news_item *item)
{
	free(item->text);
	json_object_put(item->data);
	*item = (struct news_item){0};
}

void news_add(struct news *news, const char *event, const char *text, struct json_object *data,
	      struct instant now)
{
	struct news_item *item = &news->item[++news->last % NEWS_KEPT];

	forget(item);
	*item = (struct news_item){news->last, now, event, strdup(text), data};
}

const struct news_item *news_item(const struct news *news, uint64_t seq)
{
	const struct news_item *item = &news->item[seq % NEWS_KEPT];

	return seq && item->seq == seq ? item : NULL;
}

void news_free(struct news *news)
{
	for (size_t i = 0; i < NEWS_KEPT; i++)
		forget(&news->item[i]);
}
