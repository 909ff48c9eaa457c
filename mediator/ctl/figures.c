/* SPDX-License-Identifier: MIT */
/*
 * The figures of `vgpuctl top`: how much each counter has grown between two answers to "list". The
 * time between them is the difference of their clock_seconds, which is the mediator's clock; so it
 * does not matter how long an answer took to arrive.
 *
 * VMs of the two answers are matched by number, sessions by queue. The counters of a VM or session
 * that is new have grown from 0. A counter that is lower than before has begun anew: the VM was
 * detached and attached again.
 *
 * Then the figures can be sorted, printed as lines of a table, and turned into JSON. Texts that
 * they point to belong to the newer answer.
 */
#include "mediator/ctl/figures.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "mediator/ctl/ask.h"
#include "mediator/ctl/print.h"
#include "mediator/histogram.h"

/* Between two answers ---------------------------------------------------------------------- */

/* What has been counted since; one that is less than before began anew. */
static double counter_grown(double before, double now)
{
    return now >= before ? now - before : now;
}

/* In seconds. Time is counted when a piece of work ends, so it may be more than has passed. */
static double engine_growth(struct json_object *before, struct json_object *now, const char *engine)
{
    return counter_grown(get_real(get(before, "gpu_seconds"), engine),
                         get_real(get(now, "gpu_seconds"), engine));
}

static uint64_t bucket_of(struct json_object *waits, size_t bucket)
{
    return bucket < get_length(waits, "buckets")
               ? json_object_get_uint64(get_element(waits, "buckets", bucket))
               : 0;
}

/*
 * The waits between the answers. Percentiles cannot be subtracted from each other, but the counts
 * in the buckets can; the percentiles of the differences are those of this interval alone.
 */
static void take_waits(struct figure *figure, struct json_object *before, struct json_object *now)
{
    const bool anew = get_number(now, "count") < get_number(before, "count");
    struct histogram waits = {0};

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        const uint64_t count = bucket_of(now, i), old = anew ? 0 : bucket_of(before, i);

        waits.count[i] = count > old ? count - old : 0;
    }
    figure->waits = histogram_total(&waits);
    figure->wait_p50 = (double)histogram_percentile_ns(&waits, 50) / 1e9;
    figure->wait_p99 = (double)histogram_percentile_ns(&waits, 99) / 1e9;
}

/*
 * All but the label and the limit; `before` is NULL where it is new. Memory, work in flight and
 * faults are as they are now, and the others have grown since `before`.
 */
static void take_figure(struct figure *figure, struct json_object *before, struct json_object *now,
                        double seconds)
{
    const double copies = engine_growth(before, now, "to-device") +
                          engine_growth(before, now, "from-device");

    figure->state = get_text(now, "state");
    figure->off_seconds = get_real(now, "off_seconds");
    figure->gpu = get(now, "gpu") ? (int64_t)get_number(now, "gpu") : -1;
    figure->gpu_percent = 100.0 * engine_growth(before, now, "compute") / seconds;
    figure->copy_percent = 100.0 * copies / seconds;
    figure->memory = get_number(now, "memory_used");
    figure->in_flight = get_number(now, "in_flight");
    figure->faults = get_number(now, "faults");
    take_waits(figure, get(before, "queue_wait"), get(now, "queue_wait"));
}

/* The element that has the same number under this key; NULL: none. */
static struct json_object *figures_find(struct json_object *object, const char *array,
                                        const char *key, uint64_t number)
{
    for (size_t i = 0; i < get_length(object, array); i++) {
        struct json_object *element = get_element(object, array, i);

        if (get_number(element, key) == number) {
            return element;
        }
    }
    return NULL;
}

const char *figures_busiest(const char *one, const char *other)
{
    /* The busiest first; the one that is left is idle. */
    static const char *const states[] = {"running", "off", "waiting", "starting"};

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        if (strcmp(one, states[i]) == 0 || strcmp(other, states[i]) == 0) {
            return states[i];
        }
    }
    return one;
}

