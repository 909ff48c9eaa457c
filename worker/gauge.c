/* SPDX-License-Identifier: MIT */
/*
 * The gauge, see gauge.h.
 *
 * It finds out once what the GPUs are, by CUDA, whose numbers for them are the mediator's too, and
 * tells that; then by NVIDIA's management library. Then it gives up what other workers give up, and
 * reads and tells the sensors each second, unless it is told not to. It never makes a context, so
 * it takes no memory of the GPU's. A page that does not change for a while tells the mediator that
 * a library hangs.
 *
 * No guest reaches it. It is a process of its own because what it calls is a library that may
 * crash, hang, or be replaced under it when the driver is.
 */
#include "worker/gauge.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/sequence.h"
#include "worker/backend.h"
#include "worker/isolation.h"

#define PERIOD_MS 1000

static void tell_gauges(struct vgpu_gauge *page, const struct vgpu_gauge *gauges, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        sequence_store(&page[i], &gauges[i], sizeof(gauges[i]));
    }
}

/* By CUDA, or what the CPU is; how many. 0: there is none of the kind that was asked for. */
static unsigned find_gpus(enum backend_kind kind, struct vgpu_gauge *gauges)
{
    char why[256] = "";
    const int count = kind == BACKEND_CPU ? 0 : backend_count_gpus(why, sizeof(why));
    const unsigned found = count < (int)VGPU_GAUGES ? (unsigned)count : VGPU_GAUGES;

    if (count <= 0 && kind == BACKEND_CUDA) {
        log_error("there is no GPU to tell of any more: %s", why);
        return 0;
    }
    if (count <= 0) {
        cpu_backend_facts(&gauges[0].facts);
        gauges[0].backend = VGPU_FEATURE_BACKEND_CPU;
        gauges[0].known = VGPU_KNOWN_DEVICE;
        return 1;
    }
    for (unsigned i = 0; i < found; i++) {
        gauges[i].backend = VGPU_FEATURE_BACKEND_GPU;
        gauges[i].known = cuda_gpu_facts((int)i, &gauges[i].facts);
    }
    return found;
}

static void ask_nvml(struct vgpu_gauge *gauges, unsigned count)
{
    struct vgpu_gpu_facts facts[VGPU_GAUGES] = {0};

    for (unsigned i = 0; i < count; i++) {
        facts[i] = gauges[i].facts;
    }
    if (nvml_open(facts, count) == 0) {
        for (unsigned i = 0; i < count; i++) {
            gauges[i].known |= nvml_facts(i, &gauges[i].facts);
        }
    }
}

static void read_sensors(struct vgpu_gauge *gauges, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        gauges[i].sensors = (struct vgpu_gpu_sensors){0};
        gauges[i].known &= VGPU_KNOWN_FACTS;
        gauges[i].known |= nvml_sensors(i, &gauges[i].sensors);
    }
}

/* Waits a period; false at the end. It is told nothing: whatever comes there is the end. */
static bool rest_a_period(void)
{
    struct pollfd link = {.fd = VGPU_WORKER_FD_LINK};
    int n;

    do {
        n = poll(&link, 1, PERIOD_MS);
    } while (n < 0 && errno == EINTR);
    return n == 0;
}

int gauge_worker(const struct options *options)
{
    static struct vgpu_gauge gauges[VGPU_GAUGES];
    struct vgpu_gauge *page;
    unsigned count;
    bool gpu;

    /* Whatever a library is doing when nobody holds the link's other end any more. */
    if (isolation_early(VGPU_WORKER_FD_GAUGE) < 0 || worker_watch_link() < 0) {
        return 1;
    }
    page = worker_map(VGPU_WORKER_FD_GAUGE, VGPU_GAUGE_PAGE_SIZE, 0, "gauge page");
    count = find_gpus(options->backend, gauges);
    if (count == 0) {
        return 1;
    }
    /* What is known is told before the next library is asked, which may hang. */
    tell_gauges(page, gauges, count);
    gpu = gauges[0].backend == VGPU_FEATURE_BACKEND_GPU;
    if (gpu) {
        ask_nvml(gauges, count);
    }
    if (options->sensors) {
        /* Once before files cannot be opened any more: the library may look for more of them. */
        read_sensors(gauges, count);
    }
    if (isolation_final(options->user, options->group, gpu) < 0) {
        return 1;
    }
    tell_gauges(page, gauges, count);
    while (options->sensors && rest_a_period()) {
        read_sensors(gauges, count);
        tell_gauges(page, gauges, count);
    }
    return 0;
}
