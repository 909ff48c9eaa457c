/* SPDX-License-Identifier: MIT */
/*
 * The mediator's configuration: an INI file, vgpu-mediator.conf(5).
 *
 * Every key has a default, so that no file at all is a valid configuration: pool A on
 * GPU 0, any VM of root's or the mediator's own user, up to the highest priority.
 */
#ifndef VGPU_CONFIG_H
#define VGPU_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "vgpu-regs.h"

#define CONFIG_POOLS 26 /* one for each letter */
#define CONFIG_USERS 16

enum config_backend { CONFIG_BACKEND_AUTO, CONFIG_BACKEND_CPU, CONFIG_BACKEND_CUDA };

/* What a VM may ask for at most. */
struct config_limits {
    uint32_t pool; /* the only pool it may use, a letter; 0: any */
    enum vgpu_priority priority;
    uint64_t shm; /* bytes */
};

struct config_vm {
    uint32_t id;
    struct config_limits limits;
    uid_t user; /* who may attach it; (uid_t)-1: whoever may attach at all */
};

struct config {
    char *listen;  /* path, or '@' and an abstract name */
    char *control; /* likewise */
    char *worker;  /* path of vgpu-worker */
    enum config_backend backend;
    bool unknown_vms;  /* VMs without a section may attach */
    bool refuse_above; /* a request above the limits is refused, not lowered */
    uint32_t max_vms;
    uint64_t turn_limit_ns; /* a turn that somebody waits for, at most; 0: no limit */
    uid_t worker_user;      /* when the mediator is root; (uid_t)-1: stay root */
    gid_t worker_group;
    uid_t users[CONFIG_USERS]; /* who may attach */
    unsigned user_count;

    struct config_limits defaults; /* of VMs without a section, and of keys left out */
    bool pool_defined[CONFIG_POOLS];
    int pool_device[CONFIG_POOLS];
    struct config_vm *vms; /* ascending ids */
    size_t vm_count;
};

/* Called for each mistake; `line` is 0 where it belongs to none. */
typedef void config_report(void *context, int line, const char *text);

/*
 * Reads a configuration into *config, which config_free() releases, also after an error.
 * Returns the number of mistakes, each reported. `file` NULL gives the defaults.
 */
int config_read(struct config *config, FILE *file, config_report *report, void *context);

void config_free(struct config *config);

/* The VM's section, or NULL. */
const struct config_vm *config_find_vm(const struct config *config, uint32_t id);

/* "low", "medium", "high". */
const char *config_priority_name(uint32_t priority);

#endif
