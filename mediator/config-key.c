/* SPDX-License-Identifier: MIT */
/*
 * The keys of the configuration's sections, as tables. A line says the key's name, the field that
 * it sets, the function that reads its value, and how an error describes the right values. For
 * numbers it also has the bounds, and for words the list of them. So a new key is a line here and a
 * field in config.h; config.c needs no change unless a rule concerns several keys at once.
 *
 * [defaults] and [vm N] share one table, because a VM's section may set all that the defaults have.
 * Of these keys some can be changed while a VM is attached; they have a second name, `live`, and a
 * function that writes the value as text. The two names differ for `max-priority`: in a
 * configuration it is the most that a VM may ask for, while "priority" that is set for an attached
 * VM is its priority from then on.
 */
#include "mediator/config-key.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "mediator/arbiter.h"

#define MESSAGE_SIZE 1024
#define DAY_NS (UINT64_C(86400) * NS_PER_S)

/*
 * The words of a key are in the order of the enum's values, or false first: config_read_word()
 * stores a word's place in its list.
 */
static const char *const priority_words[] = {"low", "medium", "high", NULL};
static const char *const backend_words[] = {"auto", "cpu", "cuda", NULL};
static const char *const allow_words[] = {"refuse", "allow", NULL};
static const char *const above_words[] = {"lower", "refuse", NULL};
static const char *const sensors_words[] = {"off", "host", "guests", NULL};
static const char *const yes_words[] = {"no", "yes", NULL};

const char *config_priority_name(uint32_t priority)
{
    return priority < VGPU_PRIORITIES ? priority_words[priority] : "unknown";
}

/* WHOLE is for a value that sets more than one field, such as a user and a group. */
#define FIELD(type, field) offsetof(type, field), sizeof(((type *)NULL)->field)
#define WHOLE(type) 0, sizeof(type)

const struct key config_mediator_keys[] = {
    [KEY_LISTEN] = {"listen", FIELD(struct config, listen), config_read_text,
                    "a path, or @ and a name"},
    [KEY_CONTROL] = {"control", FIELD(struct config, control), config_read_text, "a path"},
    [KEY_METRICS] = {"metrics", FIELD(struct config, metrics), config_read_metrics,
                     "off, 127.0.0.1:PORT, [::1]:PORT or the path of a Unix socket: only loopback "
                     "is allowed since the endpoint has no authentication"},
    {"worker", FIELD(struct config, worker), config_read_text, "a path"},
    {"backend", FIELD(struct config, backend), config_read_word, "auto, cpu or cuda",
     .words = backend_words},
    {"unknown-vms", FIELD(struct config, unknown_vms), config_read_word, "allow or refuse",
     .words = allow_words},
    {"above-limit", FIELD(struct config, refuse_above), config_read_word, "lower or refuse",
     .words = above_words},
    {"max-vms", FIELD(struct config, max_vms), config_read_number, "a number from 1 to 4096", 1,
     4096},
    {"turn-limit", FIELD(struct config, turn_limit_ns), config_read_duration,
     "a duration from 1ms to 86400s, or none", NS_PER_MS, DAY_NS, .none = true},
    {"register-rest", FIELD(struct config, register_rest_ns), config_read_duration,
     "a duration from 10ms to 86400s, or none", 10 * NS_PER_MS, DAY_NS, .none = true},
    {"sensors", FIELD(struct config, sensors), config_read_word, "off, host or guests",
     .words = sensors_words},
    {"preempt", FIELD(struct config, preempt), config_read_word, "yes or no", .words = yes_words},
    {"worker-user", WHOLE(struct config), config_read_worker_user,
     "the name or number of a user on this host who is not root"},
    {"users", WHOLE(struct config), config_read_users,
     "at most 16 names or numbers of users on this host"},
    {NULL},
};

const struct key config_pool_keys[] = {
    [KEY_DEVICES] = {"devices", WHOLE(struct config_pool), config_read_devices,
                     "1 to 16 numbers of GPUs, 0 to 255, each once"},
    {"exclusive", FIELD(struct config_pool, exclusive), config_read_word, "yes or no",
     .words = yes_words},
    {"slice", FIELD(struct config_pool, slice_ns), config_read_duration,
     "a duration from 100us to 1s", 100 * NS_PER_US, NS_PER_S},
    {"window", FIELD(struct config_pool, window_ns), config_read_duration,
     "a duration from 10us to 100ms", 10 * NS_PER_US, 100 * NS_PER_MS},
    {"least-share", FIELD(struct config_pool, least_share), config_read_percentage,
     "a percentage from 0% to 30% with at most 3 decimals", 0, 30000},
    {"gpu-name", FIELD(struct config_pool, gpu_name), config_read_gpu_name,
     "a name of at most 63 printable ASCII characters, or none", .none = true},
    {NULL},
};

