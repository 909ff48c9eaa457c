/* SPDX-License-Identifier: MIT */
/*
 * Opening a session, and its end: at an address for the arena that is free on both sides, with a
 * queue that is cleared, and on a port of whichever kind leads to the host.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "common/clock.h"
#include "common/shared.h"
#include "guest/libvgpu/session.h"

/* How often another address for the arena is tried. */
#define ADDRESS_TRIES 16
/* How often a host process comes to a mediator that ends in that moment. */
#define COMING_TRIES 5

/* Addresses of the arena: what nobody else chooses, and a multiple of a huge page. */
#define ADDRESS_FIRST UINT64_C(0x200000000000)
#define ADDRESS_LAST UINT64_C(0x400000000000)
#define HUGE_PAGE (UINT64_C(2) << 20)

/* Where the kernel would map so many bytes; 0 where it would not. They are free again. */
static uint64_t free_address(uint64_t bytes)
{
    void *there = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (there == MAP_FAILED) {
        return 0;
    }
    munmap(there, bytes);
    return (uint64_t)(uintptr_t)there;
}

/*
 * Maps the port's part of the arena somewhere that is probably free on the host too: the worker has
 * to map it at the same address, so that a pointer means the same there. Far below where the kernel
 * puts things by itself, and at random; or, where this process may have nothing there (under
 * ThreadSanitizer), where the kernel puts it.
 */
static int map_somewhere(struct vgpu_port *port)
{
    uint64_t random = 0, address;
    int r = -EEXIST;

    for (int i = 0; i < ADDRESS_TRIES && r == -EEXIST; i++) {
        if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
            random ^= clock_ns();
        }
        address = i < ADDRESS_TRIES / 2
                      ? ADDRESS_FIRST + random % (ADDRESS_LAST - ADDRESS_FIRST - port->arena_size)
                      : free_address(port->arena_size + 2 * HUGE_PAGE) + HUGE_PAGE;
        /* In step with the memory's own huge pages, so that these can be used for the mapping. */
        address = (address & ~(HUGE_PAGE - 1)) + port->arena_offset % HUGE_PAGE;
        r = port->ops->map(port, (void *)(uintptr_t)address);
    }
    if (r < 0) {
        return vgpu_fail(VGPU_SYSTEM, "cannot map %llu bytes of shared memory: %s",
                         (unsigned long long)port->arena_size, strerror(-r));
    }
    return VGPU_OK;
}

/*
 * Clears what a former session left, and starts the worker. Where it finds the address in use in
 * its own process, all is done again with another address.
 */
static int session_start_worker(struct vgpu_port *port)
{
    uint32_t status = 0;
    int r;

    for (int i = 0; i < ADDRESS_TRIES; i++) {
        r = map_somewhere(port);
        if (r != VGPU_OK) {
            return r;
        }
        /*
         * Also `tail` and the slots, whose numbers begin anew. The ring itself is read up to the
         * tail alone.
         */
        memset(port->queue, 0, offsetof(struct vgpu_queue, ring));
        shared_fence();
        r = port->ops->start(port, &status);
        if (r != VGPU_OK || vgpu_queue_state(status) == VGPU_QUEUE_RUNNING) {
            return r;
        }
        if (vgpu_queue_end(status) != VGPU_QUEUE_END_ADDRESS) {
            break;
        }
        munmap(port->arena, port->arena_size);
        port->arena = NULL;
    }
    return vgpu_fail(VGPU_ENDED, "the host could not start the session (%s): %s",
                     vgpu_queue_end_name(vgpu_queue_end(status)),
                     vgpu_queue_end_text(vgpu_queue_end(status)));
}

static int open_port(const struct vgpu_session_options *options, struct vgpu_port **port)
{
    char address[VGPU_ADDRESS_SIZE], path[64];
    int r;

    if (options->host) {
        return vgpu_port_open_host(options->host, options->arena_size, port);
    }
    r = vgpu_choose_address(options->address, address);
    if (r != VGPU_OK) {
        return r;
    }
    return vgpu_driver_path(address, path, sizeof(path))
               ? vgpu_port_open_driver(address, options->arena_size, port)
               : vgpu_port_open_pci(address, options->arena_size, port);
}

/*
 * Opens a port with a worker behind it. A host process whose mediator ends in the moment in which
 * it has come has to come again: from then on the next mediator would know it.
 */
static int open_started_port(const struct vgpu_session_options *options, struct vgpu_port **port)
{
    int r, tries = 0;

    do {
        r = open_port(options, port);
        if (r != VGPU_OK) {
            return r;
        }
        r = session_start_worker(*port);
        if (r != VGPU_OK) {
            (*port)->ops->close(*port);
        }
    } while (r == VGPU_OFFLINE && options->host && ++tries < COMING_TRIES);
    return r;
}

int vgpu_session_open(const struct vgpu_session_options *options, struct vgpu_session **session)
{
    static const struct vgpu_session_options defaults;
    struct vgpu_session *s = calloc(1, sizeof(*s));
    int r;

    if (!s) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    r = open_started_port(options ? options : &defaults, &s->port);
    if (r != VGPU_OK) {
        free(s);
        return r;
    }
    pthread_mutex_init(&s->ring_mutex, NULL);
    pthread_mutex_init(&s->wait_mutex, NULL);
    pthread_cond_init(&s->wait_cond, NULL);
    pthread_mutex_init(&s->layout_mutex, NULL);
    pthread_mutex_init(&s->show_mutex, NULL);
    s->free_slots = ~UINT64_C(0);
    s->show = session_show;
    static_assert(VGPU_SLOTS == 64, "free_slots has a bit for each");
    memory_init(s);
    *session = s;
    return VGPU_OK;
}

/*
 * Replaces shared memory by memory of this process's own: threads that still copy to it find memory
 * there, and reach nothing that another session may have by now. If that fails, the shared memory
 * stays mapped.
 */
static bool session_replace(void *memory, uint64_t bytes)
{
    return mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                0) != MAP_FAILED;
}

void session_hang_up(struct vgpu_session *s)
{
    /* First, so that threads which the hang-up lets go on find the session gone. */
    shared_store(&s->end, 1 + VGPU_QUEUE_END_NONE);
    s->port->ops->hang_up(s->port);
    session_replace(s->port->arena, s->port->arena_size);
    session_replace((void *)((uintptr_t)s->port->queue & ~(uintptr_t)4095), VGPU_QUEUE_SIZE);
}

void vgpu_session_close(struct vgpu_session *s)
{
    if (!s) {
        return;
    }
    s->port->ops->close(s->port);
    memory_release(s);
    while (s->layouts) {
        struct layout *layout = s->layouts;

        s->layouts = layout->next;
        free(layout);
    }
    pthread_mutex_destroy(&s->ring_mutex);
    pthread_mutex_destroy(&s->wait_mutex);
    pthread_cond_destroy(&s->wait_cond);
    pthread_mutex_destroy(&s->layout_mutex);
    pthread_mutex_destroy(&s->show_mutex);
    free(s);
}
