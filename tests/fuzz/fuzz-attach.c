/* SPDX-License-Identifier: MIT */
/*
 * A message on the attach socket: byte 0 is the state, byte 1 the number of descriptors,
 * the rest the message. Whatever is granted is within the limits; whatever is refused has a
 * reason.
 *
 * Tests: mediator/attach.c
 */
#include <stdlib.h>
#include <string.h>

#include "mediator/attach.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *context, const char *file, int line, const char *text)
{
    (void)context;
    (void)file;
    (void)line;
    (void)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    const struct attach_facts facts = {.user = 0};
    char reason[ATTACH_REASON_SIZE] = "";
    struct attach_progress progress = {0};
    struct attach_grant grant;
    struct vgpu_msg msg = {0};
    enum attach_action action;

    if (!config.listen && config_read(&config, NULL, ignore, NULL) != 0) {
        abort();
    }
    if (size < 2) {
        return 0;
    }
    memcpy(&msg, data + 2, size - 2 < sizeof(msg) ? size - 2 : sizeof(msg));
    progress.state = (enum attach_state)(data[0] % 4);
    progress.queues = data[0] / 4;
    progress.fds = progress.state == ATTACH_HANDOVER ? VGPU_MSG_FDS_MAX : 0;
    if (vgpu_attach_fds(progress.queues) <= progress.fds) {
        return 0; /* no such progress */
    }
    action = attach_check(&progress, &msg, data[1], reason);
    if (action == ATTACH_ACTION_REFUSE && reason[0] == '\0') {
        abort();
    }
    if (action == ATTACH_ACTION_HELLO && msg.type == VGPU_MSG_HELLO) {
        if (!attach_decide(&config, &msg.hello, &facts, &grant, reason)) {
            if (reason[0] == '\0') {
                abort();
            }
        } else if (grant.pool != 'A' || grant.priority > config.defaults.priority ||
                   msg.hello.shm_size > config.defaults.shm) {
            abort();
        }
    }
    return 0;
}
