/* SPDX-License-Identifier: MIT */
/*
 * Environment variables, see environment.h. A typing error is an error and no default: a program
 * with the wrong priority would be hard to find out.
 */
#include "guest/libvgpu/environment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SHM_MIB 256u

static bool is_set(const char *text)
{
    return text && text[0] != '\0';
}

/*
 * A number up to `most`, or what there is without it: decimal, or with 0x or 0 in front. strtoull()
 * takes blanks and signs too.
 */
static bool read_setting(const char *variable, uint64_t otherwise, uint64_t most, uint64_t *value)
{
    const char *text = getenv(variable);
    char *end = NULL;

    *value = otherwise;
    if (!is_set(text)) {
        return true;
    }
    errno = 0;
    *value = strtoull(text, &end, 0);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *value <= most;
}

static bool read_priority(enum vgpu_priority *priority)
{
    static const char *const names[VGPU_PRIORITIES] = {"low", "medium", "high"};
    const char *text = getenv("VGPU_PRIORITY");

    *priority = VGPU_PRIORITY_MEDIUM;
    for (unsigned i = 0; is_set(text) && i < VGPU_PRIORITIES; i++) {
        if (strcmp(text, names[i]) == 0) {
            *priority = (enum vgpu_priority)i;
            return true;
        }
    }
    return !is_set(text);
}

const char *environment_read(struct environment *environment)
{
    const char *pool = getenv("VGPU_POOL"), *socket = getenv("VGPU_HOST");
    const char *address = getenv("VGPU_ADDRESS");
    uint64_t vm_id, shm_mib, arena_mib;
    enum vgpu_priority priority;

    if (!read_setting("VGPU_VM_ID", 0, UINT32_MAX, &vm_id) ||
        !read_setting("VGPU_SHM_MIB", DEFAULT_SHM_MIB, VGPU_SHM_MAX >> 20, &shm_mib) ||
        !read_setting("VGPU_ARENA_MIB", 0, VGPU_SHM_MAX >> 20, &arena_mib)) {
        return "VGPU_VM_ID, VGPU_SHM_MIB and VGPU_ARENA_MIB are numbers";
    }
    if (!read_priority(&priority)) {
        return "VGPU_PRIORITY is low, medium or high";
    }
    if (is_set(pool) && (pool[0] < 'A' || pool[0] > 'Z' || pool[1] != '\0')) {
        return "VGPU_POOL is one letter, from A to Z";
    }
    *environment = (struct environment){
        .on_host = is_set(socket),
        .host = {.socket = socket,
                 .vm_id = (uint32_t)vm_id,
                 .pool = *(is_set(pool) ? pool : "A"),
                 .priority = priority,
                 .shm_size = shm_mib << 20},
        .address = is_set(address) ? address : NULL,
        .arena_size = arena_mib << 20,
    };
    return NULL;
}
