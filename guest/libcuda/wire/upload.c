/* SPDX-License-Identifier: MIT */
/*
 * Bytes that go to the host in one piece, see upload.h.
 *
 * The arena may have less room than an image has bytes, some hundred MiB for a large library. So it
 * goes in chunks, one after another through the same piece, and the worker puts them together in
 * memory of its own. Each write is answered when the worker has copied the chunk: the piece may be
 * filled again then.
 */
#include "guest/libcuda/wire/upload.h"

#include <pthread.h>
#include <string.h>

#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

/* Bytes in which it goes over. */
#define CHUNK_BYTES (UINT64_C(1) << 20)

/* Held by callers from upload_send() until the call that takes the upload is answered. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void upload_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void upload_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

/* An upload that breaks off is no matter: the next one begins anew, and frees what is there. */
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
