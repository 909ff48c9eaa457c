/* SPDX-License-Identifier: MIT */
/*
 * VMs, sessions and pools as JSON objects, with the keys of docs/control.md. Each object is made
 * anew for an answer and holds copies, so nothing here has to be kept up to date.
 *
 * A VM is described at three levels. Its own counters are sums of all that its workers did, also in
 * sessions that have ended. "registers" and each element of "sessions" have the same keys for one
 * of them. "state", "device" and "gpu" of the VM itself are those of register mode.
 *
 * Counters are claims of the workers; report.c sees to it that they do not fall. Times are in
 * seconds.
 *
 * Any of it may find no memory. What is missing is noted, and whoever asked is not given half an
 * answer (describe_failed()).
 */
#include "mediator/control-describe.h"

#include "common/clock.h"
#include "mediator/report.h"

static bool incomplete; /* since describe_failed() was asked last */

struct json_object *describe_object(void)
{
    struct json_object *object = json_object_new_object();

    incomplete |= !object;
    return object;
}

struct json_object *describe_array(void)
{
    struct json_object *array = json_object_new_array();

    incomplete |= !array;
    return array;
}

/* json-c ends the process where it is given no object, or stores a null where it has no value. */
void describe_part(struct json_object *object, const char *key, struct json_object *value)
{
    if (!object || !value || json_object_object_add(object, key, value) < 0) {
        incomplete = true;
        json_object_put(value);
    }
}

void describe_element(struct json_object *array, struct json_object *value)
{
    if (!array || !value || json_object_array_add(array, value) < 0) {
        incomplete = true;
        json_object_put(value);
    }
}

bool describe_failed(void)
{
    const bool failed = incomplete;

    incomplete = false;
    return failed;
}

void describe_string(struct json_object *object, const char *key, const char *text)
{
    describe_part(object, key, json_object_new_string(text));
}

void describe_number(struct json_object *object, const char *key, uint64_t number)
{
    describe_part(object, key, json_object_new_uint64(number));
}

void describe_seconds(struct json_object *object, const char *key, uint64_t ns)
{
    describe_part(object, key, json_object_new_double((double)ns / (double)NS_PER_S));
}

void describe_bool(struct json_object *object, const char *key, bool value)
{
    describe_part(object, key, json_object_new_boolean(value));
}

static void add_pool(struct json_object *object, const struct pool *pool)
{
    const char name[] = {pool->id, '\0'};

    describe_string(object, "pool", name);
}

/* Empty buckets behind the last one that holds something are left out. */
static struct json_object *describe_waits(const struct histogram *waits)
{
    struct json_object *object = describe_object();
    struct json_object *buckets = describe_array();
    const uint64_t total = histogram_total(waits);

    for (uint64_t i = 0, seen = 0; seen < total; i++) {
        seen += waits->count[i];
        describe_element(buckets, json_object_new_uint64(waits->count[i]));
    }
    describe_number(object, "count", total);
    describe_seconds(object, "sum_seconds", waits->sum_ns);
    describe_seconds(object, "p50_seconds", histogram_percentile_ns(waits, 50));
    describe_seconds(object, "p99_seconds", histogram_percentile_ns(waits, 99));
    describe_part(object, "buckets", buckets);
    return object;
}

/* The counters, under the same keys for a VM, for register mode and for a session. */
static void add_report(struct json_object *object, const struct report *report)
{
    const struct vgpu_counters *counters = &report->counters;
    struct json_object *gpu_seconds = describe_object();
    uint64_t turns = 0;

    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        describe_seconds(gpu_seconds, report_engines[i], counters->gpu_ns[i]);
        turns += counters->turns[i];
    }
    describe_number(object, "requests", counters->requests);
    describe_number(object, "errors", counters->errors);
    describe_number(object, "elements", counters->elements);
    describe_seconds(object, "busy_seconds", counters->gpu_ns[VGPU_ENGINE_COMPUTE]);
    describe_part(object, "gpu_seconds", gpu_seconds);
    describe_number(object, "turns", turns);
    describe_part(object, "queue_wait", describe_waits(&report->waits));
    describe_number(object, "in_flight", counters->in_flight);
    describe_number(object, "doorbells", counters->doorbells);
    describe_number(object, "interrupts", counters->interrupts);
    describe_number(object, "faults", counters->faults);
    describe_number(object, "worker_failures", report->failures);
    describe_number(object, "preemptions", report->preemptions);
}

/* What the process is now. */
static void add_worker(struct json_object *object, const struct process *process, const char *state)
{
    describe_string(object, "state", state);
    /* Until READY the record still has the name that the worker before has told. */
    describe_string(object, "device", process->kept->ready ? process->kept->device : "");
    /* Left out where there is none: 0 would be the number of a GPU. */
    if (process->worker.gpu) {
        describe_number(object, "gpu", process->worker.gpu->number);
    }
    if (pool_off_ns(&process->worker) != 0) {
        describe_seconds(object, "off_seconds", clock_ns() - pool_off_ns(&process->worker));
    }
    describe_number(object, "worker_pid", (uint64_t)process->kept->pid);
    describe_number(object, "worker_starts", process->kept->starts);
}

static struct json_object *describe_process(struct process *process)
{
    struct json_object *object = describe_object();
    const struct report report = report_process(process);

