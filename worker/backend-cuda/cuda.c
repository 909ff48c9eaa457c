/* SPDX-License-Identifier: MIT */
/*
 * The cuda backend: built-in operations on an NVIDIA GPU through the driver API.
 *
 * Inline operands go through a small pinned buffer that the kernel reads and writes over the
 * bus itself: one launch instead of three copies around it. Vectors in the shared memory
 * go through the GPU in chunks, on two streams in turn, so that the copies of one chunk
 * overlap the sum of the other; the shared memory is registered with the driver at
 * the first such job, and the copy engines read and write it in place.
 *
 * A job is given a short while to finish under the caller's eyes, since waking up takes
 * longer than a small job; after that a host function on the stream signals the eventfd.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend.h"

#define STREAMS 2u
#define CHUNK (UINT64_C(4) << 20) /* elements: 16 MiB, long enough to hide the launch */
#define STAGING_MAX 1024u         /* elements in each inline vector */
#define BLOCK 256u                /* threads */
#define SPIN_NS (40 * NS_PER_US)  /* several times what a small job takes */

enum { VECTOR_A, VECTOR_B, VECTOR_SUM, VECTORS };

struct cuda_backend {
    struct backend head;
    CUstream stream[STREAMS];
    CUevent joined; /* end of stream 1's part, for stream 0 to wait for */
    CUfunction add_int32, add_float32;
    unsigned blocks_max; /* of a grid; enough to fill the GPU */
    void *shm;
    uint64_t shm_size;
    bool shm_ready; /* registered, device buffers allocated */
    CUdeviceptr chunk[STREAMS][VECTORS];
    uint32_t *staging;      /* VECTORS times STAGING_MAX elements, pinned */
    struct backend_job job; /* the running one, where it is inline */
    bool inline_pending;    /* its sum is still in staging */
};

/* The context is the device's primary one: this process has no other. */
static int make_context(struct cuda_backend *cuda, int device)
{
    CUmodule module;
    void *staging;
    const int r = cuda_open_device(device, &cuda->head.info);

    if (r < 0) {
        return r;
    }
    cuda->blocks_max = cuda->head.info.processors * 16;
    CHECK(ModuleLoadData, (&module, cuda_kernels_ptx));
    CHECK(ModuleGetFunction, (&cuda->add_int32, module, "add_int32"));
    CHECK(ModuleGetFunction, (&cuda->add_float32, module, "add_float32"));
    for (unsigned i = 0; i < STREAMS; i++) {
        CHECK(StreamCreate, (&cuda->stream[i], CU_STREAM_NON_BLOCKING));
    }
    CHECK(EventCreate, (&cuda->joined, CU_EVENT_DISABLE_TIMING));
    CHECK(MemHostAlloc,
          (&staging, (size_t)VECTORS * STAGING_MAX * VGPU_ELEMENT_SIZE, CU_MEMHOSTALLOC_DEVICEMAP));
    cuda->staging = staging;
    return 0;
}

/*
 * The kernels go through the vectors in steps of the grid, so any grid will do: as many blocks as
 * the elements need, and no more than keep the GPU busy.
 */
static int launch_add(struct cuda_backend *cuda, const struct backend_job *job, CUstream stream,
                      CUdeviceptr a, CUdeviceptr b, CUdeviceptr sum, uint64_t count)
{
    void *parameters[] = {&a, &b, &sum, &count};
    const uint64_t blocks = (count + BLOCK - 1) / BLOCK;
    const unsigned grid = blocks < cuda->blocks_max ? (unsigned)blocks : cuda->blocks_max;

    CHECK(LaunchKernel, (job->type == VGPU_TYPE_INT32 ? cuda->add_int32 : cuda->add_float32, grid,
                         1, 1, BLOCK, 1, 1, 0, stream, parameters, NULL));
    return 0;
}

/* Unified addressing: the GPU knows pinned memory by the address that the CPU uses. */
static CUdeviceptr device_address(const void *host)
{
    return (CUdeviceptr)(uintptr_t)host;
}

/*
 * The operands are copied to the staging buffer, so the caller's may change; the sum is copied out
 * by cuda_vector_query().
 */
static int start_inline(struct cuda_backend *cuda, const struct backend_job *job)
{
    uint32_t *a = cuda->staging;
    uint32_t *b = a + STAGING_MAX;
    uint32_t *sum = b + STAGING_MAX;

    if (job->count > STAGING_MAX) {
        return -EINVAL;
    }
    memcpy(a, job->a, job->count * VGPU_ELEMENT_SIZE);
    memcpy(b, job->b, job->count * VGPU_ELEMENT_SIZE);
    cuda->job = *job;
    cuda->inline_pending = true;
    return launch_add(cuda, job, cuda->stream[0], device_address(a), device_address(b),
                      device_address(sum), job->count);
}

/*
 * At the first job that needs it: a VM that only ever sends inline operands costs no device memory.
 * After a failure the next job goes on from what was allocated.
 */
static int prepare_shm(struct cuda_backend *cuda)
{
    CUresult error;

    if (cuda->shm_ready) {
        return 0;
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        for (unsigned v = 0; v < VECTORS; v++) {
            if (cuda->chunk[i][v] == 0) {
                CHECK(MemAlloc, (&cuda->chunk[i][v], CHUNK * VGPU_ELEMENT_SIZE));
            }
        }
    }
    error = cu.MemHostRegister(cuda->shm, cuda->shm_size, 0);
    if (error != CUDA_SUCCESS) {
        /* Still correct: the driver then copies through buffers of its own. */
        log_warning("cuMemHostRegister of %llu bytes: %s; copies will be slow",
                    (unsigned long long)cuda->shm_size, cuda_error_name(error));
    }
    cuda->shm_ready = true;
    return 0;
}

