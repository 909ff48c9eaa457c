/* SPDX-License-Identifier: MIT */
/* A session inside libvgpu: what session.c, memory.c and calls.c share. */
#ifndef VGPU_GUEST_LIBVGPU_SESSION_H
#define VGPU_GUEST_LIBVGPU_SESSION_H

#include <pthread.h>
#include <stdbool.h>

#include "common/shared.h"
#include "guest/libvgpu/internal.h"

/* Parts of the arena through which memory goes that is not pinned: at first, and at most. */
#define STAGES 4u
#define STAGES_MAX 16u

/* An answer that is awaited. */
struct ticket {
    uint32_t slot; /* from 1; 0: none */
    uint32_t sequence;
};

/* A part of the arena that copies go through. */
struct stage {
    uint8_t *memory;
    bool used;            /* by a thread */
    struct ticket ticket; /* when the GPU is done with it, if it is not yet */
};

/* A part of pinned memory, or of what stands in for it. */
struct pinned {
    struct pinned *next;
    uint8_t *memory;
    uint64_t bytes;
    bool used;
    bool ordinary; /* not in the arena */
};

/* The layout of a function's parameters. */
struct layout {
    struct layout *next;
    uint64_t module, function;
    uint32_t count; /* ~0: the host cannot tell */
    uint32_t known; /* of params, from the first on */
    struct vgpu_result_param params[];
};

struct vgpu_session {
    struct vgpu_port *port;

    /* The ring, and posting to it. */
    pthread_mutex_t ring_mutex;
    uint32_t tail;     /* bytes posted */
    uint32_t head;     /* bytes taken, as last read */
    uint32_t kicked;   /* `parked` for which the doorbell was written last */
    uint32_t sequence; /* of the last command */

    /* Slots, and waiting for them. */
    pthread_mutex_t wait_mutex;
    pthread_cond_t wait_cond; /* a slot is free; or the thread that waits for all has woken */
    uint64_t free_slots;      /* bit N: slot N + 1 */
    uint32_t patient;         /* 1: the last wait was longer than a thread looks on for */
    bool waiter;              /* a thread waits for the interrupt, on behalf of all */

    /* Memory. */
    pthread_mutex_t memory_mutex;
    struct pinned *pinned;       /* ascending addresses, those in the arena first */
    pthread_mutex_t stage_mutex; /* not held while anything is waited for */
    struct stage stages[STAGES_MAX];
    unsigned stage_count;
    uint64_t stage_bytes; /* of each */

    pthread_mutex_t layout_mutex;
    struct layout *layouts;

    /* What kernels print; session_show(), which asks and waits itself and so is not known there. */
    void (*show)(struct vgpu_session *s, bool wait);
    pthread_mutex_t show_mutex; /* held while text is fetched and written */
    uint32_t shown;             /* the queue's `printed` up to which it was */

    uint32_t end; /* 1 + enum vgpu_queue_end when the session is gone */
};

/* A command: a body, and what follows it. */
struct command {
    uint16_t opcode;
    const void *body;
    uint32_t body_bytes;
    const void *rest; /* NULL: none */
    uint32_t rest_bytes;
};

/* Posts a command without an answer. VGPU_OK or VGPU_ENDED. */
int session_post(struct vgpu_session *s, const struct command *command);

/* Posts a command and returns what session_await() needs. */
int session_ask(struct vgpu_session *s, const struct command *command, struct ticket *ticket);

/* Waits for an answer and copies `bytes` of it; uses the ticket up. Its result, or VGPU_ENDED. */
int session_await(struct vgpu_session *s, struct ticket *ticket, void *payload, uint32_t bytes);

/* Whether the answer is there, so that session_await() does not wait. */
bool session_answered(struct vgpu_session *s, const struct ticket *ticket);

/* Now and then, while waiting for something else: looks whether the session lives. */
void session_look(struct vgpu_session *s, uint64_t waited_ns);

/* VGPU_ENDED with its message. */
int session_ended(struct vgpu_session *s);

/* Posts, and waits. */
int session_call(struct vgpu_session *s, const struct command *command, void *payload,
                 uint32_t bytes);

/* The same for an answer that is a list of at least one and at most `most`; *count of them came. */
int session_call_list(struct vgpu_session *s, const struct command *command, void *list,
                      uint32_t size, uint32_t most, uint32_t *count);

/* The text of an enum vgpu_refusal; static. */
const char *session_refusal_text(uint32_t why);

/*
 * Ends the session at a process's end, when other threads may be in any call: they find it gone.
 * Nothing is freed.
 */
void session_hang_up(struct vgpu_session *s);

/* Whether kernels have printed what is not shown yet. */
static inline bool session_prints(const struct vgpu_session *s)
{
    /* Partner: the store-release in the worker's printed_read(). */
    return shared_load_acquire(&s->port->queue->printed) != shared_load(&s->shown);
}

/*
 * Shows it. When another thread is about to already: waits for that, or leaves it to it. Does
 * nothing where it is called for its own answers.
 */
void session_show(struct vgpu_session *s, bool wait);

/* Lays out the arena. */
void memory_init(struct vgpu_session *s);
void memory_release(struct vgpu_session *s);

/* The error with which the GPU's context was lost, as the worker has noticed by itself; 0: none. */
static inline uint32_t session_lost(const struct vgpu_session *s)
{
    return shared_load(&s->port->queue->lost);
}

#endif
