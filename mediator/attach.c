/* SPDX-License-Identifier: MIT */
/*
 * The rules of the attach socket: which messages a client may send, and which pool and priority a
 * VM is granted. There is no I/O here; client.c reads the messages, looks up the facts and acts.
 *
 * attach_check() looks at each message as it comes: whether it is one of this protocol, whether it
 * has as many descriptors as it must have, and whether it is allowed in this state. attach_decide()
 * looks at a HELLO when all of its descriptors are there: at its form first, then at the user's
 * rights, then at the VM's limits. The first rule that is broken gives the reason, which names the
 * value and, where the administrator can change it, the key of the configuration.
 *
 * A HELLO is a wish. Of the peer nothing is believed but its user, which the kernel says.
 */
#include "mediator/attach.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* `result` lets a caller refuse in one statement. */
#define REFUSE(result, ...) (snprintf(reason, ATTACH_REASON_SIZE, __VA_ARGS__), (result))

/*
 * The descriptors that must come with a message: as many as fit, as long as some are missing. A
 * handover of 16 queues has 35, and so comes as 16 with HELLO, then 16 and 3 with FDS. All other
 * messages have none, so that nobody can fill the mediator's table of descriptors.
 */
static size_t expected_fds(const struct attach_progress *progress, const struct vgpu_msg *msg)
{
    size_t left = 0;

    if (msg->type == VGPU_MSG_HELLO && (msg->hello.flags & VGPU_HELLO_HANDOVER) != 0) {
        left = vgpu_attach_fds(msg->hello.queues);
    } else if (msg->type == VGPU_MSG_FDS && progress->state == ATTACH_HANDOVER) {
        left = vgpu_attach_fds(progress->queues) - progress->fds;
    }
    return left < VGPU_MSG_FDS_MAX ? left : VGPU_MSG_FDS_MAX;
}

/* What a message of the right form, with the right descriptors, asks for. */
static enum attach_action check_type(const struct attach_progress *progress,
                                     const struct vgpu_msg *msg, size_t fds,
                                     char reason[ATTACH_REASON_SIZE])
{
    /*
     * Allowed in ATTACH_ATTACHED alone. The types that the mediator sends are not in this table,
     * and so they are unknown here.
     */
    static const struct {
        const char *name;
        enum attach_action action;
    } attached[] = {
        [VGPU_MSG_RESET] = {"RESET", ATTACH_ACTION_RESET},
        [VGPU_MSG_BYE] = {"BYE", ATTACH_ACTION_BYE},
        [VGPU_MSG_QUEUE] = {"QUEUE", ATTACH_ACTION_QUEUE},
        [VGPU_MSG_STOP] = {"STOP", ATTACH_ACTION_STOP},
        [VGPU_MSG_CONTINUE] = {"CONTINUE", ATTACH_ACTION_CONTINUE},
    };

    if (msg->type == VGPU_MSG_HELLO) {
        if (progress->state != ATTACH_NEW) {
            return REFUSE(ATTACH_ACTION_REFUSE, "a second HELLO on one connection");
        }
        return fds != 0 && fds < vgpu_attach_fds(msg->hello.queues) ? ATTACH_ACTION_MORE
                                                                    : ATTACH_ACTION_HELLO;
    }
    if (msg->type == VGPU_MSG_FDS) {
        if (progress->state != ATTACH_HANDOVER) {
            return REFUSE(ATTACH_ACTION_REFUSE, "FDS without a HELLO that needs them");
        }
        return progress->fds + fds < vgpu_attach_fds(progress->queues) ? ATTACH_ACTION_MORE
                                                                       : ATTACH_ACTION_HELLO;
    }
    if (msg->type >= sizeof(attached) / sizeof(attached[0]) || !attached[msg->type].name) {
        return REFUSE(ATTACH_ACTION_REFUSE, "unknown message type %" PRIu32, msg->type);
    }
    if (progress->state != ATTACH_ATTACHED) {
        return REFUSE(ATTACH_ACTION_REFUSE, "%s before HELLO", attached[msg->type].name);
    }
    if (msg->type == VGPU_MSG_QUEUE && msg->queue.queue >= progress->queues) {
        return REFUSE(ATTACH_ACTION_REFUSE, "queue %" PRIu32 " of a device with %" PRIu32,
                      msg->queue.queue, progress->queues);
    }
    return attached[msg->type].action;
}

