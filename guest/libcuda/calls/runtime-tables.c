/* SPDX-License-Identifier: MIT */
/*
 * Tables that every copy of NVIDIA's runtime library asks for, see table-list.h. A copy is in each
 * program that nvcc has built, and in cuBLAS and its kind.
 */
#include <stddef.h>

#include "guest/libcuda/calls/table-list.h"
#include "guest/libcuda/model/device.h"
#include "guest/libcuda/model/module.h"
#include "guest/libcuda/model/storage.h"

/* For the runtime library ---------------------------------------------------------------------- */

/* 1, 6 and 8: of libraries before cuLibraryLoadData(), which came with CUDA 12. */
static CUresult runtime_load(CUmodule *module, const void *image)
{
    const CUresult r = enter_context();

    if (r != CUDA_SUCCESS) {
        return r;
    }
    return module && image ? module_load(module, image, NULL, context_current())
                           : CUDA_ERROR_INVALID_VALUE;
}

static CUresult runtime_load_more(CUmodule *module, const void *wrapper, void *unknown, void *other,
                                  unsigned flags)
{
    (void)unknown;
    (void)other;
    (void)flags;
    return runtime_load(module, wrapper);
}

static CUresult runtime_load_fatbin(const void *fatbin, CUmodule *module, void *unknown,
                                    void *other, unsigned flags)
{
    (void)unknown;
    (void)other;
    (void)flags;
    return runtime_load(module, fatbin);
}

static CUresult runtime_unload(CUmodule module)
{
    const CUresult r = enter_context();
    struct module *known = module_find(module);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    return known ? module_unload(known) : CUDA_ERROR_INVALID_HANDLE;
}

/* Which one it will be, without making or retaining it. */
static CUresult runtime_primary(CUcontext *context, CUdevice device)
{
    const CUresult r = enter_init();

    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (!context || !device_valid(device)) {
        return context ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
    }
    *context = (CUcontext)&primary_context;
    return CUDA_SUCCESS;
}

/* The compilers are the host's. */
static CUresult runtime_load_compilers(void)
{
    return CUDA_SUCCESS;
}

NOT_SERVED(runtime, "6bd5fb6c")

const void *const table_runtime[TABLE_RUNTIME] = {
    (void *)sizeof(table_runtime),  (void *)runtime_load,   (void *)runtime_primary,
    (void *)runtime_other,          (void *)runtime_other,  (void *)runtime_other,
    (void *)runtime_load_more,      (void *)runtime_unload, (void *)runtime_load_fatbin,
    (void *)runtime_other,          (void *)runtime_other,  (void *)runtime_other,
    (void *)runtime_load_compilers,
};

/* Values by context ---------------------------------------------------------------------------- */

static CUresult storage_context(CUcontext context, struct context **known)
{
    const CUresult r = enter_init();

    *known = r == CUDA_SUCCESS ? context_find_or_primary(context) : NULL;
    return *known || r != CUDA_SUCCESS ? r : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult stored_put(CUcontext context, void *key, void *value, storage_end_fn end)
{
    struct context *known;
    const CUresult r = storage_context(context, &known);

    return r == CUDA_SUCCESS ? storage_put(known, key, value, end) : r;
}

static CUresult stored_drop(CUcontext context, void *key)
{
    struct context *known;
    const CUresult r = storage_context(context, &known);

    return r == CUDA_SUCCESS ? storage_drop(known, key) : r;
}

static CUresult stored_get(void **value, CUcontext context, void *key)
{
    struct context *known;
    const CUresult r = storage_context(context, &known);

    if (!value) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *value = NULL;
    return r == CUDA_SUCCESS ? storage_get(known, key, value) : r;
}

/* It has no size in front, and ends with NULL. */
const void *const table_storage[TABLE_STORAGE] = {
    (void *)stored_put,
    (void *)stored_drop,
    (void *)stored_get,
    NULL,
};

/* What kind of context one is ------------------------------------------------------------------ */

/* Contexts may be made around others, which nobody can do here. */
static CUresult contexts_wrapped(CUcontext context, uint32_t *wrapped, CUcontext *inner)
{
    (void)context;
    (void)inner;
    if (!wrapped) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *wrapped = 0;
    return CUDA_SUCCESS;
}

/* Asked for when a runtime library begins; 0 is what NVIDIA's driver says on a host as this. */
static uint32_t contexts_kind(void)
{
    return 0;
}

NOT_SERVED(contexts, "263e8860")

const void *const table_contexts[TABLE_CONTEXTS] = {
    (void *)sizeof(table_contexts),
    (void *)contexts_other,
    (void *)contexts_wrapped,
    (void *)contexts_kind,
};

/* Tools ---------------------------------------------------------------------------------------- */

/*
 * Words in which a tool would switch on, for each call of the runtime library's, that it wants to
 * be told. The library reads them before each call, so they have to be there; they stay 0.
 */
static uint32_t tools_calls[1024];
static uint8_t tools_domains[14];

static void tools_call_switches(void **first, size_t *count)
{
    if (first) {
        *first = tools_calls;
    }
    if (count) {
        *count = sizeof(tools_calls) / sizeof(tools_calls[0]);
    }
}

static void tools_domain_switches(void **first, size_t *count)
{
    if (first) {
        *first = tools_domains;
    }
    if (count) {
        *count = sizeof(tools_domains);
    }
}

NOT_SERVED(tools, "a094798c")

const void *const table_tools[TABLE_TOOLS] = {
    (void *)sizeof(table_tools),   (void *)tools_other, (void *)tools_call_switches,
    (void *)tools_other,           (void *)tools_other, (void *)tools_other,
    (void *)tools_domain_switches,
};
