/* SPDX-License-Identifier: MIT */
/*
 * What a ring session computes on: a context of its own on the GPU (backend-cuda/), or the same
 * in C where there is none (backend-cpu/). Objects are pointers that only their backend looks
 * into; command.c has checked that they are of their type and alive.
 *
 * Calls come from one thread and do not wait for what the GPU has to do, but where it says so:
 * work is submitted in streams, and fences tell when it is done. Functions return VGPU_GPU_SUCCESS
 * or another value of enum vgpu_gpu_error. Addresses are the guest's: of device memory as
 * mem_alloc() gave them, or in the arena, which lies at one address in the guest process and here.
 */
#ifndef VGPU_WORKER_GPU_H
#define VGPU_WORKER_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/cuda-types.h"
#include "protocol/vgpu-array.h"
#include "protocol/vgpu-graph.h"
#include "protocol/vgpu-queue.h"
#include "worker/backend.h"

struct gpu_array;
struct gpu_calls;
struct gpu_stream;
struct gpu_event;
struct gpu_module;
struct gpu_function;
struct gpu_graph;
struct gpu_link;

/* The session's part of the arena; mapped at `address`. */
struct gpu_arena {
    uint8_t *address;
    uint64_t size; /* bytes */
};

/* The end of the work that a stream had when the fence was made, or an event's last record. */
struct gpu_fence {
    void *mark, *record;
    uint64_t position;
    bool awaited; /* by a guest: it is polled without a pause, and to be passed early */
    bool asked;   /* about by a guest, for which it is passed when the GPU has answered */
};

/* A copy whose host side, where it has one, lies in the arena. */
struct gpu_copy {
    enum vgpu_copy_kind kind;
    uint64_t to, from, bytes;
};

struct gpu_fill {
    uint64_t address, count;
    uint32_t value, width;
};

struct gpu_launch {
    const struct vgpu_cmd_launch *shape; /* its handles and param_bytes are not looked at */
    const void *params;
    uint32_t param_bytes;
    const CUlaunchAttribute *attributes; /* those that hold no handle */
    uint32_t attribute_count;
};

/* Rows of a copy, `pitch` bytes from one to the next; all of them in the arena or none. */
struct gpu_rows {
    enum vgpu_copy_kind kind;
    uint64_t to, to_pitch, from, from_pitch;
    uint64_t width, rows;
};

/* Rows of a fill, `pitch` bytes from one to the next. */
struct gpu_fill_rows {
    uint64_t address, pitch;
    uint64_t width, rows;    /* in elements */
    uint32_t value, element; /* bytes of an element: 1, 2 or 4 */
};

/* A side of a copy from or to an array: the array, or memory, which is in the arena or not. */
struct gpu_array_side {
    struct gpu_array *array; /* not a mipmapped one; NULL: memory */
    uint64_t x, y, z;        /* in the array: bytes, rows, slices */
    bool host;
    uint64_t address, pitch;
};

/* Rows of one slice; one side at least is an array. */
struct gpu_array_copy {
    struct gpu_array_side to, from;
    uint64_t width, rows; /* bytes; not 0 */
};

/* A node of a graph: its numbers and what it points to are checked. */
struct gpu_graph_node {
    enum vgpu_graph_kind kind;
    const uint32_t *follows; /* numbers of nodes before it */
    uint32_t follow_count;
    union {
        struct {
            struct gpu_function *function;
            struct gpu_launch launch;
        } kernel;
        struct vgpu_graph_copy copy;
        struct vgpu_graph_fill fill;
        uint64_t gate; /* address of its word */
    };
};

/* How the driver's compiler is to go about a module, and what it has to say. */
struct gpu_compile {
    const CUjit_option *options; /* those whose value is a number, `count` of them */
    const uint64_t *values;
    uint32_t count;
    char *info_log, *error_log; /* of so many bytes, and used; NULL with 0 bytes */
    uint32_t info_bytes, error_bytes, info_used, error_used;
    float wall_time; /* ms */
};

struct gpu;

struct gpu_ops {
    enum vgpu_gpu_error (*mem_info)(struct gpu *gpu, uint64_t *free, uint64_t *total);
    enum vgpu_gpu_error (*mem_alloc)(struct gpu *gpu, uint64_t bytes, uint64_t *address);
    /* Best called when nothing runs: it may wait for all streams. */
    enum vgpu_gpu_error (*mem_free)(struct gpu *gpu, uint64_t address);

