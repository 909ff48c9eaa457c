/* SPDX-License-Identifier: MIT */
/*
 * Modules and libraries, functions and kernels. CUDA 12 has libraries, whose kernels are loaded for
 * each context where they are used. All contexts are one on the host, so a library is a module
 * here, which belongs to no context, and a kernel is one of its functions: handles are the same.
 */

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/device.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/module.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

/* Modules ------------------------------------------------------------------------------------- */

CUresult guest_cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module,
                                    const char *name)
{
    const struct module *known = module_find(module);
    CUdeviceptr found = 0;
    size_t size = 0;
    CUresult r;

    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    /* A program may ask for the address or the size alone. */
    if (!name || (!address && !bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = call_module_global(&found, &size, module, name);
    if (r != CUDA_SUCCESS) {
        return r == CUDA_ERROR_NOT_SUPPORTED ? REFUSE("a __managed__ variable") : r;
    }
    /*
     * The area is noted, so that copies from and to the variable are taken for what they are. Where
     * it is known already nothing is added.
     */
    memory_add((struct memory){.address = found,
                               .bytes = size,
                               .context = known->object.context,
                               .owner = known->object.handle,
                               .kind = MEMORY_GLOBAL});
    if (address) {
        *address = found;
    }
    if (bytes) {
        *bytes = size;
    }
    return CUDA_SUCCESS;
}

/*
 * How NVIDIA's runtime library is to load the kernels of its program: each module when its first
 * kernel is wanted, as CUDA has it by default since 11.7, or all of them at once. It asks here and
 * does the rest itself. What a program loads by cuModuleLoad() is the host's driver's matter.
 */
CUresult guest_cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    const char *wanted = getenv("CUDA_MODULE_LOADING");

    *mode = wanted && strcmp(wanted, "EAGER") == 0 ? CU_MODULE_EAGER_LOADING
                                                   : CU_MODULE_LAZY_LOADING;
    return CUDA_SUCCESS;
}

CUresult unload_module(CUmodule module)
{
    struct module *known = module_find(module);

    return known ? module_unload(known) : CUDA_ERROR_INVALID_HANDLE;
}

/* Functions ----------------------------------------------------------------------------------- */

CUresult guest_cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    struct function *known = function_find(function);

    return known ? function_attribute(known, attribute, value) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult guest_cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    struct function *known = function_find(function);

    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    return (unsigned)attribute < CU_FUNC_ATTRIBUTE_MAX
               ? function_set_attribute(known, attribute, value)
               : CUDA_ERROR_INVALID_VALUE;
}

/* Answered without the host, from what launches need anyway. */
CUresult guest_cuFuncGetParamInfo(CUfunction function, size_t index, size_t *offset, size_t *size)
{
    const struct function *known = function_find(function);

    if (!function) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (known->count == ~0u) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (!offset || index >= known->count) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *offset = known->parameters[index].offset;
    if (size) {
        *size = known->parameters[index].size;
    }
    return CUDA_SUCCESS;
}

/* Libraries and kernels ----------------------------------------------------------------------- */

/* A managed variable is refused by the host, and what else has that name is none. */
CUresult guest_cuLibraryGetManaged(CUdeviceptr *address, size_t *bytes, CUlibrary library,
                                   const char *name)
{
    CUdeviceptr found = 0;
    size_t size = 0;
    CUresult r;

    (void)address;
    (void)bytes;
    if (!module_find((CUmodule)library)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    r = call_module_global(&found, &size, (CUmodule)library, name);
    if (r == CUDA_ERROR_NOT_SUPPORTED) {
        return REFUSE("a __managed__ variable");
    }
    /* What has the name and is something else is not found. */
    return r == CUDA_SUCCESS || r == CUDA_ERROR_INVALID_VALUE ? CUDA_ERROR_NOT_FOUND : r;
}

CUresult guest_cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel,
                                    CUdevice device)
{
    if (!function_find((CUfunction)kernel)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!value) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return device_valid(device) ? guest_cuFuncGetAttribute(value, attribute, (CUfunction)kernel)
                                : CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel,
                                    CUdevice device)
{
    return device_valid(device) ? guest_cuFuncSetAttribute((CUfunction)kernel, attribute, value)
                                : CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice device)
{
    return device_valid(device) ? call_cuFuncSetCacheConfig((CUfunction)kernel, config)
                                : CUDA_ERROR_INVALID_DEVICE;
}
