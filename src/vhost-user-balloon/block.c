// SPDX-License-Identifier: MIT
#include "block.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_MAGIC 0x4b4c4241U /* "ABLK" */

int block_create_file(const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int err;

	if (fd < 0)
		return -errno;
	/* Nobody can make it shorter under somebody who has it mapped. */
	if (ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		err = errno;
		close(fd);
		return -err;
	}
	return fd;
}

int block_create(void)
{
	const struct block_head head = {
		.magic = BLOCK_MAGIC, .version = BLOCK_VERSION, .size = sizeof(struct block)};
	int fd = block_create_file("aerostat-block", sizeof(struct block));
	ssize_t n;

	if (fd < 0)
		return fd;
	n = pwrite(fd, &head, sizeof(head), 0);
	if (n == sizeof(head))
		return fd;
	n = n < 0 ? -errno : -EIO;
	close(fd);
	return (int)n;
}

int block_map(int fd, struct block **b)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *map;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || st.st_size != sizeof(struct block))
		return -EPROTONOSUPPORT;
	map = mmap(NULL, sizeof(struct block), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*b = map;
	if ((*b)->head.magic == BLOCK_MAGIC && (*b)->head.version == BLOCK_VERSION &&
	    (*b)->head.size == sizeof(struct block))
		return 0;
	block_unmap(*b);
	return -EPROTONOSUPPORT;
}

void block_unmap(struct block *b)
{
	munmap(b, sizeof(*b));
}

/* The block may hold anything: a worker in the hands of its guest writes to it. */
static uint32_t current(const struct block *b)
{
	return __atomic_load_n(&b->current, __ATOMIC_ACQUIRE) & 1;
}

const struct block_hot *block_hot(const struct block *b)
{
	return &b->hot[current(b)];
}

const struct block_cold *block_cold(const struct block *b)
{
	return &b->cold[block_hot(b)->cold & 1];
}

struct block_hot *block_next_hot(struct block *b)
{
	struct block_hot *next = &b->hot[!current(b)];

	next->cold = block_hot(b)->cold & 1;
	return next;
}

struct block_cold *block_next_cold(struct block *b)
{
	struct block_hot *next = &b->hot[!current(b)];

	next->cold = !(block_hot(b)->cold & 1);
	return &b->cold[next->cold];
}

void block_commit(struct block *b)
{
	__atomic_store_n(&b->current, !current(b), __ATOMIC_RELEASE);
}

void block_busy(struct block *b, enum block_work work, uint32_t index, uint64_t serial)
{
	b->busy.index = index;
	b->busy.serial = serial;
	__atomic_store_n(&b->busy.work, work, __ATOMIC_RELEASE);
	/* What is done now must not be seen to begin earlier. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void block_idle(struct block *b)
{
	__atomic_store_n(&b->busy.work, BLOCK_IDLE, __ATOMIC_RELEASE);
}

static bool same_work(const struct block_busy *a, const struct block_busy *b)
{
	return a->work == b->work && a->index == b->index && a->serial == b->serial;
}

void block_blame(struct block *b)
{
	const struct block_busy busy = b->busy;

	if (busy.work == BLOCK_IDLE)
		return;
	b->deaths = same_work(&busy, &b->blamed) ? b->deaths + 1 : 1;
	b->blamed = busy;
}

uint32_t block_deaths(const struct block *b, enum block_work work, uint32_t index, uint64_t serial)
{
	const struct block_busy asked = {.work = work, .index = index, .serial = serial};

	return same_work(&asked, &b->blamed) ? b->deaths : 0;
}
