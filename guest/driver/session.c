// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The queues, who has them, and the parts of the arena.
 *
 * QUEUE_CONTROL ignores a write while the one before is not counted in QUEUE_STATUS, and what
 * was asked while the host's mediator went away is lost. So nothing here relies on one write:
 * opening and closing are steps that look at what the queue is, write what leads on where a write
 * would be heard, and are repeated until the queue is what it should be.
 *
 * Closing takes the host a moment. release() begins it and leaves the rest to reap(), unless the
 * next open() needs the queue, or the next file the part, and waits for it.
 */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "driver.h"

#define VGPU_START_TIMEOUT	(60 * HZ)
#define VGPU_OPEN_TIMEOUT	(10 * HZ)	/* for a queue whose worker is still to end */
#define VGPU_ARENA_TIMEOUT	(10 * HZ)	/* likewise, for its part */
#define VGPU_REMOVE_TIMEOUT	(1 * HZ)

/* A write to QUEUE_CONTROL that is not counted for so long may have been lost. */
#define VGPU_WRITE_LOST		(1 * HZ)

/* The mediator's workers end with it, though not in the same instant. */
#define VGPU_OFFLINE_GRACE	(1 * HZ)

#define VGPU_REAP_MIN_MS	10
#define VGPU_REAP_MAX_MS	1000

#define VGPU_CLEAR_CHUNK	SZ_1M

/* Opening and closing ------------------------------------------------------------- */

static void session_write(struct vgpu_session *session, u32 status, u32 action)
{
	session->uncounted = true;
	session->count = vgpu_queue_count(status);
	session->written = jiffies;
	vgpu_write(session->device, VGPU_REG_QUEUE_CONTROL + 4 * session->queue, action);
}

/*
 * Whether all that was written is counted in `status`. While it is not, writes `action` now and
 * then: it is ignored if the former write is still under way, and replaces it if that was lost.
 */
static bool session_settled(struct vgpu_session *session, u32 status, u32 action)
{
	if (session->uncounted && vgpu_queue_count(status) != session->count)
		session->uncounted = false;
	if (session->uncounted && time_after(jiffies, session->written + VGPU_WRITE_LOST))
		session_write(session, status, action);
	return !session->uncounted;
}

static bool session_has_no_worker(u32 status)
{
	return vgpu_queue_state(status) == VGPU_QUEUE_FREE ||
	       vgpu_queue_state(status) == VGPU_QUEUE_ENDED;
}

/* Whether the host has been offline for long enough that no worker is left. */
static bool session_abandoned(struct vgpu_session *session)
{
	if (!session->offline)
		session->offline = jiffies ?: 1;
	return time_after(jiffies, session->offline + VGPU_OFFLINE_GRACE);
}

/* A step towards a queue without a worker; true once it has none. */
static bool session_close_step(struct vgpu_session *session)
{
	u32 status = vgpu_queue_read(session);

	if (vgpu_offline(session->device)) {
		session->uncounted = false;
		return session_has_no_worker(status) || session_abandoned(session);
	}
	session->offline = 0;
	if (!session_settled(session, status, VGPU_QUEUE_CLOSE))
		return false;
	if (session_has_no_worker(status))
		return true;
	session_write(session, status, VGPU_QUEUE_CLOSE);
	return false;
}

/* The same, and nothing in register mode uses the part either. */
static bool session_retire_step(struct vgpu_session *session)
{
	if (session->left && (vgpu_read(session->device, VGPU_REG_CONTROL) & VGPU_CONTROL_RESET))
		return false;
	session->left = false;
	return session_close_step(session);
}

/* Opens the queue, which has no worker, and waits until it runs or has ended. */
static int session_open(struct vgpu_session *session, struct vgpu_pace *pace, u32 *result)
{
	bool asked = false;
	int r;

	for (;;) {
		u32 status = vgpu_queue_read(session);

		if (vgpu_offline(session->device))
			return -EIO;
		if (session_settled(session, status, VGPU_QUEUE_OPEN)) {
			u32 state = vgpu_queue_state(status);

			if (asked && (state == VGPU_QUEUE_RUNNING || state == VGPU_QUEUE_ENDED)) {
				*result = status;
				return 0;
			}
			if (!asked || state == VGPU_QUEUE_FREE) {
				session_write(session, status, VGPU_QUEUE_OPEN);
				asked = true;
			}
		}
		r = vgpu_pause(session->device, pace);
		if (r)
			return r;
	}
}

