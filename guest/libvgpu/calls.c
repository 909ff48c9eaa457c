/* SPDX-License-Identifier: MIT */
/* A session's commands, one function each; their order is that of vgpu-queue.h. */
#include <stdlib.h>
#include <string.h>

#include "guest/libvgpu/session.h"

/* A command with a body of its own, posted. */
static int post_command(struct vgpu_session *s, uint16_t opcode, const void *body, uint32_t bytes)
{
    return session_post(s, &(struct command){.opcode = opcode, .body = body, .body_bytes = bytes});
}

/* A command with one value, and an answer of `bytes`. */
static int ask_value(struct vgpu_session *s, uint16_t opcode, uint64_t value, void *answer,
                     uint32_t bytes)
{
    const struct vgpu_cmd_value body = {.value = value};

    return session_call(
        s, &(struct command){.opcode = opcode, .body = &body, .body_bytes = sizeof(body)}, answer,
        bytes);
}

/* The same without a value. */
static int ask_plain(struct vgpu_session *s, uint16_t opcode, void *answer, uint32_t bytes)
{
    return session_call(s, &(struct command){.opcode = opcode, .body = ""}, answer, bytes);
}

/* A command with one value whose answer is one, too. */
static int make_object(struct vgpu_session *s, uint16_t opcode, uint64_t value, uint64_t *made)
{
    struct vgpu_result_value result = {0};
    const int r = ask_value(s, opcode, value, &result, sizeof(result));

    *made = result.value;
    return r;
}

static int post_value(struct vgpu_session *s, uint16_t opcode, uint64_t value)
{
    const struct vgpu_cmd_value body = {.value = value};

    return post_command(s, opcode, &body, sizeof(body));
}

static int post_pair(struct vgpu_session *s, uint16_t opcode, uint64_t first, uint64_t second)
{
    const struct vgpu_cmd_pair body = {.first = first, .second = second};

    return post_command(s, opcode, &body, sizeof(body));
}

int vgpu_session_ping(struct vgpu_session *s)
{
    return ask_plain(s, VGPU_CMD_NOP, NULL, 0);
}

int vgpu_session_info(struct vgpu_session *s, struct vgpu_device_info *info)
{
    const int r = ask_plain(s, VGPU_CMD_DEVICE_INFO, info, sizeof(*info));

    if (r == VGPU_OK) {
        info->name[sizeof(info->name) - 1] = '\0';
    }
    return r;
}

int vgpu_mem_info(struct vgpu_session *s, uint64_t *free_bytes, uint64_t *total)
{
    struct vgpu_result_mem_info result = {0};
    const int r = ask_plain(s, VGPU_CMD_MEM_INFO, &result, sizeof(result));

    *free_bytes = result.free;
    *total = result.total;
    return r;
}

int vgpu_mem_alloc(struct vgpu_session *s, uint64_t bytes, uint64_t *address)
{
    return make_object(s, VGPU_CMD_MEM_ALLOC, bytes, address);
}

int vgpu_mem_free(struct vgpu_session *s, uint64_t address)
{
    return ask_value(s, VGPU_CMD_MEM_FREE, address, NULL, 0);
}

int vgpu_fill(struct vgpu_session *s, uint64_t to, uint32_t value, uint32_t width, uint64_t count,
              uint64_t stream)
{
    const struct vgpu_cmd_fill body = {
        .address = to, .count = count, .stream = stream, .value = value, .width = width};

    return post_command(s, VGPU_CMD_FILL, &body, sizeof(body));
}

int vgpu_module_builtin(struct vgpu_session *s, uint64_t *module)
{
    struct vgpu_result_value result = {0};
    const int r = ask_plain(s, VGPU_CMD_MODULE_BUILTIN, &result, sizeof(result));

    *module = result.value;
    return r;
}

/* Functions ------------------------------------------------------------------------------ */

static int function_get(struct vgpu_session *s, uint64_t module, const char *name,
                        struct vgpu_result_function *result)
{
    const struct vgpu_cmd_function_get body = {.module = module, .length = strlen(name)};
    const struct command command = {.opcode = VGPU_CMD_FUNCTION_GET,
                                    .body = &body,
                                    .body_bytes = sizeof(body),
                                    .rest = name,
                                    .rest_bytes = (uint32_t)body.length};

    if (body.length == 0 || body.length >= VGPU_NAME_MAX) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "a function's name of %llu bytes; 1 to %u",
                         (unsigned long long)body.length, VGPU_NAME_MAX - 1);
    }
    return session_call(s, &command, result, sizeof(*result));
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
    /* The same function has the same handle each time. */
    if (find_layout(s, result->function)) {
        free(layout);
    } else {
        layout->next = s->layouts;
        s->layouts = layout;
    }
    pthread_mutex_unlock(&s->layout_mutex);
    return VGPU_OK;
}

