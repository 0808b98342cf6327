// SPDX-License-Identifier: MIT
/*
 * A session whose process is gone, and another process that goes on with it: in the same process
 * here, where descriptors have the same numbers anyway, and once in two.
 */
#include "vu_helpers.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "driver/ring.h"
#include "vhost_user/image.h"

static const uint64_t kinds[] = {F_V1, F_V1 | F_EVENT, F_V1 | F_PACKED, F_V1 | F_PACKED | F_EVENT};

static struct test_front old, next;
static struct vu_image image;
static struct driver_ring driver; /* of ring 0 */
static struct vq_chain chain;

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* What the end of a process does to its session: mappings go; descriptors are open elsewhere. */
static void lose(struct vu_session *s)
{
	for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++) {
		if (s->memory.backing[i].map)
			munmap(s->memory.backing[i].map, s->memory.backing[i].map_len);
	}
	if (s->log.backing.map)
		munmap(s->log.backing.map, s->log.backing.map_len);
	memset(s, 0xee, sizeof(*s));
}

/* `to` comes in the place of `from`, which dies. */
static void succeed(struct test_front *to, struct test_front *from)
{
	lose(&from->s);
	front_init(to);
	to->features = from->features;
	to->memory = from->memory;
	to->map = from->map;
}

/* `next` comes in the place of `old`, and has not looked at the image yet. */
static void die(void)
{
	memset(&image, 0xee, sizeof(image));
	vu_session_save(&old.s, &image);
	succeed(&next, &old);
}

static void negotiate(uint64_t features)
{
	front_negotiate(&old, F_PROTOCOL | features);
	front_memory(&old);
}

/* Starts a ring; its driver, for ring 0. */
static void start(uint32_t index)
{
	bool packed = old.features & F_PACKED;

	front_ring_prepare(&old, index, vq_fresh_base(packed));
	front_enable(&old, index, true);
	assert_true(front_runs(&old, index));
	if (index)
		return;
	driver_ring_init(&driver, packed, old.features & F_EVENT, 8, old.map);
	driver.driver = old.map + PAGE;
	driver.device = old.map + 2ULL * PAGE;
	driver_ring_enable_notify(&driver);
}

static int send_one(void)
{
	const struct driver_buf buf = {FRONT_GPA + 60ULL * PAGE, 4};

	return driver_ring_add(&driver, &buf, 1, 1);
}

static void serve_one(struct test_front *f)
{
	assert_int_equal(vq_pop(&f->s.ring[0].vq, &chain), 1);
	vq_push(&f->s.ring[0].vq, chain.id, chain.slots, 0);
}

/* The driver gets just this buffer back. */
static void expect_used(int sent)
{
	uint32_t written = 0;
	uint16_t id = 0;

	assert_true(driver_ring_used(&driver, &id, &written));
	assert_int_equal(id, sent);
	driver_ring_enable_notify(&driver);
}

static void expect_none(void)
{
	uint32_t written = 0;
	uint16_t id = 0;

	assert_false(driver_ring_used(&driver, &id, &written));
}

/* A ring goes on with a buffer in hand, one in the making and others behind them. */
static void ring_goes_on(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (int laps = 0; laps < 20; laps++) {
			struct vq *vq = &next.s.ring[0].vq;
			int sent[4], fds = front_count_fds();

			negotiate(kinds[i]);
			start(0);
			start(2);
			for (int k = 0; k < laps; k++) {
				int id = send_one();

				serve_one(&old);
				(void)vq_should_notify(&old.s.ring[0].vq);
				expect_used(id);
			}
			for (int k = 0; k < 4; k++)
				sent[k] = send_one();
			/* The first is prepared and the second in hand, the others are there. */
			assert_int_equal(vq_pop(&old.s.ring[0].vq, &chain), 1);
			vq_push_prepare(&old.s.ring[0].vq, chain.id, chain.slots, 0);
			assert_int_equal(vq_pop(&old.s.ring[0].vq, &chain), 1);
			expect_none();
			die();
			assert_int_equal(vu_session_restore(&next.s, &image), 0);
			assert_int_equal(next.changed, 1);
			assert_int_equal(next.resets, 0);
			for (uint32_t k = 0; k < VU_MAX_QUEUES; k++) {
				assert_int_equal(next.started[k], k == 0 || k == 2);
				assert_int_equal(next.resumed[k], k == 0 || k == 2);
				assert_int_equal(vq_started(&next.s.ring[k].vq), k == 0 || k == 2);
			}
			expect_used(sent[0]);
			expect_none();
			assert_true(vq_should_notify(vq));
			for (int k = 1; k < 4; k++) {
				serve_one(&next);
				expect_used(sent[k]);
			}
			assert_int_equal(vq_pop(vq, &chain), 0);
			assert_false(vq_enable_kicks(vq));
			/* The front end can stop and start it, and the driver notices nothing. */
			assert_int_equal(front_get_base(&next, 0), vq_base(vq));
			front_ring_prepare(&next, 0, vq_base(vq));
			assert_true(front_runs(&next, 0));
			assert_true(next.resumed[0]);
			assert_int_equal(next.resets, 0);
			front_end(&next);
			assert_int_equal(front_count_fds(), fds);
		}
	}
}

