// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a process sees of a queue that it has: protocol/vgpu-driver.h says it call by call.
 *
 * Arguments are copied once, on entry, and copied back on return, outside of vgpu_enter() and
 * vgpu_leave(): what is in between may not fault, for page faults enter themselves.
 */
#include <linux/capability.h>
#include <linux/poll.h>
#include <linux/uaccess.h>

#include "driver.h"

#define VGPU_RESET_TIMEOUT	(10 * HZ)
#define VGPU_CARD_TIMEOUT	(HZ / 2)
#define VGPU_CARD_AGE		(HZ / 10)

/* Pages that a page fault maps beside the one that was missed, aligned. */
#define VGPU_FAULT_AROUND	SZ_64K

static const struct file_operations vgpu_watch_operations;

#define VGPU_ARENA_PGOFF	(VGPU_DRIVER_MMAP_ARENA >> PAGE_SHIFT)

union vgpu_argument {
	struct vgpu_driver_info info;
	struct vgpu_driver_card card;
	struct vgpu_driver_arena arena;
	struct vgpu_driver_start start;
	struct vgpu_driver_request request;
	u32 status;
	s32 eventfd;
};

static int vgpu_open(struct inode *inode, struct file *file)
{
	struct vgpu_device *device = container_of(inode->i_cdev, struct vgpu_device, cdev);
	const struct file_operations *watch = &vgpu_watch_operations;
	struct vgpu_session *session;
	int users;

	if (!(file->f_mode & FMODE_WRITE)) {
		/* It only looks: no queue is taken for that. The file keeps the device. */
		replace_fops(file, fops_get(watch));
		file->private_data = device;
		return READ_ONCE(device->gone) ? -ENODEV : stream_open(inode, file);
	}
	if (!vgpu_enter(device, &users))
		return -ENODEV;
	session = vgpu_session_take(device, file->f_mapping);
	vgpu_leave(device, users);
	if (IS_ERR(session))
		return PTR_ERR(session);
	file->private_data = session;
	return stream_open(inode, file);
}

static int vgpu_release(struct inode *inode, struct file *file)
{
	vgpu_session_release(file->private_data);
	return 0;
}

/* ioctl --------------------------------------------------------------------------- */

static void vgpu_info(struct vgpu_device *device, u32 queue, struct vgpu_driver_info *info)
{
	*info = (struct vgpu_driver_info){
		.driver_version = VGPU_DRIVER_VERSION,
		.queue = queue,
		.interrupts = 1 + queue < device->vectors,
		.version = vgpu_read(device, VGPU_REG_VERSION),
		.pool = vgpu_read(device, VGPU_REG_POOL_ID),
		.priority = vgpu_read(device, VGPU_REG_PRIORITY),
		.vm_id = vgpu_read(device, VGPU_REG_VM_ID),
		.features = vgpu_read(device, VGPU_REG_FEATURES),
		.generation = vgpu_read(device, VGPU_REG_GENERATION),
		.status = vgpu_read(device, VGPU_REG_STATUS),
		.queues = device->queues,
		.shm_size = device->shm_size,
	};
}

/* Whether what was read is one whole card. */
static bool vgpu_read_card(struct vgpu_device *device, struct vgpu_card *card)
{
	u32 sequence = vgpu_read(device, VGPU_REG_CARD);
	u32 *words = (u32 *)card;
	u32 i;

	if (sequence & 1)
		return false;
	words[0] = sequence;
	for (i = 1; i < sizeof(*card) / sizeof(*words); i++)
		words[i] = vgpu_read(device, VGPU_REG_CARD + 4 * i);
	return vgpu_read(device, VGPU_REG_CARD) == sequence;
}

/* With card_lock. Each word of a card is an exit to QEMU: it is read as rarely as it changes. */
static int vgpu_renew_card(struct vgpu_device *device)
{
	struct vgpu_pace pace = vgpu_pace(VGPU_CARD_TIMEOUT, false);
	int r;

	if (device->card.sequence && time_before(jiffies, device->card_read + VGPU_CARD_AGE))
		return 0;
	while (!vgpu_read_card(device, &device->card)) {
		device->card.sequence = 0;
		/* A mediator that has ended in the middle of it; the next one stores it anew. */
		r = vgpu_offline(device) ? -EIO : vgpu_pause(device, &pace);
		if (r)
			return r;
	}
	device->card_read = jiffies;
	return device->card.sequence ? 0 : -EAGAIN;
}

static int vgpu_card(struct vgpu_device *device, struct vgpu_driver_card *card)
{
	int r;

	if (vgpu_offline(device))
		return -EIO;
	if (mutex_lock_killable(&device->card_lock))
		return -EINTR;
	r = vgpu_renew_card(device);
	card->card = device->card;
	mutex_unlock(&device->card_lock);
	if (!r)
		vgpu_session_owners(device, card->owner);
	return r;
}

