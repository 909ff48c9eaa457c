/* SPDX-License-Identifier: MIT */
/*
 * The mediator's answers as tables, for people. Programs should use --json, which gives the answer
 * as it came: columns here are chosen and rounded for a terminal's width.
 *
 * A function for each command prints the whole answer. A missing key is printed as nothing, see
 * ask.c. A name, which the guest's side chose, has no control characters: the mediator has replaced
 * them.
 */
#include "mediator/ctl/print.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "mediator/ctl/ask.h"
#include "mediator/ctl/figures.h"

#define GPUS_TEXT 64u
#define NAME_WIDTH_MAX 63u /* as long as a name can be */

const char *format_bytes(uint64_t bytes, char text[UNIT_TEXT])
{
    /* In powers of 1024, as the configuration has them. */
    static const char units[] = "KMGTPE";
    double value = (double)bytes;
    int unit = -1;

    while (value >= 1024.0 && units[unit + 1] != '\0') {
        value /= 1024.0;
        unit++;
    }
    if (unit < 0) {
        snprintf(text, UNIT_TEXT, "%" PRIu64, bytes);
    } else {
        snprintf(text, UNIT_TEXT, "%.1f%c", value, units[unit]);
    }
    return text;
}

const char *format_seconds(double seconds, char text[UNIT_TEXT])
{
    if (seconds < 1e-3) {
        snprintf(text, UNIT_TEXT, "%.0fus", seconds * 1e6);
    } else if (seconds < 1.0) {
        snprintf(text, UNIT_TEXT, "%.1fms", seconds * 1e3);
    } else {
        snprintf(text, UNIT_TEXT, "%.2fs", seconds);
    }
    return text;
}

static const char *format_limit(uint64_t bytes, char text[UNIT_TEXT])
{
    return bytes == 0 ? "none" : format_bytes(bytes, text);
}

/* list ------------------------------------------------------------------------------------- */

/* Adds a GPU's number, unless the process is on none; one that does not fit is left out. */
static void add_gpu(char text[GPUS_TEXT], struct json_object *process)
{
    const size_t length = strlen(text);
    char number[24];

    if (get(process, "gpu")) {
        snprintf(number, sizeof(number), "%s%" PRIu64, length > 0 ? "," : "",
                 get_number(process, "gpu"));
        if (length + strlen(number) < GPUS_TEXT) {
            memcpy(text + length, number, strlen(number) + 1);
        }
    }
}

/* The numbers of the GPUs where a VM has workers, each once. */
static const char *gpus_of(struct json_object *vm, char text[GPUS_TEXT])
{
    text[0] = '\0';
    add_gpu(text, get(vm, "registers"));
    for (size_t i = 0; i < get_length(vm, "sessions"); i++) {
        struct json_object *session = get_element(vm, "sessions", i);
        bool known = get_number(session, "gpu") == get_number(get(vm, "registers"), "gpu");

        for (size_t j = 0; j < i && !known; j++) {
            known = get_number(session, "gpu") == get_number(get_element(vm, "sessions", j), "gpu");
        }
        if (!known) {
            add_gpu(text, session);
        }
    }
    return text;
}

static void print_pools(struct json_object *answer)
{
    for (size_t i = 0; i < get_length(answer, "pools"); i++) {
        struct json_object *pool = get_element(answer, "pools", i);

        printf("pool %s:", get_text(pool, "pool"));
        for (size_t j = 0; j < get_length(pool, "gpus"); j++) {
            struct json_object *gpu = get_element(pool, "gpus", j);
            const uint64_t workers = get_number(gpu, "workers");

            printf("%s GPU %" PRIu64 " with %" PRIu64 " worker%s%s", j > 0 ? "," : "",
                   get_number(gpu, "number"), workers, workers == 1 ? "" : "s",
                   get_bool(gpu, "drained") ? ", drained" : "");
        }
        puts("");
        /* A line of its own: nothing else in the tables would tell why all VMs of a pool wait. */
        if (get_bool(pool, "paused")) {
            printf("pool %s is paused\n", get_text(pool, "pool"));
        }
    }
}

