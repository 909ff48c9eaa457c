/* SPDX-License-Identifier: MIT */
/*
 * Images of modules that say that they are longer than they are.
 *
 * Tests: worker/module-image.c
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "worker/module-image.h"

/* Of exactly its size, so that a sanitizer finds a byte beyond. */
static bool check(const void *image, size_t bytes)
{
    uint8_t *copy = malloc(bytes);
    bool good;

    memcpy(copy, image, bytes);
    good = image_check(copy, bytes);
    free(copy);
    return good;
}

static void test_text(void **state)
{
    (void)state;
    assert_true(check(".version 6.0\n", 13));
    assert_true(check("//\t\r\n\0\1\2", 8)); /* up to the NUL */
    assert_true(check("x", 1));
    assert_false(check("\0", 1));
    assert_false(check("a\1", 2));
    /* CUDA's wrapper of a fatbin, which has a pointer in it. */
    assert_false(check("\xb1\x43\x62\x46\1\0\0\0\x41\x41\x41\x41\x41\x41\x41\x41", 16));
}

static void test_fatbin(void **state)
{
    uint8_t image[64] = {0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 48};

    (void)state;
    assert_true(check(image, 64));
    assert_false(check(image, 63));
    assert_false(check(image, 15));
    memset(image + 8, 0xff, 8);
    assert_false(check(image, 64));
    memset(image + 8, 0, 8);
    image[6] = 65;
    assert_false(check(image, 64));
    image[6] = 8;
    assert_false(check(image, 64));
}

/* A header, a segment, two sections, the second of 8 bytes. */
struct cubin {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    Elf64_Shdr sections[2];
    uint8_t bytes[8];
};

static struct cubin good_cubin(void)
{
    struct cubin c = {.header = {.e_phoff = offsetof(struct cubin, segment),
                                 .e_phnum = 1,
                                 .e_phentsize = sizeof(Elf64_Phdr),
                                 .e_shoff = offsetof(struct cubin, sections),
                                 .e_shnum = 2,
                                 .e_shentsize = sizeof(Elf64_Shdr),
                                 .e_shstrndx = 1}};

    memcpy(c.header.e_ident, ELFMAG, SELFMAG);
    c.header.e_ident[EI_CLASS] = ELFCLASS64;
    c.header.e_ident[EI_DATA] = ELFDATA2LSB;
    c.sections[1] = (Elf64_Shdr){
        .sh_type = SHT_PROGBITS, .sh_offset = offsetof(struct cubin, bytes), .sh_size = 8};
    c.segment = (Elf64_Phdr){.p_offset = offsetof(struct cubin, bytes), .p_filesz = 8};
    return c;
}

static void test_cubin(void **state)
{
    struct cubin c = good_cubin();

    (void)state;
    assert_true(check(&c, sizeof(c)));
    for (size_t bytes = SELFMAG; bytes < sizeof(c); bytes++) {
        assert_false(check(&c, bytes));
    }
    c.sections[1].sh_type = SHT_NOBITS;
    c.sections[1].sh_size = UINT64_MAX;
    assert_true(check(&c, sizeof(c)));
}

static void test_cubin_whose_headers_lie(void **state)
{
    struct cubin c;

    (void)state;
#define LIE(field, value)                                                                          \
    do {                                                                                           \
        c = good_cubin();                                                                          \
        c.field = (value);                                                                         \
        assert_false(check(&c, sizeof(c)));                                                        \
    } while (0)
    LIE(header.e_shoff, UINT64_MAX);
    LIE(header.e_shoff, sizeof(c) - 1);
    LIE(header.e_shnum, UINT16_MAX);
    LIE(header.e_shentsize, 1);
    LIE(header.e_shstrndx, 3);
    LIE(header.e_phoff, UINT64_MAX - 8);
    LIE(header.e_phnum, UINT16_MAX);
    LIE(header.e_phentsize, 0);
    LIE(header.e_ident[EI_CLASS], ELFCLASS32);
    LIE(sections[1].sh_offset, sizeof(c));
    LIE(sections[1].sh_size, 9);
    LIE(sections[1].sh_size, UINT64_MAX);
    LIE(segment.p_filesz, 9);
    LIE(segment.p_offset, UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_fatbin),
        cmocka_unit_test(test_cubin),
        cmocka_unit_test(test_cubin_whose_headers_lie),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
