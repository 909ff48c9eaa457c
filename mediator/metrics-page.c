/* SPDX-License-Identifier: MIT */
/*
 * The metrics as text. The format wants all lines of a metric in one piece, so a page is made in
 * two steps: the counters of all VMs are gathered first, then they are written metric by metric.
 *
 * A metric that is one number for each VM is a line of the table `numbers`. One with further labels
 * has a function of its own. Labels that all metrics of a VM have are written once, when it is
 * gathered.
 *
 * Counters are claims of the workers, and do not fall (report.c). A guest's own text, its name, is
 * in vgpu_vm_info alone, and escaped.
 */
#include "mediator/metrics-page.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/version.h"
#include "mediator/cards.h"
#include "mediator/report.h"
#include "mediator/vm.h"

struct entry {
    struct vm *vm;
    struct report report;
    char labels[80]; /* that its metrics have in common */
};

struct page {
    FILE *out;
    struct entry *entries;
    size_t count;
};

static void page_begin(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/*
 * A label's value as the format wants it. Other control characters need no care:
 * printable_copy() has replaced them when the VM attached.
 */
static void put_escaped(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n') {
            fputs("\\n", out);
        } else {
            if (*text == '\\' || *text == '"') {
                fputc('\\', out);
            }
            fputc(*text, out);
        }
    }
}

/* As integers: a double holds nanoseconds exactly for no more than 104 days. */
static void put_seconds(FILE *out, uint64_t ns)
{
    fprintf(out, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);
}

/* One number of each VM ---------------------------------------------------------------- */

/* For the table below: each reads one number of an entry. */
static uint64_t memory_used(const struct entry *entry)
{
    return report_memory(entry->vm);
}

static uint64_t memory_limit(const struct entry *entry)
{
    return entry->vm->limits.memory;
}

static uint64_t metric_commands(const struct entry *entry)
{
    return entry->report.counters.requests;
}

static uint64_t command_errors(const struct entry *entry)
{
    return entry->report.counters.errors;
}

static uint64_t in_flight(const struct entry *entry)
{
    return entry->report.counters.in_flight;
}

static uint64_t metric_doorbells(const struct entry *entry)
{
    return entry->report.counters.doorbells;
}

static uint64_t metric_interrupts(const struct entry *entry)
{
    return entry->report.counters.interrupts;
}

static uint64_t metric_faults(const struct entry *entry)
{
    return entry->report.counters.faults;
}

static uint64_t worker_starts(const struct entry *entry)
{
    return entry->report.starts;
}

static uint64_t count_preemptions(const struct entry *entry)
{
    return entry->report.preemptions;
}

static uint64_t worker_failures(const struct entry *entry)
{
    return entry->report.failures;
}

static uint64_t metric_sessions(const struct entry *entry)
{
    return vm_session_count(entry->vm);
}

static uint64_t metric_share(const struct entry *entry)
{
    return entry->vm->limits.share;
}

/*
 * With zero_is_none a value of 0 has no line: a limit of 0 bytes would be read as a limit, while it
 * means that there is none.
 */
static const struct {
    const char *name, *type, *help;
    uint64_t (*value)(const struct entry *entry);
    bool zero_is_none; /* and has no line */
} numbers[] = {
    {"vgpu_share", "gauge", "What the VM gets against others of its priority.", metric_share,
     false},
    {"vgpu_memory_bytes", "gauge", "Device memory that the VM has allocated.", memory_used, false},
    {"vgpu_memory_limit_bytes", "gauge", "Device memory that it may allocate; absent: no limit.",
     memory_limit, true},
    {"vgpu_sessions", "gauge", "Sessions that are open or starting.", metric_sessions, false},
    {"vgpu_commands_in_flight", "gauge", "Pieces of work submitted to the GPU and not done.",
     in_flight, false},
    {"vgpu_commands_total", "counter", "Commands taken from rings, and register requests answered.",
     metric_commands, false},
    {"vgpu_command_errors_total", "counter", "Commands and requests that failed.", command_errors,
     false},
    {"vgpu_doorbells_total", "counter", "Doorbells heard.", metric_doorbells, false},
    {"vgpu_interrupts_total", "counter", "Interrupts sent.", metric_interrupts, false},
    {"vgpu_faults_total", "counter", "Errors that lost a session's GPU context.", metric_faults,
     false},
    {"vgpu_worker_starts_total", "counter", "Worker processes started.", worker_starts, false},
    {"vgpu_preemptions_total", "counter", "Times that work was taken off the GPU.",
     count_preemptions, false},
    {"vgpu_worker_failures_total", "counter", "Worker processes that ended unasked.",
     worker_failures, false},
};

