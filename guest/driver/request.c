// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Register mode: one request at a time, for all files of a device.
 *
 * The host computes in place, wherever in BAR2 a request says. So requests are looked at first,
 * and one whose vectors lie outside the file's part goes nowhere. One that is given up is dropped
 * by a reset; until that is done the host may still write to the part, and nobody else gets it.
 *
 * A process is given up when it is killed, by SIGKILL or what the kernel makes one of: a signal
 * whose default is to end a process without a core, and that is neither handled nor traced. Other
 * signals wait for the answer, as in all ioctls of this driver: a request that each tick of a
 * profiler's timer dropped, to be made anew, would never be done. So does the freezer.
 */
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/sched/signal.h>
#include <linux/string.h>

#include "driver.h"

#define VGPU_BUSY_TIMEOUT	(10 * HZ)	/* for what others have left */
#define VGPU_DROP_TIMEOUT	(1 * HZ)

/* An answer that comes within this time costs no interrupt. */
#define VGPU_SPIN_US		50

/* STATUS is looked at now and then without an interrupt: going offline has none. */
#define VGPU_GLANCE		(HZ / 10)

int vgpu_reset(struct vgpu_device *device, struct vgpu_pace *pace)
{
	int r;

	vgpu_write(device, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
	while (vgpu_read(device, VGPU_REG_CONTROL) & VGPU_CONTROL_RESET) {
		/* It stays pending until the host is back. */
		if (vgpu_offline(device))
			return -EIO;
		r = vgpu_pause(device, pace);
		if (r)
			return r;
	}
	return 0;
}

/* Whether a vector lies in the file's part. */
static bool request_owns(const struct vgpu_session *session, u64 offset, u64 count)
{
	return count <= session->part_size / VGPU_ELEMENT_SIZE &&
	       offset >= session->part_offset &&
	       offset - session->part_offset <= session->part_size - count * VGPU_ELEMENT_SIZE;
}

/*
 * Returns 0 when the host may have the request, -EINVAL when not, and 1 when it is answered
 * here: an opcode that this driver does not know could name any memory.
 */
static int request_check(struct vgpu_session *session, struct vgpu_driver_request *request)
{
	struct vgpu_request_header header;
	struct vgpu_add_shm add;

	if (request->length > VGPU_REQUEST_MAX || request->length % 4 || request->reserved)
		return -EINVAL;
	/* The host refuses what is too short for its header or operands. */
	if (request->length < sizeof(header))
		return 0;
	memcpy(&header, request->request, sizeof(header));
	switch (header.opcode) {
	case VGPU_OP_ECHO:
	case VGPU_OP_DEVICE_INFO:
	case VGPU_OP_ADD_INLINE:
		return 0;
	case VGPU_OP_ADD_SHM:
		if (request->length < sizeof(header) + sizeof(add))
			return 0;
		memcpy(&add, request->request + sizeof(header), sizeof(add));
		/* Partner: the release in session_take_part(). */
		return smp_load_acquire(&session->part_ready) &&
		       request_owns(session, add.a, header.count) &&
		       request_owns(session, add.b, header.count) &&
		       request_owns(session, add.sum, header.count) ? 0 : -EINVAL;
	default:
		request->status = VGPU_STATUS_ERROR;
		request->error = VGPU_ERROR_BAD_OPCODE;
		return 1;
	}
}

static void request_write(struct vgpu_device *device, const struct vgpu_driver_request *request)
{
	u32 i, word;

	for (i = 0; i < request->length; i += sizeof(word)) {
		memcpy(&word, request->request + i, sizeof(word));
		vgpu_write(device, VGPU_REG_REQUEST + i, word);
	}
	vgpu_write(device, VGPU_REG_REQUEST_LEN, request->length);
}

static int request_collect(struct vgpu_device *device, struct vgpu_driver_request *request)
{
	u32 i, word;

	if (request->status == VGPU_STATUS_ERROR) {
		request->error = vgpu_read(device, VGPU_REG_ERROR);
		return 0;
	}
	request->response_length = vgpu_read(device, VGPU_REG_RESPONSE_LEN);
	if (request->response_length > VGPU_RESPONSE_MAX)
		return -EPROTO;
	for (i = 0; i < request->response_length; i += sizeof(word)) {
		word = vgpu_read(device, VGPU_REG_RESPONSE + i);
		memcpy(request->response + i, &word,
		       min_t(u32, request->response_length - i, sizeof(word)));
	}
	return 0;
}

static bool request_pending(u32 status)
{
	return status == VGPU_STATUS_BUSY || status == VGPU_STATUS_OFFLINE;
}

/* STATUS as soon as it is not BUSY, or after a short while. */
static u32 request_spin(struct vgpu_device *device)
{
	ktime_t end = ktime_add_us(ktime_get(), VGPU_SPIN_US);
	u32 status;

	do {
		status = vgpu_read(device, VGPU_REG_STATUS);
	} while (status == VGPU_STATUS_BUSY && ktime_before(ktime_get(), end) && !need_resched());
	return status;
}

/* Waits for the answer to the doorbell just rung. Returns 0 with request->status, or an error. */
static int request_await(struct vgpu_device *device, struct vgpu_driver_request *request)
{
	unsigned long deadline = jiffies + msecs_to_jiffies(request->timeout_ms);
	long glance = device->vectors ? VGPU_GLANCE : 1;
	bool accepted = false;
	u32 status = request_spin(device);

	while (request_pending(status)) {
		accepted |= status == VGPU_STATUS_BUSY;
		/* Offline from the start, it may be that nobody heard the doorbell. */
		if (!accepted)
			return -EIO;
		if (READ_ONCE(device->gone))
			return -ENODEV;
		if (!time_before(jiffies, deadline))
			return -ETIMEDOUT;
		/* A request once accepted survives the mediator's absence: that is waited for. */
		if (wait_event_killable_timeout(device->request_wait,
				READ_ONCE(device->gone) ||
				!request_pending(vgpu_read(device, VGPU_REG_STATUS)),
				clamp_t(long, deadline - jiffies, 1, glance)) < 0)
			return -EINTR;
		status = vgpu_read(device, VGPU_REG_STATUS);
	}
	request->status = status;
	if (status == VGPU_STATUS_COMPLETE || status == VGPU_STATUS_ERROR)
		return 0;
	/* IDLE: somebody has reset the device. */
	return status == VGPU_STATUS_IDLE ? -ECANCELED : -EPROTO;
}

/* Register mode is this file's now: runs one request. Called with request_lock. */
static int request_run(struct vgpu_session *session, struct vgpu_driver_request *request)
{
	struct vgpu_device *device = session->device;
	struct vgpu_pace busy = vgpu_pace(VGPU_BUSY_TIMEOUT, false);
	struct vgpu_pace drop;
	u32 status = vgpu_read(device, VGPU_REG_STATUS);
	int r;

	if (status == VGPU_STATUS_OFFLINE)
		return -EIO;
	if (status == VGPU_STATUS_BUSY) {
		r = vgpu_reset(device, &busy);
		if (r)
			return r;
	}
	request_write(device, request);
	vgpu_write(device, VGPU_REG_DOORBELL, 1);
	r = request_await(device, request);
	if (r == 0)
		return request_collect(device, request);
	if (r == -ECANCELED)
		return r;
	drop = vgpu_pace(VGPU_DROP_TIMEOUT, true);
	if (vgpu_reset(device, &drop) < 0)
		session->left = true;
	return r;
}

int vgpu_request(struct vgpu_session *session, struct vgpu_driver_request *request)
{
	struct vgpu_device *device = session->device;
	int r;

	request->status = request->error = request->response_length = 0;
	memset(request->response, 0, sizeof(request->response));
	r = request_check(session, request);
	if (r)
		return r < 0 ? r : 0;
	if (mutex_lock_killable(&device->request_lock))
		return -EINTR;
	r = request_run(session, request);
	mutex_unlock(&device->request_lock);
	return r;
}
