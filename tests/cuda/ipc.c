/* SPDX-License-Identifier: MIT */
/*
 * Memory and events of several processes: handles that one makes and another opens. Each test is
 * two processes, which are forked before either has CUDA, and which talk through pipes.
 *
 * Tests: guest/libcuda/calls/ipc.c, worker/sharing.c, mediator/exports.c
 */
#include "tests/cuda/check.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAZY CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
#define BYTES ((size_t)3 << 20)

/* The ends of this process. */
static int reads, writes;

static void tell(const void *bytes, size_t count)
{
    EXPECT(write(writes, bytes, count) == (ssize_t)count, "less");
}

static void hear(void *bytes, size_t count)
{
    EXPECT(read(reads, bytes, count) == (ssize_t)count, "less: the other process has failed");
}

/* A word, to say that something is done. */
static void tell_done(void)
{
    tell("!", 1);
}

static void hear_done(void)
{
    char word;

    hear(&word, 1);
}

static void run_two(void (*exporter)(void), void (*importer)(void))
{
    int there[2], back[2], status = -1;
    pid_t pid;

    EXPECT(pipe(there) == 0 && pipe(back) == 0, "no pipes");
    pid = fork();
    EXPECT(pid >= 0, "no process");
    reads = pid == 0 ? there[0] : back[0];
    writes = pid == 0 ? back[1] : there[1];
    close(pid == 0 ? there[1] : there[0]);
    close(pid == 0 ? back[0] : back[1]);
    if (pid == 0) {
        alarm(100);
        start();
        importer();
        exit(0);
    }
    start();
    exporter();
    EXPECT(waitpid(pid, &status, 0) == pid, "nothing");
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the importer: status %#x",
           (unsigned)status);
}

/* Memory -------------------------------------------------------------------------------------- */

static void tell_memory(CUdeviceptr address)
{
    CUipcMemHandle handle;

    GOOD(cuIpcGetMemHandle(&handle, address));
    tell(&handle, sizeof(handle));
}

static CUdeviceptr hear_memory(void)
{
    CUipcMemHandle handle;
    CUdeviceptr address = 0;

    hear(&handle, sizeof(handle));
    GOOD(cuIpcOpenMemHandle(&address, handle, LAZY));
    return address;
}

static void expect_pattern(CUdeviceptr address, size_t bytes, uint32_t seed)
{
    uint8_t *copy = malloc(bytes);

    GOOD(cuMemcpyDtoH(copy, address, bytes));
    EXPECT(is_pattern(copy, bytes, seed), "not %u", seed);
    free(copy);
}

static void put_pattern(CUdeviceptr address, size_t bytes, uint32_t seed)
{
    uint8_t *copy = malloc(bytes);

    pattern(copy, bytes, seed);
    GOOD(cuMemcpyHtoD(address, copy, bytes));
    free(copy);
}

static void export_memory(void)
{
    const CUdeviceptr large = device_alloc(BYTES), small = device_alloc(1000);

    put_pattern(large, BYTES, 1);
    put_pattern(small, 1000, 2);
    tell_memory(large);
    tell_memory(small);
    hear_done();
    expect_words(large, BYTES / WORD, 77);
    expect_pattern(small, 1000, 3);
    tell_done();
    hear_done();
    GOOD(cuMemFree(large));
    GOOD(cuMemFree(small));
}

static void import_memory(void)
{
    const CUdeviceptr large = hear_memory(), small = hear_memory();
    CUdeviceptr base = 0;
    size_t bytes = 0;

    expect_pattern(large, BYTES, 1);
    expect_pattern(small, 1000, 2);
    /* Kernels have it too, and copies on the device. */
    fill(large, BYTES / WORD, 77, NULL);
    put_pattern(small, 1000, 3);
    GOOD(cuCtxSynchronize());
    GOOD(cuMemGetAddressRange(&base, &bytes, large + 5));
    EXPECT(base == large && bytes >= BYTES, "%zu bytes", bytes);
    tell_done();
    hear_done();
    RESULT(cuMemFree(large), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuIpcCloseMemHandle(large));
    GOOD(cuIpcCloseMemHandle(small));
    RESULT(cuIpcCloseMemHandle(small), CUDA_ERROR_INVALID_VALUE);
    tell_done();
}

static void test_memory(void)
{
    run_two(export_memory, import_memory);
}

static void export_an_inner_address(void)
{
    const CUdeviceptr address = device_alloc(BYTES);

    put_pattern(address, BYTES, 4);
    tell_memory(address + 4096);
    hear_done();
}

