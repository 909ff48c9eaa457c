/* SPDX-License-Identifier: MIT */
/* What emit_sweep.py makes of the specification, for sweep.c. */
#ifndef VGPU_TESTS_CUDA_SWEEP_H
#define VGPU_TESTS_CUDA_SWEEP_H

#include <stdint.h>

#include <cuda.h>

#define SWEEP_PARAMETERS 16 /* of one call, at most */

enum sweep_kind {
    SWEEP_NUMBER,
    SWEEP_FLAGS,    /* a number of which 0 is the usual one */
    SWEEP_SIZE,     /* 64 bits */
    SWEEP_POINTER,  /* to a result, or to a structure or an array that is passed */
    SWEEP_POINTERS, /* to pointers */
    SWEEP_NODES,    /* to nodes of a graph */
    SWEEP_STRING,
    SWEEP_HOST_FUNCTION,
    SWEEP_CALLBACK,
    SWEEP_BLOCK_FUNCTION,
    SWEEP_DEVICE,
    SWEEP_MEMORY,
    SWEEP_ALLOCATION,
    SWEEP_CONTEXT, /* from here on, objects that are pointers to the library's own memory */
    SWEEP_MODULE,
    SWEEP_FUNCTION,
    SWEEP_STREAM,
    SWEEP_EVENT,
    SWEEP_GRAPH,
    SWEEP_NODE,
    SWEEP_EXEC,
    SWEEP_POOL,
    SWEEP_LIBRARY,
    SWEEP_KERNEL,
    SWEEP_ARRAY,
    SWEEP_MIPMAP,
    SWEEP_LINK,
    SWEEP_USER,
};

struct sweep_call {
    const char *name; /* NULL ends the table */
    CUresult (*run)(void *function, const uint64_t *value);
    unsigned count;
    struct {
        const char *name;
        enum sweep_kind kind;
    } parameters[SWEEP_PARAMETERS];
};

extern const struct sweep_call sweep_calls[];

#endif
