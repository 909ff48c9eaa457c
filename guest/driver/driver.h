/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the driver's files share; main.c has the theory of operation. */
#ifndef VGPU_GUEST_DRIVER_H
#define VGPU_GUEST_DRIVER_H

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/pid.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "vgpu-driver.h"
#include "vgpu-request.h"

/* The protocol's pages are of 4096 bytes: with larger ones two queues would share a page. */
static_assert(PAGE_SIZE == 4096);

struct vgpu_device;

enum vgpu_session_state {
	VGPU_SESSION_READY,	/* nobody's: without a worker on the host, without a part */
	VGPU_SESSION_OPEN,	/* an open file's */
	VGPU_SESSION_CLOSING,	/* nobody's any more, but its worker may still run */
};

/*
 * A queue and, while a file has it, all that belongs to the file. A file's private_data
 * points here.
 */
struct vgpu_session {
	struct vgpu_device *device;
	u32 queue;
	char irq_name[24];

	/* Under device->lock. */
	enum vgpu_session_state state;
	struct address_space *mapping;	/* the open file's; for remove() */
	struct pid *owner;		/* who has opened it; with a reference */
	struct list_head part;		/* in device->parts, while part_size is not 0 */
	u64 part_offset, part_size;	/* bytes, from the start of BAR2 */

	/*
	 * The part as the kernel has it mapped, write-back, as long as it is taken: that is
	 * also what tells the faults' page tables that write-back is the range's caching.
	 */
	void *memory;
	bool part_ready;		/* cleared: may be mapped; set with a release */

	/* Talks to the host: START, release(), reap(). By its file, then by device->lock. */
	struct mutex mutex;
	bool running;			/* the last START saw the session run */
	bool uncounted;			/* QUEUE_CONTROL was written and not yet counted: */
	u32 count;			/* what the count was then */
	unsigned long written;		/* and when; jiffies */
	unsigned long offline;		/* since when the host is seen offline; jiffies, 0: not */
	bool left;			/* a dropped request may use the part until it is reset */

	/* The queue's interrupt. */
	wait_queue_head_t wait;
	atomic_t events;		/* since the last read() */
	spinlock_t eventfd_lock;
	struct eventfd_ctx *eventfd;

	struct xarray dummies;		/* pages in place of memory that has gone, by offset */
};

struct vgpu_device {
	struct device dev;		/* its references keep this structure */
	struct cdev cdev;
	int number;			/* of /dev/vgpuN */
	struct pci_dev *pdev;
	void __iomem *regs;		/* BAR0 */
	struct vgpu_control *control;	/* BAR2 up to the arena */
	phys_addr_t shm;		/* BAR2 */
	u64 shm_size;			/* bytes */
	u64 arena_offset;		/* bytes, from the start of BAR2 */
	u32 queues;
	u32 vectors;			/* 0 when there is no MSI-X: everything is polled then */
	struct vgpu_session *sessions;	/* one for each queue */

	/* Those who use the BARs are in `users` and have seen that `gone` is not set. */
	struct srcu_struct users;
	bool gone;

	struct mutex lock;		/* the sessions' states, the parts */
	struct list_head parts;		/* the sessions that have one, by offset */
	struct delayed_work reap;
	unsigned int reap_delay;	/* milliseconds */

	struct mutex card_lock;
	struct vgpu_card card;		/* under card_lock; a sequence of 0: none */
	unsigned long card_read;	/* when; jiffies */

	struct mutex request_lock;	/* register mode: one request at a time */
	wait_queue_head_t request_wait;
};

static inline u32 vgpu_read(struct vgpu_device *device, u32 offset)
{
	return ioread32(device->regs + offset);
}

/* What was written to BAR2 before is seen by whom this reaches. */
static inline void vgpu_write(struct vgpu_device *device, u32 offset, u32 value)
{
	iowrite32(value, device->regs + offset);
}

static inline u32 vgpu_queue_read(struct vgpu_session *session)
{
	return vgpu_read(session->device, VGPU_REG_QUEUE_STATUS + 4 * session->queue);
}

static inline bool vgpu_offline(struct vgpu_device *device)
{
	return vgpu_read(device, VGPU_REG_STATUS) == VGPU_STATUS_OFFLINE;
}

/* main.c */

/* Begins the use of the BARs; false when they are gone. The caller ends it with `*users`. */
bool vgpu_enter(struct vgpu_device *device, int *users);
void vgpu_leave(struct vgpu_device *device, int users);

/* Polling with growing pauses. */
struct vgpu_pace {
	unsigned long deadline;		/* jiffies */
	unsigned int us;
	bool deaf;			/* to signals, those that kill too */
};

struct vgpu_pace vgpu_pace(unsigned long timeout, bool deaf);

/* Sleeps for a while. Returns 0, -ENODEV, -EINTR or, past the deadline, -ETIMEDOUT. */
int vgpu_pause(struct vgpu_device *device, struct vgpu_pace *pace);

/* session.c */

int vgpu_sessions_create(struct vgpu_device *device);
void vgpu_sessions_begin(struct vgpu_device *device);
void vgpu_sessions_end(struct vgpu_device *device);

/* Takes a queue for an open file. Returns it or ERR_PTR(-EBUSY, -ENODEV, -ERESTARTSYS). */
struct vgpu_session *vgpu_session_take(struct vgpu_device *device, struct address_space *mapping);
void vgpu_session_release(struct vgpu_session *session);

/* The process that has opened each queue, as the caller sees it; 0 for none. */
void vgpu_session_owners(struct vgpu_device *device, s32 owner[VGPU_MAX_QUEUES]);
int vgpu_session_arena(struct vgpu_session *session, struct vgpu_driver_arena *arena);
int vgpu_session_start(struct vgpu_session *session, struct vgpu_driver_start *start);
void vgpu_session_set_eventfd(struct vgpu_session *session, struct eventfd_ctx *eventfd);

/* file.c */

extern const struct file_operations vgpu_file_operations;

/* request.c */

int vgpu_request(struct vgpu_session *session, struct vgpu_driver_request *request);

/* Drops what runs in register mode. Returns 0, or -EIO, -ENODEV, -EINTR, -ETIMEDOUT. */
int vgpu_reset(struct vgpu_device *device, struct vgpu_pace *pace);

#endif
