/* SPDX-License-Identifier: MIT */
/*
 * The mediator's configuration. inih takes lines apart; config-key.c says which keys a section has,
 * how each value is read and where it goes. All mistakes are reported, and not only the first.
 *
 * A file goes through three functions. read_line() stands between the file and inih: it counts
 * lines, enters sections and passes on only the lines with keys. handle_key() gets the key and the
 * value of such a line and sets the field. When all files are read, finish_config() fills in the
 * keys that were left out and checks the rules that concern several keys.
 *
 * Sections add up, in any order and over several files. So each section remembers where each of its
 * keys was last set. A later mistake names that place. It also shows which keys a VM's section
 * lacks; they are filled in from [defaults] at the end.
 *
 * All values go into a fresh struct config. reload.c decides whether that is taken over.
 */
#include "mediator/config.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/version.h"
#include "mediator/arbiter.h"
#include "mediator/config-key.h"
#include "mediator/users.h"

#define MESSAGE_SIZE 1024
#define BLANKS " \t\r\v\f\n"

/* Where something was said; line 0: nowhere. */
struct place {
    const char *file;
    int line;
};

/* A section of the configuration, which may be spread over several of the files. */
struct section {
    char name[sizeof("vm ") + IDENTITY_TEXT];
    const struct key *keys;
    void *fields;                       /* what they are set in */
    struct place first;                 /* where it begins first */
    struct place said[CONFIG_KEYS_MAX]; /* where each key was last set, in the order of the table */
};

struct vm_section {
    struct section section;
    struct config_vm vm;
    struct vm_section *next;
};

struct parser {
    struct config *config;
    config_report *report;
    void *context;
    int mistakes;

    struct section mediator;
    struct section defaults;
    struct config_vm default_vm;
    struct section pools[CONFIG_POOLS];
    struct vm_section *vms;

    FILE *file;
    struct place place;
    char *text; /* the line as it was read, and how much fits there */
    size_t capacity;
    bool unread;             /* inih was given a line, and has found no key in it */
    bool skip;               /* the keys of a section that was a mistake */
    struct section *section; /* NULL: none yet */
    char **paths;            /* of the parts, which places refer to */
    size_t path_count;
};

