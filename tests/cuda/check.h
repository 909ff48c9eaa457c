/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the CUDA driver API share. Each test runs in a process of its own, so it may
 * leave anything behind. The first expectation that fails ends the test, from any thread.
 */
#ifndef VGPU_TESTS_CUDA_CHECK_H
#define VGPU_TESTS_CUDA_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda.h>

#define WORD ((size_t)4) /* bytes of what the kernels count */

struct test {
    const char *name;
    void (*run)(void);
    bool bare; /* starts before cuInit, without a device and a context */
};

/* Each table ends with an entry without a name. */
extern const struct test init_tests[], device_tests[], context_tests[], stack_tests[];
extern const struct test module_tests[], library_tests[], memory_tests[], host_tests[];
extern const struct test pointer_tests[], copy_tests[], block_tests[], fill_tests[];
extern const struct test stream_tests[], default_tests[], callback_tests[], event_tests[];
extern const struct test launch_tests[], extended_tests[], thread_tests[], process_tests[];
extern const struct test errors_tests[], proc_tests[];
extern const struct test async_tests[], pool_tests[], vmm_tests[];
extern const struct test capture_tests[], isolation_tests[], mode_tests[];
extern const struct test graph_tests[], exec_tests[], update_tests[];
extern const struct test tables_tests[], tensor_tests[], user_tests[];
extern const struct test link_tests[], array_tests[], texture_tests[], printf_tests[];
extern const struct test managed_tests[], transfer_tests[], graph_memory_tests[], batch_tests[];
extern const struct test ipc_tests[];

extern const char kernels_ptx[], own_ptx[], faults_ptx[];

/* Of the test that runs, once start() was called. */
extern CUdevice device;
extern CUcontext context; /* the device's primary one, current */

/* The place that later messages name. */
void check_at(const char *file, int line);
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail_condition(const char *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
_Noreturn void skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_result(const char *text, CUresult came, CUresult expected);
void check_one_of(const char *text, CUresult came, const CUresult *expected, size_t count);
void check_supported(const char *text, CUresult came);

#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        check_at(__FILE__, __LINE__);                                                              \
        if (!(condition)) {                                                                        \
            fail_condition(#condition, __VA_ARGS__);                                               \
        }                                                                                          \
    } while (0)

/* The result of a call is this one. */
#define RESULT(call, expected)                                                                     \
    do {                                                                                           \
        check_at(__FILE__, __LINE__);                                                              \
        check_result(#call, (call), (expected));                                                   \
    } while (0)

#define GOOD(call) RESULT(call, CUDA_SUCCESS)

/* The result is any of these: the documentation leaves it open. */
#define ONE_OF(call, ...)                                                                          \
    do {                                                                                           \
        const CUresult expected_[] = {__VA_ARGS__};                                                \
                                                                                                   \
        check_at(__FILE__, __LINE__);                                                              \
        check_one_of(#call, (call), expected_, sizeof(expected_) / sizeof(expected_[0]));          \
    } while (0)

/* It works; without a GPU it may be refused, and the test is skipped then. */
#define SUPPORTED(call)                                                                            \
    do {                                                                                           \
        check_at(__FILE__, __LINE__);                                                              \
        check_supported(#call, (call));                                                            \
    } while (0)

/* cuInit, and the first device. */
void start_driver(void);
/* The same, and the device's primary context made current. */
void start(void);
bool on_cpu(void);
/* Skips the test where the CPU computes. */
void needs_gpu(const char *why);
int attribute(CUdevice_attribute which);

/* A context beside the primary one; it becomes current. */
CUresult create_context(CUcontext *created, unsigned flags);

/* A function of kernels.ptx, in the current context. */
CUfunction kernel(const char *name);
/* The modules below are compiled by the driver: the test is skipped where nothing compiles PTX. */
CUmodule load_own_module(void);
CUmodule load_module(const char *ptx);

CUdeviceptr device_alloc(size_t bytes);
void *host_alloc(size_t bytes);
CUstream stream_create(unsigned flags);
CUevent event_create(unsigned flags);
/* `count` words of `value`; a kernel that takes `ms`. */
void fill(CUdeviceptr to, uint64_t count, uint32_t value, CUstream stream);
void spin(unsigned ms, CUstream stream);
/* Loads what the three launch, so that no later launch waits for a running kernel. */
void warm_up(void);
/* *sum += the sum of `count` words. */
void reduce(CUdeviceptr from, uint64_t count, CUdeviceptr sum, CUstream stream);

/* Bytes that depend on `seed`, and whether they are there. */
void pattern(uint8_t *bytes, size_t count, uint32_t seed);
bool is_pattern(const uint8_t *bytes, size_t count, uint32_t seed);
/* The device's words are all `value`. */
void expect_words(CUdeviceptr from, size_t count, uint32_t value);
double now_ms(void);

#endif
