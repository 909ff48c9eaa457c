/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a queue, and finding a free part of the arena, where the guest driver does
 * not do that; and mapping the part, for all transports.
 *
 * QUEUE_STATUS counts the writes to QUEUE_CONTROL that the host has acted upon, and the device
 * ignores a write while the one before is not counted. So it is not enough to see the state that is
 * wanted: the count has to have moved too. And one write may not be enough: it may have been
 * ignored, or lost with a mediator that was killed. vgpu_queue_act() writes again until both are
 * right.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/map-at.h"
#include "guest/libvgpu/internal.h"

#define ACT_LIMIT_NS (60 * NS_PER_S)
#define WRITE_LOST_NS NS_PER_S /* a write that is not counted for so long */
#define PAGE UINT64_C(4096)
#define HUGE_PAGE (UINT64_C(2) << 20)

/* Whether a queue is as the action wants it, or cannot become so. */
static bool control_acted(uint32_t action, uint32_t status)
{
    const enum vgpu_queue_state state = vgpu_queue_state(status);

    return action == VGPU_QUEUE_OPEN ? state == VGPU_QUEUE_RUNNING || state == VGPU_QUEUE_ENDED
                                     : state == VGPU_QUEUE_FREE;
}

int vgpu_queue_act(const struct vgpu_queue_access *access, uint32_t queue, uint32_t action,
                   uint32_t *status)
{
    const uint64_t start = clock_ns();
    uint32_t before = access->status(access->context, queue);
    uint64_t waited = 0, written = 0;
    bool counted = false;

    access->control(access->context, queue, action);
    for (;;) {
        *status = access->status(access->context, queue);
        if (vgpu_queue_count(*status) != vgpu_queue_count(before)) {
            counted = true;
        }
        if (counted && control_acted(action, *status)) {
            return VGPU_OK;
        }
        if ((counted && vgpu_queue_state(*status) != VGPU_QUEUE_STARTING) ||
            (!counted && waited - written > WRITE_LOST_NS)) {
            /*
             * Either the count was that of another process's write, and this one was ignored
             * meanwhile. Say that the process died just after a CLOSE: that is counted now, the
             * state is FREE, and the OPEN was not heard. Or nothing was counted for a second: the
             * write was lost with a mediator that has been replaced.
             */
            before = *status;
            counted = false;
            written = waited;
            access->control(access->context, queue, action);
        }
        if (access->offline(access->context)) {
            return vgpu_fail_offline();
        }
        if (waited > ACT_LIMIT_NS) {
            return vgpu_fail(VGPU_TIMED_OUT, "the host has not %s queue %u within %u s",
                             action == VGPU_QUEUE_OPEN ? "opened" : "closed", queue,
                             (unsigned)(ACT_LIMIT_NS / NS_PER_S));
        }
        vgpu_pause(waited);
        waited = clock_ns() - start;
    }
}

int vgpu_port_map_arena(struct vgpu_port *port, int file, uint64_t offset, void *address)
{
    /* After EEXIST the caller tries another address. */
    const int r = map_at(address, port->arena_size, PROT_READ | PROT_WRITE, MAP_SHARED, file,
                         (off_t)offset);

    if (r == 0) {
        port->arena = address;
    }
    return r;
}

static int compare_parts(const void *a, const void *b)
{
    const struct vgpu_arena_part *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* A part of the wanted size at the start of a free stretch; large ones on huge pages. */
static bool command_fits(uint64_t start, uint64_t end, uint64_t size, uint64_t *offset)
{
    const uint64_t align = size >= HUGE_PAGE ? HUGE_PAGE : PAGE;

    *offset = (start + align - 1) & ~(align - 1);
    return size > 0 && *offset <= end && size <= end - *offset;
}

bool vgpu_arena_choose(const struct vgpu_arena_request *request, struct vgpu_arena_part *part)
{
    struct vgpu_arena_part taken[VGPU_MAX_QUEUES + 2];
    uint64_t size = (request->size + PAGE - 1) & ~(PAGE - 1), start = request->start;
    uint64_t largest = 0, largest_start = 0;
    unsigned count = 0;
    bool found = false;

    for (unsigned i = 0; i < request->count && count <= VGPU_MAX_QUEUES; i++) {
        const struct vgpu_arena_part *t = &request->taken[i];

        /*
         * Other processes wrote these, whatever they like: what is not inside the arena takes
         * nothing of it.
         */
        if (t->size > 0 && t->offset >= request->start && t->offset <= request->end &&
            t->size <= request->end - t->offset) {
            taken[count++] = *t;
        }
    }
    qsort(taken, count, sizeof(taken[0]), compare_parts);
    /* An empty part at the end, so that the last free stretch ends at a part like the others. */
    taken[count++] = (struct vgpu_arena_part){.offset = request->end};
    for (unsigned i = 0; i < count; i++) {
        if (taken[i].offset > start && taken[i].offset - start > largest) {
            largest = taken[i].offset - start;
            largest_start = start;
        }
        if (!found && command_fits(start, taken[i].offset, size, &part->offset)) {
            found = true;
            part->size = size;
        }
        /*
         * Parts may overlap, since others wrote them: the next free stretch begins behind the
         * furthest end so far.
         */
        if (taken[i].offset + taken[i].size > start) {
            start = taken[i].offset + taken[i].size;
        }
    }
    if (request->size == 0) {
        const uint64_t share = largest / request->share;

        size = share >= HUGE_PAGE ? share & ~(HUGE_PAGE - 1) : share & ~(PAGE - 1);
        if (size == 0 && largest >= PAGE) {
            size = PAGE;
        }
        found = command_fits(largest_start, largest_start + largest, size, &part->offset);
        part->size = size;
    }
    return found;
}
