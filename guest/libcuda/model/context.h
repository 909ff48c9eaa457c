/* SPDX-License-Identifier: MIT */
/*
 * Contexts. On the host there is one, the session's; here a process may have several, and each
 * thread its stack of them. A context owns what was made while it was current: that goes with it.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_CONTEXT_H
#define VGPU_GUEST_LIBCUDA_MODEL_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"

struct context {
    struct context *next, **before; /* among those that live */
    uint64_t id;
    unsigned flags;
    /* Of the primary one. */
    uint64_t retained; /* how often */
    bool active;       /* it has been retained since it was last ended */
};

/*
 * The primary one. It is not allocated, so its address never belongs to another context. How often
 * it is retained, and whether it is active, is calls/context.c's to know.
 */
extern struct context primary_context;

/*
 * A context begins, with flags, and ends. It is the caller's and stays in its place in between.
 * context_end() is false, and does nothing, where none lives at that address.
 */
void context_begin(struct context *context, unsigned flags);
bool context_end(const struct context *context);

/*
 * The calling thread's stack. One that lives may be pushed, and the primary one; OUT_OF_MEMORY when
 * the stack is full. The top may have ended since; NULL: the stack is empty.
 */
CUresult context_push(struct context *context);
struct context *context_top(void);
void context_pop(void);

/*
 * SUCCESS when the library is initialised, and the calling thread has a current context that still
 * lives.
 */
CUresult enter_context(void);

/* The calling thread's, NULL when it has none. */
struct context *context_current(void);

/* The context that a program means: NULL is the current one. NULL when there is none. */
struct context *context_find(CUcontext context);

/*
 * The same, and the primary one in any case: NVIDIA's runtime library makes it current, and keeps
 * values for it, before it retains it.
 */
struct context *context_find_or_primary(CUcontext context);

#endif