enum attach_action attach_check(const struct attach_progress *progress, const struct vgpu_msg *msg,
                                size_t fds, char reason[ATTACH_REASON_SIZE])
{
    size_t expected;

    /* If this is wrong, no other field means anything. */
    if (msg->magic != VGPU_MSG_MAGIC) {
        return REFUSE(ATTACH_ACTION_REFUSE,
                      "the message starts with 0x%08" PRIx32
                      ", not with 0x%08x: this is no vGPU stub",
                      msg->magic, VGPU_MSG_MAGIC);
    }
    /* Another minor version is welcome. */
    if (msg->version >> 16 != VGPU_VERSION_MAJOR) {
        return REFUSE(ATTACH_ACTION_REFUSE,
                      "the stub speaks protocol version %" PRIu32
                      ", this mediator %u: install stub and mediator of one release",
                      msg->version >> 16, VGPU_VERSION_MAJOR);
    }
    /* The number of descriptors follows from this, and the caller has room for so many. */
    if (msg->type == VGPU_MSG_HELLO && msg->hello.queues > VGPU_MAX_QUEUES) {
        return REFUSE(ATTACH_ACTION_REFUSE, "%" PRIu32 " queues; there can be %u",
                      msg->hello.queues, VGPU_MAX_QUEUES);
    }
    expected = expected_fds(progress, msg);
    if (fds != expected) {
        return REFUSE(ATTACH_ACTION_REFUSE,
                      "%zu descriptors came with message %" PRIu32 ", expected %zu", fds, msg->type,
                      expected);
    }
    return check_type(progress, msg, fds, reason);
}

static bool user_listed(const struct config *config, uid_t user)
{
    for (unsigned i = 0; i < config->user_count; i++) {
        if (config->users[i] == user) {
            return true;
        }
    }
    return false;
}

/*
 * A VM's own `user` counts instead of `users` and not beside it: even root may not attach such a VM
 * unless it is that user. That holds for each section that names it, and not only for the one whose
 * limits it gets: otherwise a VM with another number could have the name that is somebody's.
 */
static bool may_attach(const struct config *config, const struct identity *who, uid_t user)
{
    bool own = false;

    for (size_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];

        if (vm->user != (uid_t)-1 && identity_matches(&vm->named, who)) {
            if (vm->user != user) {
                return false;
            }
            own = true;
        }
    }
    return own || user_listed(config, user);
}

bool attach_knows_user(const struct config *config, uid_t user)
{
    for (size_t i = 0; i < config->vm_count; i++) {
        if (config->vms[i].user == user) {
            return true;
        }
    }
    return user_listed(config, user);
}

/*
 * The form of a HELLO, before anybody's rights. Later code uses these fields as an index, a size or
 * a string without looking again.
 */
