// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's driver of the vGPU stub: PCI, interrupts, and what becomes of them on removal.
 *
 * Theory of operation
 * -------------------
 * A vGPU has queues, and memory, its BAR2, of which each queue's user needs a part
 * (protocol/vgpu-queue.h). Without a driver, processes share these by agreement. The driver
 * enforces it: an open file of /dev/vgpuN has a queue and a part of the arena
 * (protocol/vgpu-driver.h), can map these and nothing else, and names in what it asks of the
 * host nothing else. The claims, from which the host learns who uses what, are written here.
 * Commands and their answers do not pass through the driver: they go through the mapped queue,
 * the driver rings doorbells and hands out interrupts.
 *
 * session.c has the queues and the arena. What a file gives up can be used by the next only when
 * the host's worker is gone, since that writes to both on its own; so a queue is READY, OPEN or
 * CLOSING, and a piece of delayed work looks after those CLOSING. request.c has register mode,
 * of which there is one for all files; file.c what a process sees.
 *
 * The BARs are requested exclusively: the kernel takes them from those who mapped them through
 * sysfs, and gives them to nobody as long as the driver has them.
 *
 * A device may be unplugged or unbound while files are open. They stay valid: a file keeps the
 * character device, which keeps struct vgpu_device. What touches a BAR does so between
 * vgpu_enter() and vgpu_leave(), also page faults; vgpu_remove() sets `gone`, wakes all that
 * wait, and goes on when nobody is in between. Nothing there touches user memory, and what waits
 * looks at `gone`. Mappings are zapped then; a fault puts an empty page of the program's own there.
 *
 * Locks, outermost first: mmap_lock; `users` (SRCU); session->mutex, request_lock or card_lock;
 * device->lock; eventfd_lock.
 */
#include <linux/interrupt.h>
#include <linux/jiffies.h>
#include <linux/delay.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "driver.h"

#define VGPU_DEVICES_MAX	256

/* A poll's first and longest pause. */
#define VGPU_PAUSE_MIN_US	20
#define VGPU_PAUSE_MAX_US	10000

static dev_t vgpu_devt;
static DEFINE_IDA(vgpu_numbers);

/* Kernel versions ----------------------------------------------------------------- */

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
static char *vgpu_devnode(const struct device *dev, umode_t *mode)
#else
static char *vgpu_devnode(struct device *dev, umode_t *mode)
#endif
{
	if (mode)
		*mode = 0660;
	return NULL;
}

static void vgpu_eventfd_signal(struct eventfd_ctx *eventfd)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	eventfd_signal(eventfd);
#else
	eventfd_signal(eventfd, 1);
#endif
}

/* Use and removal ----------------------------------------------------------------- */

static struct class vgpu_class = {
	.name = "vgpu",
	.devnode = vgpu_devnode,
};

bool vgpu_enter(struct vgpu_device *device, int *users)
{
	*users = srcu_read_lock(&device->users);
	/* Partner: synchronize_srcu() in vgpu_remove(), which is behind the store. */
	if (!READ_ONCE(device->gone))
		return true;
	srcu_read_unlock(&device->users, *users);
	return false;
}

void vgpu_leave(struct vgpu_device *device, int users)
{
	srcu_read_unlock(&device->users, users);
}

struct vgpu_pace vgpu_pace(unsigned long timeout, bool deaf)
{
	return (struct vgpu_pace){
		.deadline = jiffies + timeout,
		.us = VGPU_PAUSE_MIN_US,
		.deaf = deaf,
	};
}

int vgpu_pause(struct vgpu_device *device, struct vgpu_pace *pace)
{
	if (READ_ONCE(device->gone))
		return -ENODEV;
	if (!pace->deaf && fatal_signal_pending(current))
		return -EINTR;
	if (time_after(jiffies, pace->deadline))
		return -ETIMEDOUT;
	usleep_range(pace->us, pace->us + pace->us / 4);
	pace->us = min_t(unsigned int, pace->us * 2, VGPU_PAUSE_MAX_US);
	return 0;
}