    add_worker(object, process, report_state(process));
    describe_number(object, "memory_used", report.counters.memory);
    add_report(object, &report);
    return object;
}

/* The sessions that have a worker now. */
static struct json_object *describe_sessions(struct vm *vm)
{
    struct json_object *sessions = describe_array();

    for (uint32_t i = 0; i < vm->queues; i++) {
        struct queue *queue = vm->queue[i];
        struct json_object *object;

        if (!queue || queue->worker.kept->pid == 0) {
            continue;
        }
        object = describe_process(&queue->worker);
        describe_number(object, "queue", i);
        describe_element(sessions, object);
    }
    return sessions;
}

/* As text, as a configuration would have them, so that they can be copied into one. */
struct json_object *describe_limits(const struct config_limits *limits)
{
    struct json_object *object = describe_object();
    char text[64];

    for (unsigned i = 0; config_limit_keys[i]; i++) {
        if (config_get_limit(limits, config_limit_keys[i], text, sizeof(text))) {
            describe_string(object, config_limit_keys[i], text);
        }
    }
    return object;
}

/* Of register mode, and why it has no worker. */
static const char *vm_state(const struct vm *vm)
{
    if (vm->worker.kept->pid != 0) {
        return report_state(&vm->worker);
    }
    if (vm->kept->stopped) {
        return "stopped";
    }
    return pool_place(vm->pool, vm->accounts) ? "starting" : "no-gpu";
}

struct json_object *describe_vm(struct vm *vm)
{
    struct json_object *object = describe_object();
    const struct report report = report_vm(vm);

    describe_number(object, "vm", vm->id);
    describe_string(object, "name", vm->name);
    if (!sd_id128_is_null(vm->who.uuid)) {
        char uuid[SD_ID128_UUID_STRING_MAX];

        describe_string(object, "uuid", sd_id128_to_uuid_string(vm->who.uuid, uuid));
    }
    describe_string(object, "kind", vm->host ? "host" : "vm");
    add_pool(object, vm->pool);
    describe_string(object, "priority", config_priority_name(vm->priority));
    describe_bool(object, "paused", vm->paused);
    describe_number(object, "share", vm->limits.share);
    describe_number(object, "shm_bytes", vm->shm_size);
    describe_seconds(object, "attached_seconds", clock_ns() - vm->attached_ns);
    describe_number(object, "client_pid", (uint64_t)vm->peer);
    describe_number(object, "client_user", vm->user);
    describe_number(object, "queues", vm->queues);
    /*
     * From the account, and not the sum over the workers: memory is reserved there first, so this
     * number counts against the limit.
     */
    describe_number(object, "memory_used", report_memory(vm));
    describe_number(object, "memory_limit", vm->limits.memory);
    add_worker(object, &vm->worker, vm_state(vm));
    add_report(object, &report);
    describe_part(object, "limits", describe_limits(&vm->limits));
    describe_part(object, "registers", describe_process(&vm->worker));
    describe_part(object, "sessions", describe_sessions(vm));
    return object;
}

struct json_object *describe_pool(const struct pool *pool)
{
    struct json_object *object = describe_object();
    struct json_object *gpus = describe_array();
    /* All engines of all GPUs in a pool have the same rules. */
    const struct arbiter_rules *rules = &pool->gpus[0].engines[0].rules;

    for (unsigned i = 0; i < pool->gpu_count; i++) {
        struct json_object *gpu = describe_object();

        describe_number(gpu, "number", pool->gpus[i].number);
        describe_number(gpu, "workers", pool->gpus[i].worker_count);
        describe_bool(gpu, "drained", pool->gpus[i].drained);
        describe_element(gpus, gpu);
    }
    add_pool(object, pool);
    describe_bool(object, "paused", pool->paused);
    describe_bool(object, "exclusive", pool->exclusive);
    describe_seconds(object, "slice_seconds", rules->slice_ns);
    describe_seconds(object, "window_seconds", pool->window_ns);
    describe_part(object, "least_share",
                  json_object_new_double((double)rules->least_share / (double)ARBITER_LEAST_ONE));
    describe_number(object, "turns", pool->history.sequence);
    describe_part(object, "gpus", gpus);
    return object;
}

static struct json_object *describe_turn(const struct turn_record *turn)
{
    struct json_object *object = describe_object();

    describe_number(object, "turn", turn->sequence);
    describe_number(object, "vm", turn->vm_id);
    describe_number(object, "gpu", turn->gpu);
    describe_string(object, "engine", report_engines[turn->engine]);
    describe_string(object, "priority", config_priority_name(turn->priority));
    describe_seconds(object, "waited_seconds", turn->wait_ns);
    describe_seconds(object, "ran_seconds", turn->run_ns);
    return object;
}

struct json_object *describe_history(const struct pool *pool)
{
    const struct turn_history *history = &pool->history;
    struct json_object *answer = describe_object();
    struct json_object *turns = describe_array();
    /* The ring holds the newest TURN_HISTORY; older ones were overwritten. */
    const uint64_t first = history->count > TURN_HISTORY ? history->count - TURN_HISTORY : 0;

    for (uint64_t i = first; i < history->count; i++) {
        describe_element(turns, describe_turn(&history->record[i % TURN_HISTORY]));
    }
    add_pool(answer, pool);
    describe_part(answer, "turns", turns);
    return answer;
}
