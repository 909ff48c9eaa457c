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
static struct export_record records[2], kept[2]; /* of the first two; and as they were */
static uint32_t number;                          /* of the last message, whoever's it was */

static int set_up(void **state)
{
    (void)state;
    domain = exports_new();
    if (!domain) {
        return -1;
    }
    memset(records, 0, sizeof(records));
    number = 0;
    sharer_init(&first, domain, &vm, &records[0]);
    sharer_init(&second, domain, &vm, &records[1]);
    sharer_init(&other, exports_ref(domain), &other_vm, NULL);
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

    assert_int_equal(sharer_export(sharer, &share, ++number), VGPU_LINK_DONE_WELL);
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

    return sharer_import(sharer, &asked, &file, ++number);
}

static uint64_t released(struct sharer *sharer, const struct vgpu_export *share)
{
    uint64_t freed = 1;

    assert_int_equal(sharer_release(sharer, share, &freed, ++number), 0);
    return freed;
}

static uint64_t withdrawn(struct sharer *sharer, const struct vgpu_export *share)
{
    uint64_t freed = 1;

    assert_int_equal(sharer_withdraw(sharer, share, &freed, ++number), 0);
    return freed;
}

/* Keys --------------------------------------------------------------------------------------- */

static void test_key_finds_what_it_is_of(void **state)
{
    const struct vgpu_export share = exported(&first, 100);
    struct vgpu_export asked = question(&share);
    int file = -1;

    (void)state;
    assert_int_equal(sharer_import(&second, &asked, &file, ++number), VGPU_LINK_DONE_WELL);
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
    assert_int_equal(sharer_import(&other, &asked, &file, ++number), VGPU_LINK_DONE_WELL);
    assert_true(asked.foreign);
    assert_int_equal(sharer_release(&other, &share, &freed, ++number), -EPROTO);
    assert_int_equal(withdrawn(&first, &share), 100);
}

/* Events ------------------------------------------------------------------------------------- */

static void test_event(void **state)
{
    struct vgpu_export share = {.kind = VGPU_EXPORT_EVENT, .name = "event"};

    (void)state;
    assert_int_equal(sharer_export(&first, &share, ++number), VGPU_LINK_DONE_WELL);
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
    assert_int_equal(sharer_export(&first, &share, ++number), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_export(&first, &more, ++number), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_export(&other, &gone, ++number), VGPU_LINK_DONE_WELL);
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
        assert_int_equal(sharer_export(&first, &shares[i], ++number), VGPU_LINK_DONE_WELL);
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
    sharer_init(&first, domain, &vm, NULL);
    assert_int_not_equal(first.session, before);
    assert_int_equal(first.events, -1);
}

/* What a worker may not do -------------------------------------------------------------------- */

static void test_kinds_that_there_are_not(void **state)
{
    struct vgpu_export share = memory(1);

    (void)state;
    share.kind = 0;
    assert_int_equal(sharer_export(&first, &share, ++number), -EPROTO);
    share.kind = VGPU_EXPORT_EVENT + 1;
    assert_int_equal(sharer_export(&first, &share, ++number), -EPROTO);
    share.kind = VGPU_EXPORT_EVENT; /* with bytes */
    assert_int_equal(sharer_export(&first, &share, ++number), -EPROTO);
}

static void test_what_is_another_ones(void **state)
{
    const struct vgpu_export share = exported(&first, 100);
    uint64_t freed = 1;

    (void)state;
    assert_int_equal(sharer_withdraw(&second, &share, &freed, ++number), -EPROTO);
    assert_int_equal(freed, 0);
    assert_int_equal(sharer_release(&second, &share, &freed, ++number), -EPROTO);
    assert_int_equal(withdrawn(&first, &share), 100);
    assert_int_equal(sharer_withdraw(&first, &share, &freed, ++number), -EPROTO);
}

static void test_no_more_than_so_many(void **state)
{
    struct vgpu_export share = memory(1), last;

    (void)state;
    for (unsigned i = 0; i < VGPU_EXPORTS_MAX; i++) {
        last = exported(&first, 1);
    }
    assert_int_equal(sharer_export(&first, &share, ++number), VGPU_LINK_FULL);
    for (unsigned i = 0; i < VGPU_EXPORTS_MAX; i++) {
        assert_int_equal(import(&second, &last), VGPU_LINK_DONE_WELL);
    }
    assert_int_equal(import(&second, &last), VGPU_LINK_FULL);
    assert_int_equal(withdrawn(&first, &last), 0);
    exported(&first, 1);
}

/* Another mediator -------------------------------------------------------------------------- */

