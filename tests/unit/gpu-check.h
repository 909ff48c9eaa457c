/* SPDX-License-Identifier: MIT */
/*
 * Both sides of the contract in worker/gpu.h, asserted: a layer between a session and its backend,
 * for tests and fuzzers. It ends the process with a message when
 *
 *   the session   passes an object that is not alive or of another kind, host memory beyond the
 *                 arena, a node that follows a later one, an attribute that holds a handle;
 *                 destroys a stream that has work to do; releases a fence
 *                 that is not there; calls anything when the context is closed
 *   the backend   returns what is no error, or succeeds without a result; takes back that
 *                 something is done; gives two names of one function different functions; changes
 *                 why a context is lost; gives out an address that is in use,
 *                 or frees one that is not
 */
#ifndef VGPU_TESTS_UNIT_GPU_CHECK_H
#define VGPU_TESTS_UNIT_GPU_CHECK_H

#include "worker/gpu.h"

/*
 * Puts the layer in front of a backend that was just opened, and returns it. There is one at a
 * time: another takes the place of one that was not closed.
 */
struct gpu *gpu_check(struct gpu *gpu);

#endif