static void config_mistake(struct parser *p, const struct place *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void config_mistake(struct parser *p, const struct place *place, const char *format, ...)
{
    char text[MESSAGE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    p->mistakes++;
    p->report(p->context, place->file, place->line, text);
}

/* Sections ------------------------------------------------------------------------ */

/* How sure it is that a section is meant: a number is one VM's alone. */
static int section_sureness(const struct identity *named)
{
    return named->id != 0 ? 3 : named->name[0] == '\0' ? 2 : 1;
}

const struct config_vm *config_find_vm(const struct config *config, const struct identity *who)
{
    const struct config_vm *found = NULL;

    for (size_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];

        if (identity_matches(&vm->named, who) &&
            (!found || section_sureness(&vm->named) > section_sureness(&found->named))) {
            found = vm;
        }
    }
    return found;
}

const struct config_limits *config_limits_of(const struct config *config,
                                             const struct identity *who)
{
    const struct config_vm *vm = config_find_vm(config, who);

    return vm ? &vm->limits : &config->defaults;
}

/* NULL after a mistake, like the next one. */
static struct section *config_find_pool(struct parser *p, const char *name)
{
    uint32_t pool;

    if (!config_parse_pool(name, &pool)) {
        config_mistake(p, &p->place, "section [pool %s]: a pool is named by a letter from A to Z",
                       name);
        return NULL;
    }
    p->config->pools[pool - 'A'].defined = true;
    return &p->pools[pool - 'A'];
}

static struct section *find_vm(struct parser *p, const char *name)
{
    struct vm_section **link = &p->vms;
    struct identity named;
    struct vm_section *vm;
    char text[IDENTITY_TEXT];

    if (!identity_parse(name, &named)) {
        config_mistake(p, &p->place,
                       "section [vm %s]: a VM is named by its id, 1 to 4294967295, by its UUID, or "
                       "by its name: at most %zu bytes, the first one a letter or _",
                       name, sizeof(named.name) - 1);
        return NULL;
    }
    /* One said field, and all others empty: so a section is the same where it matches itself. */
    while (*link && !identity_matches(&(*link)->vm.named, &named)) {
        link = &(*link)->next;
    }
    if (*link) {
        return &(*link)->section;
    }
    vm = calloc(1, sizeof(*vm));
    if (!vm) {
        config_mistake(p, &p->place, "section [vm %s]: out of memory", name);
        return NULL;
    }
    vm->vm = (struct config_vm){.named = named, .user = (uid_t)-1};
    vm->section = (struct section){.keys = config_vm_keys, .fields = &vm->vm};
    snprintf(vm->section.name, sizeof(vm->section.name), "vm %s", identity_format(&named, text));
    *link = vm;
    return &vm->section;
}

static struct section *find_section(struct parser *p, const char *name)
{
    if (strcmp(name, "mediator") == 0) {
        return &p->mediator;
    }
    if (strcmp(name, "defaults") == 0) {
        return &p->defaults;
    }
    if (strncmp(name, "pool ", 5) == 0) {
        return config_find_pool(p, name + 5);
    }
    if (strncmp(name, "vm ", 3) == 0) {
        return find_vm(p, name + 3);
    }
    config_mistake(p, &p->place,
                   "unknown section [%s]: known are [mediator], [defaults], [pool X] and [vm N]",
                   name);
    return NULL;
}

/* Lines --------------------------------------------------------------------------- */

/*
 * Enters the section that a line names. After a mistake the keys that follow are skipped: they
 * belong to no section, and each would be one more mistake.
 */
static void enter_section(struct parser *p, char *line)
{
    char *end = strchr(line, ']');
    const char *rest = end ? end + 1 + strspn(end + 1, BLANKS) : line;

    p->section = NULL;
    p->skip = true;
    /* A comment may follow, and strchr() finds the end as well. */
    if (!end || !strchr("#;", *rest)) {
        config_mistake(p, &p->place, "not a section: must be of the form [name]");
        return;
    }
    *end = '\0';
    p->section = find_section(p, line + 1);
    p->skip = !p->section;
    if (p->section && p->section->first.line == 0) {
        p->section->first = p->place;
    }
}

static void report_unknown(struct parser *p, const char *name)
{
    char known[MESSAGE_SIZE / 2] = "";

    for (const struct key *key = p->section->keys; key->name; key++) {
        config_append_name(known, sizeof(known), key->name);
    }
    config_mistake(p, &p->place, "section [%s]: unknown key '%s': there are %s", p->section->name,
                   name, known);
}

/* inih's handler; 1 is success, and mistakes are counted by ourselves. */
static int handle_key(void *user, const char *header, const char *name, const char *value)
{
    struct parser *p = user;
    const struct key *key;
    const char *expected;

    (void)header;
    p->unread = false;
    if (p->skip) {
        return 1;
    }
    if (!p->section) {
        config_mistake(p, &p->place, "key '%s' stands above the first [section]", name);
        return 1;
    }
    key = p->section->keys;
    while (key->name && strcmp(key->name, name) != 0) {
        key++;
    }
    if (!key->name) {
        report_unknown(p, name);
        return 1;
    }
    /*
     * This is noted even if the value turns out to be wrong: then the key was not left out, and one
     * mistake is enough.
     */
    p->section->said[key - p->section->keys] = p->place;
    expected = key->read(key, value, (char *)p->section->fields + key->offset);
    if (expected) {
        config_mistake(p, &p->place, "section [%s]: key '%s' is '%s', must be %s", p->section->name,
                       name, value, expected);
    }
    return 1;
}

/*
 * inih passes over a line in which it finds no key, and tells only of the first. It calls
 * handle_key() before it asks for the next line; if it did not, nothing was found in the last one.
 */
static void report_unread(struct parser *p)
{
    if (p->unread) {
        config_mistake(p, &p->place, "neither a [section] nor a line of the form 'key = value'");
    }
    p->unread = false;
}

/*
 * inih's reader, instead of fgets. Sections are entered here, because inih does not tell of those
 * without keys and cuts long names. It would also split a line that does not fit, and take an
 * indented one for more of the value before. So it sees the lines with keys alone, without their
 * indentation, and an empty line for each of the others.
 */
static char *read_line(char *line, int size, void *stream)
{
    static const char mark[] = "\xEF\xBB\xBF"; /* UTF-8, some editors say */
    struct parser *p = stream;
    const size_t fits = (size_t)size - 2;
    ssize_t length;
    bool has_nul;
    char *start;

    report_unread(p);
    length = getline(&p->text, &p->capacity, p->file);
    if (length < 0) {
        return NULL;
    }
    p->place.line++;
    /* The code below works on strings, and would not see the bytes behind a NUL. */
    has_nul = strlen(p->text) != (size_t)length;
    while (length > 0 && strchr(BLANKS, p->text[length - 1])) {
        p->text[--length] = '\0';
    }
    start = p->text;
    if (p->place.line == 1 && strncmp(start, mark, strlen(mark)) == 0) {
        start += strlen(mark);
    }
    start += strspn(start, BLANKS);
    /* Below, strchr() finds the end of an empty line as well as the sign of a comment. */
    snprintf(line, (size_t)size, "\n");
    if (has_nul) {
        config_mistake(p, &p->place, "has a NUL byte: is this a text file?");
    } else if (*start == '[') {
        enter_section(p, start);
    } else if (!strchr("#;", *start) && strlen(start) > fits) {
        config_mistake(p, &p->place, "has %zu characters, must be at most %zu", strlen(start),
                       fits);
    } else if (!strchr("#;", *start)) {
        p->unread = true;
        snprintf(line, (size_t)size, "%s\n", start);
    }
    return line;
}

/*
 * A file begins outside of all sections, even if the one before ended in a section. The result of
 * inih is ignored: it is the number of the first line without a key, which has been reported.
 */
static void config_read_stream(struct parser *p, FILE *file, const char *name)
{
    p->file = file;
    p->place = (struct place){.file = name};
    p->section = NULL;
    p->skip = false;
    ini_parse_stream(read_line, p, handle_key, p);
    if (ferror(file)) {
        p->place.line = 0;
        config_mistake(p, &p->place, "cannot be read: %s", strerror(errno));
    }
}

/* The whole ----------------------------------------------------------------------- */

static void set_defaults(struct config *config)
{
    memset(config, 0, sizeof(*config));
    config->listen = strdup("/run/vgpu/mediator.sock");
    config->control = strdup("/run/vgpu/control.sock");
    config->worker = strdup(VGPU_LIBEXECDIR "/vgpu-worker");
    config->metrics = strdup("off");
    config->unknown_vms = true;
    config->max_vms = 256;
    config->turn_limit_ns = 30 * NS_PER_S;
    config->preempt = true;
    config->sensors = CONFIG_SENSORS_HOST;
    config->register_rest_ns = CONFIG_REST_DEFAULT;
    /*
     * A user that nothing else runs as, where the package has made one; else nobody. Without that
     * entry the number that it has everywhere: workers must not stay root.
     */
    config->worker_user = 65534;
    config->worker_group = 65534;
    if (!users_find("vgpu-worker", &config->worker_user, &config->worker_group)) {
        users_find("nobody", &config->worker_user, &config->worker_group);
    }
    config->users[0] = 0;
    config->users[1] = geteuid();
    config->user_count = 2;
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        config->pools[i].slice_ns = 5 * NS_PER_MS;
        config->pools[i].window_ns = 100 * NS_PER_US;
        config->pools[i].least_share = ARBITER_LEAST_ONE / 100;
    }
}