/* It finds the records as they are, those of the first two in either order. */
static void change_mediators(bool second_first)
{
    struct sharer *const sharers[] = {second_first ? &second : &first,
                                      second_first ? &first : &second};
    struct export_record *const theirs[] = {&records[second_first], &records[!second_first]};

    memcpy(kept, records, sizeof(kept));
    tear_down(NULL);
    memcpy(records, kept, sizeof(records));
    domain = exports_new();
    assert_non_null(domain);
    sharer_init(&other, exports_ref(domain), &other_vm, NULL);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(sharer_restore(sharers[i], domain, &vm, theirs[i]), 0);
    }
}

static void test_next_mediator_has_it_all(void **state)
{
    (void)state;
    for (unsigned order = 0; order < 2; order++) {
        const struct vgpu_export share = exported(&first, 100), gone = exported(&first, 20);
        const uint64_t session = first.session;
        struct vgpu_export fresh;

        assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
        assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
        assert_int_equal(import(&second, &gone), VGPU_LINK_DONE_WELL);
        assert_int_equal(withdrawn(&first, &gone), 0);
        change_mediators(order == 1);
        assert_int_equal(first.session, session);
        assert_int_equal(import(&first, &share), VGPU_LINK_OWN);
        assert_int_equal(import(&other, &share), VGPU_LINK_DONE_WELL);
        assert_int_equal(import(&second, &gone), VGPU_LINK_UNKNOWN);
        /* No key is anybody's twice, and those that were free are so again. */
        for (unsigned i = 0; i < 40; i++) {
            fresh = exported(&first, 1);
            assert_memory_not_equal(fresh.key, share.key, 4);
            assert_memory_not_equal(fresh.key, gone.key, 4);
            assert_int_equal(withdrawn(&first, &fresh), 1);
        }
        assert_int_equal(released(&second, &gone), 20);
        assert_int_equal(released(&second, &share), 0);
        change_mediators(order == 0);
        assert_int_equal(withdrawn(&first, &share), 0);
        assert_int_equal(released(&second, &share), 100);
        change_mediators(order == 1);
        assert_int_equal(first.export_count + second.import_count, 0);
        assert_true(list_empty(&first.exports) && list_empty(&second.imports));
    }
}

/* Of which it is not known whether the last mediator has carried them out. */
static void test_messages_that_come_twice(void **state)
{
    struct vgpu_export share = memory(100), again = memory(100), asked;
    uint64_t freed = 1;
    int file;

    (void)state;
    assert_int_equal(sharer_export(&first, &share, 1), VGPU_LINK_DONE_WELL);
    change_mediators(false);
    assert_int_equal(sharer_export(&first, &again, 1), VGPU_LINK_DONE_WELL);
    assert_memory_equal(again.key, share.key, sizeof(share.key));
    assert_int_equal(first.export_count, 1);

    asked = question(&share);
    assert_int_equal(sharer_import(&second, &asked, &file, 1), VGPU_LINK_DONE_WELL);
    change_mediators(false);
    asked = question(&share);
    assert_int_equal(sharer_import(&second, &asked, &file, 1), VGPU_LINK_DONE_WELL);
    assert_int_equal(asked.bytes, 100);
    assert_int_equal(second.import_count, 1);

    assert_int_equal(sharer_withdraw(&first, &share, &freed, 2), 0);
    change_mediators(true);
    assert_int_equal(sharer_withdraw(&first, &share, &freed, 2), 0);
    assert_int_equal(freed, 0);
    assert_int_equal(sharer_release(&second, &share, &freed, 2), 0);
    assert_int_equal(freed, 100);
    change_mediators(true);
    assert_int_equal(sharer_release(&second, &share, &freed, 2), 0);
    assert_int_equal(freed, 0);
    /* What was refused is looked at anew. */
    asked = question(&share);
    assert_int_equal(sharer_import(&second, &asked, &file, 3), VGPU_LINK_UNKNOWN);
    change_mediators(true);
    asked = question(&share);
    assert_int_equal(sharer_import(&second, &asked, &file, 3), VGPU_LINK_UNKNOWN);
}

/* Memory that was withdrawn before its importer had the answer: it releases it. */
static void test_withdrawn_before_the_answer(void **state)
{
    struct vgpu_export share = memory(100), event = {.kind = VGPU_EXPORT_EVENT}, asked;
    uint64_t freed = 1;
    int file;

    (void)state;
    assert_int_equal(sharer_export(&first, &share, 1), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_export(&first, &event, 2), VGPU_LINK_DONE_WELL);
    asked = question(&share);
    assert_int_equal(sharer_import(&second, &asked, &file, 1), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_withdraw(&first, &share, &freed, 3), 0);
    change_mediators(false);
    asked = question(&share);
    assert_int_equal(sharer_import(&second, &asked, &file, 1), VGPU_LINK_DONE_WELL);
    assert_int_equal(file, -1);
    assert_int_equal(sharer_release(&second, &asked, &freed, 2), 0);
    assert_int_equal(freed, 100);

    asked = question(&event);
    assert_int_equal(sharer_import(&second, &asked, &file, 3), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_withdraw(&first, &event, &freed, 4), 0);
    change_mediators(false);
    asked = question(&event);
    assert_int_equal(sharer_import(&second, &asked, &file, 3), VGPU_LINK_UNKNOWN);
    assert_int_equal(second.import_count, 0);
}

