/* SPDX-License-Identifier: MIT */
/*
 * A ring session for tests, which play the guest process, the mediator, and a GPU that finishes
 * when it is told to. The fake GPU writes down what it is asked to do; its streams, events and
 * fences are counted, so that a test ends with none left.
 */
#ifndef VGPU_UNIT_RING_FIXTURE_H
#define VGPU_UNIT_RING_FIXTURE_H

#include "guest-side.h"
#include "ring-session.h"

#define FIXTURE_ARENA (64u << 10) /* bytes */

struct fixture {
    struct ring_session session;
    struct vgpu_turn_page turn_page; /* OPEN at first */
    struct vgpu_queue *queue;
    struct guest_side guest;
    uint32_t sequences[VGPU_SLOTS + 2]; /* of the last command for each, and for one too many */
    int mediator;                       /* the other end of the link */
    uint8_t *arena;                     /* FIXTURE_ARENA bytes */
};
extern struct fixture fixture;

struct fake_gpu {
    struct gpu head;
    char log[2048]; /* "copy fill ..." */
    uint64_t submitted, done;
    bool full;                /* no room */
    enum vgpu_gpu_error next; /* what the next work or allocation ends with, once */
    enum vgpu_gpu_error lost; /* what all ends with from now on */
    unsigned streams, events; /* that exist */
    unsigned modules, fences; /* likewise */
    uint32_t turn_at_load;    /* the turn page's word when a module was loaded last */
    uint8_t image[64];        /* the start of the last module */
    uint64_t image_bytes;
    struct vgpu_cmd_launch launch; /* the last one */
    uint8_t params[64];
};
extern struct fake_gpu fake;

/* For cmocka. The first with the fake GPU, the other with the cpu backend. */
int fixture_set_up(void **state);
int fixture_set_up_cpu(void **state);
int fixture_tear_down(void **state);

/* All that was submitted is done. */
void fake_finish(void);

/* What the fake GPU was asked to do since the last call. */
const char *fake_log(void);

void post(uint32_t opcode, uint32_t slot, const void *body, uint32_t bytes);
void post_value(uint32_t opcode, uint32_t slot, uint64_t value);
void post_pair(uint32_t opcode, uint32_t slot, uint64_t first, uint64_t second);
void post_copy(enum vgpu_copy_kind kind, uint64_t to, uint64_t from, uint64_t bytes,
               uint64_t stream);
void post_fill(uint32_t slot, uint64_t address, uint64_t count, uint32_t width);

/* Steps until nothing more can be done now; what the last step returned: 0 or -errno. */
int steps(void);

bool answered(uint32_t slot);

/* The result of a command that has been answered; fails the test when it has not been. */
enum vgpu_gpu_error result_of(uint32_t slot);

/* Posts a command for slot 64 and returns what came of it, at once. */
enum vgpu_gpu_error call(uint32_t opcode, const void *body, uint32_t bytes);
enum vgpu_gpu_error call_value(uint32_t opcode, uint64_t value);
enum vgpu_gpu_error call_pair(uint32_t opcode, uint64_t first, uint64_t second);

/* The same for what makes something; fails the test when it is not made. */
uint64_t make(uint32_t opcode, uint64_t value);
uint64_t make_module(void);
uint64_t make_function(uint64_t module, const char *name);

/* Steps until a slot is answered, for GPUs that take their time. */
void wait_for(uint32_t slot);

/* The next message to the mediator, with its value; 0 when there is none. */
uint32_t sent(uint32_t *value);

#endif
