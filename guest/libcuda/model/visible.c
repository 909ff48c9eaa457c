/* SPDX-License-Identifier: MIT */
/*
 * CUDA_VISIBLE_DEVICES as NVIDIA's driver 580 reads it, see visible.h. Found out by trying:
 *
 *   - The list is divided by commas and ends with the first entry that names no device: "5,0" is
 *     empty on a host with one GPU, "0,5" is device 0.
 *   - An entry is a number, decimal or with 0x or 0 in front, or "GPU-" and the beginning of a
 *     UUID in either case. What stands behind the number or the whole UUID does not matter: "0abc"
 *     is 0.
 *   - The first entry says which of the two the others are: "0,GPU-..." ends behind the 0.
 *   - A device that is named twice makes cuInit() fail with INVALID_DEVICE.
 */
#include "guest/libcuda/model/visible.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PREFIX "GPU-"
#define PREFIX_LENGTH (sizeof(PREFIX) - 1)
#define UUID_LENGTH (PREFIX_LENGTH + 36) /* without the NUL */

static bool is_uuid(const char *entry)
{
    return strncasecmp(entry, PREFIX, PREFIX_LENGTH) == 0;
}

/* A number that may be a device's; -1: there is none. */
static long number_of(const char *entry)
{
    char *end;
    const long number = strtol(entry, &end, 0);

    return end == entry || number < 0 ? -1 : number;
}

/* The length of an entry, up to its comma. */
static size_t entry_length(const char *entry)
{
    return strcspn(entry, ",");
}

static void uuid_text(const CUuuid *uuid, char text[UUID_LENGTH + 1])
{
    const unsigned char *b = (const unsigned char *)uuid->bytes;

    snprintf(text, UUID_LENGTH + 1,
             PREFIX "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

static int find_uuid(const char *entry, const CUuuid *uuids, int count)
{
    char text[UUID_LENGTH + 1];
    size_t length = entry_length(entry);

    length = length < UUID_LENGTH ? length : UUID_LENGTH;
    for (int i = 0; length > PREFIX_LENGTH && i < count; i++) {
        uuid_text(&uuids[i], text);
        if (strncasecmp(entry, text, length) == 0) {
            return i;
        }
    }
    return -1;
}

bool visible_any(const char *list)
{
    return !list || is_uuid(list) || number_of(list) >= 0;
}

int visible_choose(const char *list, const CUuuid *uuids, int count, int *chosen)
{
    const bool by_uuid = is_uuid(list);
    int found = 0;

    for (const char *entry = list;; entry++) {
        long device = -1;

        if (is_uuid(entry) == by_uuid) {
            device = by_uuid ? find_uuid(entry, uuids, count) : number_of(entry);
        }
        if (device < 0 || device >= count) {
            return found;
        }
        for (int i = 0; i < found; i++) {
            if (chosen[i] == device) {
                return -1;
            }
        }
        chosen[found++] = (int)device;
        entry += entry_length(entry);
        if (*entry == '\0') {
            return found;
        }
    }
}
