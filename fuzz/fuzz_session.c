// SPDX-License-Identifier: MIT
/*
 * A front end, and behind it a guest, that send anything: messages well-formed and not, with
 * descriptors of every kind, to a session whose rings are a real balloon's.
 *
 * Input: a byte of configuration, then operations of one byte and what they need. Whatever comes,
 * nothing is discarded that is not held, a ring is started and stopped in turn, and at the end no
 * descriptor is left over.
 */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"
#include "served_balloon.h"
#include "vhost_user/requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEM_PAGES  64U
#define MEM_GPA    0x100000ULL
#define MEM_UADDR  0x7f0000000000ULL
#define RING_BYTES (4ULL * PAGE)

static int memfd(off_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	require(fd >= 0 && ftruncate(fd, size) == 0);
	return fd;
}

/* A descriptor of the kind that a byte says. */
static int make_fd(uint8_t kind)
{
	static const off_t sizes[] = {0, 1, PAGE, PAGE + 1, 65536, 1 << 20, 16 << 20, 1 << 30};
	int pair[2], keep = kind >> 4 & 1;

	switch (kind & 7) {
	case 0:
	case 1:
		return fcntl(f.memory, F_DUPFD_CLOEXEC, 0);
	case 2:
		return memfd(sizes[kind >> 4 & 7]);
	case 3:
	case 4:
		return eventfd(0, EFD_CLOEXEC);
	case 5:
		require(pipe2(pair, O_CLOEXEC) == 0);
		break;
	case 6:
		require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
		break;
	default:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	}
	close(pair[!keep]); /* the other end is gone */
	return pair[keep];
}

/* Drops what the session sends, all but for a while. */
static void drain(void)
{
	size_t len;

	(void)vu_session_output(&f.session, &len);
	vu_session_sent(&f.session, len);
}

static int feed(const void *bytes, size_t n, const int *fds, uint32_t n_fds)
{
	/* A block of its own, so that reading past it shows. */
	uint8_t *copy = malloc(n);
	int r;

	require(n == 0 || copy != NULL);
	if (n)
		memcpy(copy, bytes, n);
	r = vu_session_feed(&f.session, copy, n, fds, n_fds);
	free(copy);
	require(r <= 0 && (r == 0 || f.session.error));
	return r;
}

/* Sends a message in pieces no larger than what the session wants. */
static int send_message(const struct vu_header *header, const void *payload, const int *fds,
			uint32_t n_fds)
{
	uint8_t message[sizeof(*header) + sizeof(union vu_payload)];
	size_t total = sizeof(*header) + min_u64(header->size, sizeof(union vu_payload)), at = 0;
	int r = 0;

	memcpy(message, header, sizeof(*header));
	if (payload)
		memcpy(message + sizeof(*header), payload, total - sizeof(*header));
	while (!r && at < total) {
		size_t n = vu_session_wanted(&f.session);

		if (!n)
			drain();
		n = min_u64(vu_session_wanted(&f.session), total - at);
		require(n > 0);
		r = feed(message + at, n, fds, n_fds);
		n_fds = 0;
		at += n;
	}
	return r;
}

static int send_plain(uint32_t request, const void *payload, uint32_t size, int fd)
{
	struct vu_header header = {request, VU_FLAG_VERSION, size};

	return send_message(&header, payload, &fd, fd >= 0);
}

static int send_state(uint32_t request, uint32_t index, uint32_t num)
{
	struct vu_vring_state state = {index, num};

	return send_plain(request, &state, sizeof(state), -1);
}

static struct vu_vring_addr ring_addr(uint32_t index)
{
	uint64_t at = MEM_UADDR + index * RING_BYTES;

	return (struct vu_vring_addr){
		.index = index, .desc = at, .avail = at + PAGE, .used = at + 2ULL * PAGE};
}

