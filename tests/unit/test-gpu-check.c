/* SPDX-License-Identifier: MIT */
/*
 * The layer that asserts the contract of worker/gpu.h, on the cpu backend: it lets through what is
 * right, and ends the process at each mistake of either side.
 *
 * Tests: worker/gpu.h
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/gpu-check.h"
#include "tests/unit/unit.h"
#include "worker/gpu.h"

#define ARENA (UINT64_C(64) << 10) /* bytes */
#define MEMORY (UINT64_C(1) << 20)

static struct gpu_arena arena;
static struct gpu *gpu;
static struct gpu_stream *stream;
static uint64_t device;

static int set_up(void **state)
{
    (void)state;
    arena.size = ARENA;
    arena.address = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena.address == MAP_FAILED || cpu_gpu_open(&arena, MEMORY, &gpu) != 0) {
        return -1;
    }
    gpu_check(gpu);
    return gpu->ops->stream_create(gpu, 0, 0, &stream) == VGPU_GPU_SUCCESS &&
                   gpu->ops->mem_alloc(gpu, 4096, &device) == VGPU_GPU_SUCCESS
               ? 0
               : -1;
}

static int tear_down(void **state)
{
    (void)state;
    gpu->ops->close(gpu);
    munmap(arena.address, ARENA);
    return 0;
}

