/* SPDX-License-Identifier: MIT */
/*
 * A client written from docs/registers.md alone: it shares no header with the project, so
 * that a change of the registers that a stranger's driver would notice fails a test.
 *
 *   bare A B    prints the sum of two integers
 *
 * Exit codes: 0 done, 1 no device or no access, 2 wrong usage, 3 the device says no.
 */
#include <fcntl.h>
#include <glob.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned long number_in(const char *directory, const char *name)
{
    char path[512], text[32] = "";
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    file = fopen(path, "r");
    if (!file) {
        return 0;
    }
    if (!fgets(text, sizeof(text), file)) {
        text[0] = '\0';
    }
    fclose(file);
    return strtoul(text, NULL, 0);
}

static volatile uint32_t *map_device(void)
{
    glob_t found;
    char path[512];

    glob("/sys/bus/pci/devices/*", 0, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *directory = found.gl_pathv[i];
        int fd;
        void *regs;

        if (number_in(directory, "vendor") != 0x1234 || number_in(directory, "device") != 3) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/enable", directory);
        fd = open(path, O_WRONLY);
        if (fd < 0 || write(fd, "1", 1) != 1) {
            return NULL;
        }
        close(fd);
        snprintf(path, sizeof(path), "%s/resource0", directory);
        fd = open(path, O_RDWR);
        regs = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return regs == MAP_FAILED ? NULL : regs;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    volatile uint32_t *regs;

    if (argc != 3) {
        return 2;
    }
    regs = map_device();
    if (!regs || memcmp((const void *)regs, "VGPU", 4) != 0) {
        return 1;
    }
    regs[0x100 / 4] = 3; /* opcode: add inline */
    regs[0x104 / 4] = 1; /* type: int32 */
    regs[0x108 / 4] = 1; /* count, low word */
    regs[0x10C / 4] = 0; /* count, high word */
    regs[0x110 / 4] = (uint32_t)strtol(argv[1], NULL, 10);
    regs[0x114 / 4] = (uint32_t)strtol(argv[2], NULL, 10);
    regs[0x18 / 4] = 24;          /* REQUEST_LEN */
    regs[0x20 / 4] = 1;           /* DOORBELL */
    while (regs[0x24 / 4] == 1) { /* STATUS: busy */
    }
    if (regs[0x24 / 4] != 2 || regs[0x1C / 4] != 4) { /* complete, RESPONSE_LEN */
        return 3;
    }
    printf("%d\n", (int)(int32_t)regs[0x200 / 4]);
    return 0;
}
