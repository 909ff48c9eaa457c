/* SPDX-License-Identifier: MIT */
/*
 * How VMs are named.
 *
 * Tests: mediator/identity.c
 */
#include <string.h>

#include "mediator/identity.h"
#include "tests/unit/unit.h"

#define UUID "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
#define FORTY "123456789 123456789 123456789 123456789 "

static void test_names(void **state)
{
    static const struct {
        const char *text, *again;
    } names[] = {
        {"1", NULL},
        {"4294967295", NULL},
        {"0007", "7"},
        {"web01", NULL},
        {"web 01", NULL},
        {"_1", NULL},
        {"a-1", NULL},
        {"cafe", NULL},
        {"m\303\274ller", NULL},
        {UUID, NULL},
        {"4DEA22B3-1D52-D8F3-2516-782E98AB3FA0", UUID},
        {"n" FORTY "123456789 123456789 12", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct identity named;
        char text[IDENTITY_TEXT];

        assert_true(identity_parse(names[i].text, &named));
        assert_string_equal(identity_format(&named, text),
                            names[i].again ? names[i].again : names[i].text);
        assert_true(identity_matches(&named, &named));
        /* One field is said. */
        assert_int_equal((named.id != 0) + !sd_id128_is_null(named.uuid) + (named.name[0] != '\0'),
                         1);
    }
}

static void test_no_names(void **state)
{
    static const char *const texts[] = {
        "",
        "0",
        "000",
        "4294967296",
        "18446744073709551617",
        "00000000-0000-0000-0000-000000000000",
        /* Numbers and UUIDs that were mistyped. */
        "7 ",
        " 7",
        "0x7",
        "+7",
        "-7",
        "1-5",
        "#7",
        "7,8",
        "7O",
        "4dea22b31d52d8f32516782e98ab3fa0",
        "4dea22b3-1d52-d8f3-2516-782e98ab3fa",
        "adea22b3-1d52-d8f3-2516-782e98ab3fa",
        "adea22b3-1d52-d8f3-2516-782e98ab3fa00",
        "{4dea22b3-1d52-d8f3-2516-782e98ab3fa0}",
        "web ",
        " web",
        "a\nb",
        "\033[2J",
        "\377",
        "n" FORTY "123456789 123456789 123",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct identity named;

        assert_false(identity_parse(texts[i], &named));
    }
}

/* Nobody is named by what he has not said. */
static void test_nobody(void **state)
{
    static const char *const texts[] = {"1", "a", UUID};
    const struct identity who = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct identity named;

        assert_true(identity_parse(texts[i], &named));
        assert_false(identity_matches(&named, &who));
    }
}

static void test_hello(void **state)
{
    struct vgpu_hello hello = {.vm_id = 7, .name = "a\033VM", .uuid = "\x4d\xea\x22\xb3\x1d\x52"};
    struct identity who;

    (void)state;
    identity_of_hello(&hello, &who);
    assert_int_equal(who.id, 7);
    assert_string_equal(who.name, "a?VM");
    assert_memory_equal(who.uuid.bytes, hello.uuid, sizeof(hello.uuid));
    hello.flags = VGPU_HELLO_HOST;
    identity_of_hello(&hello, &who);
    assert_int_equal(who.id, 7);
    assert_string_equal(who.name, "");
    assert_true(sd_id128_is_null(who.uuid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_names),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_hello),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
