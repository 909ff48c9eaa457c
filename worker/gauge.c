/* SPDX-License-Identifier: MIT */
/*
 * The gauge, see gauge.h.
 *
 * It finds out once what the GPUs are, by CUDA, whose numbers for them are the mediator's too, and
 * by NVIDIA's management library. Then it gives up what other workers give up, and reads the
 * sensors each second, unless it is told not to. It never makes a context, so it takes no memory of
 * the GPU's.
 *
 * No guest reaches it. It is a process of its own because what it calls is a library that may
 * crash, hang, or be replaced under it when the driver is.
 */
#include "worker/gauge.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/shared.h"
#include "worker/backend.h"
#include "worker/isolation.h"

#define PERIOD_MS 1000

/* How an entry changes: see the protocol. The mediator reads while this writes. */
static void store_gauge(struct vgpu_gauge *to, const struct vgpu_gauge *from)
{
    const size_t head = sizeof(to->sequence);
    const uint32_t sequence = to->sequence;

    shared_store(&to->sequence, sequence + 1);
    shared_fence();
    memcpy((uint8_t *)to + head, (const uint8_t *)from + head, sizeof(*to) - head);
    /* 0 would say that there is no such GPU. */
    shared_store_release(&to->sequence, sequence + 2 != 0 ? sequence + 2 : 2);
}

static unsigned find_gpus(enum backend_kind kind, struct vgpu_gauge *gauges)
{
    struct vgpu_gpu_facts facts[VGPU_GAUGES] = {0};
    char why[256] = "";
    const int count = kind == BACKEND_CPU ? 0 : backend_count_gpus(why, sizeof(why));
    const unsigned found = count < (int)VGPU_GAUGES ? (unsigned)count : VGPU_GAUGES;

    if (count <= 0) {
        cpu_backend_facts(&gauges[0].facts);
        gauges[0].backend = VGPU_FEATURE_BACKEND_CPU;
        gauges[0].known = VGPU_KNOWN_DEVICE;
        return 1;
    }
    for (unsigned i = 0; i < found; i++) {
        gauges[i].backend = VGPU_FEATURE_BACKEND_GPU;
        gauges[i].known = cuda_gpu_facts((int)i, &gauges[i].facts);
        facts[i] = gauges[i].facts;
    }
    if (nvml_open(facts, found) == 0) {
        for (unsigned i = 0; i < found; i++) {
            gauges[i].known |= nvml_facts(i, &gauges[i].facts);
        }
    }
    return found;
}

static void read_sensors(struct vgpu_gauge *gauges, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        gauges[i].sensors = (struct vgpu_gpu_sensors){0};
        gauges[i].known &= VGPU_KNOWN_FACTS;
        gauges[i].known |= nvml_sensors(i, &gauges[i].sensors);
    }
}

int gauge_worker(const struct options *options)
{
    static struct vgpu_gauge gauges[VGPU_GAUGES];
    struct pollfd link = {.fd = VGPU_WORKER_FD_LINK};
    struct vgpu_gauge *page;
    unsigned count;

    if (isolation_early(VGPU_WORKER_FD_GAUGE) < 0) {
        return 1;
    }
    page = worker_map(VGPU_WORKER_FD_GAUGE, VGPU_GAUGE_PAGE_SIZE, 0, "gauge page");
    count = find_gpus(options->backend, gauges);
    if (options->sensors) {
        /* Once before files cannot be opened any more: the library may look for more of them. */
        read_sensors(gauges, count);
    }
    if (isolation_final(options->user, options->group,
                        gauges[0].backend == VGPU_FEATURE_BACKEND_GPU) < 0) {
        return 1;
    }
    for (;;) {
        for (unsigned i = 0; i < count; i++) {
            store_gauge(&page[i], &gauges[i]);
        }
        /* It is told nothing: anything that comes there is the end. */
        if (!options->sensors || poll(&link, 1, PERIOD_MS) != 0) {
            return 0;
        }
        read_sensors(gauges, count);
    }
}
