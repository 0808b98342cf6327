// SPDX-License-Identifier: GPL-2.0-only
/*
 * Free page hints: on command the host is shown which pages are free, so that a migration may leave
 * them out (virtio 1.4, "Free Page Hinting").
 *
 * A command has an id.  The driver says the id, then sends blocks of free pages, then says that it
 * is finished; it keeps the pages from the system until the host says DONE, or memory is short: the
 * host knows that hinted pages may come into use again at any time, also while it has their buffer.
 */
#include <linux/jiffies.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "balloon.h"

#define VB_BLOCK_PAGES BIT(VB_MAX_PAGE_ORDER)
#define VB_BLOCK_BYTES (PAGE_SIZE << VB_MAX_PAGE_ORDER)

/* Only what lies about: nothing is reclaimed for it. */
#define VB_BLOCK_GFP (__GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC)

enum vb_word {
	VB_WORD_START,
	VB_WORD_STOP,
	VB_WORDS,
};

static_assert(ARRAY_SIZE(((struct vb_hint *)0)->word_out) == VB_WORDS);

unsigned long vb_hint_kept(struct vb *vb)
{
	return READ_ONCE(vb->hint.count) * VB_BLOCK_PAGES;
}

static unsigned long give_back(struct vb *vb, unsigned long n)
{
	struct vb_hint *h = &vb->hint;
	unsigned long given = 0;

	while (given < n) {
		struct page *page;
		unsigned long flags;

		spin_lock_irqsave(&h->lock, flags);
		page = list_first_entry_or_null(&h->blocks, struct page, lru);
		if (page) {
			list_del(&page->lru);
			h->count--;
		}
		spin_unlock_irqrestore(&h->lock, flags);
		if (!page)
			break;
		__free_pages(page, VB_MAX_PAGE_ORDER);
		given += VB_BLOCK_PAGES;
	}
	return given;
}

unsigned long vb_hint_shrink(struct vb *vb, unsigned long n)
{
	unsigned long given = give_back(vb, n);

	vb->hint.shrunk += given * VB_PER_PAGE;
	return given;
}

static void collect(struct vb_hint *h)
{
	unsigned int len;
	void *token;

	while ((token = virtqueue_get_buf(h->vq, &len)))
		for (int word = 0; word < VB_WORDS; word++)
			if (token == &h->words[word])
				h->word_out[word] = false;
}

/* Has the ring room for n more buffers, and is this word's here?  (VB_WORDS: none is wanted.) */
static bool room(struct vb_hint *h, unsigned int n, enum vb_word word)
{
	collect(h);
	return h->vq->num_free >= n && (word == VB_WORDS || !h->word_out[word]);
}

/* Waits for that; false if it does not come, and then the work item is queued when it does. */
static bool wait_for_room(struct vb *vb, unsigned int n, enum vb_word word)
{
	struct vb_hint *h = &vb->hint;
	unsigned long end = jiffies + msecs_to_jiffies(VB_PATIENCE_MS);

	while (!wait_event_idle_timeout(h->wait, room(h, n, word), msecs_to_jiffies(VB_POLL_MS))) {
		if (READ_ONCE(vb->closing) || virtqueue_is_broken(h->vq))
			return false;
		if (time_after(jiffies, end)) {
			set_bit(VB_HINT_STUCK, &h->flags);
			return room(h, n, word);
		}
	}
	return true;
}

/* The buffer of a word is the host's as long as it is out. */
static bool say(struct vb *vb, enum vb_word word, u32 value)
{
	struct vb_hint *h = &vb->hint;
	struct scatterlist sg;

	if (!wait_for_room(vb, 1, word))
		return false;
	h->words[word] = cpu_to_virtio32(vb->vdev, value);
	sg_init_one(&sg, &h->words[word], sizeof(h->words[word]));
	if (virtqueue_add_outbuf(h->vq, &sg, 1, &h->words[word], GFP_NOWAIT | __GFP_NOWARN))
		return false;
	h->word_out[word] = true;
	virtqueue_kick(h->vq);
	return true;
}