/* The handle is that of the allocation. */
static void import_from_its_begin(void)
{
    const CUdeviceptr address = hear_memory();

    expect_pattern(address, BYTES, 4);
    tell_done();
}

static void test_inner_address(void)
{
    run_two(export_an_inner_address, import_from_its_begin);
}

static void export_once(void)
{
    const CUdeviceptr address = device_alloc(BYTES);

    put_pattern(address, BYTES, 5);
    tell_memory(address);
    hear_done();
}

static void import_twice(void)
{
    CUipcMemHandle handle;
    CUdeviceptr first = 0, second = 0;

    hear(&handle, sizeof(handle));
    GOOD(cuIpcOpenMemHandle(&first, handle, LAZY));
    GOOD(cuIpcOpenMemHandle(&second, handle, LAZY));
    EXPECT(first == second, "%llx and %llx", first, second);
    GOOD(cuIpcCloseMemHandle(first));
    expect_pattern(first, BYTES, 5);
    GOOD(cuIpcCloseMemHandle(first));
    RESULT(cuIpcCloseMemHandle(first), CUDA_ERROR_INVALID_VALUE);
    /* And again, as programs do that keep the handle. */
    GOOD(cuIpcOpenMemHandle(&second, handle, LAZY));
    expect_pattern(second, BYTES, 5);
    GOOD(cuIpcCloseMemHandle(second));
    tell_done();
}

static void test_opened_twice(void)
{
    run_two(export_once, import_twice);
}

/* Memory that was freed and another that took its place: the old handle is of neither. */
static void export_and_free(void)
{
    const CUdeviceptr address = device_alloc(BYTES);

    tell_memory(address);
    GOOD(cuMemFree(address));
    put_pattern(device_alloc(BYTES), BYTES, 6);
    tell_done();
    hear_done();
}

static void import_what_was_freed(void)
{
    CUipcMemHandle handle;
    CUdeviceptr address = 0;

    hear(&handle, sizeof(handle));
    hear_done();
    EXPECT(cuIpcOpenMemHandle(&address, handle, LAZY) != CUDA_SUCCESS, "success");
    tell_done();
}

static void test_freed_memory(void)
{
    run_two(export_and_free, import_what_was_freed);
}

static void export_and_end(void)
{
    const CUdeviceptr address = device_alloc(BYTES);

    put_pattern(address, BYTES, 7);
    tell_memory(address);
    hear_done();
    GOOD(cuMemFree(address));
    tell_done();
    hear_done();
}

/* Who has it open has it, whatever the exporter does with it. */
static void import_and_keep(void)
{
    const CUdeviceptr address = hear_memory();

    tell_done();
    hear_done();
    if (!on_cpu()) {
        expect_pattern(address, BYTES, 7);
    }
    fill(address, BYTES / WORD, 8, NULL);
    expect_words(address, BYTES / WORD, 8);
    tell_done();
    GOOD(cuIpcCloseMemHandle(address));
}

static void test_memory_that_the_exporter_frees(void)
{
    run_two(export_and_end, import_and_keep);
}

static void test_memory_wrong(void)
{
    CUipcMemHandle handle = {{0}};
    CUdeviceptr address = device_alloc(4096), opened = 0, pooled = 0;
    void *host = host_alloc(4096);

    RESULT(cuIpcGetMemHandle(NULL, address), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuIpcGetMemHandle(&handle, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuIpcGetMemHandle(&handle, address + 4096 * 4096), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuIpcGetMemHandle(&handle, (CUdeviceptr)(uintptr_t)host), CUDA_ERROR_INVALID_VALUE);
    SUPPORTED(cuMemAllocAsync(&pooled, 4096, NULL));
    GOOD(cuStreamSynchronize(NULL));
    RESULT(cuIpcGetMemHandle(&handle, pooled), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuIpcOpenMemHandle(&opened, handle, LAZY), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuIpcGetMemHandle(&handle, address));
    RESULT(cuIpcOpenMemHandle(&opened, handle, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuIpcOpenMemHandle(NULL, handle, LAZY), CUDA_ERROR_INVALID_VALUE);
    /* The process's own. */
    RESULT(cuIpcOpenMemHandle(&opened, handle, LAZY), CUDA_ERROR_INVALID_CONTEXT);
    RESULT(cuIpcCloseMemHandle(address), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuIpcCloseMemHandle(0), CUDA_ERROR_INVALID_VALUE);
}

static void test_what_can_be_exported_is_told(void)
{
    const CUdeviceptr address = device_alloc(4096);
    int capable = -1;

    GOOD(cuPointerGetAttribute(&capable, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, address));
    EXPECT(capable == 1, "%d", capable);
    GOOD(cuPointerGetAttribute(&capable, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
                               (CUdeviceptr)(uintptr_t)host_alloc(4096)));
    EXPECT(capable == 0, "%d", capable);
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED) == 1, "not");
}

