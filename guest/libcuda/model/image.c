/* SPDX-License-Identifier: MIT */
/*
 * Images of modules, see image.h: how long one is, and how it gets to the host.
 *
 * cuModuleLoadData() has no length. NVIDIA's driver reads as far as an image says that it goes, and
 * so does this. The program is trusted with its own memory: a wrong header makes it crash, as it
 * would with NVIDIA's. The host checks what it gets.
 */
#include "guest/libcuda/model/image.h"

#include <elf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fatbin.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"
#include "guest/libcuda/wire/upload.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

/*
 * Around a fatbin nvcc puts a wrapper, as in fatbinary_section.h of CUDA's toolkit. Programs may
 * pass its address; the data is behind a pointer, which means nothing to the host.
 */
#define WRAPPER_MAGIC 0x466243b1u

struct wrapper {
    uint32_t magic, version;
    const void *data;
    const void *unused;
};

/* Length --------------------------------------------------------------------------------------- */

static uint64_t larger_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/*
 * An ELF file has no length of its own: it ends with whatever lies last, a section, a segment, or
 * one of the two tables. Sections without bytes in the file (NOBITS) only have addresses.
 */
static uint64_t elf_bytes(const uint8_t *image)
{
    const Elf64_Ehdr *header = (const void *)image;
    const Elf64_Shdr *sections = (const void *)(image + header->e_shoff);
    const Elf64_Phdr *segments = (const void *)(image + header->e_phoff);
    uint64_t bytes = sizeof(*header);

    bytes = larger_of(bytes, header->e_shoff + (uint64_t)header->e_shnum * sizeof(*sections));
    bytes = larger_of(bytes, header->e_phoff + (uint64_t)header->e_phnum * sizeof(*segments));
    for (unsigned i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_NOBITS) {
            bytes = larger_of(bytes, sections[i].sh_offset + sections[i].sh_size);
        }
    }
    for (unsigned i = 0; i < header->e_phnum; i++) {
        bytes = larger_of(bytes, segments[i].p_offset + segments[i].p_filesz);
    }
    return bytes;
}

/*
 * Whether the first bytes are these. Byte by byte, and no further than they agree: PTX is text that
 * may end after any, and what is behind it may not be readable.
 */
static bool begins_with(const uint8_t *image, const void *bytes, unsigned count)
{
    const uint8_t *wanted = bytes;

    for (unsigned i = 0; i < count; i++) {
        if (image[i] != wanted[i]) {
            return false;
        }
    }
    return true;
}

/* The image inside nvcc's wrapper. */
static const void *image_unwrap(const void *image)
{
    const uint32_t magic = WRAPPER_MAGIC;
    struct wrapper wrapper;

    if (!begins_with(image, &magic, sizeof(magic))) {
        return image;
    }
    memcpy(&wrapper, image, sizeof(wrapper));
    return wrapper.data;
}

/* Bytes of a cubin, a fatbin or PTX. */
static uint64_t image_bytes(const void *image)
{
    const uint32_t fatbin = FATBIN_MAGIC;

    if (begins_with(image, ELFMAG, SELFMAG)) {
        return elf_bytes(image);
    }
    if (begins_with(image, &fatbin, sizeof(fatbin))) {
        const struct fatbin_header *header = image;

        return header->header_bytes + header->bytes;
    }
    /* PTX is text with a NUL behind it. */
    return strlen(image);
}

CUresult image_read(const char *path, void **image, size_t *bytes)
{
    FILE *file = fopen(path, "rbe");
    CUresult r = CUDA_ERROR_FILE_NOT_FOUND;
    long length = -1;
    char *text;

    if (!file) {
        return r;
    }
    if (fseek(file, 0, SEEK_END) == 0) {
        length = ftell(file);
    }
    /* The NUL behind it is for PTX, which is a text in memory and has none in a file. */
    text = length >= 0 ? calloc(1, (size_t)length + 1) : NULL;
    if (!text) {
        r = length >= 0 ? CUDA_ERROR_OUT_OF_MEMORY : r;
    } else if (fseek(file, 0, SEEK_SET) == 0 &&
               fread(text, 1, (size_t)length, file) == (size_t)length) {
        *image = text;
        *bytes = (size_t)length;
        text = NULL;
        r = CUDA_SUCCESS;
    }
    free(text);
    fclose(file);
    return r;
}

/* Loading -------------------------------------------------------------------------------------- */

/*
 * There are two results. `r` says whether the call itself got through; `result` is that of the
 * driver's compiler. With an image that does not compile the call succeeds all the same, because
 * the logs, which say why, only come back with a call that does.
 *
 * The upload is locked over both, so that no other thread's image takes the place of this one.
 */
CUresult image_load(const void *image, const struct image_options *options, CUmodule *module)
{
    const void *inner = image_unwrap(image);
    struct jit_options o;
    CUresult result = CUDA_SUCCESS, r = jit_options_sort(options, &o);
    uint32_t info = 0, error = 0;
    float wall_time = 0;

    if (r != CUDA_SUCCESS) {
        return r;
    }
    upload_lock();
    r = upload_send(inner, image_bytes(inner));
    if (r == CUDA_SUCCESS) {
        r = call_image_load(module, &result, &wall_time, &info, &error, o.info, o.error,
                            o.info_bytes, o.error_bytes, o.plain, o.values, o.count);
    }
    upload_unlock();
    if (r == CUDA_SUCCESS) {
        jit_options_give_back(&o, wall_time, info, error);
        /*
         * Without a GPU on the host (its compute capability is 0.0 then) only the built-in module
         * works.
         */
        r = result == CUDA_ERROR_NOT_SUPPORTED &&
                    cuda.attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR] == 0
                ? REFUSE("a module of the program's, on a host without a GPU,")
                : result;
    }
    return r;
}
