/* SPDX-License-Identifier: MIT */
/* What the files of the vgpu command share. */
#ifndef VGPU_GUEST_CLI_CLI_H
#define VGPU_GUEST_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/libvgpu/vgpu.h"

/* Exit codes, vgpu(1). */
enum exit_code {
    EXIT_OK = 0,
    EXIT_WRONG = 1, /* a result is not what it should be */
    EXIT_USAGE = 2,
    EXIT_NO_DEVICE = 3,
    EXIT_NO_PERMISSION = 4,
    EXIT_OFFLINE = 5,
    EXIT_REFUSED = 6, /* the host answered with an error */
    EXIT_TIMED_OUT = 7,
    EXIT_BUSY = 8,
    EXIT_SYSTEM = 9, /* a file or system call failed */
};

/* Prints vgpu_last_message() for a result that is not VGPU_OK; its exit code. */
int cli_fail(int result);

/* Prints "vgpu: " and a line; returns `code`. */
int cli_error(enum exit_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `vgpu add`; arguments behind the word itself. */
int cli_add(struct vgpu *vgpu, int argc, char **argv);

/* `vgpu info`: of the device at a PCI address, or of a host process. */
int cli_info(const char *address, const struct vgpu_host_options *host, int argc, char **argv);

/* By enum vgpu_priority. */
extern const char *const cli_priorities[VGPU_PRIORITIES];

/* `vgpu bench`. */
int cli_bench(struct vgpu *vgpu, int argc, char **argv);

/*
 * Adds `count` elements that `fill` provides, in as many pieces as the shared memory asks
 * for. For each piece `fill` writes both operands, `take` sees the result; both return
 * an exit code, and anything but EXIT_OK ends the work.
 */
struct cli_piece {
    uint64_t first; /* index of the piece's first element in the whole vector */
    uint64_t count;
    uint32_t *a, *b, *sum; /* in the shared memory */
};
struct cli_stream {
    enum vgpu_type type;
    uint64_t count;
    int (*fill)(void *context, const struct cli_piece *piece);
    int (*take)(void *context, const struct cli_piece *piece);
    void *context;
};
int cli_add_stream(struct vgpu *vgpu, const struct cli_stream *stream);

#endif
