/* SPDX-License-Identifier: MIT */
/*
 * The configuration: what is understood, and that every mistake is named with file and line.
 *
 * Tests: mediator/config*.c
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "mediator/arbiter.h"
#include "mediator/config.h"
#include "tests/unit/unit.h"

static char reports[8192];

static void collect(void *context, const char *file, int line, const char *text)
{
    const size_t used = strlen(reports);

    assert_ptr_equal(context, reports);
    file = file && strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    snprintf(reports + used, sizeof(reports) - used, "%s%s%d: %s\n", file ? file : "",
             file ? ":" : "", line, text);
}

static int read_bytes(struct config *config, const char *text, size_t size)
{
    FILE *file = fmemopen((void *)(uintptr_t)text, size, "r");
    int mistakes;

    assert_non_null(file);
    reports[0] = '\0';
    mistakes = config_read(config, file, collect, reports);
    fclose(file);
    return mistakes;
}

static int read_text(struct config *config, const char *text)
{
    return read_bytes(config, text, strlen(text));
}

static const struct config_pool *pool(const struct config *config, char letter)
{
    return &config->pools[letter - 'A'];
}

static void test_no_file(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(config_read(&config, NULL, collect, reports), 0);
    assert_string_equal(config.listen, "/run/vgpu/mediator.sock");
    assert_string_equal(config.metrics, "off");
    assert_true(config.unknown_vms);
    assert_int_equal(config.users[1], geteuid());
    assert_int_equal(config.turn_limit_ns, 30 * NS_PER_S);

    assert_true(pool(&config, 'A')->defined);
    assert_int_equal(pool(&config, 'A')->device_count, 1);
    assert_int_equal(pool(&config, 'A')->devices[0], 0);
    assert_false(pool(&config, 'A')->exclusive);
    assert_int_equal(pool(&config, 'A')->slice_ns, 5 * NS_PER_MS);
    assert_int_equal(pool(&config, 'A')->window_ns, 100 * NS_PER_US);
    assert_int_equal(pool(&config, 'A')->least_share, ARBITER_LEAST_ONE / 100);
    assert_false(pool(&config, 'B')->defined);

    assert_int_equal(config.defaults.pool, 0);
    assert_int_equal(config.defaults.priority, VGPU_PRIORITY_HIGH);
    assert_int_equal(config.defaults.shm, 1u << 30);
    assert_int_equal(config.defaults.share, ARBITER_WEIGHT);
    assert_int_equal(config.defaults.memory, 0);
    assert_int_equal(config.defaults.sessions, 0);
    assert_int_equal(config.defaults.commands, 0);
    assert_int_equal(config.defaults.doorbells, 0);
    assert_int_equal(config.defaults.interrupts, 0);
    assert_int_equal(config.defaults.kernel_ns, 0);
    assert_ptr_equal(config_limits_of(&config, &(struct identity){.id = 1}), &config.defaults);
    config_free(&config);
}

static void test_mediator(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(read_text(&config, "# a comment\n"
                                        "[mediator]\n"
                                        "listen = @abstract\n"
                                        "control = /c\n"
                                        "worker = /w\n"
                                        "metrics = [::1]:9464\n"
                                        "backend = cuda\n"
                                        "unknown-vms = refuse\n"
                                        "above-limit = refuse\n"
                                        "max-vms = 7\n"
                                        "turn-limit = 5\n"
                                        "worker-user = 1\n"
                                        "users = root, 12345\n"),
                     0);
    assert_string_equal(reports, "");
    assert_string_equal(config.listen, "@abstract");
    assert_string_equal(config.control, "/c");
    assert_string_equal(config.worker, "/w");
    assert_string_equal(config.metrics, "[::1]:9464");
    assert_int_equal(config.backend, CONFIG_BACKEND_CUDA);
    assert_false(config.unknown_vms);
    assert_true(config.refuse_above);
    assert_int_equal(config.max_vms, 7);
    assert_int_equal(config.turn_limit_ns, 5 * NS_PER_S);
    assert_int_equal(config.worker_user, 1);
    assert_int_equal(config.user_count, 2);
    assert_int_equal(config.users[1], 12345);
    config_free(&config);
}

static void test_pools(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(read_text(&config, "[pool B]\n"
                                        "devices = 2\n"
                                        "gpu-name = Half a card\n"
                                        "[pool C]\n"
                                        "gpu-name = none\n"
                                        "devices = 255 0,7 , 1\n"
                                        "exclusive = yes\n"
                                        "slice = 1.5ms\n"
                                        "window = 250us\n"
                                        "least-share = 2.125%\n"),
                     0);
    assert_string_equal(reports, "");
    assert_false(pool(&config, 'A')->defined);
    assert_true(pool(&config, 'B')->defined);
    assert_int_equal(pool(&config, 'B')->device_count, 1);
    assert_int_equal(pool(&config, 'B')->devices[0], 2);
    assert_string_equal(pool(&config, 'B')->gpu_name, "Half a card");
    assert_string_equal(pool(&config, 'C')->gpu_name, "");
    assert_int_equal(pool(&config, 'C')->device_count, 4);
    assert_int_equal(pool(&config, 'C')->devices[0], 255);
    assert_int_equal(pool(&config, 'C')->devices[3], 1);
    assert_true(pool(&config, 'C')->exclusive);
    assert_int_equal(pool(&config, 'C')->slice_ns, 1500 * NS_PER_US);
    assert_int_equal(pool(&config, 'C')->window_ns, 250 * NS_PER_US);
    assert_int_equal(pool(&config, 'C')->least_share, 21250);
    config_free(&config);
}

#define SIXTY_THREE "abcdefghi 123456789 123456789 123456789 123456789 123456789 abc"
#define NAMED                                                                                      \
    "a VM is named by its id, 1 to 4294967295, by its UUID, or by its name: at most 63 bytes, "    \
    "the "                                                                                         \
    "first one a letter or _\n"
#define U "\x4d\xea\x22\xb3\x1d\x52\xd8\xf3\x25\x16\x78\x2e\x98\xab\x3f\xa0"

/* Every key of a VM, in its section; the others have them from [defaults], which comes later. */
static const char vms[] = "[vm 9]\n"
                          "pool = B\n"
                          "max-priority = high\n"
                          "max-shm = 1G\n"
                          "share = 10000\n"
                          "memory = 3T\n"
                          "sessions = 64\n"
                          "commands = 1000000\n"
                          "doorbell-rate = 10000000\n"
                          "interrupt-rate = 1\n"
                          "max-kernel = 1ms\n"
                          "user = 77\n"
                          "[vm 3]\n"
                          "sessions = none\n"
                          "[defaults]\n"
                          "pool = C\n"
                          "max-priority = low\n"
                          "max-shm = 64M\n"
                          "share = 1\n"
                          "memory = 1048576\n"
                          "sessions = 2\n"
                          "commands = 3\n"
                          "doorbell-rate = 4\n"
                          "interrupt-rate = 5\n"
                          "max-kernel = 6\n"
                          "[pool B]\n"
                          "devices = 0\n"
                          "[vm 5]\n"
                          "[pool C]\n"
                          "devices = 1\n";

