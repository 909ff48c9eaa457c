/* SPDX-License-Identifier: MIT */
/*
 * What a session promises, checked from where a program stands: the same program, unchanged, by
 * the mediator's socket, by sysfs or by the guest driver, and on any backend.
 *
 *   session-check [--host SOCKET [--vm-id N] [--shm MIB]] [NAME...]
 *
 * Prints a line a test, and "N passed, N failed, N skipped" at the end. Exit code 0 when none
 * failed.
 *
 * Tests: guest/libvgpu/calls*.c, guest/libvgpu/memory*.c, guest/libvgpu/session*.c,
 * guest/libvgpu/results.c
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest/libvgpu/vgpu.h"

#define THREADS 6

static struct vgpu_session_options options;
static struct vgpu_host_options host;
static struct vgpu_session *s; /* of the test that runs */
static bool gpu;               /* a GPU computes, not the CPU */
static const char *skipped;    /* why the test could not be */
static unsigned failures;      /* of the test that runs */

/* Says what went wrong; the test goes on. */
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("  line %d: %s: ", __LINE__, #condition);                                       \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

/* The result of a call is this one. */
#define RESULT(call, expected)                                                                     \
    do {                                                                                           \
        const int result_ = (call);                                                                \
        EXPECT(result_ == (expected), "%s, expected %s (%s)", vgpu_result_name(result_),           \
               vgpu_result_name(expected), vgpu_last_message());                                   \
    } while (0)

#define GOOD(call) RESULT(call, VGPU_OK)

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint64_t alloc(uint64_t bytes)
{
    uint64_t address = 0;

    GOOD(vgpu_mem_alloc(s, bytes, &address));
    return address;
}

static uint64_t function(const char *name)
{
    uint64_t module = 0, found = 0;

    GOOD(vgpu_module_builtin(s, &module));
    GOOD(vgpu_function_get(s, module, name, &found));
    return found;
}

static void pattern(uint8_t *bytes, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(seed >> 24);
    }
}

/* A kernel that takes `ms`, posted. */
static int post_spin(uint64_t spin, uint64_t stream, unsigned ms)
{
    const struct vgpu_launch launch = {.function = spin, .stream = stream};
    const uint64_t ns = ms * UINT64_C(1000000);

    return vgpu_launch(s, &launch, &ns, sizeof(ns));
}

static void test_identity(void)
{
    struct vgpu_device_info info = {0};
    uint64_t free_bytes = 0, total = 0;

    GOOD(vgpu_session_ping(s));
    GOOD(vgpu_session_info(s, &info));
    EXPECT(info.name[0] != '\0', "no name");
    EXPECT(info.backend == (gpu ? VGPU_FEATURE_BACKEND_GPU : VGPU_FEATURE_BACKEND_CPU), "%u",
           info.backend);
    GOOD(vgpu_mem_info(s, &free_bytes, &total));
    EXPECT(free_bytes <= total && total > 0, "%llu of %llu", (unsigned long long)free_bytes,
           (unsigned long long)total);
}

static void round_trip(uint8_t *to, uint8_t *from, size_t bytes)
{
    const uint64_t device = alloc(bytes);

    pattern(from, bytes, (uint32_t)bytes);
    memset(to, 0, bytes);
    GOOD(vgpu_copy_to(s, device, from, bytes));
    GOOD(vgpu_copy_from(s, to, device, bytes));
    EXPECT(memcmp(to, from, bytes) == 0, "%zu bytes came back changed", bytes);
    GOOD(vgpu_mem_free(s, device));
}

static void test_pageable_copies(void)
{
    static const size_t sizes[] = {1, 3, 4096, 65537, 1u << 20, (5u << 20) + 7};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *from = malloc(sizes[i]), *to = malloc(sizes[i]);

        round_trip(to, from, sizes[i]);
        free(from);
        free(to);
    }
}