/* A worker may say a number again with something else: it gets what it would get by a new one. */
static void test_numbers_that_lie(void **state)
{
    struct vgpu_export a = {.kind = VGPU_EXPORT_EVENT}, b = a, one = memory(1), two = memory(2);
    struct vgpu_export asked;
    uint64_t freed;
    int file;

    (void)state;
    assert_int_equal(sharer_export(&first, &a, 1), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_export(&first, &b, 2), VGPU_LINK_DONE_WELL);
    asked = question(&a);
    assert_int_equal(sharer_import(&second, &asked, &file, 1), VGPU_LINK_DONE_WELL);
    /* Not noted as the first is. */
    asked = question(&b);
    assert_int_equal(sharer_import(&second, &asked, &file, 1), VGPU_LINK_DONE_WELL);
    assert_int_equal(second.import_count, 2);
    assert_int_equal(sharer_withdraw(&first, &b, &freed, 3), 0);
    assert_int_equal(sharer_release(&second, &b, &freed, 2), 0);
    asked = question(&b);
    assert_int_equal(sharer_import(&second, &asked, &file, 1), VGPU_LINK_UNKNOWN);
    /* Of another kind, or size. */
    assert_int_equal(sharer_export(&first, &one, 4), VGPU_LINK_DONE_WELL);
    assert_int_equal(sharer_export(&first, &two, 4), VGPU_LINK_DONE_WELL);
    assert_memory_not_equal(one.key, two.key, sizeof(one.key));
}

/* Importers know a session by its number, also one that has ended: nobody else gets that. */
static void test_number_of_an_ended_session(void **state)
{
    struct vgpu_export event = {.kind = VGPU_EXPORT_EVENT};
    struct estate estate;
    uint64_t number_of_first;

    (void)state;
    sharer_leave(&first, &estate);
    free(estate.still_had);
    memset(&records[0], 0, sizeof(records[0]));
    sharer_init(&first, domain, &vm, &records[0]);
    number_of_first = first.session;
    assert_true(number_of_first > second.session);
    assert_int_equal(sharer_export(&first, &event, 1), VGPU_LINK_DONE_WELL);
    assert_int_equal(import(&second, &event), VGPU_LINK_DONE_WELL);
    sharer_leave(&first, &estate);
    free(estate.still_had);
    memset(&records[0], 0, sizeof(records[0]));
    sharer_init(&first, domain, &vm, &records[0]);
    records[0].session = 1; /* as if it had been there all the time */
    change_mediators(false);
    sharer_leave(&other, &estate);
    sharer_init(&other, domain, &other_vm, NULL);
    assert_true(other.session > number_of_first);
}

/* A record that nobody can have written ends in an error, and in nothing worse. */
static void test_damaged_records(void **state)
{
    const struct vgpu_export share = exported(&first, 100);
    struct vgpu_export *place = &records[0].exports[0].share;
    const uint32_t far = UINT32_MAX;
    struct estate estate;

    (void)state;
    assert_int_equal(import(&second, &share), VGPU_LINK_DONE_WELL);
    memcpy(kept, records, sizeof(kept));
    for (unsigned damage = 0; damage < 5; damage++) {
        struct export_record *damaged = damage == 2 ? &records[1] : &records[0];

        sharer_leave(&first, &estate);
        free(estate.still_had);
        sharer_leave(&second, &estate);
        free(estate.still_had);
        memcpy(records, kept, sizeof(records));
        switch (damage) {
        case 0: /* exported twice */
            records[0].exports[1] = records[0].exports[0];
            records[0].exports_used = 2;
            break;
        case 1:
            memcpy(place->key, &far, sizeof(far));
            break;
        case 3:
            records[0].session = 0;
            break;
        case 4:
            records[0].imports_used = VGPU_EXPORTS_MAX + 1;
            break;
        default:
            records[1].imports[0].state = UINT32_MAX;
            break;
        }
        assert_true(sharer_restore(&first, domain, &vm, damaged) < 0);
        first.memory = 5;
        sharer_leave(&first, &estate);
        /* More of its memory may be others' than is known. */
        assert_true(estate.count == SIZE_MAX);
        free(estate.still_had);
        sharer_init(&first, domain, &vm, NULL);
        sharer_init(&second, domain, &vm, NULL);
    }
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
        TEST(test_next_mediator_has_it_all),
        TEST(test_messages_that_come_twice),
        TEST(test_withdrawn_before_the_answer),
        TEST(test_numbers_that_lie),
        TEST(test_number_of_an_ended_session),
        TEST(test_damaged_records),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
