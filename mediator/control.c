/* SPDX-License-Identifier: MIT */
/* The control socket, see control.h. */
#include "control.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "version.h"
#include "vm.h"

#define QUESTION_MAX 1024u
#define ANSWER_MAX (4 << 20) /* bytes; some 450 a VM */
#define QUESTION_LIMIT_NS (10 * NS_PER_S)

struct control {
    struct mediator *mediator;
    int fd;
    sd_event_source *source, *timer;
    char question[QUESTION_MAX];
    size_t length;
};

static void control_destroy(struct control *control)
{
    sd_event_source_disable_unref(control->source);
    sd_event_source_disable_unref(control->timer);
    close(control->fd);
    free(control);
}

/* Answers ------------------------------------------------------------------------- */

static struct json_object *error_answer(const char *text)
{
    struct json_object *answer = json_object_new_object();

    json_object_object_add(answer, "error", json_object_new_string(text));
    return answer;
}

static void add_string(struct json_object *object, const char *key, const char *text)
{
    json_object_object_add(object, key, json_object_new_string(text));
}

static void add_number(struct json_object *object, const char *key, uint64_t number)
{
    json_object_object_add(object, key, json_object_new_uint64(number));
}

static double seconds(uint64_t ns)
{
    return (double)ns / (double)NS_PER_S;
}

static void add_seconds(struct json_object *object, const char *key, uint64_t ns)
{
    json_object_object_add(object, key, json_object_new_double(seconds(ns)));
}

static void add_pool(struct json_object *object, const struct pool *pool)
{
    const char name[] = {pool->id, '\0'};

    add_string(object, "pool", name);
}

static const char *worker_state(const struct process *worker)
{
    if (!worker->ready) {
        return "starting";
    }
    if (queue_contains(&worker->member.entry)) {
        return "waiting";
    }
    return pool_busy(&worker->member) ? "running" : "idle";
}

/* The counters are the worker's claims. */
static void add_counters(struct json_object *object, const struct process *worker)
{
    const struct vgpu_turn_page *counters = worker->member.page;

    add_number(object, "requests", counters->requests);
    add_number(object, "errors", counters->errors);
    add_number(object, "elements", counters->elements);
    add_seconds(object, "busy_seconds", counters->busy_ns);
    add_number(object, "worker_pid", (uint64_t)worker->pid);
    add_number(object, "worker_starts", worker->starts);
}

/* The sessions that have a worker now. */
static struct json_object *describe_sessions(const struct vm *vm)
{
    struct json_object *sessions = json_object_new_array();

    for (uint32_t i = 0; i < vm->queues; i++) {
        const struct session *session = vm->sessions[i];
        struct json_object *object;

        if (!session || session->worker.pid == 0) {
            continue;
        }
        object = json_object_new_object();
        add_number(object, "queue", i);
        add_string(object, "state", worker_state(&session->worker));
        add_string(object, "device", session->worker.ready ? session->worker.device : "");
        add_counters(object, &session->worker);
        json_object_array_add(sessions, object);
    }
    return sessions;
}

static struct json_object *describe_vm(const struct vm *vm)
{
    struct json_object *object = json_object_new_object();
    const struct process *worker = &vm->worker;

    add_number(object, "vm", vm->id);
    add_string(object, "name", vm->name);
    add_string(object, "kind", vm->host ? "host" : "vm");
    add_pool(object, worker->pool);
    add_string(object, "priority", config_priority_name(worker->member.priority));
    add_string(object, "state", worker_state(worker));
    add_string(object, "device", worker->ready ? worker->device : "");
    add_number(object, "shm_bytes", vm->shm_size);
    add_counters(object, worker);
    add_seconds(object, "attached_seconds", clock_ns() - vm->attached_ns);
    add_number(object, "client_pid", (uint64_t)vm->peer);
    add_number(object, "client_user", vm->user);
    add_number(object, "queues", vm->queues);
    json_object_object_add(object, "sessions", describe_sessions(vm));
    return object;
}

static void add_pools(struct json_object *answer, struct mediator *mediator)
{
    struct json_object *pools = json_object_new_array();

    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        const struct pool *pool = &mediator->pools[i];
        struct json_object *object;

        if (!mediator->config.pool_defined[i]) {
            continue;
        }
        object = json_object_new_object();
        add_pool(object, pool);
        add_number(object, "device", (uint64_t)pool->device);
        json_object_object_add(object, "paused", json_object_new_boolean(pool->paused));
        add_number(object, "turns", pool->sequence);
        json_object_array_add(pools, object);
    }
    json_object_object_add(answer, "pools", pools);
}

static struct json_object *answer_list(struct mediator *mediator, struct json_object *question)
{
    struct json_object *answer = json_object_new_object();
    struct json_object *vms = json_object_new_array();

    (void)question;
    add_string(answer, "version", VGPU_PACKAGE_VERSION);
    add_string(answer, "computes_on", mediator->computes_on);
    json_object_object_add(answer, "gpu", json_object_new_boolean(mediator->has_gpu));
    add_pools(answer, mediator);
    for (const struct vm *vm = mediator->vms; vm; vm = vm->next) {
        json_object_array_add(vms, describe_vm(vm));
    }
    json_object_object_add(answer, "vms", vms);
    return answer;
}

static struct json_object *answer_show(struct mediator *mediator, struct json_object *question)
{
    struct json_object *id;
    struct vm *vm = NULL;

    if (json_object_object_get_ex(question, "vm", &id)) {
        vm = vm_find(mediator, (uint32_t)json_object_get_int64(id));
    }
    return vm ? describe_vm(vm) : error_answer("no such VM is attached");
}