/*
 * Prepares the parser and a configuration that has the defaults; no section has been seen. False
 * when there is no memory, which is reported.
 */
static bool begin_parser(struct parser *p, struct config *config, config_report *report,
                         void *context)
{
    *p = (struct parser){
        .config = config,
        .report = report,
        .context = context,
        .mediator = {.name = "mediator", .keys = config_mediator_keys, .fields = config},
        .defaults = {.name = "defaults", .keys = config_default_keys},
        .default_vm.limits = {.priority = VGPU_PRIORITY_HIGH,
                              .shm = UINT64_C(1) << 30,
                              .share = ARBITER_WEIGHT},
    };
    p->defaults.fields = &p->default_vm;
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        p->pools[i] = (struct section){.keys = config_pool_keys, .fields = &config->pools[i]};
        snprintf(p->pools[i].name, sizeof(p->pools[i].name), "pool %c", 'A' + (int)i);
    }
    set_defaults(config);
    if (!config->listen || !config->control || !config->worker || !config->metrics) {
        config_mistake(p, &p->place, "out of memory");
        return false;
    }
    return true;
}

/*
 * Makes config->vms of the sections. A key that a VM's section does not have gets the default. This
 * is done at the end, because [defaults] may come after the VM or in another file, and by the
 * table, so that it holds for new keys too.
 */