static const struct config_vm *find(const struct config *config, uint32_t id)
{
    return config_find_vm(config, &(struct identity){.id = id});
}

static const struct config_limits *limits_of(const struct config *config, uint32_t id)
{
    return config_limits_of(config, &(struct identity){.id = id});
}

static void check_vm_3(const struct config *config)
{
    const struct config_vm *vm = find(config, 3);
    const struct config_limits *limits = limits_of(config, 3);

    assert_int_equal(vm->user, (uid_t)-1);
    assert_int_equal(limits->pool, 'C');
    assert_int_equal(limits->priority, VGPU_PRIORITY_LOW);
    assert_int_equal(limits->shm, 64u << 20);
    assert_int_equal(limits->share, 1);
    assert_int_equal(limits->memory, 1u << 20);
    assert_int_equal(limits->sessions, 0);
    assert_int_equal(limits->commands, 3);
    assert_int_equal(limits->doorbells, 4);
    assert_int_equal(limits->interrupts, 5);
    assert_int_equal(limits->kernel_ns, 6 * NS_PER_S);
}

static void test_vms(void **state)
{
    struct config config;
    const struct config_vm *vm;
    const struct config_limits *limits;

    (void)state;
    assert_int_equal(read_text(&config, vms), 0);
    assert_string_equal(reports, "");
    assert_int_equal(config.vm_count, 3);
    vm = find(&config, 9);
    limits = limits_of(&config, 9);
    assert_ptr_equal(limits, &vm->limits);
    assert_int_equal(vm->user, 77);
    assert_int_equal(limits->pool, 'B');
    assert_int_equal(limits->priority, VGPU_PRIORITY_HIGH);
    assert_int_equal(limits->shm, 1u << 30);
    assert_int_equal(limits->share, 10000);
    assert_int_equal(limits->memory, UINT64_C(3) << 40);
    assert_int_equal(limits->sessions, 64);
    assert_int_equal(limits->commands, 1000000);
    assert_int_equal(limits->doorbells, 10000000);
    assert_int_equal(limits->interrupts, 1);
    assert_int_equal(limits->kernel_ns, NS_PER_MS);

    check_vm_3(&config);
    assert_int_equal(limits_of(&config, 5)->sessions, 2);
    assert_null(find(&config, 4));
    assert_int_equal(limits_of(&config, 4)->sessions, 2);
    config_free(&config);
}

