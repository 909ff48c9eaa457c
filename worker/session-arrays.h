/* SPDX-License-Identifier: MIT */
/* A session's arrays, textures and surfaces (api-array.c). */
#ifndef VGPU_WORKER_SESSION_ARRAYS_H
#define VGPU_WORKER_SESSION_ARRAYS_H

#include <stdint.h>

struct ring_session;

/* The driver's number of a texture or surface that was made. */
struct texture {
    uint64_t number;
    uint32_t form; /* enum vgpu_texture_form */
};

struct textures {
    struct texture *made; /* `count` of them, with room for `room` */
    uint32_t count, room;
};

/* At the end of a session. Textures go with the process. */
void array_release_all(struct ring_session *session);

#endif