/* Interrupts ---------------------------------------------------------------------- */

static irqreturn_t vgpu_request_interrupt(int irq, void *data)
{
	struct vgpu_device *device = data;

	wake_up(&device->request_wait);
	return IRQ_HANDLED;
}

static irqreturn_t vgpu_queue_interrupt(int irq, void *data)
{
	struct vgpu_session *session = data;

	atomic_inc(&session->events);
	wake_up_interruptible(&session->wait);
	spin_lock(&session->eventfd_lock);
	if (session->eventfd)
		vgpu_eventfd_signal(session->eventfd);
	spin_unlock(&session->eventfd_lock);
	return IRQ_HANDLED;
}

/* Frees the first `count` vectors' handlers, then the vectors. */
static void vgpu_free_interrupts(struct vgpu_device *device, u32 count)
{
	while (count-- > 0)
		free_irq(pci_irq_vector(device->pdev, count),
			 count ? (void *)&device->sessions[count - 1] : device);
	pci_free_irq_vectors(device->pdev);
}

static int vgpu_request_interrupts(struct vgpu_device *device)
{
	struct pci_dev *pdev = device->pdev;
	int count = pci_alloc_irq_vectors(pdev, 1, 1 + device->queues, PCI_IRQ_MSIX);
	int i, r;

	if (count < 0) {
		pci_warn(pdev, "no interrupts (%d): answers are polled for\n", count);
		return 0;
	}
	for (i = 0; i < count; i++) {
		if (i == 0)
			r = request_irq(pci_irq_vector(pdev, 0), vgpu_request_interrupt, 0,
					dev_name(&device->dev), device);
		else
			r = request_irq(pci_irq_vector(pdev, i), vgpu_queue_interrupt, 0,
					device->sessions[i - 1].irq_name,
					&device->sessions[i - 1]);
		if (r) {
			vgpu_free_interrupts(device, i);
			return r;
		}
	}
	device->vectors = count;
	return 0;
}

/* Probe --------------------------------------------------------------------------- */

static void vgpu_destroy(struct device *dev)
{
	struct vgpu_device *device = container_of(dev, struct vgpu_device, dev);
	struct page *page;
	unsigned long index;
	u32 i;

	cleanup_srcu_struct(&device->users);
	ida_free(&vgpu_numbers, device->number);
	for (i = 0; device->sessions && i < device->queues; i++) {
		xa_for_each(&device->sessions[i].dummies, index, page)
			__free_page(page);
		xa_destroy(&device->sessions[i].dummies);
	}
	kfree(device->sessions);
	kfree(device);
}

/* The structure alone; put_device() frees it. */
static struct vgpu_device *vgpu_create(struct pci_dev *pdev)
{
	struct vgpu_device *device = kzalloc(sizeof(*device), GFP_KERNEL);
	int r = -ENOMEM;

	if (!device)
		goto no_memory;
	device->number = ida_alloc_max(&vgpu_numbers, VGPU_DEVICES_MAX - 1, GFP_KERNEL);
	if (device->number < 0) {
		r = device->number;
		goto no_number;
	}
	r = init_srcu_struct(&device->users);
	if (r)
		goto no_srcu;
	device->pdev = pdev;
	mutex_init(&device->lock);
	mutex_init(&device->request_lock);
	mutex_init(&device->card_lock);
	init_waitqueue_head(&device->request_wait);
	INIT_LIST_HEAD(&device->parts);

	device_initialize(&device->dev);
	device->dev.class = &vgpu_class;
	device->dev.parent = &pdev->dev;
	device->dev.release = vgpu_destroy;
	device->dev.devt = vgpu_devt + device->number;
	r = dev_set_name(&device->dev, "vgpu%d", device->number);
	if (r) {
		put_device(&device->dev);
		return ERR_PTR(r);
	}
	return device;

no_srcu:
	ida_free(&vgpu_numbers, device->number);
no_number:
	kfree(device);
no_memory:
	return ERR_PTR(r);
}