static void test_pinned_copies(void)
{
    const size_t bytes = 100000;
    void *from = NULL, *to = NULL;

    GOOD(vgpu_pinned_alloc(s, bytes, &from));
    GOOD(vgpu_pinned_alloc(s, bytes, &to));
    EXPECT(vgpu_is_pinned(s, from) && vgpu_is_pinned(s, to), "not in the arena");
    round_trip(to, from, bytes);
    vgpu_pinned_free(s, from);
    vgpu_pinned_free(s, to);
}

static void test_pinned_memory_runs_out(void)
{
    void *pieces[64] = {NULL};
    unsigned count = 0, ordinary = 0;

    /* More than there is, then all of it back, then again. */
    for (int round = 0; round < 2; round++) {
        count = ordinary = 0;
        while (count < 64 && ordinary < 2) {
            GOOD(vgpu_pinned_alloc(s, 8u << 20, &pieces[count]));
            ordinary += !vgpu_is_pinned(s, pieces[count]);
            memset(pieces[count++], 1, 8u << 20);
        }
        EXPECT(ordinary > 0, "no end to the arena");
        if (count > 0) {
            round_trip(pieces[count - 1], pieces[0], 8u << 20);
        }
        while (count > 0) {
            vgpu_pinned_free(s, pieces[--count]);
        }
    }
    RESULT(vgpu_pinned_alloc(s, 0, &pieces[0]), VGPU_BAD_ARGUMENT);
}

static void test_fill_and_copy_on_device(void)
{
    const uint64_t one = alloc(4096), other = alloc(4096);
    uint8_t bytes[4096];
    uint32_t words[1024];
    uint16_t halves[2048];

    GOOD(vgpu_fill(s, one, 0x1ab, 1, 4096, 0));
    GOOD(vgpu_copy_on_device(s, other, one, 4096, 0));
    GOOD(vgpu_copy_from(s, bytes, other, 4096));
    EXPECT(bytes[0] == 0xab && bytes[4095] == 0xab, "%x %x", bytes[0], bytes[4095]);
    GOOD(vgpu_fill(s, one, 0x12345, 2, 2048, 0));
    GOOD(vgpu_copy_from(s, halves, one, 4096));
    EXPECT(halves[0] == 0x2345 && halves[2047] == 0x2345, "%x", halves[0]);
    GOOD(vgpu_fill(s, one + 4, 0xdeadbeef, 4, 1023, 0));
    GOOD(vgpu_copy_from(s, words, one, 4096));
    EXPECT(words[0] == 0x23452345 && words[1] == 0xdeadbeef && words[1023] == 0xdeadbeef, "%x",
           words[1]);
    GOOD(vgpu_mem_free(s, one));
    GOOD(vgpu_mem_free(s, other));
}

static void test_builtin_kernels(void)
{
    const uint64_t count = 100001;
    const struct vgpu_launch vadd = {.function = function("vadd"), .grid = {64}, .block = {256}};
    const struct vgpu_launch fill = {.function = function("fill"), .grid = {64}, .block = {256}};
    const struct vgpu_launch reduce = {
        .function = function("reduce_sum"), .grid = {64}, .block = {256}};
    const uint64_t a = alloc(4 * count), b = alloc(4 * count), sum = alloc(4 * count);
    float *x = malloc(4 * count), *y = malloc(4 * count), *z = malloc(4 * count);
    int64_t total = 0;
    uint64_t wrong = 0;

    for (uint64_t i = 0; i < count; i++) {
        x[i] = (float)i * 0.25f;
        y[i] = (float)(count - i) * 3.0f;
    }
    GOOD(vgpu_copy_to(s, a, x, 4 * count));
    GOOD(vgpu_copy_to(s, b, y, 4 * count));
    GOOD(vgpu_launch(s, &vadd, &(struct { uint64_t a, b, sum, n; }){a, b, sum, count}, 32));
    GOOD(vgpu_copy_from(s, z, sum, 4 * count));
    for (uint64_t i = 0; i < count; i++) {
        wrong += z[i] != x[i] + y[i];
    }
    EXPECT(wrong == 0, "%llu wrong sums", (unsigned long long)wrong);
    GOOD(vgpu_launch(s, &fill, &(struct {
                         uint64_t to, n;
                         uint32_t v;
                     }){a, count, 7},
                     20));
    GOOD(vgpu_fill(s, sum, 0, 1, 8, 0));
    GOOD(vgpu_launch(s, &reduce, &(struct { uint64_t from, n, sum; }){a, count, sum}, 24));
    GOOD(vgpu_copy_from(s, &total, sum, 8));
    EXPECT(total == 7 * (int64_t)count, "%lld", (long long)total);
    free(x);
    free(y);
    free(z);
    GOOD(vgpu_mem_free(s, a));
    GOOD(vgpu_mem_free(s, b));
    GOOD(vgpu_mem_free(s, sum));
}

