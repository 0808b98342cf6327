// SPDX-License-Identifier: MIT
/* Demand: within bounds, the same for the same seed, and what a file says. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "guest.h"
#include "trace.h"
#include "tree_helpers.h"

#define DAY_S 86400

static void generated(void **state)
{
	(void)state;
	for (uint32_t k = 0; k < TRACE_RECORDED; k++) {
		enum trace_kind kind = (enum trace_kind)k;
		double lowest = GIB, highest = 0, other = 0;
		uint32_t hung = 0;
		struct trace a, b, c;

		trace_init(&a, kind, GIB, rng_stream(1, k));
		trace_init(&b, kind, GIB, rng_stream(1, k));
		trace_init(&c, kind, GIB, rng_stream(2, k));
		for (uint32_t second = 0; second < 2 * DAY_S; second++) {
			double demand = trace_demand(&a, second);

			assert_true(demand == trace_demand(&b, second));
			other += demand != trace_demand(&c, second);
			hung += trace_hangs(&a, second);
			lowest = demand < lowest ? demand : lowest;
			highest = demand > highest ? demand : highest;
		}
		assert_true(lowest > 0 && highest < 1.2 * GIB);
		assert_true(kind == TRACE_STEADY || highest > 1.5 * lowest);
		assert_true(kind == TRACE_LEAKING || highest < GIB);
		assert_true(other > DAY_S);
		assert_true(kind == TRACE_HUNG ? hung > 300 : hung == 0);
	}
}

static int read_text(struct recording *r, const char *text)
{
	char path[128];
	int fd = mkstemp(tree_pattern(path, sizeof(path))), ret;
	FILE *file = fdopen(fd, "w");

	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
	ret = recording_read(r, path);
	unlink(path);
	return ret;
}

static void recorded(void **state)
{
	struct recording r;
	struct trace t;

	(void)state;
	assert_int_equal(read_text(&r, "vm,seconds,bytes\n# a comment\nb,10,1000\na,0,5\r\n\n"
				       "b,20,2000\na,1.5,7\nb,20,500\n"),
			 0);
	assert_int_equal(r.guests, 2);
	assert_int_equal(r.first[1], 3);
	assert_true(r.highest[0] == 2000 && r.highest[1] == 7);
	trace_init_recorded(&t, r.points, r.first[1]);
	assert_int_equal(t.kind, TRACE_RECORDED);
	assert_true(trace_demand(&t, 0) == 1000);
	assert_true(trace_demand(&t, 15) == 1500);
	assert_true(trace_demand(&t, 20) == 500);
	assert_true(trace_demand(&t, 1000000) == 500);
	recording_free(&r);
}

static void no_recording(void **state)
{
	static const char *const texts[] = {
		"",
		"vm,seconds,bytes\n",
		"a\n",
		"a,1\n",
		"a,1,2,3\n",
		"a,-1,2\n",
		"a,1,-2\n",
		"a,nan,2\n",
		"a,1,inf\n",
		"a,1,2x\n",
		",1,2\n",
		"a,,2\n",
		"a,5,1\na,4,1\n",
		"a-name-that-is-longer-than-any-virtual-machine-should-ever-have-been-given,1,2\n",
	};
	struct recording r;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_equal(read_text(&r, texts[i]), -EINVAL);
		assert_null(r.points);
	}
	assert_int_equal(recording_read(&r, "/nonexistent/trace"), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(generated),
		cmocka_unit_test(recorded),
		cmocka_unit_test(no_recording),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
