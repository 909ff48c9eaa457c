/* SPDX-License-Identifier: MIT */
/*
 * The attach state machine: every message in every state; who is granted what.
 *
 * Tests: mediator/attach.c
 */
#include <string.h>

#include "mediator/attach.h"
#include "tests/unit/unit.h"

#define USER 1000u

static struct config config;
static char reason[ATTACH_REASON_SIZE];

static void no_mistakes(void *context, const char *file, int line, const char *text)
{
    (void)context;
    (void)file;
    fail_msg("line %d: %s", line, text);
}

static void configure(const char *text)
{
    FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

    config_read(&config, file, no_mistakes, NULL);
    fclose(file);
}

static int tear_down(void **state)
{
    (void)state;
    config_free(&config);
    return 0;
}

static struct vgpu_msg message(uint32_t type)
{
    return (struct vgpu_msg){.magic = VGPU_MSG_MAGIC, .version = VGPU_VERSION, .type = type};
}

static struct vgpu_hello good_hello(void)
{
    return (struct vgpu_hello){.vm_id = 7,
                               .pool = 'A',
                               .priority = VGPU_PRIORITY_HIGH,
                               .vectors = 1,
                               .shm_size = 1u << 20,
                               .name = "a VM"};
}

static bool decide(const struct vgpu_hello *hello, struct attach_grant *grant)
{
    const struct attach_facts facts = {.user = USER};

    reason[0] = '\0';
    return attach_decide(&config, hello, &facts, grant, reason);
}

static enum attach_action check(enum attach_state state, const struct vgpu_msg *msg, size_t fds)
{
    const struct attach_progress progress = {.state = state};

    return attach_check(&progress, msg, fds, reason);
}

static void test_every_message_in_every_state(void **state)
{
    /* What is not here is refused. */
    static const struct {
        enum attach_state state;
        uint32_t type;
        enum attach_action action;
    } allowed[] = {
        {ATTACH_NEW, VGPU_MSG_HELLO, ATTACH_ACTION_HELLO},
        {ATTACH_ATTACHED, VGPU_MSG_RESET, ATTACH_ACTION_RESET},
        {ATTACH_ATTACHED, VGPU_MSG_QUEUE, ATTACH_ACTION_QUEUE},
        {ATTACH_ATTACHED, VGPU_MSG_STOP, ATTACH_ACTION_STOP},
        {ATTACH_ATTACHED, VGPU_MSG_CONTINUE, ATTACH_ACTION_CONTINUE},
        {ATTACH_ATTACHED, VGPU_MSG_BYE, ATTACH_ACTION_BYE},
    };

    (void)state;
    for (unsigned s = ATTACH_NEW; s <= ATTACH_REFUSED; s++) {
        for (uint32_t type = 0; type < 14; type++) {
            const struct attach_progress progress = {.state = (enum attach_state)s, .queues = 1};
            const struct vgpu_msg msg = message(type);
            enum attach_action expected = ATTACH_ACTION_REFUSE;

            for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
                if (allowed[i].state == s && allowed[i].type == type) {
                    expected = allowed[i].action;
                }
            }
            assert_int_equal(attach_check(&progress, &msg, 0, reason), expected);
        }
    }
}

static void test_queue_that_the_device_lacks(void **state)
{
    const struct attach_progress progress = {.state = ATTACH_ATTACHED, .queues = 4};
    struct vgpu_msg msg = message(VGPU_MSG_QUEUE);

    (void)state;
    msg.queue.queue = 3;
    assert_int_equal(attach_check(&progress, &msg, 0, reason), ATTACH_ACTION_QUEUE);
    msg.queue.queue = 4;
    assert_int_equal(attach_check(&progress, &msg, 0, reason), ATTACH_ACTION_REFUSE);
    msg.queue.queue = UINT32_MAX;
    assert_int_equal(attach_check(&progress, &msg, 0, reason), ATTACH_ACTION_REFUSE);
    assert_string_equal(reason, "queue 4294967295 of a device with 4");
}

static void test_header(void **state)
{
    struct vgpu_msg msg = message(VGPU_MSG_HELLO);

    (void)state;
    msg.magic ^= 1;
    assert_int_equal(check(ATTACH_NEW, &msg, 0), ATTACH_ACTION_REFUSE);
    assert_non_null(strstr(reason, "no vGPU stub"));
    msg = message(VGPU_MSG_HELLO);
    msg.version = (VGPU_VERSION_MAJOR + 1) << 16;
    assert_int_equal(check(ATTACH_NEW, &msg, 0), ATTACH_ACTION_REFUSE);
    assert_non_null(strstr(reason, "version 3"));
    /* A newer minor is another matter: it is welcome. */
    msg.version = VGPU_VERSION + 1;
    assert_int_equal(check(ATTACH_NEW, &msg, 0), ATTACH_ACTION_HELLO);
}

