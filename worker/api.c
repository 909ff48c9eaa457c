/* SPDX-License-Identifier: MIT */
/* Decoding calls of the CUDA driver API, see api.h. */
#include "worker/api.h"

#include <limits.h>
#include <string.h>

/* Stands for what could not be decoded: its bytes are not looked at. */
static const uint64_t nothing[16];

static void api_refuse(struct api_serve *serve, enum vgpu_gpu_error error)
{
    if (serve->error == VGPU_GPU_SUCCESS) {
        serve->error = error;
    }
}

/* Takes the next `bytes` of the arguments, and their padding; NULL when there are not as many. */
static const void *take_bytes(struct api_serve *serve, uint64_t bytes)
{
    const uint64_t padded = (bytes + 7) & ~UINT64_C(7);
    const void *taken = serve->in;

    if (bytes > serve->left || padded > serve->left) {
        api_refuse(serve, VGPU_GPU_INVALID_VALUE);
        return NULL;
    }
    serve->in += padded;
    serve->left -= (uint32_t)padded;
    return taken;
}

uint64_t api_word(const struct vgpu_cmd_call *call, uint32_t place)
{
    uint64_t word = 0;

    if (place < call->bytes / sizeof(word)) {
        memcpy(&word, (const uint8_t *)(call + 1) + place * sizeof(word), sizeof(word));
    }
    return word;
}

uint64_t api_u64(struct api_serve *serve)
{
    const uint64_t *word = take_bytes(serve, sizeof(*word));

    return word ? *word : 0;
}

static uint64_t take_unsigned(struct api_serve *serve, uint64_t max)
{
    const uint64_t value = api_u64(serve);

    if (value > max) {
        api_refuse(serve, VGPU_GPU_INVALID_VALUE);
        return 0;
    }
    return value;
}

uint32_t api_u32(struct api_serve *serve)
{
    return (uint32_t)take_unsigned(serve, UINT32_MAX);
}

uint16_t api_u16(struct api_serve *serve)
{
    return (uint16_t)take_unsigned(serve, UINT16_MAX);
}

uint8_t api_u8(struct api_serve *serve)
{
    return (uint8_t)take_unsigned(serve, UINT8_MAX);
}

int32_t api_i32(struct api_serve *serve)
{
    const int64_t value = (int64_t)api_u64(serve);

    if (value < INT32_MIN || value > INT32_MAX) {
        api_refuse(serve, VGPU_GPU_INVALID_VALUE);
        return 0;
    }
    return (int32_t)value;
}

void *api_object(struct api_serve *serve, enum handle_type type)
{
    void *object = handles_get(serve->handles, type, api_u64(serve));

    if (!object) {
        api_refuse(serve, VGPU_GPU_INVALID_HANDLE);
    }
    return object;
}

struct gpu_stream *api_stream(struct api_serve *serve)
{
    const uint64_t handle = api_u64(serve);
    struct gpu_stream *stream = handles_get(serve->handles, HANDLE_STREAM, handle);

    if (handle != 0 && !stream) {
        api_refuse(serve, VGPU_GPU_INVALID_HANDLE);
    }
    return stream;
}

const void *api_plain(struct api_serve *serve, size_t size)
{
    const void *taken = take_bytes(serve, size);

    return taken ? taken : nothing;
}

const void *api_array(struct api_serve *serve, uint64_t count, size_t size)
{
    const void *taken;

    if (count > VGPU_COMMAND_MAX) {
        api_refuse(serve, VGPU_GPU_INVALID_VALUE);
        return nothing;
    }
    taken = take_bytes(serve, count * size);
    return taken ? taken : nothing;
}

const char *api_string(struct api_serve *serve, uint64_t bytes)
{
    const char *string = api_array(serve, bytes, 1);

    if (serve->error != VGPU_GPU_SUCCESS || bytes == 0 ||
        memchr(string, '\0', bytes) != string + bytes - 1) {
        api_refuse(serve, VGPU_GPU_INVALID_VALUE);
        return "";
    }
    return string;
}

void *api_back(struct api_serve *serve, uint64_t count, size_t size)
{
    uint8_t *back = serve->out + serve->length;
    uint64_t bytes;

    if (count > VGPU_REPLY_MAX) {
        api_refuse(serve, VGPU_GPU_INVALID_VALUE);
        return NULL;
    }
    bytes = (count * size + 7) & ~UINT64_C(7);
    if (bytes > serve->room - serve->length) {
        api_refuse(serve, VGPU_GPU_INVALID_VALUE);
        return NULL;
    }
    memset(back, 0, bytes);
    serve->length += (uint32_t)bytes;
    return back;
}

bool api_complete(struct api_serve *serve)
{
    if (serve->left != 0) {
        api_refuse(serve, VGPU_GPU_INVALID_VALUE);
    }
    return serve->error == VGPU_GPU_SUCCESS;
}

bool api_attribute_is_plain(CUlaunchAttributeID id)
{
    switch (id) {
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        return true;
    default:
        return false;
    }
}
