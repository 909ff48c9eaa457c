/* SPDX-License-Identifier: MIT */
/*
 * A hostile guest.
 *
 *   abuse flood N         rings the doorbell N times without waiting
 *   abuse garbage SEED N  writes N random words to random registers at all widths
 *   abuse shm SEED        fills all of BAR2 with random words
 *   abuse busy SECONDS    asks for the longest sums there are, again and again
 *   abuse queues SEED N   N times opens, closes, rings or feeds some command queue, mostly wrong
 *
 * Exit codes: 0 done, 1 no device, 2 wrong usage.
 */
#include <fcntl.h>
#include <glob.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t random_state;

/* xorshift64*: the same everywhere for a seed. */
static uint64_t next_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

static void *map_bar(const char *name, size_t *size)
{
    char path[128] = "";
    glob_t found;
    struct stat st;
    int fd;

    glob("/sys/bus/pci/devices/*/vendor", 0, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char text[16] = "";
        FILE *file = fopen(found.gl_pathv[i], "r");

        if (file && fgets(text, sizeof(text), file) && strtoul(text, NULL, 0) == 0x1234) {
            snprintf(path, sizeof(path), "%.*s%s",
                     (int)(strlen(found.gl_pathv[i]) - strlen("vendor")), found.gl_pathv[i], name);
        }
        if (file) {
            fclose(file);
        }
    }
    fd = open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &st) < 0) {
        fprintf(stderr, "abuse: no %s; was the device enabled?\n", name);
        exit(1);
    }
    *size = (size_t)st.st_size;
    return mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static void garbage(volatile uint8_t *regs, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        const uint64_t value = next_random();
        const uint32_t offset = (uint32_t)(value >> 40) % 4089;

        switch (value & 3) {
        case 0:
            regs[offset] = (uint8_t)value;
            break;
        case 1:
            *(volatile uint16_t *)(uintptr_t)(regs + (offset & ~1u)) = (uint16_t)value;
            break;
        case 2:
            *(volatile uint32_t *)(uintptr_t)(regs + (offset & ~3u)) = (uint32_t)value;
            break;
        default:
            *(volatile uint64_t *)(uintptr_t)(regs + (offset & ~7u)) = value;
        }
        /* The interesting ones more often. */
        if (value % 16 == 0) {
            *(volatile uint32_t *)(uintptr_t)(regs + 0x100) = (uint32_t)(value >> 32) % 6;
            *(volatile uint32_t *)(uintptr_t)(regs + 0x18) = (uint32_t)(value >> 20) % 300;
            *(volatile uint32_t *)(uintptr_t)(regs + 0x20) = 1;
        }
    }
}

static void busy(volatile uint32_t *regs, size_t shm_size, int seconds)
{
    const time_t end = time(NULL) + seconds;
    const uint64_t count = shm_size / 12;

    while (time(NULL) < end) {
        regs[0x100 / 4] = 4;
        regs[0x104 / 4] = 1;
        regs[0x108 / 4] = (uint32_t)count;
        regs[0x10C / 4] = (uint32_t)(count >> 32);
        regs[0x110 / 4] = regs[0x114 / 4] = 0;
        regs[0x118 / 4] = (uint32_t)(4 * count);
        regs[0x11C / 4] = 0;
        regs[0x120 / 4] = (uint32_t)(8 * count);
        regs[0x124 / 4] = 0;
        regs[0x18 / 4] = 40;
        regs[0x20 / 4] = 1;
        while (regs[0x24 / 4] == 1 && time(NULL) < end) {
        }
    }
}

/* A claim on some part of the memory, at times one that can be. */
static void claim(uint64_t *shm, size_t shm_size, uint32_t queue)
{
    const uint64_t value = next_random();
    volatile uint64_t *words = shm + 4 * queue;

    words[0] = value % 4 == 0 ? value : UINT64_C(0x200000000000) + (value >> 40 << 12);
    words[1] = value % 5 == 0 ? value >> 7
                              : (shm_size / 2 + value % (shm_size / 2)) & ~UINT64_C(4095);
    words[2] = value % 7 == 0 ? value >> 9 : 4096;
    words[3] = value % 9 == 0;
}

/* Some bytes posted to a ring, headers that can be among them. */
static void feed(uint8_t *shm, uint32_t queue)
{
    uint8_t *header = shm + 4096 + (size_t)queue * 0x24000, *ring = header + 0x4000;
    volatile uint32_t *tail = (volatile uint32_t *)(void *)header;
    const uint32_t posted = *tail;

    for (uint32_t i = 0; i < 64; i++) {
        const uint64_t value = next_random();
        volatile uint64_t *words = (volatile uint64_t *)(void *)(ring +
                                                                 (posted + 16 * i) % 0x20000);

        words[0] = value % 8 == 0 ? value
                                  : (value % 26 | (value >> 8) % 65 << 16 | UINT64_C(16) << 32);
        words[1] = value >> 60 == 0 ? value : value >> 32 & 0xffff;
    }
    *tail = posted + (next_random() % 16 == 0 ? 8 : 16 * (uint32_t)(next_random() % 64));
}

static void queues(volatile uint32_t *regs, uint8_t *shm, size_t shm_size, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        const uint64_t value = next_random();
        const uint32_t queue = (uint32_t)(value >> 32) % 16;

        switch (value % 8) {
        case 0:
        case 1:
            claim((uint64_t *)(void *)shm, shm_size, queue);
            memset(shm + 4096 + (size_t)queue * 0x24000, 0, 128);
            regs[(0x600 + 4 * queue) / 4] = 1;
            break;
        case 2:
            regs[(0x600 + 4 * queue) / 4] = value >> 60 == 0 ? (uint32_t)(value >> 40) : 2;
            break;
        case 3:
            regs[(0x400 + 4 * queue) / 4] = 1;
            break;
        default:
            feed(shm, queue);
            regs[(0x400 + 4 * queue) / 4] = 1;
        }
    }
}

int main(int argc, char **argv)
{
    size_t size, shm_size;
    uint8_t *regs;

    if (argc < 3) {
        return 2;
    }
    regs = map_bar("resource0", &size);
    random_state = strtoull(argv[2], NULL, 0) | 1;
    if (strcmp(argv[1], "flood") == 0) {
        for (unsigned long i = strtoul(argv[2], NULL, 0); i > 0; i--) {
            *(volatile uint32_t *)(uintptr_t)(regs + 0x20) = 1;
        }
    } else if (strcmp(argv[1], "garbage") == 0 && argc == 4) {
        garbage(regs, strtoul(argv[3], NULL, 0));
    } else if (strcmp(argv[1], "shm") == 0) {
        uint64_t *shm = map_bar("resource2", &shm_size);

        for (size_t i = 0; i < shm_size / 8; i++) {
            shm[i] = next_random();
        }
    } else if (strcmp(argv[1], "queues") == 0 && argc == 4) {
        uint8_t *shm = map_bar("resource2", &shm_size);

        queues((volatile uint32_t *)(void *)regs, shm, shm_size, strtoul(argv[3], NULL, 0));
    } else if (strcmp(argv[1], "busy") == 0) {
        map_bar("resource2", &shm_size);
        busy((volatile uint32_t *)(void *)regs, shm_size, atoi(argv[2]));
    } else {
        return 2;
    }
    return 0;
}
