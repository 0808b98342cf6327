// SPDX-License-Identifier: MIT
#include "helpers.h"

#include "base/crc32.h"

/* Values that other implementations give (zlib). */
static void known_values(void **state)
{
	uint8_t all[256];

	(void)state;
	for (size_t i = 0; i < sizeof(all); i++)
		all[i] = (uint8_t)i;
	assert_int_equal(crc32_add(0, NULL, 0), 0);
	assert_int_equal(crc32_add(0, "123456789", 9), 0xcbf43926);
	assert_int_equal(crc32_add(0, "a", 1), 0xe8b7be43);
	assert_int_equal(crc32_add(0, all, sizeof(all)), 0x29058c73);
}

static void in_pieces(void **state)
{
	static const char text[] = "a balloon in pieces";

	(void)state;
	for (size_t cut = 0; cut < sizeof(text); cut++) {
		uint32_t crc = crc32_add(0, text, cut);

		assert_int_equal(crc32_add(crc, text + cut, sizeof(text) - cut),
				 crc32_add(0, text, sizeof(text)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