/*
 * A stream has one set of buffers, and its own order keeps a chunk from being overwritten while it
 * is in use. A sum may replace an operand: a chunk of it is written only when that chunk of both
 * operands is on the GPU.
 */
static int enqueue_chunks(struct cuda_backend *cuda, const struct backend_job *job)
{
    int r;

    for (uint64_t done = 0, turn = 0; done < job->count; done += CHUNK, turn++) {
        const uint64_t left = job->count - done;
        const uint64_t count = left < CHUNK ? left : CHUNK;
        const size_t bytes = count * VGPU_ELEMENT_SIZE;
        const uint64_t offset = done * VGPU_ELEMENT_SIZE;
        const CUdeviceptr *chunk = cuda->chunk[turn % STREAMS];
        const CUstream stream = cuda->stream[turn % STREAMS];

        CHECK(MemcpyHtoDAsync, (chunk[VECTOR_A], (const char *)job->a + offset, bytes, stream));
        CHECK(MemcpyHtoDAsync, (chunk[VECTOR_B], (const char *)job->b + offset, bytes, stream));
        r = launch_add(cuda, job, stream, chunk[VECTOR_A], chunk[VECTOR_B], chunk[VECTOR_SUM],
                       count);
        if (r < 0) {
            return r;
        }
        CHECK(MemcpyDtoHAsync, ((char *)job->sum + offset, chunk[VECTOR_SUM], bytes, stream));
    }
    /* From here on the end of stream 0 is the end of the job. */
    CHECK(EventRecord, (cuda->joined, cuda->stream[1]));
    CHECK(StreamWaitEvent, (cuda->stream[0], cuda->joined, 0));
    return 0;
}

static int start_shm(struct cuda_backend *cuda, const struct backend_job *job)
{
    int r = prepare_shm(cuda);

    if (r == 0) {
        r = enqueue_chunks(cuda, job);
        /* Chunks may be on their way: only the end of this process stops them for sure. */
        r = r < 0 ? -EIO : 0;
    }
    return r;
}

/* Runs on a thread of the driver; may not call CUDA. */
static void signal_event(void *argument)
{
    const struct cuda_backend *cuda = argument;

    eventfd_write(cuda->head.event_fd, 1);
}

/* 0 when stream 0, which ends last, has nothing left to do. */
static int cuda_vector_query(struct cuda_backend *cuda)
{
    const CUresult error = cu.StreamQuery(cuda->stream[0]);

    if (error == CUDA_ERROR_NOT_READY) {
        return -EINPROGRESS;
    }
    if (error != CUDA_SUCCESS) {
        return cuda_failed(error, "cuStreamQuery");
    }
    if (cuda->inline_pending) {
        memcpy(cuda->job.sum, cuda->staging + (size_t)VECTOR_SUM * STAGING_MAX,
               cuda->job.count * VGPU_ELEMENT_SIZE);
        cuda->inline_pending = false;
    }
    return 0;
}

static int cuda_start(struct backend *backend, const struct backend_job *job)
{
    struct cuda_backend *cuda = (struct cuda_backend *)backend;
    int r = job->in_shm ? start_shm(cuda, job) : start_inline(cuda, job);
    const uint64_t end = clock_ns() + SPIN_NS;

    if (r < 0) {
        return r;
    }
    do {
        r = cuda_vector_query(cuda);
        if (r != -EINPROGRESS) {
            return r;
        }
    } while (clock_ns() < end);
    CHECK(LaunchHostFunc, (cuda->stream[0], signal_event, cuda));
    return -EINPROGRESS;
}

static int cuda_finish(struct backend *backend)
{
    struct cuda_backend *cuda = (struct cuda_backend *)backend;
    eventfd_t value;
    int r;

    if (eventfd_read(backend->event_fd, &value) != 0) {
        return -EINPROGRESS;
    }
    /* The host function itself is the stream's last work and may be about to return. */
    do {
        r = cuda_vector_query(cuda);
    } while (r == -EINPROGRESS);
    return r;
}

/* The process ends with its backend; the driver then frees everything of it. */
static void cuda_vector_close(struct backend *backend)
{
    (void)backend;
}

static const struct backend_ops cuda_ops = {
    .start = cuda_start,
    .finish = cuda_finish,
    .close = cuda_vector_close,
};

int cuda_backend_open(int device, void *shm, uint64_t size, struct backend **backend, char *why,
                      size_t why_size)
{
    struct cuda_backend *cuda;
    int count = 0;
    int r = cuda_init(why, why_size, &count);

    if (r < 0) {
        return r;
    }
    if (device >= count) {
        snprintf(why, why_size, "there is no GPU number %d; this host has %d", device, count);
        return -EINVAL;
    }
    cuda = calloc(1, sizeof(*cuda));
    if (!cuda) {
        return -ENOMEM;
    }
    cuda->head.ops = &cuda_ops;
    cuda->shm = shm;
    cuda->shm_size = size;
    cuda->head.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = cuda->head.event_fd < 0 ? -errno : make_context(cuda, device);
    if (r < 0) {
        snprintf(why, why_size, "GPU %d cannot be used: %s", device, strerror(-r));
        free(cuda);
        return r;
    }
    *backend = &cuda->head;
    return 0;
}