/* The answer's own state is that of register mode; this one is of all workers, as in `top`. */
static const char *state_of(struct json_object *vm)
{
    struct json_object *sessions = get(vm, "sessions");
    const char *state = get_text(vm, "state");

    if (get_bool(vm, "paused")) {
        return "paused";
    }
    for (size_t i = 0; i < get_length(vm, "sessions"); i++) {
        state = figures_busiest(state, get_text(json_object_array_get_idx(sessions, i), "state"));
    }
    return state;
}

/* So wide that no name is cut: they are to be typed again. In bytes, which are not fewer. */
static unsigned name_width(struct json_object *answer)
{
    size_t width = 16;

    for (size_t i = 0; i < get_length(answer, "vms"); i++) {
        const size_t length = strlen(get_text(get_element(answer, "vms", i), "name"));

        width = length > width ? length : width;
    }
    return width < NAME_WIDTH_MAX ? (unsigned)width : NAME_WIDTH_MAX;
}

/*
 * The counters in this table are those since the VM was attached, and so only grow. `vgpuctl top`
 * shows their growth of late.
 */
void print_list(struct json_object *answer)
{
    char used[UNIT_TEXT], limit[UNIT_TEXT], gpus[GPUS_TEXT], name[FIGURES_COLUMN];
    unsigned width;

    printf("computing on %s\n", get_text(answer, "computes_on"));
    print_pools(answer);
    if (get_length(answer, "vms") == 0) {
        puts("no VM is attached");
        return;
    }
    width = name_width(answer);
    printf("%-10s %-*s %-4s %-8s %-8s %5s %-5s %8s %8s %8s %12s %8s %6s %10s\n", "VM", (int)width,
           "NAME", "POOL", "PRIORITY", "STATE", "SHARE", "GPU", "SESSIONS", "MEMORY", "LIMIT",
           "REQUESTS", "ERRORS", "FAULTS", "BUSY");
    for (size_t i = 0; i < get_length(answer, "vms"); i++) {
        struct json_object *vm = get_element(answer, "vms", i);

        printf("%-10" PRIu64 " %s %-4s %-8s %-8s %5" PRIu64 " %-5s %8zu %8s %8s %12" PRIu64
               " %8" PRIu64 " %6" PRIu64 " %9.3fs\n",
               get_number(vm, "vm"), figures_column(get_text(vm, "name"), width, name),
               get_text(vm, "pool"), get_text(vm, "priority"), state_of(vm),
               get_number(vm, "share"), gpus_of(vm, gpus), get_length(vm, "sessions"),
               format_bytes(get_number(vm, "memory_used"), used),
               format_limit(get_number(vm, "memory_limit"), limit), get_number(vm, "requests"),
               get_number(vm, "errors"), get_number(vm, "faults"), get_real(vm, "busy_seconds"));
    }
}

/* show and set ----------------------------------------------------------------------------- */

/* A key that the answer lacks has a line all the same, without a value. */
static void print_keys(struct json_object *object, const char *const keys[])
{
    for (size_t i = 0; keys[i]; i++) {
        printf("  %-18s %s\n", keys[i], get_text(object, keys[i]));
    }
}

static void print_memory(struct json_object *vm)
{
    char used[UNIT_TEXT], limit[UNIT_TEXT];

    printf("  %-18s %s of %s\n", "memory", format_bytes(get_number(vm, "memory_used"), used),
           get_number(vm, "memory_limit") == 0
               ? "as much as there is"
               : format_bytes(get_number(vm, "memory_limit"), limit));
}

/* The answer names the engines. All of them are printed. */
static void print_engines(struct json_object *vm)
{
    struct json_object *engines = get(vm, "gpu_seconds");

    json_object_object_foreach(engines, engine, seconds)
    {
        printf("  %-18s %.3f s\n", engine, json_object_get_double(seconds));
    }
}

/* "-" where nobody has waited yet. */
static const char *format_wait(struct json_object *process, const char *key, char text[UNIT_TEXT])
{
    struct json_object *waits = get(process, "queue_wait");

    return get_number(waits, "count") > 0 ? format_seconds(get_real(waits, key), text) : "-";
}

/* The percentiles are bounds of buckets, powers of two of a microsecond: hence "at most". */
static void print_waits(struct json_object *vm)
{
    char half[UNIT_TEXT], most[UNIT_TEXT];

    printf("  %-18s %" PRIu64 " times, half of them at most %s, 99 %% at most %s\n", "queue_wait",
           get_number(get(vm, "queue_wait"), "count"), format_wait(vm, "p50_seconds", half),
           format_wait(vm, "p99_seconds", most));
}

