/* SPDX-License-Identifier: MIT */
/*
 * Taking a session's kernels off the GPU, in the middle of one, and putting them back.
 *
 * NVIDIA's driver submits work through channels, which the GPU's scheduler takes in turns. A
 * process may have its own channels taken out of that and put back: a control call that any process
 * may make for what is its own. A kernel that runs then is stopped where it is, and goes on there
 * later. Another one sets how long a turn of its channel groups is while another process waits.
 *
 * CUDA has no calls for this. So the control calls are made here, on objects that CUDA's library
 * has allocated: this file defines ioctl(), which is found before libc's, looks at what the library
 * allocates and frees, and changes nothing of it. Only channels of groups for computing are kept:
 * copies have channels of their own.
 *
 * All that is specific to the driver's interface is in this file. The numbers and structures are
 * those of NVIDIA's open kernel modules, https://github.com/NVIDIA/open-gpu-kernel-modules, release
 * 580, as each says below. What has another size than expected is left alone, a status that is not
 * 0 ends it, and whether the call has any effect is seen once for each driver, when the mediator
 * starts (gpu_try_off()). A driver with another interface so has its work stay on the GPU.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/backend-cuda/raw.h"

/* kernel-open/common/inc/nv-ioctl-numbers.h; src/nvidia/arch/nvalloc/unix/include/nv_escape.h */
#define NV_MAGIC 'F'
#define NV_FREE 0x29u
#define NV_CONTROL 0x2au
#define NV_ALLOC 0x2bu

/* src/common/sdk/nvidia/inc/nvos.h: NVOS64_PARAMETERS, and its beginning NVOS21_PARAMETERS */
struct nv_alloc {
    uint32_t root, parent, object, class;
    uint64_t parameters;
    uint64_t rights;
    uint32_t bytes, flags, status, pad;
};
static_assert(sizeof(struct nv_alloc) == 48, "NVOS64_PARAMETERS");

struct nv_alloc_old {
    uint32_t root, parent, object, class;
    uint64_t parameters;
    uint32_t bytes, status;
};
static_assert(sizeof(struct nv_alloc_old) == 32, "NVOS21_PARAMETERS");

/* There: NVOS00_PARAMETERS */
struct nv_free {
    uint32_t root, parent, object, status;
};
static_assert(sizeof(struct nv_free) == 16, "NVOS00_PARAMETERS");

/* There: NVOS54_PARAMETERS */
struct nv_control {
    uint32_t root, object, command, flags;
    uint64_t parameters;
    uint32_t bytes, status;
};
static_assert(sizeof(struct nv_control) == 32, "NVOS54_PARAMETERS");

/* class/cl2080.h, class/cla06c.h; all of class/cl*6f.h: Kepler's is 0xa06f, Blackwell's 0xca6f */
#define CLASS_SUBDEVICE 0x2080u
#define CLASS_GROUP 0xa06cu
#define CLASS_IS_CHANNEL(class) (((class) & 0xff) == 0x6f && (class) >= 0xa06f && (class) <= 0xff6f)

/* nvos.h: NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS, its beginning; class/cl2080_notification.h */
struct nv_group {
    uint32_t errors, ecc_errors, space, engine;
};
#define ENGINE_GRAPHICS 1u /* which is what computes */

/* ctrl/ctrl2080/ctrl2080fifo.h: NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS */
#define CONTROL_DISABLE_CHANNELS 0x2080110bu
#define CHANNELS_AT_A_TIME 64u
struct nv_disable_channels {
    uint8_t disable;
    uint32_t count;
    uint8_t only_scheduling, rewind;
    _Alignas(8) uint64_t event;
    uint32_t clients[CHANNELS_AT_A_TIME], channels[CHANNELS_AT_A_TIME];
};
static_assert(sizeof(struct nv_disable_channels) == 536,
              "NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS");

/* ctrl/ctrla06c.h: NVA06C_CTRL_CMD_SET_TIMESLICE, _GET_TIMESLICE: NVA06C_CTRL_TIMESLICE_PARAMS */
#define CONTROL_SET_SLICE 0xa06c0103u
#define CONTROL_GET_SLICE 0xa06c0104u
struct nv_slice {
    uint64_t us;
};
static_assert(sizeof(struct nv_slice) == 8, "NVA06C_CTRL_TIMESLICE_PARAMS");

enum kind { NOTHING, SUBDEVICE, GROUP, CHANNEL };

/* What the library has allocated, of these kinds. */
struct object {
    enum kind kind;
    int fd; /* by which it was */
    uint32_t root, parent, object;
    uint64_t slice_us; /* of a group: what it had at first; 0: not known yet */
};

