/* SPDX-License-Identifier: MIT */
/*
 * libvgpu: a program's way to a vGPU, in a guest through the PCI device (sysfs, no kernel
 * module) or on the host through the mediator's socket.
 *
 * A handle serves one thread at a time. Functions return VGPU_OK or another value of
 * enum vgpu_result; vgpu_last_message() then has a sentence for people.
 */
#ifndef VGPU_H
#define VGPU_H

#include <stdint.h>

#include "vgpu-regs.h"
#include "vgpu-request.h"

struct vgpu;

enum vgpu_result {
    VGPU_OK = 0,
    VGPU_NO_DEVICE = -1,     /* no such device, or none at all */
    VGPU_NO_PERMISSION = -2, /* the device is there, this user may not open it */
    VGPU_OFFLINE = -3,       /* no mediator behind the device */
    VGPU_BUSY = -4,          /* another process uses the device */
    VGPU_TIMED_OUT = -5,     /* no answer in time; the request was dropped */
    VGPU_REFUSED = -6,       /* the host answered with an error, see vgpu_device_error() */
    VGPU_BAD_ARGUMENT = -7,
    VGPU_SYSTEM = -8,       /* a system call failed */
    VGPU_INCOMPATIBLE = -9, /* the device speaks another protocol version */
};

/* "0000:00:04.0" and its NUL. */
#define VGPU_ADDRESS_SIZE 32

/* How a host process presents itself to the mediator. */
struct vgpu_host_options {
    const char *socket; /* path, or '@' and an abstract name */
    uint32_t vm_id;     /* not 0, unique among all that are attached */
    char pool;          /* letter */
    enum vgpu_priority priority;
    uint64_t shm_size; /* bytes, see vgpu_shm_size_valid() */
};

/* What the registers say; nothing is asked of the host. */
struct vgpu_identity {
    uint32_t version, pool, priority, vm_id, features, generation;
    uint64_t shm_size; /* bytes */
    enum vgpu_status status;
};

/* Why the last function of this thread failed; valid until the next failure. */
const char *vgpu_last_message(void);

/* PCI addresses of the guest's vGPUs, at most `max`. Returns how many there are, maybe more. */
unsigned vgpu_list(char addresses[][VGPU_ADDRESS_SIZE], unsigned max);

/*
 * Opens the device at a PCI address, or the only one when `address` is NULL; with several,
 * NULL is VGPU_BAD_ARGUMENT. The handle holds the device's lock, which ends with
 * it or with the process; VGPU_BUSY when another process holds it for longer than 5 s.
 * An offline device can be opened.
 */
int vgpu_open(const char *address, struct vgpu **vgpu);

/*
 * Attaches this process to the mediator of its own host. VGPU_OFFLINE when none is there,
 * VGPU_NO_PERMISSION when it refuses, whatever for: the message has its reason.
 */
int vgpu_open_host(const struct vgpu_host_options *options, struct vgpu **vgpu);

/* Gives the device back; NULL is allowed. A request must not be running. */
void vgpu_close(struct vgpu *vgpu);

/* Reads the registers that identify the device. Cannot fail, also while offline. */
void vgpu_identify(struct vgpu *vgpu, struct vgpu_identity *identity);

/* How long requests may take, in milliseconds; 60,000 unless set. */
void vgpu_set_timeout(struct vgpu *vgpu, uint32_t milliseconds);

/* The shared memory; valid as long as the handle. NULL and VGPU_SYSTEM's message on failure. */
void *vgpu_shm(struct vgpu *vgpu, uint64_t *size);

/* The ERROR register after VGPU_REFUSED. */
enum vgpu_error vgpu_device_error(const struct vgpu *vgpu);

/* Name and text of an ERROR value; "UNKNOWN" for one of a newer host. */
const char *vgpu_error_name(enum vgpu_error error);
const char *vgpu_error_text(enum vgpu_error error);

/*
 * One request in register mode: `length` bytes, at most VGPU_REQUEST_MAX, a multiple of 4;
 * the response has room for VGPU_RESPONSE_MAX. A mediator that goes away meanwhile
 * is waited for until the timeout. VGPU_OFFLINE when there is none to begin with,
 * VGPU_TIMED_OUT, VGPU_REFUSED, VGPU_BAD_ARGUMENT for a bad length.
 */
int vgpu_request(struct vgpu *vgpu, const void *request, uint32_t length, void *response,
                 uint32_t *response_length);

/* Has `length` bytes, at most VGPU_ECHO_MAX, a multiple of 4, come back in `back`. */
int vgpu_echo(struct vgpu *vgpu, const void *bytes, uint32_t length, void *back);

/* What computes behind the device; the errors of vgpu_request(). */
int vgpu_device_info(struct vgpu *vgpu, struct vgpu_device_info *info);

/* sum[i] = a[i] + b[i] for `count` elements, at most VGPU_INLINE_MAX. */
int vgpu_add(struct vgpu *vgpu, enum vgpu_type type, uint32_t count, const void *a, const void *b,
             void *sum);

/* The same for vectors in the shared memory, at byte offsets: see struct vgpu_add_shm. */
int vgpu_add_shm(struct vgpu *vgpu, enum vgpu_type type, uint64_t count, uint64_t a, uint64_t b,
                 uint64_t sum);

/* Drops the running request and returns when the device is idle. */
int vgpu_reset(struct vgpu *vgpu);

#endif