/* A section by number counts before one by UUID, and that before one by name. */
static void test_vms_by_name(void **state)
{
    static const struct {
        struct identity who;
        uint32_t share; /* 100: that of the defaults */
    } vm[] = {
        {{.id = 1}, 100},
        {{.id = 7, .name = "db"}, 70},
        {{.id = 8, .name = "web 01"}, 30},
        {{.id = 8, .name = "web 0"}, 100},
        {{.id = 8, .name = "WEB 01"}, 100},
        {{.id = 7, .name = "web 01", .uuid = {U}}, 70},
        {{.id = 9, .name = "web 01", .uuid = {U}}, 50},
        {{.id = 9, .uuid = {U}}, 50},
        {{.id = 9, .name = SIXTY_THREE}, 60},
    };
    struct config config;

    (void)state;
    assert_int_equal(read_text(&config, "[vm web 01]\nshare = 30\n[vm 7]\nshare = 70\n"
                                        "[vm 4DEA22B3-1d52-d8f3-2516-782e98ab3fa0]\nshare = 40\n"
                                        "[vm " SIXTY_THREE "]\nshare = 60\n"
                                        "[vm 4dea22b3-1d52-d8f3-2516-782e98ab3fa0]\nshare = 50\n"
                                        "[vm web 01]\nsessions = 2\n"),
                     0);
    assert_string_equal(reports, "");
    assert_int_equal(config.vm_count, 4);
    for (size_t i = 0; i < sizeof(vm) / sizeof(vm[0]); i++) {
        assert_int_equal(config_limits_of(&config, &vm[i].who)->share, vm[i].share);
    }
    assert_int_equal(config_limits_of(&config, &vm[2].who)->sessions, 2);
    config_free(&config);
}

#define NUMBER(max) "must be a number from 1 to " max ", or none\n"
#define METRICS                                                                                    \
    "must be off, 127.0.0.1:PORT, [::1]:PORT or the path of a Unix socket: only loopback is "      \
    "allowed since the endpoint has no authentication\n"

