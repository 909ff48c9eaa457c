/* SPDX-License-Identifier: MIT */
/*
 * vgpu-worker: its options, and what both kinds of worker share. See worker.h.
 *
 * The same program is four: with --probe it tells which GPUs there are, for a mediator that never
 * loads CUDA itself; with --gauge it goes on telling what they are and do (gauge.h); with --queues
 * and --queue it serves a queue; else it serves the register page.
 * The options come from the mediator, which is trusted: a mistake in them ends the process with its
 * usage. Nothing that a guest has written is read in this file.
 *
 * No descriptor is opened here: those of protocol/vgpu-worker.h are in place when it starts.
 */
#include "worker/worker.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fdmsg.h"
#include "common/log.h"
#include "common/version.h"
#include "protocol/vgpu-worker.h"
#include "worker/gauge.h"
#include "worker/gpu.h"

static void usage(FILE *out)
{
    fputs("usage: vgpu-worker --probe\n"
          "       vgpu-worker --shm-size BYTES [--backend auto|cpu|cuda] [--device N]\n"
          "                   [--takeover resume|discard|fail:CODE] [--user UID:GID]\n"
          "                   [--queues COUNT --queue N] [--preempt] [--resting | --rest NS]\n"
          "                   [--label TEXT] [--gpu-name=TEXT]\n"
          "       vgpu-worker --gauge [--backend auto|cpu|cuda] [--sensors] [--user UID:GID]\n"
          "\n"
          "The last two are for vgpu-mediator, which passes descriptors along.\n"
          "\n"
          "  --probe    print what would compute: \"cuda N\" and a line with each GPU's name,\n"
          "             or \"cpu\" and the reason why there is no GPU; then \"preempt\" where a\n"
          "             kernel that runs can be taken off the GPU, or \"no\" and why not\n"
          "  --help     print this text\n"
          "  --version  print the version\n",
          out);
}

/*
 * Runs before anything is given up, and loads the driver: a driver that crashes or hangs takes this
 * process with it, and not the mediator.
 */
static int print_gpus(void)
{
    char text[256];
    const int count = backend_count_gpus(text, sizeof(text));

    if (count == 0) {
        printf("cpu %s\n", text);
    } else {
        printf("cuda %d\n", count);
    }
    for (int i = 0; i < count; i++) {
        if (backend_gpu_name(i, text, sizeof(text)) < 0) {
            snprintf(text, sizeof(text), "(no name)");
        }
        printf("%s\n", text);
    }
    /* A driver that crashes or hangs over it takes nothing of this with it. */
    fflush(stdout);
    /* What is said of the first one is taken for all: they have one driver. */
    if (gpu_try_off(count > 0 ? BACKEND_CUDA : BACKEND_CPU, text, sizeof(text))) {
        puts("preempt");
    } else {
        printf("no %s\n", text);
    }
    return 0;
}

static bool parse_backend(const char *text, enum backend_kind *kind)
{
    static const char *const names[] = {
        [BACKEND_AUTO] = "auto", [BACKEND_CPU] = "cpu", [BACKEND_CUDA] = "cuda"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *kind = (enum backend_kind)i;
            return true;
        }
    }
    return false;
}

/* Says in log lines for whom it works. */
static void set_label(const char *label)
{
    /* log_open() keeps the pointer. */
    static char program[80];

    snprintf(program, sizeof(program), "vgpu-worker of %s", label);
    log_open(program);
}

/*
 * fail:CODE answers the owed request with this error: it has brought two workers down, or took too
 * long.
 */
static bool parse_takeover(const char *text, struct options *o)
{
    unsigned code;

    if (strcmp(text, "resume") == 0) {
        o->takeover = REGISTERS_RESUME;
    } else if (strcmp(text, "discard") == 0) {
        o->takeover = REGISTERS_DISCARD;
    } else if (sscanf(text, "fail:%u", &code) == 1 && code > 0 && code < VGPU_ERROR_COUNT) {
        o->takeover = REGISTERS_FAIL;
        o->error = (enum vgpu_error)code;
    } else {
        return false;
    }
    return true;
}

/*
 * The size is checked as the formulas of the layout need it: vgpu_queues_max() of a wrong one would
 * wrap. A queue's number without --queues would be ignored.
 */
static bool options_fit(const struct options *o)
{
    return vgpu_shm_size_valid(o->shm_size) && o->queues <= vgpu_queues_max(o->shm_size) &&
           (o->queue == 0 || o->queue < o->queues);
}

/* Fills in *o; ends the process on --help, --version, --probe and mistakes. */
static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"probe", no_argument, NULL, 'p'},          {"shm-size", required_argument, NULL, 's'},
        {"backend", required_argument, NULL, 'b'},  {"device", required_argument, NULL, 'd'},
        {"takeover", required_argument, NULL, 't'}, {"user", required_argument, NULL, 'u'},
        {"label", required_argument, NULL, 'l'},    {"queues", required_argument, NULL, 'Q'},
        {"queue", required_argument, NULL, 'q'},    {"resting", no_argument, NULL, 'R'},
        {"rest", required_argument, NULL, 'r'},     {"preempt", no_argument, NULL, 'P'},
        {"gpu-name", required_argument, NULL, 'n'}, {"gauge", no_argument, NULL, 'g'},
        {"sensors", no_argument, NULL, 'S'},        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},        {NULL, 0, NULL, 0},
    };
    bool good = true;
    int c;

    while (good && (c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'p':
            exit(print_gpus());
        case 's':
            o->shm_size = strtoull(optarg, NULL, 10);
            break;
        case 'b':
            good = parse_backend(optarg, &o->backend);
            break;
        case 'd':
            o->device = atoi(optarg);
            break;
        case 't':
            good = parse_takeover(optarg, o);
            break;
        case 'u':
            good = sscanf(optarg, "%u:%u", &o->user, &o->group) == 2;
            break;
        case 'l':
            set_label(optarg);
            break;
        case 'Q':
            o->queues = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'q':
            o->queue = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'R':
            o->resting = true;
            break;
        case 'r':
            o->rest_ns = strtoull(optarg, NULL, 10);
            break;
        case 'P':
            o->preempt = true;
            break;
        case 'n':
            o->gpu_name = optarg;
            break;
        case 'g':
            o->gauge = true;
            break;
        case 'S':
            o->sensors = true;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        case 'V':
            puts("vgpu-worker " VGPU_PACKAGE_VERSION);
            exit(0);
        default:
            good = false;
        }
    }
    if (!good || optind != argc || (!o->gauge && !options_fit(o))) {
        usage(stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    /* -1, which --user replaces: the user stays. */
    struct options options = {.user = (uid_t)-1, .group = (gid_t)-1};

    log_open("vgpu-worker");
    parse_options(argc, argv, &options);
    log_times();
    /*
     * At once: what the driver does at exit() is nothing that the sandbox has been made for, and a
     * sanitizer that looked for leaks would wait for a thread that the filter has killed.
     */
    if (options.gauge) {
        _exit(gauge_worker(&options));
    }
    _exit(options.queues > 0 ? ring_worker(&options) : register_worker(&options));
}
