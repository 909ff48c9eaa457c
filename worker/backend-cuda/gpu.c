/* SPDX-License-Identifier: MIT */
/*
 * What a ring session computes on where there is a GPU: the device's primary context in a process
 * of the session's own, through CUDA's driver API.
 *
 * A stream counts what was submitted to it, so each call that puts something into a stream is
 * preceded by submit_work(). A fence is a mark at the end of a stream: as long as nothing follows
 * in the stream, to ask whether the mark is passed is to ask the stream. Just before something
 * follows, an event is recorded, which the mark has from then on. So the customary "submit, wait"
 * costs no event. A mark is in one of these states:
 *
 *   at the end    `stream` is set, and that stream's `end` is this mark
 *   settled       `event` is set; `stream` is NULL, since the stream may be gone
 *   lost          neither: no event could be had, and a poll says OUT_OF_MEMORY
 *
 * A fence of an event is a reference to what the event was recorded as; to record it anew makes a
 * new one while there are such references.
 *
 * Errors of the driver go to the guest as they are. After those that lose the context, every call
 * returns them again: that is the driver's doing.
 *
 * Addresses of device memory are not checked here: the GPU does that, in a context that is this
 * session's alone. Those of the host are checked before, by commands.c, api-host.c and
 * exec-graph.c, which let the arena through and nothing else.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"
#include "worker/gpu.h"
#include "worker/module-image.h"
#include "worker/predict.h"

/*
 * Bytes that the driver takes into its command buffer when they come from memory that is not
 * pinned; from pinned memory the copy engine would fetch them, which takes longer.
 */
#define SMALL_COPY 1024u

/* A point in a stream that somebody waits for. */
struct mark {
    unsigned references;
    struct gpu_stream *stream; /* whose end it is; NULL when something followed */
    CUevent event;             /* then; NULL when there could be none */
};

struct gpu_stream {
    CUstream handle;
    uint64_t submitted, done; /* pieces of work */
    struct mark *end;         /* the mark at its end, without an event yet; or NULL */
    struct gpu_stream *next_active, **active_place; /* with work that is not known to be done */
};

/* What an event was recorded as; goes on with those who wait for it when it is recorded anew. */
struct record {
    unsigned references;
    CUevent handle;
};

struct gpu_event {
    struct record *record;
    unsigned flags; /* of CUDA's */
};

struct gpu_module {
    CUmodule handle;
    struct gpu_function *functions;
};

struct gpu_function {
    struct gpu_function *next;
    CUfunction handle;
    uint32_t params;      /* ~0: unknown */
    uint32_t param_bytes; /* of all, where known */
};

struct cuda_gpu {
    struct gpu head;
    struct gpu_stream main; /* the default stream */
    struct gpu_stream *active;
    CUevent *spare; /* events for marks */
    size_t spare_count, spare_room;
};

static struct cuda_gpu *cuda_of(struct gpu *gpu)
{
    return (struct cuda_gpu *)gpu;
}

static struct gpu_stream *raw_stream(struct gpu *gpu, struct gpu_stream *stream)
{
    return stream ? stream : &cuda_of(gpu)->main;
}

/* Records of events ----------------------------------------------------------------------- */

/* The one reference that it begins with is the event's own. */
static struct record *make_record(unsigned flags, CUresult *error)
{
    struct record *record = calloc(1, sizeof(*record));

    *error = CUDA_ERROR_OUT_OF_MEMORY;
    if (!record) {
        return NULL;
    }
    *error = cu.EventCreate(&record->handle, flags);
    if (*error != CUDA_SUCCESS) {
        free(record);
        return NULL;
    }
    record->references = 1;
    return record;
}

/* NULL is allowed. */
static void drop_record(struct record *record)
{
    if (record && --record->references == 0) {
        cu.EventDestroy(record->handle);
        free(record);
    }
}

/* Marks --------------------------------------------------------------------------------- */

/*
 * Events of marks are used again and again, since each costs two calls of the driver's. They have
 * no timing, which makes them cheaper.
 */
