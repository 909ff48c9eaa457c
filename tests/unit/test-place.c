/* SPDX-License-Identifier: MIT */
/*
 * Things at given addresses: several in a page, one over two pages, and nothing at all where
 * something of the process is.
 *
 * Tests: guest/libcuda/state/place.c
 */
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/libcuda/state/place.h"
#include "tests/unit/unit.h"

/* Of linux/prctl.h, where that is new enough. */
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

#define PAGE 4096u
#define PAGES 4u

/* The first of some pages where nothing is: they were mapped just now. */
static uint64_t free_pages(void)
{
    void *pages = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(pages, MAP_FAILED);
    munmap(pages, PAGES * PAGE);
    return (uintptr_t)pages;
}

static bool is_free(uint64_t page)
{
    void *got = mmap((void *)(uintptr_t)page, PAGE, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (got != MAP_FAILED) {
        munmap(got, PAGE);
    }
    return got != MAP_FAILED;
}

static void test_several_places(void **state)
{
    /* MOV EAX, 7; RET */
    static const uint8_t code[] = {0xb8, 7, 0, 0, 0, 0xc3};
    static const char first[] = "first", second[] = "second, over the edge of a page";
    const uint64_t from = free_pages();
    const struct place places[] = {
        {from + 16, first, sizeof(first)},
        {from + PAGE - 8, second, sizeof(second)},
        {from + 3 * PAGE + 100, code, sizeof(code)},
    };
    int (*function)(void);
    const uint64_t address = from + 3 * PAGE + 100;

    (void)state;
    assert_int_equal(place_all(places, 3), PLACE_DONE);
    assert_string_equal((const char *)(uintptr_t)(from + 16), first);
    assert_string_equal((const char *)(uintptr_t)(from + PAGE - 8), second);
    memcpy(&function, &address, sizeof(function));
    assert_int_equal(function(), 7);
    assert_true(is_free(from + 2 * PAGE));
    munmap((void *)(uintptr_t)from, PAGES * PAGE);
}

static void test_all_or_nothing(void **state)
{
    const uint64_t from = free_pages();
    int own = 5;
    const struct place places[] = {
        {from, "x", 1},
        {from + 2 * PAGE, "y", 1},
        {(uintptr_t)&own, "z", 1},
    };

    (void)state;
    assert_int_equal(place_all(places, 3), PLACE_TAKEN);
    assert_int_equal(own, 5);
    assert_true(is_free(from));
    assert_true(is_free(from + 2 * PAGE));
}

static void test_impossible_places(void **state)
{
    const uint64_t from = free_pages();
    const struct place none = {from, "x", 0}, large = {from, "x", PAGE + 1}, zero = {0, "x", 1},
                       many[PLACE_MOST + 1] = {{0}};

    (void)state;
    assert_int_equal(place_all(&none, 1), PLACE_TAKEN);
    assert_int_equal(place_all(&large, 1), PLACE_TAKEN);
#ifndef __SANITIZE_THREAD__ /* which makes address 0 of one that it does not know */
    const struct place kernel = {UINT64_MAX - 100, "x", 8};

    assert_int_equal(place_all(&kernel, 1), PLACE_TAKEN);
#endif
    assert_int_equal(place_all(many, PLACE_MOST + 1), PLACE_TAKEN);
    assert_int_equal(place_all(&zero, 1), PLACE_TAKEN);
    assert_true(is_free(from));
}

/* In a process of its own, since that cannot be undone. */
static void test_process_that_may_execute_nothing(void **state)
{
    const uint64_t from = free_pages();
    const struct place place = {from, "x", 1};
    int status;
    const pid_t child = fork();

    (void)state;
    if (child == 0) {
        if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0) {
            _exit(77);
        }
        _exit(place_all(&place, 1) == PLACE_REFUSED && is_free(from) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        skip(); /* a kernel before 6.3 */
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_places),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_impossible_places),
        cmocka_unit_test(test_process_that_may_execute_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
