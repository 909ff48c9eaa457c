/* SPDX-License-Identifier: MIT */
/*
 * A graph on its way to the host: flat, as protocol/vgpu-graph.h has it. Graphs within it are
 * dissolved, and functions of the program's become gates.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_PLAN_H
#define VGPU_GUEST_LIBCUDA_MODEL_PLAN_H

#include "api/cuda-types.h"
#include "guest/libcuda/model/gate.h"

struct graph;

/*
 * Brings a graph over. *handle is NULL for a new executable one, and otherwise whose nodes these
 * are from now on. *gates, of its functions, are the caller's; NULL: it has none.
 */
CUresult plan_send(struct graph *graph, CUgraphExec *handle, struct gates **gates);

#endif