/* The pool that a question names; NULL when there is none. */
static struct pool *named_pool(struct mediator *mediator, struct json_object *question)
{
    struct json_object *object;
    const char *name;

    if (!json_object_object_get_ex(question, "pool", &object)) {
        return NULL;
    }
    name = json_object_get_string(object);
    if (!name || name[0] < 'A' || name[0] > 'Z' || name[1] != '\0' ||
        !mediator->config.pool_defined[name[0] - 'A']) {
        return NULL;
    }
    return &mediator->pools[name[0] - 'A'];
}

static struct json_object *answer_history(struct mediator *mediator, struct json_object *question)
{
    const struct pool *pool = named_pool(mediator, question);
    struct json_object *answer, *turns;
    uint64_t first;

    if (!pool) {
        return error_answer("no such pool");
    }
    answer = json_object_new_object();
    turns = json_object_new_array();
    first = pool->history_count > POOL_HISTORY ? pool->history_count - POOL_HISTORY : 0;
    for (uint64_t i = first; i < pool->history_count; i++) {
        const struct pool_turn *turn = &pool->history[i % POOL_HISTORY];
        struct json_object *object = json_object_new_object();

        add_number(object, "turn", turn->sequence);
        add_number(object, "vm", turn->vm_id);
        add_string(object, "priority", config_priority_name(turn->priority));
        add_seconds(object, "waited_seconds", turn->wait_ns);
        add_seconds(object, "ran_seconds", turn->run_ns);
        json_object_array_add(turns, object);
    }
    add_pool(answer, pool);
    json_object_object_add(answer, "turns", turns);
    return answer;
}

static struct json_object *set_paused(struct mediator *mediator, struct json_object *question,
                                      bool paused)
{
    struct pool *pool = named_pool(mediator, question);

    if (!pool) {
        return error_answer("no such pool");
    }
    if (paused) {
        pool_pause(pool, clock_ns());
    } else {
        pool_resume(pool, clock_ns());
    }
    mediator_watch_pool(mediator, pool);
    log_info("pool %c: %s", pool->id, paused ? "paused" : "resumed");
    return json_object_new_object();
}

static struct json_object *answer_pause(struct mediator *mediator, struct json_object *question)
{
    return set_paused(mediator, question, true);
}

static struct json_object *answer_resume(struct mediator *mediator, struct json_object *question)
{
    return set_paused(mediator, question, false);
}

static const struct {
    const char *name;
    struct json_object *(*answer)(struct mediator *mediator, struct json_object *question);
} commands[] = {
    {"list", answer_list},   {"show", answer_show},     {"history", answer_history},
    {"pause", answer_pause}, {"resume", answer_resume},
};

static struct json_object *answer_question(struct mediator *mediator, const char *text)
{
    struct json_object *question = json_tokener_parse(text);
    struct json_object *command, *answer = NULL;
    const char *name = NULL;

    if (question && json_object_object_get_ex(question, "command", &command)) {
        name = json_object_get_string(command);
    }
    for (size_t i = 0; name && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(name, commands[i].name) == 0) {
            answer = commands[i].answer(mediator, question);
        }
    }
    json_object_put(question);
    return answer ? answer : error_answer("unknown command: vgpuctl and mediator differ?");
}

/* Connections --------------------------------------------------------------------- */

/* All of it at once: an answer fits the socket's buffer many times over. */
static void send_answer(struct control *control, struct json_object *answer)
{
    const char *text = json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN);
    struct iovec parts[] = {{.iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text)},
                            {.iov_base = (char *)"\n", .iov_len = 1}};
    const struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};

    if (sendmsg(control->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        log_debug("control client does not take its answer: %s", strerror(errno));
    }
}

static int on_question(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct control *control = context;
    const ssize_t n = recv(fd, control->question + control->length,
                           QUESTION_MAX - 1 - control->length, MSG_DONTWAIT);
    struct json_object *answer;
    char *end;

    (void)source;
    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (n <= 0) {
        control_destroy(control);
        return 0;
    }
    control->length += (size_t)n;
    control->question[control->length] = '\0';
    end = memchr(control->question, '\n', control->length);
    if (!end && control->length < QUESTION_MAX - 1) {
        return 0;
    }
    if (end) {
        *end = '\0';
        answer = answer_question(control->mediator, control->question);
    } else {
        answer = error_answer("the question is too long");
    }
    send_answer(control, answer);
    json_object_put(answer);
    control_destroy(control);
    return 0;
}

static int on_control_timer(sd_event_source *source, uint64_t usec, void *context)
{
    (void)source;
    (void)usec;
    control_destroy(context);
    return 0;
}

int control_create(struct mediator *mediator, int fd)
{
    struct control *control = calloc(1, sizeof(*control));
    int r;

    if (!control) {
        close(fd);
        return -ENOMEM;
    }
    control->mediator = mediator;
    control->fd = fd;
    /* For the list of many VMs, which is sent at once; forced where root. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &(int){ANSWER_MAX}, sizeof(int)) < 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){ANSWER_MAX}, sizeof(int));
    }
    r = sd_event_add_io(mediator->event, &control->source, fd, EPOLLIN, on_question, control);
    if (r >= 0) {
        r = sd_event_add_time_relative(mediator->event, &control->timer, CLOCK_MONOTONIC,
                                       QUESTION_LIMIT_NS / NS_PER_US, 0, on_control_timer, control);
    }
    if (r < 0) {
        control_destroy(control);
    }
    return r;
}
