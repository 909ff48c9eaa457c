/* SPDX-License-Identifier: MIT */
/*
 * The configuration, at the start and again while VMs are attached: what may change is taken over,
 * what may not is told.
 *
 * It is read into a structure of its own. If there is a mistake in it, it is thrown away, and
 * nothing has changed. Otherwise it becomes the mediator's, after the values that are fixed at the
 * start were copied into it from the old one. Then it is applied to the pools, the attached VMs and
 * the attach socket.
 */
#include "mediator/reload.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "mediator/vm.h"

#define LINE_SIZE 1024

/* Whom each line is told, beside the log; `line` NULL: nobody. */
struct listener {
    reload_line *line;
    void *context;
};

static void tell_line(const struct listener *listener, enum log_level level, const char *format,
                      ...) __attribute__((format(printf, 3, 4)));

static void tell_line(const struct listener *listener, enum log_level level, const char *format,
                      ...)
{
    char text[LINE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_line(level, "%s", text);
    if (listener->line) {
        listener->line(listener->context, text);
    }
}

static void report_mistakes(void *context, const char *file, int line, const char *text)
{
    if (file && line > 0) {
        tell_line(context, LOG_LEVEL_ERROR, "%s:%d: %s", file, line, text);
    } else if (file) {
        tell_line(context, LOG_LEVEL_ERROR, "%s: %s", file, text);
    } else {
        tell_line(context, LOG_LEVEL_ERROR, "configuration: %s", text);
    }
}

/* Returns the number of mistakes, each told. */
static int load_config(const struct mediator *m, struct config *config, struct listener *listener)
{
    return config_load(config, m->config_name ? m->config_name : RELOAD_DEFAULT_FILE,
                       !m->config_name, report_mistakes, listener);
}

/* What the gauge reads it is told as it starts; who sees it may change. */
static bool begins_or_ends(enum config_sensors old, enum config_sensors new)
{
    return (old == CONFIG_SENSORS_OFF) != (new == CONFIG_SENSORS_OFF);
}

/* Says which keys are read at the start alone, where they have changed. */
static void tell_unchanged(const struct config *old, const struct config *new,
                           const struct listener *listener)
{
    const struct {
        const char *key;
        bool changed;
    } keys[] = {
        {"listen", strcmp(old->listen, new->listen) != 0},
        {"control", strcmp(old->control, new->control) != 0},
        {"metrics", strcmp(old->metrics, new->metrics) != 0},
        {"backend", old->backend != new->backend},
        {"worker", strcmp(old->worker, new->worker) != 0},
        {"worker-user", old->worker_user != new->worker_user},
        {"sensors", begins_or_ends(old->sensors, new->sensors)},
    };

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].changed) {
            tell_line(listener, LOG_LEVEL_WARNING, "'%s' has changed: that takes a restart",
                      keys[i].key);
        }
    }
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        const struct config_pool *a = &old->pools[i], *b = &new->pools[i];

        if (a->defined != b->defined) {
            tell_line(listener, LOG_LEVEL_WARNING, "pool %c %s: that takes a restart", 'A' + (int)i,
                      b->defined ? "is new" : "has gone");
            continue;
        }
        if (a->device_count != b->device_count ||
            memcmp(a->devices, b->devices, sizeof(a->devices)) != 0) {
            tell_line(listener, LOG_LEVEL_WARNING,
                      "pool %c: 'devices' has changed: that takes a restart", 'A' + (int)i);
        }
        if (a->exclusive != b->exclusive) {
            tell_line(listener, LOG_LEVEL_WARNING,
                      "pool %c: 'exclusive' has changed: that takes a restart", 'A' + (int)i);
        }
    }
}

/*
 * Values that are fixed at the start stay as they were, so that the configuration shows how things
 * are. Texts change places, so that each configuration still owns its own, and config_free() of the
 * old one frees the new text.
 */
static void keep_fixed(struct config *old, struct config *new)
{
    char **const texts[][2] = {{&old->listen, &new->listen},
                               {&old->control, &new->control},
                               {&old->metrics, &new->metrics},
                               {&old->worker, &new->worker}};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char *const text = *texts[i][0];

        *texts[i][0] = *texts[i][1];
        *texts[i][1] = text;
    }
    new->backend = old->backend;
    new->sensors = begins_or_ends(old->sensors, new->sensors) ? old->sensors : new->sensors;
    new->worker_user = old->worker_user;
    new->worker_group = old->worker_group;
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        struct config_pool *pool = &new->pools[i];

        pool->defined = old->pools[i].defined;
        pool->exclusive = old->pools[i].exclusive;
        pool->device_count = old->pools[i].device_count;
        memcpy(pool->devices, old->pools[i].devices, sizeof(pool->devices));
        if (pool->slice_ns == 0) {
            /* It has gone from the files, but goes on. */
            *pool = old->pools[i];
        }
    }
}

int reload_first(struct mediator *m)
{
    return load_config(m, &m->config, &(struct listener){0});
}

/* By its mode: who starts it is another process, and may do what this one may not. */
static bool worker_exists(const struct config *config, const struct listener *listener)
{
    struct stat status;

    if (stat(config->worker, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 0111)) {
        return true;
    }
    tell_line(
        listener, LOG_LEVEL_ERROR,
        "section [mediator]: key 'worker' is '%s', must be the path of the program vgpu-worker",
        config->worker);
    return false;
}

int reload_check(const struct mediator *m, reload_line *line, void *context)
{
    struct listener listener = {line, context};
    struct config config;
    int mistakes = load_config(m, &config, &listener);

    if (config.worker) {
        mistakes += !worker_exists(&config, &listener);
    }

    config_free(&config);
    return mistakes;
}

int reload_again(struct mediator *m, reload_line *line, void *context)
{
    struct listener listener = {line, context};
    struct config config;
    const int mistakes = load_config(m, &config, &listener);

    m->reloads++;
    m->misconfigured = mistakes > 0;
    if (mistakes > 0) {
        m->reload_failures++;
        log_error("the configuration has %d mistake%s and is not taken over", mistakes,
                  mistakes > 1 ? "s" : "");
        config_free(&config);
        return -EINVAL;
    }
    tell_unchanged(&m->config, &config, &listener);
    keep_fixed(&m->config, &config);
    config_free(&m->config);
    /* It is moved: its texts and lists are the mediator's from here on. */
    m->config = config;
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        if (m->pools[i].id != 0) {
            pool_configure(&m->pools[i], &config.pools[i], config.turn_limit_ns);
            mediator_watch_pool(m, &m->pools[i]);
        }
    }
    /*
     * A priority that was set by vgpuctl is lost here: each VM gets again the one that it asked
     * for.
     */
    for (struct vm *vm = m->vms; vm; vm = vm->next) {
        vm_set_limits(vm, vm_configured(vm), false);
    }
    mediator_open_to_users(m);
    log_info("the configuration was read again");
    return 0;
}
