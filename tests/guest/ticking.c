/* SPDX-License-Identifier: MIT */
/*
 * Work under a timer's signal, as programs with a profiler or a runtime of their own have it.
 *
 *   ticking MICROSECONDS    a sum of all of the shared memory, then a session, with a signal that
 *                           often; it prints how many there were
 *
 * Exit codes: 0 all right, 1 something failed or is wrong, 2 wrong usage.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "guest/libvgpu/vgpu.h"

static volatile sig_atomic_t ticks;

static void tick(int number)
{
    (void)number;
    ticks++;
}

static void check(int result, const char *what)
{
    if (result != VGPU_OK) {
        printf("%s: %s\n", what, vgpu_last_message());
        exit(1);
    }
}

/* As many elements as there is room for three vectors of. */
static void add_all(void)
{
    struct vgpu *device;
    uint64_t size = 0, count;
    uint8_t *memory;
    uint32_t last;

    check(vgpu_open(NULL, &device), "open the device");
    memory = vgpu_shm(device, &size);
    if (!memory) {
        check(VGPU_SYSTEM, "map its memory");
    }
    count = size / 12 / 64 * 64;
    memset(memory, 1, 8 * count);
    check(vgpu_add_shm(device, VGPU_TYPE_INT32, count, 0, 4 * count, 8 * count), "add");
    memcpy(&last, memory + 12 * count - 4, sizeof(last));
    if (last != 0x02020202u) {
        printf("the last sum is %#x\n", last);
        exit(1);
    }
    vgpu_close(device);
}

static void use_session(void)
{
    struct vgpu_session *session;
    uint64_t address;

    check(vgpu_session_open(NULL, &session), "open a session");
    check(vgpu_mem_alloc(session, 4096, &address), "allocate");
    check(vgpu_mem_free(session, address), "free");
    vgpu_session_close(session);
}

int main(int argc, char **argv)
{
    const struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    const long microseconds = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
    const struct timeval each = {microseconds / 1000000, microseconds % 1000000};

    if (microseconds <= 0) {
        fprintf(stderr, "usage: ticking MICROSECONDS\n");
        return 2;
    }
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &(const struct itimerval){each, each}, NULL);
    add_all();
    use_session();
    printf("%d signals\n", (int)ticks);
    return 0;
}