/* Whether a mistake ends a process of its own by SIGABRT. */
static bool is_caught(void (*mistake)(void))
{
    const pid_t child = fork();
    int status = 0;

    if (child == 0) {
        /* A backend of its own: the parent has none, whose threads would not be here. */
        alarm(60);
        if (freopen("/dev/null", "w", stderr) && set_up(NULL) == 0) {
            mistake();
        }
        _exit(0);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static uint64_t arena_at(uint64_t offset)
{
    return (uint64_t)(uintptr_t)arena.address + offset;
}

static void test_what_is_right_passes(void **state)
{
    const struct gpu_copy copy = {VGPU_COPY_TO_DEVICE, device, arena_at(0), 4096};
    struct gpu_fence fence = {0};

    (void)state;
    assert_int_equal(gpu->ops->copy(gpu, &copy, stream), VGPU_GPU_SUCCESS);
    assert_int_equal(gpu->ops->fence(gpu, stream, &fence), VGPU_GPU_SUCCESS);
    while (gpu->ops->fence_poll(gpu, &fence) == VGPU_GPU_NOT_READY) {
    }
    gpu->ops->fence_release(gpu, &fence);
    assert_int_equal(gpu->ops->mem_free(gpu, device), VGPU_GPU_SUCCESS);
    gpu->ops->stream_destroy(gpu, stream);
}

static struct gpu_ops bad;

/* A backend like the one that is open, whose operations `bad` has; the layer is put before it. */
static void take_bad(void)
{
    static struct gpu other;

    other = (struct gpu){.ops = &bad, .arena = arena};
    gpu = gpu_check(&other);
}

/* The session's ------------------------------------------------------------------------------- */

static void copies_from_beyond_the_arena(void)
{
    gpu->ops->copy(gpu, &(struct gpu_copy){VGPU_COPY_TO_DEVICE, device, arena_at(ARENA - 8), 9},
                   NULL);
}

static void copies_rows_beyond_the_arena(void)
{
    gpu->ops->copy_rows(gpu,
                        &(struct gpu_rows){.kind = VGPU_COPY_FROM_DEVICE,
                                           .to = arena_at(0),
                                           .to_pitch = ARENA,
                                           .from = device,
                                           .from_pitch = 8,
                                           .width = 8,
                                           .rows = 2},
                        NULL);
}

static void fills_by_three(void)
{
    gpu->ops->fill(gpu, &(struct gpu_fill){.address = device, .count = 1, .width = 3}, NULL);
}

static void uses_a_stream_that_is_gone(void)
{
    gpu->ops->stream_destroy(gpu, stream);
    gpu->ops->stream_poll(gpu, stream);
}

static void launches_a_function_of_a_module_that_is_gone(void)
{
    const struct vgpu_cmd_launch shape = {.grid = {1, 1, 1}, .block = {1, 1, 1}};
    struct gpu_module *module = NULL;
    struct gpu_function *function = NULL;
    struct vgpu_result_function info;

    gpu->ops->module_builtin(gpu, &module);
    gpu->ops->function_get(gpu, module, "vadd", &function, &info);
    gpu->ops->module_unload(gpu, module);
    gpu->ops->launch(gpu, function, &(struct gpu_launch){.shape = &shape}, NULL);
}

static enum vgpu_gpu_error makes_no_graph(struct gpu *own, const struct gpu_graph_node *nodes,
                                          uint32_t count, struct gpu_graph **graph)
{
    (void)own;
    (void)nodes;
    (void)count;
    (void)graph;
    return VGPU_GPU_NOT_SUPPORTED;
}

/* The cpu backend has no graphs of its own. */
static void makes_a_graph_whose_node_follows_itself(void)
{
    const uint32_t self = 0;
    const struct gpu_graph_node node = {
        .kind = VGPU_GRAPH_NOTHING, .follows = &self, .follow_count = 1};
    struct gpu_graph *graph;

    bad = (struct gpu_ops){.graph_make = makes_no_graph};
    take_bad();
    gpu->ops->graph_make(gpu, &node, 1, &graph);
}

static void goes_on_when_it_is_closed(void)
{
    uint64_t free_bytes, total;
    struct gpu *closed = gpu;
    const struct gpu_ops *ops = gpu->ops;

    ops->close(gpu);
    ops->mem_info(closed, &free_bytes, &total);
}

static void test_mistakes_of_a_session_are_caught(void **state)
{
    (void)state;
    assert_true(is_caught(copies_from_beyond_the_arena));
    assert_true(is_caught(copies_rows_beyond_the_arena));
    assert_true(is_caught(fills_by_three));
    assert_true(is_caught(uses_a_stream_that_is_gone));
    assert_true(is_caught(launches_a_function_of_a_module_that_is_gone));
    assert_true(is_caught(makes_a_graph_whose_node_follows_itself));
    assert_true(is_caught(goes_on_when_it_is_closed));
}

/* The backend's ------------------------------------------------------------------------------- */

static enum vgpu_gpu_error no_error_at_all(struct gpu *own, uint64_t *free_bytes, uint64_t *total)
{
    (void)own;
    *free_bytes = *total = 0;
    return (enum vgpu_gpu_error)123456;
}

static enum vgpu_gpu_error more_free_than_there_is(struct gpu *own, uint64_t *free_bytes,
                                                   uint64_t *total)
{
    (void)own;
    *free_bytes = 2;
    *total = 1;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error the_same_again(struct gpu *own, uint64_t bytes, uint64_t *address)
{
    (void)own;
    (void)bytes;
    *address = 4096;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error frees_anything(struct gpu *own, uint64_t address)
{
    (void)own;
    (void)address;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error done_or_not(struct gpu *own, struct gpu_stream *of)
{
    static bool done;

    (void)own;
    (void)of;
    done = !done;
    return done ? VGPU_GPU_SUCCESS : VGPU_GPU_NOT_READY;
}

static enum vgpu_gpu_error success_without_a_stream(struct gpu *own, uint32_t flags,
                                                    int32_t priority, struct gpu_stream **made)
{
    (void)own;
    (void)flags;
    (void)priority;
    *made = NULL;
    return VGPU_GPU_SUCCESS;
}

static void asks_for_memory(void)
{
    uint64_t free_bytes, total;

    take_bad();
    gpu->ops->mem_info(gpu, &free_bytes, &total);
}

static void allocates_twice(void)
{
    uint64_t address;

    take_bad();
    gpu->ops->mem_alloc(gpu, 8, &address);
    gpu->ops->mem_alloc(gpu, 8, &address);
}

static void frees(void)
{
    take_bad();
    gpu->ops->mem_free(gpu, 8192);
}

static void polls(void)
{
    take_bad();
    gpu->ops->stream_poll(gpu, NULL);
}

static void makes_a_stream(void)
{
    take_bad();
    gpu->ops->stream_create(gpu, 0, 0, &stream);
}

static void test_mistakes_of_a_backend_are_caught(void **state)
{
    (void)state;
    bad = (struct gpu_ops){.mem_info = no_error_at_all,
                           .mem_alloc = the_same_again,
                           .mem_free = frees_anything,
                           .stream_poll = done_or_not,
                           .stream_create = success_without_a_stream};
    assert_true(is_caught(asks_for_memory));
    bad.mem_info = more_free_than_there_is;
    assert_true(is_caught(asks_for_memory));
    assert_true(is_caught(allocates_twice));
    assert_true(is_caught(frees));
    assert_true(is_caught(polls));
    assert_true(is_caught(makes_a_stream));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_right_passes, set_up, tear_down),
        cmocka_unit_test(test_mistakes_of_a_session_are_caught),
        cmocka_unit_test(test_mistakes_of_a_backend_are_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