/*
 * NUM_QUEUES, once there is a mediator. The device may be there before the first one: then the
 * interrupts, which it has from the start, tell the number.
 */
static u32 vgpu_count_queues(struct vgpu_device *device)
{
	if (vgpu_read(device, VGPU_REG_FEATURES) & VGPU_FEATURE_SHM)
		return vgpu_read(device, VGPU_REG_NUM_QUEUES);
	return max(pci_msix_vec_count(device->pdev), 1) - 1;
}

/* Whether the device is one that this driver knows. Fills in its sizes. */
static int vgpu_identify(struct vgpu_device *device)
{
	struct pci_dev *pdev = device->pdev;
	u32 version;

	if (vgpu_read(device, VGPU_REG_MAGIC) != VGPU_MAGIC) {
		pci_err(pdev, "reads 0x%08x where a vGPU has its mark\n",
			vgpu_read(device, VGPU_REG_MAGIC));
		return -ENODEV;
	}
	version = vgpu_read(device, VGPU_REG_VERSION);
	if (version >> 16 != VGPU_VERSION_MAJOR) {
		pci_err(pdev, "speaks protocol version %u, this driver %u\n", version >> 16,
			VGPU_VERSION_MAJOR);
		return -ENODEV;
	}
	device->queues = vgpu_count_queues(device);
	device->shm = pci_resource_start(pdev, VGPU_BAR_SHM);
	device->shm_size = vgpu_read(device, VGPU_REG_SHM_SIZE_LO) |
			   (u64)vgpu_read(device, VGPU_REG_SHM_SIZE_HI) << 32;
	if (device->queues == 0) {
		/* Left to those who use register mode through sysfs. */
		pci_info(pdev, "has no queues: nothing for this driver\n");
		return -ENODEV;
	}
	if (!pci_resource_len(pdev, VGPU_BAR_SHM)) {
		pci_err(pdev, "its shared memory has no address, since the bridge above it has no room for %llu MiB: give its port pref64-reserve=%lluM in QEMU, or use OVMF\n",
			device->shm_size >> 20, device->shm_size >> 20);
		return -ENOSPC;
	}
	if (!vgpu_shm_size_valid(device->shm_size) ||
	    device->shm_size != pci_resource_len(pdev, VGPU_BAR_SHM) ||
	    device->queues > vgpu_queues_max(device->shm_size)) {
		pci_err(pdev, "%u queues in %llu bytes of shared memory, in a BAR of %llu: cannot be\n",
			device->queues, device->shm_size,
			(u64)pci_resource_len(pdev, VGPU_BAR_SHM));
		return -ENODEV;
	}
	device->arena_offset = vgpu_arena_offset(device->shm_size, device->queues);
	return 0;
}

static int vgpu_map(struct vgpu_device *device)
{
	struct pci_dev *pdev = device->pdev;
	int r = pci_enable_device(pdev);

	if (r)
		return r;
	/*
	 * Where somebody else has it enabled, as who used it through sysfs leaves it, the call above
	 * only counts. But the kernel has forgotten the power state with the driver before, and
	 * without knowing that it gives no interrupts.
	 */
	pci_set_power_state(pdev, PCI_D0);
	r = pci_request_regions_exclusive(pdev, "vgpu");
	if (r)
		goto no_regions;
	device->regs = pci_iomap(pdev, VGPU_BAR_REGS, VGPU_REGS_SIZE);
	if (!device->regs) {
		r = -ENOMEM;
		goto no_regs;
	}
	r = vgpu_identify(device);
	if (r)
		goto no_vgpu;
	/* Not the arena: of that only what is in use is mapped. */
	device->control = memremap(device->shm, device->arena_offset, MEMREMAP_WB);
	if (!device->control) {
		r = -ENOMEM;
		goto no_vgpu;
	}
	pci_set_master(pdev);
	return 0;

no_vgpu:
	pci_iounmap(pdev, device->regs);
no_regs:
	pci_release_regions(pdev);
no_regions:
	pci_disable_device(pdev);
	return r;
}