static CUevent take_spare_event(struct cuda_gpu *cuda)
{
    CUevent event = NULL;

    if (cuda->spare_count > 0) {
        return cuda->spare[--cuda->spare_count];
    }
    return cu.EventCreate(&event, CU_EVENT_DISABLE_TIMING) == CUDA_SUCCESS ? event : NULL;
}

/* Without memory for the list the event is destroyed instead. */
static void give_spare(struct cuda_gpu *cuda, CUevent event)
{
    if (cuda->spare_count == cuda->spare_room) {
        const size_t room = cuda->spare_room + VGPU_SLOTS;
        CUevent *more = realloc(cuda->spare, room * sizeof(CUevent));

        if (!more) {
            cu.EventDestroy(event);
            return;
        }
        cuda->spare = more;
        cuda->spare_room = room;
    }
    cuda->spare[cuda->spare_count++] = event;
}

/*
 * Gives the mark at the stream's end an event, since something is about to follow. Later it would
 * be too late: the event would stand behind that.
 */
static void cuda_settle(struct cuda_gpu *cuda, struct gpu_stream *stream)
{
    struct mark *mark = stream->end;

    stream->end = NULL;
    if (mark) {
        mark->stream = NULL;
        mark->event = take_spare_event(cuda);
        if (mark->event) {
            /* A failure loses the context, which polling finds out. */
            cu.EventRecord(mark->event, stream->handle);
        }
    }
}

/*
 * The list of streams with work that is not known to be done; cuda_fence() and cuda_copy() ask
 * whether it is empty. A stream leaves it when a query finds it done.
 */
static void set_active(struct cuda_gpu *cuda, struct gpu_stream *stream)
{
    if (!stream->active_place) {
        stream->next_active = cuda->active;
        stream->active_place = &cuda->active;
        if (stream->next_active) {
            stream->next_active->active_place = &stream->next_active;
        }
        cuda->active = stream;
    }
}

static void set_inactive(struct gpu_stream *stream)
{
    if (stream->active_place) {
        *stream->active_place = stream->next_active;
        if (stream->next_active) {
            stream->next_active->active_place = stream->active_place;
        }
        stream->active_place = NULL;
    }
}

/* To be called before each piece of work. */
static CUstream submit_work(struct gpu *gpu, struct gpu_stream *stream)
{
    struct cuda_gpu *cuda = cuda_of(gpu);

    stream = raw_stream(gpu, stream);
    cuda_settle(cuda, stream);
    stream->submitted++;
    set_active(cuda, stream);
    return stream->handle;
}

/* What a query for work that was submitted says: its errors lose the context. */
static enum vgpu_gpu_error check_lost(struct gpu *gpu, CUresult error)
{
    if (error != CUDA_SUCCESS && error != CUDA_ERROR_NOT_READY) {
        gpu->lost = error;
    }
    return error;
}

static enum vgpu_gpu_error cuda_query(struct gpu *gpu, struct gpu_stream *stream)
{
    const CUresult error = cu.StreamQuery(stream->handle);

    /* All that was submitted, since nothing else submits meanwhile. */
    if (error == CUDA_SUCCESS) {
        stream->done = stream->submitted;
        set_inactive(stream);
    }
    return check_lost(gpu, error);
}

/*
 * A fence that is all zero is passed already: where the stream has nothing to do, no mark is made.
 * Several fences of one end share a mark.
 */
static enum vgpu_gpu_error cuda_fence(struct gpu *gpu, struct gpu_stream *stream,
                                      struct gpu_fence *fence)
{
    struct cuda_gpu *cuda = cuda_of(gpu);
    /* The default stream ends after all that others have to do. */
    const bool passed = stream ? stream->done == stream->submitted : !cuda->active;
    struct mark *mark;