static void test_launch_with_pointers_to_arguments(void)
{
    uint64_t to = alloc(400), count = 100;
    uint32_t value = 42, words[100] = {0};
    const struct vgpu_launch fill = {.function = function("fill"), .block = {32}};
    const void *args[] = {&to, &count, &value};
    const int r = vgpu_launch_args(s, &fill, args);

    if (r == VGPU_GPU_NOT_SUPPORTED && gpu) {
        skipped = "the driver cannot tell parameters";
        return;
    }
    GOOD(r);
    GOOD(vgpu_launch_args(s, &fill, args));
    GOOD(vgpu_copy_from(s, words, to, 400));
    EXPECT(words[0] == 42 && words[99] == 42, "%u %u", words[0], words[99]);
    RESULT(vgpu_launch_args(s, &(struct vgpu_launch){.function = 77}, args),
           VGPU_GPU_INVALID_HANDLE);
}

static void test_kernel_reads_pinned_memory(void)
{
    const struct vgpu_launch fill = {.function = function("fill"), .block = {32}};
    uint32_t *words = NULL;
    void *memory = NULL;

    GOOD(vgpu_pinned_alloc(s, 4096, &memory));
    words = memory;
    words[1023] = 0;
    GOOD(vgpu_launch(s, &fill, &(struct {
                         uint64_t to, n;
                         uint32_t v;
                     }){(uint64_t)(uintptr_t)words, 1024, 9},
                     20));
    GOOD(vgpu_session_sync(s));
    EXPECT(words[0] == 9 && words[1023] == 9, "%u %u", words[0], words[1023]);
    vgpu_pinned_free(s, memory);
}

static void test_streams_and_events(void)
{
    const uint64_t spin = function("spin");
    uint64_t stream = 0, start = 0, end = 0;
    float ms = 0;

    GOOD(vgpu_stream_create(s, VGPU_STREAM_NON_BLOCKING, &stream));
    GOOD(vgpu_event_create(s, 0, &start));
    GOOD(vgpu_event_create(s, 0, &end));
    GOOD(vgpu_stream_query(s, stream));
    GOOD(vgpu_event_query(s, start));
    GOOD(vgpu_event_record(s, start, stream));
    GOOD(post_spin(spin, stream, 50));
    GOOD(vgpu_event_record(s, end, stream));
    RESULT(vgpu_stream_query(s, stream), VGPU_GPU_NOT_READY);
    RESULT(vgpu_event_query(s, end), VGPU_GPU_NOT_READY);
    RESULT(vgpu_event_elapsed(s, start, end, &ms), VGPU_GPU_NOT_READY);
    GOOD(vgpu_event_sync(s, end));
    GOOD(vgpu_event_elapsed(s, start, end, &ms));
    EXPECT(ms >= 49.9f, "a kernel of 50 ms took %g ms", (double)ms);
    GOOD(vgpu_stream_sync(s, stream));
    GOOD(vgpu_stream_wait(s, 0, end));
    GOOD(vgpu_session_sync(s));
    GOOD(vgpu_event_destroy(s, start));
    GOOD(vgpu_event_destroy(s, end));
    GOOD(vgpu_stream_destroy(s, stream));
    RESULT(vgpu_stream_sync(s, stream), VGPU_GPU_INVALID_HANDLE);
    RESULT(vgpu_event_sync(s, end), VGPU_GPU_INVALID_HANDLE);
    RESULT(vgpu_stream_create(s, 0x80, &stream), VGPU_GPU_INVALID_VALUE);
}

