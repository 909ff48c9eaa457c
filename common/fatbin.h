/* SPDX-License-Identifier: MIT */
/* The header of a fatbin, as in fatbinary_section.h of CUDA's toolkit. */
#ifndef VGPU_COMMON_FATBIN_H
#define VGPU_COMMON_FATBIN_H

#include <stdint.h>

#define FATBIN_MAGIC 0xBA55ED50u

struct fatbin_header {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes; /* behind the header */
};

#endif