static void put_numbers(const struct page *page)
{
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        page_begin(page->out, numbers[i].name, numbers[i].type, numbers[i].help);
        for (size_t j = 0; j < page->count; j++) {
            const uint64_t value = numbers[i].value(&page->entries[j]);

            if (value != 0 || !numbers[i].zero_is_none) {
                fprintf(page->out, "%s{%s} %" PRIu64 "\n", numbers[i].name, page->entries[j].labels,
                        value);
            }
        }
    }
}

/* What has more labels -------------------------------------------------------------------- */

/*
 * A GPU on which the VM never had a worker has no lines. Otherwise each VM would have some for each
 * GPU of its pool.
 */
static void put_vm_gpu_time(FILE *out, const struct entry *entry)
{
    const struct pool *pool = entry->vm->pool;

    for (unsigned i = 0; i < pool->gpu_count; i++) {
        for (unsigned j = 0; j < VGPU_ENGINES && report_has_gpu(entry->vm, i); j++) {
            fprintf(out, "vgpu_gpu_time_seconds_total{%s,gpu=\"%" PRIu32 "\",engine=\"%s\"} ",
                    entry->labels, pool->gpus[i].number, report_engines[j]);
            put_seconds(out, report_gpu_ns(entry->vm, i, j));
            fputc('\n', out);
        }
    }
}

static void put_gpu_time(const struct page *page)
{
    page_begin(page->out, "vgpu_gpu_time_seconds_total", "counter",
               "How long work of the VM was on an engine of a GPU.");
    for (size_t i = 0; i < page->count; i++) {
        put_vm_gpu_time(page->out, &page->entries[i]);
    }
}

static void put_turns(const struct page *page)
{
    page_begin(page->out, "vgpu_turns_total", "counter",
               "Turns on an engine, with and without waiting for them.");
    for (size_t i = 0; i < page->count; i++) {
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            fprintf(page->out, "vgpu_turns_total{%s,engine=\"%s\"} %" PRIu64 "\n",
                    page->entries[i].labels, report_engines[j],
                    page->entries[i].report.counters.turns[j]);
        }
    }
}

/* Prometheus's buckets are cumulative: one counts all that waited for at most its bound. */
static void put_vm_waits(FILE *out, const struct entry *entry)
{
    const struct histogram *waits = &entry->report.waits;
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += waits->count[i];
        fprintf(out, "vgpu_queue_wait_seconds_bucket{%s,le=\"", entry->labels);
        if (i < HISTOGRAM_BUCKETS - 1) {
            fprintf(out, "%.9g", (double)histogram_bound_ns(i) / (double)NS_PER_S);
        } else {
            fputs("+Inf", out);
        }
        fprintf(out, "\"} %" PRIu64 "\n", seen);
    }
    fprintf(out, "vgpu_queue_wait_seconds_sum{%s} ", entry->labels);
    put_seconds(out, waits->sum_ns);
    fprintf(out, "\nvgpu_queue_wait_seconds_count{%s} %" PRIu64 "\n", entry->labels, seen);
}

static void put_waits(const struct page *page)
{
    page_begin(page->out, "vgpu_queue_wait_seconds", "histogram",
               "From asking for a turn on an engine to its grant.");
    for (size_t i = 0; i < page->count; i++) {
        put_vm_waits(page->out, &page->entries[i]);
    }
}

/* The one place where a guest's own text is: its name may hold anything printable. */
static void put_vm_info(const struct page *page)
{
    page_begin(page->out, "vgpu_vm_info", "gauge",
               "1 for each attached VM, with its name and kind.");
    for (size_t i = 0; i < page->count; i++) {
        const struct vm *vm = page->entries[i].vm;

        fprintf(page->out, "vgpu_vm_info{vm=\"%" PRIu32 "\",name=\"", vm->id);
        put_escaped(page->out, vm->name);
        fprintf(page->out, "\",kind=\"%s\"} 1\n", vm->host ? "host" : "vm");
    }
}