static void *wait_for_stream(void *stream)
{
    return (void *)(intptr_t)vgpu_stream_sync(s, *(uint64_t *)stream);
}

static void test_waiting_thread_holds_up_no_other(void)
{
    const uint64_t spin = function("spin");
    uint64_t stream = 0;
    double start, other;
    pthread_t thread;
    void *result;

    GOOD(vgpu_stream_create(s, VGPU_STREAM_NON_BLOCKING, &stream));
    start = now_ms();
    GOOD(post_spin(spin, stream, 1500));
    pthread_create(&thread, NULL, wait_for_stream, &stream);
    usleep(50000);
    for (int i = 0; i < 100; i++) {
        GOOD(vgpu_session_ping(s));
    }
    other = now_ms() - start;
    pthread_join(thread, &result);
    EXPECT(result == NULL, "%s", vgpu_result_name((int)(intptr_t)result));
    EXPECT(now_ms() - start >= 1499, "waited %g ms", now_ms() - start);
    EXPECT(other < 1400, "the other thread waited %g ms", other);
    GOOD(vgpu_stream_destroy(s, stream));
}

static void test_more_than_the_ring_holds(void)
{
    const uint64_t words = alloc(4);
    uint32_t value = 0;

    for (uint32_t i = 1; i <= 20000; i++) {
        GOOD(vgpu_fill(s, words, i, 4, 1, 0));
    }
    GOOD(vgpu_copy_from(s, &value, words, 4));
    EXPECT(value == 20000, "%u", value);
}

/* Each thread its own memory and stream; all at once. */
static void *work(void *number)
{
    const uint32_t seed = (uint32_t)(uintptr_t)number;
    uint8_t from[3000], to[3000];
    uint64_t stream = 0, device = 0;
    uintptr_t wrong = 0;

    wrong += vgpu_stream_create(s, 0, &stream) != VGPU_OK;
    wrong += vgpu_mem_alloc(s, sizeof(from), &device) != VGPU_OK;
    for (uint32_t i = 0; i < 100; i++) {
        pattern(from, sizeof(from), seed * 1000 + i);
        wrong += vgpu_copy_to_async(s, device, from, sizeof(from), stream) != VGPU_OK;
        wrong += vgpu_copy_from_async(s, to, device, sizeof(to), stream) != VGPU_OK;
        wrong += vgpu_stream_sync(s, stream) != VGPU_OK;
        wrong += memcmp(from, to, sizeof(from)) != 0;
    }
    wrong += vgpu_mem_free(s, device) != VGPU_OK;
    wrong += vgpu_stream_destroy(s, stream) != VGPU_OK;
    return (void *)wrong;
}

static void test_threads(void)
{
    pthread_t threads[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, work, (void *)(i + 1));
    }
    for (int i = 0; i < THREADS; i++) {
        void *wrong;

        pthread_join(threads[i], &wrong);
        EXPECT(wrong == NULL, "%llu things went wrong", (unsigned long long)(uintptr_t)wrong);
    }
}

static void test_errors_come_with_the_next_synchronise(void)
{
    const uint64_t device = alloc(16);

    GOOD(vgpu_fill(s, device, 0, 3, 4, 0));
    RESULT(vgpu_session_sync(s), VGPU_GPU_INVALID_VALUE);
    GOOD(vgpu_session_sync(s));
    GOOD(vgpu_launch(s, &(struct vgpu_launch){.function = 12345}, NULL, 0));
    GOOD(vgpu_fill(s, device, 0, 3, 4, 0));
    GOOD(vgpu_session_ping(s));
    RESULT(vgpu_stream_sync(s, 0), VGPU_GPU_INVALID_HANDLE);
    GOOD(vgpu_stream_sync(s, 0));
    GOOD(vgpu_launch(s, &(struct vgpu_launch){.function = function("vadd")}, "12345678", 8));
    RESULT(vgpu_session_sync(s), VGPU_GPU_INVALID_VALUE);
    /* Whose failure it was, and not only what. */
    EXPECT(strstr(vgpu_last_message(), "an earlier LAUNCH failed"), "%s", vgpu_last_message());
}

