// SPDX-License-Identifier: MIT
/* Free page hinting: the state machine, in every state and from both sides, and the ids. */
#include "hint_helpers.h"

#include <errno.h>

static void actions_in_every_state(void **state)
{
	static const struct {
		int result;
		enum balloon_hint_state next;
	} expected[BALLOON_HINT_COUNT][BALLOON_HINT_ACTIONS] = {
		[BALLOON_HINT_IDLE] = {{0, BALLOON_HINT_REQUESTED},
				       {0, BALLOON_HINT_IDLE},
				       {0, BALLOON_HINT_DONE}},
		[BALLOON_HINT_REQUESTED] = {{-EBUSY, BALLOON_HINT_REQUESTED},
					    {0, BALLOON_HINT_IDLE},
					    {0, BALLOON_HINT_DONE}},
		[BALLOON_HINT_HINTING] = {{-EBUSY, BALLOON_HINT_HINTING},
					  {0, BALLOON_HINT_IDLE},
					  {0, BALLOON_HINT_DONE}},
		[BALLOON_HINT_FINISHED] = {{0, BALLOON_HINT_REQUESTED},
					   {0, BALLOON_HINT_IDLE},
					   {0, BALLOON_HINT_DONE}},
		[BALLOON_HINT_DONE] = {{0, BALLOON_HINT_REQUESTED},
				       {0, BALLOON_HINT_IDLE},
				       {0, BALLOON_HINT_DONE}},
	};

	(void)state;
	for (int s = 0; s < BALLOON_HINT_COUNT; s++) {
		for (int a = 0; a < BALLOON_HINT_ACTIONS; a++) {
			uint32_t id = reach((enum balloon_hint_state)s), now;
			int result = balloon_hint(&t.b, (enum balloon_hint_action)a);

			assert_int_equal(result, expected[s][a].result);
			assert_int_equal(t.b.st.hint.state, expected[s][a].next);
			assert_int_equal(t.config_changes, result == 0);
			if (t.b.st.hint.state == BALLOON_HINT_IDLE)
				now = ID_STOP;
			else if (t.b.st.hint.state == BALLOON_HINT_DONE)
				now = ID_DONE;
			else if (result == 0)
				now = id ? id + 1 : FIRST;
			else
				now = id;
			assert_int_equal(command(), now);
			end();
		}
	}
}

/* What the driver says in every state: the command's id, another one, STOP. */
static void driver_in_every_state(void **state)
{
	static const enum balloon_hint_state after_id[] = {
		[BALLOON_HINT_IDLE] = BALLOON_HINT_IDLE,
		[BALLOON_HINT_REQUESTED] = BALLOON_HINT_HINTING,
		[BALLOON_HINT_HINTING] = BALLOON_HINT_HINTING,
		[BALLOON_HINT_FINISHED] = BALLOON_HINT_FINISHED,
		[BALLOON_HINT_DONE] = BALLOON_HINT_DONE,
	};

	(void)state;
	for (int s = 0; s < BALLOON_HINT_COUNT; s++) {
		enum balloon_hint_state st = (enum balloon_hint_state)s;
		const uint32_t wrong[] = {ID_DONE, FIRST + 1, 0x80000000, UINT32_MAX};
		enum balloon_hint_state after_stop =
			st == BALLOON_HINT_HINTING ? BALLOON_HINT_FINISHED : st;

		reach(st);
		send_id(FIRST);
		assert_int_equal(t.b.st.hint.state, after_id[s]);
		assert_int_equal(t.events[BALLOON_EVENT_HINT], after_id[s] != st);
		/* Without a command there is nothing that it could be the id of. */
		assert_int_equal(t.b.st.errors[BALLOON_ERR_HINT_ID], st == BALLOON_HINT_IDLE);
		end();

		reach(st);
		send_id(ID_STOP);
		assert_int_equal(t.b.st.hint.state, after_stop);
		assert_int_equal(t.events[BALLOON_EVENT_HINT], after_stop != st);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_HINT_ID], 0);
		end();

		for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
			reach(st);
			send_id(wrong[i]);
			assert_int_equal(t.b.st.hint.state, st);
			assert_int_equal(t.events[BALLOON_EVENT_HINT], 0);
			assert_int_equal(t.b.st.errors[BALLOON_ERR_HINT_ID], 1);
			send_pages(0, PAGE);
			assert_int_equal(marked(), 0);
			end();
		}
	}
}

