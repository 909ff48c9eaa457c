/* SPDX-License-Identifier: MIT */
/* What libvgpu's files share. */
#ifndef VGPU_GUEST_LIBVGPU_INTERNAL_H
#define VGPU_GUEST_LIBVGPU_INTERNAL_H

#include <stdbool.h>

#include "guest/libvgpu/vgpu.h"

/* How registers are reached. */
struct vgpu_transport {
    bool comes_back; /* after OFFLINE, when the next mediator runs */
    uint32_t (*read)(struct vgpu *vgpu, uint32_t offset);
    void (*write)(struct vgpu *vgpu, uint32_t offset, uint32_t value);
    /* Maps shm_size bytes at shm_offset, which it finds; NULL with a message on failure. */
    void *(*map_shm)(struct vgpu *vgpu);
    /* Where requests take another way than the registers; NULL otherwise. As vgpu_request(). */
    int (*request)(struct vgpu *vgpu, const void *request, uint32_t length, void *response,
                   uint32_t *response_length);
    int (*reset)(struct vgpu *vgpu); /* likewise */
    void (*close)(struct vgpu *vgpu);
};

/* The head of each transport's own structure. */
struct vgpu {
    const struct vgpu_transport *transport;
    uint32_t timeout_ms;
    void *shm; /* NULL until asked for */
    uint64_t shm_size;
    uint64_t shm_offset; /* of it in BAR2, bytes */
    enum vgpu_error error;
};

#define VGPU_DEFAULT_TIMEOUT_MS 60000u

struct vgpu_port;

/* How a session reaches its queue. */
struct vgpu_port_ops {
    /* Maps the port's part of the arena at an address that is free. 0 or -errno. */
    int (*map)(struct vgpu_port *port, void *address);
    /* Starts the worker, with the part where map() has put it. VGPU_OK when *status is final. */
    int (*start)(struct vgpu_port *port, uint32_t *status);
    uint32_t (*status)(struct vgpu_port *port); /* QUEUE_STATUS; ENDED when it cannot be told */
    void (*kick)(struct vgpu_port *port);       /* writes the doorbell */
    /* Waits for the queue's interrupt, not for ever; NULL where there is none. */
    void (*wait)(struct vgpu_port *port, int timeout_ms);
    /* Ends the session, and leaves all in place for threads that are still about to use it. */
    void (*hang_up)(struct vgpu_port *port);
    /* Ends the session, unmaps, frees. Also what never started. */
    void (*close)(struct vgpu_port *port);
};

/* The head of each transport's own structure. */
struct vgpu_port {
    const struct vgpu_port_ops *ops;
    struct vgpu_queue *queue;
    uint8_t *arena;                    /* NULL until mapped */
    uint64_t arena_offset, arena_size; /* bytes; the offset in BAR2 */
};

/* map() for a file that has the part at `offset`. */
int vgpu_port_map_arena(struct vgpu_port *port, int file, uint64_t offset, void *address);

/* Take a queue and a part of the arena of `arena_size` bytes, or of the default size when 0. */
int vgpu_port_open_pci(const char *address, uint64_t arena_size, struct vgpu_port **port);
int vgpu_port_open_driver(const char *address, uint64_t arena_size, struct vgpu_port **port);
int vgpu_port_open_host(const struct vgpu_host_options *options, uint64_t arena_size,
                        struct vgpu_port **port);

/* How QUEUE_STATUS is read and QUEUE_CONTROL written, where no driver does it. */
struct vgpu_queue_access {
    uint32_t (*status)(void *context, uint32_t queue);
    void (*control)(void *context, uint32_t queue, uint32_t action);
    bool (*offline)(void *context);
    void *context;
};

/*
 * Opens or closes a queue and waits until that is done: *status is RUNNING or ENDED after an open,
 * FREE after a close. VGPU_OFFLINE when there is no mediator, VGPU_TIMED_OUT after a minute.
 */
int vgpu_queue_act(const struct vgpu_queue_access *access, uint32_t queue, uint32_t action,
                   uint32_t *status);

/* A page-aligned part of a free stretch: all of what vgpu_arena_choose() decides on. */
struct vgpu_arena_request {
    uint64_t start, end;                 /* the arena, offsets in BAR2 */
    const struct vgpu_arena_part *taken; /* `count` parts, in any order, 0 bytes: none */
    unsigned count;
    uint64_t size; /* bytes wanted; 0: a `share`th of the largest free stretch */
    unsigned share;
};

/* Finds a part that is free. False when there is none of that size. */
bool vgpu_arena_choose(const struct vgpu_arena_request *request, struct vgpu_arena_part *part);

/* Polls at full speed at first, then in pauses that grow with the time waited already. */
void vgpu_pause(uint64_t waited_ns);

/* The PCI address to open: the one given, or the only one. */
int vgpu_choose_address(const char *wanted, char address[VGPU_ADDRESS_SIZE]);

/* The guest driver's device file for an address; false when the driver does not serve it. */
bool vgpu_driver_path(const char *address, char *path, unsigned size);

/* Opens a register-mode handle by the guest driver. */
int vgpu_open_driver(const char *address, struct vgpu **vgpu);

/* VGPU_REFUSED for a request that the host answered with this ERROR. */
int vgpu_refused(struct vgpu *vgpu, uint32_t error);

/* Sets vgpu_last_message() and returns `result`. */
int vgpu_fail(int result, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* VGPU_OFFLINE: nobody on the host serves this VM, for whichever reason. */
int vgpu_fail_offline(void);

#endif
