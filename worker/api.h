/* SPDX-License-Identifier: MIT */
/*
 * Calls of the CUDA driver API that come over a ring (VGPU_CMD_CALL): decoding them.
 *
 * The functions that serve them are generated from api/: each takes its arguments by the getters
 * below, in order, then asks api_complete() once whether all was there and nothing was left,
 * and only then acts. A getter that fails says so in `error`, which stays; what it returns then is
 * not used. What is decoded is the worker's own copy of the command.
 */
#ifndef VGPU_WORKER_API_H
#define VGPU_WORKER_API_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"
#include "protocol/vgpu-array.h"
#include "protocol/vgpu-queue.h"
#include "protocol/vgpu-tensor.h"
#include "worker/handles.h"

struct allocation;
struct array;
struct gpu;
struct graph;
struct link;
struct shared_event;
struct gpu_calls;
struct gpu_stream;
struct ring_session;

struct execution;

struct api_serve {
    struct execution *execution; /* of the command that holds the call */
    struct ring_session *session;
    const struct handles *handles;
    struct gpu *gpu;
    const struct gpu_calls *calls; /* of the backend */
    const uint8_t *in;             /* arguments not decoded yet; a multiple of 8 */
    uint32_t left;                 /* bytes of them */
    uint8_t *out;                  /* results; a multiple of 8 */
    uint32_t room, length;         /* bytes there, and used */
    enum vgpu_gpu_error error;
};

/* Whether an attribute of launches and streams holds no handle, which would be the driver's. */
bool api_attribute_is_plain(CUlaunchAttributeID id);

/* Arguments' places are counted in words of 8 bytes, from 1; 0: there is none such. */
struct api_rule {
    const char *name;
    enum vgpu_gpu_error (*serve)(struct api_serve *serve);
    uint16_t flags; /* enum command_flag */
    uint8_t stream; /* which argument is the stream */
    uint64_t weigh; /* bit N: how long it takes depends on word N */
};

/* The rule for a call, NULL when this version does not know it. */
const struct api_rule *api_find(uint32_t id);

/* Calls have ids below this. */
extern const uint32_t api_ids;

/* A word of the arguments at a fixed place, 0 when they are shorter: for those who decide when. */
uint64_t api_word(const struct vgpu_cmd_call *call, uint32_t place);

/* Numbers, refused when they do not fit. */
uint64_t api_u64(struct api_serve *serve);
uint32_t api_u32(struct api_serve *serve);
uint16_t api_u16(struct api_serve *serve);
uint8_t api_u8(struct api_serve *serve);
int32_t api_i32(struct api_serve *serve);

/* The object behind a handle, refused when there is none. NULL is the default stream. */
void *api_object(struct api_serve *serve, enum handle_type type);
struct gpu_stream *api_stream(struct api_serve *serve);

/* A structure of `size` bytes; an array; a string whose `bytes` include its NUL. Not NULL. */
const void *api_plain(struct api_serve *serve, size_t size);
const void *api_array(struct api_serve *serve, uint64_t count, size_t size);
const char *api_string(struct api_serve *serve, uint64_t bytes);

/* Room for an array of results, all zero; NULL when there is not enough. */
void *api_back(struct api_serve *serve, uint64_t count, size_t size);

/* Whether all went well and nothing is left. */
bool api_complete(struct api_serve *serve);

#endif
