/* SPDX-License-Identifier: MIT */
/*
 * The mediator's book of what sessions export: who finds what, who has it, and when memory is
 * nobody's any more. A worker that says what cannot be is found out.
 *
 * Tests: mediator/exports.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mediator/exports.h"
#include "tests/unit/unit.h"

static struct exports *domain;
static struct sharer first, second, other; /* two of one VM, and one of another */
static int vm, other_vm;

static int set_up(void **state)
{
    (void)state;
    domain = exports_new();
    if (!domain) {
        return -1;
    }
    sharer_init(&first, domain, &vm);
    sharer_init(&second, domain, &vm);
    sharer_init(&other, exports_ref(domain), &other_vm);
    first.memory = 5;
    first.events = 6;
    return 0;
}

static int tear_down(void **state)
{
    struct sharer *const sharers[] = {&first, &second, &other};
    struct estate estate;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        sharer_leave(sharers[i], &estate);
        free(estate.still_had);
    }
    exports_unref(domain);
    exports_unref(domain);
    return 0;
}

static struct vgpu_export memory(uint64_t bytes)
{
    return (struct vgpu_export){.kind = VGPU_EXPORT_MEMORY, .bytes = bytes, .name = "here"};
}

/* What a session exports; its key is in it then. */
static struct vgpu_export exported(struct sharer *sharer, uint64_t bytes)
{
    struct vgpu_export share = memory(bytes);

    assert_int_equal(sharer_export(sharer, &share), VGPU_LINK_DONE_WELL);
    return share;
}

/* The question for it. */
static struct vgpu_export question(const struct vgpu_export *share)
{
    struct vgpu_export asked = {.kind = share->kind};

    memcpy(asked.key, share->key, sizeof(asked.key));
    return asked;
}

static int import(struct sharer *sharer, const struct vgpu_export *share)
{
    struct vgpu_export asked = question(share);
    int file;

    return sharer_import(sharer, &asked, &file);
}

static uint64_t released(struct sharer *sharer, const struct vgpu_export *share)
{
    uint64_t freed = 1;

    assert_int_equal(sharer_release(sharer, share, &freed), 0);
    return freed;
}

static uint64_t withdrawn(struct sharer *sharer, const struct vgpu_export *share)
{
    uint64_t freed = 1;

    assert_int_equal(sharer_withdraw(sharer, share, &freed), 0);
    return freed;
}

/* Keys --------------------------------------------------------------------------------------- */

static void test_key_finds_what_it_is_of(void **state)
{
    const struct vgpu_export share = exported(&first, 100);
    struct vgpu_export asked = question(&share);
    int file = -1;

    (void)state;
    assert_int_equal(sharer_import(&second, &asked, &file), VGPU_LINK_DONE_WELL);
    assert_int_equal(asked.bytes, 100);
    assert_string_equal((const char *)asked.name, "here");
    assert_int_equal(file, 5);
    assert_int_equal(asked.session, first.session);
    assert_int_not_equal(asked.session, 0);
    assert_false(asked.foreign);
}

