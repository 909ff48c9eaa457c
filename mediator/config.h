/* SPDX-License-Identifier: MIT */
/*
 * The mediator's configuration: an INI file, vgpu-mediator.conf(5).
 *
 * Every key has a default, so that no file at all is a valid configuration: pool A on
 * GPU 0, any VM of root's or the mediator's own user, up to the highest priority.
 */
#ifndef VGPU_MEDIATOR_CONFIG_H
#define VGPU_MEDIATOR_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "mediator/identity.h"
#include "protocol/vgpu-regs.h"

#define CONFIG_POOLS 26 /* one for each letter */
#define CONFIG_USERS 16
#define CONFIG_DEVICES 16  /* of a pool */
#define CONFIG_GPU_NAME 64 /* bytes, as CUDA and NVML have room for, with a NUL */

enum config_backend { CONFIG_BACKEND_AUTO, CONFIG_BACKEND_CPU, CONFIG_BACKEND_CUDA };

/* Who sees what the GPUs' sensors say: temperature, power, clocks, how busy a whole GPU is. */
enum config_sensors { CONFIG_SENSORS_OFF, CONFIG_SENSORS_HOST, CONFIG_SENSORS_GUESTS };

/* What a VM may ask for at most, and what it gets. */
struct config_limits {
    uint32_t pool; /* the only pool it may use, a letter; 0: any */
    enum vgpu_priority priority;
    uint64_t shm;        /* bytes */
    uint32_t share;      /* against others of its band; ARBITER_WEIGHT is customary */
    uint64_t memory;     /* bytes of device memory; 0: no limit. And so for all that follow: */
    uint32_t sessions;   /* at a time */
    uint32_t commands;   /* pieces of work submitted and not done, of all sessions */
    uint32_t doorbells;  /* heard in a second, of all sessions */
    uint32_t interrupts; /* sent in a second, likewise */
    uint64_t kernel_ns;  /* the longest piece of work */
};

/* A set of GPUs; a GPU is in one pool at most. */
struct config_pool {
    bool defined;
    bool exclusive; /* a GPU serves one VM at a time */
    int devices[CONFIG_DEVICES];
    unsigned device_count;          /* at least 1 where defined */
    uint64_t slice_ns;              /* of a turn that others of the band wait for */
    uint64_t window_ns;             /* work on an engine at a time, beside one piece more */
    uint32_t least_share;           /* of each band but the highest, in ARBITER_LEAST_ONEths */
    char gpu_name[CONFIG_GPU_NAME]; /* that guests see; "": what the card is called */
};

struct config_vm {
    struct identity named; /* how its section does */
    struct config_limits limits;
    uid_t user; /* who may attach it; (uid_t)-1: whoever may attach at all */
};

#define CONFIG_REST_DEFAULT UINT64_MAX /* of register_rest_ns: as there is a GPU or not */

struct config {
    char *listen;  /* path, or '@' and an abstract name */
    char *control; /* likewise */
    char *worker;  /* path of vgpu-worker */
    char
        *metrics; /* where Prometheus asks: loopback address and port, path of a socket, or "off" */
    enum config_backend backend;
    enum config_sensors sensors;
    bool unknown_vms;  /* VMs without a section may attach */
    bool refuse_above; /* a request above the limits is refused, not lowered */
    uint32_t max_vms;
    bool preempt;              /* kernels are taken off the GPU, where the driver lets them */
    uint64_t register_rest_ns; /* of a device in register mode; 0: none */
    uint64_t turn_limit_ns;    /* a turn that somebody waits for, at most; 0: no limit */
    uid_t worker_user;         /* when the mediator is root; (uid_t)-1: stay root */
    gid_t worker_group;
    uid_t users[CONFIG_USERS]; /* who may attach */
    unsigned user_count;

    struct config_limits defaults;          /* of VMs without a section, and of keys left out */
    struct config_pool pools[CONFIG_POOLS]; /* by letter */
    struct config_vm *vms;                  /* no two are named alike */
    size_t vm_count;
};

/* Called for each mistake; `file` is NULL and `line` 0 where it belongs to none. */
typedef void config_report(void *context, const char *file, int line, const char *text);

/*
 * Reads a configuration into *config, which config_free() releases, also after an error: the file
 * `name`, then those of the folder conf.d beside it that end in .conf, in the order of their names.
 * What a later one says counts. Returns the number of mistakes, each reported. A missing file is
 * one unless `optional`; a missing folder is none.
 */
int config_load(struct config *config, const char *name, bool optional, config_report *report,
                void *context);

/* The same from one stream. NULL gives the defaults. */
int config_read(struct config *config, FILE *file, config_report *report, void *context);

/*
 * Sets a key of a [vm N] section in *limits, but for pool, max-shm and user. NULL, or what the
 * matter is, for people: an unknown key with those that there are, or what the value must be.
 */
const char *config_set_limit(struct config_limits *limits, const char *key, const char *value);

/* The key's value as it stands in a configuration; false when there is no such key. */
bool config_get_limit(const struct config_limits *limits, const char *key, char *text, size_t size);

/* The names of those keys, NULL at their end. */
extern const char *const config_limit_keys[];

/* What a VM is allowed: its section's, or the defaults. */
const struct config_limits *config_limits_of(const struct config *config,
                                             const struct identity *who);

void config_free(struct config *config);

/*
 * The VM's section, or NULL. Where several name it, the one by its number counts, then by its UUID,
 * then by its name.
 */
const struct config_vm *config_find_vm(const struct config *config, const struct identity *who);

/* "low", "medium", "high". */
const char *config_priority_name(uint32_t priority);

#endif
