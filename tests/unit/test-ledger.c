/* SPDX-License-Identifier: MIT */
/*
 * Device memory of a VM: its sessions together never have more than its limit, and what is freed
 * is what was allocated. The sessions are threads here; a worker process does nothing else.
 *
 * Tests: worker/ledger.c
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/shared.h"
#include "tests/unit/unit.h"
#include "worker/ledger.h"

#define LIMIT 100000u
#define SESSIONS 4
#define ROUNDS 50000

static struct vgpu_account_page account;
static struct vgpu_counters counters;
static struct ledger ledger;

static int set_up(void **state)
{
    (void)state;
    account = (struct vgpu_account_page){.limit = LIMIT};
    counters = (struct vgpu_counters){0};
    ledger = (struct ledger){.account = &account, .counters = &counters};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ledger_release(&ledger);
    return 0;
}

/* The limit ---------------------------------------------------------------------------------- */

static void test_limit_is_exact(void **state)
{
    (void)state;
    assert_true(ledger_reserve(&ledger, LIMIT - 1));
    assert_false(ledger_reserve(&ledger, 2));
    assert_true(ledger_reserve(&ledger, 1));
    assert_false(ledger_reserve(&ledger, 1));
    assert_int_equal(account.used, LIMIT);
    assert_int_equal(counters.memory, LIMIT);
    ledger_return(&ledger, 1);
    assert_false(ledger_reserve(&ledger, 2));
    assert_true(ledger_reserve(&ledger, 1));
}

static void test_sums_that_wrap(void **state)
{
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - LIMIT + 1};

    (void)state;
    assert_true(ledger_reserve(&ledger, 2));
    for (int limited = 1; limited >= 0; limited--) {
        account.limit = limited ? LIMIT : 0;
        for (size_t i = 0; i < 2; i++) {
            assert_false(ledger_reserve(&ledger, sizes[i]));
        }
    }
    account.limit = LIMIT;
    assert_false(ledger_reserve(&ledger, sizes[2]));
    assert_int_equal(account.used, 2);
}

static void test_no_limit(void **state)
{
    (void)state;
    account.limit = 0;
    assert_true(ledger_reserve(&ledger, UINT64_C(1) << 50));
    assert_int_equal(account.used, UINT64_C(1) << 50);
}

/* An administrator lowers it: nothing is taken away, and no more is given until enough is free. */
static void test_limit_lowered_below_what_is_used(void **state)
{
    uint64_t free_bytes = 1000000, total = 2000000;

    (void)state;
    assert_true(ledger_reserve(&ledger, 1000));
    assert_true(ledger_note(&ledger, 256, 600));
    assert_true(ledger_note(&ledger, 512, 400));
    account.limit = 500;
    assert_false(ledger_reserve(&ledger, 1));
    ledger_limit(&ledger, &free_bytes, &total);
    assert_int_equal(free_bytes, 0);
    assert_int_equal(total, 500);
    ledger_free(&ledger, 256);
    assert_false(ledger_reserve(&ledger, 101));
    assert_true(ledger_reserve(&ledger, 100));
}

static void test_what_a_guest_is_told(void **state)
{
    uint64_t free_bytes = 50, total = 2 * LIMIT;

    (void)state;
    account.used = 10;
    ledger_limit(&ledger, &free_bytes, &total);
    assert_int_equal(free_bytes, 50); /* less is free on the GPU */
    assert_int_equal(total, LIMIT);
    free_bytes = total = 2 * LIMIT;
    ledger_limit(&ledger, &free_bytes, &total);
    assert_int_equal(free_bytes, LIMIT - 10);
    account.limit = 0;
    free_bytes = total = 2 * LIMIT;
    ledger_limit(&ledger, &free_bytes, &total);
    assert_int_equal(free_bytes, 2 * LIMIT);
    assert_int_equal(total, 2 * LIMIT);
}

/* Several sessions ---------------------------------------------------------------------------- */

/* One of the VM's sessions: allocates and frees at random. Returns whether the limit held. */
static bool run_session(struct vgpu_account_page *page, unsigned seed)
{
    struct vgpu_counters own = {0};
    struct ledger l = {.account = page, .counters = &own};
    uint64_t sizes[16] = {0};
    uint64_t mine = 0;
    bool held = true;

    for (int i = 0; i < ROUNDS; i++) {
        const size_t at = (size_t)rand_r(&seed) % 16;
        const uint64_t bytes = (uint64_t)rand_r(&seed) % (LIMIT / 4);

        if (sizes[at] != 0) {
            ledger_free(&l, 256 * (at + 1));
            mine -= sizes[at];
            sizes[at] = 0;
        } else if (bytes != 0 && ledger_reserve(&l, bytes)) {
            held = held && ledger_note(&l, 256 * (at + 1), bytes);
            sizes[at] = bytes;
            mine += bytes;
        }
        held = held && own.memory == mine && shared_load64(&page->used) <= LIMIT &&
               shared_load64(&page->used) >= mine;
    }
    for (size_t at = 0; at < 16; at++) {
        ledger_free(&l, 256 * (at + 1));
    }
    held = held && own.memory == 0;
    ledger_release(&l);
    return held;
}