static void test_descriptor_counts(void **state)
{
    struct vgpu_msg msg = message(VGPU_MSG_HELLO);

    (void)state;
    for (size_t fds = 0; fds <= VGPU_MSG_FDS_MAX + 1; fds++) {
        msg.hello.queues = 0;
        msg.hello.flags = 0;
        assert_int_equal(check(ATTACH_NEW, &msg, fds),
                         fds == 0 ? ATTACH_ACTION_HELLO : ATTACH_ACTION_REFUSE);
        msg.hello.flags = VGPU_HELLO_HANDOVER;
        assert_int_equal(check(ATTACH_NEW, &msg, fds),
                         fds == 3 ? ATTACH_ACTION_HELLO : ATTACH_ACTION_REFUSE);
        msg.hello.queues = 6;
        assert_int_equal(check(ATTACH_NEW, &msg, fds),
                         fds == 15 ? ATTACH_ACTION_HELLO : ATTACH_ACTION_REFUSE);
        msg.hello.queues = VGPU_MAX_QUEUES;
        assert_int_equal(check(ATTACH_NEW, &msg, fds),
                         fds == 16 ? ATTACH_ACTION_MORE : ATTACH_ACTION_REFUSE);
    }
    msg.hello.queues = VGPU_MAX_QUEUES + 1;
    assert_int_equal(check(ATTACH_NEW, &msg, 16), ATTACH_ACTION_REFUSE);
}

static void test_descriptors_in_pieces(void **state)
{
    struct attach_progress progress = {.state = ATTACH_HANDOVER, .queues = 16, .fds = 16};
    const struct vgpu_msg msg = message(VGPU_MSG_FDS);

    (void)state;
    /* 35 in all: 16, 16, 3. */
    assert_int_equal(attach_check(&progress, &msg, 15, reason), ATTACH_ACTION_REFUSE);
    assert_int_equal(attach_check(&progress, &msg, 17, reason), ATTACH_ACTION_REFUSE);
    assert_int_equal(attach_check(&progress, &msg, 16, reason), ATTACH_ACTION_MORE);
    progress.fds = 32;
    assert_int_equal(attach_check(&progress, &msg, 4, reason), ATTACH_ACTION_REFUSE);
    assert_int_equal(attach_check(&progress, &msg, 3, reason), ATTACH_ACTION_HELLO);
    progress.state = ATTACH_NEW;
    assert_int_equal(attach_check(&progress, &msg, 0, reason), ATTACH_ACTION_REFUSE);
}

static void test_queues_that_do_not_fit(void **state)
{
    struct vgpu_hello hello = good_hello();
    struct attach_grant grant;

    (void)state;
    configure("[mediator]\nusers = 1000\n");
    hello.queues = vgpu_queues_max(hello.shm_size);
    hello.vectors = 1 + hello.queues;
    assert_true(decide(&hello, &grant));
    hello.vectors++;
    assert_false(decide(&hello, &grant));
    hello.queues++;
    assert_false(decide(&hello, &grant));
    assert_string_equal(reason, "4 queues do not fit shared memory of 1 MiB, which has room for 3");
}

static void test_granted_as_asked(void **state)
{
    struct vgpu_hello hello = good_hello();
    struct attach_grant grant;

    (void)state;
    configure("[mediator]\nusers = 1000\n");
    assert_true(decide(&hello, &grant));
    assert_int_equal(grant.pool, 'A');
    assert_int_equal(grant.priority, VGPU_PRIORITY_HIGH);
    assert_false(grant.lowered);
}

static void test_malformed(void **state)
{
    struct attach_grant grant;
    struct vgpu_hello hello;

    (void)state;
    configure("[mediator]\nusers = 1000\n");
#define REFUSED_WITH(field, value, words)                                                          \
    hello = good_hello();                                                                          \
    hello.field = (value);                                                                         \
    assert_false(decide(&hello, &grant));                                                          \
    assert_non_null(strstr(reason, words));
    REFUSED_WITH(flags, 4, "flags 0x4")
    REFUSED_WITH(vm_id, 0, "VM id 0")
    REFUSED_WITH(pool, 'a', "pool 97")
    REFUSED_WITH(pool, 'Z' + 1, "pool 91")
    REFUSED_WITH(pool, 'B', "no pool B")
    REFUSED_WITH(priority, 3, "priority 3")
    REFUSED_WITH(vectors, 0, "0 vectors")
    REFUSED_WITH(vectors, 2, "2 vectors")
    REFUSED_WITH(queues, 1, "1 queues")
    REFUSED_WITH(shm_size, 0, "power of two")
    REFUSED_WITH(shm_size, (1u << 20) + 1, "power of two")
    REFUSED_WITH(shm_size, 1u << 19, "power of two")
    REFUSED_WITH(shm_size, UINT64_C(1) << 37, "power of two")
    REFUSED_WITH(shm_size, UINT64_C(1) << 31, "'max-shm' is 1024 MiB")
#undef REFUSED_WITH
    hello = good_hello();
    memset(hello.name, 'x', sizeof(hello.name));
    assert_false(decide(&hello, &grant));
    assert_non_null(strstr(reason, "NUL"));
}

