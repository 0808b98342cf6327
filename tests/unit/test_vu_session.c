// SPDX-License-Identifier: MIT
/* Framing, the request table, replies, and descriptors that are never lost. */
#include "vu_helpers.h"

static struct test_front f;

#define NEW         1U
#define READY       2U
#define PAYLOAD_MAX ((uint32_t)sizeof(union vu_payload))

/* What the specification says of each request, written down once more. */
static const struct {
	uint32_t request;
	uint32_t size_min, size_max;
	uint32_t fds_min, fds_max;
	int feature;
	uint32_t states;
	bool replies;
} requests[] = {
	{VU_GET_FEATURES, 0, 0, 0, 0, -1, NEW | READY, true},
	{VU_SET_FEATURES, 8, 8, 0, 0, -1, NEW | READY, false},
	{VU_SET_OWNER, 0, 0, 0, 0, -1, NEW | READY, false},
	{VU_RESET_OWNER, 0, 0, 0, 0, -1, NEW | READY, false},
	{VU_SET_MEM_TABLE, 8, 8 + 8 * 32, 0, 8, -1, READY, false},
	{VU_SET_LOG_BASE, 16, 16, 1, 1, VU_PF_LOG_SHMFD, NEW | READY, true},
	{VU_SET_LOG_FD, 0, 8, 1, 1, -1, NEW | READY, false},
	{VU_SET_VRING_NUM, 8, 8, 0, 0, -1, READY, false},
	{VU_SET_VRING_ADDR, 40, 40, 0, 0, -1, READY, false},
	{VU_SET_VRING_BASE, 8, 8, 0, 0, -1, READY, false},
	{VU_GET_VRING_BASE, 8, 8, 0, 0, -1, NEW | READY, true},
	{VU_SET_VRING_KICK, 8, 8, 0, 1, -1, READY, false},
	{VU_SET_VRING_CALL, 8, 8, 0, 1, -1, NEW | READY, false},
	{VU_SET_VRING_ERR, 8, 8, 0, 1, -1, NEW | READY, false},
	{VU_GET_PROTOCOL_FEATURES, 0, 0, 0, 0, -1, NEW | READY, true},
	{VU_SET_PROTOCOL_FEATURES, 8, 8, 0, 0, -1, NEW | READY, false},
	{VU_GET_QUEUE_NUM, 0, 0, 0, 0, VU_PF_MQ, NEW | READY, true},
	{VU_SET_VRING_ENABLE, 8, 8, 0, 0, -1, READY, false},
	{VU_SET_BACKEND_REQ_FD, 0, 8, 1, 1, VU_PF_BACKEND_REQ, NEW | READY, false},
	{VU_GET_CONFIG, 12, 12 + 256, 0, 0, VU_PF_CONFIG, NEW | READY, true},
	{VU_SET_CONFIG, 12, 12 + 256, 0, 0, VU_PF_CONFIG, NEW | READY, false},
	{VU_GET_MAX_MEM_SLOTS, 0, 0, 0, 0, VU_PF_CONFIGURE_MEM_SLOTS, NEW | READY, true},
	{VU_ADD_MEM_REG, 40, 40, 1, 1, VU_PF_CONFIGURE_MEM_SLOTS, READY, false},
	{VU_REM_MEM_REG, 40, 40, 0, 1, VU_PF_CONFIGURE_MEM_SLOTS, READY, false},
	{VU_SET_DEVICE_STATE_FD, 8, 8, 1, 1, VU_PF_DEVICE_STATE, NEW | READY, true},
	{VU_CHECK_DEVICE_STATE, 0, 0, 0, 0, VU_PF_DEVICE_STATE, NEW | READY, true},
};

static bool refused_by_table(const char *error)
{
	static const char *const errors[] = {
		"message has the wrong size for its request",
		"request needs a protocol feature that was not negotiated",
		"request comes before SET_FEATURES",
		"message has the wrong number of file descriptors",
		"oversized message",
	};

	for (size_t i = 0; error && i < ARRAY_SIZE(errors); i++) {
		if (strcmp(error, errors[i]) == 0)
			return true;
	}
	return false;
}