static void take_workers(struct vm_figures *vm, struct json_object *before, struct json_object *now,
                         double seconds)
{
    const size_t sessions = get_length(now, "sessions");

    /* Register mode by itself is the VM's own line. */
    vm->workers = sessions > 0 ? calloc(1 + sessions, sizeof(*vm->workers)) : NULL;
    if (!vm->workers) {
        return;
    }
    vm->worker_count = 1 + sessions;
    snprintf(vm->workers[0].label, sizeof(vm->workers[0].label), "registers");
    take_figure(&vm->workers[0], get(before, "registers"), get(now, "registers"), seconds);
    for (size_t i = 0; i < sessions; i++) {
        struct figure *worker = &vm->workers[1 + i];
        struct json_object *session = get_element(now, "sessions", i);
        const uint64_t queue = get_number(session, "queue");

        snprintf(worker->label, sizeof(worker->label), "queue %" PRIu64, queue);
        take_figure(worker, figures_find(before, "sessions", "queue", queue), session, seconds);
        /*
         * A VM is as busy as the busiest of its workers. If they are on several GPUs, none is
         * shown.
         */
        vm->total.state = figures_busiest(vm->total.state, worker->state);
        vm->total.gpu = vm->total.gpu == worker->gpu ? worker->gpu : -1;
        if (worker->off_seconds > vm->total.off_seconds) {
            vm->total.off_seconds = worker->off_seconds;
        }
    }
}

void figures_make(struct figures *figures, struct json_object *before, struct json_object *now)
{
    *figures = (struct figures){
        .seconds = get_real(now, "clock_seconds") - get_real(before, "clock_seconds"),
        .vms = calloc(get_length(now, "vms") + 1, sizeof(*figures->vms)),
    };
    /* Two answers of the same instant: nothing has grown, and nothing is divided by 0. */
    if (figures->seconds <= 0.0) {
        figures->seconds = 1e-9;
    }
    for (size_t i = 0; figures->vms && i < get_length(now, "vms"); i++) {
        struct json_object *vm = get_element(now, "vms", i);
        struct vm_figures *to = &figures->vms[figures->count++];
        struct json_object *old;

        to->vm = get_number(vm, "vm");
        to->pool = get_text(vm, "pool");
        to->priority = get_text(vm, "priority");
        snprintf(to->total.label, sizeof(to->total.label), "%s", get_text(vm, "name"));
        to->total.memory_limit = get_number(vm, "memory_limit");
        old = figures_find(before, "vms", "vm", to->vm);
        /* Detached and attached again: it has begun anew. */
        if (get_real(vm, "attached_seconds") < get_real(old, "attached_seconds")) {
            old = NULL;
        }
        take_figure(&to->total, old, vm, figures->seconds);
        take_workers(to, old, vm, figures->seconds);
        if (get_bool(vm, "paused")) {
            to->total.state = "paused";
        }
    }
}

void figures_free(struct figures *figures)
{
    for (size_t i = 0; i < figures->count; i++) {
        free(figures->vms[i].workers);
    }
    free(figures->vms);
    *figures = (struct figures){0};
}

/* Order ------------------------------------------------------------------------------------ */

/* qsort(3) takes no context. */
static int sort_order;

static double rank_of(const struct figure *figure)
{
    switch (tolower(sort_order)) {
    case 'm':
        return (double)figure->memory;
    case 'w':
        return figure->wait_p99;
    case 'i':
        return (double)figure->in_flight;
    case 'f':
        return (double)figure->faults;
    default:
        return figure->gpu_percent;
    }
}

/* The most first, unless the order is in upper case. */
static int figures_compare(double one, double other)
{
    const int most_first = (one < other) - (one > other);

    return isupper(sort_order) ? -most_first : most_first;
}