static int session_do_start(struct vgpu_session *session, u64 address, u32 *status)
{
	struct vgpu_device *device = session->device;
	struct vgpu_pace pace = vgpu_pace(VGPU_START_TIMEOUT, false);
	int r;

	if (vgpu_offline(device))
		return -EIO;
	/* One that runs is not started again; the caller has forgotten what it has. */
	if (session->running &&
	    vgpu_queue_state(vgpu_queue_read(session)) == VGPU_QUEUE_RUNNING)
		return -EINVAL;
	session->running = false;
	/* What a START that was interrupted has left. */
	while (!session_close_step(session)) {
		r = vgpu_pause(device, &pace);
		if (r)
			return r;
	}
	device->control->claims[session->queue] = (struct vgpu_claim){
		.arena_address = address,
		.arena_offset = session->part_offset,
		.arena_size = session->part_size,
	};
	r = session_open(session, &pace, status);
	if (r == 0)
		session->running = vgpu_queue_state(*status) == VGPU_QUEUE_RUNNING;
	else
		session_close_step(session);
	return r;
}

int vgpu_session_start(struct vgpu_session *session, struct vgpu_driver_start *start)
{
	int r;

	/* Partner: the release in vgpu_session_arena(). */
	if (!smp_load_acquire(&session->part_ready))
		return -EINVAL;
	if (start->reserved || !start->address || !PAGE_ALIGNED(start->address) ||
	    start->address + session->part_size < start->address)
		return -EINVAL;
	if (mutex_lock_killable(&session->mutex))
		return -EINTR;
	r = session_do_start(session, start->address, &start->status);
	mutex_unlock(&session->mutex);
	return r;
}

/* Arena --------------------------------------------------------------------------- */

/* Zeroes memory of BAR2: the next owner sees nothing of the last. */
static int vgpu_clear(struct vgpu_device *device, void *memory, u64 size)
{
	u64 done;

	/* Never attached, there is no memory yet; what the host will make is zero. */
	if (!(vgpu_read(device, VGPU_REG_FEATURES) & VGPU_FEATURE_SHM))
		return 0;
	for (done = 0; done < size; done += VGPU_CLEAR_CHUNK) {
		if (READ_ONCE(device->gone))
			return -ENODEV;
		if (fatal_signal_pending(current))
			return -EINTR;
		memset(memory + done, 0, min_t(u64, size - done, VGPU_CLEAR_CHUNK));
		cond_resched();
	}
	return 0;
}

/* The largest stretch that is free, in bytes. Called with device->lock. */
static u64 arena_largest(struct vgpu_device *device)
{
	u64 largest = 0, at = device->arena_offset;
	struct vgpu_session *next;

	list_for_each_entry(next, &device->parts, part) {
		largest = max(largest, next->part_offset - at);
		at = next->part_offset + next->part_size;
	}
	return max(largest, device->shm_size - at);
}

/* Takes the first stretch that is large enough. Called with device->lock. */
static int arena_reserve(struct vgpu_session *session, u64 size)
{
	struct vgpu_device *device = session->device;
	u64 at = device->arena_offset;
	struct vgpu_session *next;

	list_for_each_entry(next, &device->parts, part) {
		if (next->part_offset - at >= size)
			break;
		at = next->part_offset + next->part_size;
	}
	if (list_entry_is_head(next, &device->parts, part) && device->shm_size - at < size)
		return -ENOSPC;
	session->part_offset = at;
	session->part_size = size;
	list_add_tail(&session->part, &next->part);
	return 0;
}

/* Called with device->lock. */
static void session_drop_part(struct vgpu_session *session)
{
	if (!session->part_size)
		return;
	if (session->memory)
		memunmap(session->memory);
	session->memory = NULL;
	session->part_ready = false;
	session->part_size = 0;
	list_del(&session->part);
}

/* Whether a part will be free soon. Called with device->lock. */
static bool arena_expects(struct vgpu_device *device)
{
	struct vgpu_session *next;

	list_for_each_entry(next, &device->parts, part)
		if (next->state == VGPU_SESSION_CLOSING)
			return true;
	return false;
}

/* Moves the sessions on that nobody has; true when some remain. Called with device->lock. */
static bool vgpu_reap_step(struct vgpu_device *device)
{
	bool left = false;
	u32 i;

	for (i = 0; i < device->queues; i++) {
		struct vgpu_session *session = &device->sessions[i];

		if (session->state != VGPU_SESSION_CLOSING)
			continue;
		if (session_retire_step(session)) {
			session_drop_part(session);
			session->state = VGPU_SESSION_READY;
		} else {
			left = true;
		}
	}
	return left;
}