/* More than CUDA makes in a process with one context: some tens. Others are not kept. */
#define OBJECTS 512u

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct object objects[OBJECTS];
static unsigned object_count; /* places that have been used */
static bool objects_lost;     /* there was no place for one */

static struct object *find_object(enum kind kind, uint32_t root, uint32_t object)
{
    for (unsigned i = 0; i < object_count; i++) {
        if (objects[i].kind == kind && objects[i].root == root && objects[i].object == object) {
            return &objects[i];
        }
    }
    return NULL;
}

/* What it is to be kept as; channels of what does not compute, and all else, are not. */
static enum kind object_kind(const struct nv_alloc_old *alloc, uint32_t bytes)
{
    struct nv_group group;

    if (alloc->class == CLASS_SUBDEVICE) {
        return SUBDEVICE;
    }
    /* CUDA gives no size: it is the class's. */
    if (alloc->class == CLASS_GROUP && alloc->parameters != 0 &&
        (bytes == 0 || bytes >= sizeof(group))) {
        memcpy(&group, (const void *)(uintptr_t)alloc->parameters, sizeof(group));
        return group.engine == ENGINE_GRAPHICS ? GROUP : NOTHING;
    }
    return CLASS_IS_CHANNEL(alloc->class) && find_object(GROUP, alloc->root, alloc->parent)
               ? CHANNEL
               : NOTHING;
}

/* With the mutex. */
static void note_alloc(int fd, const struct nv_alloc_old *alloc, uint32_t bytes)
{
    const enum kind kind = object_kind(alloc, bytes);
    unsigned place = 0;

    while (place < object_count && objects[place].kind != NOTHING) {
        place++;
    }
    objects_lost = objects_lost || (kind != NOTHING && place == OBJECTS);
    if (kind != NOTHING && place < OBJECTS) {
        objects[place] = (struct object){kind, fd, alloc->root, alloc->parent, alloc->object, 0};
        object_count = place == object_count ? place + 1 : object_count;
    }
}

/* What was below it goes with it: a device has groups, and these have channels. With the mutex. */
static void forget_below(uint32_t root, uint32_t object)
{
    for (unsigned i = 0; i < object_count; i++) {
        struct object *o = &objects[i];

        if (o->kind != NOTHING && o->root == root &&
            (o->object == object || o->parent == object || object == root)) {
            const bool has_more = o->kind == GROUP && o->object != object;

            o->kind = NOTHING;
            if (has_more) {
                forget_below(root, o->object);
            }
        }
    }
}

/* After a call of the library's that has succeeded. */
static void note_call(int fd, unsigned long request, const void *argument)
{
    const unsigned number = _IOC_NR(request);
    const unsigned size = _IOC_SIZE(request);

    pthread_mutex_lock(&mutex);
    if (number == NV_ALLOC && size == sizeof(struct nv_alloc)) {
        const struct nv_alloc *alloc = argument;

        if (alloc->status == 0) {
            /* Up to `parameters` both are alike. */
            note_alloc(fd, argument, alloc->bytes);
        }
    } else if (number == NV_ALLOC && size == sizeof(struct nv_alloc_old)) {
        const struct nv_alloc_old *alloc = argument;

        if (alloc->status == 0) {
            note_alloc(fd, alloc, alloc->bytes);
        }
    } else if (number == NV_FREE && size == sizeof(struct nv_free)) {
        const struct nv_free *freed = argument;

        forget_below(freed->root, freed->object);
    }
    pthread_mutex_unlock(&mutex);
}

/* Found by NVIDIA's libraries before libc's own. */
__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;
    int r;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    r = (int)syscall(SYS_ioctl, fd, request, argument);
    if (r == 0 && _IOC_TYPE(request) == NV_MAGIC && argument &&
        (_IOC_NR(request) == NV_ALLOC || _IOC_NR(request) == NV_FREE)) {
        const int error = errno;

        note_call(fd, request, argument);
        errno = error;
    }
    return r;
}

/* A control call to this object. Returns the status. */
static uint32_t driver_control(const struct object *object, uint32_t command, void *parameters,
                               uint32_t bytes)
{
    struct nv_control call = {
        .root = object->root,
        .object = object->object,
        .command = command,
        .parameters = (uint64_t)(uintptr_t)parameters,
        .bytes = bytes,
    };

    if (syscall(SYS_ioctl, object->fd, _IOWR(NV_MAGIC, NV_CONTROL, struct nv_control), &call) !=
        0) {
        return (uint32_t)errno;
    }
    return call.status;
}

static const struct object *subdevice_of(uint32_t root)
{
    for (unsigned i = 0; i < object_count; i++) {
        if (objects[i].kind == SUBDEVICE && objects[i].root == root) {
            return &objects[i];
        }
    }
    return NULL;
}

