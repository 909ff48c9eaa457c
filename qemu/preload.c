/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guards the preloadable device: it fits one build of QEMU, against whose structures it was
 * compiled, and refuses any other. VGPU_STUB_BUILD_ID is that build's GNU build-id, in
 * hexadecimal; VGPU_STUB_VERSION its version, for people.
 */
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Writes the build-id in the notes at @start as hexadecimal digits. */
static void find_build_id(const char *start, size_t size, char *hex, size_t hex_size)
{
    const char *end = start + size;

    while (end - start >= (ptrdiff_t)sizeof(ElfW(Nhdr))) {
        const ElfW(Nhdr) *note = (const void *)start;
        const char *name = start + sizeof(*note);
        const unsigned char *id = (const void *)(name + ((note->n_namesz + 3) & ~3u));

        if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
            for (size_t i = 0; i < note->n_descsz && 2 * i + 2 < hex_size; i++) {
                snprintf(hex + 2 * i, 3, "%02x", id[i]);
            }
            return;
        }
        start = (const char *)id + ((note->n_descsz + 3) & ~3u);
    }
}

/* Looks at the first object, the program itself. */
static int read_program(struct dl_phdr_info *info, size_t size, void *hex)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

        if (segment->p_type == PT_NOTE) {
            find_build_id((const char *)info->dlpi_addr + segment->p_vaddr, segment->p_memsz, hex,
                          128);
        }
    }
    return 1;
}

/* Runs before the device registers itself, and so before QEMU's main(). */
static void __attribute__((constructor(101))) check_build(void)
{
    char hex[128] = "";

    if (!dlsym(RTLD_DEFAULT, "register_module_init")) {
        fprintf(stderr, "vgpu-stub: LD_PRELOAD is set for a program that is no QEMU with modules; "
                "set it for QEMU alone\n");
        exit(1);
    }
    dl_iterate_phdr(read_program, hex);
    if (strcmp(hex, VGPU_STUB_BUILD_ID)) {
        fprintf(stderr, "vgpu-stub: this object was built for QEMU " VGPU_STUB_VERSION ", build "
                VGPU_STUB_BUILD_ID ", not for the QEMU that loads it (build %s); build it anew "
                "with qemu/build-preload\n", hex[0] ? hex : "unknown");
        exit(1);
    }
}
