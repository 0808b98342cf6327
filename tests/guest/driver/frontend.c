// SPDX-License-Identifier: MIT
#include "frontend.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "vhost_user/protocol.h"

#define WAIT_MS   10000
#define PF(bit)   (1ULL << VU_PF_##bit)
#define HANDSHAKE (1ULL << VHOST_USER_F_PROTOCOL_FEATURES)

void frontend_die(const char *what)
{
	fprintf(stderr, "front end: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

int frontend_dial(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	errno = ENAMETOOLONG;
	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		frontend_die(path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	for (int i = 0; i < 1000; i++) {
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		usleep(10000);
	}
	frontend_die(path);
}

static void tell(struct frontend *f, enum vu_request request, const void *payload, uint32_t size,
		 int fd)
{
	const struct vu_header header = {request, VU_FLAG_VERSION, size};
	uint8_t bytes[sizeof(header) + sizeof(union vu_payload)];
	struct iovec iov = {bytes, sizeof(header) + size};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	memcpy(bytes, &header, sizeof(header));
	if (size)
		memcpy(bytes + sizeof(header), payload, size);
	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	if (sendmsg(f->conn, &msg, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
		frontend_die("message to the device");
}

static void hear(struct frontend *f, void *payload, uint32_t size)
{
	struct vu_header header;

	if (recv(f->conn, &header, sizeof(header), MSG_WAITALL) != sizeof(header) ||
	    header.size != size || recv(f->conn, payload, size, MSG_WAITALL) != (ssize_t)size)
		frontend_die("reply of the device");
}

static uint64_t ask(struct frontend *f, enum vu_request request)
{
	uint64_t value;

	tell(f, request, NULL, 0, -1);
	hear(f, &value, sizeof(value));
	return value;
}

static void share_back_channel(struct frontend *f)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		frontend_die("back channel");
	tell(f, VU_SET_BACKEND_REQ_FD, NULL, 0, ends[1]);
	close(ends[1]);
	f->back = ends[0];
}

void frontend_connect(struct frontend *f, const char *path, uint64_t bytes)
{
	uint64_t wanted = PF(BACKEND_REQ) | PF(CONFIG);

	memset(f, 0, sizeof(*f));
	for (int i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++)
		f->kick[i] = f->call[i] = -1;
	f->bytes = bytes;
	f->memory = memfd_create("guest", MFD_CLOEXEC);
	if (f->memory < 0 || ftruncate(f->memory, (off_t)bytes) < 0)
		frontend_die("memory");
	f->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->memory, 0);
	if (f->mem == MAP_FAILED)
		frontend_die("memory");
	f->conn = frontend_dial(path);
	f->offered = ask(f, VU_GET_FEATURES);
	if (wanted & ~ask(f, VU_GET_PROTOCOL_FEATURES)) {
		errno = ENOTSUP;
		frontend_die("protocol features");
	}
	tell(f, VU_SET_PROTOCOL_FEATURES, &wanted, sizeof(wanted), -1);
	tell(f, VU_SET_OWNER, NULL, 0, -1);
	share_back_channel(f);
}

void frontend_set_features(struct frontend *f, uint64_t features)
{
	struct vu_mem_table table = {.n = 1, .region = {{.size = f->bytes}}};

	features |= HANDSHAKE;
	tell(f, VU_SET_FEATURES, &features, sizeof(features), -1);
	tell(f, VU_SET_MEM_TABLE, &table, offsetof(struct vu_mem_table, region[1]), f->memory);
}

void frontend_set_ring(struct frontend *f, uint32_t ring, const struct driver_ring *r, uint64_t gpa)
{
	uint64_t index = ring;
	struct vu_vring_state num = {ring, r->size};
	struct vu_vring_state base = {ring, r->packed ? 0x80008000U : 0};
	struct vu_vring_addr addr = {
		.index = ring,
		.desc = gpa,
		.avail = gpa + driver_ring_driver_offset(r->size),
		.used = gpa + driver_ring_device_offset(r->packed, r->size),
	};

	f->kick[ring] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	f->call[ring] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->kick[ring] < 0 || f->call[ring] < 0)
		frontend_die("eventfd");
	tell(f, VU_SET_VRING_NUM, &num, sizeof(num), -1);
	tell(f, VU_SET_VRING_BASE, &base, sizeof(base), -1);
	tell(f, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	tell(f, VU_SET_VRING_CALL, &index, sizeof(index), f->call[ring]);
	tell(f, VU_SET_VRING_KICK, &index, sizeof(index), f->kick[ring]);
}

void frontend_start(struct frontend *f)
{
	for (uint32_t i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++) {
		struct vu_vring_state on = {i, 1};

		if (f->kick[i] >= 0)
			tell(f, VU_SET_VRING_ENABLE, &on, sizeof(on), -1);
	}
	(void)ask(f, VU_GET_FEATURES);
}

void frontend_config_read(struct frontend *f, uint32_t offset, uint8_t *buf, uint32_t len)
{
	struct vu_config config = {.offset = offset, .size = len};
	uint32_t size = (uint32_t)offsetof(struct vu_config, data) + len;

	tell(f, VU_GET_CONFIG, &config, size, -1);
	hear(f, &config, size);
	memcpy(buf, config.data, len);
}

void frontend_config_write(struct frontend *f, uint32_t offset, const uint8_t *buf, uint32_t len)
{
	struct vu_config config = {.offset = offset, .size = len};

	memcpy(config.data, buf, len);
	tell(f, VU_SET_CONFIG, &config, (uint32_t)offsetof(struct vu_config, data) + len, -1);
}

bool frontend_config_changed(struct frontend *f)
{
	struct vu_header message[16];

	return recv(f->back, message, sizeof(message), MSG_DONTWAIT) > 0;
}

void frontend_kick(struct frontend *f, uint32_t ring)
{
	const uint64_t one = 1;

	if (write(f->kick[ring], &one, sizeof(one)) != sizeof(one))
		frontend_die("kick");
}

bool frontend_called(struct frontend *f, uint32_t ring)
{
	uint64_t count;

	return read(f->call[ring], &count, sizeof(count)) == sizeof(count);
}

void frontend_wait(struct frontend *f, uint32_t ring)
{
	struct pollfd p = {.fd = f->call[ring], .events = POLLIN};

	if (poll(&p, 1, WAIT_MS) != 1) {
		errno = ETIMEDOUT;
		frontend_die("the device does not answer");
	}
	(void)frontend_called(f, ring);
}
