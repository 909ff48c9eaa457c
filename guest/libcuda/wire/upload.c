/* SPDX-License-Identifier: MIT */
/* Bytes that go to the host in one piece, see upload.h. */
#include "guest/libcuda/wire/upload.h"

#include <pthread.h>
#include <string.h>

#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

/* Bytes in which it goes over. */
#define CHUNK_BYTES (UINT64_C(1) << 20)

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void upload_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void upload_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

/* Through a chunk of the arena. */
CUresult upload_send(const void *image, uint64_t bytes)
{
    const uint64_t chunk = bytes < CHUNK_BYTES ? bytes : CHUNK_BYTES;
    void *memory;
    CUresult r;

    if (bytes == 0) {
        return CUDA_ERROR_INVALID_IMAGE;
    }
    memory = memory_pinned(chunk);
    if (!memory) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r = call_upload_begin(bytes);
    for (uint64_t done = 0; r == CUDA_SUCCESS && done < bytes; done += chunk) {
        const uint64_t count = bytes - done < chunk ? bytes - done : chunk;

        memcpy(memory, (const uint8_t *)image + done, count);
        r = call_upload_write(done, (CUdeviceptr)(uintptr_t)memory, count);
    }
    vgpu_pinned_free(cuda.session, memory);
    return r;
}