static void whole_command(void **state)
{
	(void)state;
	for (uint64_t packed = 0; packed < 2; packed++) {
		begin(packed ? PACKED : 0);
		assert_int_equal(command(), ID_STOP);
		assert_int_equal(balloon_hint(&t.b, START), 0);
		assert_int_equal(command(), FIRST);
		send_id(FIRST);
		send_pages(16 * PAGE, 4 * PAGE);
		send_pages(20 * PAGE, 2 * PAGE);
		send_pages(17 * PAGE, PAGE); /* once more */
		check_marked(16, 6);
		assert_int_equal(t.b.st.hinted_bytes, 7 * PAGE);
		send_id(ID_STOP);
		assert_int_equal(command(), FIRST);
		assert_int_equal(balloon_hint(&t.b, FINISH), 0);
		assert_int_equal(command(), ID_DONE);
		check_marked(16, 6);
		/* The next one begins with none. */
		assert_int_equal(balloon_hint(&t.b, START), 0);
		assert_int_equal(command(), FIRST + 1);
		assert_int_equal(marked(), 0);
		assert_int_equal(t.b.st.buffers[QUEUE], 5);
		assert_int_equal(t.events[BALLOON_EVENT_HINT], 2);
		assert_int_equal(t.b.st.errors[BALLOON_ERR_HINT_ID], 0);
		end();
	}
}

static void ignored(void)
{
	uint64_t bytes = t.b.st.hinted_bytes, before = marked();

	send_pages(32 * PAGE, 8 * PAGE);
	assert_int_equal(marked(), before);
	assert_int_equal(t.b.st.hinted_bytes, bytes);
}

/* threats.md, balloon, line 11: hints with stale or forged command ids */
static void stale_and_forged_ids(void **state)
{
	(void)state;
	begin(0);
	ignored(); /* nobody has asked */
	send_id(FIRST);
	ignored(); /* an id that is to come is none yet */
	assert_int_equal(balloon_hint(&t.b, START), 0);
	assert_int_not_equal(command(), FIRST); /* it would look begun */
	ignored();
	send_id(command());
	send_pages(0, PAGE);
	check_marked(0, 1);
	send_id(command() - 1); /* the one before */
	ignored();
	send_id(command() + 1);
	ignored();
	send_id(command());
	send_pages(PAGE, PAGE);
	check_marked(0, 2);
	send_id(ID_STOP);
	ignored(); /* the driver said itself that this was all */
	send_id(command());
	ignored(); /* not a second time */
	end();
}

/* What the driver has sent before it hears that hinting is over. */
static void late_hints(void **state)
{
	static const enum balloon_hint_action actions[] = {STOP, FINISH};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		reach(BALLOON_HINT_HINTING);
		send_pages(0, PAGE);
		assert_int_equal(balloon_hint(&t.b, actions[i]), 0);
		ignored();
		check_marked(0, 1);
		/* The next command comes while the driver is at the last one. */
		assert_int_equal(balloon_hint(&t.b, START), 0);
		assert_int_equal(command(), FIRST + 1);
		ignored();
		assert_int_equal(t.b.st.hint.state, BALLOON_HINT_REQUESTED);
		send_id(ID_STOP);
		assert_int_equal(t.b.st.hint.state, BALLOON_HINT_REQUESTED);
		ignored();
		send_id(FIRST + 1);
		send_pages(0, PAGE);
		check_marked(0, 1);
		end();
	}
}

/* Ids stay above 1, wrap, and pass over one that the driver has open. */
static void ids(void **state)
{
	static const struct {
		uint32_t last, open, next;
	} cases[] = {
		{0, 0, 2},
		{2, 0, 3},
		{2, 3, 4},
		{2, 4, 3},
		{0x7fffffff, 0, 0x80000000},
		{UINT32_MAX - 1, 0, UINT32_MAX},
		{UINT32_MAX - 1, UINT32_MAX, 2},
		{UINT32_MAX, 0, 2},
		{UINT32_MAX, 2, 3},
		{UINT32_MAX, 1, 2},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(0);
		t.b.st.hint.id = cases[i].last;
		if (cases[i].open)
			send_id(cases[i].open);
		assert_int_equal(balloon_hint(&t.b, START), 0);
		assert_int_equal(command(), cases[i].next);
		end();
	}
	/* Also over a reset: a driver may have a hint of the old one in its ring. */
	reach(BALLOON_HINT_HINTING);
	balloon_reset(&t.b);
	assert_int_equal(balloon_hint(&t.b, START), 0);
	assert_int_equal(command(), FIRST + 1);
	end();
}

/* A new driver has heard of nothing; what the last one said was free is in use by now. */
static void fresh_driver(void **state)
{
	(void)state;
	for (int s = 0; s < BALLOON_HINT_COUNT; s++) {
		for (int reset = 0; reset < 2; reset++) {
			bool asked = s == BALLOON_HINT_REQUESTED;
			uint32_t id = reach((enum balloon_hint_state)s);

			if (s == BALLOON_HINT_HINTING || s == BALLOON_HINT_DONE)
				pageset_set(&t.b.hints, 0, 7, 1);
			if (reset) {
				balloon_reset(&t.b);
			} else {
				balloon_queue_stopped(&t.b, RING);
				vq_stop(&t.ring[RING].vq);
				test_balloon_queue(&t, RING, 0, false);
			}
			assert_int_equal(marked(), 0);
			assert_int_equal(t.b.st.hint.state,
					 asked ? BALLOON_HINT_REQUESTED : BALLOON_HINT_IDLE);
			/* An operator's wish is not lost by it. */
			assert_int_equal(command(), asked ? id : ID_STOP);
			assert_int_equal(t.b.st.hint.driver_id, 0);
			end();
		}
	}
}