static const struct {
    const char *text;
    const char *report;
} mistakes[] = {
    {"[mediator]\nbackend = gpu\n",
     "2: section [mediator]: key 'backend' is 'gpu', must be auto, cpu or cuda\n"},
    {"[mediator]\n\ncolour = red\n",
     "3: section [mediator]: unknown key 'colour': there are listen, control, metrics, worker, "
     "backend, unknown-vms, above-limit, max-vms, turn-limit, register-rest, sensors, preempt, "
     "worker-user, users\n"},
    {"[mediator]\nsensors = all\n",
     "2: section [mediator]: key 'sensors' is 'all', must be off, host or guests\n"},
    {"[mediator]\nlisten =\n",
     "2: section [mediator]: key 'listen' is '', must be a path, or @ and a name\n"},
    {"[mediator]\nmax-vms = 0\n",
     "2: section [mediator]: key 'max-vms' is '0', must be a number from 1 to 4096\n"},
    {"[mediator]\nmax-vms = 12x\n",
     "2: section [mediator]: key 'max-vms' is '12x', must be a number from 1 to 4096\n"},
    {"[mediator]\nmax-vms = none\n",
     "2: section [mediator]: key 'max-vms' is 'none', must be a number from 1 to 4096\n"},
    {"[mediator]\nturn-limit = -1\n", "2: section [mediator]: key 'turn-limit' is '-1', must be a "
                                      "duration from 1ms to 86400s, or none\n"},
    {"[mediator]\nunknown-vms = yes\n",
     "2: section [mediator]: key 'unknown-vms' is 'yes', must be allow or refuse\n"},
    {"[mediator]\nabove-limit = allow\n",
     "2: section [mediator]: key 'above-limit' is 'allow', must be lower or refuse\n"},
    {"[mediator]\nusers = root nosuchuserhere\n",
     "2: section [mediator]: key 'users' is 'root nosuchuserhere', must be users on this host, "
     "where "
     "nobody is 'nosuchuserhere'\n"},
    {"[mediator]\nusers = 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n",
     "2: section [mediator]: key 'users' is '1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17', must be "
     "at most 16 names or numbers of users on this host\n"},
    {"[mediator]\nmetrics = 0.0.0.0:9464\n",
     "2: section [mediator]: key 'metrics' is '0.0.0.0:9464', " METRICS},
    {"[mediator]\nmetrics = localhost:9464\n",
     "2: section [mediator]: key 'metrics' is 'localhost:9464', " METRICS},
    {"[mediator]\nmetrics = [::]:9464\n",
     "2: section [mediator]: key 'metrics' is '[::]:9464', " METRICS},
    {"[mediator]\nmetrics = 127.0.0.1:0\n",
     "2: section [mediator]: key 'metrics' is '127.0.0.1:0', " METRICS},
    {"[mediator]\nmetrics = 127.0.0.1:65536\n",
     "2: section [mediator]: key 'metrics' is '127.0.0.1:65536', " METRICS},
    {"[mediator]\nmetrics = 127.0.0.1\n",
     "2: section [mediator]: key 'metrics' is '127.0.0.1', " METRICS},
    {"[mediator]\nmetrics =\n", "2: section [mediator]: key 'metrics' is '', " METRICS},
    {"[mediator]\nlisten = /a\ncontrol = /a\n",
     "3: section [mediator]: keys 'listen' and 'control' are both '/a'\n"},
    {"[mediator]\nlisten = /run/vgpu/control.sock\n",
     "2: section [mediator]: keys 'listen' and 'control' are both '/run/vgpu/control.sock'\n"},
    {"[mediator]\nmetrics = /run/vgpu/control.sock\n",
     "2: section [mediator]: keys 'control' and 'metrics' are both '/run/vgpu/control.sock'\n"},
    {"[mediator]\ncontrol = @a\n", "2: section [mediator]: key 'control' is '@a', must be a path: "
                                   "an abstract name has no permissions\n"},

    {"[pool b]\ndevices = 0\n", "1: section [pool b]: a pool is named by a letter from A to Z\n"},
    {"[pool A]\ndevice = 0\ndevices = 0\n",
     "2: section [pool A]: unknown key 'device': there are devices, exclusive, slice, window, "
     "least-share, gpu-name\n"},
    {"[pool A]\ndevices = first\n", "2: section [pool A]: key 'devices' is 'first', must be 1 to "
                                    "16 numbers of GPUs, 0 to 255, each once\n"},
    {"[pool A]\ndevices = 0 256\n", "2: section [pool A]: key 'devices' is '0 256', must be 1 to "
                                    "16 numbers of GPUs, 0 to 255, each once\n"},
    {"[pool A]\ndevices = 1,1\n", "2: section [pool A]: key 'devices' is '1,1', must be 1 to 16 "
                                  "numbers of GPUs, 0 to 255, each once\n"},
    {"[pool A]\ndevices = ,\n", "2: section [pool A]: key 'devices' is ',', must be 1 to 16 "
                                "numbers of GPUs, 0 to 255, each once\n"},
    {"[pool A]\ndevices = 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
     "2: section [pool A]: key 'devices' is '0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16', must be 1 "
     "to 16 numbers of GPUs, 0 to 255, each once\n"},
    {"[pool A]\ndevices = 0\nexclusive = 1\n",
     "3: section [pool A]: key 'exclusive' is '1', must be yes or no\n"},
    {"[pool A]\ndevices = 0\nslice = 99us\n",
     "3: section [pool A]: key 'slice' is '99us', must be a duration from 100us to 1s\n"},
    {"[pool A]\ndevices = 0\nslice = 1.001s\n",
     "3: section [pool A]: key 'slice' is '1.001s', must be a duration from 100us to 1s\n"},
    {"[pool A]\ndevices = 0\nslice = none\n",
     "3: section [pool A]: key 'slice' is 'none', must be a duration from 100us to 1s\n"},
    {"[pool A]\ndevices = 0\nwindow = 9.999us\n",
     "3: section [pool A]: key 'window' is '9.999us', must be a duration from 10us to 100ms\n"},
    {"[pool A]\ndevices = 0\nwindow = 100.001ms\n",
     "3: section [pool A]: key 'window' is '100.001ms', must be a duration from 10us to 100ms\n"},
    {"[pool A]\ndevices = 0\nleast-share = 30.001%\n",
     "3: section [pool A]: key 'least-share' is '30.001%', must be a percentage from 0% to 30% "
     "with at most 3 decimals\n"},
    {"\n[pool Q]\n[pool A]\ndevices = 0\n[pool Q]\nslice = 1ms\n",
     "2: section [pool Q]: key 'devices' is missing: the GPUs of the pool, such as "
     "'devices = 0'\n"},
    {"[pool A]\ndevices = 0 3\n[pool D]\ndevices = 3\n",
     "4: section [pool D]: key 'devices': GPU 3 is in [pool A] too, must be in one pool\n"},

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
    {"[defaults]\npool = Q\n[vm 1]\n",
     "2: section [defaults]: key 'pool' is 'Q': there is no section [pool Q]\n"},
    {"[defaults]\npool = AB\n",
     "2: section [defaults]: key 'pool' is 'AB', must be a letter from A to Z, or any\n"},
    {"[defaults]\nuser = 0\n",
     "2: section [defaults]: unknown key 'user': there are pool, max-priority, max-shm, share, "
     "memory, sessions, commands, doorbell-rate, interrupt-rate, max-kernel\n"},
    {"[vm 1]\npriority = low\n",
     "2: section [vm 1]: unknown key 'priority': there are user, pool, max-priority, max-shm, "
     "share, memory, sessions, commands, doorbell-rate, interrupt-rate, max-kernel\n"},
    {"[vm 1]\nuser = nosuchuserhere\n", "2: section [vm 1]: key 'user' is 'nosuchuserhere', must "
                                        "be the name or number of a user on this host\n"},
    {"[vm 1]\nshare = 0\n",
     "2: section [vm 1]: key 'share' is '0', must be a number from 1 to 10000\n"},
    {"[vm 1]\nshare = 10001\n",
     "2: section [vm 1]: key 'share' is '10001', must be a number from 1 to 10000\n"},
    {"[vm 1]\nmemory = 1023K\n", "2: section [vm 1]: key 'memory' is '1023K', must be bytes, or a "
                                 "number with K, M, G or T, at least 1M, or none\n"},
    {"[vm 1]\nmemory = 16777216T\n",
     "2: section [vm 1]: key 'memory' is '16777216T', must be bytes, or a number with K, M, G or "
     "T, at least 1M, or none\n"},
    {"[vm 1]\nmemory = 1GB\n", "2: section [vm 1]: key 'memory' is '1GB', must be bytes, or a "
                               "number with K, M, G or T, at least 1M, or none\n"},
    {"[vm 1]\nsessions = 65\n", "2: section [vm 1]: key 'sessions' is '65', " NUMBER("64")},
    {"[vm 1]\nsessions = 0\n", "2: section [vm 1]: key 'sessions' is '0', " NUMBER("64")},
    {"[vm 1]\ncommands = 1000001\n",
     "2: section [vm 1]: key 'commands' is '1000001', " NUMBER("1000000")},
    {"[vm 1]\ndoorbell-rate = 10000001\n",
     "2: section [vm 1]: key 'doorbell-rate' is '10000001', " NUMBER("10000000")},
    {"[vm 1]\ninterrupt-rate = 4294967297\n",
     "2: section [vm 1]: key 'interrupt-rate' is '4294967297', " NUMBER("10000000")},
    {"[vm 1]\nmax-kernel = 999us\n", "2: section [vm 1]: key 'max-kernel' is '999us', must be a "
                                     "duration from 1ms to 86400s, or none\n"},
    {"[pool A]\ndevices = 0\ngpu-name = " SIXTY_THREE "x\n",
     "3: section [pool A]: key 'gpu-name' is '" SIXTY_THREE
     "x', must be a name of at most 63 printable ASCII characters, or none\n"},
    {"[pool A]\ndevices = 0\ngpu-name =\n",
     "3: section [pool A]: key 'gpu-name' is '', must be a name of at most 63 printable ASCII "
     "characters, or none\n"},
    {"[vm 0]\npool = A\n", "1: section [vm 0]: " NAMED},
    {"[vm 4294967296]\npool = A\n", "1: section [vm 4294967296]: " NAMED},
    {"[vm ]\npool = A\n", "1: section [vm ]: " NAMED},
    {"[vm 00000000-0000-0000-0000-000000000000]\n",
     "1: section [vm 00000000-0000-0000-0000-000000000000]: " NAMED},
    {"[vm a\tb]\n", "1: section [vm a\tb]: " NAMED},
    {"[vm " SIXTY_THREE "x]\n", "1: section [vm " SIXTY_THREE "x]: " NAMED},
    {"[vm web 01]\npool = B\n",
     "2: section [vm web 01]: key 'pool' is 'B': there is no section [pool B]\n"},
    {"[vm 1]\n[vm 2]\n[vm 1]\npool = B\n",
     "4: section [vm 1]: key 'pool' is 'B': there is no section [pool B]\n"},

    {"[vms]\na = b\n",
     "1: unknown section [vms]: known are [mediator], [defaults], [pool X] and [vm N]\n"},
    {"backend = cpu\n", "1: key 'backend' stands above the first [section]\n"},
    {"[mediator]\nbackend = a\nmax-vms = b\n",
     "2: section [mediator]: key 'backend' is 'a', must be auto, cpu or cuda\n"
     "3: section [mediator]: key 'max-vms' is 'b', must be a number from 1 to 4096\n"},
    /* Every line, not only inih's first. */
    {"[mediator]\nbackend\n\nx y z\n[vm 2\nsessions = 100\n  [vm 2] user = 0\n=\n",
     "2: neither a [section] nor a line of the form 'key = value'\n"
     "4: neither a [section] nor a line of the form 'key = value'\n"
     "5: not a section: must be of the form [name]\n"
     "7: not a section: must be of the form [name]\n"},
    /* An indented line is no more of the value before. */
    {"[mediator]\n  control = /c\n\tbackend = gpu\n",
     "3: section [mediator]: key 'backend' is 'gpu', must be auto, cpu or cuda\n"},
};