    /*
     * Addresses and memory apart from each other; NULL in a backend that maps nothing. Releasing
     * and unmapping may wait for all streams.
     */
    enum vgpu_gpu_error (*range_reserve)(struct gpu *gpu, uint64_t bytes, uint64_t alignment,
                                         uint64_t wanted, uint64_t *address);
    enum vgpu_gpu_error (*range_free)(struct gpu *gpu, uint64_t address, uint64_t bytes);
    enum vgpu_gpu_error (*memory_create)(struct gpu *gpu, uint64_t bytes, uint32_t compression,
                                         uint64_t *memory);
    enum vgpu_gpu_error (*memory_release)(struct gpu *gpu, uint64_t memory);
    enum vgpu_gpu_error (*memory_map)(struct gpu *gpu, uint64_t address, uint64_t bytes,
                                      uint64_t memory);
    enum vgpu_gpu_error (*memory_unmap)(struct gpu *gpu, uint64_t address, uint64_t bytes);

    enum vgpu_gpu_error (*copy)(struct gpu *gpu, const struct gpu_copy *copy,
                                struct gpu_stream *stream);
    enum vgpu_gpu_error (*fill)(struct gpu *gpu, const struct gpu_fill *fill,
                                struct gpu_stream *stream);

    enum vgpu_gpu_error (*copy_rows)(struct gpu *gpu, const struct gpu_rows *rows,
                                     struct gpu_stream *stream);
    enum vgpu_gpu_error (*fill_rows)(struct gpu *gpu, const struct gpu_fill_rows *rows,
                                     struct gpu_stream *stream);

    /* `image` has `bytes` bytes and a NUL behind them; `compile` may be NULL. */
    enum vgpu_gpu_error (*module_load)(struct gpu *gpu, const void *image, uint64_t bytes,
                                       struct gpu_compile *compile, struct gpu_module **module);
    enum vgpu_gpu_error (*module_builtin)(struct gpu *gpu, struct gpu_module **module);
    /* Its functions are gone too. Best called when nothing runs. May wait, as module_load() may. */
    enum vgpu_gpu_error (*module_unload)(struct gpu *gpu, struct gpu_module *module);
    /*
     * Fills in all of *info but the handle. The function is its module's, and the same one each
     * time for a name.
     */
    enum vgpu_gpu_error (*function_get)(struct gpu *gpu, struct gpu_module *module,
                                        const char *name, struct gpu_function **function,
                                        struct vgpu_result_function *info);
    enum vgpu_gpu_error (*function_param)(struct gpu *gpu, struct gpu_function *function,
                                          uint64_t index, struct vgpu_result_param *param);
    enum vgpu_gpu_error (*launch)(struct gpu *gpu, struct gpu_function *function,
                                  const struct gpu_launch *launch, struct gpu_stream *stream);
    /* How much of the GPU a launch of this shape fills, 1 to PREDICT_WHOLE. */
    uint32_t (*launch_part)(struct gpu *gpu, struct gpu_function *function,
                            const struct vgpu_cmd_launch *shape);

    /*
     * Graphs; all NULL in a backend that has none. What a launch has submitted goes on when the
     * graph is updated or destroyed. An update leaves the graph as it was when it fails.
     */
    enum vgpu_gpu_error (*graph_make)(struct gpu *gpu, const struct gpu_graph_node *nodes,
                                      uint32_t count, struct gpu_graph **graph);
    enum vgpu_gpu_error (*graph_update)(struct gpu *gpu, struct gpu_graph *graph,
                                        const struct gpu_graph_node *nodes, uint32_t count);
    enum vgpu_gpu_error (*graph_launch)(struct gpu *gpu, struct gpu_graph *graph,
                                        struct gpu_stream *stream);
    void (*graph_destroy)(struct gpu *gpu, struct gpu_graph *graph);

    /*
     * Arrays. Textures and surfaces are the driver's own numbers; both functions are NULL in a
     * backend that has none. A shape's levels are at most those of its largest extent.
     */
    enum vgpu_gpu_error (*array_create)(struct gpu *gpu, const vgpu_array_shape *shape,
                                        struct gpu_array **array);
    /* Best called when nothing runs. A level goes without its array's memory. */
    void (*array_destroy)(struct gpu *gpu, struct gpu_array *array);
    enum vgpu_gpu_error (*array_level)(struct gpu *gpu, struct gpu_array *array, unsigned number,
                                       struct gpu_array **level);
    enum vgpu_gpu_error (*array_copy)(struct gpu *gpu, const struct gpu_array_copy *copy,
                                      struct gpu_stream *stream);
    enum vgpu_gpu_error (*texture_create)(struct gpu *gpu, const vgpu_texture *described,
                                          const struct gpu_array *array, uint64_t *texture);
    enum vgpu_gpu_error (*texture_destroy)(struct gpu *gpu, uint64_t texture, uint32_t form);

