/* SPDX-License-Identifier: MIT */
/*
 * A session's commands as programs call them; the functions that post each, ring_xxx(), are
 * generated from api/ring.api. Here is what is more than that: names that are checked, layouts of
 * parameters that are asked for once.
 */
#include <stdlib.h>
#include <string.h>

#include "guest/libvgpu/ring-calls.h"
#include "guest/libvgpu/room.h"

int vgpu_session_ping(struct vgpu_session *s)
{
    /* With a slot, which the command need not have. */
    return session_call(s, &(struct command){.opcode = VGPU_CMD_NOP, .body = ""}, NULL, 0);
}

int vgpu_session_info(struct vgpu_session *s, struct vgpu_device_info *info)
{
    const int r = ring_device_info(s, info);

    if (r == VGPU_OK) {
        /* The host's bytes: a name without a NUL would be read past its end. */
        info->name[sizeof(info->name) - 1] = '\0';
    }
    return r;
}

int vgpu_mem_info(struct vgpu_session *s, uint64_t *free_bytes, uint64_t *total)
{
    struct vgpu_result_mem_info result = {0};
    const int r = ring_mem_info(s, &result);

    *free_bytes = result.free;
    *total = result.total;
    return r;
}

int vgpu_mem_alloc(struct vgpu_session *s, uint64_t bytes, uint64_t *address)
{
    struct vgpu_result_value result = {0};
    const int r = ring_mem_alloc(s, bytes, &result);

    *address = result.value;
    return r;
}

int vgpu_mem_free(struct vgpu_session *s, uint64_t address)
{
    return ring_mem_free(s, address);
}

int vgpu_fill(struct vgpu_session *s, uint64_t to, uint32_t value, uint32_t width, uint64_t count,
              uint64_t stream)
{
    return ring_fill(s, to, count, stream, value, width, 0, 1);
}

int vgpu_module_builtin(struct vgpu_session *s, uint64_t *module)
{
    struct vgpu_result_value result = {0};
    const int r = ring_module_builtin(s, &result);

    *module = result.value;
    return r;
}

/* Functions ------------------------------------------------------------------------------ */

/*
 * Layouts. vgpu_launch_args() is given a pointer to each parameter, but not how large each is and
 * where it lies: the GPU's driver knows that. It is asked at a function's first launch of that
 * kind, a command for each parameter, and the answers are kept until the module is unloaded.
 */
static int function_get(struct vgpu_session *s, uint64_t module, const char *name,
                        struct vgpu_result_function *result)
{
    const struct vgpu_cmd_function_get body = {.module = module, .length = strlen(name)};

    if (body.length == 0 || body.length >= VGPU_NAME_MAX) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "a function's name of %llu bytes; 1 to %u",
                         (unsigned long long)body.length, VGPU_NAME_MAX - 1);
    }
    return ring_function_get(s, &body, name, (uint32_t)body.length, result);
}

/* With the layouts' mutex. */
static struct layout *find_layout(struct vgpu_session *s, uint64_t function)
{
    struct layout *layout = s->layouts;

    while (layout && layout->function != function) {
        layout = layout->next;
    }
    return layout;
}

/* Remembers how many parameters a function has; their layout is asked for when needed. */
static int add_layout(struct vgpu_session *s, uint64_t module,
                      const struct vgpu_result_function *result)
{
    /*
     * The host says ~0 where its driver cannot tell. No function has more parameters than bytes of
     * them; a larger number would only have this side allocate as much.
     */
    const bool known = result->params != ~0u && result->params <= VGPU_PARAMS_MAX;
    const uint32_t count = known ? result->params : 0;
    struct layout *layout = calloc(1, sizeof(*layout) + count * sizeof(layout->params[0]));

    if (!layout) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    layout->module = module;
    layout->function = result->function;
    layout->count = known ? count : ~0u;
    pthread_mutex_lock(&s->layout_mutex);
    /*
     * A function has the same handle each time that it is asked for, so another thread, or an
     * earlier call, may have added it.
     */
    if (find_layout(s, result->function)) {
        free(layout);
    } else {
        layout->next = s->layouts;
        s->layouts = layout;
    }
    pthread_mutex_unlock(&s->layout_mutex);
    return VGPU_OK;
}

/*
 * Forgets the layouts of a module's functions, once it is unloaded: until then they may be
 * launched. Their handles are not given to other functions.
 */
static void drop_layouts(struct vgpu_session *s, uint64_t module)
{
    struct layout **place = &s->layouts;

    pthread_mutex_lock(&s->layout_mutex);
    while (*place) {
        struct layout *layout = *place;

        if (layout->module == module) {
            *place = layout->next;
            free(layout);
        } else {
            place = &layout->next;
        }
    }
    pthread_mutex_unlock(&s->layout_mutex);
}

int vgpu_module_unload(struct vgpu_session *s, uint64_t module)
{
    const int r = ring_module_unload(s, module);

    if (r == VGPU_OK) {
        drop_layouts(s, module);
    }
    return r;
}

int vgpu_function_get(struct vgpu_session *s, uint64_t module, const char *name, uint64_t *function)
{
    struct vgpu_result_function result = {0};
    const int r = function_get(s, module, name, &result);

    *function = result.function;
    return r == VGPU_OK ? add_layout(s, module, &result) : r;
}

