/* SPDX-License-Identifier: MIT */
/*
 * A ring session for tests, which play the guest process, the mediator, and a GPU that finishes
 * when it is told to. The fake GPU writes down what it is asked to do; its streams, events and
 * fences are counted, so that a test ends with none left. It does all in the order in which it
 * was submitted.
 */
#ifndef VGPU_TESTS_UNIT_RING_FIXTURE_H
#define VGPU_TESTS_UNIT_RING_FIXTURE_H

#include "tests/unit/guest-side.h"
#include "tests/unit/test-clock.h"
#include "worker/ring-session.h"

#define FIXTURE_ARENA (16u << 20) /* bytes */
#define FAKE_FREE 1000u           /* bytes of device memory that the fake GPU says it has */
#define FAKE_TOTAL 2000u
#define FAKE_ADDRESS 0x7000u /* of its first allocation */
#define FAKE_COPIES 16u      /* that it remembers */

struct fixture {
    struct ring_session session;
    struct vgpu_turn_page turn_page; /* OPEN at first */
    struct vgpu_account_page account;
    struct vgpu_queue *queue;
    struct guest_side guest;
    uint32_t sequences[VGPU_SLOTS + 2]; /* of the last command for each, and for one too many */
    int mediator;                       /* the other end of the link */
    struct vgpu_link_msg message;       /* the last one from there */
    uint8_t *arena;                     /* FIXTURE_ARENA bytes */
};
extern struct fixture fixture;

struct fake_gpu {
    struct gpu head;
    char log[VGPU_NAME_MAX + 2048]; /* "copy fill ..." */
    uint64_t submitted, done;
    bool full;                /* no room; all ends with head.lost where that is set */
    enum vgpu_gpu_error next; /* what the next work or allocation ends with, once */
    unsigned streams, events; /* that exist */
    unsigned modules, fences; /* likewise */
    unsigned fence_calls;     /* fences made so far */
    unsigned allocations;     /* addresses given so far */
    uint32_t part;            /* of it that each launch fills; 0: all */
    uint32_t turn_at_load;    /* the compute turn's word when a module was loaded last */
    uint8_t image[64];        /* the start of the last module */
    uint64_t image_bytes;
    struct vgpu_cmd_launch launch; /* the last one */
    uint8_t params[64];
    struct gpu_copy copies[FAKE_COPIES]; /* the first ones */
    unsigned copy_count;
    struct gpu_rows rows;           /* the last of them */
    struct gpu_fill_rows fill_rows; /* likewise */
    struct gpu_fill fills[FAKE_COPIES];
    unsigned fill_count;
};
extern struct fake_gpu fake;

/* An engine's turn word. */
uint32_t *turn_word(enum vgpu_engine engine);

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

/* The type of the next message to the mediator, 0 when there is none; it is in fixture.message. */
uint32_t sent(void);

/* Whether the next message is this one, about this engine. */
bool sent_is(enum vgpu_link_type type, enum vgpu_engine engine);

#endif
