/* SPDX-License-Identifier: MIT */
/* `vgpuctl top`: who uses the GPUs now, again and again. */
#ifndef VGPU_MEDIATOR_CTL_TOP_H
#define VGPU_MEDIATOR_CTL_TOP_H

#include <stdbool.h>

struct top_options {
    const char *path;    /* of the control socket */
    double interval;     /* seconds between refreshes */
    unsigned long count; /* refreshes; 0: until the user ends it */
    bool batch;          /* tables on stdout, instead of a screen */
    bool json;           /* an object a line on stdout, likewise */
};

/* Returns the exit code; errors are printed. */
int top(const struct top_options *options);

#endif
