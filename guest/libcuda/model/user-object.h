/* SPDX-License-Identifier: MIT */
/*
 * User objects: something of the program's with a count, and a function that is called when the
 * count comes to 0. Graphs hold some of the count, so that what their nodes use lives as long as
 * they, their copies and what was made executable of them.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_USER_OBJECT_H
#define VGPU_GUEST_LIBCUDA_MODEL_USER_OBJECT_H

#include <stdbool.h>

#include "api/cuda-types.h"

/* What a graph holds; a list. */
struct held;

/* A new object with a count of at least 1. OUT_OF_MEMORY. */
CUresult user_object_new(void *value, CUhostFn destroy, unsigned count, CUuserObject *object);

/*
 * Adds to an object's count and takes away, what there is. INVALID_VALUE when there is no such
 * object.
 */
CUresult user_object_retain(CUuserObject object, unsigned count);
CUresult user_object_release(CUuserObject object, unsigned count);

/*
 * The same for what a graph holds. `moved`: the count was the program's before, and is not added.
 */
CUresult held_add(struct held **held, CUuserObject object, unsigned count, bool moved);
/* What it does not hold is not taken. */
void held_take(struct held **held, CUuserObject object, unsigned count);

/* As much for the copy of a graph; false when memory is short, and nothing is held then. */
bool held_copy(struct held **to, const struct held *from);

/* Gives all of it back: the graph ends. */
void held_end(struct held *held);

#endif
