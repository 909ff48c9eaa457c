/* SPDX-License-Identifier: MIT */
/*
 * The gauge: a worker without a guest that tells the mediator what the host's GPUs are and what
 * their sensors say (protocol/vgpu-worker.h has its page). The mediator itself loads no library of
 * the driver's, and neither does any worker that a guest talks to load this one.
 */
#ifndef VGPU_WORKER_GAUGE_H
#define VGPU_WORKER_GAUGE_H

#include <stdint.h>

#include "protocol/vgpu-card.h"
#include "worker/worker.h"

/*
 * Runs until nobody holds the other end of its link, or, without sensors, until it has said what
 * the GPUs are. Returns the process's exit code.
 */
int gauge_worker(const struct options *options);

/*
 * What CUDA tells of GPU number `device`; `facts` is zero before. Returns VGPU_KNOWN_DEVICE, or 0
 * with nothing changed. backend_count_gpus() comes first.
 */
uint32_t cuda_gpu_facts(int device, struct vgpu_gpu_facts *facts);

/*
 * NVIDIA's management library, which comes with the driver. nvml_open() loads it and finds the GPUs
 * with these UUIDs, `count` of them; a message says why that failed. Returns 0 or -errno.
 *
 * The others take the number of one of these, and return what they have found out, as
 * VGPU_KNOWN_*: 0 for a GPU that was not found.
 */
int nvml_open(const struct vgpu_gpu_facts *facts, unsigned count);
uint32_t nvml_facts(unsigned device, struct vgpu_gpu_facts *facts);
uint32_t nvml_sensors(unsigned device, struct vgpu_gpu_sensors *sensors);

#endif