static int compare_vms(const void *one, const void *other)
{
    const struct vm_figures *a = one, *b = other;
    const int by_number = (a->vm > b->vm) - (a->vm < b->vm);
    int order;

    if (tolower(sort_order) == 'v') {
        return isupper(sort_order) ? -by_number : by_number;
    }
    /* Equal ones stay in the order of their numbers, so that lines do not jump about. */
    order = figures_compare(rank_of(&a->total), rank_of(&b->total));
    return order != 0 ? order : by_number;
}

/*
 * Equal ones stay in the order of their labels; for strverscmp(3), "queue 10" is behind "queue 9".
 */
static int compare_workers(const void *one, const void *other)
{
    const struct figure *a = one, *b = other;
    const int order = figures_compare(rank_of(a), rank_of(b));

    return order != 0 ? order : strverscmp(a->label, b->label);
}

bool figures_sort(struct figures *figures, int order)
{
    /* On a screen this may be any key of ncurses, or -1 for none. */
    if (order <= 0 || order > 'z' || !strchr("pmwifv", tolower(order))) {
        return false;
    }
    sort_order = order;
    if (figures->count > 0) {
        qsort(figures->vms, figures->count, sizeof(*figures->vms), compare_vms);
    }
    /* The order by the VM's number does not concern its workers. */
    for (size_t i = 0; i < figures->count && tolower(order) != 'v'; i++) {
        if (figures->vms[i].worker_count > 0) {
            qsort(figures->vms[i].workers, figures->vms[i].worker_count,
                  sizeof(*figures->vms[i].workers), compare_workers);
        }
    }
    return true;
}

/* Output ----------------------------------------------------------------------------------- */

void figures_head(char line[FIGURES_LINE])
{
    snprintf(line, FIGURES_LINE,
             "%-10s %-16s %-4s %-8s %-8s %3s %6s %6s %8s %8s %7s %8s %8s %6s %6s", "VM", "NAME",
             "POOL", "PRIORITY", "STATE", "GPU", "GPU%", "COPY%", "MEMORY", "LIMIT", "WAITS",
             "WAIT-P50", "WAIT-P99", "FLIGHT", "FAULTS");
}

const char *figures_column(const char *text, unsigned columns, char column[FIGURES_COLUMN])
{
    mbstate_t state = {0};
    size_t bytes = 0, left = strlen(text);
    unsigned used = 0;

    /* What the locale does not know goes out as it is, a column for each byte. */
    while (left > 0) {
        wchar_t c = 0;
        size_t n = mbrtowc(&c, text, left, &state);
        int width = 1;

        if (n == 0 || n > left) {
            n = 1;
            state = (mbstate_t){0};
        } else {
            width = wcwidth(c);
        }
        if (width < 0 || used + (unsigned)width > columns ||
            bytes + n + columns >= FIGURES_COLUMN) {
            break;
        }
        memcpy(column + bytes, text, n);
        bytes += n;
        used += (unsigned)width;
        text += n;
        left -= n;
    }
    memset(column + bytes, ' ', columns - used);
    column[bytes + columns - used] = '\0';
    return column;
}

/* In 8 columns, without a blank. Moments are left out: most are off for some milliseconds. */
static const char *state_column(const struct figure *figure, char text[24])
{
    const unsigned seconds = (unsigned)(figure->off_seconds < 1e8 ? figure->off_seconds : 1e8);

    if (strcmp(figure->state, "off") != 0 || seconds == 0) {
        return figure->state;
    }
    if (seconds < 60) {
        snprintf(text, 24, "off:%us", seconds);
    } else if (seconds < 3600) {
        snprintf(text, 24, "off:%um", seconds / 60);
    } else {
        snprintf(text, 24, "off:%uh", seconds / 3600);
    }
    return text;
}