/* Each field comes back: with all rings at rest, the image of the second is that of the first. */
static void every_field(void **state)
{
	struct vu_image second;
	int pair[2], log = memfd_create("log", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(ftruncate(log, 2 * PAGE), 0);
	negotiate(F_V1 | F_PACKED | F_EVENT | F_LOG);
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		struct vu_ring *ring = &old.s.ring[i];

		if (i != 3)
			front_ring_prepare(&old, i, 0x80058005);
		assert_int_equal(
			front_send_u64(&old, VU_SET_VRING_CALL, i, eventfd(0, EFD_CLOEXEC)), 0);
		assert_int_equal(front_send_u64(&old, VU_SET_VRING_ERR, i, eventfd(0, EFD_CLOEXEC)),
				 0);
		ring->fingerprint = 0x1234567890abcdefULL * (i + 1);
		ring->vq.st.unsignalled = (uint16_t)i;
		ring->vq.st.log_gpa = i * 5;
		/* Each flag alone, on one ring. */
		ring->used = i == 0;
		ring->base_told = i == 1;
		ring->resumed = i == 2;
		ring->unclear = i == 3;
		ring->loaded = i == 4;
		ring->vq.st.served = i == 5;
	}
	assert_int_equal(front_send(&old, VU_SET_BACKEND_REQ_FD, NULL, 0, pair[0]), 0);
	old.s.log_fd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(vu_log_set(&old.s.log, 64, PAGE, log), 0);
	for (uint32_t flag = 0; flag < 3; flag++) {
		old.s.loading = flag == 1;
		old.s.loaded = flag == 2;
		old.s.state = flag ? VU_STATE_NEGOTIATED : VU_STATE_NEW;
		die();
		for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
			const struct vu_ring_image *ring = &image.ring[i];

			assert_int_equal(ring->fingerprint, 0x1234567890abcdefULL * (i + 1));
			assert_int_equal(ring->used, i == 0);
			assert_int_equal(ring->base_told, i == 1);
			assert_int_equal(ring->resumed, i == 2);
			assert_int_equal(ring->unclear, i == 3);
			assert_int_equal(ring->loaded, i == 4);
			assert_int_equal(ring->kick_set, i != 3);
			assert_int_equal(ring->addr_set, i != 3);
			assert_false(ring->started);
		}
		assert_int_equal(image.loading, flag == 1);
		assert_int_equal(image.loaded, flag == 2);
		assert_int_equal(vu_session_restore(&next.s, &image), 0);
		assert_int_equal(next.s.log.offset, 64);
		assert_int_equal(next.s.log.dirty.bytes, PAGE);
		assert_int_equal(next.s.features, F_PROTOCOL | F_V1 | F_PACKED | F_EVENT | F_LOG);
		memset(&second, 0xee, sizeof(second)); /* what is not written is the same */
		vu_session_save(&next.s, &second);
		assert_memory_equal(&second, &image, sizeof(image));
		/* And once more, from that. */
		old = next;
		old.s.opaque = &old;
	}
	front_end(&old);
	close(pair[1]);
}

/* What is not a guest's memory: nothing negotiated yet, or no memory. */
static void early(void **state)
{
	(void)state;
	front_init(&old);
	die();
	assert_int_equal(vu_session_restore(&next.s, &image), 0);
	assert_int_equal(next.s.state, VU_STATE_NEW);
	assert_int_equal(front_send_u64(&next, VU_SET_FEATURES, F_V1, -1), 0);
	assert_int_equal(next.s.state, VU_STATE_NEGOTIATED);
	front_end(&next);
}

static struct vu_mem_single region_at(uint32_t page, uint32_t offset)
{
	uint64_t gpa = 1ULL << 32 | (uint64_t)page * PAGE;

	return (struct vu_mem_single){.region = {gpa, PAGE, TEST_UADDR + gpa, offset}};
}

