/* SPDX-License-Identifier: MIT */
/*
 * The mediator's configuration. inih takes the file apart; the tables below say which keys
 * a section has, how each value is read and where it goes. All mistakes are reported, not
 * only the first.
 */
#include "config.h"

#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "version.h"

struct parser {
    struct config *config;
    FILE *file;
    int line;
    int mistakes;
    config_report *report;
    void *context;
    bool entered;     /* a section was seen */
    char section[64]; /* the one that `target` belongs to */
    void *target;     /* what the section's keys are set in */
};

/* Reads a value into *field; NULL, or what it should have been. */
typedef const char *read_value(const char *value, void *field);

static const char *const priority_names[VGPU_PRIORITIES] = {"low", "medium", "high"};

const char *config_priority_name(uint32_t priority)
{
    return priority < VGPU_PRIORITIES ? priority_names[priority] : "unknown";
}

static void mistake(struct parser *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void mistake(struct parser *p, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    p->mistakes++;
    p->report(p->context, p->line, text);
}

/* Values -------------------------------------------------------------------------- */

static bool parse_u64(const char *text, uint64_t max, uint64_t *value, const char **end)
{
    char *stop;

    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *value = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0 && *value <= max;
}

static const char *read_text(const char *value, void *field)
{
    char **text = field;

    if (value[0] == '\0') {
        return "a path or name";
    }
    free(*text);
    *text = strdup(value);
    return *text ? NULL : "shorter: out of memory";
}

static const char *read_priority(const char *value, void *field)
{
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (strcmp(value, priority_names[i]) == 0) {
            *(enum vgpu_priority *)field = (enum vgpu_priority)i;
            return NULL;
        }
    }
    return "low, medium or high";
}

static const char *read_pool(const char *value, void *field)
{
    uint32_t *pool = field;

    if (strcmp(value, "any") == 0) {
        *pool = 0;
        return NULL;
    }
    if (value[0] < 'A' || value[0] > 'Z' || value[1] != '\0') {
        return "a letter from A to Z, or any";
    }
    *pool = (uint32_t)value[0];
    return NULL;
}

static const char *read_size(const char *value, void *field)
{
    static const char expected[] = "a power of two from 1M to 64G";
    static const char suffixes[] = "KMG";
    const char *end;
    uint64_t size;

    if (!parse_u64(value, VGPU_SHM_MAX, &size, &end)) {
        return expected;
    }
    if (*end != '\0') {
        const char *suffix = strchr(suffixes, *end);

        if (!suffix || end[1] != '\0') {
            return expected;
        }
        if (size > VGPU_SHM_MAX >> (10 * (suffix - suffixes + 1))) {
            return expected;
        }
        size <<= 10 * (suffix - suffixes + 1);
    }
    if (!vgpu_shm_size_valid(size)) {
        return expected;
    }
    *(uint64_t *)field = size;
    return NULL;
}

static const char *read_device(const char *value, void *field)
{
    const char *end;
    uint64_t number;

    if (!parse_u64(value, 255, &number, &end) || *end != '\0') {
        return "the number of a GPU, 0 to 255";
    }
    *(int *)field = (int)number;
    return NULL;
}

static const char *read_count(const char *value, void *field)
{
    const char *end;
    uint64_t number;

    if (!parse_u64(value, 4096, &number, &end) || *end != '\0' || number == 0) {
        return "a number from 1 to 4096";
    }
    *(uint32_t *)field = (uint32_t)number;
    return NULL;
}

static const char *read_seconds(const char *value, void *field)
{
    const char *end;
    uint64_t number;

    if (!parse_u64(value, 86400, &number, &end) || *end != '\0') {
        return "seconds, 0 (no limit) to 86400";
    }
    *(uint64_t *)field = number * NS_PER_S;
    return NULL;
}

static const char *read_backend(const char *value, void *field)
{
    static const char *const names[] = {"auto", "cpu", "cuda"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(value, names[i]) == 0) {
            *(enum config_backend *)field = (enum config_backend)i;
            return NULL;
        }
    }
    return "auto, cpu or cuda";
}

static const char *read_allow(const char *value, void *field)
{
    if (strcmp(value, "allow") != 0 && strcmp(value, "refuse") != 0) {
        return "allow or refuse";
    }
    *(bool *)field = value[0] == 'a';
    return NULL;
}

static const char *read_above(const char *value, void *field)
{
    if (strcmp(value, "lower") != 0 && strcmp(value, "refuse") != 0) {
        return "lower or refuse";
    }
    *(bool *)field = value[0] == 'r';
    return NULL;
}

/* A user by name or number; *group may be NULL. */
static bool find_user(const char *name, uid_t *user, gid_t *group)
{
    const struct passwd *entry;
    const char *end;
    uint64_t number;

    if (parse_u64(name, INT_MAX, &number, &end) && *end == '\0') {
        *user = (uid_t)number;
        entry = group ? getpwuid(*user) : NULL;
        if (group) {
            *group = entry ? entry->pw_gid : (gid_t)number;
        }
        return true;
    }
    entry = getpwnam(name);
    if (!entry) {
        return false;
    }
    *user = entry->pw_uid;
    if (group) {
        *group = entry->pw_gid;
    }
    return true;
}