/*
 * The next channels from this place of the table on, and their client's subdevice: one call's. All
 * are of one client, since a process has one context. False at the table's end. It is copied since
 * calls take half a millisecond, and the library allocates meanwhile.
 */
static bool next_channels(unsigned *place, struct nv_disable_channels *parameters,
                          struct object *subdevice)
{
    unsigned count = 0;

    pthread_mutex_lock(&mutex);
    for (; !objects_lost && *place < object_count && count < CHANNELS_AT_A_TIME; (*place)++) {
        const struct object *o = &objects[*place];
        const struct object *found = o->kind == CHANNEL ? subdevice_of(o->root) : NULL;

        if (!found || (subdevice->root != 0 && found->root != subdevice->root)) {
            continue;
        }
        *subdevice = *found;
        parameters->clients[count] = o->root;
        parameters->channels[count++] = o->object;
    }
    pthread_mutex_unlock(&mutex);
    parameters->count = count;
    return count > 0;
}

/* Returns how many channels, or -1 and the status. */
static int turn_channels(bool off, uint32_t *status)
{
    struct object subdevice = {0};
    unsigned place = 0;
    int count = 0;

    for (;;) {
        struct nv_disable_channels parameters = {.disable = off};

        if (!next_channels(&place, &parameters, &subdevice)) {
            return count;
        }
        *status = driver_control(&subdevice, CONTROL_DISABLE_CHANNELS, &parameters,
                                 sizeof(parameters));
        if (*status != 0) {
            return -1;
        }
        count += (int)parameters.count;
    }
}

/*
 * Any thread may call this. A channel that the library frees meanwhile makes the call fail, so it
 * is made once more. With channels that are not in the table nothing would be off.
 */
bool cuda_set_off(struct gpu *gpu, bool off)
{
    uint32_t status = 0;
    int count = turn_channels(off, &status);

    (void)gpu;
    if (count < 0) {
        count = turn_channels(off, &status);
    }
    if (count < 0) {
        log_warning("the driver does not turn its channels %s: status 0x%x", off ? "off" : "on",
                    status);
    }
    return count > 0;
}

/* The next group from this place of the table on; false at its end. */
static bool next_group(unsigned *place, struct object *group)
{
    bool found = false;

    pthread_mutex_lock(&mutex);
    for (; !found && *place < object_count; (*place)++) {
        found = objects[*place].kind == GROUP;
        if (found) {
            *group = objects[*place];
        }
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

/* Keeps what the group had at first, if it is there still. */
static void keep_slice(const struct object *group)
{
    struct object *found;

    pthread_mutex_lock(&mutex);
    found = find_object(GROUP, group->root, group->object);
    if (found) {
        found->slice_us = group->slice_us;
    }
    pthread_mutex_unlock(&mutex);
}

/* Returns the status; `us` becomes what the group has now. */
static uint32_t set_group_slice(struct object *group, uint64_t *us)
{
    struct nv_slice slice = {0};
    uint32_t status = 0;

    if (group->slice_us == 0) {
        status = driver_control(group, CONTROL_GET_SLICE, &slice, sizeof(slice));
        group->slice_us = slice.us;
        keep_slice(group);
    }
    slice.us = *us != 0 ? *us : group->slice_us;
    if (status == 0) {
        status = driver_control(group, CONTROL_SET_SLICE, &slice, sizeof(slice));
    }
    if (status == 0) {
        status = driver_control(group, CONTROL_GET_SLICE, &slice, sizeof(slice));
    }
    *us = slice.us;
    return status;
}

/* As far as that can be: no group is to be left with a slice that nobody changes any more. */
static void restore_slices(void)
{
    struct object group;
    unsigned place = 0;

    while (next_group(&place, &group)) {
        struct nv_slice slice = {.us = group.slice_us};

        if (slice.us != 0) {
            driver_control(&group, CONTROL_SET_SLICE, &slice, sizeof(slice));
        }
    }
}

/*
 * One thread calls this. What it sets is read back, since a status alone is not believed; the
 * hardware has slices of some lengths only.
 */
bool cuda_set_slice(struct gpu *gpu, uint32_t us)
{
    static bool refused;
    struct object group;
    unsigned place = 0;

    (void)gpu;
    while (!refused && next_group(&place, &group)) {
        uint64_t has_us = us;
        const uint32_t status = set_group_slice(&group, &has_us);

        refused = status != 0 || (us != 0 && (has_us < us / 2 || has_us > UINT64_C(2) * us));
        if (refused) {
            log_warning("the driver does not set a time slice of %" PRIu32 " us: status 0x%x, it "
                        "has %" PRIu64 " us",
                        us, status, has_us);
            restore_slices();
        }
    }
    return !refused;
}
