/* SPDX-License-Identifier: MIT */
/*
 * Graphs on the cpu backend: what has become of the bytes when a graph is through, and gates, at
 * which a thread plays the guest.
 *
 * Tests: worker/exec-graph*.c, worker/backend-cpu/
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "common/shared.h"
#include "tests/unit/gpu-check.h"
#include "tests/unit/graph-fixture.h"

#define MEMORY 4096u
#define GATE_ROUNDS 100u

static struct gpu *gpu;
static uint64_t device;

static int set_up(void **state)
{
    struct gpu_module *module = NULL;
    struct gpu_function *vadd = NULL;
    struct vgpu_result_function info;

    if (graphs_set_up(state) != 0 || cpu_gpu_open(&graphs.gpu.arena, CPU_GPU_MEMORY, &gpu) != 0) {
        return -1;
    }
    alarm(120); /* ends a test that hangs */
    graphs.needs.gpu = gpu_check(gpu);
    gpu->ops->module_builtin(gpu, &module);
    gpu->ops->function_get(gpu, module, "vadd", &vadd, &info);
    graphs.function = handles_add(&graphs.handles, HANDLE_FUNCTION, vadd, 1);
    return (int)gpu->ops->mem_alloc(gpu, MEMORY, &device);
}

static int tear_down(void **state)
{
    gpu->ops->close(gpu);
    alarm(0);
    return graphs_tear_down(state);
}

static void submit_all(struct graph *graph)
{
    uint64_t place = 0;
    bool again = true;

    while (again) {
        again = false;
        assert_int_equal(graph_launch(gpu, graph, NULL, &place, &again), VGPU_GPU_SUCCESS);
    }
}

static void finish(void)
{
    struct gpu_fence fence;

    assert_int_equal(gpu->ops->fence(gpu, NULL, &fence), VGPU_GPU_SUCCESS);
    while (gpu->ops->fence_poll(gpu, &fence) == VGPU_GPU_NOT_READY) {
        sched_yield();
    }
    gpu->ops->fence_release(gpu, &fence);
    assert_int_equal(gpu->lost, VGPU_GPU_SUCCESS);
}

/* Makes a graph of the encoding, has it done and frees it. */
static void carry_out(void)
{
    struct graph *graph = encoding_graph();

    submit_all(graph);
    finish();
    graph_free(&graphs.needs, graph);
}

/* A whole row between the arena and the device. */
static void add_row(enum vgpu_copy_kind kind, uint64_t to, uint64_t from, uint64_t bytes)
{
    encoding_copy(&(struct vgpu_graph_copy){
        .to = to,
        .to_rows = 1,
        .from = from,
        .from_rows = 1,
        .width = bytes,
        .height = 1,
        .depth = 1,
        .kind = kind,
    });
}

/* Bytes ------------------------------------------------------------------------------------- */

/* Where a byte of a box of 4 slices of 3 rows of 5 bytes lies. */
static unsigned tight(unsigned slice, unsigned row, unsigned at)
{
    return (slice * 3 + row) * 5 + at;
}

static unsigned loose(unsigned slice, unsigned row, unsigned at)
{
    return (slice * 4 + row) * 7 + at;
}

static void test_boxes(void **state)
{
    uint8_t *there = graphs.arena, *back = graphs.arena + 1024;
    struct vgpu_graph_copy box = {
        .to = device,
        .to_pitch = 7,
        .to_rows = 4,
        .from = graph_arena(0),
        .from_pitch = 5,
        .from_rows = 3,
        .width = 5,
        .height = 3,
        .depth = 4,
        .kind = VGPU_COPY_TO_DEVICE,
    };
    unsigned copied = 0;

    (void)state;
    for (unsigned i = 0; i < 60; i++) {
        there[i] = (uint8_t)(i + 1);
    }
    encoding_fill(&(struct vgpu_graph_fill){
        .to = device, .width = 256, .height = 1, .value = 0xee, .element = 1});
    encoding_copy(&box);
    add_row(VGPU_COPY_ON_DEVICE, device + 1024, device, 256);
    add_row(VGPU_COPY_FROM_DEVICE, graph_arena(1024), device + 1024, 256);
    carry_out();
    for (unsigned slice = 0; slice < 4; slice++) {
        for (unsigned row = 0; row < 3; row++) {
            assert_memory_equal(back + loose(slice, row, 0), there + tight(slice, row, 0), 5);
        }
    }
    for (unsigned i = 0; i < 256; i++) {
        copied += back[i] != 0xee;
    }
    assert_int_equal(copied, 60);
}