/* Regions in files that came in another order, and one that is gone. */
static void regions(void **state)
{
	static const uint32_t pages[] = {9, 3, 6, 1};
	struct vu_mem_single gone = region_at(6, 0);

	(void)state;
	negotiate(F_V1);
	for (uint32_t i = 0; i < ARRAY_SIZE(pages); i++) {
		uint32_t offset = i * PAGE;
		struct vu_mem_single single = region_at(pages[i], offset);
		int fd = memfd_create("region", MFD_CLOEXEC);

		assert_int_equal(ftruncate(fd, offset + PAGE), 0);
		assert_int_equal(pwrite(fd, &pages[i], 4, offset), 4);
		assert_int_equal(front_send(&old, VU_ADD_MEM_REG, &single, sizeof(single), fd), 0);
	}
	assert_int_equal(front_send(&old, VU_REM_MEM_REG, &gone, sizeof(gone), -1), 0);
	die();
	assert_int_equal(image.n_regions, 4);
	assert_int_equal(vu_session_restore(&next.s, &image), 0);
	assert_int_equal(next.s.memory.mem.n, 4);
	for (uint32_t i = 0; i < ARRAY_SIZE(pages); i++) {
		struct vu_mem_region r = region_at(pages[i], 0).region;
		const uint8_t *host = guest_mem_uaddr(&next.s.memory.mem, r.uaddr, PAGE);
		int index = guest_mem_find(&next.s.memory.mem, r.gpa);

		assert_int_equal(index >= 0, pages[i] != 6);
		if (index < 0)
			continue;
		assert_int_equal(host[0], pages[i]);
		assert_int_equal(next.s.memory.mem.region[index].page_size, PAGE);
	}
	front_end(&next);
}

/* A ring without a kick descriptor is polled before and after. */
static void polled_ring(void **state)
{
	int sent;

	(void)state;
	negotiate(F_V1);
	start(0);
	(void)front_get_base(&old, 0);
	assert_int_equal(front_send_u64(&old, VU_SET_VRING_KICK, VU_VRING_NO_FD, -1), 0);
	assert_true(front_runs(&old, 0));
	die();
	assert_int_equal(image.ring[0].kick_fd, -1);
	assert_int_equal(vu_session_restore(&next.s, &image), 0);
	assert_true(front_runs(&next, 0));
	assert_int_equal(next.s.ring[0].kick_fd, -1);
	sent = send_one();
	serve_one(&next);
	expect_used(sent);
	front_end(&next);
}

static void broken_ring(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		int sent;

		negotiate(kinds[i]);
		start(0);
		start(1);
		sent = send_one();
		(void)sent;
		vq_break(&old.s.ring[0].vq, VQ_ERR_LOOP);
		die();
		assert_int_equal(vu_session_restore(&next.s, &image), 0);
		assert_true(front_runs(&next, 0));
		assert_int_equal(next.s.ring[0].vq.st.error, VQ_ERR_LOOP);
		assert_int_equal(next.s.ring[1].vq.st.error, VQ_OK);
		assert_int_equal(vq_pop(&next.s.ring[0].vq, &chain), -EPROTO);
		/* The front end mends it, as ever. */
		front_ring_prepare(&next, 0, front_get_base(&next, 0));
		assert_int_equal(vq_pop(&next.s.ring[0].vq, &chain), 1);
		front_end(&next);
	}
}

/* threats.md, socket, line 14: a file may be shorter by now. No descriptor is lost. */
static void truncated(void **state)
{
	(void)state;
	for (uint32_t what = 0; what < 2; what++) {
		int fds = front_count_fds(), log = memfd_create("log", MFD_CLOEXEC);
		struct vu_mem_single behind = region_at(0, 0);

		negotiate(F_V1);
		assert_int_equal(
			front_send(&old, VU_ADD_MEM_REG, &behind, sizeof(behind), dup(old.memory)),
			0);
		start(0);
		assert_int_equal(ftruncate(log, PAGE), 0);
		assert_int_equal(vu_log_set(&old.s.log, 0, PAGE, log), 0);
		assert_int_equal(ftruncate(what ? log : old.memory, what ? 0 : PAGE), 0);
		die();
		assert_int_equal(vu_session_restore(&next.s, &image), -EFBIG);
		assert_non_null(next.s.error);
		assert_int_equal(next.changed, 0); /* nobody sees half of the memory */
		for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
			assert_false(front_runs(&next, i));
		front_end(&next);
		assert_int_equal(front_count_fds(), fds);
	}
}