static void test_mistakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        struct config config;
        int lines = 0;
        const int count = read_text(&config, mistakes[i].text);

        assert_string_equal(reports, mistakes[i].report);
        for (const char *c = reports; *c; c++) {
            lines += *c == '\n';
        }
        assert_int_equal(count, lines);
        config_free(&config);
    }
}

static void test_metrics(void **state)
{
    static const char *const good[] = {"off", "127.0.0.1:1", "127.0.0.1:65535", "[::1]:9464",
                                       "/run/vgpu/metrics.sock"};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct config config;
        char text[256];

        snprintf(text, sizeof(text), "[mediator]\nmetrics = %s\n", good[i]);
        assert_int_equal(read_text(&config, text), 0);
        assert_string_equal(config.metrics, good[i]);
        config_free(&config);
    }
}

/* max-kernel and turn-limit go through the one reader of durations. */
static void test_durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {
        {"1ms", NS_PER_MS},
        {"1000us", NS_PER_MS},
        {"1000.001us", NS_PER_MS + 1},
        {"1.5ms", 1500 * NS_PER_US},
        {"0.001s", NS_PER_MS},
        {"2.025s", 2025 * NS_PER_MS},
        {"7", 7 * NS_PER_S},
        {"86400s", 86400 * NS_PER_S},
        {"86400000000us", 86400 * NS_PER_S},
        {"0", 0},
        {"0ms", 0},
        {"none", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct config config;
        char text[256];

        snprintf(text, sizeof(text), "[mediator]\nturn-limit = %s\n[defaults]\nmax-kernel = %s\n",
                 good[i].text, good[i].text);
        assert_int_equal(read_text(&config, text), 0);
        assert_int_equal(config.turn_limit_ns, good[i].ns);
        assert_int_equal(config.defaults.kernel_ns, good[i].ns);
        config_free(&config);
    }
}