    /*
     * The linker; all NULL in a backend that has none. Each but the last fills in what `compile`
     * has for results, also when it fails; link_create() keeps nothing of it. The image is the
     * link's, until that is destroyed.
     */
    enum vgpu_gpu_error (*link_create)(struct gpu *gpu, const struct gpu_compile *compile,
                                       struct gpu_link **link);
    enum vgpu_gpu_error (*link_add)(struct gpu *gpu, struct gpu_link *link, CUjitInputType type,
                                    const void *data, uint64_t bytes, const char *name,
                                    struct gpu_compile *compile);
    enum vgpu_gpu_error (*link_complete)(struct gpu *gpu, struct gpu_link *link, const void **image,
                                         uint64_t *bytes, struct gpu_compile *compile);
    void (*link_destroy)(struct gpu *gpu, struct gpu_link *link);

    /* One of those that host_cuCtxSetLimit() lets through. */
    enum vgpu_gpu_error (*set_limit)(struct gpu *gpu, CUlimit limit, uint64_t value);

    /* A NULL stream is the default one. One that is destroyed has nothing left to do. */
    enum vgpu_gpu_error (*stream_create)(struct gpu *gpu, uint32_t flags, int32_t priority,
                                         struct gpu_stream **stream);
    void (*stream_destroy)(struct gpu *gpu, struct gpu_stream *stream);
    /* NOT_READY while it has work to do. */
    enum vgpu_gpu_error (*stream_poll)(struct gpu *gpu, struct gpu_stream *stream);
    enum vgpu_gpu_error (*stream_wait)(struct gpu *gpu, struct gpu_stream *stream,
                                       struct gpu_event *event);

    enum vgpu_gpu_error (*event_create)(struct gpu *gpu, uint32_t flags, struct gpu_event **event);
    void (*event_destroy)(struct gpu *gpu, struct gpu_event *event);
    enum vgpu_gpu_error (*event_record)(struct gpu *gpu, struct gpu_event *event,
                                        struct gpu_stream *stream);
    /* Of the event as it is now, whatever becomes of it. */
    enum vgpu_gpu_error (*event_fence)(struct gpu *gpu, struct gpu_event *event,
                                       struct gpu_fence *fence);
    enum vgpu_gpu_error (*event_query)(struct gpu *gpu, struct gpu_event *event);
    enum vgpu_gpu_error (*event_elapsed)(struct gpu *gpu, struct gpu_event *start,
                                         struct gpu_event *end, float *milliseconds);

    enum vgpu_gpu_error (*fence)(struct gpu *gpu, struct gpu_stream *stream,
                                 struct gpu_fence *fence);
    /* NOT_READY while there is work before the fence. */
    enum vgpu_gpu_error (*fence_poll)(struct gpu *gpu, const struct gpu_fence *fence);
    void (*fence_release)(struct gpu *gpu, struct gpu_fence *fence);
    /*
     * Has the GPU itself answer: just before the fence is passed it stores `value` in a word of
     * memory that reach() was called for; unless the context is lost.
     * To be called just after fence(); returns whether it will be so. NULL in a backend that
     * cannot.
     */
    bool (*fence_answer)(struct gpu *gpu, struct gpu_fence *fence, uint32_t *word, uint32_t value);
    /* The guest has that answer. */
    void (*fence_told)(struct gpu *gpu, const struct gpu_fence *fence);
    /*
     * Asks whether all is done that was seen to be by words which kernels of the session could have
     * written; to be called before others get the GPU, where `unconfirmed` is true. Returns whether
     * nothing is left to confirm.
     */
    bool (*confirm)(struct gpu *gpu);
    /*
     * Lets the GPU write to this memory: pages of the worker's. unreach(), by its first address, is
     * for when nothing is on the GPU.
     */
    bool (*reach)(struct gpu *gpu, void *memory, uint64_t bytes);
    void (*unreach)(struct gpu *gpu, void *memory);