static const char *read_user(const char *value, void *field)
{
    return find_user(value, field, NULL) ? NULL : "the name or number of a user on this host";
}

static const char *read_worker_user(const char *value, void *field)
{
    struct config *config = field;

    return find_user(value, &config->worker_user, &config->worker_group)
               ? NULL
               : "the name or number of a user on this host";
}

static const char *read_users(const char *value, void *field)
{
    struct config *config = field;
    char *copy = strdup(value);
    char *rest = copy;
    const char *problem = NULL;

    config->user_count = 0;
    for (char *name; copy && !problem && (name = strsep(&rest, " ,\t")) != NULL;) {
        if (name[0] == '\0') {
            continue;
        }
        if (config->user_count == CONFIG_USERS) {
            problem = "at most 16 users";
        } else if (!find_user(name, &config->users[config->user_count], NULL)) {
            problem = "names or numbers of users on this host";
        } else {
            config->user_count++;
        }
    }
    free(copy);
    return problem;
}

/* Sections ------------------------------------------------------------------------ */

struct key {
    const char *name;
    size_t offset; /* of the field in the section's target */
    read_value *read;
};

static const struct key mediator_keys[] = {
    {"listen", offsetof(struct config, listen), read_text},
    {"control", offsetof(struct config, control), read_text},
    {"worker", offsetof(struct config, worker), read_text},
    {"backend", offsetof(struct config, backend), read_backend},
    {"unknown-vms", offsetof(struct config, unknown_vms), read_allow},
    {"above-limit", offsetof(struct config, refuse_above), read_above},
    {"max-vms", offsetof(struct config, max_vms), read_count},
    {"turn-limit", offsetof(struct config, turn_limit_ns), read_seconds},
    {"worker-user", 0, read_worker_user},
    {"users", 0, read_users},
    {NULL, 0, NULL},
};

static const struct key default_keys[] = {
    {"pool", offsetof(struct config, defaults.pool), read_pool},
    {"max-priority", offsetof(struct config, defaults.priority), read_priority},
    {"max-shm", offsetof(struct config, defaults.shm), read_size},
    {NULL, 0, NULL},
};

static const struct key pool_keys[] = {
    {"device", 0, read_device}, /* the target is an element of pool_device */
    {NULL, 0, NULL},
};

static const struct key vm_keys[] = {
    {"pool", offsetof(struct config_vm, limits.pool), read_pool},
    {"max-priority", offsetof(struct config_vm, limits.priority), read_priority},
    {"max-shm", offsetof(struct config_vm, limits.shm), read_size},
    {"user", offsetof(struct config_vm, user), read_user},
    {NULL, 0, NULL},
};

static struct config_vm *find_vm(const struct config *config, uint32_t id)
{
    for (size_t i = 0; i < config->vm_count; i++) {
        if (config->vms[i].id == id) {
            return &config->vms[i];
        }
    }
    return NULL;
}

const struct config_vm *config_find_vm(const struct config *config, uint32_t id)
{
    return find_vm(config, id);
}

/* A new VM takes the defaults as they stand: [defaults] belongs above the VMs. */
static struct config_vm *add_vm(struct config *config, uint32_t id)
{
    struct config_vm *vms = realloc(config->vms, (config->vm_count + 1) * sizeof(*vms));
    size_t place = config->vm_count;

    if (!vms) {
        return NULL;
    }
    config->vms = vms;
    while (place > 0 && vms[place - 1].id > id) {
        vms[place] = vms[place - 1];
        place--;
    }
    vms[place] = (struct config_vm){.id = id, .limits = config->defaults, .user = (uid_t)-1};
    config->vm_count++;
    return &vms[place];
}

static void enter_pool(struct parser *p, const char *name)
{
    uint32_t pool = 0;

    if (read_pool(name, &pool) || pool == 0) {
        mistake(p, "section [pool %s]: a pool is named by a letter from A to Z", name);
        return;
    }
    p->config->pool_defined[pool - 'A'] = true;
    p->target = &p->config->pool_device[pool - 'A'];
}

static void enter_vm(struct parser *p, const char *name)
{
    const char *end;
    uint64_t id;

    if (!parse_u64(name, UINT32_MAX, &id, &end) || *end != '\0' || id == 0) {
        mistake(p, "section [vm %s]: a VM is named by its id, 1 to 4294967295", name);
        return;
    }
    p->target = find_vm(p->config, (uint32_t)id);
    if (!p->target) {
        p->target = add_vm(p->config, (uint32_t)id);
    }
}

