/* SPDX-License-Identifier: MIT */
/*
 * How a VM is named, in a section of the configuration and in a question of vgpuctl's: by its
 * number, by its UUID, or by its name. The number is unique among those that are attached; UUID and
 * name are what QEMU was given by `-uuid` and `-name`, and two VMs may say the same.
 */
#ifndef VGPU_MEDIATOR_IDENTITY_H
#define VGPU_MEDIATOR_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-id128.h>

#include "protocol/vgpu-attach.h"

struct identity {
    uint32_t id;                                       /* 0: not said */
    sd_id128_t uuid;                                   /* null: not said */
    char name[sizeof(((struct vgpu_hello *)0)->name)]; /* printable; "": not said */
};

/*
 * Reads how somebody names a VM: digits are its number, what has the form of a UUID, such as
 * 4dea22b3-1d52-d8f3-2516-782e98ab3fa0, is that, and what begins with a letter or _ and does not
 * end with a blank is its name. Exactly one field of *named is said then. False for what names
 * none: a number that is 0 or too large, a name that is too long or not printable, and what looks
 * like a number or a UUID that was mistyped, which is not to be somebody else's name. A VM whose
 * name is like that has its number and its UUID.
 */
bool identity_parse(const char *text, struct identity *named);

/* The same as text, of so many bytes at most with its NUL. */
#define IDENTITY_TEXT 64u
const char *identity_format(const struct identity *named, char text[IDENTITY_TEXT]);

/* Whether `who` is the VM that identity_parse() has read. */
bool identity_matches(const struct identity *named, const struct identity *who);

/*
 * Who says HELLO. Its name is NUL-terminated. A host process has a number here and nothing else:
 * its name is that of a program, and could be a VM's.
 */
void identity_of_hello(const struct vgpu_hello *hello, struct identity *who);

#endif