/* A good session: memory, and some rings that run. */
static int set_up(uint8_t how)
{
	struct vu_mem_single single = {.region = {MEM_GPA, MEM_PAGES * PAGE, MEM_UADDR, 0}};
	uint64_t features = f.balloon.st.offered | 1ULL << VHOST_USER_F_PROTOCOL_FEATURES;
	uint64_t protocol = VU_PROTOCOL_FEATURES;
	int r;

	if (how & 1)
		features &= ~(1ULL << VIRTIO_F_RING_PACKED);
	if (how & 2)
		features &= ~(1ULL << VIRTIO_BALLOON_F_MUST_TELL_HOST);
	if (how & 8)
		features |= 1ULL << VHOST_F_LOG_ALL;
	r = send_plain(VU_SET_PROTOCOL_FEATURES, &protocol, 8, -1);
	if (!r)
		r = send_plain(VU_SET_FEATURES, &features, 8, -1);
	if (!r)
		r = send_plain(VU_ADD_MEM_REG, &single, sizeof(single), make_fd(0));
	for (uint32_t i = 0; !r && i < 3; i++) {
		struct vu_vring_addr addr = ring_addr(i);
		uint64_t index = i;

		addr.flags = how & 8 ? VU_VRING_F_LOG : 0;
		addr.log = MEM_GPA + i * RING_BYTES + 2ULL * PAGE;
		r = send_state(VU_SET_VRING_NUM, i, 8);
		if (!r)
			r = send_plain(VU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
		if (!r)
			r = send_plain(VU_SET_VRING_KICK, &index, 8, make_fd(3));
		if (!r && i == 0 && how & 4)
			r = send_plain(VU_SET_BACKEND_REQ_FD, NULL, 0, make_fd(6));
		if (!r)
			r = send_plain(VU_SET_VRING_CALL, &index, 8, make_fd(3));
		if (!r)
			r = send_state(VU_SET_VRING_ENABLE, i, 1);
	}
	return r;
}

/* A message of the right size for its request; numbers in it are likely to mean something. */
static int fuzzed_message(void)
{
	static const uint64_t numbers[] = {0, PAGE,       MEM_GPA,   MEM_UADDR, MEM_PAGES * PAGE,
					   8, 1ULL << 63, UINT64_MAX};
	struct vu_header header = {input_u8(&f.in) % 46U, VU_FLAG_VERSION, 0};
	const struct vu_request_row *row = vu_request_row(header.request);
	uint8_t how = input_u8(&f.in), count = input_u8(&f.in);
	union vu_payload payload;
	int fds[VU_FDS_MAX];
	uint32_t n_fds = how & 7, words;

	memset(&payload, 0, sizeof(payload));
	if (row)
		header.size = how & 8 ? row->size_max : row->size_min;
	if (how & 0x10)
		header.flags |= VU_FLAG_NEED_REPLY;
	if (how & 0x20)
		header.size = input_u16(&f.in);
	if (header.request == VU_SET_MEM_TABLE) {
		payload.table.n = n_fds;
		header.size = 8 + n_fds * (uint32_t)sizeof(struct vu_mem_region);
	}
	if (how & 0x40) {
		input_bytes(&f.in, &payload, min_u64(header.size, sizeof(payload)));
	} else if (header.request == VU_SET_VRING_ADDR) {
		payload.addr = ring_addr(count & 7);
		payload.addr.flags = count >> 3 & 1;
		payload.addr.log =
			count & 0x10 ? numbers[count >> 5] : payload.addr.used - MEM_UADDR;
	} else if (header.request == VU_SET_LOG_BASE && count & 1) {
		payload.log = (struct vu_log_area){1ULL << (count >> 1 & 15), count >> 5 & 7};
	} else if (header.request == VU_ADD_MEM_REG || header.request == VU_REM_MEM_REG) {
		/* one of a few, some of which overlap */
		payload.single.region = (struct vu_mem_region){
			MEM_GPA + (uint64_t)(count & 0x30) * 2 * PAGE,
			MEM_PAGES * PAGE >> (count & 3),
			MEM_UADDR + (uint64_t)(count & 0x30) * 2 * PAGE, (count & 0xcU) * PAGE};
	} else {
		/* words of 4 or 8 bytes, chosen by count */
		words = (uint32_t)min_u64(header.size, sizeof(payload)) / 8;
		for (uint32_t i = header.request == VU_SET_MEM_TABLE; i < words; i++) {
			uint8_t b = input_u8(&f.in);
			uint64_t v = numbers[b & 7] + (uint64_t)(b >> 3) * (b & 0x80 ? PAGE : 1);

			if (header.size == 8)
				v = (uint64_t)(b >> 3) << 32 | (b & 7);
			memcpy((uint8_t *)&payload + (size_t)i * 8, &v, sizeof(v));
		}
	}
	for (uint32_t i = 0; i < n_fds; i++)
		fds[i] = make_fd(input_u8(&f.in));
	return send_message(&header, &payload, fds, n_fds);
}

/* The guest writes into its memory: a buffer on a ring, or anything anywhere. */
static void guest_writes(uint8_t op)
{
	uint32_t index = op >> 4 & 3, at = input_u16(&f.in) % (MEM_PAGES * PAGE - 64);
	uint8_t *ring = f.host + index * RING_BYTES, n = input_u8(&f.in);
	const struct vq_state *st = &f.session.ring[index].vq.st;
	uint32_t slot = st->packed ? st->avail : st->avail & 7U;

	if (op & 0x80) {
		input_bytes(&f.in, f.host + at, n % 64);
		return;
	}
	slot %= 8;
	le64_put(ring + (size_t)slot * 16, MEM_GPA + 48ULL * PAGE + n);
	le32_put(ring + (size_t)slot * 16 + 8, input_u16(&f.in));
	le16_put(ring + (size_t)slot * 16 + (st->packed ? 12 : 14), (uint16_t)slot);
	le16_put(ring + (size_t)slot * 16 + (st->packed ? 14 : 12), !st->packed ? 0
								    : st->avail_wrap
									    ? VRING_DESC_F_AVAIL
									    : VRING_DESC_F_USED);
	if (!st->packed) {
		le16_put(ring + PAGE + VRING_AVAIL_RING(slot), (uint16_t)slot);
		le16_put(ring + PAGE + VRING_AVAIL_IDX, (uint16_t)(st->avail + 1));
	}
	for (uint32_t i = 0; i < n; i++)
		le32_put(f.host + 48ULL * PAGE + n + (size_t)i * 4,
			 (uint32_t)(MEM_GPA / PAGE) + (i * (op & 0x40 ? 7 : 1) + n) % 80);
}

/* All rings stop; the state goes one way, or both, is checked, and the rings start again. */
static int move_state(uint8_t how)
{
	struct vu_transfer t = {how & 1, 0};
	int r = 0;

	for (uint32_t i = 0; !r && i < VU_MAX_QUEUES; i++)
		r = send_state(VU_GET_VRING_BASE, i, 0);
	for (int i = 0; !r && i <= (how >> 1 & 1); i++) {
		t.direction ^= (uint32_t)i;
		r = send_plain(VU_SET_DEVICE_STATE_FD, &t, sizeof(t), make_fd(5));
	}
	if (!r && !(how & 4))
		r = send_plain(VU_CHECK_DEVICE_STATE, NULL, 0, -1);
	for (uint64_t i = 0; !r && i < 3 && how & 8; i++)
		r = send_plain(VU_SET_VRING_KICK, &i, sizeof(i), make_fd(3));
	return r;
}

static int operate(void)
{
	uint8_t op = input_u8(&f.in), raw[sizeof(union vu_payload)];
	struct instant now = {.mono_ms = f.now += input_u8(&f.in)};
	struct vu_header header;
	size_t n;
	int fd;

	switch (op & 15) {
	case 0:
		return set_up(op >> 4);
	case 1:
	case 2:
	case 3:
	case 4:
		return fuzzed_message();
	case 5: /* bytes as they come */
		n = min_u64(vu_session_wanted(&f.session), op >> 4);
		if (!n)
			return 0;
		input_bytes(&f.in, raw, n);
		fd = make_fd(input_u8(&f.in));
		return feed(raw, n, &fd, 1);
	case 6:
	case 7:
		guest_writes(op);
		return 0;
	case 8:
	case 9:
	case 10:
		(void)balloon_queue_run(&f.balloon, (uint32_t)(op >> 4) % 6, now);
		return 0;
	case 11:
		balloon_set_target(&f.balloon, input_u16(&f.in));
		return 0;
	case 12:
		(void)balloon_request_stats(&f.balloon);
		return 0;
	case 13:
		balloon_set_poll_interval(&f.balloon, input_u8(&f.in), now);
		balloon_tick(&f.balloon, now);
		return 0;
	case 14:
		if (vu_session_backend_output(&f.session, &header))
			vu_session_backend_sent(&f.session);
		drain();
		return 0;
	default:
		if (op & 0x80)
			return move_state(op >> 4);
		vu_session_stop_ring(&f.session, (uint32_t)(op >> 4) % 6);
		return 0;
	}
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 128; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t features = 1ULL << VIRTIO_BALLOON_F_STATS_VQ;
	int before = count_fds(), r = 0;

	f.in = (struct input){data, size};
	f.running = 0;
	f.now = 0;
	f.map = f.loaded = NULL;
	f.moving = f.hold = false;
	f.state_len = 0;
	f.large = input_u8(&f.in) & 1;
	f.memory = memfd(MEM_PAGES * PAGE);
	f.host = mmap(NULL, MEM_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f.memory, 0);
	require(f.host != MAP_FAILED);
	balloon_init(&f.balloon, features, &balloon_ops, NULL);
	vu_session_init(&f.session, &device_ops, &ring_ops, NULL);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		f.balloon.vq[i] = &f.session.ring[i].vq;

	while (f.in.left && !r)
		r = operate();
	vu_session_end(&f.session);
	require(f.running == 0);
	require(balloon_held_bytes(&f.balloon) == 0);
	munmap(f.host, MEM_PAGES * PAGE);
	close(f.memory);
	free(f.map);
	free(f.loaded);
	require(count_fds() == before);
	return 0;
}