static void vgpu_reap(struct work_struct *work)
{
	struct vgpu_device *device = container_of(to_delayed_work(work), struct vgpu_device, reap);

	mutex_lock(&device->lock);
	if (!device->gone && vgpu_reap_step(device)) {
		device->reap_delay = min(device->reap_delay * 2, (unsigned int)VGPU_REAP_MAX_MS);
		schedule_delayed_work(&device->reap, msecs_to_jiffies(device->reap_delay));
	}
	mutex_unlock(&device->lock);
}

/* Called with device->lock. */
static void vgpu_reap_soon(struct vgpu_device *device)
{
	device->reap_delay = VGPU_REAP_MIN_MS;
	cancel_delayed_work(&device->reap);
	schedule_delayed_work(&device->reap, msecs_to_jiffies(device->reap_delay));
}

/*
 * Reserves `size` bytes, or a quarter of what is free. Waits for parts whose worker is about to
 * end: a program that is started again finds room for what it had.
 */
static int session_reserve(struct vgpu_session *session, u64 size)
{
	struct vgpu_device *device = session->device;
	struct vgpu_pace pace = vgpu_pace(VGPU_ARENA_TIMEOUT, false);
	int r;

	for (;;) {
		bool more;

		mutex_lock(&device->lock);
		vgpu_reap_step(device);
		more = arena_expects(device);
		r = arena_reserve(session, size ?: max_t(u64, PAGE_SIZE,
				  round_down(arena_largest(device) / 4, PAGE_SIZE)));
		mutex_unlock(&device->lock);
		if (r != -ENOSPC || !more)
			return r;
		r = vgpu_pause(device, &pace);
		if (r)
			return r == -ETIMEDOUT ? -ENOSPC : r;
	}
}

static int session_take_part(struct vgpu_session *session, u64 size)
{
	struct vgpu_device *device = session->device;
	int r;

	if (session->part_size)
		return -EINVAL;
	if (size > device->shm_size)
		return -ENOSPC;
	r = session_reserve(session, PAGE_ALIGN(size));
	if (r)
		return r;
	session->memory = memremap(device->shm + session->part_offset, session->part_size,
				   MEMREMAP_WB);
	r = session->memory ? vgpu_clear(device, session->memory, session->part_size) : -ENOMEM;
	if (r) {
		mutex_lock(&device->lock);
		session_drop_part(session);
		mutex_unlock(&device->lock);
		return r;
	}
	/* Partners: whoever reads it before he uses the part. */
	smp_store_release(&session->part_ready, true);
	return 0;
}

int vgpu_session_arena(struct vgpu_session *session, struct vgpu_driver_arena *arena)
{
	int r;

	if (mutex_lock_killable(&session->mutex))
		return -EINTR;
	r = session_take_part(session, arena->size);
	if (r == 0) {
		arena->size = session->part_size;
		arena->offset = session->part_offset;
	}
	mutex_unlock(&session->mutex);
	return r;
}

/* Life of a session --------------------------------------------------------------- */

/* The lowest queue that is ready, or else the lowest that is about to be. */
static struct vgpu_session *session_pick(struct vgpu_device *device)
{
	struct vgpu_session *closing = NULL;
	u32 i;

	for (i = 0; i < device->queues; i++) {
		struct vgpu_session *session = &device->sessions[i];

		if (session->state == VGPU_SESSION_READY)
			return session;
		if (session->state == VGPU_SESSION_CLOSING && !closing)
			closing = session;
	}
	return closing;
}

/* Makes a session that was just picked the file's own: nobody else's traces in it. */
static int session_prepare(struct vgpu_session *session)
{
	struct vgpu_device *device = session->device;
	struct vgpu_pace pace = vgpu_pace(VGPU_OPEN_TIMEOUT, false);
	int r;

	while (!session_retire_step(session)) {
		r = vgpu_pause(device, &pace);
		if (r == -ETIMEDOUT)
			return -EBUSY;
		if (r)
			return r;
	}
	mutex_lock(&device->lock);
	session_drop_part(session);
	mutex_unlock(&device->lock);
	session->running = false;
	atomic_set(&session->events, 0);
	return vgpu_clear(device, (void *)device->control + vgpu_queue_offset(session->queue),
			  VGPU_QUEUE_SIZE);
}