static bool well_formed(const struct vgpu_hello *hello, char reason[ATTACH_REASON_SIZE])
{
    if (hello->flags & ~(VGPU_HELLO_HANDOVER | VGPU_HELLO_HOST)) {
        return REFUSE(false, "unknown HELLO flags 0x%" PRIx32, hello->flags);
    }
    if (hello->vm_id == 0) {
        return REFUSE(false, "VM id 0 is not allowed");
    }
    if (hello->pool < 'A' || hello->pool > 'Z') {
        return REFUSE(false, "pool %" PRIu32 " is not a letter from A to Z", hello->pool);
    }
    if (hello->priority >= VGPU_PRIORITIES) {
        return REFUSE(false, "priority %" PRIu32 " is not 0, 1 or 2", hello->priority);
    }
    if (!vgpu_shm_size_valid(hello->shm_size)) {
        return REFUSE(false,
                      "shared memory of %" PRIu64 " bytes is not a power of two from "
                      "1 MiB to 64 GiB",
                      hello->shm_size);
    }
    if (hello->queues > vgpu_queues_max(hello->shm_size)) {
        return REFUSE(false,
                      "%" PRIu32 " queues do not fit shared memory of %" PRIu64
                      " MiB, which has room for %" PRIu32,
                      hello->queues, hello->shm_size >> 20, vgpu_queues_max(hello->shm_size));
    }
    if (hello->vectors != vgpu_attach_vectors(hello->queues)) {
        return REFUSE(false, "%" PRIu32 " vectors for %" PRIu32 " queues, expected %" PRIu32,
                      hello->vectors, hello->queues, vgpu_attach_vectors(hello->queues));
    }
    if (!memchr(hello->name, '\0', sizeof(hello->name))) {
        return REFUSE(false, "the name is not NUL-terminated");
    }
    return true;
}

bool attach_decide(const struct config *config, const struct vgpu_hello *hello,
                   const struct attach_facts *facts, struct attach_grant *grant,
                   char reason[ATTACH_REASON_SIZE])
{
    const struct config_vm *vm;
    const struct config_limits *limits;
    struct identity who;

    if (!well_formed(hello, reason)) {
        return false;
    }
    identity_of_hello(hello, &who);
    vm = config_find_vm(config, &who);
    limits = config_limits_of(config, &who);
    /* This rule comes first: other users are not to learn which VMs there are. */
    if (!may_attach(config, &who, facts->user)) {
        return REFUSE(false,
                      "user %ld may not attach VM %" PRIu32
                      ": see 'users' and 'user' in the mediator's configuration",
                      (long)facts->user, hello->vm_id);
    }
    if (!vm && !config->unknown_vms) {
        return REFUSE(false, "VM %" PRIu32 " is not in the mediator's configuration", hello->vm_id);
    }
    if (facts->id_in_use) {
        return REFUSE(false, "VM %" PRIu32 " is attached already", hello->vm_id);
    }
    if (facts->vm_count >= config->max_vms) {
        return REFUSE(false,
                      "%" PRIu32 " VMs and host processes are attached, which is 'max-vms' in the "
                      "mediator's configuration",
                      config->max_vms);
    }
    if (hello->shm_size > limits->shm) {
        return REFUSE(false,
                      "VM %" PRIu32 " asks for %" PRIu64 " MiB of shared memory, "
                      "'max-shm' is %" PRIu64 " MiB: raise that in the configuration, or ask for "
                      "less (shm= of the device, VGPU_SHM_MIB)",
                      hello->vm_id, hello->shm_size >> 20, limits->shm >> 20);
    }
    *grant = (struct attach_grant){.pool = hello->pool,
                                   .priority = (enum vgpu_priority)hello->priority};
    if (limits->pool != 0 && limits->pool != hello->pool) {
        grant->pool = limits->pool;
        grant->lowered = true;
    }
    if (hello->priority > limits->priority) {
        grant->priority = limits->priority;
        grant->lowered = true;
    }
    if (grant->lowered && config->refuse_above) {
        return REFUSE(false,
                      "VM %" PRIu32 " asks for pool %c at priority %s, allowed are "
                      "pool %c and at most %s",
                      hello->vm_id, (int)hello->pool, config_priority_name(hello->priority),
                      (int)grant->pool, config_priority_name(limits->priority));
    }
    /*
     * This rule comes last, because it is about the pool that is granted. A VM that belongs in pool
     * B may ask for any other, also for one that does not exist.
     */
    if (!config->pools[grant->pool - 'A'].defined) {
        return REFUSE(false, "there is no pool %c on this host", (int)grant->pool);
    }
    return true;
}