/* What went wrong before a copy through the stages is told once, by who synchronises. */
static void test_errors_are_not_lost_in_copies(void)
{
    const uint64_t device = alloc(16);
    uint8_t bytes[16] = {0};

    GOOD(vgpu_fill(s, device, 0, 3, 4, 0));
    GOOD(vgpu_copy_to_async(s, device, bytes, sizeof(bytes), 0));
    RESULT(vgpu_session_sync(s), VGPU_GPU_INVALID_VALUE);
    GOOD(vgpu_session_sync(s));
    GOOD(vgpu_fill(s, device, 0, 3, 4, 0));
    RESULT(vgpu_copy_to(s, device, bytes, sizeof(bytes)), VGPU_GPU_INVALID_VALUE);
    GOOD(vgpu_copy_to(s, device, bytes, sizeof(bytes)));
    GOOD(vgpu_fill(s, device, 0, 3, 4, 0));
    RESULT(vgpu_copy_from(s, bytes, device, sizeof(bytes)), VGPU_GPU_INVALID_VALUE);
    GOOD(vgpu_copy_from(s, bytes, device, sizeof(bytes)));
    GOOD(vgpu_session_sync(s));
}

static void test_destroyed_stream_is_waited_for(void)
{
    const uint64_t spin = function("spin"), device = alloc(16);
    uint64_t stream = 0;
    double start;

    GOOD(vgpu_stream_create(s, VGPU_STREAM_NON_BLOCKING, &stream));
    start = now_ms();
    GOOD(post_spin(spin, stream, 300));
    GOOD(vgpu_stream_destroy(s, stream));
    GOOD(vgpu_mem_free(s, device));
    EXPECT(now_ms() - start >= 299, "memory was freed after %g ms", now_ms() - start);
    start = now_ms();
    GOOD(vgpu_stream_create(s, VGPU_STREAM_NON_BLOCKING, &stream));
    GOOD(post_spin(spin, stream, 300));
    GOOD(vgpu_stream_destroy(s, stream));
    GOOD(vgpu_session_sync(s));
    EXPECT(now_ms() - start >= 299, "it took %g ms", now_ms() - start);
}

static void *receive_late(void *stream)
{
    static uint8_t bytes[3u << 20];
    uint64_t device = 0;
    int r = vgpu_mem_alloc(s, sizeof(bytes), &device);

    if (r == VGPU_OK) {
        r = vgpu_copy_from_async(s, bytes, device, sizeof(bytes), *(uint64_t *)stream);
    }
    return (void *)(intptr_t)r;
}

/* All stages are behind a long kernel, and somebody else wants to copy. */
static void test_copy_behind_a_kernel_holds_up_no_other(void)
{
    uint64_t late = 0, other = 0, device;
    static uint8_t bytes[5u << 20];
    pthread_t thread;
    double start;
    void *result;

    if (!gpu) {
        skipped = "the CPU does one stream's work at a time";
        return;
    }
    device = alloc(sizeof(bytes));
    GOOD(vgpu_stream_create(s, VGPU_STREAM_NON_BLOCKING, &late));
    GOOD(vgpu_stream_create(s, VGPU_STREAM_NON_BLOCKING, &other));
    start = now_ms();
    GOOD(post_spin(function("spin"), late, 1500));
    pthread_create(&thread, NULL, receive_late, &late);
    usleep(50000);
    GOOD(vgpu_copy_to_async(s, device, bytes, sizeof(bytes), other));
    GOOD(vgpu_stream_sync(s, other));
    GOOD(vgpu_copy_from_async(s, bytes, device, sizeof(bytes), other));
    EXPECT(now_ms() - start < 1400, "the other thread waited %g ms", now_ms() - start);
    pthread_join(thread, &result);
    EXPECT(result == NULL, "%s", vgpu_result_name((int)(intptr_t)result));
    EXPECT(now_ms() - start >= 1499, "the copy came after %g ms", now_ms() - start);
}