/* Events -------------------------------------------------------------------------------------- */

#define SHARED (CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING)

static void tell_event(CUevent event)
{
    CUipcEventHandle handle;

    GOOD(cuIpcGetEventHandle(&handle, event));
    tell(&handle, sizeof(handle));
}

static CUevent hear_event(void)
{
    CUipcEventHandle handle;
    CUevent event = NULL;

    hear(&handle, sizeof(handle));
    GOOD(cuIpcOpenEventHandle(&event, handle));
    return event;
}

static void export_event(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUevent event = event_create(SHARED);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    warm_up();
    fill(words, 100, 1, NULL);
    GOOD(cuCtxSynchronize());
    tell_memory(words);
    tell_event(event);
    hear_done();
    spin(300, stream);
    fill(words, 100, 2, stream);
    GOOD(cuEventRecord(event, stream));
    RESULT(cuEventQuery(event), CUDA_ERROR_NOT_READY);
    tell_done();
    GOOD(cuEventSynchronize(event));
    GOOD(cuEventQuery(event));
    hear_done();
}

/* A stream that waits, and the process itself, see what was done before the record. */
static void import_event(void)
{
    const CUdeviceptr words = hear_memory(), copy = device_alloc(400);
    const CUevent event = hear_event();
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    warm_up();
    GOOD(cuEventQuery(event));
    tell_done();
    hear_done();
    GOOD(cuStreamWaitEvent(stream, event, 0));
    GOOD(cuMemcpyDtoDAsync(copy, words, 400, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_words(copy, 100, 2);
    GOOD(cuEventSynchronize(event));
    GOOD(cuEventQuery(event));
    GOOD(cuEventDestroy(event));
    tell_done();
}

static void test_event(void)
{
    run_two(export_event, import_event);
}

static void wait_for_the_importer(void)
{
    const CUdeviceptr words = device_alloc(400), copy = device_alloc(400);
    const CUevent event = event_create(SHARED);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    tell_memory(words);
    tell_event(event);
    hear_done();
    GOOD(cuStreamWaitEvent(stream, event, 0));
    GOOD(cuMemcpyDtoDAsync(copy, words, 400, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_words(copy, 100, 5);
    tell_done();
}

static void record_in_the_importer(void)
{
    const CUdeviceptr words = hear_memory();
    const CUevent event = hear_event();
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    warm_up();
    spin(200, stream);
    fill(words, 100, 5, stream);
    GOOD(cuEventRecord(event, stream));
    tell_done();
    hear_done();
}

static void test_event_that_the_importer_records(void)
{
    run_two(wait_for_the_importer, record_in_the_importer);
}

#define ROUNDS 40

/* Two processes take turns with one word of memory, each behind the other's record. */
static void play(CUdeviceptr words, CUevent mine, CUevent other, bool first)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr one = device_alloc(WORD);

    fill(one, 1, 1, NULL);
    GOOD(cuCtxSynchronize());
    for (int i = 0; i < ROUNDS; i++) {
        if (i > 0 || !first) {
            hear_done();
            GOOD(cuStreamWaitEvent(stream, other, 0));
        }
        reduce(one, 1, words, stream);
        GOOD(cuEventRecord(mine, stream));
        tell_done();
    }
    if (first) {
        hear_done();
    }
    GOOD(cuStreamSynchronize(stream));
}

static void play_first(void)
{
    const CUdeviceptr sum = device_alloc(8);
    const CUevent mine = event_create(SHARED), other = event_create(SHARED);
    uint64_t result = 0;

    GOOD(cuMemsetD8(sum, 0, 8));
    GOOD(cuCtxSynchronize());
    tell_memory(sum);
    tell_event(mine);
    tell_event(other);
    play(sum, mine, other, true);
    GOOD(cuEventSynchronize(other));
    GOOD(cuMemcpyDtoH(&result, sum, 8));
    EXPECT(result == 2 * ROUNDS, "%llu", (unsigned long long)result);
}

static void play_second(void)
{
    const CUdeviceptr sum = hear_memory();
    const CUevent other = hear_event(), mine = hear_event();

    play(sum, mine, other, false);
}

static void test_events_in_turns(void)
{
    run_two(play_first, play_second);
}

/*
 * A later record in another stream counts, whenever the one before it comes. NVIDIA's driver has
 * the later one wait, which is not asked for.
 */
static void record_again(void)
{
    const CUevent event = event_create(SHARED);
    const CUstream slow = stream_create(CU_STREAM_NON_BLOCKING);
    const CUstream quick = stream_create(CU_STREAM_NON_BLOCKING);

    needs_gpu("one thread does the work of all streams");
    warm_up();
    spin(300, slow);
    GOOD(cuEventRecord(event, slow));
    GOOD(cuEventRecord(event, quick));
    GOOD(cuStreamSynchronize(quick));
    GOOD(cuEventQuery(event));
    GOOD(cuStreamSynchronize(slow));
    GOOD(cuEventQuery(event));
}

static CUevent common_event;
static CUstream common_stream;

static void *record_often(void *unused)
{
    (void)unused;
    GOOD(cuCtxSetCurrent(context));
    for (int i = 0; i < 300; i++) {
        GOOD(cuEventRecord(common_event, common_stream));
    }
    return NULL;
}

/* A wait is never posted before the record that it is for. */
static void test_threads_with_one_shared_event(void)
{
    pthread_t thread;

    common_event = event_create(SHARED);
    common_stream = stream_create(CU_STREAM_NON_BLOCKING);
    EXPECT(pthread_create(&thread, NULL, record_often, NULL) == 0, "no thread");
    for (int i = 0; i < 300; i++) {
        GOOD(cuStreamWaitEvent(common_stream, common_event, 0));
    }
    pthread_join(thread, NULL);
    GOOD(cuStreamSynchronize(common_stream));
    GOOD(cuEventQuery(common_event));
}

#define MANY 300

static void export_many(void)
{
    CUevent events[MANY];

    for (int i = 0; i < MANY; i++) {
        events[i] = event_create(SHARED);
        tell_event(events[i]);
        hear_done();
    }
    for (int i = 0; i < MANY; i++) {
        GOOD(cuEventRecord(events[i], NULL));
    }
    tell_done();
    hear_done();
    for (int i = 0; i < MANY; i++) {
        GOOD(cuEventDestroy(events[i]));
    }
    GOOD(cuEventDestroy(event_create(SHARED)));
}

static void import_many(void)
{
    CUevent events[MANY];

    for (int i = 0; i < MANY; i++) {
        events[i] = hear_event();
        tell_done();
    }
    hear_done();
    for (int i = 0; i < MANY; i++) {
        GOOD(cuEventSynchronize(events[i]));
        GOOD(cuEventDestroy(events[i]));
    }
    tell_done();
}

static void test_many_events(void)
{
    run_two(export_many, import_many);
}

static void test_event_wrong(void)
{
    CUipcEventHandle handle = {{0}};
    CUevent event = NULL, plain = event_create(CU_EVENT_DISABLE_TIMING);
    float ms;

    RESULT(cuEventCreate(&event, CU_EVENT_INTERPROCESS), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuIpcOpenEventHandle(&event, handle), CUDA_ERROR_MAP_FAILED);
    RESULT(cuIpcGetEventHandle(&handle, plain), CUDA_ERROR_INVALID_HANDLE);
    GOOD(cuEventCreate(&event, SHARED));
    RESULT(cuIpcGetEventHandle(NULL, event), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuIpcGetEventHandle(&handle, event));
    /* The process's own. */
    RESULT(cuIpcOpenEventHandle(&plain, handle), CUDA_ERROR_INVALID_CONTEXT);
    GOOD(cuEventRecord(event, NULL));
    GOOD(cuEventSynchronize(event));
    RESULT(cuEventElapsedTime(&ms, event, event), CUDA_ERROR_INVALID_HANDLE);
    GOOD(cuEventDestroy(event));
}

const struct test ipc_tests[] = {
    {"memory", test_memory, true},
    {"inner_address", test_inner_address, true},
    {"opened_twice", test_opened_twice, true},
    {"freed_memory", test_freed_memory, true},
    {"memory_that_the_exporter_frees", test_memory_that_the_exporter_frees, true},
    {"memory_wrong", test_memory_wrong, false},
    {"what_can_be_exported_is_told", test_what_can_be_exported_is_told, false},
    {"event", test_event, true},
    {"event_that_the_importer_records", test_event_that_the_importer_records, true},
    {"events_in_turns", test_events_in_turns, true},
    {"shared_event_recorded_again", record_again, false},
    {"threads_with_one_shared_event", test_threads_with_one_shared_event, false},
    {"hundreds_of_shared_events", test_many_events, true},
    {"event_wrong", test_event_wrong, false},
    {0},
};