    stream = raw_stream(gpu, stream);
    *fence = (struct gpu_fence){0};
    if (passed || cuda->head.lost != VGPU_GPU_SUCCESS) {
        return cuda->head.lost;
    }
    mark = stream->end;
    if (!mark) {
        mark = calloc(1, sizeof(*mark));
        if (!mark) {
            return VGPU_GPU_OUT_OF_MEMORY;
        }
        mark->stream = stream;
        stream->end = mark;
        set_active(cuda, stream);
        if (stream == &cuda->main && (cuda->active != stream || stream->next_active)) {
            /* Work of other streams could come before its end until that is an event. */
            cuda_settle(cuda, stream);
        }
    }
    mark->references++;
    fence->mark = mark;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error cuda_fence_poll(struct gpu *gpu, const struct gpu_fence *fence)
{
    const struct mark *mark = fence->mark;

    const struct record *record = fence->record;

    if (record) {
        return check_lost(gpu, cu.EventQuery(record->handle));
    }
    if (!mark) {
        return VGPU_GPU_SUCCESS;
    }
    if (mark->stream) {
        return cuda_query(gpu, mark->stream);
    }
    return mark->event ? check_lost(gpu, cu.EventQuery(mark->event)) : VGPU_GPU_OUT_OF_MEMORY;
}

/*
 * A mark at a stream's end that nobody waits for any more must not be found there; its event, if it
 * got one, is spare.
 */
static void cuda_fence_release(struct gpu *gpu, struct gpu_fence *fence)
{
    struct mark *mark = fence->mark;

    drop_record(fence->record);
    fence->record = NULL;
    fence->mark = NULL;
    if (!mark || --mark->references > 0) {
        return;
    }
    if (mark->stream) {
        mark->stream->end = NULL;
    } else if (mark->event) {
        give_spare(cuda_of(gpu), mark->event);
    }
    free(mark);
}

/* Memory -------------------------------------------------------------------------------- */

static enum vgpu_gpu_error cuda_mem_info(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total)
{
    size_t f = 0, t = 0;
    const CUresult error = cu.MemGetInfo(&f, &t);

    (void)gpu;
    *free_bytes = f;
    *total = t;
    return error;
}

static enum vgpu_gpu_error cuda_mem_alloc(struct gpu *gpu, uint64_t bytes, uint64_t *address)
{
    CUdeviceptr pointer = 0;
    const CUresult error = cu.MemAlloc(&pointer, bytes);

    (void)gpu;
    *address = pointer;
    return error;
}

/*
 * The driver waits for all work before it frees. So the callers have seen to it that there is none:
 * this thread would wait with it, and no turn be returned.
 */
static enum vgpu_gpu_error cuda_mem_free(struct gpu *gpu, uint64_t address)
{
    (void)gpu;
    return cu.MemFree(address);
}

static enum vgpu_gpu_error cuda_copy(struct gpu *gpu, const struct gpu_copy *copy,
                                     struct gpu_stream *stream)
{
    /* First: the next line makes the stream an active one. */
    const bool small = copy->bytes <= SMALL_COPY && !cuda_of(gpu)->active;
    const CUstream handle = submit_work(gpu, stream);
    const void *from = (const void *)(uintptr_t)copy->from;
    uint8_t bytes[SMALL_COPY];

    switch (copy->kind) {
    case VGPU_COPY_TO_DEVICE:
        if (small) {
            /*
             * Read now instead of when the copy's time comes: nothing is on the GPU that could
             * still change them. The driver takes them out of `bytes` before it returns.
             */
            memcpy(bytes, from, copy->bytes);
            from = bytes;
        }
        return cu.MemcpyHtoDAsync(copy->to, from, copy->bytes, handle);
    case VGPU_COPY_FROM_DEVICE:
        return cu.MemcpyDtoHAsync((void *)(uintptr_t)copy->to, copy->from, copy->bytes, handle);
    default:
        return cu.MemcpyDtoDAsync(copy->to, copy->from, copy->bytes, handle);
    }
}

static enum vgpu_gpu_error cuda_fill(struct gpu *gpu, const struct gpu_fill *fill,
                                     struct gpu_stream *stream)
{
    const CUstream handle = submit_work(gpu, stream);