static int vgpu_set_eventfd(struct vgpu_session *session, s32 fd)
{
	struct eventfd_ctx *eventfd = NULL;

	if (fd < -1)
		return -EINVAL;
	if (fd >= 0) {
		eventfd = eventfd_ctx_fdget(fd);
		if (IS_ERR(eventfd))
			return PTR_ERR(eventfd);
	}
	vgpu_session_set_eventfd(session, eventfd);
	return 0;
}

static int vgpu_admin_reset(struct vgpu_device *device)
{
	struct vgpu_pace pace = vgpu_pace(VGPU_RESET_TIMEOUT, false);
	int r;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	/* Not under request_lock: it is there to end a request that holds it. */
	r = vgpu_reset(device, &pace);
	wake_up(&device->request_wait);
	return r;
}

static int vgpu_do_ioctl(struct vgpu_session *session, unsigned int command,
			 union vgpu_argument *argument)
{
	struct vgpu_device *device = session->device;

	switch (command) {
	case VGPU_IOC_INFO:
		vgpu_info(device, session->queue, &argument->info);
		return 0;
	case VGPU_IOC_CARD:
		return vgpu_card(device, &argument->card);
	case VGPU_IOC_ARENA:
		return vgpu_session_arena(session, &argument->arena);
	case VGPU_IOC_START:
		return vgpu_session_start(session, &argument->start);
	case VGPU_IOC_KICK:
		vgpu_write(device, VGPU_REG_QUEUE_DOORBELL + 4 * session->queue, 1);
		return 0;
	case VGPU_IOC_STATUS:
		argument->status = vgpu_queue_read(session);
		return 0;
	case VGPU_IOC_EVENTFD:
		return vgpu_set_eventfd(session, argument->eventfd);
	case VGPU_IOC_REQUEST:
		return vgpu_request(session, &argument->request);
	case VGPU_IOC_RESET:
		return vgpu_admin_reset(device);
	default:
		return -ENOTTY;
	}
}

static int vgpu_watch_do_ioctl(struct vgpu_device *device, unsigned int command,
			       union vgpu_argument *argument)
{
	switch (command) {
	case VGPU_IOC_INFO:
		vgpu_info(device, VGPU_MAX_QUEUES, &argument->info);
		return 0;
	case VGPU_IOC_CARD:
		return vgpu_card(device, &argument->card);
	default:
		return -ENOTTY;
	}
}

/* `session` is NULL for a file that only looks. */
static long vgpu_ioctl_of(struct vgpu_device *device, struct vgpu_session *session,
			  unsigned int command, unsigned long address)
{
	void __user *user = (void __user *)address;
	union vgpu_argument argument;
	int r, users;

	if (_IOC_SIZE(command) > sizeof(argument))
		return -ENOTTY;
	/* What goes out holds nothing of the kernel's, whatever a handler leaves. */
	memset(&argument, 0, max_t(size_t, _IOC_SIZE(command), sizeof(u32)));
	if ((_IOC_DIR(command) & _IOC_WRITE) &&
	    copy_from_user(&argument, user, _IOC_SIZE(command)))
		return -EFAULT;
	if (!vgpu_enter(device, &users))
		return -ENODEV;
	r = session ? vgpu_do_ioctl(session, command, &argument) :
		      vgpu_watch_do_ioctl(device, command, &argument);
	vgpu_leave(device, users);
	if (r == 0 && (_IOC_DIR(command) & _IOC_READ) &&
	    copy_to_user(user, &argument, _IOC_SIZE(command)))
		return -EFAULT;
	return r;
}

static long vgpu_ioctl(struct file *file, unsigned int command, unsigned long address)
{
	struct vgpu_session *session = file->private_data;

	return vgpu_ioctl_of(session->device, session, command, address);
}

static long vgpu_watch_ioctl(struct file *file, unsigned int command, unsigned long address)
{
	return vgpu_ioctl_of(file->private_data, NULL, command, address);
}

/* mmap ---------------------------------------------------------------------------- */

/* A stretch of a file's offsets and what lies there, in pages. */
struct vgpu_region {
	unsigned long pgoff, count, pfn;
};

/* Which region an offset lies in; one of no pages when the file has none there. */
static struct vgpu_region vgpu_region(struct vgpu_session *session, unsigned long pgoff)
{
	struct vgpu_device *device = session->device;
	u64 offset = vgpu_queue_offset(session->queue), size = VGPU_QUEUE_SIZE;
	struct vgpu_region region = { 0 };

	if (pgoff >= VGPU_ARENA_PGOFF) {
		region.pgoff = VGPU_ARENA_PGOFF;
		/* Partner: the release in session_take_part(). */
		if (!smp_load_acquire(&session->part_ready))
			return region;
		offset = session->part_offset;
		size = session->part_size;
	}
	region.count = size >> PAGE_SHIFT;
	region.pfn = (device->shm + offset) >> PAGE_SHIFT;
	return region;
}