/* Finds the section's keys and, where it is not the one before, its target. */
static const struct key *enter_section(struct parser *p, const char *section)
{
    const bool again = p->entered && strcmp(section, p->section) == 0;

    p->entered = true;
    snprintf(p->section, sizeof(p->section), "%s", section);
    if (strcmp(section, "mediator") == 0) {
        p->target = p->config;
        return mediator_keys;
    }
    if (strcmp(section, "defaults") == 0) {
        p->target = p->config;
        return default_keys;
    }
    if (strncmp(section, "pool ", 5) == 0) {
        if (!again) {
            p->target = NULL;
            enter_pool(p, section + 5);
        }
        return pool_keys;
    }
    if (strncmp(section, "vm ", 3) == 0) {
        if (!again) {
            p->target = NULL;
            enter_vm(p, section + 3);
        }
        return vm_keys;
    }
    if (!again) {
        mistake(p, "unknown section [%s]: known are [mediator], [defaults], [pool X] and [vm N]",
                section);
    }
    p->target = NULL;
    return NULL;
}

/* inih's handler; 1 is success, and mistakes are counted by ourselves. */
static int handle_key(void *user, const char *section, const char *name, const char *value)
{
    struct parser *p = user;
    const struct key *key = enter_section(p, section);
    const char *expected;

    if (!p->target || !name) {
        return 1;
    }
    while (key->name && strcmp(key->name, name) != 0) {
        key++;
    }
    if (!key->name) {
        mistake(p, "section [%s]: unknown key '%s'", section, name);
        return 1;
    }
    expected = key->read(value, (char *)p->target + key->offset);
    if (expected) {
        mistake(p, "section [%s]: key '%s' is '%s', must be %s", section, name, value, expected);
    }
    return 1;
}

/* inih's reader: fgets that knows which line it is at. */
static char *read_line(char *line, int size, void *stream)
{
    struct parser *p = stream;

    p->line++;
    return fgets(line, size, p->file);
}

static void set_defaults(struct config *config)
{
    const struct passwd *nobody = getpwnam("nobody");

    memset(config, 0, sizeof(*config));
    config->listen = strdup("/run/vgpu/mediator.sock");
    config->control = strdup("/run/vgpu/control.sock");
    config->worker = strdup(VGPU_LIBEXECDIR "/vgpu-worker");
    config->unknown_vms = true;
    config->max_vms = 64;
    config->turn_limit_ns = 30 * NS_PER_S;
    /* Without that entry the number that it has everywhere: workers must not stay root. */
    config->worker_user = nobody ? nobody->pw_uid : 65534;
    config->worker_group = nobody ? nobody->pw_gid : 65534;
    config->users[0] = 0;
    config->users[1] = geteuid();
    config->user_count = 2;
    config->defaults.priority = VGPU_PRIORITY_HIGH;
    config->defaults.shm = UINT64_C(1) << 30;
}

/* What no single key shows. */
static void check_whole(struct parser *p)
{
    struct config *config = p->config;
    bool any = false;

    p->line = 0;
    if (p->file && ferror(p->file)) {
        mistake(p, "cannot be read to its end");
    }
    if (config->control[0] == '@') {
        mistake(p,
                "section [mediator]: 'control' is '%s', must be a path: an abstract name has no "
                "permissions",
                config->control);
    }
    if (strcmp(config->listen, config->control) == 0) {
        mistake(p, "section [mediator]: 'listen' and 'control' are both '%s'", config->listen);
    }
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        any |= config->pool_defined[i];
    }
    /* Without a pool section there is pool A on the first GPU. */
    if (!any) {
        config->pool_defined[0] = true;
    }
    if (config->defaults.pool && !config->pool_defined[config->defaults.pool - 'A']) {
        mistake(p, "section [defaults]: pool %c has no section [pool %c]",
                (int)config->defaults.pool, (int)config->defaults.pool);
    }
    for (size_t i = 0; i < config->vm_count; i++) {
        const uint32_t pool = config->vms[i].limits.pool;

        if (pool && !config->pool_defined[pool - 'A']) {
            mistake(p, "section [vm %u]: pool %c has no section [pool %c]", config->vms[i].id,
                    (int)pool, (int)pool);
        }
    }
}

int config_read(struct config *config, FILE *file, config_report *report, void *context)
{
    struct parser p = {.config = config, .file = file, .report = report, .context = context};
    int r;

    set_defaults(config);
    if (!config->listen || !config->control || !config->worker) {
        mistake(&p, "out of memory");
        return p.mistakes;
    }
    if (file) {
        r = ini_parse_stream(read_line, &p, handle_key, &p);
        if (r != 0) {
            p.line = r > 0 ? r : 0;
            mistake(&p, "neither a [section] nor a line of the form 'key = value'");
        }
    }
    check_whole(&p);
    return p.mistakes;
}

void config_free(struct config *config)
{
    free(config->listen);
    free(config->control);
    free(config->worker);
    free(config->vms);
    memset(config, 0, sizeof(*config));
}