static int post_kernel(struct vgpu_session *s, const struct vgpu_launch *launch, const void *params,
                       uint32_t bytes)
{
    struct vgpu_cmd_launch body = {
        .function = launch->function,
        .stream = launch->stream,
        .shared_bytes = launch->shared_bytes,
        .param_bytes = bytes,
    };

    for (int i = 0; i < 3; i++) {
        body.grid[i] = launch->grid[i] ? launch->grid[i] : 1;
        body.block[i] = launch->block[i] ? launch->block[i] : 1;
    }
    return ring_launch(s, &body, params, bytes);
}

int vgpu_launch(struct vgpu_session *s, const struct vgpu_launch *launch, const void *params,
                uint32_t bytes)
{
    if (bytes > VGPU_PARAMS_MAX || (bytes > 0 && !params)) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "%u bytes of parameters; at most %u", bytes,
                         VGPU_PARAMS_MAX);
    }
    return post_kernel(s, launch, params, bytes);
}

/* Asks for the parameters that are not known yet, with the layouts' mutex. */
static int complete_layout(struct vgpu_session *s, struct layout *layout)
{
    while (layout->known < layout->count) {
        struct vgpu_result_param params[VGPU_RESULT_PARAMS];
        uint32_t count = 0;
        const int r = ring_function_param(s, layout->function, layout->known, params, &count);

        if (r != VGPU_OK) {
            return r;
        }
        for (uint32_t i = 0; i < count && layout->known < layout->count; i++) {
            if (params[i].size > VGPU_PARAMS_MAX ||
                params[i].offset > VGPU_PARAMS_MAX - params[i].size) {
                return vgpu_fail(VGPU_INCOMPATIBLE, "parameter %u is said to lie at %llu",
                                 layout->known, (unsigned long long)params[i].offset);
            }
            layout->params[layout->known++] = params[i];
        }
    }
    return VGPU_OK;
}

/*
 * The function's complete layout; NULL with *r otherwise. It is used without the mutex: it goes
 * with its module alone, and to unload a module while its functions are being launched is the
 * caller's mistake.
 */
static const struct layout *take_layout(struct vgpu_session *s, uint64_t function, int *r)
{
    struct layout *layout;

    pthread_mutex_lock(&s->layout_mutex);
    layout = find_layout(s, function);
    if (!layout) {
        *r = vgpu_fail(VGPU_GPU_INVALID_HANDLE, "no such function");
    } else if (layout->count == ~0u) {
        *r = vgpu_fail(VGPU_GPU_NOT_SUPPORTED, "the host's driver cannot tell the layout of the "
                                               "function's parameters (CUDA 12.4 can)");
    } else {
        *r = complete_layout(s, layout);
    }
    pthread_mutex_unlock(&s->layout_mutex);
    return *r == VGPU_OK ? layout : NULL;
}

int vgpu_launch_args(struct vgpu_session *s, const struct vgpu_launch *launch,
                     const void *const *args)
{
    struct room room;
    uint64_t bytes = 0;
    int r;
    const struct layout *layout = take_layout(s, launch->function, &r);

    if (!layout) {
        return r;
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        const uint64_t end = layout->params[i].offset + layout->params[i].size;

        bytes = end > bytes ? end : bytes;
    }
    if (!room_open(&room, bytes)) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    /* Gaps that alignment leaves: what lay there is not for the host. */
    memset(room.bytes, 0, bytes);
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct vgpu_result_param *param = &layout->params[i];

        memcpy(room.bytes + param->offset, args[i], param->size);
    }
    r = post_kernel(s, launch, room.bytes, (uint32_t)bytes);
    room_close(&room);
    return r;
}

/* Streams and events --------------------------------------------------------------------- */

int vgpu_stream_create(struct vgpu_session *s, uint32_t flags, uint64_t *stream)
{
    struct vgpu_result_value result = {0};
    const int r = ring_stream_create(s, flags, 0, &result);

    *stream = result.value;
    return r;
}

int vgpu_stream_destroy(struct vgpu_session *s, uint64_t stream)
{
    return ring_stream_destroy(s, stream);
}

int vgpu_stream_wait(struct vgpu_session *s, uint64_t stream, uint64_t event)
{
    return ring_stream_wait(s, stream, event);
}

int vgpu_stream_sync(struct vgpu_session *s, uint64_t stream)
{
    return ring_stream_sync(s, stream);
}

int vgpu_stream_query(struct vgpu_session *s, uint64_t stream)
{
    return ring_stream_query(s, stream);
}

int vgpu_event_create(struct vgpu_session *s, uint32_t flags, uint64_t *event)
{
    struct vgpu_result_value result = {0};
    const int r = ring_event_create(s, flags, &result);

    *event = result.value;
    return r;
}

int vgpu_event_destroy(struct vgpu_session *s, uint64_t event)
{
    return ring_event_destroy(s, event);
}

int vgpu_event_record(struct vgpu_session *s, uint64_t event, uint64_t stream)
{
    return ring_event_record(s, event, stream);
}

int vgpu_event_sync(struct vgpu_session *s, uint64_t event)
{
    return ring_event_sync(s, event);
}

int vgpu_event_query(struct vgpu_session *s, uint64_t event)
{
    return ring_event_query(s, event);
}

int vgpu_event_elapsed(struct vgpu_session *s, uint64_t start, uint64_t end, float *milliseconds)
{
    struct vgpu_result_elapsed result = {0};
    const int r = ring_event_elapsed(s, start, end, &result);

    *milliseconds = result.milliseconds;
    return r;
}

int vgpu_session_sync(struct vgpu_session *s)
{
    return ring_sync(s);
}
