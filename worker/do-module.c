/* SPDX-License-Identifier: MIT */
/*
 * Commands about modules and their functions. An image is copied out of the arena before it is
 * looked at: the driver parses it, and the guest must not change it under its eyes. A function has
 * one handle, however often it is asked for; it goes with its module.
 */
#include <stdlib.h>
#include <string.h>

#include "common/shared.h"
#include "worker/command-rules.h"
#include "worker/ring-session.h"

/* Answers with the handle of a module; without one it could not be unloaded, and so it goes. */
static enum vgpu_gpu_error answer_module(struct execution *x, struct gpu_module *module)
{
    const enum vgpu_gpu_error error = execution_answer_handle(x, HANDLE_MODULE, module);

    if (error != VGPU_GPU_SUCCESS) {
        x->session->gpu->ops->module_unload(x->session->gpu, module);
    }
    return error;
}

enum vgpu_gpu_error do_module_load(struct execution *x)
{
    const struct vgpu_cmd_module_load *command = x->body;
    struct gpu *gpu = x->session->gpu;
    struct gpu_module *module = NULL;
    enum vgpu_gpu_error error;
    uint64_t words;
    uint8_t *image;

    if (command->bytes == 0 || command->bytes > RING_UPLOAD_MAX || command->image % 4 != 0 ||
        !gpu_in_arena(&gpu->arena, command->image, command->bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    /* Whole words are read; the arena's size is a multiple of them. A NUL follows for PTX. */
    words = (command->bytes + 3) / 4;
    image = malloc(4 * words + 1);
    if (!image) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    shared_copy_in(image, (void *)(uintptr_t)command->image, 4 * words);
    image[command->bytes] = '\0';
    error = gpu->ops->module_load(gpu, image, command->bytes, NULL, &module);
    free(image);
    return error == VGPU_GPU_SUCCESS ? answer_module(x, module) : error;
}

enum vgpu_gpu_error do_module_builtin(struct execution *x)
{
    struct gpu_module *module = NULL;
    const enum vgpu_gpu_error error = x->session->gpu->ops->module_builtin(x->session->gpu,
                                                                           &module);

    return error == VGPU_GPU_SUCCESS ? answer_module(x, module) : error;
}

enum vgpu_gpu_error do_module_unload(struct execution *x)
{
    const struct vgpu_cmd_value *command = x->body;

    return pending_wait_for_all(x, PENDING_UNLOAD, command->value);
}

enum vgpu_gpu_error do_function_get(struct execution *x)
{
    const struct vgpu_cmd_function_get *command = x->body;
    struct handles *handles = &x->session->handles;
    struct vgpu_result_function info = {0};
    struct gpu_function *function = NULL;
    char name[VGPU_NAME_MAX];
    enum vgpu_gpu_error error;

    memcpy(name, command + 1, command->length);
    name[command->length] = '\0';
    error = x->session->gpu->ops->function_get(x->session->gpu, x->objects[0], name, &function,
                                               &info);
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    info.function = handles_find(handles, HANDLE_FUNCTION, function, command->module);
    if (info.function == 0) {
        info.function = handles_add(handles, HANDLE_FUNCTION, function, command->module);
    }
    execution_answer(x, &info, sizeof(info));
    return info.function == 0 ? VGPU_GPU_OUT_OF_MEMORY : VGPU_GPU_SUCCESS;
}

/* As many as fit: most functions have no more, and are asked about once. */
enum vgpu_gpu_error do_function_param(struct execution *x)
{
    const struct vgpu_cmd_pair *command = x->body;
    struct gpu *gpu = x->session->gpu;
    struct vgpu_result_param params[VGPU_RESULT_PARAMS] = {{0}};
    enum vgpu_gpu_error error = VGPU_GPU_SUCCESS;
    uint32_t count = 0;

    while (error == VGPU_GPU_SUCCESS && count < VGPU_RESULT_PARAMS) {
        error = gpu->ops->function_param(gpu, x->objects[0], command->second + count,
                                         &params[count]);
        count += error == VGPU_GPU_SUCCESS;
    }
    execution_answer(x, params, count * sizeof(params[0]));
    /* Behind the last one there is none: that is an error for the one that was asked for alone. */
    return count > 0 ? VGPU_GPU_SUCCESS : error;
}
