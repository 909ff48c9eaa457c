/* SPDX-License-Identifier: MIT */
/*
 * What a client on the attach socket may do, and what a VM is granted. Pure: decides
 * on copies of messages and on facts that the caller looked up.
 */
#ifndef VGPU_MEDIATOR_ATTACH_H
#define VGPU_MEDIATOR_ATTACH_H

#include <stdbool.h>
#include <stddef.h>

#include "mediator/config.h"
#include "protocol/vgpu-attach.h"

enum attach_state {
    ATTACH_NEW,      /* connected, or unplugged: only HELLO is allowed */
    ATTACH_HANDOVER, /* has said HELLO, whose other descriptors are to come in FDS */
    ATTACH_ATTACHED, /* has a VM */
    ATTACH_REFUSED,  /* told why, about to be closed */
};

enum attach_action {
    ATTACH_ACTION_MORE,  /* keep the HELLO and its descriptors, go on to ATTACH_HANDOVER */
    ATTACH_ACTION_HELLO, /* the HELLO and its descriptors are complete */
    ATTACH_ACTION_RESET,
    ATTACH_ACTION_QUEUE,
    ATTACH_ACTION_STOP,
    ATTACH_ACTION_CONTINUE,
    ATTACH_ACTION_BYE,
    ATTACH_ACTION_REFUSE, /* `reason` says why */
};

#define ATTACH_REASON_SIZE sizeof(((struct vgpu_refused *)0)->reason)

/* How far a client has got. */
struct attach_progress {
    enum attach_state state;
    uint32_t queues; /* of the HELLO; in ATTACH_HANDOVER and ATTACH_ATTACHED */
    size_t fds;      /* descriptors kept so far; in ATTACH_HANDOVER */
};

/*
 * What a message that came with `fds` descriptors asks for. Everything but a HELLO's content is
 * checked here.
 */
enum attach_action attach_check(const struct attach_progress *progress, const struct vgpu_msg *msg,
                                size_t fds, char reason[ATTACH_REASON_SIZE]);

/*
 * Whether the configuration lets this user attach any VM at all. Others may connect, to be
 * told, but not many at a time.
 */
bool attach_knows_user(const struct config *config, uid_t user);

struct attach_facts {
    uid_t user;      /* the peer's, from the socket */
    bool id_in_use;  /* another client has attached this VM id */
    size_t vm_count; /* attached now */
};

struct attach_grant {
    uint32_t pool;
    enum vgpu_priority priority;
    bool lowered; /* less than was asked for */
};

/* Whether a checked HELLO is granted, and what. False with a reason otherwise. */
bool attach_decide(const struct config *config, const struct vgpu_hello *hello,
                   const struct attach_facts *facts, struct attach_grant *grant,
                   char reason[ATTACH_REASON_SIZE]);

#endif