/* The mediator's own figures, without labels. */
static void put_own(FILE *out, const struct mediator *m)
{
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } own[] = {
        {"vgpu_vms", "gauge", "Attached VMs and host processes.", m->vm_count},
        {"vgpu_vms_max", "gauge", "As many as may be attached.", m->config.max_vms},
        {"vgpu_computes_on_gpu", "gauge", "1 where a GPU computes, 0 where the CPU does.",
         m->has_gpu},
        {"vgpu_preempts", "gauge", "1 where kernels that run are taken off the GPU for others.",
         mediator_preempts(m)},
        {"vgpu_generation", "gauge", "Mediators since the first that kept sessions.",
         m->generation},
        {"vgpu_refusals_total", "counter", "Connections of VMs and host processes refused.",
         m->refusals},
        {"vgpu_reloads_total", "counter", "Times that the configuration was read again.",
         m->reloads},
        {"vgpu_reload_failures_total", "counter", "Of those, with mistakes in it: nothing changed.",
         m->reload_failures},
        {"vgpu_config_good", "gauge", "0 while the configuration as read last has mistakes.",
         !m->misconfigured},
    };

    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        page_begin(out, own[i].name, own[i].type, own[i].help);
        fprintf(out, "%s %" PRIu64 "\n", own[i].name, own[i].value);
    }
}

/* A number of each GPU that is in a pool. */
static void put_pool_gpus(FILE *out, const struct mediator *mediator, const char *name,
                          const char *help, unsigned (*value)(const struct pool_gpu *gpu))
{
    page_begin(out, name, "gauge", help);
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        const struct pool *pool = &mediator->pools[i];

        for (unsigned j = 0; pool->id != 0 && j < pool->gpu_count; j++) {
            fprintf(out, "%s{pool=\"%c\",gpu=\"%" PRIu32 "\"} %u\n", name, pool->id,
                    pool->gpus[j].number, value(&pool->gpus[j]));
        }
    }
}

static unsigned gpu_workers(const struct pool_gpu *gpu)
{
    return gpu->worker_count;
}

static unsigned gpu_drained(const struct pool_gpu *gpu)
{
    return gpu->drained;
}

static void put_pools(FILE *out, const struct mediator *mediator)
{
    put_pool_gpus(out, mediator, "vgpu_pool_workers", "Worker processes on a GPU.", gpu_workers);
    put_pool_gpus(out, mediator, "vgpu_pool_drained", "1 while nothing new is placed on the GPU.",
                  gpu_drained);
    page_begin(out, "vgpu_pool_paused", "gauge", "1 while nothing new starts on the pool's GPUs.");
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        if (mediator->pools[i].id != 0) {
            fprintf(out, "vgpu_pool_paused{pool=\"%c\"} %d\n", mediator->pools[i].id,
                    mediator->pools[i].paused);
        }
    }
}

/* A GPU that is in a pool, and what the gauge has said of it. */
struct gpu_entry {
    const struct pool_gpu *gpu;
    const struct vgpu_gauge *gauge;
};

static void put_gpu_info(FILE *out, const struct gpu_entry *entries, size_t count)
{
    page_begin(out, "vgpu_gpu_info", "gauge", "1 for each GPU, with what it is.");
    for (size_t i = 0; i < count; i++) {
        const struct vgpu_gpu_facts *facts = &entries[i].gauge->facts;
        const uint8_t *b = facts->uuid;

        fprintf(out, "vgpu_gpu_info{pool=\"%c\",gpu=\"%" PRIu32 "\",name=\"",
                entries[i].gpu->pool->id, entries[i].gpu->number);
        put_escaped(out, facts->name);
        fprintf(out,
                "\",uuid=\"GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x"
                "\",bus=\"",
                b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
                b[13], b[14], b[15]);
        put_escaped(out, facts->bus_id);
        fputs("\",driver=\"", out);
        put_escaped(out, facts->driver);
        fputs("\"} 1\n", out);
    }
}

/* A field of whichever size. */
static double gauge_value(const struct vgpu_gauge *gauge, size_t offset, size_t size)
{
    uint64_t value = 0;

    memcpy(&value, (const char *)gauge + offset, size);
    return (double)value;
}