/*
 * The device has gone. A program is told by its next call, and not by a signal that ends it: in
 * place of each page it finds one of its own, zero at first. vgpu_destroy() frees them: each
 * mapping's file keeps the device until then.
 */
static vm_fault_t vgpu_fault_gone(struct vm_fault *fault, struct vgpu_session *session)
{
	struct page *page = xa_load(&session->dummies, fault->pgoff);

	if (!page) {
		struct page *other;

		page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!page)
			return VM_FAULT_OOM;
		/* Another thread of the process may have been here. */
		other = xa_cmpxchg(&session->dummies, fault->pgoff, NULL, page,
				   GFP_KERNEL_ACCOUNT);
		if (other) {
			__free_page(page);
			if (xa_is_err(other))
				return VM_FAULT_OOM;
			page = other;
		}
	}
	return vmf_insert_pfn(fault->vma, fault->address & PAGE_MASK, page_to_pfn(page));
}

static vm_fault_t vgpu_fault(struct vm_fault *fault)
{
	struct vm_area_struct *vma = fault->vma;
	struct vgpu_session *session = vma->vm_private_data;
	struct vgpu_region region = vgpu_region(session, vma->vm_pgoff);
	unsigned long missed = fault->address & PAGE_MASK;
	unsigned long at = max(vma->vm_start, round_down(missed, VGPU_FAULT_AROUND));
	unsigned long end = min(vma->vm_end, round_up(missed + 1, VGPU_FAULT_AROUND));
	unsigned long pfn = region.pfn + vma->vm_pgoff - region.pgoff;
	vm_fault_t r;
	int users;

	/* What is inserted now is zapped by vgpu_remove(), which waits until this has left. */
	if (!vgpu_enter(session->device, &users))
		return vgpu_fault_gone(fault, session);
	r = vmf_insert_pfn(vma, missed, pfn + ((missed - vma->vm_start) >> PAGE_SHIFT));
	/* The neighbours are a courtesy. */
	for (; r == VM_FAULT_NOPAGE && at < end; at += PAGE_SIZE)
		if (vmf_insert_pfn(vma, at, pfn + ((at - vma->vm_start) >> PAGE_SHIFT)) !=
		    VM_FAULT_NOPAGE)
			break;
	vgpu_leave(session->device, users);
	return r;
}

static const struct vm_operations_struct vgpu_vm_operations = {
	.fault = vgpu_fault,
};

static int vgpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	/* A fork's child has no part in the session: one process keeps the ring's book. */
	const unsigned long flags = VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY;
	struct vgpu_session *session = file->private_data;
	struct vgpu_region region = vgpu_region(session, vma->vm_pgoff);
	unsigned long first = vma->vm_pgoff - region.pgoff;

	if (READ_ONCE(session->device->gone))
		return -ENODEV;
	if (!(vma->vm_flags & VM_SHARED) || first > region.count ||
	    vma_pages(vma) > region.count - first)
		return -EINVAL;
	/*
	 * BAR2 is the host's ordinary memory: caching stays write-back. Pages are mapped by
	 * faults, since those, unlike this, can be kept from happening after a removal.
	 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_set(vma, flags);
#else
	vma->vm_flags |= flags;
#endif
	vma->vm_private_data = session;
	vma->vm_ops = &vgpu_vm_operations;
	return 0;
}

/* Interrupts ---------------------------------------------------------------------- */

static __poll_t vgpu_poll(struct file *file, poll_table *table)
{
	struct vgpu_session *session = file->private_data;

	poll_wait(file, &session->wait, table);
	if (READ_ONCE(session->device->gone))
		return EPOLLERR | EPOLLHUP;
	return atomic_read(&session->events) ? EPOLLIN | EPOLLRDNORM : 0;
}

static ssize_t vgpu_file_read(struct file *file, char __user *user, size_t size, loff_t *offset)
{
	struct vgpu_session *session = file->private_data;
	u32 events;

	if (size < sizeof(events))
		return -EINVAL;
	for (;;) {
		if (READ_ONCE(session->device->gone))
			return -ENODEV;
		/* One of several readers gets the count; the others go on waiting. */
		events = atomic_xchg(&session->events, 0);
		if (events)
			break;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(session->wait, atomic_read(&session->events) ||
					     READ_ONCE(session->device->gone)))
			return -ERESTARTSYS;
	}
	return copy_to_user(user, &events, sizeof(events)) ? -EFAULT : (ssize_t)sizeof(events);
}

const struct file_operations vgpu_file_operations = {
	.owner = THIS_MODULE,
	.open = vgpu_open,
	.release = vgpu_release,
	.unlocked_ioctl = vgpu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = vgpu_mmap,
	.poll = vgpu_poll,
	.read = vgpu_file_read,
};

/* Of a file that was opened for reading alone. */
static const struct file_operations vgpu_watch_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = vgpu_watch_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