    /*
     * Memory that several sessions have, in a process each. The name is what share_open() wants in
     * another session, where the memory becomes `bytes` at an address of that session's. `file` is
     * the exporter's, as struct gpu has it. Closing is best called when nothing runs. All NULL in a
     * backend that shares none.
     */
    enum vgpu_gpu_error (*share_name)(struct gpu *gpu, uint64_t address, uint8_t name[64]);
    enum vgpu_gpu_error (*share_open)(struct gpu *gpu, const uint8_t name[64], uint64_t bytes,
                                      int file, uint64_t *address);
    enum vgpu_gpu_error (*share_close)(struct gpu *gpu, uint64_t address);

    /*
     * Has the driver write what kernels have printed (printed.h). `all`: if anything was launched
     * since the last time; else only if that was something for the first time, which makes `fresh`
     * more than 0, or `prints` is true.
     * Returns whether it did; NULL in a backend whose kernels print nothing.
     */
    bool (*print)(struct gpu *gpu, bool all);

    /*
     * Takes kernels off the GPU, one that runs too, or puts them back; false: it cannot, or not any
     * more. Any thread may call this, beside the one that calls all others. NULL in a backend that
     * cannot.
     */
    bool (*set_off)(struct gpu *gpu, bool off);

    /*
     * How long kernels of this process keep those of others waiting, in the driver's own time
     * slicing, in us; 0: as it was at first. false: the driver does not set it, or not any more.
     * Threads as with set_off(). NULL in a backend that has none.
     */
    bool (*set_slice)(struct gpu *gpu, uint32_t us);

    /* Whether a command more can be submitted without waiting. */
    bool (*room)(struct gpu *gpu);
    /*
     * What streams still have to do is dropped; objects are gone. On a GPU the end of the process
     * does that.
     */
    void (*close)(struct gpu *gpu);
};

/* The head of every backend's own structure. */
struct gpu {
    const struct gpu_ops *ops;
    const struct gpu_calls *calls; /* of api/ */
    struct vgpu_device_info info;
    struct gpu_arena arena;
    int file; /* of what the session shares, for a backend that has memory there; or -1 */
    enum vgpu_gpu_error lost; /* why the context is, or SUCCESS */
    bool prints;              /* kernels have printed, or a module has what prints in it */
    bool unconfirmed;         /* what is done may not be: confirm() */
    unsigned fresh;           /* so often print() does something yet for what is launched first */
};

/*
 * Opens a context on device number `device`. As backend_open(), also in what `why` says and in
 * what it returns.
 */
int gpu_open(enum backend_kind kind, int device, const struct gpu_arena *arena, struct gpu **gpu,
             char *why, size_t why_size);

/*
 * Whether a kernel that runs can be taken off the device, number 0, and put back: tried, and its
 * effect looked at. Takes some 100 ms. What `why` says is why not.
 */
bool gpu_try_off(enum backend_kind kind, char *why, size_t why_size);

/* The two implementations; `memory` is how much device memory the cpu backend plays. */
int cpu_gpu_open(const struct gpu_arena *arena, uint64_t memory, struct gpu **gpu);

/*
 * For fuzzers, which want the same again each time, and thousands in a second: the cpu backend
 * without a thread. cpu_gpu_step() carries the next piece of work out; false: there is none, it
 * waits for a word, or is a kernel of more than a second, which never ends.
 */
int cpu_gpu_open_stepped(const struct gpu_arena *arena, uint64_t memory, struct gpu **gpu);
bool cpu_gpu_step(struct gpu *gpu);

int cuda_gpu_open(int device, const struct gpu_arena *arena, struct gpu **gpu, char *why,
                  size_t why_size);

/* Whether `given` bytes of parameters are those of a kernel that has `wanted`, maybe padded. */
static inline bool gpu_params_fit(uint64_t given, uint64_t wanted)
{
    return given >= wanted && given - wanted < 16;
}

#define CPU_GPU_MEMORY (UINT64_C(1) << 30) /* bytes */

/* Whether [address, address + bytes) lies in the arena, for any values. */
static inline bool gpu_in_arena(const struct gpu_arena *arena, uint64_t address, uint64_t bytes)
{
    const uint64_t start = (uint64_t)(uintptr_t)arena->address;

    return address >= start && address - start <= arena->size &&
           bytes <= arena->size - (address - start);
}

#endif
