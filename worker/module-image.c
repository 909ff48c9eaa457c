/* SPDX-License-Identifier: MIT */
/*
 * Whether a module's image is what it seems, see module-image.h. The driver is given a pointer and
 * no length: it reads as far as the image's own headers tell it to. Without this check it would
 * read beyond the worker's copy, and the guest could get hold of the bytes that lie there.
 *
 * Only offsets and sizes are looked at. The driver has to cope with the contents of the sections; a
 * crash in it ends the session that has loaded the image, and no other.
 */
#include "worker/module-image.h"

#include <elf.h>
#include <string.h>

#include "common/fatbin.h"

/*
 * Whether `count` things of `size` bytes from `offset` on lie in an image, for any values: there is
 * no product that could wrap.
 */
static bool in_image(uint64_t offset, uint64_t count, uint64_t size, uint64_t bytes)
{
    return offset <= bytes && (size == 0 || count <= (bytes - offset) / size);
}

static bool check_elf(const uint8_t *image, uint64_t bytes)
{
    Elf64_Ehdr header;

    if (bytes < sizeof(header)) {
        return false;
    }
    memcpy(&header, image, sizeof(header));
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        (header.e_phnum > 0 && header.e_phentsize != sizeof(Elf64_Phdr)) ||
        (header.e_shnum > 0 && header.e_shentsize != sizeof(Elf64_Shdr)) ||
        header.e_shstrndx > header.e_shnum ||
        !in_image(header.e_phoff, header.e_phnum, sizeof(Elf64_Phdr), bytes) ||
        !in_image(header.e_shoff, header.e_shnum, sizeof(Elf64_Shdr), bytes)) {
        return false;
    }
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;

        memcpy(&segment, image + header.e_phoff + i * sizeof(segment), sizeof(segment));
        if (!in_image(segment.p_offset, segment.p_filesz, 1, bytes)) {
            return false;
        }
    }
    for (unsigned i = 0; i < header.e_shnum; i++) {
        Elf64_Shdr section;

        memcpy(&section, image + header.e_shoff + i * sizeof(section), sizeof(section));
        /* One without bytes in the image may say any size. */
        if (section.sh_type != SHT_NOBITS &&
            !in_image(section.sh_offset, section.sh_size, 1, bytes)) {
            return false;
        }
    }
    return true;
}

static bool check_fatbin(const uint8_t *image, uint64_t bytes)
{
    struct fatbin_header header;

    if (bytes < sizeof(header)) {
        return false;
    }
    memcpy(&header, image, sizeof(header));
    return header.header_bytes >= sizeof(header) && header.header_bytes <= bytes &&
           header.bytes <= bytes - header.header_bytes;
}

/*
 * Bytes that PTX can have. Anything else that a driver may know is refused, above all the wrapper
 * that nvcc puts around a fatbin: it holds a pointer, which would be the guest's choice.
 */
static bool check_text(const uint8_t *image, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes && image[i] != '\0'; i++) {
        if (image[i] < ' ' && (image[i] < '\t' || image[i] > '\r')) {
            return false;
        }
    }
    return image[0] != '\0' && image[0] < 0x80;
}

bool image_check(const uint8_t *image, uint64_t bytes)
{
    uint32_t magic = 0;

    memcpy(&magic, image, bytes < sizeof(magic) ? bytes : sizeof(magic));
    if (bytes >= SELFMAG && memcmp(image, ELFMAG, SELFMAG) == 0) {
        return check_elf(image, bytes);
    }
    return magic == FATBIN_MAGIC ? check_fatbin(image, bytes) : check_text(image, bytes);
}
