/* SPDX-License-Identifier: MIT */
/* kernels.ptx as a C string, for cuModuleLoadData(). Found through the include path. */
    .section .rodata
    .global cuda_kernels_ptx
    .type cuda_kernels_ptx, @object
cuda_kernels_ptx:
    .incbin "worker/backend-cuda/kernels.ptx"
    .byte 0
    .size cuda_kernels_ptx, . - cuda_kernels_ptx
    .section .note.GNU-stack, "", @progbits