/* One message in a fresh session; checks that it is refused or not, and what is left of it. */
static void check_message(size_t row, uint32_t size, uint32_t n_fds, bool feature, bool ready)
{
	const uint32_t request = requests[row].request;
	struct vu_header header = {request, VU_FLAG_VERSION | VU_FLAG_NEED_REPLY, size},
			 reply = {0};
	uint64_t protocol = 1ULL << VU_PF_REPLY_ACK;
	uint8_t payload[PAYLOAD_MAX + 8] = {0};
	union vu_payload answer = {0};
	int fds[VU_FDS_MAX], open_before = front_count_fds(), r;
	bool acceptable = size >= requests[row].size_min && size <= requests[row].size_max &&
			  n_fds >= requests[row].fds_min && n_fds <= requests[row].fds_max &&
			  (requests[row].feature < 0 || feature) &&
			  requests[row].states & (ready ? READY : NEW);

	front_init(&f);
	if (requests[row].feature >= 0 && feature)
		protocol |= 1ULL << requests[row].feature;
	assert_int_equal(front_send_u64(&f, VU_SET_PROTOCOL_FEATURES, protocol, -1), 0);
	if (ready)
		assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, F_PROTOCOL, -1), 0);
	for (uint32_t i = 0; i < n_fds; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	r = front_send_raw(&f, header, payload, fds, n_fds);
	if (refused_by_table(f.s.error) == acceptable || (!acceptable && r != -EPROTO))
		fail_msg("request %u, %u bytes, %u descriptors, feature %d, ready %d: %d, %s",
			 request, size, n_fds, feature, ready, r, f.s.error ? f.s.error : "-");
	/* One answer: its own, or an acknowledgement that says how it went; never one for the
	 * other. */
	if (!r || !requests[row].replies) {
		assert_true(front_reply(&f, &reply, &answer));
		assert_int_equal(reply.request, request);
	}
	if (!requests[row].replies) {
		assert_int_equal(reply.size, 8);
		/* an acknowledgement of SET_PROTOCOL_FEATURES 0 went with the feature */
		assert_int_equal(answer.u64, r != 0);
	}
	assert_false(front_reply(&f, &reply, &answer));
	front_end(&f);
	assert_int_equal(front_count_fds(), open_before);
}

static void every_request(void **state)
{
	static const uint32_t fd_counts[] = {0, 1, 2, VU_FDS_MAX};
	const uint32_t odd[] = {1, 4, 7, 9, 16, 47, 263, 265, PAYLOAD_MAX, PAYLOAD_MAX + 1};

	(void)state;
	for (size_t row = 0; row < ARRAY_SIZE(requests); row++) {
		const uint32_t near[] = {0,
					 requests[row].size_min - 1,
					 requests[row].size_min,
					 requests[row].size_min + 1,
					 requests[row].size_max - 1,
					 requests[row].size_max,
					 requests[row].size_max + 1};

		for (uint32_t k = 0; k < 2 * ARRAY_SIZE(fd_counts) * 2; k++) {
			uint32_t n_fds = fd_counts[k / 4];
			bool feature = k & 1, ready = k & 2;

			if (requests[row].request == VU_SET_PROTOCOL_FEATURES && n_fds == 0)
				continue; /* would switch the acknowledgement off */
			for (size_t i = 0; i < ARRAY_SIZE(near); i++)
				check_message(row, near[i], n_fds, feature, ready);
			for (size_t i = 0; i < ARRAY_SIZE(odd); i++)
				check_message(row, odd[i], n_fds, feature, ready);
		}
	}
}

static void unknown_requests(void **state)
{
	(void)state;
	for (uint32_t request = 0; request < 300; request++) {
		uint32_t number = request == 299 ? UINT32_MAX : request;
		struct vu_header header = {number, VU_FLAG_VERSION | VU_FLAG_NEED_REPLY, 0},
				 reply = {0};
		union vu_payload answer = {0};
		bool known = false;

		for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
			known |= requests[i].request == number;
		assert_int_equal(vu_request_row(number) != NULL, known);
		if (known)
			continue;
		front_negotiate(&f, F_PROTOCOL);
		assert_int_equal(front_send_raw(&f, header, NULL, NULL, 0), -EPROTO);
		assert_string_equal(f.s.error, "unknown request");
		assert_true(front_reply(&f, &reply, &answer));
		assert_int_equal(answer.u64, 1);
		front_end(&f);
	}
}