const struct key config_vm_keys[] = {
    [KEY_USER] = {"user", FIELD(struct config_vm, user), config_read_user,
                  "the name or number of a user on this host"},
    [KEY_POOL] = {"pool", FIELD(struct config_vm, limits.pool), config_read_pool,
                  "a letter from A to Z, or any"},
    {"max-priority", FIELD(struct config_vm, limits.priority), config_read_word,
     "low, medium or high", .words = priority_words, .live = "priority",
     .write = config_write_word},
    {"max-shm", FIELD(struct config_vm, limits.shm), config_read_shm,
     "a power of two from 1M to 64G"},
    {"share", FIELD(struct config_vm, limits.share), config_read_number, "a number from 1 to 10000",
     1, ARBITER_WEIGHT_MAX, .live = "share", .write = config_write_number},
    {"memory", FIELD(struct config_vm, limits.memory), config_read_size,
     "bytes, or a number with K, M, G or T, at least 1M, or none", 1 << 20, UINT64_MAX,
     .none = true, .live = "memory", .write = config_write_size},
    {"sessions", FIELD(struct config_vm, limits.sessions), config_read_number,
     "a number from 1 to 64, or none", 1, 64, .none = true, .live = "sessions",
     .write = config_write_number},
    {"commands", FIELD(struct config_vm, limits.commands), config_read_number,
     "a number from 1 to 1000000, or none", 1, 1000000, .none = true, .live = "commands",
     .write = config_write_number},
    {"doorbell-rate", FIELD(struct config_vm, limits.doorbells), config_read_number,
     "a number from 1 to 10000000, or none", 1, 10000000, .none = true, .live = "doorbell-rate",
     .write = config_write_number},
    {"interrupt-rate", FIELD(struct config_vm, limits.interrupts), config_read_number,
     "a number from 1 to 10000000, or none", 1, 10000000, .none = true, .live = "interrupt-rate",
     .write = config_write_number},
    {"max-kernel", FIELD(struct config_vm, limits.kernel_ns), config_read_duration,
     "a duration from 1ms to 86400s, or none", NS_PER_MS, DAY_NS, .none = true,
     .live = "max-kernel", .write = config_write_duration},
    {NULL},
};

/* [defaults] has all of a VM's but the first. */
const struct key *const config_default_keys = &config_vm_keys[KEY_POOL];

static_assert(sizeof(config_mediator_keys) / sizeof(config_mediator_keys[0]) <= CONFIG_KEYS_MAX + 1,
              "CONFIG_KEYS_MAX");
static_assert(sizeof(config_pool_keys) / sizeof(config_pool_keys[0]) <= CONFIG_KEYS_MAX + 1,
              "CONFIG_KEYS_MAX");
static_assert(sizeof(config_vm_keys) / sizeof(config_vm_keys[0]) <= CONFIG_KEYS_MAX + 1,
              "CONFIG_KEYS_MAX");

/* In the order in which vgpuctl shows them. */
const char *const config_limit_keys[] = {"priority",       "share",      "memory",
                                         "sessions",       "commands",   "doorbell-rate",
                                         "interrupt-rate", "max-kernel", NULL};

/* Puts a key's name behind those in the text. */
void config_append_name(char *text, size_t size, const char *name)
{
    const size_t length = strlen(text);

    snprintf(text + length, size - length, "%s%s", length > 0 ? ", " : "", name);
}

static const struct key *find_live(const char *name)
{
    for (const struct key *key = config_vm_keys; key->name; key++) {
        if (key->live && strcmp(key->live, name) == 0) {
            return key;
        }
    }
    return NULL;
}

/*
 * The value is read into a copy, so that a wrong one changes nothing. The copy is a whole struct
 * config_vm, because the table's offsets are those of that struct.
 */
const char *config_set_limit(struct config_limits *limits, const char *key, const char *value)
{
    static char problem[MESSAGE_SIZE];
    const struct key *found = find_live(key);
    struct config_vm vm = {.limits = *limits};
    char known[MESSAGE_SIZE / 2] = "";
    const char *expected;

    if (!found) {
        for (unsigned i = 0; config_limit_keys[i]; i++) {
            config_append_name(known, sizeof(known), config_limit_keys[i]);
        }
        snprintf(problem, sizeof(problem), "unknown key '%s': there are %s", key, known);
        return problem;
    }
    expected = found->read(found, value, (char *)&vm + found->offset);
    if (expected) {
        snprintf(problem, sizeof(problem), "key '%s' is '%s', must be %s", key, value, expected);
        return problem;
    }
    *limits = vm.limits;
    return NULL;
}

bool config_get_limit(const struct config_limits *limits, const char *key, char *text, size_t size)
{
    const struct key *found = find_live(key);
    const struct config_vm vm = {.limits = *limits};

    if (found) {
        found->write(found, (const char *)&vm + found->offset, text, size);
    }
    return found != NULL;
}
