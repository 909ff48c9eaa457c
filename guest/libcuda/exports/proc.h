/* SPDX-License-Identifier: MIT */
/*
 * Finding functions by name. The table of them is generated with the functions, and is handed to
 * cuGetProcAddress() by its exported function: nothing below knows the exports.
 */
#ifndef VGPU_GUEST_LIBCUDA_EXPORTS_PROC_H
#define VGPU_GUEST_LIBCUDA_EXPORTS_PROC_H

#include "api/cuda-types.h"

/* A function that programs find; in a table by ascending names, then versions. */
struct entry {
    const char *name; /* without _vN */
    int version;      /* of CUDA, from which this is the one */
    int own_version;  /* the same for the variant with the thread's own default stream; 0: none */
    void *function, *own;
};

struct entries {
    const struct entry *entry;
    unsigned count;
};

/* All of them; generated. */
extern const struct entries exported_entries;

/* The default stream's variant of a stream: 0 is the thread's own. */
static inline CUstream own_stream(CUstream stream)
{
    return stream ? stream : CU_STREAM_PER_THREAD;
}

#endif
