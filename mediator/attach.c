/* SPDX-License-Identifier: MIT */
/* What a client on the attach socket may do, see attach.h. */
#include "attach.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* `result` lets a caller refuse in one statement. */
#define REFUSE(result, ...) (snprintf(reason, ATTACH_REASON_SIZE, __VA_ARGS__), (result))

enum attach_action attach_check(enum attach_state state, const struct vgpu_msg *msg, size_t fds,
                                char reason[ATTACH_REASON_SIZE])
{
    const bool handover = msg->type == VGPU_MSG_HELLO &&
                          (msg->hello.flags & VGPU_HELLO_HANDOVER) != 0;
    const size_t expected = handover ? VGPU_ATTACH_FDS : 0;

    if (msg->magic != VGPU_MSG_MAGIC) {
        return REFUSE(ATTACH_ACTION_REFUSE,
                      "the message starts with 0x%08" PRIx32
                      ", not with 0x%08x: this is no vGPU stub",
                      msg->magic, VGPU_MSG_MAGIC);
    }
    if (msg->version >> 16 != VGPU_VERSION_MAJOR) {
        return REFUSE(ATTACH_ACTION_REFUSE,
                      "the stub speaks protocol version %" PRIu32
                      ", this mediator %u: install stub and mediator of one release",
                      msg->version >> 16, VGPU_VERSION_MAJOR);
    }
    if (fds != expected) {
        return REFUSE(ATTACH_ACTION_REFUSE,
                      "%zu descriptors came with message %" PRIu32 ", expected %zu", fds, msg->type,
                      expected);
    }
    switch (msg->type) {
    case VGPU_MSG_HELLO:
        if (state == ATTACH_NEW) {
            return ATTACH_ACTION_HELLO;
        }
        return REFUSE(ATTACH_ACTION_REFUSE, "a second HELLO on one connection");
    case VGPU_MSG_RESET:
        if (state == ATTACH_ATTACHED) {
            return ATTACH_ACTION_RESET;
        }
        return REFUSE(ATTACH_ACTION_REFUSE, "RESET before HELLO");
    case VGPU_MSG_BYE:
        if (state == ATTACH_ATTACHED) {
            return ATTACH_ACTION_BYE;
        }
        return REFUSE(ATTACH_ACTION_REFUSE, "BYE before HELLO");
    default:
        return REFUSE(ATTACH_ACTION_REFUSE, "unknown message type %" PRIu32, msg->type);
    }
}

static bool listed(const struct config *config, uid_t user)
{
    for (unsigned i = 0; i < config->user_count; i++) {
        if (config->users[i] == user) {
            return true;
        }
    }
    return false;
}

static bool may_attach(const struct config *config, const struct config_vm *vm, uid_t user)
{
    return vm && vm->user != (uid_t)-1 ? vm->user == user : listed(config, user);
}

bool attach_knows_user(const struct config *config, uid_t user)
{
    for (size_t i = 0; i < config->vm_count; i++) {
        if (config->vms[i].user == user) {
            return true;
        }
    }
    return listed(config, user);
}

/* The form of a HELLO, before anybody's rights. */
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
    if (hello->vectors != VGPU_ATTACH_VECTORS || hello->queues != 0) {
        return REFUSE(false, "%" PRIu32 " vectors and %" PRIu32 " queues, expected %u and 0",
                      hello->vectors, hello->queues, VGPU_ATTACH_VECTORS);
    }
    if (!vgpu_shm_size_valid(hello->shm_size)) {
        return REFUSE(false,
                      "shared memory of %" PRIu64 " bytes is not a power of two from "
                      "1 MiB to 64 GiB",
                      hello->shm_size);
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

    if (!well_formed(hello, reason)) {
        return false;
    }
    vm = config_find_vm(config, hello->vm_id);
    limits = vm ? &vm->limits : &config->defaults;
    if (!may_attach(config, vm, facts->user)) {
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
        return REFUSE(false, "%" PRIu32 " VMs are attached, which is 'max-vms'", config->max_vms);
    }
    if (hello->shm_size > limits->shm) {
        return REFUSE(false,
                      "VM %" PRIu32 " asks for %" PRIu64 " MiB of shared memory, "
                      "'max-shm' is %" PRIu64 " MiB",
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
    if (!config->pool_defined[grant->pool - 'A']) {
        return REFUSE(false, "there is no pool %c on this host", (int)grant->pool);
    }
    return true;
}