static void header_flags(void **state)
{
	static const struct {
		uint32_t flags;
		bool ok;
	} cases[] = {{0, false}, {1, true},  {2, false}, {3, false},  {4, false},
		     {5, false}, {8, false}, {9, true},  {13, false}, {0xfffffff1, true}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vu_header header = {VU_GET_FEATURES, cases[i].flags, 0};

		front_init(&f);
		assert_int_equal(front_send_raw(&f, header, NULL, NULL, 0),
				 cases[i].ok ? 0 : -EPROTO);
		front_end(&f);
	}
}

/* threats.md, socket, line 15: a message cut at every place. */
static void split_messages(void **state)
{
	const struct vu_header message = {VU_SET_FEATURES, VU_FLAG_VERSION, 8};
	const uint64_t value = F_PROTOCOL | F_V1;
	const size_t total = sizeof(message) + sizeof(value);
	uint8_t bytes[sizeof(message) + sizeof(value)];

	(void)state;
	memcpy(bytes, &message, sizeof(message));
	memcpy(bytes + sizeof(message), &value, sizeof(value));
	for (size_t step = 1; step <= 12; step++) {
		size_t at = 0;

		front_init(&f);
		while (at < total) {
			size_t n = vu_session_wanted(&f.s);

			assert_int_equal(n, at < 12 ? 12 - at : 20 - at);
			n = min_u64(n, step);
			assert_int_equal(vu_session_feed(&f.s, bytes + at, n, NULL, 0), 0);
			at += n;
		}
		assert_true(f.features == F_V1);
		assert_int_equal(vu_session_wanted(&f.s), 12);
		front_end(&f);
	}
}

/* Descriptors come with the first byte, or are refused; and closed in any case. */
static void descriptors_in_the_middle(void **state)
{
	(void)state;
	for (size_t at = 0; at < 20; at++) {
		struct vu_header header = {VU_SET_VRING_CALL, VU_FLAG_VERSION, 8};
		uint8_t bytes[20] = {0};
		int before = front_count_fds(), r = 0;

		memcpy(bytes, &header, sizeof(header));
		front_init(&f);
		for (size_t i = 0; i < 20 && !r; i++) {
			int fd = i == at ? eventfd(0, EFD_CLOEXEC) : -1;

			r = vu_session_feed(&f.s, bytes + i, 1, &fd, fd >= 0);
		}
		assert_int_equal(r, at ? -EPROTO : 0);
		front_end(&f);
		assert_int_equal(front_count_fds(), before);
	}
}

static void too_many_descriptors(void **state)
{
	struct vu_header header = {VU_SET_MEM_TABLE, VU_FLAG_VERSION, 8};
	int fds[20], before = front_count_fds();

	(void)state;
	front_negotiate(&f, F_PROTOCOL);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	(void)vu_session_feed(&f.s, (const uint8_t *)&header, 12, fds, ARRAY_SIZE(fds));
	assert_int_equal(f.s.n_fds, VU_FDS_MAX);
	/* The connection ends before the payload is there. */
	front_end(&f);
	assert_int_equal(front_count_fds(), before);
}

static void expect_u64(uint32_t request, uint64_t value)
{
	struct vu_header header = {0};
	union vu_payload payload = {0};

	assert_int_equal(front_send(&f, request, NULL, 0, -1), 0);
	assert_true(front_reply(&f, &header, &payload));
	assert_int_equal(header.request, request);
	assert_int_equal(header.size, 8);
	assert_true(payload.u64 == value);
}

static void answers(void **state)
{
	(void)state;
	front_negotiate(&f, F_PROTOCOL);
	expect_u64(VU_GET_FEATURES, F_OFFERED | F_PROTOCOL | F_LOG);
	expect_u64(VU_GET_PROTOCOL_FEATURES, 0x8822b);
	expect_u64(VU_GET_QUEUE_NUM, 6);
	expect_u64(VU_GET_MAX_MEM_SLOTS, 64);
	assert_int_equal(front_get_base(&f, 5), 0);
	front_end(&f);
	for (uint32_t bit = 0; bit < 64; bit++) {
		front_init(&f);
		assert_int_equal(front_send_u64(&f, VU_SET_PROTOCOL_FEATURES, BIT(bit), -1),
				 0x8822bULL >> bit & 1 ? 0 : -EPROTO);
		assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, BIT(bit), -1),
				 (F_OFFERED | F_PROTOCOL | F_LOG) >> bit & 1 ? 0 : -EPROTO);
		front_end(&f);
	}
}

