/* SPDX-License-Identifier: MIT */
/*
 * The commands of the control socket: a function for each, in a table. It gets the question and
 * returns the answer, which the caller frees. A command is done at once, in the event loop, so an
 * answer tells how things are at this moment.
 *
 * A question may be any bytes, so nothing in it is used before its type was looked at. A mistake in
 * it becomes an answer with "error", a sentence for people. The functions that look something up
 * return NULL and put that answer into *error, which the command returns as it is.
 */
#include "mediator/control-answer.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/version.h"
#include "mediator/client.h"
#include "mediator/config-value.h"
#include "mediator/control-describe.h"
#include "mediator/drain.h"
#include "mediator/keep.h"
#include "mediator/record.h"
#include "mediator/reload.h"
#include "mediator/vm.h"

/* So long a mediator that makes room for the next has to send its answer. */
#define LEAVE_NS (50 * NS_PER_MS)

static const struct ucred *asked_by;

struct json_object *control_error(const char *format, ...)
{
    struct json_object *answer = describe_object();
    char text[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    describe_string(answer, "error", text);
    return answer;
}

/* For the log, who has asked for what changes something. */
static const char *by_whom(void)
{
    static char text[64];

    snprintf(text, sizeof(text), "process %d of user %ld", (int)asked_by->pid, (long)asked_by->uid);
    return text;
}

/* What a question names -------------------------------------------------------------------- */

/*
 * A value as text, numbers too: a script may write "value":5. The text is the question's. NULL, and
 * *error says why.
 */
static const char *text_of(struct json_object *question, const char *key,
                           struct json_object **error)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(question, key, &value);
    if (!json_object_is_type(value, json_type_string) &&
        !json_object_is_type(value, json_type_int)) {
        *error = control_error("the question has no '%s', which is text or a number", key);
        return NULL;
    }
    return json_object_get_string(value);
}

/* A number, all 64 bits of it: 4294967297 must not be taken for 1. False, and *error says why. */
static bool asked_number(struct json_object *question, const char *key, const char *what,
                         int64_t *number, struct json_object **error)
{
    struct json_object *value = NULL;

    if (!json_object_object_get_ex(question, key, &value) ||
        !json_object_is_type(value, json_type_int)) {
        *error = control_error("the question has no '%s', which is %s", key, what);
        return false;
    }
    *number = json_object_get_int64(value);
    return true;
}

/*
 * The VM that a question names in any way. A name that several have names none of them: whoever
 * starts a QEMU may call it what he likes. NULL, and *error says why.
 */
static struct vm *asked_vm(struct mediator *mediator, struct json_object *question,
                           struct json_object **error)
{
    const char *text = text_of(question, "vm", error);
    struct identity named;
    struct vm *found = NULL;

    if (!text) {
        return NULL;
    }
    if (!identity_parse(text, &named)) {
        *error = control_error("'%s' names no VM: that is its number, 1 to 4294967295, its UUID, "
                               "or its name, which begins with a letter or _",
                               text);
        return NULL;
    }
    for (struct vm *vm = mediator->vms; vm; vm = vm->next) {
        if (!identity_matches(&named, &vm->who)) {
            continue;
        }
        if (found) {
            *error = control_error("VM %" PRIu32 " and VM %" PRIu32 " are both %s: say the number",
                                   found->id, vm->id, text);
            return NULL;
        }
        found = vm;
    }
    if (!found) {
        *error = control_error("no VM %s is attached; 'vgpuctl list' shows who is", text);
    }
    return found;
}

/* NULL, and *error says why. */
static struct pool *pool_of(struct mediator *mediator, struct json_object *question,
                            struct json_object **error)
{
    const char *name = text_of(question, "pool", error);
    char known[3 * CONFIG_POOLS] = "";
    size_t length = 0;