static void fill_vms(struct parser *p)
{
    struct config *config = p->config;
    size_t count = 0;

    config->defaults = p->default_vm.limits;
    for (const struct vm_section *vm = p->vms; vm; vm = vm->next) {
        count++;
    }
    config->vms = calloc(count > 0 ? count : 1, sizeof(*config->vms));
    if (!config->vms) {
        config_mistake(p, &(struct place){0}, "out of memory");
        return;
    }
    for (struct vm_section *vm = p->vms; vm; vm = vm->next) {
        for (const struct key *key = config_default_keys; key->name; key++) {
            if (vm->section.said[key - config_vm_keys].line == 0) {
                memcpy((char *)&vm->vm + key->offset, (const char *)&p->default_vm + key->offset,
                       key->size);
            }
        }
        config->vms[config->vm_count++] = vm->vm;
    }
}

/*
 * The attach socket may have an abstract name, because the peer's user decides there. A user who
 * reaches the control socket may do everything, so that one needs a file's permissions.
 */
static void check_addresses(struct parser *p)
{
    const struct config *config = p->config;
    const char *const texts[] = {config->listen, config->control, config->metrics};

    if (config->control[0] == '@') {
        config_mistake(
            p, &p->mediator.said[KEY_CONTROL],
            "section [mediator]: key 'control' is '%s', must be a path: an abstract name has "
            "no permissions",
            config->control);
    }
    for (unsigned i = 0; i <= KEY_METRICS; i++) {
        for (unsigned j = 0; j < i; j++) {
            const struct place *place = &p->mediator.said[i];

            if (strcmp(texts[i], texts[j]) == 0) {
                config_mistake(p, place->line > 0 ? place : &p->mediator.said[j],
                               "section [mediator]: keys '%s' and '%s' are both '%s'",
                               config_mediator_keys[j].name, config_mediator_keys[i].name,
                               texts[i]);
            }
        }
    }
}

/*
 * Each GPU may be in one pool only: in two it would have two arbiters for each engine, of which
 * neither would know the other's turns.
 */
static void check_pools(struct parser *p)
{
    struct config_pool *pools = p->config->pools;
    const struct section *owners[CONFIG_GPUS_MAX] = {NULL};
    bool any = false;

    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        const struct section *section = &p->pools[i];

        any |= pools[i].defined;
        if (pools[i].defined && section->said[KEY_DEVICES].line == 0) {
            config_mistake(p, &section->first,
                           "section [%s]: key 'devices' is missing: the GPUs of the pool, such as "
                           "'devices = 0'",
                           section->name);
        }
        for (unsigned j = 0; j < pools[i].device_count; j++) {
            const struct section **owner = &owners[pools[i].devices[j]];

            if (*owner) {
                config_mistake(
                    p, &section->said[KEY_DEVICES],
                    "section [%s]: key 'devices': GPU %d is in [%s] too, must be in one pool",
                    section->name, pools[i].devices[j], (*owner)->name);
            }
            *owner = section;
        }
    }
    /* Without a pool section there is pool A on the first GPU. */
    if (!any) {
        pools[0].defined = true;
        pools[0].device_count = 1;
    }
}

/*
 * A pool that is asked for must exist. A VM that has its pool from [defaults] is not looked at: the
 * mistake was made there, and is reported there.
 */
