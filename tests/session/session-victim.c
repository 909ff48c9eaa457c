/* SPDX-License-Identifier: MIT */
/*
 * A session that must notice nothing of what its neighbours do to theirs: small jobs, one behind
 * the other, each checked and timed. For host processes.
 *
 *   session-victim --host SOCKET [--vm-id N] [--log FILE] SECONDS
 *
 * 0 seconds: until SIGTERM. Prints "open" after the first job, and in the end
 * "N jobs, N wrong bytes, N errors, p50 US, p99 US, max US". FILE has a line a job: when it began,
 * by the monotonic clock in nanoseconds, and how many it took.
 *
 * Exit codes: 0 all were right, 1 not, 2 wrong usage or no session.
 *
 * Tests: worker/ring-worker*.c, guest/libvgpu/session*.c
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/session/job.h"

struct sample {
    uint64_t start, ns;
};

static struct samples {
    struct sample *all;
    size_t count, room;
} samples;

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void keep(uint64_t start, uint64_t ns)
{
    if (samples.count == samples.room) {
        samples.room = samples.room ? 2 * samples.room : 4096;
        samples.all = realloc(samples.all, samples.room * sizeof(samples.all[0]));
        if (!samples.all) {
            fputs("session-victim: out of memory\n", stderr);
            exit(2);
        }
    }
    samples.all[samples.count++] = (struct sample){start, ns};
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = ((const struct sample *)a)->ns, y = ((const struct sample *)b)->ns;

    return x < y ? -1 : x > y;
}

/* In microseconds; the samples are in order. */
static double percentile(unsigned percent)
{
    const size_t rank = (samples.count * percent + 99) / 100;

    return samples.count == 0 ? 0 : (double)samples.all[rank > 0 ? rank - 1 : 0].ns / 1e3;
}

static void write_log(const char *name)
{
    FILE *file = fopen(name, "w");

    for (size_t i = 0; file && i < samples.count; i++) {
        fprintf(file, "%llu %llu\n", (unsigned long long)samples.all[i].start,
                (unsigned long long)samples.all[i].ns);
    }
    if (!file || fclose(file) != 0) {
        perror(name);
        exit(2);
    }
}

/* The first job is not timed. Returns wrong bytes; *errors is 1 when a call failed. */
static uint64_t work(struct job *job, uint64_t end, unsigned *errors)
{
    uint64_t wrong = 0;

    for (uint32_t round = 0; !stopped && clock_ns() < end; round++) {
        uint64_t start;

        job_draw(job, round);
        start = clock_ns();
        if (job_run(job) != VGPU_OK) {
            fprintf(stderr, "session-victim: job %u: %s\n", round, vgpu_last_message());
            *errors = 1;
            break;
        }
        if (round == 0) {
            puts("open");
            fflush(stdout);
        } else {
            keep(start, clock_ns() - start);
        }
        wrong += job_wrong(job);
    }
    return wrong;
}

static int run(const struct vgpu_host_options *host, const char *log, unsigned long seconds)
{
    const struct vgpu_session_options options = {.host = host};
    const uint64_t end = seconds == 0 ? UINT64_MAX : clock_ns() + seconds * NS_PER_S;
    struct vgpu_session *session = NULL;
    static struct job job;
    unsigned errors = 0;
    uint64_t wrong;

    if (vgpu_session_open(&options, &session) != VGPU_OK || job_prepare(&job, session) != VGPU_OK) {
        fprintf(stderr, "session-victim: %s\n", vgpu_last_message());
        return 2;
    }
    wrong = work(&job, end, &errors);
    vgpu_session_close(session);
    if (log) {
        write_log(log);
    }
    qsort(samples.all, samples.count, sizeof(samples.all[0]), compare);
    printf("%zu jobs, %llu wrong bytes, %u errors, p50 %.1f, p99 %.1f, max %.1f\n", samples.count,
           (unsigned long long)wrong, errors, percentile(50), percentile(99), percentile(100));
    return wrong > 0 || errors > 0;
}

int main(int argc, char **argv)
{
    struct vgpu_host_options host = {.vm_id = 5000000u + (uint32_t)getpid(),
                                     .pool = 'A',
                                     .priority = VGPU_PRIORITY_MEDIUM,
                                     .shm_size = UINT64_C(16) << 20};
    const char *log = NULL;
    int i = 1;

    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        if (strcmp(argv[i], "--host") == 0) {
            host.socket = argv[i + 1];
        } else if (strcmp(argv[i], "--vm-id") == 0) {
            host.vm_id = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--log") == 0) {
            log = argv[i + 1];
        } else {
            break;
        }
    }
    if (i + 1 != argc || !host.socket) {
        fputs("usage: session-victim --host SOCKET [--vm-id N] [--log FILE] SECONDS\n", stderr);
        return 2;
    }
    signal(SIGTERM, on_signal);
    return run(&host, log, strtoul(argv[i], NULL, 10));
}
