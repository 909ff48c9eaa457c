/* SPDX-License-Identifier: MIT */
/*
 * The cpu backend: the built-in operations in C, on the host's memory in place.
 *
 * Short vectors are added where the caller stands: handing them over would take longer
 * than the sum. Long ones go to a thread of the backend's own, so that the worker's event
 * loop stays awake for the mediator. One job at a time, so the hand-over is a
 * semaphore one way and the eventfd the other.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/backend.h"

/* Elements up to which a sum takes less than waking a thread does (some 10 us). */
#define INLINE_MAX 16384u

/* What every NaN result is on the GPU (PTX ISA, add.f32); the CPU follows it. */
#define CANONICAL_NAN 0x7fffffffu

struct cpu_backend {
    struct backend head;
    pthread_t thread;
    sem_t start;            /* posted by start and close, waited for by the thread */
    struct backend_job job; /* written before the post, read after the wait */
    bool stop;              /* likewise */
};

/* Unsigned, so that overflow wraps as it does on the GPU. */
static void add_int32(const uint32_t *a, const uint32_t *b, uint32_t *sum, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        sum[i] = a[i] + b[i];
    }
}

/*
 * The processor's own NaNs have other bits than the GPU's, so each is replaced: only a NaN is not
 * equal to itself.
 */
static void add_float32(const float *a, const float *b, uint32_t *sum, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        union {
            float value;
            uint32_t bits;
        } result = {.value = a[i] + b[i]};
        sum[i] = result.value != result.value ? CANONICAL_NAN : result.bits;
    }
}

static void cpu_vector_add(const struct backend_job *job)
{
    if (job->type == VGPU_TYPE_INT32) {
        add_int32(job->a, job->b, job->sum, job->count);
    } else {
        add_float32(job->a, job->b, job->sum, job->count);
    }
}

/*
 * sem_wait() comes back early for signals alone. The eventfd's write and the read in cpu_finish()
 * order the sum before the answer.
 */
static void *cpu_vector_thread(void *argument)
{
    struct cpu_backend *cpu = argument;

    for (;;) {
        while (sem_wait(&cpu->start) != 0) {
        }
        if (cpu->stop) {
            return NULL;
        }
        cpu_vector_add(&cpu->job);
        eventfd_write(cpu->head.event_fd, 1);
    }
}

/* Called with no job running, as backend.h has it, so the thread is not looking at `job`. */
static int cpu_start(struct backend *backend, const struct backend_job *job)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;

    if (job->count <= INLINE_MAX) {
        cpu_vector_add(job);
        return 0;
    }
    cpu->job = *job;
    sem_post(&cpu->start);
    return -EINPROGRESS;
}

/* A sum on the CPU cannot fail: it is done, or it is early. */
static int cpu_finish(struct backend *backend)
{
    eventfd_t value;

    return eventfd_read(backend->event_fd, &value) == 0 ? 0 : -EINPROGRESS;
}

/* Waits for a job that runs: it uses the caller's memory. */
static void cpu_vector_close(struct backend *backend)
{
    struct cpu_backend *cpu = (struct cpu_backend *)backend;

    cpu->stop = true;
    sem_post(&cpu->start);
    pthread_join(cpu->thread, NULL);
    sem_destroy(&cpu->start);
    close(backend->event_fd);
    free(cpu);
}

static const struct backend_ops cpu_ops = {
    .start = cpu_start,
    .finish = cpu_finish,
    .close = cpu_vector_close,
};

int cpu_backend_open(struct backend **backend, char *why, size_t why_size)
{
    struct cpu_backend *cpu = calloc(1, sizeof(*cpu));
    int r;

    if (!cpu) {
        return -ENOMEM;
    }
    cpu->head.ops = &cpu_ops;
    cpu->head.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (cpu->head.event_fd < 0) {
        r = -errno;
        snprintf(why, why_size, "eventfd: %s", strerror(errno));
        free(cpu);
        return r;
    }
    sem_init(&cpu->start, 0, 0);
    r = pthread_create(&cpu->thread, NULL, cpu_vector_thread, cpu);
    if (r != 0) {
        snprintf(why, why_size, "cannot start a thread: %s", strerror(r));
        close(cpu->head.event_fd);
        free(cpu);
        return -r;
    }
    cpu->head.info = (struct vgpu_device_info){
        .backend = VGPU_FEATURE_BACKEND_CPU,
        .processors = 1,
        .name = CPU_NAME,
    };
    *backend = &cpu->head;
    return 0;
}
