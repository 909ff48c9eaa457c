/* SPDX-License-Identifier: MIT */
/* Generated from api/ by generate.py; see api/README.md. */
/*
 * Results of commands and calls: value, name, text, and whether the context is lost with it. The
 * values are those of CUDA's driver API (enum cudaError_enum in its reference); any other may come
 * from a newer driver.
 */
#ifndef VGPU_PROTOCOL_VGPU_ERRORS_H
#define VGPU_PROTOCOL_VGPU_ERRORS_H

/* clang-format off */
#define VGPU_GPU_ERRORS(X) \
    X(0, SUCCESS, "no error", 0) \
    X(1, INVALID_VALUE, "invalid argument", 0) \
    X(2, OUT_OF_MEMORY, "out of memory", 0) \
    X(3, NOT_INITIALIZED, "initialization error", 0) \
    X(4, DEINITIALIZED, "driver shutting down", 0) \
    X(5, PROFILER_DISABLED, "profiler disabled while using external profiling tool", 0) \
    X(6, PROFILER_NOT_INITIALIZED, "profiler not initialized: call cudaProfilerInitialize()", 0) \
    X(7, PROFILER_ALREADY_STARTED, "profiler already started", 0) \
    X(8, PROFILER_ALREADY_STOPPED, "profiler already stopped", 0) \
    X(34, STUB_LIBRARY, "CUDA driver is a stub library", 0) \
    X(36, CALL_REQUIRES_NEWER_DRIVER, "API call requires a newer CUDA driver", 0) \
    X(46, DEVICE_UNAVAILABLE, "CUDA-capable device(s) is/are busy or unavailable", 1) \
    X(100, NO_DEVICE, "no CUDA-capable device is detected", 0) \
    X(101, INVALID_DEVICE, "invalid device ordinal", 0) \
    X(102, DEVICE_NOT_LICENSED, "device doesn't have valid Grid license", 0) \
    X(200, INVALID_IMAGE, "device kernel image is invalid", 0) \
    X(201, INVALID_CONTEXT, "invalid device context", 0) \
    X(202, CONTEXT_ALREADY_CURRENT, "context already current", 0) \
    X(205, MAP_FAILED, "mapping of buffer object failed", 0) \
    X(206, UNMAP_FAILED, "unmapping of buffer object failed", 0) \
    X(207, ARRAY_IS_MAPPED, "array is mapped", 0) \
    X(208, ALREADY_MAPPED, "resource already mapped", 0) \
    X(209, NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device", 0) \
    X(210, ALREADY_ACQUIRED, "resource already acquired", 0) \
    X(211, NOT_MAPPED, "resource not mapped", 0) \
    X(212, NOT_MAPPED_AS_ARRAY, "resource not mapped as array", 0) \
    X(213, NOT_MAPPED_AS_POINTER, "resource not mapped as pointer", 0) \
    X(214, ECC_UNCORRECTABLE, "uncorrectable ECC error encountered", 1) \
    X(215, UNSUPPORTED_LIMIT, "limit is not supported on this architecture", 0) \
    X(216, CONTEXT_ALREADY_IN_USE, "exclusive-thread device already in use by a different thread", 0) \
    X(217, PEER_ACCESS_UNSUPPORTED, "peer access is not supported between these two devices", 0) \
    X(218, INVALID_PTX, "a PTX JIT compilation failed", 0) \
    X(219, INVALID_GRAPHICS_CONTEXT, "invalid OpenGL or DirectX context", 0) \
    X(220, NVLINK_UNCORRECTABLE, "uncorrectable NVLink error detected during the execution", 1) \
    X(221, JIT_COMPILER_NOT_FOUND, "PTX JIT compiler library not found", 0) \
    X(222, UNSUPPORTED_PTX_VERSION, "the provided PTX was compiled with an unsupported toolchain.", 0) \
    X(223, JIT_COMPILATION_DISABLED, "PTX JIT compilation was disabled", 0) \
    X(224, UNSUPPORTED_EXEC_AFFINITY, "the provided execution affinity is not supported", 0) \
    X(225, UNSUPPORTED_DEVSIDE_SYNC, "the provided PTX contains unsupported call to cudaDeviceSynchronize", 0) \
    X(226, CONTAINED, "Invalid access of peer GPU memory over nvlink or a hardware error", 1) \
    X(300, INVALID_SOURCE, "device kernel image is invalid", 0) \
    X(301, FILE_NOT_FOUND, "file not found", 0) \
    X(302, SHARED_OBJECT_SYMBOL_NOT_FOUND, "shared object symbol not found", 0) \
    X(303, SHARED_OBJECT_INIT_FAILED, "shared object initialization failed", 0) \
    X(304, OPERATING_SYSTEM, "OS call failed or operation not supported on this OS", 0) \
    X(400, INVALID_HANDLE, "invalid resource handle", 0) \
    X(401, ILLEGAL_STATE, "the operation cannot be performed in the present state", 0) \
    X(402, LOSSY_QUERY, "attempted introspection would be semantically lossy", 0) \
    X(500, NOT_FOUND, "named symbol not found", 0) \
    X(600, NOT_READY, "device not ready", 0) \
    X(700, ILLEGAL_ADDRESS, "an illegal memory access was encountered", 1) \
    X(701, LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch", 0) \
    X(702, LAUNCH_TIMEOUT, "the launch timed out and was terminated", 1) \
    X(703, LAUNCH_INCOMPATIBLE_TEXTURING, "launch uses incompatible texturing mode", 0) \
    X(704, PEER_ACCESS_ALREADY_ENABLED, "peer access is already enabled", 0) \
    X(705, PEER_ACCESS_NOT_ENABLED, "peer access has not been enabled", 0) \
    X(708, PRIMARY_CONTEXT_ACTIVE, "cannot set while device is active in this process", 0) \
    X(709, CONTEXT_IS_DESTROYED, "context is destroyed", 0) \
    X(710, ASSERT, "device-side assert triggered", 1) \
    X(711, TOO_MANY_PEERS, "peer mapping resources exhausted", 0) \
    X(712, HOST_MEMORY_ALREADY_REGISTERED, "part or all of the requested memory range is already mapped", 0) \
    X(713, HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered memory region", 0) \
    X(714, HARDWARE_STACK_ERROR, "hardware stack error", 1) \
    X(715, ILLEGAL_INSTRUCTION, "an illegal instruction was encountered", 1) \
    X(716, MISALIGNED_ADDRESS, "misaligned address", 1) \
    X(717, INVALID_ADDRESS_SPACE, "operation not supported on global/shared address space", 1) \
    X(718, INVALID_PC, "invalid program counter", 1) \
    X(719, LAUNCH_FAILED, "unspecified launch failure", 1) \
    X(720, COOPERATIVE_LAUNCH_TOO_LARGE, "too many blocks in cooperative launch", 0) \
    X(721, TENSOR_MEMORY_LEAK, "tensor memory is not freed before the kernel's end", 1) \
    X(800, NOT_PERMITTED, "operation not permitted", 0) \
    X(801, NOT_SUPPORTED, "operation not supported", 0) \
    X(802, SYSTEM_NOT_READY, "system not yet initialized", 0) \
    X(803, SYSTEM_DRIVER_MISMATCH, "system has unsupported display driver / cuda driver combination", 0) \
    X(804, COMPAT_NOT_SUPPORTED_ON_DEVICE, "forward compatibility was attempted on non supported HW", 0) \
    X(805, MPS_CONNECTION_FAILED, "MPS client failed to connect to the MPS control daemon or the MPS server", 0) \
    X(806, MPS_RPC_FAILURE, "the remote procedural call between the MPS server and the MPS client failed", 0) \
    X(807, MPS_SERVER_NOT_READY, "MPS server is not ready to accept new MPS client requests", 0) \
    X(808, MPS_MAX_CLIENTS_REACHED, "the hardware resources required to create MPS client have been exhausted", 0) \
    X(809, MPS_MAX_CONNECTIONS_REACHED, "the hardware resources required to support device connections have been exhausted", 0) \
    X(810, MPS_CLIENT_TERMINATED, "the MPS client has been terminated", 0) \
    X(811, CDP_NOT_SUPPORTED, "is using dynamic parallelism, but the current configuration does not support it", 0) \
    X(812, CDP_VERSION_MISMATCH, "unsupported interaction between different versions of dynamic parallelism", 0) \
    X(900, STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing", 0) \
    X(901, STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture", 0) \
    X(902, STREAM_CAPTURE_MERGE, "operation would result in a merge of separate capture sequences", 0) \
    X(903, STREAM_CAPTURE_UNMATCHED, "capture was not ended in the same stream as it began", 0) \
    X(904, STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work", 0) \
    X(905, STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream", 0) \
    X(906, STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing blocking stream", 0) \
    X(907, CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream", 0) \
    X(908, STREAM_CAPTURE_WRONG_THREAD, "attempt to terminate a thread-local capture sequence from another thread", 0) \
    X(909, TIMEOUT, "wait operation timed out", 0) \
    X(910, GRAPH_EXEC_UPDATE_FAILURE, "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update", 0) \
    X(911, EXTERNAL_DEVICE, "an async error has occurred in external entity outside of CUDA", 0) \
    X(912, INVALID_CLUSTER_SIZE, "a kernel launch error has occurred due to cluster misconfiguration", 0) \
    X(913, FUNCTION_NOT_LOADED, "the function handle is not loaded when calling an API that requires a loaded function", 0) \
    X(914, INVALID_RESOURCE_TYPE, "one or more resources passed in are not valid resource types for the operation", 0) \
    X(915, INVALID_RESOURCE_CONFIGURATION, "one or more resources are insufficient or non-applicable for the operation", 0) \
    X(916, KEY_ROTATION, "an error happened during the key rotation sequence", 0) \
    X(999, UNKNOWN, "unknown error", 0)
/* clang-format on */

enum vgpu_gpu_error {
#define VGPU_GPU_ERROR_ENUM(value, name, text, sticky) VGPU_GPU_##name = (value),
    VGPU_GPU_ERRORS(VGPU_GPU_ERROR_ENUM)
#undef VGPU_GPU_ERROR_ENUM
};

#endif
