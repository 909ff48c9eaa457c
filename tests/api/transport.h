/* SPDX-License-Identifier: MIT */
/*
 * A call's way from the guest half to the worker's half without ring and process: what
 * guest/libcuda/wire/call.c and the generated code ask of the rest of the library. `cuda` (state.h)
 * has the revision of the host.
 */
#ifndef VGPU_TESTS_API_TRANSPORT_H
#define VGPU_TESTS_API_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/api-calls.h"

#define TRANSPORT_ROOM 65536u /* bytes of arguments, and of results */

struct transport {
    struct handles handles; /* the worker's */
    struct gpu *gpu;
    const struct gpu_calls *calls;
    uint64_t own_stream; /* behind CU_STREAM_PER_THREAD */
    bool refuse_handles; /* as if the program had passed what it does not have */
    bool any_stream;     /* whatever the program passes is a handle */
    CUresult life;       /* what entering the library answers */

    /* Of the last call. */
    unsigned runs;
    uint32_t id;
    bool post;
    _Alignas(8) uint8_t in[TRANSPORT_ROOM];
    uint32_t in_bytes, back_bytes, length;
    /* Which of state.h's functions were asked, and what for. */
    unsigned init_asked, context_asked;
    const char *refused;
};

extern struct transport transport;

/*
 * Has the worker's half serve a call. Arguments and room are copies of exactly the given sizes: a
 * byte behind them faults. Results are copied to `out`, which may be NULL; `length`: bytes of them.
 */
enum vgpu_gpu_error transport_serve(uint32_t id, const void *in, uint32_t in_bytes, void *out,
                                    uint32_t room, uint32_t *length);

#endif
