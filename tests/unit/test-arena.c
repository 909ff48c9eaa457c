/* SPDX-License-Identifier: MIT */
/*
 * How guest processes share out the arena: a part that is free, of the size that was asked for,
 * whatever others have written into the list of parts.
 *
 * Tests: guest/libvgpu/queue.c
 */
#include <stdlib.h>

#include "guest/libvgpu/internal.h"
#include "tests/unit/unit.h"

#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)
#define START (6 * MIB)

static struct vgpu_arena_part taken[VGPU_MAX_QUEUES + 1];
static struct vgpu_arena_part part;
static struct vgpu_arena_request request;

static int set_up(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= VGPU_MAX_QUEUES; i++) {
        taken[i] = (struct vgpu_arena_part){0};
    }
    request = (struct vgpu_arena_request){
        .start = START,
        .end = START + 64 * MIB,
        .taken = taken,
        .count = VGPU_MAX_QUEUES + 1,
        .share = 4,
    };
    return 0;
}

static void assert_part(uint64_t offset, uint64_t size)
{
    assert_true(vgpu_arena_choose(&request, &part));
    assert_int_equal(part.offset, offset);
    assert_int_equal(part.size, size);
}

static void take(unsigned index, uint64_t offset, uint64_t size)
{
    taken[index] = (struct vgpu_arena_part){.offset = offset, .size = size};
}

static void test_default_is_a_share_of_what_is_free(void **state)
{
    (void)state;
    assert_part(START, 16 * MIB);
    take(0, START, 16 * MIB);
    assert_part(START + 16 * MIB, 12 * MIB);
    take(1, START + 16 * MIB, 12 * MIB);
    /* A fourth of 36 MiB, in whole huge pages. */
    assert_part(START + 28 * MIB, 8 * MIB);
}

static void test_default_comes_from_the_largest_stretch(void **state)
{
    (void)state;
    take(3, START + 8 * MIB, 8 * MIB);
    assert_part(START + 16 * MIB, 12 * MIB);
}

static void test_default_in_a_small_arena(void **state)
{
    (void)state;
    request.end = START + 3 * PAGE;
    assert_part(START, PAGE);
    request.end = START + 7 * MIB;
    assert_part(START, 7 * MIB / 4);
    request.end = START + 11 * PAGE;
    assert_part(START, 2 * PAGE);
}

static void test_size_that_is_asked_for(void **state)
{
    (void)state;
    request.size = 64 * MIB;
    assert_part(START, 64 * MIB);
    request.size = 5 * PAGE;
    assert_part(START, 5 * PAGE);
    request.size = 1;
    assert_part(START, PAGE);
    request.size = PAGE + 1;
    assert_part(START, 2 * PAGE);
}

static void test_size_that_is_too_large(void **state)
{
    static const uint64_t sizes[] = {64 * MIB + 1, UINT64_MAX, UINT64_MAX - PAGE + 1,
                                     UINT64_MAX - PAGE, UINT64_C(1) << 63};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        request.size = sizes[i];
        assert_false(vgpu_arena_choose(&request, &part));
    }
}

static void test_large_parts_lie_on_huge_pages(void **state)
{
    (void)state;
    take(0, START, PAGE);
    request.size = 2 * MIB;
    assert_part(START + 2 * MIB, 2 * MIB);
    request.size = 2 * MIB - PAGE;
    assert_part(START + PAGE, 2 * MIB - PAGE);
    /* All that is left, but not at a multiple of a huge page. */
    request.size = 64 * MIB - PAGE;
    assert_false(vgpu_arena_choose(&request, &part));
    request.size = 62 * MIB;
    assert_part(START + 2 * MIB, 62 * MIB);
}

static void test_parts_in_any_order(void **state)
{
    (void)state;
    take(7, START, 16 * MIB);
    take(2, START + 32 * MIB, 32 * MIB);
    take(64, START + 16 * MIB, 8 * MIB);
    request.size = 8 * MIB;
    assert_part(START + 24 * MIB, 8 * MIB);
    request.size = 8 * MIB + PAGE;
    assert_false(vgpu_arena_choose(&request, &part));
}

static void test_nothing_free(void **state)
{
    (void)state;
    take(0, START, 64 * MIB);
    assert_false(vgpu_arena_choose(&request, &part));
    request.size = PAGE;
    assert_false(vgpu_arena_choose(&request, &part));
    /* No arena at all: the host has no queues. */
    taken[0].size = 0;
    request.end = request.start;
    assert_false(vgpu_arena_choose(&request, &part));
    request.size = 0;
    assert_false(vgpu_arena_choose(&request, &part));
}

