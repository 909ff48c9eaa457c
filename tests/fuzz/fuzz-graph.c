/* SPDX-License-Identifier: MIT */
/*
 * Images of graphs at the worker's decoder (worker/exec-graph.h), on the cpu backend. The bytes are
 * images, each behind two words of 32 bits: how many nodes it is said to have, and its length. The
 * first one that is accepted makes a graph, those behind it update it; after each the graph is
 * launched, place by place.
 *
 * What nodes point to lies in their image, an update that fails changes nothing, and a launch comes
 * forward with each place. Handles and addresses are the same for each input, as
 * tests/fuzz/make-graph-seeds knows them. Gates are opened as a guest would.
 *
 * Tests: worker/exec-graph*.c, worker/backend-cpu/
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/shared.h"
#include "tests/unit/gpu-check.h"
#include "worker/api-calls.h"
#include "worker/exec-graph.h"

#define ARENA (64u << 10)
#define ARENA_ADDRESS UINT64_C(0x200000000000)
#define MEMORY (UINT64_C(64) << 10) /* bytes of device memory */
#define ALLOCATED (MEMORY / 4)
#define PLACES 2048 /* the most that one launch is followed for */
#define TURNS 50    /* that the GPU gets for what it has to do */
#define FUNCTIONS 4 /* of the built-in module */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t left;
};

static struct gpu_arena arena;
static struct gpu *gpu;
static struct handles handles;
static struct gpu_stream *stream;

static void demand(bool right)
{
    if (!right) {
        abort();
    }
}

/* One of each: memory, a stream, and the functions with the first handles. */
static void start(void)
{
    static const char *const names[FUNCTIONS] = {"vadd", "fill", "reduce_sum", "spin"};
    struct gpu_module *module = NULL;
    struct vgpu_result_function info;
    uint64_t address = 0;

    memset(arena.address, 0, ARENA);
    demand(cpu_gpu_open_stepped(&arena, MEMORY, &gpu) == 0);
    gpu_check(gpu);
    demand(gpu->ops->mem_alloc(gpu, ALLOCATED, &address) == VGPU_GPU_SUCCESS);
    demand(gpu->ops->stream_create(gpu, 0, 0, &stream) == VGPU_GPU_SUCCESS);
    demand(gpu->ops->module_builtin(gpu, &module) == VGPU_GPU_SUCCESS);
    for (int i = 0; i < FUNCTIONS; i++) {
        struct gpu_function *function = NULL;

        demand(gpu->ops->function_get(gpu, module, names[i], &function, &info) == VGPU_GPU_SUCCESS);
        demand(handles_add(&handles, HANDLE_FUNCTION, function, 0) != 0);
    }
}

