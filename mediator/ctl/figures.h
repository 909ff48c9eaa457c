/* SPDX-License-Identifier: MIT */
/*
 * What `vgpuctl top` shows: what VMs and their workers have done between two answers of the
 * mediator to "list".
 */
#ifndef VGPU_MEDIATOR_CTL_FIGURES_H
#define VGPU_MEDIATOR_CTL_FIGURES_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a VM with all its workers, or of one worker. */
struct figure {
    char label[64]; /* a VM's name, "registers" or "queue N" */
    const char *state;
    double off_seconds;  /* for how long it is off its GPU; of a VM the longest; 0: it is not */
    int64_t gpu;         /* -1: none, or several */
    double gpu_percent;  /* of the time, computing; of several workers together */
    double copy_percent; /* copying, to and from the device */
    uint64_t memory, memory_limit;
    uint64_t waits; /* for turns */
    double wait_p50, wait_p99;
    uint64_t in_flight;
    uint64_t faults; /* so far */
};

struct vm_figures {
    uint64_t vm;
    const char *pool, *priority; /* of the answer */
    struct figure total;
    struct figure *workers;
    size_t worker_count;
};

struct figures {
    double seconds; /* between the answers */
    struct vm_figures *vms;
    size_t count;
};

/* Compares two answers, which have to outlive the figures. */
void figures_make(struct figures *figures, struct json_object *before, struct json_object *now);
void figures_free(struct figures *figures);

/*
 * Sorts VMs, and each VM's workers, the most first: by 'p' GPU time, 'm' memory, 'w' the longest
 * waits, 'i' work in flight, 'f' faults; or by 'v' the VM's number, the least first. An upper-case
 * letter turns that round. False when there is no such order.
 */
bool figures_sort(struct figures *figures, int order);

/*
 * A text as so many columns of the terminal, cut or filled up; `column` is returned. Characters
 * take as many as the terminal's locale says.
 */
#define FIGURES_COLUMN 128u
const char *figures_column(const char *text, unsigned columns, char column[FIGURES_COLUMN]);

/* Lines of a table; worker NULL: of the VM itself. */
#define FIGURES_LINE 256u /* bytes */
void figures_head(char line[FIGURES_LINE]);
void figures_line(const struct vm_figures *vm, const struct figure *worker,
                  char line[FIGURES_LINE]);

/* The caller's. */
struct json_object *figures_json(const struct figures *figures);

/* The busier of two workers' states, which is their VM's. */
const char *figures_busiest(const char *one, const char *other);

#endif