    for (unsigned i = 0; name && i < CONFIG_POOLS; i++) {
        struct pool *pool = &mediator->pools[i];

        if (pool->id == 0) {
            continue;
        }
        if (name[0] == pool->id && name[1] == '\0') {
            return pool;
        }
        length += (size_t)snprintf(known + length, sizeof(known) - length, "%s%c",
                                   length > 0 ? ", " : "", pool->id);
    }
    if (name) {
        *error = control_error("there is no pool '%s'; there is %s", name, known);
    }
    return NULL;
}

/* Commands --------------------------------------------------------------------------------- */

static struct json_object *answer_list(struct mediator *mediator, struct json_object *question)
{
    struct json_object *answer = describe_object();
    struct json_object *pools = describe_array();
    struct json_object *vms = describe_array();

    (void)question;
    describe_string(answer, "version", VGPU_PACKAGE_VERSION);
    describe_number(answer, "generation", mediator->generation);
    describe_number(answer, "carried_sessions", mediator->carried);
    describe_seconds(answer, "gap_seconds", mediator->gap_ns);
    describe_string(answer, "computes_on", mediator->computes_on);
    describe_bool(answer, "gpu", mediator->has_gpu);
    describe_bool(answer, "preempt", mediator_preempts(mediator));
    /* Two answers make a rate: the growth of a counter, divided by the growth of this. */
    describe_seconds(answer, "clock_seconds", clock_ns());
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        if (mediator->pools[i].id != 0) {
            describe_element(pools, describe_pool(&mediator->pools[i]));
        }
    }
    for (struct vm *vm = mediator->vms; vm; vm = vm->next) {
        describe_element(vms, describe_vm(vm));
    }
    describe_part(answer, "pools", pools);
    describe_part(answer, "vms", vms);
    return answer;
}

static struct json_object *answer_show(struct mediator *mediator, struct json_object *question)
{
    struct json_object *error = NULL;
    struct vm *vm = asked_vm(mediator, question, &error);

    return vm ? describe_vm(vm) : error;
}

static struct json_object *answer_set(struct mediator *mediator, struct json_object *question)
{
    struct json_object *answer = NULL;
    struct vm *vm = asked_vm(mediator, question, &answer);
    const char *key = vm ? text_of(question, "key", &answer) : NULL;
    const char *value = key ? text_of(question, "value", &answer) : NULL;
    struct config_limits limits;
    const char *problem;
    char text[64];
    bool forced;

    if (!value) {
        return answer;
    }
    /* On a copy, so that a wrong value changes nothing. */
    limits = vm->limits;
    problem = config_set_limit(&limits, key, value);
    if (problem) {
        return control_error("%s", problem);
    }
    /* A priority that was forced before outlasts changes of other keys. */
    forced = strcmp(key, "priority") == 0 || vm->priority == vm->limits.priority;
    vm_set_limits(vm, &limits, forced);
    /* The answer has the value as it stands, which may look different: 1024M is 1G. */
    config_get_limit(&vm->limits, key, text, sizeof(text));
    log_info("VM %" PRIu32 ": %s is %s now, as %s asks", vm->id, key, text, by_whom());
    answer = describe_object();
    describe_number(answer, "vm", vm->id);
    describe_string(answer, "key", key);
    describe_string(answer, "value", text);
    return answer;
}

static struct json_object *answer_history(struct mediator *mediator, struct json_object *question)
{
    struct json_object *error = NULL;
    const struct pool *pool = pool_of(mediator, question, &error);

    return pool ? describe_history(pool) : error;
}

static struct json_object *set_vm_paused(struct mediator *mediator, struct json_object *question,
                                         bool paused)
{
    struct json_object *error = NULL;
    struct vm *vm = asked_vm(mediator, question, &error);

    if (!vm) {
        return error;
    }
    vm_set_paused(vm, paused);
    log_info("VM %" PRIu32 ": %s by %s", vm->id, paused ? "paused" : "resumed", by_whom());
    return describe_object();
}