static void set_up(void)
{
    arena.address = mmap((void *)ARENA_ADDRESS, ARENA, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    arena.size = ARENA;
    demand(arena.address == (void *)ARENA_ADDRESS);
}

/* What was accepted -------------------------------------------------------------------------- */

static bool inside(const struct graph *graph, uint64_t image_bytes, const void *at, uint64_t bytes)
{
    const uint64_t offset = (uint64_t)((const uint8_t *)at - graph->encoding);

    return offset <= image_bytes && bytes <= image_bytes - offset;
}

static void check_kernel(const struct graph *graph, uint64_t bytes,
                         const struct gpu_graph_node *node)
{
    const struct gpu_launch *launch = &node->kernel.launch;

    demand(node->kernel.function != NULL);
    demand(launch->param_bytes <= VGPU_PARAMS_MAX);
    demand(inside(graph, bytes, launch->shape, sizeof(*launch->shape)));
    demand(inside(graph, bytes, launch->params, launch->param_bytes));
    demand(inside(graph, bytes, launch->attributes,
                  launch->attribute_count * sizeof(*launch->attributes)));
    for (uint32_t i = 0; i < launch->attribute_count; i++) {
        demand(api_attribute_is_plain(launch->attributes[i].id));
    }
}

static void check_graph(const struct graph *graph, uint64_t bytes)
{
    for (uint32_t i = 0; i < graph->count; i++) {
        const struct gpu_graph_node *node = &graph->nodes[i];

        demand(node->kind <= VGPU_GRAPH_GATE);
        demand(inside(graph, bytes, node->follows, node->follow_count * sizeof(*node->follows)));
        for (uint32_t j = 0; j < node->follow_count; j++) {
            demand(node->follows[j] < i);
        }
        if (node->kind == VGPU_GRAPH_KERNEL) {
            check_kernel(graph, bytes, node);
        }
        if (node->kind == VGPU_GRAPH_GATE) {
            demand(node->gate % 4 == 0 && gpu_in_arena(&arena, node->gate, 4));
        }
    }
}

/* Launches ----------------------------------------------------------------------------------- */

/* What a guest does when the graph has come to a gate. */
static void open_gates(const struct graph *graph)
{
    for (uint32_t i = 0; i < graph->count; i++) {
        if (graph->nodes[i].kind == VGPU_GRAPH_GATE) {
            uint32_t *const gate = (uint32_t *)(uintptr_t)graph->nodes[i].gate;

            if (shared_load(gate) == 1) {
                shared_store(gate, 2);
            }
        }
    }
}

/* Whether the GPU can take more; a kernel that spins may keep it from that. */
static bool has_room(const struct graph *graph)
{
    for (int i = 0; i < TURNS && !gpu->ops->room(gpu); i++) {
        open_gates(graph);
        cpu_gpu_step(gpu);
    }
    return gpu->ops->room(gpu);
}

static void wait_a_while(const struct graph *graph)
{
    for (int i = 0; i < TURNS && gpu->ops->stream_poll(gpu, stream) == VGPU_GPU_NOT_READY; i++) {
        open_gates(graph);
        cpu_gpu_step(gpu);
    }
}

static void launch(struct graph *graph)
{
    uint64_t place = 0;
    bool again = true;

    for (int i = 0; i < PLACES && again && has_room(graph); i++) {
        const uint64_t before = place;

        again = false;
        if (graph_launch(gpu, graph, stream, &place, &again) != VGPU_GPU_SUCCESS) {
            return;
        }
        demand(place > before || graph->count == 0);
    }
    wait_a_while(graph);
}

/* Images ------------------------------------------------------------------------------------- */

static uint32_t word(struct input *in)
{
    uint32_t value = 0;
    const size_t bytes = in->left < sizeof(value) ? in->left : sizeof(value);

    memcpy(&value, in->data, bytes);
    in->data += bytes;
    in->left -= bytes;
    return value;
}

/* Of exactly its size, so that a byte beyond is found; NULL: none was brought over. */
static uint8_t *take_image(struct input *in, uint32_t *bytes)
{
    uint8_t *image;

    *bytes = *bytes < in->left ? *bytes : (uint32_t)in->left;
    if (*bytes == 0) {
        return NULL;
    }
    image = malloc(*bytes);
    demand(image != NULL);
    memcpy(image, in->data, *bytes);
    in->data += *bytes;
    in->left -= *bytes;
    return image;
}

static bool may_be(enum vgpu_gpu_error error)
{
    return error == VGPU_GPU_SUCCESS || error == VGPU_GPU_INVALID_VALUE ||
           error == VGPU_GPU_INVALID_HANDLE || error == VGPU_GPU_NOT_SUPPORTED;
}

static bool is_same(const struct graph *a, const struct graph *b)
{
    return a->encoding == b->encoding && a->nodes == b->nodes && a->count == b->count &&
           a->made == b->made;
}

/* The next image, for a graph that may be there. */
static void next(const struct graph_needs *needs, struct input *in, struct graph **graph)
{
    const struct graph before = *graph ? **graph : (struct graph){0};
    const uint32_t count = word(in);
    uint32_t bytes = word(in);
    uint8_t *image = take_image(in, &bytes);
    const enum vgpu_gpu_error error = *graph ? graph_update(needs, *graph, image, bytes, count)
                                             : graph_make(needs, image, bytes, count, graph);

    demand(may_be(error));
    if (error != VGPU_GPU_SUCCESS) {
        free(image);
        demand(!*graph || is_same(*graph, &before));
    } else {
        demand((*graph)->encoding == image && (*graph)->count == count);
        check_graph(*graph, bytes);
    }
    if (*graph) {
        launch(*graph);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.data = data, .left = size};
    struct graph *graph = NULL;
    struct graph_needs needs;
    struct graph_sum sum = {0};

    if (!arena.address) {
        set_up();
    }
    start();
    needs = (struct graph_needs){.gpu = gpu, .handles = &handles, .sum = &sum};
    while (in.left > 0) {
        next(&needs, &in, &graph);
    }
    if (graph) {
        graph_free(&needs, graph);
    }
    demand(sum.nodes == 0 && sum.bytes == 0);
    /* Kernels that spin, and streams that wait, end with the GPU. */
    gpu->ops->close(gpu);
    handles_release(&handles);
    return 0;
}