/* Paused and resumed, the command goes on. */
static void pause_in_every_state(void **state)
{
	(void)state;
	for (int s = 0; s < BALLOON_HINT_COUNT; s++) {
		uint32_t now;

		reach((enum balloon_hint_state)s);
		now = command();
		test_balloon_pause(&t, RING);
		test_balloon_resume(&t, RING);
		assert_int_equal(t.b.st.hint.state, s);
		assert_int_equal(command(), now);
		send_pages(0, PAGE);
		assert_int_equal(marked(), s == BALLOON_HINT_HINTING);
		end();
	}
}

static void refusals(void **state)
{
	(void)state;
	for (int a = 0; a < BALLOON_HINT_ACTIONS; a++) {
		enum balloon_hint_action action = (enum balloon_hint_action)a;

		/* not negotiated */
		begin_at(0, 0, MIB);
		assert_int_equal(balloon_hint(&t.b, action), -ENOTSUP);
		/* no driver */
		test_balloon_pause(&t, VIRTIO_BALLOON_VQ_INFLATE);
		assert_int_equal(balloon_hint(&t.b, action), -ENODEV);
		end();

		/* its queue does not run: to end a command that is no matter */
		begin(0);
		test_balloon_pause(&t, RING);
		assert_int_equal(balloon_hint(&t.b, action), action == START ? -ENODEV : 0);
		end();
		begin(0);
		vq_break(&t.ring[RING].vq, VQ_ERR_LOOP);
		assert_int_equal(balloon_hint(&t.b, action), action == START ? -ENODEV : 0);
		end();

		/* there is nowhere to mark them */
		begin(0);
		balloon_memory_changing(&t.b);
		balloon_memory_changed(&t.b, &t.mem, t.map, NULL);
		assert_int_equal(balloon_hint(&t.b, action), action == START ? -ENODEV : 0);
		assert_int_equal(t.config_changes, action != START);
		end();
	}
}

/* What the configuration says in a state. */
static uint32_t reach_command(int s)
{
	reach((enum balloon_hint_state)s);
	return command();
}

/* "The device SHOULD set free_page_hint_cmd_id to STOP any time that it will not be able to make
 * use of the hints": no place to mark them in, and a queue that is broken. */
static void useless(void **state)
{
	(void)state;
	for (int s = 0; s < BALLOON_HINT_COUNT; s++) {
		bool ends = s == BALLOON_HINT_REQUESTED || s == BALLOON_HINT_HINTING;
		uint32_t before = reach_command(s);

		balloon_memory_changing(&t.b);
		balloon_memory_changed(&t.b, &t.mem, t.map, NULL);
		assert_int_equal(command(), ends ? ID_STOP : before);
		assert_int_equal(t.config_changes, ends);
		assert_int_equal(t.events[BALLOON_EVENT_HINT], ends);
		send_pages(0, PAGE);
		assert_int_equal(t.b.st.hinted_bytes, 0);
		end();

		before = reach_command(s);
		test_offer_one(&t.ring[RING], ~0ULL, PAGE);
		assert_false(balloon_queue_run(&t.b, RING, test_at(0)));
		assert_int_not_equal(t.ring[RING].vq.st.error, 0);
		assert_int_equal(command(), ends ? ID_STOP : before);
		assert_int_equal(t.config_changes, ends);
		end();

		/* Another queue's end is no matter. */
		before = reach_command(s);
		balloon_give_up_ring(&t.b, VIRTIO_BALLOON_VQ_DEFLATE, VQ_ERR_LOOP);
		assert_int_equal(command(), before);
		end();
	}
}

static uint32_t committed_id;

static void note_commit(struct test_balloon *at, enum test_op op)
{
	if (op == TEST_OP_COMMIT)
		committed_id = at->b.st.hint.id;
	if (op == TEST_OP_CONFIG)
		assert_int_equal(committed_id, at->b.st.hint.id);
}

/* No driver hears of an id that a successor of this process might give once more. */
static void id_is_saved_first(void **state)
{
	(void)state;
	begin(0);
	committed_id = 0;
	t.hook = note_commit;
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(balloon_hint(&t.b, START), 0);
		assert_int_equal(t.config_changes, 2 * i + 1);
		assert_int_equal(committed_id, FIRST + i);
		assert_int_equal(balloon_hint(&t.b, STOP), 0);
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(actions_in_every_state),
		cmocka_unit_test(driver_in_every_state),
		cmocka_unit_test(whole_command),
		cmocka_unit_test(stale_and_forged_ids),
		cmocka_unit_test(late_hints),
		cmocka_unit_test(ids),
		cmocka_unit_test(fresh_driver),
		cmocka_unit_test(pause_in_every_state),
		cmocka_unit_test(refusals),
		cmocka_unit_test(useless),
		cmocka_unit_test(id_is_saved_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
