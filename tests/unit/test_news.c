// SPDX-License-Identifier: MIT
/* The last events: numbered, kept as long as there is room, and no longer. */
#include "alloc_helpers.h"

#include <stdio.h>

#include "../../src/aerostatd/news.h"

static struct news news;

static int setup(void **state)
{
	(void)state;
	news = (struct news){0};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	news_free(&news);
	return 0;
}

static void add(uint64_t i)
{
	struct json_object *data = json_object_new_object();
	char text[32];

	snprintf(text, sizeof(text), "number %llu", (unsigned long long)i);
	json_object_object_add(data, "i", json_object_new_uint64(i));
	news_add(&news, "SOMETHING", text, data, (struct instant){.mono_ms = i});
}

static void nothing(void **state)
{
	(void)state;
	assert_int_equal(news.last, 0);
	assert_null(news_item(&news, 0));
	assert_null(news_item(&news, 1));
	assert_null(news_item(&news, NEWS_KEPT));
	assert_null(news_item(&news, UINT64_MAX));
}

static void the_last_are_kept(void **state)
{
	const uint64_t n = 3 * NEWS_KEPT + 7;

	(void)state;
	for (uint64_t i = 1; i <= n; i++) {
		add(i);
		assert_int_equal(news.last, i);
	}
	for (uint64_t seq = 0; seq <= n + NEWS_KEPT; seq++) {
		const struct news_item *item = news_item(&news, seq);
		struct json_object *i;

		if (seq <= n - NEWS_KEPT || seq > n) {
			assert_null(item);
			continue;
		}
		assert_non_null(item);
		assert_int_equal(item->seq, seq);
		assert_int_equal(item->at.mono_ms, seq);
		assert_string_equal(item->event, "SOMETHING");
		assert_true(json_object_object_get_ex(item->data, "i", &i));
		assert_int_equal(json_object_get_uint64(i), seq);
		assert_non_null(strstr(item->text, "number "));
	}
}

static void without_data_or_memory(void **state)
{
	(void)state;
	news_add(&news, "BARE", "text", NULL, (struct instant){0});
	assert_null(news_item(&news, 1)->data);
	alloc_fail_at(1);
	news_add(&news, "POOR", "text", NULL, (struct instant){0});
	alloc_fail_at(0);
	assert_true(alloc_failed());
	assert_null(news_item(&news, 2)->text);
	assert_string_equal(news_item(&news, 2)->event, "POOR");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(the_last_are_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(without_data_or_memory, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