static void *session_thread(void *argument)
{
    return run_session(&account, (unsigned)(uintptr_t)argument) ? NULL : &account;
}

static void test_sessions_in_threads(void **state)
{
    pthread_t threads[SESSIONS];

    (void)state;
    for (uintptr_t i = 0; i < SESSIONS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, session_thread, (void *)(i + 1)), 0);
    }
    for (int i = 0; i < SESSIONS; i++) {
        void *wrong;

        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    assert_int_equal(account.used, 0);
}

static void test_sessions_in_processes(void **state)
{
    struct vgpu_account_page *page = mmap(NULL, VGPU_ACCOUNT_PAGE_SIZE, PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(page, MAP_FAILED);
    page->limit = LIMIT;
    for (unsigned i = 0; i < SESSIONS; i++) {
        const pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            _exit(run_session(page, i + 1) ? 0 : 1);
        }
    }
    for (unsigned i = 0; i < SESSIONS; i++) {
        int status = -1;

        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(page->used, 0);
    munmap(page, VGPU_ACCOUNT_PAGE_SIZE);
}

/* The table ---------------------------------------------------------------------------------- */

static void note(uint64_t address, uint64_t bytes)
{
    assert_true(ledger_reserve(&ledger, bytes));
    assert_true(ledger_note(&ledger, address, bytes));
}

static void test_free_of_what_was_not_noted(void **state)
{
    (void)state;
    ledger_free(&ledger, 256);
    ledger_free(&ledger, 0);
    note(256, 10);
    ledger_free(&ledger, 0);
    ledger_free(&ledger, 257);
    ledger_free(&ledger, 512);
    assert_int_equal(account.used, 10);
    ledger_free(&ledger, 256);
    ledger_free(&ledger, 256);
    assert_int_equal(account.used, 0);
    assert_int_equal(ledger.count, 0);
}

#define PLACES 3000u

static uint64_t model[PLACES]; /* bytes at each address; 0: nothing there */

/* Granules as the GPU gives them, in rows with gaps, so that many meet in the table. */
static uint64_t address_of(size_t place)
{
    return UINT64_C(0x7f0000000000) + place * (place % 3 == 0 ? 512 : UINT64_C(1) << 21);
}

/* Whether each is found from its own place on, and nothing else is in there. */
static void check_table(void)
{
    size_t count = 0, entries = 0;

    for (size_t i = 0; i < PLACES; i++) {
        count += model[i] != 0;
    }
    for (size_t i = 0; i < ledger.room; i++) {
        entries += ledger.entries[i].address != 0;
    }
    assert_int_equal(ledger.count, count);
    assert_int_equal(entries, count);
    assert_true(ledger.count * 2 <= ledger.room);
}

static void test_table_against_a_model(void **state)
{
    unsigned seed = 1;
    uint64_t used = 0;

    (void)state;
    account.limit = 0;
    memset(model, 0, sizeof(model));
    for (int i = 0; i < 200000; i++) {
        /* Now more, now less of them: the table grows and empties. */
        const size_t range = i / 20000 % 2 == 0 ? PLACES : 40;
        const size_t at = (size_t)rand_r(&seed) % range;

        if (model[at] != 0) {
            ledger_free(&ledger, address_of(at));
            used -= model[at];
            model[at] = 0;
        } else if (i / 20000 % 3 != 2) {
            model[at] = 1 + (uint64_t)rand_r(&seed) % 1000;
            used += model[at];
            note(address_of(at), model[at]);
        } else {
            ledger_free(&ledger, address_of(at)); /* nothing is there */
        }
        assert_int_equal(account.used, used);
        if (i % 1000 == 0) {
            check_table();
        }
    }
    for (size_t i = 0; i < PLACES; i++) {
        if (model[i] != 0) {
            ledger_free(&ledger, address_of(i));
            used -= model[i];
            model[i] = 0;
            assert_int_equal(account.used, used);
        }
    }
    assert_int_equal(used, 0);
    check_table();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_limit_is_exact),
        TEST(test_sums_that_wrap),
        TEST(test_no_limit),
        TEST(test_limit_lowered_below_what_is_used),
        TEST(test_what_a_guest_is_told),
        TEST(test_sessions_in_threads),
        TEST(test_sessions_in_processes),
        TEST(test_free_of_what_was_not_noted),
        TEST(test_table_against_a_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