static void test_durations_mistakes(void **state)
{
    static const char *const bad[] = {
        "",
        "1.5",
        "1.s",
        ".5s",
        "1.0001s",
        "5 ms",
        "5m",
        "5ns",
        "+5s",
        "0x5",
        "-5s",
        "1e3",
        "86401s",
        "0.999ms",
        "None",
        "1..0s",
        "18446744073709551615s",
        "18446744073709551us",
        "18446744073709552ms",
        "99999999999999999999s",
        /* Past 64 bits these would be small. */
        "18446744074",
        "18446744073711ms",
        "18446744073710552us",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct config_limits limits = {.kernel_ns = 77};

        assert_non_null(config_set_limit(&limits, "max-kernel", bad[i]));
        assert_int_equal(limits.kernel_ns, 77);
    }
}

static void test_percentages(void **state)
{
    static const struct {
        const char *text;
        uint32_t share; /* UINT32_MAX: a mistake */
    } cases[] = {
        {"1%", 10000},        {"1", 10000},
        {"0.5%", 5000},       {"0", 0},
        {"30%", 300000},      {"0.001%", 10},
        {"29.999", 299990},   {"30.001%", UINT32_MAX},
        {"31", UINT32_MAX},   {"0.0001%", UINT32_MAX},
        {"1%%", UINT32_MAX},  {"1 %", UINT32_MAX},
        {"%", UINT32_MAX},    {"-1%", UINT32_MAX},
        {"none", UINT32_MAX},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config config;
        char text[256];
        int count;

        snprintf(text, sizeof(text), "[pool A]\ndevices = 0\nleast-share = %s\n", cases[i].text);
        count = read_text(&config, text);
        assert_int_equal(count, cases[i].share == UINT32_MAX ? 1 : 0);
        if (count == 0) {
            assert_int_equal(pool(&config, 'A')->least_share, cases[i].share);
        }
        config_free(&config);
    }
}

/* inih would cut such a line in two, the second of which may look like a key. */
static void test_long_lines(void **state)
{
    struct config config;
    char text[1024];

    (void)state;
    /* 198 characters fit, whatever comes before and after. */
    snprintf(text, sizeof(text), "[mediator]\n \t worker = /%0188d \r\nmax-vms = 8\n", 0);
    assert_int_equal(read_text(&config, text), 0);
    assert_int_equal(strlen(config.worker), 189);
    assert_int_equal(config.max_vms, 8);
    config_free(&config);

    snprintf(text, sizeof(text), "[mediator]\nworker = /%0189d\nmax-vms = 0\n", 0);
    assert_int_equal(read_text(&config, text), 2);
    assert_string_equal(reports,
                        "2: has 199 characters, must be at most 198\n"
                        "3: section [mediator]: key 'max-vms' is '0', must be a number from 1 to "
                        "4096\n");
    config_free(&config);

    snprintf(text, sizeof(text), "[mediator]\n# %0300d max-vms = 0\n; %0300d\nmax-vms = 9", 0, 0);
    assert_int_equal(read_text(&config, text), 0);
    assert_int_equal(config.max_vms, 9);
    config_free(&config);
}

