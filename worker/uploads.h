/* SPDX-License-Identifier: MIT */
/* What came over in chunks, for the calls that use it (api-host.c has the others). */
#ifndef VGPU_WORKER_UPLOADS_H
#define VGPU_WORKER_UPLOADS_H

#include <stdbool.h>

#include "api/cuda-types.h"
#include "worker/ring-session.h"

/*
 * The upload, which is the caller's to free: it serves one call, also when that fails. No bytes
 * when there is none.
 */
struct upload upload_take(struct ring_session *session);

/* Whether the values of these options are numbers, all of them. */
bool options_are_plain(const CUjit_option *options, unsigned count);

#endif