/* Much is free, but not in one piece. */
static void test_fragments(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 32; i++) {
        take(i, START + i * 2 * MIB, MIB + (i == 20 ? 0 : PAGE));
    }
    request.size = MIB + PAGE;
    assert_false(vgpu_arena_choose(&request, &part));
    request.size = MIB;
    assert_part(START + 41 * MIB, MIB);
    request.size = MIB - PAGE;
    assert_part(START + MIB + PAGE, MIB - PAGE);
    request.size = 0;
    assert_part(START + 41 * MIB, MIB / 4);
}

/* Others of the guest's processes write the list: what cannot be takes nothing. */
static void test_garbage_in_the_list(void **state)
{
    (void)state;
    take(0, START - PAGE, 2 * PAGE);    /* begins before the arena */
    take(1, START + 64 * MIB, PAGE);    /* begins behind it */
    take(2, START + 63 * MIB, 2 * MIB); /* ends behind it */
    take(3, UINT64_MAX, UINT64_MAX);    /* wraps */
    take(4, START, UINT64_MAX - START); /* ends at 2^64 */
    take(5, START + MIB, UINT64_MAX);   /* ends before it begins */
    take(6, 0, UINT64_MAX);
    take(7, UINT64_MAX - PAGE + 1, PAGE);
    take(8, START + 5, 0); /* none */
    request.size = 64 * MIB;
    assert_part(START, 64 * MIB);
    request.size = 0;
    assert_part(START, 16 * MIB);
}

static void test_parts_that_overlap_or_are_not_aligned(void **state)
{
    (void)state;
    take(0, START, 8 * MIB);
    take(1, START + MIB, MIB);         /* within the first */
    take(2, START + 4 * MIB, 8 * MIB); /* across its end */
    take(3, START + 12 * MIB - 1, 17); /* ends where no page does */
    request.size = PAGE;
    assert_part(START + 12 * MIB + PAGE, PAGE);
    request.size = 4 * MIB;
    assert_part(START + 14 * MIB, 4 * MIB);
}

static void test_every_place_of_the_list_counts(void **state)
{
    (void)state;
    request.end = START + (VGPU_MAX_QUEUES + 2) * PAGE;
    for (unsigned i = 0; i <= VGPU_MAX_QUEUES; i++) {
        take(i, START + i * PAGE, PAGE);
    }
    request.size = PAGE;
    assert_part(START + (VGPU_MAX_QUEUES + 1) * PAGE, PAGE);
    request.end -= PAGE;
    assert_false(vgpu_arena_choose(&request, &part));
}

/* Whether so many pages from this one on are free, as a list of pages says it. */
static bool pages_free(const bool *used, unsigned count, unsigned first, unsigned pages)
{
    for (unsigned i = first; i < first + pages; i++) {
        if (i >= count || used[i]) {
            return false;
        }
    }
    return true;
}

/*
 * Against the simplest model: a part that is found is free, and the first one that fits; if none is
 * found, there is none.
 */
static void test_random_lists(void **state)
{
    enum { PAGES = 96 };
    unsigned found = 0, missed = 0;

    srand(1);
    for (int round = 0; round < 20000; round++) {
        bool used[PAGES] = {false};
        unsigned first = 0;
        unsigned pages;

        set_up(state);
        request.end = START + PAGES * PAGE;
        for (int i = rand() % 24; i > 0; i--) {
            const unsigned offset = (unsigned)rand() % PAGES;
            const unsigned size = 1 + (unsigned)rand() % 12;

            take((unsigned)i, START + offset * PAGE, size * PAGE);
            for (unsigned p = offset; offset + size <= PAGES && p < offset + size; p++) {
                used[p] = true;
            }
        }
        pages = 1 + (unsigned)rand() % 16;
        request.size = pages * PAGE;
        while (first < PAGES && !pages_free(used, PAGES, first, pages)) {
            first++;
        }
        if (first < PAGES) {
            assert_part(START + first * PAGE, pages * PAGE);
            found++;
        } else {
            assert_false(vgpu_arena_choose(&request, &part));
            missed++;
        }
    }
    assert_true(found > 1000 && missed > 1000);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_default_is_a_share_of_what_is_free),
        TEST(test_default_comes_from_the_largest_stretch),
        TEST(test_default_in_a_small_arena),
        TEST(test_size_that_is_asked_for),
        TEST(test_size_that_is_too_large),
        TEST(test_large_parts_lie_on_huge_pages),
        TEST(test_parts_in_any_order),
        TEST(test_nothing_free),
        TEST(test_fragments),
        TEST(test_garbage_in_the_list),
        TEST(test_parts_that_overlap_or_are_not_aligned),
        TEST(test_every_place_of_the_list_counts),
        TEST(test_random_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