static void test_odd_lines(void **state)
{
    static const char nul[] = "[mediator]\nmax-vms = 1\0 2\nmax-vms = 3\n";
    struct config config;

    (void)state;
    assert_int_equal(read_text(&config, "\xEF\xBB\xBF[mediator] # and so on\r\n"
                                        "max-vms: 5 ; five\r\n\r\n"
                                        "\t[vm 2]\t; a VM\r\nshare=7"),
                     0);
    assert_int_equal(config.max_vms, 5);
    assert_int_equal(limits_of(&config, 2)->share, 7);
    config_free(&config);

    assert_int_equal(read_bytes(&config, nul, sizeof(nul) - 1), 1);
    assert_string_equal(reports, "2: has a NUL byte: is this a text file?\n");
    assert_int_equal(config.max_vms, 3);
    config_free(&config);
}

/* Files --------------------------------------------------------------------------- */

static char folder[] = "/tmp/test-config-XXXXXX";

static void path_of(const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", folder, name);
}

static void write_file(const char *name, const char *text)
{
    char path[128];
    FILE *file;

    path_of(name, path);
    file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void remove_file(const char *name)
{
    char path[128];

    path_of(name, path);
    assert_int_equal(remove(path), 0);
}

static int load(struct config *config, bool optional)
{
    char path[128];

    path_of("main", path);
    reports[0] = '\0';
    return config_load(config, path, optional, collect, reports);
}

static int make_folder(void **state)
{
    char path[128];

    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/test-config-XXXXXX");
    assert_non_null(mkdtemp(folder));
    path_of("conf.d", path);
    return mkdir(path, 0700);
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"main",          "conf.d/10.conf",     "conf.d/9.conf",
                                        "conf.d/a.conf", "conf.d/.h.conf",     "conf.d/b.ini",
                                        "conf.d/conf",   "conf.d/folder.conf", "conf.d"};
    char path[128];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        path_of(names[i], path);
        remove(path);
    }
    return rmdir(folder);
}

static void test_folder(void **state)
{
    struct config config;

    (void)state;
    write_file("main", "[mediator]\nmax-vms = 1\nlisten = /main\n"
                       "[pool A]\nslice = 2ms\n"
                       "[vm 1]\nshare = 5\n");
    write_file("conf.d/10.conf", "[mediator]\nmax-vms = 2\n[pool A]\ndevices = 4\n");
    write_file("conf.d/9.conf", "[mediator]\nmax-vms = 3\n[vm 1]\nsessions = 6\n");
    write_file("conf.d/a.conf", "[defaults]\ncommands = 7\nshare = 8\n");
    write_file("conf.d/.h.conf", "bad");
    write_file("conf.d/b.ini", "bad");
    write_file("conf.d/conf", "bad");
    assert_int_equal(load(&config, false), 0);
    assert_string_equal(reports, "");
    assert_int_equal(config.max_vms, 3);
    assert_string_equal(config.listen, "/main");
    assert_int_equal(pool(&config, 'A')->slice_ns, 2 * NS_PER_MS);
    assert_int_equal(pool(&config, 'A')->devices[0], 4);
    assert_int_equal(config.vm_count, 1);
    assert_int_equal(config.vms[0].limits.share, 5);
    assert_int_equal(config.vms[0].limits.sessions, 6);
    assert_int_equal(config.vms[0].limits.commands, 7);
    config_free(&config);
}