/* Forgets the layouts of a module's functions. */
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
    const int r = ask_value(s, VGPU_CMD_MODULE_UNLOAD, module, NULL, 0);

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
    return session_post(s, &(struct command){.opcode = VGPU_CMD_LAUNCH,
                                             .body = &body,
                                             .body_bytes = sizeof(body),
                                             .rest = params,
                                             .rest_bytes = bytes});
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

/* With the layouts' mutex. A size of 0 tells a parameter that was not asked for yet. */
static int complete_layout(struct vgpu_session *s, struct layout *layout)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct vgpu_cmd_pair body = {.first = layout->function, .second = i};
        struct vgpu_result_param param = {0};
        int r;

        if (layout->params[i].size != 0) {
            continue;
        }
        r = session_call(s,
                         &(struct command){.opcode = VGPU_CMD_FUNCTION_PARAM,
                                           .body = &body,
                                           .body_bytes = sizeof(body)},
                         &param, sizeof(param));
        if (r != VGPU_OK) {
            return r;
        }
        if (param.size > VGPU_PARAMS_MAX || param.offset > VGPU_PARAMS_MAX - param.size) {
            return vgpu_fail(VGPU_INCOMPATIBLE, "parameter %u is said to lie at %llu", i,
                             (unsigned long long)param.offset);
        }
        layout->params[i] = param;
    }
    return VGPU_OK;
}

/* The function's complete layout; NULL with *r otherwise. */
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
    uint8_t params[VGPU_PARAMS_MAX];
    uint64_t bytes = 0;
    int r;
    const struct layout *layout = take_layout(s, launch->function, &r);

    if (!layout) {
        return r;
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        const struct vgpu_result_param *param = &layout->params[i];

        if (param->offset > bytes) {
            memset(params + bytes, 0, param->offset - bytes);
        }
        memcpy(params + param->offset, args[i], param->size);
        if (param->offset + param->size > bytes) {
            bytes = param->offset + param->size;
        }
    }
    return post_kernel(s, launch, params, (uint32_t)bytes);
}

/* Streams and events --------------------------------------------------------------------- */

int vgpu_stream_create(struct vgpu_session *s, uint32_t flags, uint64_t *stream)
{
    return make_object(s, VGPU_CMD_STREAM_CREATE, flags, stream);
}

int vgpu_stream_destroy(struct vgpu_session *s, uint64_t stream)
{
    return post_value(s, VGPU_CMD_STREAM_DESTROY, stream);
}

int vgpu_stream_wait(struct vgpu_session *s, uint64_t stream, uint64_t event)
{
    return post_pair(s, VGPU_CMD_STREAM_WAIT, stream, event);
}

int vgpu_stream_sync(struct vgpu_session *s, uint64_t stream)
{
    return ask_value(s, VGPU_CMD_STREAM_SYNC, stream, NULL, 0);
}

int vgpu_stream_query(struct vgpu_session *s, uint64_t stream)
{
    return ask_value(s, VGPU_CMD_STREAM_QUERY, stream, NULL, 0);
}

int vgpu_event_create(struct vgpu_session *s, uint32_t flags, uint64_t *event)
{
    return make_object(s, VGPU_CMD_EVENT_CREATE, flags, event);
}

int vgpu_event_destroy(struct vgpu_session *s, uint64_t event)
{
    return post_value(s, VGPU_CMD_EVENT_DESTROY, event);
}

int vgpu_event_record(struct vgpu_session *s, uint64_t event, uint64_t stream)
{
    return post_pair(s, VGPU_CMD_EVENT_RECORD, event, stream);
}

int vgpu_event_sync(struct vgpu_session *s, uint64_t event)
{
    return ask_value(s, VGPU_CMD_EVENT_SYNC, event, NULL, 0);
}

int vgpu_event_query(struct vgpu_session *s, uint64_t event)
{
    return ask_value(s, VGPU_CMD_EVENT_QUERY, event, NULL, 0);
}

int vgpu_event_elapsed(struct vgpu_session *s, uint64_t start, uint64_t end, float *milliseconds)
{
    const struct vgpu_cmd_pair body = {.first = start, .second = end};
    struct vgpu_result_elapsed result = {0};
    const int r = session_call(s,
                               &(struct command){.opcode = VGPU_CMD_EVENT_ELAPSED,
                                                 .body = &body,
                                                 .body_bytes = sizeof(body)},
                               &result, sizeof(result));

    *milliseconds = result.milliseconds;
    return r;
}

int vgpu_session_sync(struct vgpu_session *s)
{
    return ask_plain(s, VGPU_CMD_SYNC, NULL, 0);
}