struct vgpu_session *vgpu_session_take(struct vgpu_device *device, struct address_space *mapping)
{
	struct vgpu_session *session;
	int r;

	mutex_lock(&device->lock);
	session = session_pick(device);
	if (session) {
		session->state = VGPU_SESSION_OPEN;
		session->mapping = mapping;
		session->owner = get_pid(task_tgid(current));
	}
	mutex_unlock(&device->lock);
	if (!session)
		return ERR_PTR(-EBUSY);
	r = session_prepare(session);
	if (r) {
		vgpu_session_release(session);
		return ERR_PTR(r);
	}
	return session;
}

void vgpu_session_release(struct vgpu_session *session)
{
	struct vgpu_device *device = session->device;

	vgpu_session_set_eventfd(session, NULL);
	mutex_lock(&device->lock);
	session->mapping = NULL;
	put_pid(session->owner);
	session->owner = NULL;
	session->state = VGPU_SESSION_CLOSING;
	if (!device->gone && vgpu_reap_step(device))
		vgpu_reap_soon(device);
	mutex_unlock(&device->lock);
}

void vgpu_session_owners(struct vgpu_device *device, s32 owner[VGPU_MAX_QUEUES])
{
	u32 i;

	memset(owner, 0, VGPU_MAX_QUEUES * sizeof(*owner));
	mutex_lock(&device->lock);
	rcu_read_lock();
	for (i = 0; i < device->queues; i++) {
		struct pid *pid = device->sessions[i].owner;

		/* The number of one that has ended may be another's by now. */
		if (pid && pid_task(pid, PIDTYPE_TGID))
			owner[i] = pid_vnr(pid);
	}
	rcu_read_unlock();
	mutex_unlock(&device->lock);
}

/* Takes over the caller's reference to `eventfd`, which may be NULL. */
void vgpu_session_set_eventfd(struct vgpu_session *session, struct eventfd_ctx *eventfd)
{
	spin_lock_irq(&session->eventfd_lock);
	swap(session->eventfd, eventfd);
	spin_unlock_irq(&session->eventfd_lock);
	if (eventfd)
		eventfd_ctx_put(eventfd);
}

/* Probe and remove ---------------------------------------------------------------- */

int vgpu_sessions_create(struct vgpu_device *device)
{
	u32 i;

	device->sessions = kcalloc(device->queues, sizeof(*device->sessions), GFP_KERNEL);
	if (!device->sessions)
		return -ENOMEM;
	INIT_DELAYED_WORK(&device->reap, vgpu_reap);
	for (i = 0; i < device->queues; i++) {
		struct vgpu_session *session = &device->sessions[i];

		session->device = device;
		session->queue = i;
		snprintf(session->irq_name, sizeof(session->irq_name), "vgpu%d-queue%u",
			 device->number, i);
		mutex_init(&session->mutex);
		init_waitqueue_head(&session->wait);
		spin_lock_init(&session->eventfd_lock);
		xa_init(&session->dummies);
	}
	return 0;
}

/* Programs that used sysfs, or a kernel before this one, may have left workers and a request. */
void vgpu_sessions_begin(struct vgpu_device *device)
{
	bool busy = vgpu_read(device, VGPU_REG_STATUS) == VGPU_STATUS_BUSY;
	u32 i;

	if (busy)
		vgpu_write(device, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
	mutex_lock(&device->lock);
	for (i = 0; i < device->queues; i++) {
		device->sessions[i].state = VGPU_SESSION_CLOSING;
		device->sessions[i].left = busy;
	}
	if (vgpu_reap_step(device))
		vgpu_reap_soon(device);
	mutex_unlock(&device->lock);
}

/* Nobody may use the device any more: `gone` is set. Ends all workers, as far as that goes. */
void vgpu_sessions_end(struct vgpu_device *device)
{
	struct vgpu_pace pace = vgpu_pace(VGPU_REMOVE_TIMEOUT, true);
	bool left;
	u32 i;

	mutex_lock(&device->lock);
	for (i = 0; i < device->queues; i++)
		if (device->sessions[i].mapping)
			unmap_mapping_range(device->sessions[i].mapping, 0, 0, 1);
	do {
		left = false;
		for (i = 0; i < device->queues; i++)
			left |= !session_close_step(&device->sessions[i]);
		if (left)
			msleep(VGPU_REAP_MIN_MS);
	} while (left && time_before(jiffies, pace.deadline));
	for (i = 0; i < device->queues; i++)
		session_drop_part(&device->sessions[i]);
	mutex_unlock(&device->lock);
}