/* More than the GPU's driver takes at once. */
static void test_much_work_ends(void)
{
    const uint64_t spin = function("spin"), ns = 100000;
    const double start = now_ms();
    uint64_t stream = 0;

    GOOD(vgpu_stream_create(s, VGPU_STREAM_NON_BLOCKING, &stream));
    for (int i = 0; i < 3000; i++) {
        GOOD(vgpu_launch(s, &(struct vgpu_launch){.function = spin, .stream = stream}, &ns, 8));
    }
    GOOD(vgpu_stream_sync(s, stream));
    EXPECT(now_ms() - start >= 299, "3,000 kernels of 100 us took %g ms", now_ms() - start);
}

static void test_wrong_arguments(void)
{
    uint64_t made = 0, module = 0;

    RESULT(vgpu_mem_alloc(s, 0, &made), VGPU_GPU_INVALID_VALUE);
    RESULT(vgpu_mem_alloc(s, UINT64_C(1) << 60, &made), VGPU_GPU_OUT_OF_MEMORY);
    RESULT(vgpu_mem_free(s, 0x1234), VGPU_GPU_INVALID_VALUE);
    GOOD(vgpu_module_builtin(s, &module));
    RESULT(vgpu_function_get(s, module, "no such kernel", &made), VGPU_GPU_NOT_FOUND);
    RESULT(vgpu_function_get(s, module + 1, "vadd", &made), VGPU_GPU_INVALID_HANDLE);
    RESULT(vgpu_function_get(s, module, "", &made), VGPU_BAD_ARGUMENT);
    GOOD(vgpu_function_get(s, module, "vadd", &made));
    GOOD(vgpu_module_unload(s, module));
    RESULT(vgpu_module_unload(s, module), VGPU_GPU_INVALID_HANDLE);
    GOOD(vgpu_launch(s, &(struct vgpu_launch){.function = made}, "", 0));
    RESULT(vgpu_session_sync(s), VGPU_GPU_INVALID_HANDLE);
}

static void test_foreign_module(void)
{
    static const char ptx[] = ".version 6.0\n.target sm_50\n.address_size 64\n"
                              ".visible .entry store(.param .u64 to, .param .u32 value) {\n"
                              "  .reg .b32 %r<2>; .reg .b64 %d<3>;\n"
                              "  ld.param.u64 %d1, [to]; ld.param.u32 %r1, [value];\n"
                              "  cvta.to.global.u64 %d2, %d1; st.global.u32 [%d2], %r1; ret;\n"
                              "}\n";
    uint64_t module = 0, store = 0, device;
    uint32_t word = 0;

    if (!gpu) {
        RESULT(vgpu_module_load(s, ptx, sizeof(ptx), &module), VGPU_GPU_NOT_SUPPORTED);
        return;
    }
    device = alloc(4);
    GOOD(vgpu_module_load(s, ptx, sizeof(ptx) - 1, &module));
    GOOD(vgpu_function_get(s, module, "store", &store));
    GOOD(vgpu_launch(s, &(struct vgpu_launch){.function = store}, &(struct {
                         uint64_t to;
                         uint32_t value;
                     }){device, 4711},
                     12));
    GOOD(vgpu_copy_from(s, &word, device, 4));
    EXPECT(word == 4711, "%u", word);
    EXPECT(vgpu_module_load(s, "this is no module", 17, &module) > 0, "it was loaded");
}