static void test_any_other_key_finds_nothing(void **state)
{
    const struct vgpu_export share = exported(&first, 100);
    struct vgpu_export wrong = share;

    (void)state;
    for (unsigned bit = 0; bit < 8 * sizeof(wrong.key); bit++) {
        wrong.key[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(import(&second, &wrong), VGPU_LINK_UNKNOWN);
        wrong.key[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    wrong.kind = VGPU_EXPORT_EVENT;
    assert_int_equal(import(&second, &wrong), VGPU_LINK_UNKNOWN);
    assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
}

static void test_key_that_was_withdrawn(void **state)
{
    const struct vgpu_export share = exported(&first, 100);
    struct vgpu_export next;

    (void)state;
    assert_int_equal(withdrawn(&first, &share), 100);
    next = exported(&first, 200);
    assert_int_equal(import(&second, &share), VGPU_LINK_UNKNOWN);
    assert_int_equal(import(&second, &next), VGPU_LINK_DONE_WELL);
    assert_memory_not_equal(share.key, next.key, sizeof(next.key));
}

/* Without a first export there is no table yet. */
static void test_import_before_anything_is_exported(void **state)
{
    const struct vgpu_export share = memory(1);

    (void)state;
    assert_int_equal(import(&second, &share), VGPU_LINK_UNKNOWN);
}

static void test_own_export(void **state)
{
    const struct vgpu_export share = exported(&first, 100);

    (void)state;
    assert_int_equal(import(&first, &share), VGPU_LINK_OWN);
}

/* Memory ------------------------------------------------------------------------------------- */

static void test_memory_is_there_until_all_have_released_it(void **state)
{
    const struct vgpu_export share = exported(&first, 100);

    (void)state;
    assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(withdrawn(&first, &share), 0);
    assert_int_equal(released(&second, &share), 0);
    assert_int_equal(released(&second, &share), 100);
}

static void test_release_while_it_is_exported(void **state)
{
    const struct vgpu_export share = exported(&first, 100);

    (void)state;
    assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(released(&second, &share), 0);
    assert_int_equal(withdrawn(&first, &share), 100);
}

static void test_exporter_that_ends(void **state)
{
    const struct vgpu_export held = exported(&first, 100), other_one = exported(&first, 7);
    struct estate estate;

    (void)state;
    assert_int_equal(import(&second, &held), VGPU_LINK_DONE_WELL);
    sharer_leave(&first, &estate);
    assert_int_equal(estate.memory, 5);
    assert_int_equal(estate.events, 6);
    assert_int_equal(estate.kept, 100);
    assert_int_equal(estate.freed, 0);
    assert_int_equal(estate.count, 1);
    free(estate.still_had);
    assert_int_equal(import(&second, &other_one), VGPU_LINK_UNKNOWN);
    assert_int_equal(import(&second, &held), VGPU_LINK_UNKNOWN);
    assert_int_equal(released(&second, &held), 100);
}

static void test_importer_that_ends(void **state)
{
    const struct vgpu_export share = exported(&first, 100), gone = exported(&first, 30);
    struct estate estate;

    (void)state;
    assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&second, &gone), VGPU_LINK_DONE_WELL);
    assert_int_equal(withdrawn(&first, &gone), 0);
    sharer_leave(&second, &estate);
    assert_int_equal(estate.memory, -1);
    assert_int_equal(estate.kept, 0);
    assert_int_equal(estate.freed, 30);
    assert_null(estate.still_had);
    assert_int_equal(withdrawn(&first, &share), 100);
}

/* It counts by itself, so the first one's is nobody's when that has withdrawn it. */
static void test_importer_of_another_account(void **state)
{
    const struct vgpu_export share = exported(&first, 100);
    struct vgpu_export asked = question(&share);
    uint64_t freed;
    int file;

    (void)state;
    assert_int_equal(sharer_import(&other, &asked, &file), VGPU_LINK_DONE_WELL);
    assert_true(asked.foreign);
    assert_int_equal(sharer_release(&other, &share, &freed), -EPROTO);
    assert_int_equal(withdrawn(&first, &share), 100);
}

/* Events ------------------------------------------------------------------------------------- */

static void test_event(void **state)
{
    struct vgpu_export share = {.kind = VGPU_EXPORT_EVENT, .name = "event"};

    (void)state;
    assert_int_equal(sharer_export(&first, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&other, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(withdrawn(&first, &share), 0);
    assert_int_equal(import(&second, &share), VGPU_LINK_UNKNOWN);
    assert_int_equal(released(&second, &share), 0);
    assert_int_equal(released(&other, &share), 0);
}

static int visited[4];
static unsigned visits;

static void visit(const struct sharer *sharer, int file)
{
    assert_ptr_equal(sharer, &second);
    visited[visits++] = file;
}

/* Whose words a session may have: its own, and those of each whose event it has. */
static void test_files_of_events(void **state)
{
    struct vgpu_export share = {.kind = VGPU_EXPORT_EVENT}, more = share, gone = share;
    const struct vgpu_export memory_too = exported(&first, 10);

    (void)state;
    second.events = 7;
    other.events = 8;
    assert_int_equal(sharer_export(&first, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_export(&first, &more), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_export(&other, &gone), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&second, &memory_too), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&second, &gone), VGPU_LINK_DONE_WELL);
    assert_int_equal(withdrawn(&other, &gone), 0);
    visits = 0;
    sharer_visit_events(&second, visit);
    assert_int_equal(visits, 2);
    assert_int_equal(visited[0], 7);
    assert_int_equal(visited[1], 6);
}

/* What others have of an ended session's memory, in order; all else is to be freed. */
static void test_memory_that_is_left(void **state)
{
    struct vgpu_export shares[5];
    struct estate estate;

    (void)state;
    for (uint64_t i = 0; i < 5; i++) {
        const uint64_t start = 100000 * (5 - i);

        shares[i] = memory(4096 * (i + 1));
        memcpy(shares[i].name, &start, sizeof(start));
        assert_int_equal(sharer_export(&first, &shares[i]), VGPU_LINK_DONE_WELL);
    }
    assert_int_equal(import(&second, &shares[1]), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&second, &shares[3]), VGPU_LINK_DONE_WELL);
    sharer_leave(&first, &estate);
    assert_int_equal(estate.count, 2);
    assert_int_equal(estate.still_had[0].start, 200000);
    assert_int_equal(estate.still_had[0].bytes, 4096 * 4);
    assert_int_equal(estate.still_had[1].start, 400000);
    assert_int_equal(estate.still_had[1].bytes, 4096 * 2);
    free(estate.still_had);
}

/* A session that begins anew is another one, with other files. */
static void test_next_session_has_another_number(void **state)
{
    const uint64_t before = first.session;
    struct estate estate;

    (void)state;
    sharer_leave(&first, &estate);
    sharer_init(&first, domain, &vm);
    assert_int_not_equal(first.session, before);
    assert_int_equal(first.events, -1);
}

/* What a worker may not do -------------------------------------------------------------------- */

static void test_kinds_that_there_are_not(void **state)
{
    struct vgpu_export share = memory(1);

    (void)state;
    share.kind = 0;
    assert_int_equal(sharer_export(&first, &share), -EPROTO);
    share.kind = VGPU_EXPORT_EVENT + 1;
    assert_int_equal(sharer_export(&first, &share), -EPROTO);
    share.kind = VGPU_EXPORT_EVENT; /* with bytes */
    assert_int_equal(sharer_export(&first, &share), -EPROTO);
}

static void test_what_is_another_ones(void **state)
{
    const struct vgpu_export share = exported(&first, 100);
    uint64_t freed = 1;

    (void)state;
    assert_int_equal(sharer_withdraw(&second, &share, &freed), -EPROTO);
    assert_int_equal(freed, 0);
    assert_int_equal(sharer_release(&second, &share, &freed), -EPROTO);
    assert_int_equal(withdrawn(&first, &share), 100);
    assert_int_equal(sharer_withdraw(&first, &share, &freed), -EPROTO);
}

static void test_no_more_than_so_many(void **state)
{
    struct vgpu_export share = memory(1), last;

    (void)state;
    for (unsigned i = 0; i < VGPU_EXPORTS_MAX; i++) {
        last = exported(&first, 1);
    }
    assert_int_equal(sharer_export(&first, &share), VGPU_LINK_FULL);
    for (unsigned i = 0; i < VGPU_EXPORTS_MAX; i++) {
        assert_int_equal(import(&second, &last), VGPU_LINK_DONE_WELL);
    }
    assert_int_equal(import(&second, &last), VGPU_LINK_FULL);
    assert_int_equal(withdrawn(&first, &last), 0);
    exported(&first, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_key_finds_what_it_is_of),
        TEST(test_any_other_key_finds_nothing),
        TEST(test_key_that_was_withdrawn),
        TEST(test_import_before_anything_is_exported),
        TEST(test_own_export),
        TEST(test_memory_is_there_until_all_have_released_it),
        TEST(test_release_while_it_is_exported),
        TEST(test_exporter_that_ends),
        TEST(test_importer_that_ends),
        TEST(test_importer_of_another_account),
        TEST(test_event),
        TEST(test_files_of_events),
        TEST(test_memory_that_is_left),
        TEST(test_next_session_has_another_number),
        TEST(test_kinds_that_there_are_not),
        TEST(test_what_is_another_ones),
        TEST(test_no_more_than_so_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