static void check_pool(struct parser *p, const struct section *section,
                       const struct config_limits *limits)
{
    const struct place *place = &section->said[&config_vm_keys[KEY_POOL] - section->keys];

    if (place->line > 0 && limits->pool != 0 && !p->config->pools[limits->pool - 'A'].defined) {
        config_mistake(p, place, "section [%s]: key 'pool' is '%c': there is no section [pool %c]",
                       section->name, (int)limits->pool, (int)limits->pool);
    }
}

/* Takes what was read, and checks what no single key shows. Returns the number of mistakes. */
static int finish_config(struct parser *p)
{
    struct vm_section *next;

    fill_vms(p);
    check_addresses(p);
    check_pools(p);
    check_pool(p, &p->defaults, &p->config->defaults);
    for (struct vm_section *vm = p->vms; vm; vm = next) {
        check_pool(p, &vm->section, &vm->vm.limits);
        next = vm->next;
        free(vm);
    }
    /* Places refer to these, so they stay until the last mistake is reported. */
    for (size_t i = 0; i < p->path_count; i++) {
        free(p->paths[i]);
    }
    free(p->paths);
    free(p->text);
    return p->mistakes;
}

int config_read(struct config *config, FILE *file, config_report *report, void *context)
{
    struct parser p;

    if (!begin_parser(&p, config, report, context)) {
        return p.mistakes;
    }
    if (file) {
        config_read_stream(&p, file, NULL);
    }
    return finish_config(&p);
}

/* Files --------------------------------------------------------------------------- */

/* `optional`: the file may be missing. One that is there must be readable. */
static void config_read_file(struct parser *p, const char *name, bool optional)
{
    FILE *file = fopen(name, "re");

    if (file) {
        config_read_stream(p, file, name);
        fclose(file);
    } else if (!optional || errno != ENOENT) {
        config_mistake(p, &(struct place){.file = name}, "cannot be read: %s", strerror(errno));
    }
}

static int is_part(const struct dirent *entry)
{
    const char *suffix = strrchr(entry->d_name, '.');

    return entry->d_name[0] != '.' && suffix && strcmp(suffix, ".conf") == 0;
}

/* By bytes, whatever the locale. */
static int compare_names(const struct dirent **one, const struct dirent **other)
{
    return strcmp((*one)->d_name, (*other)->d_name);
}

/*
 * The folder conf.d beside the file: for /etc/vgpu/mediator.conf it is /etc/vgpu/conf.d. It may be
 * missing.
 */
static void read_folder(struct parser *p, const char *name)
{
    const char *slash = strrchr(name, '/');
    const int length = slash ? (int)(slash - name + 1) : 0;
    char folder[PATH_MAX];
    struct dirent **entries;
    int count;

    snprintf(folder, sizeof(folder), "%.*sconf.d", length, name);
    count = scandir(folder, &entries, is_part, compare_names);
    if (count < 0) {
        if (errno != ENOENT) {
            config_mistake(p, &(struct place){.file = folder}, "cannot be read: %s",
                           strerror(errno));
        }
        return;
    }
    p->paths = calloc((size_t)count + 1, sizeof(*p->paths));
    for (int i = 0; i < count; i++) {
        char *path;

        if (p->paths && asprintf(&path, "%s/%s", folder, entries[i]->d_name) >= 0) {
            p->paths[p->path_count++] = path;
            config_read_file(p, path, false);
        } else {
            config_mistake(p, &(struct place){.file = folder}, "out of memory");
        }
        free(entries[i]);
    }
    free(entries);
}

int config_load(struct config *config, const char *name, bool optional, config_report *report,
                void *context)
{
    struct parser p;

    if (!begin_parser(&p, config, report, context)) {
        return p.mistakes;
    }
    config_read_file(&p, name, optional);
    read_folder(&p, name);
    return finish_config(&p);
}

void config_free(struct config *config)
{
    free(config->listen);
    free(config->control);
    free(config->worker);
    free(config->metrics);
    free(config->vms);
    memset(config, 0, sizeof(*config));
}
