/* SPDX-License-Identifier: MIT */
/* The order of waiting work: every order of arrival gives the same order of service. */
#include "queue.h"
#include "unit.h"

#define EACH 4u /* arrivals of each priority */
#define ALL (EACH * VGPU_PRIORITIES)

struct item {
    struct queue_entry entry;
    enum vgpu_priority priority;
    unsigned number; /* among its priority, by arrival */
};

static struct item *item_of(struct queue_entry *entry)
{
    return (struct item *)entry; /* the first member */
}

static unsigned interleavings;

/* Pops everything: high to low, and by number within. */
static void check_order(struct queue *queue)
{
    for (unsigned priority = VGPU_PRIORITIES; priority-- > 0;) {
        for (unsigned number = 0; number < EACH; number++) {
            const struct item *item = item_of(queue_pop(queue));

            assert_int_equal(item->priority, priority);
            assert_int_equal(item->number, number);
        }
    }
    assert_null(queue_pop(queue));
    assert_true(queue_empty(queue));
}

/* Extends an arrival order of `length` items in every way. */
static void extend(struct item items[ALL], unsigned length, unsigned arrived[VGPU_PRIORITIES])
{
    struct queue queue;

    if (length == ALL) {
        queue_init(&queue);
        for (unsigned i = 0; i < ALL; i++) {
            queue_push(&queue, &items[i].entry, items[i].priority);
        }
        check_order(&queue);
        interleavings++;
        return;
    }
    for (unsigned priority = 0; priority < VGPU_PRIORITIES; priority++) {
        if (arrived[priority] == EACH) {
            continue;
        }
        items[length] = (struct item){.priority = (enum vgpu_priority)priority,
                                      .number = arrived[priority]};
        arrived[priority]++;
        extend(items, length + 1, arrived);
        arrived[priority]--;
    }
}

static void test_all_interleavings(void **state)
{
    struct item items[ALL];
    unsigned arrived[VGPU_PRIORITIES] = {0};

    (void)state;
    extend(items, 0, arrived);
    assert_int_equal(interleavings, 34650); /* 12! / (4! 4! 4!) */
}

static void test_late_high_goes_first(void **state)
{
    struct item low = {0}, high = {0};
    struct queue queue;

    (void)state;
    queue_init(&queue);
    queue_push(&queue, &low.entry, VGPU_PRIORITY_LOW);
    queue_push(&queue, &high.entry, VGPU_PRIORITY_HIGH);
    assert_ptr_equal(queue_pop(&queue), &high.entry);
    assert_ptr_equal(queue_pop(&queue), &low.entry);
}

static void test_remove(void **state)
{
    struct item a = {0}, b = {0}, c = {0};
    struct queue queue;

    (void)state;
    queue_init(&queue);
    queue_push(&queue, &a.entry, VGPU_PRIORITY_LOW);
    queue_push(&queue, &b.entry, VGPU_PRIORITY_LOW);
    queue_push(&queue, &c.entry, VGPU_PRIORITY_LOW);
    queue_remove(&b.entry);
    assert_false(queue_contains(&b.entry));
    queue_remove(&b.entry);
    assert_ptr_equal(queue_pop(&queue), &a.entry);
    assert_ptr_equal(queue_pop(&queue), &c.entry);
    assert_null(queue_pop(&queue));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_interleavings),
        cmocka_unit_test(test_late_high_goes_first),
        cmocka_unit_test(test_remove),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