/*
 * A pause, of a pool or of a VM, lasts until it is resumed, or until the VM detaches; where what
 * the mediator knows is kept, it outlives a restart too.
 */
static struct json_object *set_paused(struct mediator *mediator, struct json_object *question,
                                      bool paused)
{
    struct json_object *error = NULL;
    struct pool *pool;

    if (json_object_object_get_ex(question, "vm", NULL)) {
        return set_vm_paused(mediator, question, paused);
    }
    pool = pool_of(mediator, question, &error);
    if (!pool) {
        return error;
    }
    if (paused) {
        pool_pause(pool, clock_ns());
    } else {
        pool_resume(pool, clock_ns());
    }
    mediator_note_pools(mediator);
    /* A pause takes the turn away, and resuming grants one: both change the next deadline. */
    mediator_watch_pool(mediator, pool);
    log_info("pool %c: %s by %s", pool->id, paused ? "paused" : "resumed", by_whom());
    return describe_object();
}

static struct json_object *answer_pause(struct mediator *mediator, struct json_object *question)
{
    return set_paused(mediator, question, true);
}

static struct json_object *answer_resume(struct mediator *mediator, struct json_object *question)
{
    return set_paused(mediator, question, false);
}

static void add_line(void *context, const char *line)
{
    describe_element(context, json_object_new_string(line));
}

static struct json_object *answer_reload(struct mediator *mediator, struct json_object *question)
{
    struct json_object *lines = describe_array(), *answer;

    (void)question;
    log_info("the configuration is read again, as %s asks", by_whom());
    if (reload_again(mediator, add_line, lines) < 0) {
        answer = control_error("the configuration has mistakes, and is not taken over");
        describe_part(answer, "mistakes", lines);
        return answer;
    }
    answer = describe_object();
    if (lines && json_object_array_length(lines) > 0) {
        describe_part(answer, "restart", lines);
    } else {
        json_object_put(lines);
    }
    return answer;
}

static struct json_object *answer_end(struct mediator *mediator, struct json_object *question)
{
    struct json_object *error = NULL;
    struct vm *vm = asked_vm(mediator, question, &error);
    int64_t queue;

    if (!vm || !asked_number(question, "queue", "a number", &queue, &error)) {
        return error;
    }
    if (queue < 0 || queue >= vm->queues || !vm->queue[queue] ||
        !queue_end(vm->queue[queue], VGPU_QUEUE_END_OPERATOR)) {
        return control_error("VM %" PRIu32 " has no session on queue %" PRId64
                             "; 'vgpuctl show %" PRIu32 "' lists them",
                             vm->id, queue, vm->id);
    }
    log_info("VM %" PRIu32 " queue %" PRId64 ": its session is ended by %s", vm->id, queue,
             by_whom());
    return describe_object();
}

static struct json_object *answer_detach(struct mediator *mediator, struct json_object *question)
{
    struct json_object *error = NULL;
    struct vm *vm = asked_vm(mediator, question, &error);

    if (!vm) {
        return error;
    }
    log_info("VM %" PRIu32 ": is detached by %s", vm->id, by_whom());
    client_hang_up(vm->owner.client);
    return describe_object();
}

static struct json_object *set_drained(struct mediator *mediator, struct json_object *question,
                                       bool drained)
{
    struct json_object *answer;
    int64_t number;
    int sessions;

    if (!asked_number(question, "gpu", "a number", &number, &answer)) {
        return answer;
    }
    sessions = number >= 0 && number < CONFIG_GPUS_MAX
                   ? drain_gpu(mediator, (uint32_t)number, drained)
                   : -ENOENT;
    if (sessions < 0) {
        return control_error("no pool has GPU %" PRId64 "; 'vgpuctl list' shows which there are",
                             number);
    }
    log_info("GPU %" PRId64 ": is%s drained, as %s asks; sessions there: %d", number,
             drained ? "" : " not", by_whom(), sessions);
    answer = describe_object();
    describe_number(answer, "gpu", (uint64_t)number);
    describe_number(answer, "sessions", (uint64_t)sessions);
    return answer;
}