/* An image that cannot be: nothing is touched. */
static void nonsense(void **state)
{
	(void)state;
	for (uint32_t what = 0; what < 8; what++) {
		struct vu_image *bad = malloc(sizeof(*bad)); /* what is behind it is watched */

		assert_non_null(bad);
		negotiate(F_V1);
		start(0);
		die();
		*bad = image;
		for (uint32_t i = 1; i < GUEST_MEM_MAX_REGIONS; i++)
			bad->region[i].fd = 0; /* no reason to stop there */
		if (what == 0)
			bad->n_regions = GUEST_MEM_MAX_REGIONS + 1;
		else if (what == 1)
			bad->n_regions = UINT32_MAX;
		else if (what == 2)
			bad->state = VU_STATE_COUNT;
		else if (what == 3)
			bad->ring[5].vq.error = VQ_ERR_COUNT;
		else if (what == 4)
			bad->region[0].fd = -1;
		else if (what == 5)
			bad->backend_fd = 1000;
		else if (what == 6)
			bad->ring[1].err_fd = bad->region[0].fd;
		else
			bad->log_file_fd = bad->ring[0].kick_fd;
		assert_int_equal(vu_session_restore(&next.s, bad), -EBADF);
		assert_non_null(next.s.error);
		free(bad);
		vu_session_end(&next.s);
		assert_int_equal(next.changed, 1); /* at the end of the session */
		assert_int_equal(next.started[0], 0);
		assert_true(is_open(image.region[0].fd));
		assert_true(is_open(image.ring[0].kick_fd));
		/* Those are all right. */
		assert_int_equal(vu_session_restore(&next.s, &image), 0);
		front_end(&next);
	}
}

/* Which rings are told of, and when; one of them may be refused. */
static uint32_t refused, running;

static int ring_started(void *opaque, uint32_t index, bool resumed)
{
	struct test_front *f = opaque;

	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
		assert_int_equal(vq_started(&f->s.ring[i].vq), running >> i & 1);
	return index == refused ? -ENOMEM : front_started(opaque, index, resumed);
}

/* Who fails half-way stops what was started, and nothing else. */
static void refused_ring(void **state)
{
	(void)state;
	for (refused = 0; refused <= VU_MAX_QUEUES; refused++) {
		int fds = front_count_fds();
		struct vu_ring_ops ops;

		running = 0x2d;
		negotiate(F_V1);
		for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
			if (running >> i & 1)
				start(i);
		}
		die();
		ops = *next.s.ring_ops;
		ops.ring_started = ring_started;
		next.s.ring_ops = &ops;
		assert_int_equal(vu_session_restore(&next.s, &image),
				 refused < VU_MAX_QUEUES && running >> refused & 1 ? -EPROTO : 0);
		for (uint32_t i = 0; i < VU_MAX_QUEUES; i++)
			assert_int_equal(front_runs(&next, i),
					 running >> i & 1 &&
						 (i < refused || !(running >> refused & 1)));
		front_end(&next); /* here it is seen who is told of the end */
		assert_int_equal(front_count_fds(), fds);
	}
}

static void no_room(void **state)
{
	(void)state;
	/* A ring that ran outside of memory, and no memory for the bitmap. */
	for (uint32_t what = 0; what < 3; what++) {
		int fds = front_count_fds();

		negotiate(F_V1);
		start(0);
		start(1);
		die();
		if (what == 0)
			image.ring[1].vq.desc_uaddr += 1ULL << 40;
		else if (what == 1)
			image.ring[1].vq.in_use = 9;
		else
			next.changed_result = -ENOMEM;
		assert_int_equal(vu_session_restore(&next.s, &image), -EPROTO);
		assert_non_null(next.s.error);
		assert_false(front_runs(&next, 0));
		assert_false(front_runs(&next, 1));
		front_end(&next);
		assert_int_equal(front_count_fds(), fds);
	}
}