/* Sends one block of free pages; false if there is none, or no way to. */
static bool hint(struct vb *vb)
{
	struct vb_hint *h = &vb->hint;
	struct scatterlist sg;
	struct page *page;

	/* There is always room left for the word that it is finished. */
	if (!wait_for_room(vb, 2, VB_WORDS))
		return false;
	page = alloc_pages(VB_BLOCK_GFP, VB_MAX_PAGE_ORDER);
	if (!page)
		return false;
	sg_init_table(&sg, 1);
	sg_set_page(&sg, page, VB_BLOCK_BYTES, 0);
	if (virtqueue_add_inbuf(h->vq, &sg, 1, page, GFP_NOWAIT | __GFP_NOWARN)) {
		__free_pages(page, VB_MAX_PAGE_ORDER);
		return false;
	}
	spin_lock_irq(&h->lock);
	list_add(&page->lru, &h->blocks);
	h->count++;
	spin_unlock_irq(&h->lock);
	h->hinted += VB_BLOCK_PAGES * VB_PER_PAGE;
	virtqueue_kick(h->vq);
	return true;
}

/* Reads the command if it may be another one by now. */
static u32 command(struct vb *vb)
{
	struct vb_hint *h = &vb->hint;

	if (test_and_clear_bit(VB_HINT_STALE, &h->flags))
		h->command = vb_config_read(vb,
					    offsetof(struct virtio_balloon_config,
						     free_page_hint_cmd_id),
					    h->command);
	return h->command;
}

/* Says that what was begun is finished; false if that has to wait. */
static bool finish(struct vb *vb)
{
	if (vb->hint.unfinished && !say(vb, VB_WORD_STOP, VIRTIO_BALLOON_CMD_ID_STOP))
		return false;
	vb->hint.unfinished = false;
	return true;
}

static void hint_work(struct work_struct *work)
{
	struct vb *vb = container_of(work, struct vb, hint.work);
	struct vb_hint *h = &vb->hint;
	u32 id = command(vb);

	if (id == VIRTIO_BALLOON_CMD_ID_DONE)
		give_back(vb, ULONG_MAX);
	if (!finish(vb) || id == VIRTIO_BALLOON_CMD_ID_DONE || id == VIRTIO_BALLOON_CMD_ID_STOP ||
	    id == h->active || !say(vb, VB_WORD_START, id))
		return;
	h->active = id;
	h->unfinished = true;
	while (command(vb) == id && !READ_ONCE(vb->closing) && hint(vb))
		cond_resched();
	/* One that came meanwhile. */
	if (finish(vb) && command(vb) != id)
		vb_queue(vb, &h->work);
}

void vb_hint_used(struct virtqueue *vq)
{
	struct vb *vb = vq->vdev->priv;

	wake_up_all(&vb->hint.wait);
	if (test_and_clear_bit(VB_HINT_STUCK, &vb->hint.flags))
		vb_queue(vb, &vb->hint.work);
}

void vb_hint_changed(struct vb *vb)
{
	set_bit(VB_HINT_STALE, &vb->hint.flags);
	vb_queue(vb, &vb->hint.work);
}

int vb_hint_init(struct vb *vb)
{
	struct vb_hint *h = &vb->hint;

	spin_lock_init(&h->lock);
	init_waitqueue_head(&h->wait);
	INIT_WORK(&h->work, hint_work);
	INIT_LIST_HEAD(&h->blocks);
	h->words = kcalloc(VB_WORDS, sizeof(*h->words), GFP_KERNEL);
	return h->words ? 0 : -ENOMEM;
}

void vb_hint_free(struct vb *vb)
{
	kfree(vb->hint.words);
}

int vb_hint_start(struct vb *vb, struct virtqueue *vq)
{
	struct vb_hint *h = &vb->hint;

	if (!vq)
		return 0;
	/* A block, and the word that it was the last. */
	if (virtqueue_get_vring_size(vq) < 2)
		return -ENOSPC;
	h->vq = vq;
	h->flags = 0;
	h->unfinished = false;
	h->command = VIRTIO_BALLOON_CMD_ID_STOP;
	h->active = VIRTIO_BALLOON_CMD_ID_STOP;
	memset(h->word_out, 0, sizeof(h->word_out));
	return 0;
}

void vb_hint_stop(struct vb *vb)
{
	wake_up_all(&vb->hint.wait);
	cancel_work_sync(&vb->hint.work);
	give_back(vb, ULONG_MAX);
}