static void test_above_the_limit(void **state)
{
    struct vgpu_hello hello = good_hello();
    struct attach_grant grant;

    (void)state;
    configure("[mediator]\nusers = 1000\n[pool A]\ndevices = 0\n[pool B]\ndevices = 1\n"
              "[vm 7]\npool = B\nmax-priority = low\n");
    assert_true(decide(&hello, &grant));
    assert_int_equal(grant.pool, 'B');
    assert_int_equal(grant.priority, VGPU_PRIORITY_LOW);
    assert_true(grant.lowered);
    config.refuse_above = true;
    assert_false(decide(&hello, &grant));
    assert_string_equal(reason, "VM 7 asks for pool A at priority high, allowed are pool B and "
                                "at most low");
}

static void test_who_may_attach(void **state)
{
    struct vgpu_hello hello = good_hello();
    struct attach_grant grant;

    (void)state;
    configure("[mediator]\nusers = 1\n[vm 8]\nuser = 1000\n");
    assert_false(decide(&hello, &grant));
    assert_non_null(strstr(reason, "user 1000 may not attach VM 7"));
    hello.vm_id = 8;
    assert_true(decide(&hello, &grant));
    /* A VM's own user excludes those who may attach others. */
    config.vms[0].user = 1001;
    config.users[0] = USER;
    assert_false(decide(&hello, &grant));
}

static void test_unknown_in_use_and_full(void **state)
{
    struct vgpu_hello hello = good_hello();
    struct attach_facts facts = {.user = USER, .id_in_use = true};
    struct attach_grant grant;

    (void)state;
    configure("[mediator]\nusers = 1000\nmax-vms = 2\n");
    assert_false(attach_decide(&config, &hello, &facts, &grant, reason));
    assert_string_equal(reason, "VM 7 is attached already");
    facts.id_in_use = false;
    facts.vm_count = 2;
    assert_false(attach_decide(&config, &hello, &facts, &grant, reason));
    assert_non_null(strstr(reason, "max-vms"));
    facts.vm_count = 1;
    assert_true(attach_decide(&config, &hello, &facts, &grant, reason));
    config.unknown_vms = false;
    assert_false(attach_decide(&config, &hello, &facts, &grant, reason));
    assert_string_equal(reason, "VM 7 is not in the mediator's configuration");
}

/* Who has a name, a UUID or a number by `user` is the only one. */
static void test_users_of_every_section(void **state)
{
    struct vgpu_hello hello = good_hello();
    struct attach_grant grant;

    (void)state;
    configure("[mediator]\nusers = 1000\n[vm 7]\n[vm web]\nuser = 1001\n"
              "[vm db]\nuser = 1000\nmax-priority = low\n[vm 9]\nuser = 1000\n"
              "[vm 4dea22b3-1d52-d8f3-2516-782e98ab3fa0]\nuser = 1001\n");
    assert_true(decide(&hello, &grant));
    strcpy(hello.name, "web");
    assert_false(decide(&hello, &grant));
    hello.vm_id = 9;
    assert_false(decide(&hello, &grant));
    assert_non_null(strstr(reason, "user 1000 may not attach VM 9"));
    strcpy(hello.name, "db");
    assert_true(decide(&hello, &grant));
    memcpy(hello.uuid, "\x4d\xea\x22\xb3\x1d\x52\xd8\xf3\x25\x16\x78\x2e\x98\xab\x3f\xa0", 16);
    assert_false(decide(&hello, &grant));
    /* A host process has a number alone. */
    hello.flags = VGPU_HELLO_HOST;
    strcpy(hello.name, "web");
    assert_true(decide(&hello, &grant));
    assert_int_equal(grant.priority, VGPU_PRIORITY_HIGH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_message_in_every_state),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_queue_that_the_device_lacks),
        cmocka_unit_test(test_descriptor_counts),
        cmocka_unit_test(test_descriptors_in_pieces),
        cmocka_unit_test_teardown(test_queues_that_do_not_fit, tear_down),
        cmocka_unit_test_teardown(test_granted_as_asked, tear_down),
        cmocka_unit_test_teardown(test_malformed, tear_down),
        cmocka_unit_test_teardown(test_above_the_limit, tear_down),
        cmocka_unit_test_teardown(test_who_may_attach, tear_down),
        cmocka_unit_test_teardown(test_unknown_in_use_and_full, tear_down),
        cmocka_unit_test_teardown(test_users_of_every_section, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
