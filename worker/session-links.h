/* SPDX-License-Identifier: MIT */
/* A session's states of the linker (api-link.c). */
#ifndef VGPU_WORKER_SESSION_LINKS_H
#define VGPU_WORKER_SESSION_LINKS_H

#include <stdint.h>

struct ring_session;

struct links {
    unsigned count;
    uint64_t bytes; /* that they were given and have made */
};

/* At the end of a session. */
void link_release_all(struct ring_session *session);

#endif
