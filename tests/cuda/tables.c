/* SPDX-License-Identifier: MIT */
/*
 * The driver's private tables, used as NVIDIA's runtime library, cuBLAS and cuFFT do. What is
 * expected here is what driver 580 answers.
 *
 * Tests: guest/libcuda/calls/tables.c, guest/libcuda/calls/library-tables.c,
 * guest/libcuda/calls/runtime-tables.c, guest/libcuda/model/storage.c,
 * worker/backend-cuda/self-test.c
 */
#include "tests/cuda/check.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define ENTRY(table, number, type) ((type)(table)[number])

typedef void (*end_fn)(CUcontext, void *, void *);

/* The table of an id, as text; its entries are functions. */
static void *const *table_of(const char *id)
{
    const void *table = NULL;
    CUuuid uuid;

    for (int i = 0; i < 16; i++) {
        unsigned byte = 0;

        EXPECT(sscanf(id + 2 * i, "%2x", &byte) == 1, "'%s'", id);
        uuid.bytes[i] = (char)byte;
    }
    GOOD(cuGetExportTable(&table, &uuid));
    EXPECT(table, "%s", id);
    return table;
}

static void *const *runtime_table(void)
{
    return table_of("6bd5fb6c5bf4e74a8987d93912fd9df9");
}

static void *const *storage_table(void)
{
    return table_of("c693336e1121df11a8c368f355d89593");
}

static void *const *numbers_table(void)
{
    return table_of("21318c60971432488ca641ff7324c8f2");
}