void figures_line(const struct vm_figures *vm, const struct figure *worker, char line[FIGURES_LINE])
{
    const struct figure *figure = worker ? worker : &vm->total;
    char number[24] = "", gpu[24] = "-", memory[UNIT_TEXT], limit[UNIT_TEXT] = "";
    char p50[UNIT_TEXT] = "-", p99[UNIT_TEXT] = "-", label[FIGURES_COLUMN], state[24];

    /* A worker has no limit of its own, and its line is indented under its VM's. */
    if (!worker) {
        snprintf(number, sizeof(number), "%" PRIu64, vm->vm);
        snprintf(limit, sizeof(limit), "none");
    }
    if (figure->gpu >= 0) {
        snprintf(gpu, sizeof(gpu), "%" PRId64, figure->gpu);
    }
    if (figure->memory_limit > 0) {
        format_bytes(figure->memory_limit, limit);
    }
    if (figure->waits > 0) {
        format_seconds(figure->wait_p50, p50);
        format_seconds(figure->wait_p99, p99);
    }
    snprintf(line, FIGURES_LINE,
             "%-10s %s%s %-4s %-8s %-8s %3s %6.1f %6.1f %8s %8s %7" PRIu64 " %8s %8s %6" PRIu64
             " %6" PRIu64,
             number, worker ? "  " : "", figures_column(figure->label, worker ? 14 : 16, label),
             worker ? "" : vm->pool, worker ? "" : vm->priority, state_column(figure, state), gpu,
             figure->gpu_percent, figure->copy_percent, format_bytes(figure->memory, memory), limit,
             figure->waits, p50, p99, figure->in_flight, figure->faults);
}

/* The keys of a VM's total and of each of its workers. */
static void add_figure(struct json_object *object, const struct figure *figure)
{
    const struct {
        const char *key;
        double value;
    } reals[] = {
        {"gpu_percent", figure->gpu_percent},
        {"copy_percent", figure->copy_percent},
        {"wait_p50_seconds", figure->wait_p50},
        {"wait_p99_seconds", figure->wait_p99},
    };
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"memory_used", figure->memory},
        {"waits", figure->waits},
        {"in_flight", figure->in_flight},
        {"faults", figure->faults},
    };

    json_object_object_add(object, "state", json_object_new_string(figure->state));
    if (figure->off_seconds > 0.0) {
        json_object_object_add(object, "off_seconds", json_object_new_double(figure->off_seconds));
    }
    if (figure->gpu >= 0) {
        json_object_object_add(object, "gpu", json_object_new_int64(figure->gpu));
    }
    for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
        json_object_object_add(object, reals[i].key, json_object_new_double(reals[i].value));
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        json_object_object_add(object, numbers[i].key, json_object_new_uint64(numbers[i].value));
    }
}

static struct json_object *vm_json(const struct vm_figures *vm)
{
    struct json_object *object = json_object_new_object();
    struct json_object *workers = json_object_new_array();

    json_object_object_add(object, "vm", json_object_new_uint64(vm->vm));
    json_object_object_add(object, "name", json_object_new_string(vm->total.label));
    json_object_object_add(object, "pool", json_object_new_string(vm->pool));
    json_object_object_add(object, "priority", json_object_new_string(vm->priority));
    json_object_object_add(object, "memory_limit", json_object_new_uint64(vm->total.memory_limit));
    add_figure(object, &vm->total);
    for (size_t i = 0; i < vm->worker_count; i++) {
        struct json_object *worker = json_object_new_object();

        json_object_object_add(worker, "for", json_object_new_string(vm->workers[i].label));
        add_figure(worker, &vm->workers[i]);
        json_object_array_add(workers, worker);
    }
    json_object_object_add(object, "workers", workers);
    return object;
}

struct json_object *figures_json(const struct figures *figures)
{
    struct json_object *object = json_object_new_object();
    struct json_object *vms = json_object_new_array();

    json_object_object_add(object, "seconds", json_object_new_double(figures->seconds));
    for (size_t i = 0; i < figures->count; i++) {
        json_object_array_add(vms, vm_json(&figures->vms[i]));
    }
    json_object_object_add(object, "vms", vms);
    return object;
}
