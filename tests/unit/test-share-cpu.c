/* SPDX-License-Identifier: MIT */
/*
 * Memory of several sessions where there is no GPU: two of them here, in one process. What names
 * it comes from another worker, which counts as hostile.
 *
 * Tests: worker/backend-cpu/gpu.c, worker/sharing.c
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "protocol/vgpu-worker.h"
#include "tests/unit/unit.h"
#include "worker/gpu.h"
#include "worker/sharing.h"

#define ARENA 65536u
#define BYTES 10000u
#define FAR (VGPU_SHARED_SIZE - 4096)

static struct gpu *exporter, *importer;
static struct gpu_arena arena;
static uint64_t address;
static uint8_t name[64];
static struct sharing_files files;

static int set_up(void **state)
{
    (void)state;
    arena.size = ARENA;
    arena.address = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena.address == MAP_FAILED || cpu_gpu_open(&arena, CPU_GPU_MEMORY, &exporter) < 0 ||
        cpu_gpu_open(&arena, CPU_GPU_MEMORY, &importer) < 0) {
        return -1;
    }
    if (sharing_make_files(true, &files) < 0) {
        return -1;
    }
    exporter->file = files.memory;
    return exporter->ops->mem_alloc(exporter, BYTES, &address) ||
           exporter->ops->share_name(exporter, address, name);
}

static int tear_down(void **state)
{
    (void)state;
    exporter->ops->close(exporter);
    importer->ops->close(importer);
    close(files.events);
    close(files.memory);
    return munmap(arena.address, ARENA);
}

static void finish(struct gpu *gpu)
{
    struct gpu_fence fence;

    assert_int_equal(gpu->ops->fence(gpu, NULL, &fence), VGPU_GPU_SUCCESS);
    while (gpu->ops->fence_poll(gpu, &fence) == VGPU_GPU_NOT_READY) {
        usleep(100);
    }
}

static void put(struct gpu *gpu, uint64_t to, uint32_t value)
{
    const struct gpu_fill fill = {.address = to, .count = BYTES / 4, .value = value, .width = 4};

    assert_int_equal(gpu->ops->fill(gpu, &fill, NULL), VGPU_GPU_SUCCESS);
    finish(gpu);
}

static uint32_t get(struct gpu *gpu, uint64_t from)
{
    const struct gpu_copy copy = {VGPU_COPY_FROM_DEVICE, (uintptr_t)arena.address, from, 4};
    uint32_t value;

    assert_int_equal(gpu->ops->copy(gpu, &copy, NULL), VGPU_GPU_SUCCESS);
    finish(gpu);
    memcpy(&value, arena.address, sizeof(value));
    return value;
}

static enum vgpu_gpu_error share_open(uint64_t place, uint64_t bytes, int file, uint64_t *opened)
{
    uint8_t named[64] = {0};

    memcpy(named, &place, sizeof(place));
    return importer->ops->share_open(importer, named, bytes, file, opened);
}

static void test_one_memory(void **state)
{
    uint64_t there = 0;

    (void)state;
    assert_int_equal(importer->ops->share_open(importer, name, BYTES, exporter->file, &there),
                     VGPU_GPU_SUCCESS);
    put(exporter, address, 3);
    assert_int_equal(get(importer, there), 3);
    put(importer, there, 4);
    assert_int_equal(get(exporter, address), 4);
    /* Each gives back what is its own, and that alone. */
    assert_int_equal(importer->ops->mem_free(importer, there), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(exporter->ops->share_close(exporter, address), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(importer->ops->share_close(importer, there), VGPU_GPU_SUCCESS);
    assert_int_equal(importer->ops->share_close(importer, there), VGPU_GPU_INVALID_VALUE);
}

/* Nothing that the exporter allocates later comes where the importer has kept what was there. */
static void test_place_is_not_used_again(void **state)
{
    uint64_t there = 0, next = 0;

    (void)state;
    assert_int_equal(importer->ops->share_open(importer, name, BYTES, exporter->file, &there),
                     VGPU_GPU_SUCCESS);
    put(exporter, address, 5);
    assert_int_equal(exporter->ops->mem_free(exporter, address), VGPU_GPU_SUCCESS);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(exporter->ops->mem_alloc(exporter, BYTES, &next), VGPU_GPU_SUCCESS);
        put(exporter, next, 6);
        assert_int_equal(get(importer, there), 0);
        assert_int_equal(exporter->ops->mem_free(exporter, next), VGPU_GPU_SUCCESS);
    }
}

/* The pages are given back: the file takes no more memory than what is allocated. */
static void test_freed_memory_is_the_hosts_again(void **state)
{
    uint64_t made;

    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        assert_int_equal(exporter->ops->mem_alloc(exporter, 1 << 20, &made), VGPU_GPU_SUCCESS);
        assert_int_equal(exporter->ops->mem_free(exporter, made), VGPU_GPU_SUCCESS);
        finish(exporter);
    }
    assert_int_equal(lseek(exporter->file, VGPU_SHARED_MEMORY + BYTES + 4096, SEEK_DATA), -1);
}

static void test_names_that_are_none(void **state)
{
    const int file = exporter->file;
    uint64_t there = 0;

    (void)state;
    assert_int_equal(share_open(VGPU_SHARED_MEMORY, BYTES, -1, &there), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(share_open(VGPU_SHARED_MEMORY, 0, file, &there), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(share_open(0, BYTES, file, &there), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(share_open(VGPU_SHARED_MEMORY + 1, BYTES, file, &there),
                     VGPU_GPU_INVALID_VALUE);
    assert_int_equal(share_open(FAR, 4097, file, &there), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(share_open(VGPU_SHARED_SIZE, 1, file, &there), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(share_open(VGPU_SHARED_SIZE + 4096, 1, file, &there), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(share_open(~UINT64_C(4095), 8192, file, &there), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(share_open(VGPU_SHARED_MEMORY, UINT64_MAX, file, &there),
                     VGPU_GPU_INVALID_VALUE);
    /* The last byte that there is can be had, and no more. */
    assert_int_equal(share_open(FAR, 4096, file, &there), VGPU_GPU_SUCCESS);
    assert_int_equal(get(importer, there), 0);
}

static void test_what_is_not_in_the_file(void **state)
{
    uint64_t own = 0;
    uint8_t named[64];

    (void)state;
    assert_int_equal(importer->ops->mem_alloc(importer, BYTES, &own), VGPU_GPU_SUCCESS);
    assert_int_equal(importer->ops->share_name(importer, own, named), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(exporter->ops->share_name(exporter, address + 1, named),
                     VGPU_GPU_INVALID_VALUE);
    assert_int_equal(exporter->ops->share_name(exporter, 0, named), VGPU_GPU_INVALID_VALUE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_memory),
        TEST(test_place_is_not_used_again),
        TEST(test_freed_memory_is_the_hosts_again),
        TEST(test_names_that_are_none),
        TEST(test_what_is_not_in_the_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