static void test_unknown_table(void)
{
    const void *table = &table;
    CUuuid uuid;

    memset(&uuid, 0x5a, sizeof(uuid));
    RESULT(cuGetExportTable(&table, &uuid), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGetExportTable(&table, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGetExportTable(NULL, &uuid), CUDA_ERROR_INVALID_VALUE);
}

/* The runtime library asks before it calls cuInit(), and finds the same tables afterwards. */
static void test_tables_before_init(void)
{
    void *const *runtime = runtime_table(), *const *storage = storage_table();

    start();
    EXPECT(runtime_table() == runtime && storage_table() == storage, "others");
}

/* It has the primary context's handle before that is retained, and makes it current first. */
static void test_primary_before_it_is_retained(void)
{
    CUresult (*primary)(CUcontext *, CUdevice);
    CUcontext early = NULL, late = NULL, current = NULL;
    unsigned flags;
    int active = 1;

    start_driver();
    primary = ENTRY(runtime_table(), 2, CUresult(*)(CUcontext *, CUdevice));
    GOOD(primary(&early, 0));
    GOOD(cuDevicePrimaryCtxGetState(0, &flags, &active));
    EXPECT(early && !active, "%p, active %d", (void *)early, active);
    GOOD(cuCtxSetCurrent(early));
    GOOD(cuDevicePrimaryCtxRetain(&late, 0));
    GOOD(cuCtxGetCurrent(&current));
    EXPECT(late == early && current == early, "%p, %p, %p", (void *)early, (void *)late,
           (void *)current);
    GOOD(cuCtxSynchronize());
}

/* Values by context ---------------------------------------------------------------------------- */

static unsigned ended;
static CUcontext ended_context;
static void *ended_key, *ended_value;

static void note_end(CUcontext ends, void *key, void *value)
{
    ended++;
    ended_context = ends;
    ended_key = key;
    ended_value = value;
}

static CUresult put(CUcontext of, void *key, void *value, end_fn end)
{
    return ENTRY(storage_table(), 0, CUresult(*)(CUcontext, void *, void *, end_fn))(of, key, value,
                                                                                     end);
}

static CUresult drop(CUcontext of, void *key)
{
    return ENTRY(storage_table(), 1, CUresult(*)(CUcontext, void *))(of, key);
}

static CUresult get(void **value, CUcontext of, void *key)
{
    return ENTRY(storage_table(), 2, CUresult(*)(void **, CUcontext, void *))(value, of, key);
}

static void test_values_by_context(void)
{
    int key, other, first, second;
    void *value = NULL;

    RESULT(get(&value, context, &key), CUDA_ERROR_INVALID_HANDLE);
    GOOD(put(context, &key, &first, NULL));
    GOOD(put(context, &other, &second, NULL));
    RESULT(put(context, &key, &second, NULL), CUDA_ERROR_INVALID_HANDLE);
    GOOD(get(&value, context, &key));
    EXPECT(value == &first, "another");
    GOOD(get(&value, NULL, &other));
    EXPECT(value == &second, "not the current context's");
    GOOD(drop(context, &key));
    RESULT(get(&value, context, &key), CUDA_ERROR_INVALID_HANDLE);
    GOOD(get(&value, context, &other));
}

static void test_values_without_a_context(void)
{
    CUresult (*primary)(CUcontext *, CUdevice);
    CUcontext early;
    void *value;
    int key;

    start_driver();
    RESULT(get(&value, NULL, &key), CUDA_ERROR_INVALID_CONTEXT);
    RESULT(put(NULL, &key, &key, NULL), CUDA_ERROR_INVALID_CONTEXT);
    primary = ENTRY(runtime_table(), 2, CUresult(*)(CUcontext *, CUdevice));
    GOOD(primary(&early, 0));
    GOOD(put(early, &key, &key, NULL));
}

static void test_values_end_with_their_context(void)
{
    CUcontext made;
    int key, value;

    GOOD(create_context(&made, 0));
    GOOD(put(made, &key, &value, note_end));
    GOOD(put(context, &key, &key, note_end));
    GOOD(cuCtxDestroy(made));
    EXPECT(ended == 1 && ended_context == made && ended_key == &key && ended_value == &value,
           "%u ends", ended);
    GOOD(cuDevicePrimaryCtxReset(device));
    EXPECT(ended == 2 && ended_context == context && ended_value == &key, "%u ends", ended);
}

/* Numbers -------------------------------------------------------------------------------------- */

static void test_context_by_thread_and_number(void)
{
    void *const *threads = table_of("42d85a8123f6cb478298f6e78a3aecdc");
    unsigned long long id = 0;
    uint64_t number = 0;
    CUcontext found = NULL;

    GOOD(ENTRY(threads, 2, CUresult(*)(CUcontext *))(&found));
    EXPECT(found == context, "%p", (void *)found);
    GOOD(cuCtxGetId(context, &id));
    GOOD(ENTRY(numbers_table(), 4, CUresult(*)(CUcontext, uint64_t *))(context, &number));
    EXPECT(number == id, "%llu, not %llu", (unsigned long long)number, id);
}

/* Each stream has a number of its own, by way of what the driver has for it. */
static uint64_t number_of(CUstream stream)
{
    void *inner = NULL;
    uint64_t number = 0;

    GOOD(ENTRY(numbers_table(), 51, CUresult(*)(CUcontext, CUstream, void **, int))(context, stream,
                                                                                    &inner, 0));
    EXPECT(inner, "none");
    GOOD(ENTRY(numbers_table(), 39, CUresult(*)(CUcontext, void *, uint64_t *))(context, inner,
                                                                                &number));
    return number;
}

static void test_streams_by_number(void)
{
    CUstream first, second;

    GOOD(cuStreamCreate(&first, CU_STREAM_DEFAULT));
    GOOD(cuStreamCreate(&second, CU_STREAM_DEFAULT));
    EXPECT(number_of(first) != number_of(second) && number_of(first) != number_of(NULL),
           "the same");
    EXPECT(number_of(first) == number_of(first), "another");
}

/* Kinds of contexts, tools --------------------------------------------------------------------- */

static void test_context_is_no_wrapper(void)
{
    void *const *contexts = table_of("263e88607cd2614392f6bbd5006dfa7e");
    unsigned wrapped = 1;
    CUcontext inner = NULL;

    GOOD(ENTRY(contexts, 2, CUresult(*)(CUcontext, unsigned *, CUcontext *))(context, &wrapped,
                                                                             &inner));
    EXPECT(wrapped == 0, "%u", wrapped);
    EXPECT(ENTRY(contexts, 3, unsigned (*)(void))() == 0, "1");
}

static void test_no_tool_listens(void)
{
    void *const *tools = table_of("a094798c2e742e7493f20800200c0a66");
    void *words = NULL;
    size_t count = 0;

    ENTRY(tools, 2, void (*)(void **, size_t *))(&words, &count);
    EXPECT(words && count > 0, "%zu", count);
    EXPECT(*(unsigned *)words == 0, "switched on");
    ENTRY(tools, 6, void (*)(void **, size_t *))(&words, &count);
    EXPECT(words && count > 0, "%zu", count);
}

/* Functions of a module ------------------------------------------------------------------------ */

static void test_functions_of_a_module(void)
{
    CUmodule module;
    CUfunction list[16] = {NULL}, wanted;
    bool seen = false;
    unsigned count = 0;

    GOOD(cuModuleLoadData(&module, kernels_ptx));
    GOOD(cuModuleGetFunctionCount(&count, module));
    EXPECT(count >= 4 && count <= 16, "%u", count);
    GOOD(cuModuleEnumerateFunctions(list, count, module));
    GOOD(cuModuleGetFunction(&wanted, module, "vadd"));
    for (unsigned i = 0; i < count; i++) {
        const char *name = NULL;

        GOOD(cuFuncGetName(&name, list[i]));
        EXPECT(name && name[0] != '\0', "%u has none", i);
        seen = seen || list[i] == wanted;
    }
    EXPECT(seen, "no vadd");
    list[1] = NULL;
    GOOD(cuModuleEnumerateFunctions(list, 1, module));
    EXPECT(!list[1], "more than asked for");
}

static void note_function(void *last, CUfunction function)
{
    *(CUfunction *)last = function;
}

static void test_functions_one_by_one(void)
{
    void *const *functions = table_of("6e163fbeb958444d835ce182aff1991e");
    CUfunction last = NULL;
    const char *name = NULL;
    CUmodule module;

    GOOD(cuModuleLoadData(&module, kernels_ptx));
    ENTRY(functions, 7, unsigned (*)(CUcontext, CUmodule, void (*)(void *, CUfunction), void *))
    (context, module, note_function, &last);
    GOOD(cuFuncGetName(&name, last));
    EXPECT(name && name[0] != '\0', "none");
}

static void test_kernels_of_a_library(void)
{
    CUkernel list[16] = {NULL};
    CUlibrary library;
    unsigned count = 0;

    GOOD(cuLibraryLoadData(&library, kernels_ptx, NULL, NULL, 0, NULL, NULL, 0));
    GOOD(cuLibraryGetKernelCount(&count, library));
    EXPECT(count >= 4 && count <= 16, "%u", count);
    GOOD(cuLibraryEnumerateKernels(list, count, library));
    for (unsigned i = 0; i < count; i++) {
        const char *name = NULL;

        GOOD(cuKernelGetName(&name, list[i]));
    }
}

/* What takes a GPU ----------------------------------------------------------------------------- */

static void test_places_of_processors(void)
{
    void *const *places = table_of("1734dc26800d47458726c0f1e7dd8bca");
    char *first = NULL, *second = NULL;

    needs_gpu("there are no multiprocessors");
    GOOD(ENTRY(places, 4, CUresult(*)(char **, char **))(&first, &second));
    EXPECT(first && second, "none");
    GOOD(ENTRY(places, 13, CUresult(*)(char *, char *))(first, second));
}

/* The answer belongs to the question: asked again it is the same, with another time it is not. */
static void test_self_test(void)
{
    void *const *table = table_of("d4082055bde6704b8d34ba123c66e1f2");
    CUresult (*test)(unsigned, uint64_t,
                     uint64_t *) = ENTRY(table, 1, CUresult(*)(unsigned, uint64_t, uint64_t *));
    uint64_t once[2] = {0}, again[2] = {0}, later[2] = {0};
    const uint64_t now = (uint64_t)time(NULL);

    needs_gpu("there is no NVIDIA driver that could be tested");
    GOOD(test(13002, now, once));
    GOOD(test(13002, now, again));
    GOOD(test(13002, now + 1, later));
    EXPECT(memcmp(once, again, sizeof(once)) == 0, "another answer");
    EXPECT(memcmp(once, later, sizeof(once)) != 0, "the same answer");
}

const struct test tables_tests[] = {
    {"unknown_table", test_unknown_table, false},
    {"tables_before_init", test_tables_before_init, true},
    {"primary_before_it_is_retained", test_primary_before_it_is_retained, true},
    {"values_by_context", test_values_by_context, false},
    {"values_without_a_context", test_values_without_a_context, true},
    {"values_end_with_their_context", test_values_end_with_their_context, false},
    {"context_by_thread_and_number", test_context_by_thread_and_number, false},
    {"streams_by_number", test_streams_by_number, false},
    {"context_is_no_wrapper", test_context_is_no_wrapper, false},
    {"no_tool_listens", test_no_tool_listens, false},
    {"functions_of_a_module", test_functions_of_a_module, false},
    {"functions_one_by_one", test_functions_one_by_one, false},
    {"kernels_of_a_library", test_kernels_of_a_library, false},
    {"places_of_processors", test_places_of_processors, false},
    {"self_test", test_self_test, false},
    {NULL, NULL, false},
};