/* All files' mistakes, and those that only show at the end at the place where they were made. */
static void test_mistakes_in_files(void **state)
{
    struct config config;
    char path[128];

    (void)state;
    write_file("main", "[pool A]\ndevices = 1\n[pool B]\nexclusive = yes\n[vm 1]\nshare = x\n");
    write_file("conf.d/10.conf", "share = 3\n[pool C]\ndevices = 2 1\n");
    write_file("conf.d/9.conf", "[vm 1]\n\npool = D\nnothing\n");
    path_of("conf.d/folder.conf", path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(load(&config, false), 7);
    assert_string_equal(
        reports,
        "main:6: section [vm 1]: key 'share' is 'x', must be a number from 1 to 10000\n"
        "10.conf:1: key 'share' stands above the first [section]\n"
        "9.conf:4: neither a [section] nor a line of the form 'key = value'\n"
        "folder.conf:0: cannot be read: Is a directory\n"
        "main:3: section [pool B]: key 'devices' is missing: the GPUs of the pool, such as "
        "'devices = 0'\n"
        "10.conf:3: section [pool C]: key 'devices': GPU 1 is in [pool A] too, must be in one "
        "pool\n"
        "9.conf:3: section [vm 1]: key 'pool' is 'D': there is no section [pool D]\n");
    config_free(&config);
}

static void test_missing_files(void **state)
{
    struct config config;
    char path[128];

    (void)state;
    write_file("conf.d/a.conf", "[mediator]\nmax-vms = 3\n");
    assert_int_equal(load(&config, true), 0);
    assert_int_equal(config.max_vms, 3);
    config_free(&config);
    assert_int_equal(load(&config, false), 1);
    assert_string_equal(reports, "main:0: cannot be read: No such file or directory\n");
    config_free(&config);

    remove_file("conf.d/a.conf");
    remove_file("conf.d");
    assert_int_equal(load(&config, true), 0);
    config_free(&config);

    write_file("conf.d", "");
    assert_int_equal(load(&config, true), 1);
    assert_string_equal(reports, "conf.d:0: cannot be read: Not a directory\n");
    config_free(&config);

    /* Optional is a file that is not there, not one that cannot be reached. */
    path_of("conf.d/x", path);
    reports[0] = '\0';
    assert_int_equal(config_load(&config, path, true, collect, reports), 2);
    assert_string_equal(reports, "x:0: cannot be read: Not a directory\n"
                                 "conf.d:0: cannot be read: Not a directory\n");
    config_free(&config);
}

/* Limits of a VM that is attached ------------------------------------------------- */

static const struct {
    const char *key;
    const char *values[8]; /* as config_get_limit() writes them */
} live[] = {
    {"priority", {"low", "medium", "high"}},
    {"share", {"1", "100", "10000"}},
    {"memory", {"none", "1M", "1025K", "1048577", "3T", "18446744073709551615"}},
    {"sessions", {"none", "1", "64"}},
    {"commands", {"none", "1", "1000000"}},
    {"doorbell-rate", {"none", "1", "10000000"}},
    {"interrupt-rate", {"none", "1", "10000000"}},
    {"max-kernel", {"none", "1ms", "1000.001ms", "1000.001us", "1.05s", "86400s", "20.5ms"}},
};

static void test_limits(void **state)
{
    const size_t count = sizeof(live) / sizeof(live[0]);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(config_limit_keys[i], live[i].key);
        for (unsigned j = 0; j < 8 && live[i].values[j]; j++) {
            struct config_limits limits = {.pool = 'C', .shm = 1 << 20, .share = 9};
            char text[64] = "";

            assert_null(config_set_limit(&limits, live[i].key, live[i].values[j]));
            assert_true(config_get_limit(&limits, live[i].key, text, sizeof(text)));
            assert_string_equal(text, live[i].values[j]);
            assert_int_equal(limits.pool, 'C');
            assert_int_equal(limits.shm, 1 << 20);
        }
    }
    assert_null(config_limit_keys[count]);
}

/* The values of the configuration as they are written are values of the configuration. */
static void test_limits_of_defaults(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(config_read(&config, NULL, collect, reports), 0);
    for (unsigned i = 0; config_limit_keys[i]; i++) {
        struct config_limits limits = {.share = 9};
        char text[64], same[64];

        assert_true(config_get_limit(&config.defaults, config_limit_keys[i], text, sizeof(text)));
        assert_null(config_set_limit(&limits, config_limit_keys[i], text));
        assert_true(config_get_limit(&limits, config_limit_keys[i], same, sizeof(same)));
        assert_string_equal(text, same);
    }
    config_free(&config);
}

static void test_limits_mistakes(void **state)
{
    static const char *const others[] = {"pool", "max-priority", "max-shm", "user", "", "listen"};
    struct config_limits limits = {.share = 9};
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_non_null(config_set_limit(&limits, others[i], "low"));
        assert_false(config_get_limit(&limits, others[i], text, sizeof(text)));
    }
    assert_string_equal(config_set_limit(&limits, "pool", "A"),
                        "unknown key 'pool': there are priority, share, memory, sessions, "
                        "commands, doorbell-rate, interrupt-rate, max-kernel");
    assert_string_equal(config_set_limit(&limits, "share", "0"),
                        "key 'share' is '0', must be a number from 1 to 10000");
    assert_int_equal(limits.share, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_mediator),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_vms),
        cmocka_unit_test(test_vms_by_name),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_durations_mistakes),
        cmocka_unit_test(test_percentages),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_odd_lines),
        cmocka_unit_test_setup_teardown(test_folder, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_mistakes_in_files, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_missing_files, make_folder, remove_folder),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_limits_of_defaults),
        cmocka_unit_test(test_limits_mistakes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