static struct json_object *answer_drain(struct mediator *mediator, struct json_object *question)
{
    return set_drained(mediator, question, true);
}

static struct json_object *answer_undrain(struct mediator *mediator, struct json_object *question)
{
    return set_drained(mediator, question, false);
}

/* The answer is on its way by now. */
static int on_leave(sd_event_source *source, uint64_t usec, void *context)
{
    (void)source;
    (void)usec;
    (void)context;
    /* As whoever watches over this process would do for an upgrade. */
    return raise(SIGUSR2);
}

static struct json_object *answer_upgrade(struct mediator *mediator, struct json_object *question)
{
    struct json_object *answer, *lines;
    unsigned sessions = 0;

    (void)question;
    if (!keep_works()) {
        return control_error("nobody keeps the sessions meanwhile: that takes systemd, with "
                             "FileDescriptorStoreMax in the unit, or vgpu-keeper");
    }
    lines = describe_array();
    if (reload_check(mediator, add_line, lines) > 0) {
        answer = control_error("the next mediator would not start: the configuration has mistakes");
        describe_part(answer, "mistakes", lines);
        return answer;
    }
    json_object_put(lines);
    if (sd_event_add_time_relative(mediator->event, NULL, CLOCK_MONOTONIC, LEAVE_NS / NS_PER_US, 0,
                                   on_leave, NULL) < 0) {
        return NULL;
    }
    for (struct vm *vm = mediator->vms; vm; vm = vm->next) {
        sessions += vm_session_count(vm);
    }
    log_info("makes room for the next mediator, as %s asks", by_whom());
    mediator->kept->leaving_ns = clock_ns() + LEAVE_NS;
    answer = describe_object();
    describe_number(answer, "generation", mediator->generation);
    describe_number(answer, "sessions", sessions);
    return answer;
}

static const struct {
    const char *name;
    struct json_object *(*answer)(struct mediator *mediator, struct json_object *question);
} commands[] = {
    {"list", answer_list},       {"show", answer_show},   {"set", answer_set},
    {"history", answer_history}, {"pause", answer_pause}, {"resume", answer_resume},
    {"reload", answer_reload},   {"end", answer_end},     {"detach", answer_detach},
    {"upgrade", answer_upgrade}, {"drain", answer_drain}, {"undrain", answer_undrain},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* A new vgpuctl may ask an old mediator: the answer has its version and its commands. */
static struct json_object *unknown_command(const char *name)
{
    char known[128] = "";
    size_t length = 0;

    for (size_t i = 0; i < COMMANDS; i++) {
        length += (size_t)snprintf(known + length, sizeof(known) - length, "%s%s",
                                   i > 0 ? ", " : "", commands[i].name);
    }
    return control_error("unknown command '%s': this mediator, version " VGPU_PACKAGE_VERSION
                         ", knows %s",
                         name, known);
}

static struct json_object *answer_command(struct mediator *mediator, struct json_object *question)
{
    struct json_object *error = NULL;
    const char *name = text_of(question, "command", &error);

    for (size_t i = 0; name && i < COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            return commands[i].answer(mediator, question);
        }
    }
    return name ? unknown_command(name) : error;
}

struct json_object *control_answer(struct mediator *mediator, const char *text,
                                   const struct ucred *asker)
{
    struct json_object *question = json_tokener_parse(text);
    struct json_object *answer;

    asked_by = asker;
    if (json_object_is_type(question, json_type_object)) {
        answer = answer_command(mediator, question);
    } else {
        answer = control_error("the question is no JSON object in a line: {\"command\": ...}");
    }
    json_object_put(question);
    if (describe_failed()) {
        json_object_put(answer);
        answer = NULL;
    }
    return answer;
}