    switch (fill->width) {
    case 1:
        return cu.MemsetD8Async(fill->address, (unsigned char)fill->value, fill->count, handle);
    case 2:
        return cu.MemsetD16Async(fill->address, (unsigned short)fill->value, fill->count, handle);
    default:
        return cu.MemsetD32Async(fill->address, fill->value, fill->count, handle);
    }
}

static enum vgpu_gpu_error cuda_copy_rows(struct gpu *gpu, const struct gpu_rows *rows,
                                          struct gpu_stream *stream)
{
    const CUDA_MEMCPY2D copy = {
        .srcMemoryType = rows->kind == VGPU_COPY_TO_DEVICE ? CU_MEMORYTYPE_HOST
                                                           : CU_MEMORYTYPE_DEVICE,
        .srcHost = (const void *)(uintptr_t)rows->from,
        .srcDevice = rows->from,
        .srcPitch = rows->from_pitch,
        .dstMemoryType = rows->kind == VGPU_COPY_FROM_DEVICE ? CU_MEMORYTYPE_HOST
                                                             : CU_MEMORYTYPE_DEVICE,
        .dstHost = (void *)(uintptr_t)rows->to,
        .dstDevice = rows->to,
        .dstPitch = rows->to_pitch,
        .WidthInBytes = rows->width,
        .Height = rows->rows,
    };

    if (rows->rows == 1) {
        /* There pitches do not matter, but the driver looks at them. */
        return cuda_copy(gpu, &(struct gpu_copy){rows->kind, rows->to, rows->from, rows->width},
                         stream);
    }
    return cu.Memcpy2DAsync(&copy, submit_work(gpu, stream));
}

static enum vgpu_gpu_error cuda_fill_rows(struct gpu *gpu, const struct gpu_fill_rows *fill,
                                          struct gpu_stream *stream)
{
    CUstream handle;

