/* SPDX-License-Identifier: MIT */
/* The configuration: what is understood, and that every mistake is named with its line. */
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "config.h"
#include "unit.h"

static char reports[4096];

static void collect(void *context, int line, const char *text)
{
    char one[512];

    (void)context;
    snprintf(one, sizeof(one), "%d: %s\n", line, text);
    strncat(reports, one, sizeof(reports) - strlen(reports) - 1);
}

static int read_text(struct config *config, const char *text)
{
    FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    int mistakes;

    reports[0] = '\0';
    mistakes = config_read(config, file, collect, NULL);
    fclose(file);
    return mistakes;
}

static void test_no_file(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(config_read(&config, NULL, collect, NULL), 0);
    assert_string_equal(config.listen, "/run/vgpu/mediator.sock");
    assert_true(config.pool_defined[0]);
    assert_false(config.pool_defined[1]);
    assert_true(config.unknown_vms);
    assert_int_equal(config.defaults.priority, VGPU_PRIORITY_HIGH);
    assert_int_equal(config.users[1], geteuid());
    config_free(&config);
}

static void test_everything(void **state)
{
    struct config config;
    const struct config_vm *vm;

    (void)state;
    assert_int_equal(read_text(&config, "# a comment\n"
                                        "[mediator]\n"
                                        "listen = @abstract\n"
                                        "control = /c\n"
                                        "worker = /w\n"
                                        "backend = cuda\n"
                                        "unknown-vms = refuse\n"
                                        "above-limit = refuse\n"
                                        "max-vms = 7\n"
                                        "turn-limit = 5\n"
                                        "worker-user = root\n"
                                        "users = root, 12345\n"
                                        "[defaults]\n"
                                        "max-priority = low\n"
                                        "max-shm = 64M\n"
                                        "[pool B]\n"
                                        "device = 2\n"
                                        "[vm 9]\n"
                                        "pool = B\n"
                                        "user = 77\n"
                                        "[vm 3]\n"
                                        "max-priority = high\n"
                                        "max-shm = 1G\n"),
                     0);
    assert_string_equal(reports, "");
    assert_string_equal(config.listen, "@abstract");
    assert_int_equal(config.backend, CONFIG_BACKEND_CUDA);
    assert_false(config.unknown_vms);
    assert_true(config.refuse_above);
    assert_int_equal(config.max_vms, 7);
    assert_int_equal(config.turn_limit_ns, 5 * NS_PER_S);
    assert_int_equal(config.worker_user, 0);
    assert_int_equal(config.user_count, 2);
    assert_int_equal(config.users[1], 12345);
    assert_false(config.pool_defined[0]);
    assert_int_equal(config.pool_device[1], 2);
    assert_int_equal(config.vm_count, 2);
    assert_int_equal(config.vms[0].id, 3);
    vm = config_find_vm(&config, 9);
    assert_int_equal(vm->limits.pool, 'B');
    assert_int_equal(vm->limits.priority, VGPU_PRIORITY_LOW);
    assert_int_equal(vm->user, 77);
    vm = config_find_vm(&config, 3);
    assert_int_equal(vm->limits.shm, 1u << 30);
    assert_int_equal(vm->user, (uid_t)-1);
    assert_null(config_find_vm(&config, 4));
    config_free(&config);
}

static const struct {
    const char *text;
    const char *report;
} mistakes[] = {
    {"[mediator]\nbackend = gpu\n",
     "2: section [mediator]: key 'backend' is 'gpu', must be auto, cpu or cuda\n"},
    {"[mediator]\n\ncolour = red\n", "3: section [mediator]: unknown key 'colour'\n"},
    {"[mediator]\nlisten =\n",
     "2: section [mediator]: key 'listen' is '', must be a path or name\n"},
    {"[mediator]\nmax-vms = 0\n",
     "2: section [mediator]: key 'max-vms' is '0', must be a number from 1 to 4096\n"},
    {"[mediator]\nmax-vms = 12x\n",
     "2: section [mediator]: key 'max-vms' is '12x', must be a number from 1 to 4096\n"},
    {"[mediator]\nturn-limit = -1\n",
     "2: section [mediator]: key 'turn-limit' is '-1', must be seconds, 0 (no limit) to 86400\n"},
    {"[mediator]\nunknown-vms = yes\n",
     "2: section [mediator]: key 'unknown-vms' is 'yes', must be allow or refuse\n"},
    {"[mediator]\nabove-limit = allow\n",
     "2: section [mediator]: key 'above-limit' is 'allow', must be lower or refuse\n"},
    {"[mediator]\nusers = root nosuchuserhere\n",
     "2: section [mediator]: key 'users' is 'root nosuchuserhere', must be names or numbers of "
     "users on this host\n"},
    {"[defaults]\nmax-shm = 3M\n",
     "2: section [defaults]: key 'max-shm' is '3M', must be a power of two from 1M to 64G\n"},
    {"[defaults]\nmax-shm = 17179869185G\n",
     "2: section [defaults]: key 'max-shm' is '17179869185G', must be a power of two from 1M to "
     "64G\n"},
    {"[defaults]\nmax-shm = 99999999999999999999\n",
     "2: section [defaults]: key 'max-shm' is '99999999999999999999', must be a power of two "
     "from 1M to 64G\n"},
    {"[defaults]\nmax-priority = urgent\n",
     "2: section [defaults]: key 'max-priority' is 'urgent', must be low, medium or high\n"},
    {"[defaults]\npool = Q\n", "0: section [defaults]: pool Q has no section [pool Q]\n"},
    {"[pool b]\ndevice = 0\n", "2: section [pool b]: a pool is named by a letter from A to Z\n"},
    {"[pool A]\ndevice = first\n",
     "2: section [pool A]: key 'device' is 'first', must be the number of a GPU, 0 to 255\n"},
    {"[vm 0]\npool = A\n", "2: section [vm 0]: a VM is named by its id, 1 to 4294967295\n"},
    {"[vm 4294967296]\npool = A\n",
     "2: section [vm 4294967296]: a VM is named by its id, 1 to 4294967295\n"},
    {"[vm 1]\npool = B\n", "0: section [vm 1]: pool B has no section [pool B]\n"},
    {"[vms]\na = b\n",
     "2: unknown section [vms]: known are [mediator], [defaults], [pool X] and [vm N]\n"},
    {"backend = cpu\n",
     "1: unknown section []: known are [mediator], [defaults], [pool X] and [vm N]\n"},
    {"[mediator]\nlisten = /a\ncontrol = /a\n",
     "0: section [mediator]: 'listen' and 'control' are both '/a'\n"},
    {"[mediator]\nbackend\n", "2: neither a [section] nor a line of the form 'key = value'\n"},
    {"[mediator]\nbackend = a\nmax-vms = b\n",
     "2: section [mediator]: key 'backend' is 'a', must be auto, cpu or cuda\n"
     "3: section [mediator]: key 'max-vms' is 'b', must be a number from 1 to 4096\n"},
};

static void test_mistakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        struct config config;

        assert_int_not_equal(read_text(&config, mistakes[i].text), 0);
        assert_string_equal(reports, mistakes[i].report);
        config_free(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_mistakes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