/* What is not known of any GPU is left out. */
static void put_gpus(FILE *out, const struct gpu_entry *entries, size_t count)
{
#define GAUGE_FIELD(field)                                                                         \
    offsetof(struct vgpu_gauge, field), sizeof(((struct vgpu_gauge *)NULL)->field)
    static const struct {
        const char *name, *help;
        uint32_t known;
        size_t offset, size;
        double unit;
    } metrics[] = {
        {"vgpu_gpu_memory_total_bytes", "Device memory of the GPU.", VGPU_KNOWN_DEVICE,
         GAUGE_FIELD(facts.memory), 1},
        {"vgpu_gpu_memory_used_bytes", "Device memory of the GPU that is in use, by whomever.",
         VGPU_KNOWN_MEMORY, GAUGE_FIELD(sensors.memory_used), 1},
        {"vgpu_gpu_busy_ratio", "Part of the last moments in which a kernel ran.", VGPU_KNOWN_BUSY,
         GAUGE_FIELD(sensors.busy), 0.01},
        {"vgpu_gpu_temperature_celsius", "Temperature of the GPU.", VGPU_KNOWN_TEMPERATURE,
         GAUGE_FIELD(sensors.temperature), 1},
        {"vgpu_gpu_power_watts", "What the GPU draws.", VGPU_KNOWN_POWER,
         GAUGE_FIELD(sensors.power), 0.001},
        {"vgpu_gpu_power_limit_watts", "What it may draw.", VGPU_KNOWN_POWER_LIMIT,
         GAUGE_FIELD(sensors.power_limit), 0.001},
        {"vgpu_gpu_clock_hertz", "Clock of its multiprocessors.", VGPU_KNOWN_CLOCK,
         GAUGE_FIELD(sensors.clock[VGPU_CLOCK_SM]), 1e6},
    };

    for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++) {
        bool begun = false;

        for (size_t j = 0; j < count; j++) {
            if (!(entries[j].gauge->known & metrics[i].known)) {
                continue;
            }
            if (!begun) {
                page_begin(out, metrics[i].name, "gauge", metrics[i].help);
                begun = true;
            }
            fprintf(out, "%s{pool=\"%c\",gpu=\"%" PRIu32 "\"} %.10g\n", metrics[i].name,
                    entries[j].gpu->pool->id, entries[j].gpu->number,
                    metrics[i].unit *
                        gauge_value(entries[j].gauge, metrics[i].offset, metrics[i].size));
        }
    }
}

/* Where the CPU computes there are none. */
static void put_cards(FILE *out, const struct mediator *mediator)
{
    struct gpu_entry entries[CONFIG_POOLS * CONFIG_DEVICES];
    size_t count = 0;

    for (unsigned i = 0; mediator->has_gpu && i < CONFIG_POOLS; i++) {
        const struct pool *pool = &mediator->pools[i];

        for (unsigned j = 0; pool->id != 0 && j < pool->gpu_count; j++) {
            const struct vgpu_gauge *gauge = cards_gauge(mediator, pool->gpus[j].number);

            if (gauge) {
                entries[count++] = (struct gpu_entry){&pool->gpus[j], gauge};
            }
        }
    }
    if (count > 0) {
        put_gpu_info(out, entries, count);
        put_gpus(out, entries, count);
    }
}

static void put_page(const struct page *page, const struct mediator *mediator)
{
    page_begin(page->out, "vgpu_build_info", "gauge", "1, with the mediator's version.");
    fputs("vgpu_build_info{version=\"" VGPU_PACKAGE_VERSION "\"} 1\n", page->out);
    put_own(page->out, mediator);
    page_begin(page->out, "vgpu_loop_longest_seconds", "gauge",
               "The longest that anything has kept the mediator from everything else.");
    fputs("vgpu_loop_longest_seconds ", page->out);
    put_seconds(page->out, mediator->longest_ns);
    fputc('\n', page->out);
    put_pools(page->out, mediator);
    put_cards(page->out, mediator);
    put_vm_info(page);
    put_numbers(page);
    put_turns(page);
    put_gpu_time(page);
    put_waits(page);
}

static void page_gather(struct page *page, struct mediator *mediator)
{
    for (struct vm *vm = mediator->vms; vm; vm = vm->next) {
        struct entry *entry = &page->entries[page->count++];

        entry->vm = vm;
        entry->report = report_vm(vm);
        snprintf(entry->labels, sizeof(entry->labels),
                 "vm=\"%" PRIu32 "\",pool=\"%c\",priority=\"%s\"", vm->id, vm->pool->id,
                 config_priority_name(vm->priority));
    }
}

char *metrics_page(struct mediator *mediator, size_t *length)
{
    /* One more than there are, since calloc() of nothing may return NULL. */
    struct page page = {.entries = calloc(mediator->vm_count + 1, sizeof(*page.entries))};
    char *text = NULL;
    bool failed;

    if (!page.entries) {
        return NULL;
    }
    page.out = open_memstream(&text, length);
    if (page.out) {
        page_gather(&page, mediator);
        put_page(&page, mediator);
        /* A page that was cut for want of memory would look as if VMs had gone. */
        failed = ferror(page.out) != 0;
        failed |= fclose(page.out) != 0;
        if (failed) {
            free(text);
            text = NULL;
        }
    }
    free(page.entries);
    return text;
}