    if (fill->rows == 1) {
        /* There the pitch does not matter, but the driver looks at it. */
        return cuda_fill(gpu,
                         &(struct gpu_fill){
                             .address = fill->address,
                             .count = fill->width,
                             .value = fill->value,
                             .width = fill->element,
                         },
                         stream);
    }
    handle = submit_work(gpu, stream);
    switch (fill->element) {
    case 1:
        return cu.MemsetD2D8Async(fill->address, fill->pitch, (unsigned char)fill->value,
                                  fill->width, fill->rows, handle);
    case 2:
        return cu.MemsetD2D16Async(fill->address, fill->pitch, (unsigned short)fill->value,
                                   fill->width, fill->rows, handle);
    default:
        return cu.MemsetD2D32Async(fill->address, fill->pitch, fill->value, fill->width, fill->rows,
                                   handle);
    }
}

/* Modules and kernels ------------------------------------------------------------------- */

/* The most options that a compilation may have, and those that are added here. */
#define OPTIONS_MAX 32u
#define OPTIONS_OWN 5u

/* Options as the driver wants them. */
struct options {
    CUjit_option option[OPTIONS_MAX + OPTIONS_OWN];
    void *value[OPTIONS_MAX + OPTIONS_OWN];
    unsigned count;
};

/*
 * There is room: compile_image() has compared the number. Values are numbers as well as pointers,
 * as the driver wants them.
 */
static void add_option(struct options *options, CUjit_option option, uint64_t value)
{
    options->option[options->count] = option;
    options->value[options->count++] = (void *)(uintptr_t)value;
}

/* Adds a log; returns where the driver will say how much of it there is, ~0 without one. */
static unsigned add_log(struct options *options, CUjit_option buffer, CUjit_option size, char *log,
                        uint32_t bytes)
{
    if (bytes == 0) {
        return ~0u;
    }
    add_option(options, buffer, (uint64_t)(uintptr_t)log);
    add_option(options, size, bytes);
    return options->count - 1;
}

static uint32_t value_of(const struct options *options, unsigned index)
{
    return index == ~0u ? 0 : (uint32_t)(uintptr_t)options->value[index];
}

/*
 * The guest's options have numbers for values alone, which host_image_load() has seen to. Options
 * that are pointers are added here, to the worker's own memory.
 */
static CUresult compile_image(CUmodule *module, const void *image, struct gpu_compile *compile)
{
    struct options options = {.count = 0};
    unsigned info, errors;
    CUresult error;
    uint32_t time;

    if (compile->count > OPTIONS_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    add_option(&options, CU_JIT_WALL_TIME, 0);
    info = add_log(&options, CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
                   compile->info_log, compile->info_bytes);
    errors = add_log(&options, CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
                     compile->error_log, compile->error_bytes);
    for (uint32_t i = 0; i < compile->count; i++) {
        add_option(&options, compile->options[i], compile->values[i]);
    }
    error = cu.ModuleLoadDataEx(module, image, options.count, options.option, options.value);
    /*
     * The driver leaves in the values how much of each log it has used, and in the first one a
     * float, in the lower half of what was a pointer's place.
     */
    time = value_of(&options, 0);
    memcpy(&compile->wall_time, &time, sizeof(time));
    compile->info_used = value_of(&options, info);
    compile->error_used = value_of(&options, errors);
    return error;
}

static enum vgpu_gpu_error load_image(const void *image, struct gpu_compile *compile,
                                      struct gpu_module **module)
{
    struct gpu_module *made = calloc(1, sizeof(*made));
    CUresult error;

    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = compile ? compile_image(&made->handle, image, compile)
                    : cu.ModuleLoadData(&made->handle, image);
    if (error != CUDA_SUCCESS) {
        free(made);
        return error;
    }
    *module = made;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error cuda_module_load(struct gpu *gpu, const void *image, uint64_t bytes,
                                            struct gpu_compile *compile, struct gpu_module **module)
{
    (void)gpu;
    return image_check(image, bytes) ? load_image(image, compile, module) : VGPU_GPU_INVALID_IMAGE;
}

static enum vgpu_gpu_error cuda_module_builtin(struct gpu *gpu, struct gpu_module **module)
{
    (void)gpu;
    return load_image(cuda_kernels_ptx, NULL, module);
}

/*
 * The functions go in any case. If the driver refuses, the context is lost; and the session's
 * handles for them are gone already.
 */
static enum vgpu_gpu_error cuda_module_unload(struct gpu *gpu, struct gpu_module *module)
{
    const CUresult error = cu.ModuleUnload(module->handle);

    (void)gpu;
    while (module->functions) {
        struct gpu_function *function = module->functions;

        module->functions = function->next;
        free(function);
    }
    free(module);
    return error;
}

/*
 * Counts the parameters and their bytes, where the driver can tell. It tells how many there are by
 * failing at the first that is not there.
 */
static void read_params(struct gpu_function *function)
{
    size_t offset = 0, size = 0;

    function->params = ~0u;
    if (!cu.FuncGetParamInfo) {
        return;
    }
    function->params = 0;
    while (cu.FuncGetParamInfo(function->handle, function->params, &offset, &size) ==
           CUDA_SUCCESS) {
        function->params++;
        function->param_bytes = (uint32_t)(offset + size);
    }
}

static enum vgpu_gpu_error cuda_function_get(struct gpu *gpu, struct gpu_module *module,
                                             const char *name, struct gpu_function **function,
                                             struct vgpu_result_function *info)
{
    struct gpu_function *made = calloc(1, sizeof(*made));
    CUresult error;
    int threads = 0;

    (void)gpu;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = cu.ModuleGetFunction(&made->handle, module->handle, name);
    if (error == CUDA_SUCCESS) {
        error = cu.FuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
                                    made->handle);
    }
    if (error != CUDA_SUCCESS) {
        free(made);
        return error;
    }
    /*
     * CUDA has one function for a name, however often it is asked for. Here too: handles_find()
     * goes by the pointer, so a program that asks again and again gets no new handles.
     */
    info->max_threads = (uint32_t)threads;
    *function = module->functions;
    while (*function && (*function)->handle != made->handle) {
        *function = (*function)->next;
    }
    if (*function) {
        free(made);
    } else {
        read_params(made);
        made->next = module->functions;
        module->functions = made;
        *function = made;
    }
    info->params = (*function)->params;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error cuda_function_param(struct gpu *gpu, struct gpu_function *function,
                                               uint64_t index, struct vgpu_result_param *param)
{
    size_t offset = 0, size = 0;
    CUresult error;

    (void)gpu;
    if (!cu.FuncGetParamInfo) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    if (index >= function->params) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = cu.FuncGetParamInfo(function->handle, index, &offset, &size);
    *param = (struct vgpu_result_param){.offset = offset, .size = size};
    return error;
}

/*
 * With too few bytes the driver would read on behind them, into this process's memory. Where it
 * cannot tell how many a function has, the guest's number has to do.
 */
bool cuda_params_fit(const struct gpu_function *function, size_t *bytes)
{
    if (function->params == ~0u) {
        return true;
    }
    if (!gpu_params_fit(*bytes, function->param_bytes)) {
        return false;
    }
    *bytes = function->param_bytes;
    return true;
}

static enum vgpu_gpu_error launch_with_attributes(struct gpu *gpu, struct gpu_function *function,
                                                  const struct gpu_launch *launch,
                                                  struct gpu_stream *stream, void **extra)
{
    const struct vgpu_cmd_launch *shape = launch->shape;
    const CUlaunchConfig config = {
        .gridDimX = shape->grid[0],
        .gridDimY = shape->grid[1],
        .gridDimZ = shape->grid[2],
        .blockDimX = shape->block[0],
        .blockDimY = shape->block[1],
        .blockDimZ = shape->block[2],
        .sharedMemBytes = shape->shared_bytes,
        /* Nothing may be counted as submitted that will not be. */
        .hStream = cu.LaunchKernelEx ? submit_work(gpu, stream) : NULL,
        .attrs = (CUlaunchAttribute *)(uintptr_t)launch->attributes,
        .numAttrs = launch->attribute_count,
    };

    return cu.LaunchKernelEx ? cu.LaunchKernelEx(&config, function->handle, NULL, extra)
                             : VGPU_GPU_NOT_SUPPORTED;
}

static enum vgpu_gpu_error cuda_launch(struct gpu *gpu, struct gpu_function *function,
                                       const struct gpu_launch *launch, struct gpu_stream *stream)
{
    const struct vgpu_cmd_launch *shape = launch->shape;
    size_t bytes = launch->param_bytes;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, (void *)(uintptr_t)launch->params,
                     CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};

    /* The driver takes the buffer's size on trust. */
    if (!cuda_params_fit(function, &bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (launch->attribute_count > 0) {
        return launch_with_attributes(gpu, function, launch, stream, bytes > 0 ? extra : NULL);
    }
    return cu.LaunchKernel(function->handle, shape->grid[0], shape->grid[1], shape->grid[2],
                           shape->block[0], shape->block[1], shape->block[2], shape->shared_bytes,
                           submit_work(gpu, stream), NULL, bytes > 0 ? extra : NULL);
}

/*
 * The blocks of the launch against those that the GPU can have at a time. By floating point, since
 * the product of three dimensions may not fit 64 bits. What the driver cannot tell fills the GPU.
 */
static uint32_t cuda_launch_part(struct gpu *gpu, struct gpu_function *function,
                                 const struct vgpu_cmd_launch *shape)
{
    const double blocks = (double)shape->grid[0] * shape->grid[1] * shape->grid[2];
    const uint64_t threads = (uint64_t)shape->block[0] * shape->block[1] * shape->block[2];
    double part;
    int each = 0;

    if (threads > INT_MAX ||
        cu.OccupancyMaxActiveBlocksPerMultiprocessor(&each, function->handle, (int)threads,
                                                     shape->shared_bytes) != CUDA_SUCCESS ||
        each <= 0) {
        return PREDICT_WHOLE;
    }
    part = blocks * PREDICT_WHOLE / ((double)each * gpu->info.processors);
    return part >= PREDICT_WHOLE ? PREDICT_WHOLE : part < 1 ? 1 : (uint32_t)part;
}

static enum vgpu_gpu_error cuda_set_limit(struct gpu *gpu, CUlimit limit, uint64_t value)
{
    (void)gpu;
    return cu.CtxSetLimit(limit, value);
}

/* Streams and events -------------------------------------------------------------------- */

static enum vgpu_gpu_error cuda_stream_create(struct gpu *gpu, uint32_t flags, int32_t priority,
                                              struct gpu_stream **stream)
{
    struct gpu_stream *made = calloc(1, sizeof(*made));
    CUresult error;

    (void)gpu;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = cu.StreamCreateWithPriority(
        &made->handle,
        flags & VGPU_STREAM_NON_BLOCKING ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT, priority);
    if (error != CUDA_SUCCESS) {
        free(made);
        return error;
    }
    *stream = made;
    return VGPU_GPU_SUCCESS;
}

/*
 * Fences of the stream stay good, by their marks' events. The stream has nothing left to do
 * (gpu.h), so destroying it does not wait.
 */
static void cuda_stream_destroy(struct gpu *gpu, struct gpu_stream *stream)
{
    cuda_settle(cuda_of(gpu), stream);
    set_inactive(stream);
    cu.StreamDestroy(stream->handle);
    free(stream);
}

/* A wait is something in the stream, and counts as work: a fence behind it has to wait for it. */
static enum vgpu_gpu_error cuda_stream_wait(struct gpu *gpu, struct gpu_stream *stream,
                                            struct gpu_event *event)
{
    return cu.StreamWaitEvent(submit_work(gpu, stream), event->record->handle, 0);
}

static enum vgpu_gpu_error cuda_event_create(struct gpu *gpu, uint32_t flags,
                                             struct gpu_event **event)
{
    struct gpu_event *made = calloc(1, sizeof(*made));
    CUresult error;

    (void)gpu;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made->flags = flags & VGPU_EVENT_NO_TIMING ? CU_EVENT_DISABLE_TIMING : CU_EVENT_DEFAULT;
    made->record = make_record(made->flags, &error);
    if (!made->record) {
        free(made);
        return error;
    }
    *event = made;
    return VGPU_GPU_SUCCESS;
}

static void cuda_event_destroy(struct gpu *gpu, struct gpu_event *event)
{
    (void)gpu;
    drop_record(event->record);
    free(event);
}

static enum vgpu_gpu_error cuda_event_record(struct gpu *gpu, struct gpu_event *event,
                                             struct gpu_stream *stream)
{
    CUresult error;
    struct record *record = event->record;

    if (record->references > 1) {
        /*
         * Fences wait for what was recorded then, and go on to: the event gets a new record, and
         * the old one is theirs.
         */
        record = make_record(event->flags, &error);
        if (!record) {
            return error;
        }
        drop_record(event->record);
        event->record = record;
    }
    return cu.EventRecord(record->handle, submit_work(gpu, stream));
}

static enum vgpu_gpu_error cuda_event_fence(struct gpu *gpu, struct gpu_event *event,
                                            struct gpu_fence *fence)
{
    if (gpu->lost == VGPU_GPU_SUCCESS) {
        event->record->references++;
        *fence = (struct gpu_fence){.record = event->record};
    }
    return gpu->lost;
}

static enum vgpu_gpu_error cuda_event_query(struct gpu *gpu, struct gpu_event *event)
{
    return check_lost(gpu, cu.EventQuery(event->record->handle));
}

static enum vgpu_gpu_error cuda_event_elapsed(struct gpu *gpu, struct gpu_event *start,
                                              struct gpu_event *end, float *milliseconds)
{
    (void)gpu;
    return cu.EventElapsedTime(milliseconds, start->record->handle, end->record->handle);
}

/* Waiting ------------------------------------------------------------------------------- */

/* A stream that is known to be done is not asked again, which would be a call of the driver's. */
static enum vgpu_gpu_error cuda_stream_poll(struct gpu *gpu, struct gpu_stream *stream)
{
    stream = raw_stream(gpu, stream);
    return stream->done == stream->submitted ? gpu->lost : cuda_query(gpu, stream);
}

/* For calls of api/: what the driver knows things by ---------------------------------------- */

CUstream cuda_submit(struct gpu *gpu, struct gpu_stream *stream)
{
    return submit_work(gpu, stream);
}

CUstream cuda_raw_stream(struct gpu *gpu, struct gpu_stream *stream)
{
    return raw_stream(gpu, stream)->handle;
}

CUfunction cuda_raw_function(struct gpu *gpu, const struct gpu_function *function)
{
    (void)gpu;
    return function->handle;
}

CUmodule cuda_raw_module(struct gpu *gpu, const struct gpu_module *module)
{
    (void)gpu;
    return module->handle;
}

/* What the driver has room for is more than a session may submit: flight.h. */
static bool cuda_room(struct gpu *gpu)
{
    (void)gpu;
    return true;
}

/* The process ends with its session; the driver then frees everything of it. */
static void cuda_gpu_close(struct gpu *gpu)
{
    (void)gpu;
}

static const struct gpu_ops cuda_ops = {
    .mem_info = cuda_mem_info,
    .mem_alloc = cuda_mem_alloc,
    .mem_free = cuda_mem_free,
    .range_reserve = cuda_range_reserve,
    .range_free = cuda_range_free,
    .memory_create = cuda_memory_create,
    .memory_release = cuda_memory_release,
    .memory_map = cuda_memory_map,
    .memory_unmap = cuda_memory_unmap,
    .copy = cuda_copy,
    .fill = cuda_fill,
    .copy_rows = cuda_copy_rows,
    .fill_rows = cuda_fill_rows,
    .module_load = cuda_module_load,
    .module_builtin = cuda_module_builtin,
    .module_unload = cuda_module_unload,
    .function_get = cuda_function_get,
    .function_param = cuda_function_param,
    .launch = cuda_launch,
    .launch_part = cuda_launch_part,
    .graph_make = cuda_graph_make,
    .graph_update = cuda_graph_update,
    .graph_launch = cuda_graph_launch,
    .graph_destroy = cuda_graph_destroy,
    .set_limit = cuda_set_limit,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .stream_poll = cuda_stream_poll,
    .stream_wait = cuda_stream_wait,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_fence = cuda_event_fence,
    .event_query = cuda_event_query,
    .event_elapsed = cuda_event_elapsed,
    .fence = cuda_fence,
    .fence_poll = cuda_fence_poll,
    .fence_release = cuda_fence_release,
    .room = cuda_room,
    .close = cuda_gpu_close,
};

/*
 * So that the copy engines, and kernels, reach the arena where it is. DEVICEMAP gives it the same
 * address on the GPU, by unified addressing.
 */
static void pin_arena(const struct gpu_arena *arena)
{
    const CUresult error = cu.MemHostRegister(arena->address, arena->size,
                                              CU_MEMHOSTREGISTER_DEVICEMAP);

    if (error != CUDA_SUCCESS) {
        /* Still correct, but for kernels that use pinned memory by its address. */
        log_warning("cuMemHostRegister of %llu bytes: %s; copies will be slow",
                    (unsigned long long)arena->size, cuda_error_name(error));
    }
}

/*
 * Has the driver load now what it needs for modules, while files can be opened: the built-in module
 * is PTX, so its compiler is among that.
 */
static int warm_up(struct gpu *gpu)
{
    struct gpu_module *module = NULL;
    const enum vgpu_gpu_error error = cuda_module_builtin(gpu, &module);

    if (error != VGPU_GPU_SUCCESS) {
        return cuda_failed((CUresult)error, "cuModuleLoadData");
    }
    cuda_module_unload(gpu, module);
    return 0;
}

int cuda_gpu_open(int device, const struct gpu_arena *arena, struct gpu **gpu, char *why,
                  size_t why_size)
{
    struct cuda_gpu *cuda;
    int count = 0;
    int r = cuda_init(why, why_size, &count);

    if (r < 0) {
        return r;
    }
    cuda = calloc(1, sizeof(*cuda));
    if (!cuda) {
        return -ENOMEM;
    }
    cuda->head.ops = &cuda_ops;
    cuda->head.calls = &cuda_calls;
    cuda->head.arena = *arena;
    r = cuda_open_device(device, &cuda->head.info);
    if (r == 0) {
        pin_arena(arena);
        r = warm_up(&cuda->head);
    }
    if (r < 0) {
        free(cuda);
        return r;
    }
    *gpu = &cuda->head;
    return 0;
}
