/* SPDX-License-Identifier: MIT */
/* Arrays: how large an element is, and what extents mean. */
#ifndef VGPU_API_ARRAY_FORMAT_H
#define VGPU_API_ARRAY_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"

/*
 * Bytes of an element of so many channels; 0 for a format whose elements are not bytes side by side
 * (compressed blocks, several planes), or that is not known here.
 */
static inline unsigned array_element_bytes(uint32_t format, uint32_t channels)
{
    if (channels == 0 || channels > 4) {
        return 0;
    }
    switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
        return channels;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
        return 2 * channels;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
        return 4 * channels;
    /* The names of these say how many channels there are. */
    case CU_AD_FORMAT_UNORM_INT8X1:
    case CU_AD_FORMAT_SNORM_INT8X1:
        return 1;
    case CU_AD_FORMAT_UNORM_INT8X2:
    case CU_AD_FORMAT_SNORM_INT8X2:
    case CU_AD_FORMAT_UNORM_INT16X1:
    case CU_AD_FORMAT_SNORM_INT16X1:
        return 2;
    case CU_AD_FORMAT_UNORM_INT8X4:
    case CU_AD_FORMAT_SNORM_INT8X4:
    case CU_AD_FORMAT_UNORM_INT16X2:
    case CU_AD_FORMAT_SNORM_INT16X2:
        return 4;
    case CU_AD_FORMAT_UNORM_INT16X4:
    case CU_AD_FORMAT_SNORM_INT16X4:
        return 8;
    default:
        return 0;
    }
}

/* An extent of a level of a mipmapped array: each has half of the one before. */
static inline uint64_t array_level_extent(uint64_t extent, unsigned level)
{
    return level < 64 && extent >> level > 0 ? extent >> level : 1;
}

/* How many levels a mipmapped array can have: as often as its largest extent can be halved. */
static inline unsigned array_levels_max(uint64_t width, uint64_t height, uint64_t depth)
{
    uint64_t largest = width > height ? width : height;
    unsigned levels = 1;

    for (largest = largest > depth ? largest : depth; largest > 1; largest /= 2) {
        levels++;
    }
    return levels;
}

/* Whether `count` from `at` on lie within an extent. */
static inline bool array_extent_holds(uint64_t at, uint64_t count, uint64_t extent)
{
    return at <= extent && count <= extent - at;
}

#endif