static void configuration(void **state)
{
	static const struct {
		uint32_t offset, size, message;
		bool ok;
	} cases[] = {
		{0, 8, 20, true},           {4, 4, 16, true},           {0, 256, 268, true},
		{0, 0, 12, true},           {256, 0, 12, true},         {200, 56, 68, true},
		{200, 57, 69, false},       {0, 8, 19, false},          {0, 8, 21, false},
		{0, 257, 268, false},       {UINT32_MAX, 8, 20, false}, {8, UINT32_MAX, 20, false},
		{UINT32_MAX, 1, 13, false}, {257, 0, 12, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vu_config c = {cases[i].offset, cases[i].size, 0, {0}};
		struct vu_header header = {0};
		union vu_payload payload = {0};

		front_negotiate(&f, F_PROTOCOL);
		memcpy(f.config, "balloons", 8);
		assert_int_equal(front_send(&f, VU_GET_CONFIG, &c, cases[i].message, -1), 0);
		assert_true(front_reply(&f, &header, &payload));
		assert_int_equal(header.size, cases[i].ok ? cases[i].message : 0);
		for (uint32_t k = 0; cases[i].ok && k < c.size; k++)
			assert_int_equal(payload.config.data[k],
					 c.offset + k < 8 ? f.config[c.offset + k] : 0);
		memset(c.data, 'x', sizeof(c.data));
		assert_int_equal(front_send(&f, VU_SET_CONFIG, &c, cases[i].message, -1),
				 cases[i].ok ? 0 : -EPROTO);
		for (uint32_t k = 0; k < 8; k++)
			assert_int_equal(f.config[k] == 'x',
					 cases[i].ok && range_within(k - c.offset, 1, c.size));
		front_end(&f);
	}
}

/* threats.md, socket, line 15: replies that nobody reads hold the session back, and lose nothing.
 */
static void unread_replies(void **state)
{
	uint32_t sent = 0, got = 0, id = 0;
	struct vu_header header = {0};
	union vu_payload payload = {0};

	(void)state;
	front_negotiate(&f, F_PROTOCOL);
	for (int round = 0; round < 50; round++) {
		while (vu_session_wanted(&f.s)) {
			struct vu_config c = {0, 256, id++, {0}};

			assert_int_equal(front_send(&f, VU_GET_CONFIG, &c, 268, -1), 0);
			sent++;
		}
		for (int i = 0; i <= round % 3; i++) {
			assert_true(front_reply(&f, &header, &payload));
			assert_int_equal(payload.config.flags, got++); /* in order */
		}
	}
	while (front_reply(&f, &header, &payload))
		got++;
	assert_int_equal(sent, got);
	assert_true(sent > 50);
	front_end(&f);
}

/* Acknowledgements, only where they were negotiated and asked for. */
static void acknowledgements(void **state)
{
	struct vu_header header = {VU_SET_OWNER, VU_FLAG_VERSION | VU_FLAG_NEED_REPLY, 0},
			 reply = {0};
	union vu_payload payload = {0};

	(void)state;
	front_init(&f);
	assert_int_equal(front_send_raw(&f, header, NULL, NULL, 0), 0);
	assert_false(front_reply(&f, &reply, &payload));
	front_end(&f);
	front_negotiate(&f, F_PROTOCOL);
	assert_int_equal(front_send(&f, VU_SET_OWNER, NULL, 0, -1), 0);
	assert_false(front_reply(&f, &reply, &payload));
	assert_int_equal(front_send_raw(&f, header, NULL, NULL, 0), 0);
	assert_true(front_reply(&f, &reply, &payload));
	assert_int_equal(payload.u64, 0);
	/* An answer is enough of an acknowledgement. */
	header.request = VU_GET_FEATURES;
	assert_int_equal(front_send_raw(&f, header, NULL, NULL, 0), 0);
	assert_true(front_reply(&f, &reply, &payload));
	assert_false(front_reply(&f, &reply, &payload));
	front_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_request),
		cmocka_unit_test(unknown_requests),
		cmocka_unit_test(header_flags),
		cmocka_unit_test(split_messages),
		cmocka_unit_test(descriptors_in_the_middle),
		cmocka_unit_test(too_many_descriptors),
		cmocka_unit_test(answers),
		cmocka_unit_test(configuration),
		cmocka_unit_test(unread_replies),
		cmocka_unit_test(acknowledgements),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