/* The widths are those of the heading in print_workers(). */
static void print_worker(const char *label, struct json_object *process)
{
    char used[UNIT_TEXT], half[UNIT_TEXT], most[UNIT_TEXT];

    printf("  %-10s %-8s %3s %10" PRIu64 " %8s %12" PRIu64 " %8" PRIu64 " %9.3fs %8s %8s %6" PRIu64
           " %6" PRIu64 "\n",
           label, get_text(process, "state"), get_text(process, "gpu"),
           get_number(process, "worker_pid"),
           format_bytes(get_number(process, "memory_used"), used), get_number(process, "requests"),
           get_number(process, "errors"), get_real(process, "busy_seconds"),
           format_wait(process, "p50_seconds", half), format_wait(process, "p99_seconds", most),
           get_number(process, "in_flight"), get_number(process, "faults"));
}

static void print_workers(struct json_object *vm)
{
    char label[32];

    printf("workers\n  %-10s %-8s %3s %10s %8s %12s %8s %10s %8s %8s %6s %6s\n", "FOR", "STATE",
           "GPU", "PID", "MEMORY", "REQUESTS", "ERRORS", "BUSY", "WAIT-P50", "WAIT-P99", "FLIGHT",
           "FAULTS");
    print_worker("registers", get(vm, "registers"));
    for (size_t i = 0; i < get_length(vm, "sessions"); i++) {
        struct json_object *session = get_element(vm, "sessions", i);

        snprintf(label, sizeof(label), "queue %" PRIu64, get_number(session, "queue"));
        print_worker(label, session);
    }
}

void print_vm(struct json_object *vm)
{
    static const char *const keys[] = {
        "name",   "uuid",      "kind",       "pool",          "priority",
        "paused", "device",    "gpu",        "client_pid",    "client_user",
        "queues", "shm_bytes", "worker_pid", "worker_starts", NULL,
    };
    static const char *const counters[] = {
        "requests", "errors",          "elements",    "turns",     "doorbells", "interrupts",
        "faults",   "worker_failures", "preemptions", "in_flight", NULL,
    };

    printf("VM %" PRIu64 "\n", get_number(vm, "vm"));
    printf("  %-18s %s\n", "state", state_of(vm));
    print_keys(vm, keys);
    printf("  %-18s %.3f s\n", "attached", get_real(vm, "attached_seconds"));
    print_memory(vm);
    puts("limits");
    print_limits(vm);
    puts("counters, of all its workers so far");
    print_keys(vm, counters);
    print_waits(vm);
    puts("time on a GPU's engines");
    print_engines(vm);
    print_workers(vm);
}

void print_limits(struct json_object *vm)
{
    struct json_object *limits = get(vm, "limits");

    json_object_object_foreach(limits, key, value)
    {
        const char *text = json_object_get_string(value);

        printf("  %-18s %s", key, text);
        /* The limit is the most that it may ask for; it may have asked for less. */
        if (strcmp(key, "priority") == 0 && strcmp(text, get_text(vm, "priority")) != 0) {
            printf(", has %s as it asked for", get_text(vm, "priority"));
        }
        puts("");
    }
}

/* history ---------------------------------------------------------------------------------- */

void print_history(struct json_object *answer)
{
    printf("%8s %10s %-8s %3s %-11s %12s %12s\n", "TURN", "VM", "PRIORITY", "GPU", "ENGINE",
           "WAITED", "RAN");
    for (size_t i = 0; i < get_length(answer, "turns"); i++) {
        struct json_object *turn = get_element(answer, "turns", i);

        /* All times are in ms, so that they can be compared down a column. */
        printf("%8" PRIu64 " %10" PRIu64 " %-8s %3" PRIu64 " %-11s %10.3fms %10.3fms\n",
               get_number(turn, "turn"), get_number(turn, "vm"), get_text(turn, "priority"),
               get_number(turn, "gpu"), get_text(turn, "engine"),
               get_real(turn, "waited_seconds") * 1e3, get_real(turn, "ran_seconds") * 1e3);
    }
}