/* What is published at last is in the log, as all that comes later. */
static void logged(void **state)
{
	(void)state;
	for (uint32_t wanted = 0; wanted < 8; wanted++) {
		uint64_t features = F_V1 | (wanted & 1 ? F_LOG : 0);
		struct vu_vring_addr addr = front_addr(0);
		int log = memfd_create("log", MFD_CLOEXEC);
		uint64_t page = FRONT_GPA / PAGE + 50;
		const uint8_t *bits;

		negotiate(features);
		start(0);
		addr.flags = wanted & 2 ? VU_VRING_F_LOG : 0;
		addr.log = page * PAGE;
		assert_int_equal(front_send(&old, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1), 0);
		assert_int_equal(ftruncate(log, PAGE), 0);
		bits = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, log, 0);
		assert_true(bits != MAP_FAILED);
		if (wanted & 4)
			assert_int_equal(vu_log_set(&old.s.log, 0, PAGE, dup(log)), 0);
		assert_int_equal(vu_logs_changed(&old.s), 0);
		(void)send_one();
		assert_int_equal(vq_pop(&old.s.ring[0].vq, &chain), 1);
		vq_push_prepare(&old.s.ring[0].vq, chain.id, chain.slots, 0);
		die();
		assert_int_equal(vu_session_restore(&next.s, &image), 0);
		assert_int_equal(bits[page / 8] >> page % 8 & 1, wanted == 7);
		assert_int_equal(next.s.ring[0].vq.log != NULL, wanted == 7);
		munmap((void *)(uintptr_t)bits, PAGE);
		close(log);
		front_end(&next);
	}
}

static void all_fds(void **state)
{
	int fds[VU_IMAGE_FDS_MAX];
	bool seen[VU_IMAGE_FDS_MAX] = {false};
	int32_t fd = 0;

	(void)state;
	front_init(&old);
	vu_session_save(&old.s, &image);
	assert_int_equal(vu_image_fds(&image, fds), 0);
	image.backend_fd = fd++;
	image.log_fd = fd++;
	image.log_file_fd = fd++;
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		image.ring[i].kick_fd = fd++;
		image.ring[i].call_fd = fd++;
		image.ring[i].err_fd = fd++;
	}
	for (uint32_t i = 0; i < GUEST_MEM_MAX_REGIONS; i++)
		image.region[i].fd = fd++;
	assert_int_equal(fd, VU_IMAGE_FDS_MAX);
	assert_int_equal(vu_image_fds(&image, fds), VU_IMAGE_FDS_MAX - GUEST_MEM_MAX_REGIONS);
	image.n_regions = UINT32_MAX; /* no reason to write past the array */
	assert_int_equal(vu_image_fds(&image, fds), VU_IMAGE_FDS_MAX);
	for (uint32_t i = 0; i < VU_IMAGE_FDS_MAX; i++) {
		assert_false(seen[fds[i]]);
		seen[fds[i]] = true;
	}
}

/* The life of a process that serves one buffer; the last thing that it does varies. */
static _Noreturn void serve_and_die(struct test_front *f, struct test_front *before,
				    struct vu_image *shared, uint32_t way)
{
	struct vq *vq = &f->s.ring[0].vq;

	succeed(f, before);
	if (vu_session_restore(&f->s, shared) || vq_pop(vq, &chain) != 1)
		_exit(1);
	vq_push_prepare(vq, chain.id, chain.slots, 0);
	vu_session_save(&f->s, shared);
	if (way % 2)
		vq_push_publish(vq);
	if (way == 3)
		vu_session_save(&f->s, shared);
	raise(SIGKILL);
	_exit(1);
}

static void processes(void **state)
{
	struct vu_image *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct test_front *now = &old, *then = &next;

	(void)state;
	assert_true(shared != MAP_FAILED);
	negotiate(F_V1 | F_PACKED | F_EVENT);
	start(0);
	vu_session_save(&now->s, shared);
	for (uint32_t i = 0; i < 40; i++) {
		int sent = send_one(), status = 0;
		struct test_front *swap = now;
		pid_t child = fork();

		assert_true(child >= 0);
		if (child == 0)
			serve_and_die(then, now, shared, i % 4);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		if (i % 2 == 0)
			expect_none();
		/* The next one is this process. */
		succeed(then, now);
		assert_int_equal(vu_session_restore(&then->s, shared), 0);
		expect_used(sent);
		expect_none();
		assert_true(vq_should_notify(&then->s.ring[0].vq));
		vu_session_save(&then->s, shared);
		now = then;
		then = swap;
	}
	munmap(shared, sizeof(*shared));
	front_end(now);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring_goes_on), cmocka_unit_test(every_field),
		cmocka_unit_test(early),        cmocka_unit_test(regions),
		cmocka_unit_test(polled_ring),  cmocka_unit_test(broken_ring),
		cmocka_unit_test(truncated),    cmocka_unit_test(nonsense),
		cmocka_unit_test(refused_ring), cmocka_unit_test(no_room),
		cmocka_unit_test(logged),       cmocka_unit_test(all_fds),
		cmocka_unit_test(processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