static void test_fills(void **state)
{
    uint8_t expected[64];

    (void)state;
    memset(expected, 0xee, sizeof(expected));
    for (unsigned row = 0; row < 3; row++) {
        memcpy(expected + 4 + 12 * row, "\x34\x12\x34\x12\x34\x12", 6);
    }
    memcpy(expected + 48, "\x04\x03\x02\x01\x04\x03\x02\x01", 8);
    encoding_fill(&(struct vgpu_graph_fill){
        .to = device, .width = 64, .height = 1, .value = 0xee, .element = 1});
    encoding_fill(&(struct vgpu_graph_fill){
        .to = device + 4, .pitch = 12, .width = 3, .height = 3, .value = 0x1234, .element = 2});
    encoding_fill(&(struct vgpu_graph_fill){
        .to = device + 48, .width = 2, .height = 1, .value = 0x01020304, .element = 4});
    add_row(VGPU_COPY_FROM_DEVICE, graph_arena(0), device, 64);
    carry_out();
    assert_memory_equal(graphs.arena, expected, sizeof(expected));
}

/* Parameters come with the encoding, which is not the guest's any more when the graph runs. */
static void test_kernels(void **state)
{
    const uint64_t params[] = {device, device + 64, device + 128, 8};
    float *numbers = (float *)(void *)graphs.arena;
    struct graph *graph;

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        numbers[i] = (float)i;
        numbers[16 + i] = 100.0f;
    }
    add_row(VGPU_COPY_TO_DEVICE, device, graph_arena(0), 32);
    add_row(VGPU_COPY_TO_DEVICE, device + 64, graph_arena(64), 32);
    encoding_kernel(graphs.function, params, sizeof(params));
    add_row(VGPU_COPY_FROM_DEVICE, graph_arena(128), device + 128, 32);
    graph = encoding_graph();
    memset(graphs.encoding.bytes, 0xee, sizeof(graphs.encoding.bytes));
    for (unsigned round = 0; round < 3; round++) {
        numbers[16] = (float)round;
        submit_all(graph);
        finish();
        assert_true(numbers[32] == (float)round);
        for (unsigned i = 1; i < 8; i++) {
            assert_true(numbers[32 + i] == 100.0f + (float)i);
        }
    }
    graph_free(&graphs.needs, graph);
}

static void test_graph_freed_while_it_runs(void **state)
{
    const uint64_t params[] = {device, device, device + 64, 1};
    uint32_t *gate = (uint32_t *)(void *)(graphs.arena + 64);
    float *number = (float *)(void *)graphs.arena;
    struct graph *graph;

    (void)state;
    *number = 1.5f;
    encoding_gate(graph_arena(64));
    add_row(VGPU_COPY_TO_DEVICE, device, graph_arena(0), 4);
    encoding_kernel(graphs.function, params, sizeof(params));
    add_row(VGPU_COPY_FROM_DEVICE, graph_arena(0), device + 64, 4);
    graph = encoding_graph();
    submit_all(graph);
    graph_free(&graphs.needs, graph);
    while (shared_load(gate) != 1) {
        sched_yield();
    }
    shared_store(gate, 2);
    finish();
    assert_true(*number == 3.0f);
}

/* Gates ------------------------------------------------------------------------------------- */

/* The guest: at each gate it doubles the number that the graph has brought over, and adds 1. */
static void *play_guest(void *argument)
{
    uint32_t *gate = (uint32_t *)(void *)(graphs.arena + 256);
    uint32_t *number = (uint32_t *)(void *)graphs.arena;

    (void)argument;
    for (unsigned i = 0; i < GATE_ROUNDS; i++) {
        while (shared_load_acquire(gate) != 1) {
            sched_yield();
        }
        *number = 2 * *number + 1;
        shared_store_release(gate, 2);
    }
    return NULL;
}

static void test_gates(void **state)
{
    const uint32_t *gate = (const uint32_t *)(const void *)(graphs.arena + 256);
    uint32_t expected = 3, *number = (uint32_t *)(void *)graphs.arena;
    struct graph *graph;
    pthread_t guest;

    (void)state;
    *number = 3;
    add_row(VGPU_COPY_TO_DEVICE, device, graph_arena(0), 4);
    add_row(VGPU_COPY_FROM_DEVICE, graph_arena(0), device, 4);
    encoding_gate(graph_arena(256));
    add_row(VGPU_COPY_TO_DEVICE, device, graph_arena(0), 4);
    add_row(VGPU_COPY_FROM_DEVICE, graph_arena(512), device, 4);
    graph = encoding_graph();
    assert_int_equal(pthread_create(&guest, NULL, play_guest, NULL), 0);
    for (unsigned i = 0; i < GATE_ROUNDS; i++) {
        submit_all(graph);
        finish();
        expected = 2 * expected + 1;
        assert_int_equal(*(const uint32_t *)(const void *)(graphs.arena + 512), expected);
        assert_int_equal(shared_load_acquire(gate), 0);
    }
    pthread_join(guest, NULL);
    graph_free(&graphs.needs, graph);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_boxes),   TEST(test_fills),
        TEST(test_kernels), TEST(test_graph_freed_while_it_runs),
        TEST(test_gates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
