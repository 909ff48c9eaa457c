/* SPDX-License-Identifier: MIT */
/*
 * Runs in a guest that has both a vGPU stub and the former path's device: round trips
 * through each, side by side, in turn, in register mode and in ring mode.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/former/vgpu-former.h"
#include "common/clock.h"
#include "guest/libvgpu/vgpu.h"

#define ROUNDS 2000u
#define PARTS 5u /* the two paths take turns this often */

static volatile uint32_t *map_former(void)
{
    DIR *directory = opendir("/sys/bus/pci/devices");
    const struct dirent *entry;

    while (directory && (entry = readdir(directory)) != NULL) {
        char path[300], text[32] = "";
        FILE *file;
        void *regs;
        int fd;

        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/device", entry->d_name);
        file = fopen(path, "r");
        if (!file) {
            continue;
        }
        if (!fgets(text, sizeof(text), file)) {
            text[0] = '\0';
        }
        fclose(file);
        if (strtoul(text, NULL, 0) != VGPU_FORMER_DEVICE_ID) {
            continue;
        }
        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/enable", entry->d_name);
        fd = open(path, O_WRONLY);
        if (fd < 0 || write(fd, "1", 1) != 1) {
            return NULL;
        }
        close(fd);
        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0", entry->d_name);
        fd = open(path, O_RDWR);
        regs = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return regs == MAP_FAILED ? NULL : regs;
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static double median_us(uint64_t *ns, size_t count)
{
    qsort(ns, count, sizeof(ns[0]), compare);
    return (double)ns[count / 2] / 1e3;
}

static void time_former(volatile uint32_t *regs, uint64_t *ns)
{
    static uint32_t number;

    for (unsigned i = 0; i < ROUNDS; i++) {
        const uint64_t start = clock_ns();

        regs[VGPU_FORMER_DOORBELL / 4] = ++number;
        while (regs[VGPU_FORMER_REPLY / 4] != number) {
        }
        ns[i] = clock_ns() - start;
    }
}

static int time_vgpu(struct vgpu *vgpu, uint64_t *echo_ns, uint64_t *add_ns)
{
    const uint32_t a = 2, b = 3;

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t back, sum = 0;
        uint64_t start = clock_ns();
        int r = vgpu_echo(vgpu, &a, sizeof(a), &back);

        echo_ns[i] = clock_ns() - start;
        start = clock_ns();
        if (r == VGPU_OK) {
            r = vgpu_add(vgpu, VGPU_TYPE_INT32, 1, &a, &b, &sum);
        }
        add_ns[i] = clock_ns() - start;
        if (r != VGPU_OK || sum != 5) {
            fprintf(stderr, "guest-bench: %s\n", vgpu_last_message());
            return 1;
        }
    }
    return 0;
}

static int time_ring(struct vgpu_session *session, uint64_t *ns)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        const uint64_t start = clock_ns();
        const int r = vgpu_session_ping(session);

        ns[i] = clock_ns() - start;
        if (r != VGPU_OK) {
            fprintf(stderr, "guest-bench: %s\n", vgpu_last_message());
            return 1;
        }
    }
    return 0;
}

static void print_row(const char *what, double us, double former_us)
{
    printf("%-23s%8.2f    %5.1f times as long\n", what, us, former_us / us);
}

int main(void)
{
    static uint64_t former_ns[PARTS * ROUNDS], echo_ns[PARTS * ROUNDS], add_ns[PARTS * ROUNDS];
    static uint64_t ring_ns[PARTS * ROUNDS];
    volatile uint32_t *former = map_former();
    struct vgpu_session *session;
    struct vgpu *vgpu;
    double former_us;

    if (!former) {
        fprintf(stderr, "guest-bench: no device of the former path\n");
        return 1;
    }
    if (vgpu_open(NULL, &vgpu) != VGPU_OK || vgpu_session_open(NULL, &session) != VGPU_OK) {
        fprintf(stderr, "guest-bench: %s\n", vgpu_last_message());
        return 1;
    }
    for (unsigned i = 0; i < PARTS; i++) {
        time_former(former, former_ns + i * ROUNDS);
        if (time_vgpu(vgpu, echo_ns + i * ROUNDS, add_ns + i * ROUNDS) != 0 ||
            time_ring(session, ring_ns + i * ROUNDS) != 0) {
            return 1;
        }
    }
    former_us = median_us(former_ns, PARTS * ROUNDS);
    printf("round trip, p50 of %u      us    former path is\n", PARTS * ROUNDS);
    printf("%-23s%8.2f\n", "former path", former_us);
    print_row("register mode, echo", median_us(echo_ns, PARTS * ROUNDS), former_us);
    print_row("register mode, add", median_us(add_ns, PARTS * ROUNDS), former_us);
    print_row("ring mode, no-op", median_us(ring_ns, PARTS * ROUNDS), former_us);
    vgpu_session_close(session);
    vgpu_close(vgpu);
    return 0;
}