/* Ends the context, so it comes last. */
static void test_illegal_address_stays(void)
{
    const struct vgpu_launch fill = {.function = function("fill"), .block = {32}};
    uint64_t address = 0;

    GOOD(vgpu_launch(s, &fill, &(struct {
                         uint64_t to, n;
                         uint32_t v;
                     }){0x10, 100, 1},
                     20));
    RESULT(vgpu_session_sync(s), VGPU_GPU_ILLEGAL_ADDRESS);
    RESULT(vgpu_session_sync(s), VGPU_GPU_ILLEGAL_ADDRESS);
    RESULT(vgpu_mem_alloc(s, 16, &address), VGPU_GPU_ILLEGAL_ADDRESS);
}

static const struct test {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"identity", test_identity},
    {"pageable_copies", test_pageable_copies},
    {"pinned_copies", test_pinned_copies},
    {"pinned_memory_runs_out", test_pinned_memory_runs_out},
    {"fill_and_copy_on_device", test_fill_and_copy_on_device},
    {"builtin_kernels", test_builtin_kernels},
    {"launch_with_pointers_to_arguments", test_launch_with_pointers_to_arguments},
    {"kernel_reads_pinned_memory", test_kernel_reads_pinned_memory},
    {"streams_and_events", test_streams_and_events},
    {"waiting_thread_holds_up_no_other", test_waiting_thread_holds_up_no_other},
    {"more_than_the_ring_holds", test_more_than_the_ring_holds},
    {"threads", test_threads},
    {"errors_come_with_the_next_synchronise", test_errors_come_with_the_next_synchronise},
    {"errors_are_not_lost_in_copies", test_errors_are_not_lost_in_copies},
    {"destroyed_stream_is_waited_for", test_destroyed_stream_is_waited_for},
    {"copy_behind_a_kernel_holds_up_no_other", test_copy_behind_a_kernel_holds_up_no_other},
    {"much_work_ends", test_much_work_ends},
    {"wrong_arguments", test_wrong_arguments},
    {"foreign_module", test_foreign_module},
    {"illegal_address_stays", test_illegal_address_stays},
};

/* Each test has a session of its own. Returns whether it was all right. */
static bool run(const struct test *test)
{
    struct vgpu_device_info info = {0};
    int r = vgpu_session_open(&options, &s);

    failures = 0;
    skipped = NULL;
    if (r == VGPU_OK) {
        r = vgpu_session_info(s, &info);
        gpu = info.backend == VGPU_FEATURE_BACKEND_GPU;
    }
    if (r != VGPU_OK) {
        failures++;
        printf("  no session: %s\n", vgpu_last_message());
    } else {
        test->run();
    }
    vgpu_session_close(s);
    s = NULL;
    printf("%s %s%s%s\n",
           failures  ? "FAIL"
           : skipped ? "skip"
                     : "ok",
           test->name, skipped ? ": " : "", skipped ? skipped : "");
    fflush(stdout);
    return failures == 0;
}

static bool wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return count == 0;
}

int main(int argc, char **argv)
{
    unsigned passed = 0, failed = 0, left_out = 0;
    int i = 1;

    host = (struct vgpu_host_options){.vm_id = 2000000u + (uint32_t)getpid(),
                                      .pool = 'A',
                                      .priority = VGPU_PRIORITY_MEDIUM,
                                      .shm_size = UINT64_C(64) << 20};
    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        if (strcmp(argv[i], "--host") == 0) {
            host.socket = argv[i + 1];
            options.host = &host;
        } else if (strcmp(argv[i], "--vm-id") == 0) {
            host.vm_id = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--shm") == 0) {
            host.shm_size = strtoull(argv[i + 1], NULL, 10) << 20;
        } else {
            fprintf(stderr, "session-check: unknown option %s\n", argv[i]);
            return 2;
        }
    }
    for (size_t t = 0; t < sizeof(tests) / sizeof(tests[0]); t++) {
        if (wanted(tests[t].name, argc - i, argv + i)) {
            const bool good = run(&tests[t]);

            passed += good && !skipped;
            left_out += good && skipped;
            failed += !good;
        }
    }
    printf("%u passed, %u failed, %u skipped\n", passed, failed, left_out);
    return failed > 0;
}
