/* SPDX-License-Identifier: MIT */
/*
 * Handles of what is in this process alone: graphs, their nodes, user objects. What a program holds
 * as CUgraph, say, is such a handle and no address, so that one that is gone, or never was, is
 * found out without a look at memory that may be somebody else's by now.
 *
 * A handle's bits 0-31 are a place in the table, counted from 1, which another handle gets when
 * this one is given back; bits 32-55 a generation, which tells the two apart; bits 56-63 its type.
 */
#ifndef VGPU_GUEST_LIBCUDA_STATE_LOCAL_H
#define VGPU_GUEST_LIBCUDA_STATE_LOCAL_H

#include <stdint.h>

enum local_type {
    LOCAL_GRAPH = 1,
    LOCAL_NODE = 2,
    LOCAL_USER_OBJECT = 3,
};

/* A new handle of a thing, which stays the caller's; 0 when memory is short. */
uint64_t local_add(enum local_type type, void *thing);

/* The thing behind a handle of this type, NULL when there is none. */
void *local_find(enum local_type type, uint64_t handle);

/* Gives a handle back; 0 is allowed. */
void local_drop(uint64_t handle);

#endif