static void vgpu_unmap(struct vgpu_device *device)
{
	pci_clear_master(device->pdev);
	memunmap(device->control);
	pci_iounmap(device->pdev, device->regs);
	pci_release_regions(device->pdev);
	pci_disable_device(device->pdev);
}

static int vgpu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vgpu_device *device = vgpu_create(pdev);
	int r;

	if (IS_ERR(device))
		return PTR_ERR(device);
	r = vgpu_map(device);
	if (r)
		goto not_mapped;
	r = vgpu_sessions_create(device);
	if (r)
		goto no_sessions;
	r = vgpu_request_interrupts(device);
	if (r)
		goto no_sessions;
	vgpu_sessions_begin(device);
	cdev_init(&device->cdev, &vgpu_file_operations);
	device->cdev.owner = THIS_MODULE;
	r = cdev_device_add(&device->cdev, &device->dev);
	if (r)
		goto no_cdev;
	pci_set_drvdata(pdev, device);
	pci_info(pdev, "%s: %u queues, %u interrupts, %llu MiB of shared memory\n",
		 dev_name(&device->dev), device->queues, device->vectors,
		 device->shm_size >> 20);
	return 0;

no_cdev:
	cancel_delayed_work_sync(&device->reap);
	if (device->vectors)
		vgpu_free_interrupts(device, device->vectors);
no_sessions:
	vgpu_unmap(device);
not_mapped:
	put_device(&device->dev);
	return r;
}

static void vgpu_remove(struct pci_dev *pdev)
{
	struct vgpu_device *device = pci_get_drvdata(pdev);
	u32 i;

	cdev_device_del(&device->cdev, &device->dev);
	/* Under the lock, for vgpu_session_release(), which does not enter. */
	mutex_lock(&device->lock);
	WRITE_ONCE(device->gone, true);
	mutex_unlock(&device->lock);
	wake_up_all(&device->request_wait);
	for (i = 0; i < device->queues; i++)
		wake_up_all(&device->sessions[i].wait);
	/* Partner: vgpu_enter(). From here on this function is alone with the device. */
	synchronize_srcu(&device->users);
	cancel_delayed_work_sync(&device->reap);
	vgpu_sessions_end(device);
	if (device->vectors)
		vgpu_free_interrupts(device, device->vectors);
	vgpu_unmap(device);
	put_device(&device->dev);
}

static const struct pci_device_id vgpu_ids[] = {
	{ PCI_DEVICE(VGPU_PCI_VENDOR_ID, VGPU_PCI_DEVICE_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, vgpu_ids);

static struct pci_driver vgpu_driver = {
	.name = "vgpu",
	.id_table = vgpu_ids,
	.probe = vgpu_probe,
	.remove = vgpu_remove,
};

static int __init vgpu_init(void)
{
	int r = class_register(&vgpu_class);

	if (r)
		return r;
	r = alloc_chrdev_region(&vgpu_devt, 0, VGPU_DEVICES_MAX, "vgpu");
	if (r)
		goto no_numbers;
	r = pci_register_driver(&vgpu_driver);
	if (r)
		goto no_driver;
	return 0;

no_driver:
	unregister_chrdev_region(vgpu_devt, VGPU_DEVICES_MAX);
no_numbers:
	class_unregister(&vgpu_class);
	return r;
}

static void __exit vgpu_exit(void)
{
	pci_unregister_driver(&vgpu_driver);
	unregister_chrdev_region(vgpu_devt, VGPU_DEVICES_MAX);
	class_unregister(&vgpu_class);
	ida_destroy(&vgpu_numbers);
}

module_init(vgpu_init);
module_exit(vgpu_exit);
MODULE_DESCRIPTION("vGPU: a share of the host's GPU");
MODULE_LICENSE("GPL");
MODULE_VERSION(VGPU_PACKAGE_VERSION);
