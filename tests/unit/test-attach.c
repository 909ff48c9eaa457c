/* SPDX-License-Identifier: MIT */
/* The attach state machine: every message in every state; who is granted what. */
#include <string.h>

#include "attach.h"
#include "unit.h"

#define USER 1000u

static struct config config;
static char reason[ATTACH_REASON_SIZE];

static void no_mistakes(void *context, int line, const char *text)
{
    (void)context;
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
                               .vectors = VGPU_ATTACH_VECTORS,
                               .shm_size = 1u << 20,
                               .name = "a VM"};
}

static bool decide(const struct vgpu_hello *hello, struct attach_grant *grant)
{
    const struct attach_facts facts = {.user = USER};

    reason[0] = '\0';
    return attach_decide(&config, hello, &facts, grant, reason);
}

static void test_every_message_in_every_state(void **state)
{
    static const enum attach_action expected[][7] = {
        /* types 0 to 6; REFUSE where nothing stands */
        [ATTACH_NEW] = {3, ATTACH_ACTION_HELLO, 3, 3, 3, 3, 3},
        [ATTACH_ATTACHED] = {3, 3, 3, 3, ATTACH_ACTION_RESET, 3, ATTACH_ACTION_BYE},
        [ATTACH_REFUSED] = {3, 3, 3, 3, 3, 3, 3},
    };

    (void)state;
    assert_int_equal(ATTACH_ACTION_REFUSE, 3);
    for (unsigned s = ATTACH_NEW; s <= ATTACH_REFUSED; s++) {
        for (uint32_t type = 0; type < 7; type++) {
            const struct vgpu_msg msg = message(type);

            assert_int_equal(attach_check((enum attach_state)s, &msg, 0, reason),
                             expected[s][type]);
        }
    }
}

static void test_header(void **state)
{
    struct vgpu_msg msg = message(VGPU_MSG_HELLO);

    (void)state;
    msg.magic ^= 1;
    assert_int_equal(attach_check(ATTACH_NEW, &msg, 0, reason), ATTACH_ACTION_REFUSE);
    assert_non_null(strstr(reason, "no vGPU stub"));
    msg = message(VGPU_MSG_HELLO);
    msg.version = (VGPU_VERSION_MAJOR + 1) << 16;
    assert_int_equal(attach_check(ATTACH_NEW, &msg, 0, reason), ATTACH_ACTION_REFUSE);
    assert_non_null(strstr(reason, "version 2"));
    /* A newer minor is another matter: it is welcome. */
    msg.version = VGPU_VERSION + 1;
    assert_int_equal(attach_check(ATTACH_NEW, &msg, 0, reason), ATTACH_ACTION_HELLO);
}

static void test_descriptor_counts(void **state)
{
    struct vgpu_msg msg = message(VGPU_MSG_HELLO);

    (void)state;
    for (size_t fds = 0; fds <= VGPU_ATTACH_FDS_MAX; fds++) {
        msg.hello.flags = 0;
        assert_int_equal(attach_check(ATTACH_NEW, &msg, fds, reason),
                         fds == 0 ? ATTACH_ACTION_HELLO : ATTACH_ACTION_REFUSE);
        msg.hello.flags = VGPU_HELLO_HANDOVER;
        assert_int_equal(attach_check(ATTACH_NEW, &msg, fds, reason),
                         fds == VGPU_ATTACH_FDS ? ATTACH_ACTION_HELLO : ATTACH_ACTION_REFUSE);
    }
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
    configure("[mediator]\nusers = 1000\n[pool A]\ndevice = 0\n[pool B]\ndevice = 0\n"
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_message_in_every_state),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_descriptor_counts),
        cmocka_unit_test_teardown(test_granted_as_asked, tear_down),
        cmocka_unit_test_teardown(test_malformed, tear_down),
        cmocka_unit_test_teardown(test_above_the_limit, tear_down),
        cmocka_unit_test_teardown(test_who_may_attach, tear_down),
        cmocka_unit_test_teardown(test_unknown_in_use_and_full, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
