/* SPDX-License-Identifier: MIT */
/* The worker's side of the turn page, see protocol/vgpu-worker.h. */
#include "turn.h"

#include "fdmsg.h"
#include "shared.h"

static int link_send(int link, enum vgpu_link_type type, uint32_t value)
{
    const struct vgpu_link_msg msg = {.type = type, .value = value};
    const ssize_t n = fdmsg_send(link, &msg, sizeof(msg), NULL, 0);

    return n < 0 ? (int)n : 0;
}

bool turn_try(struct turn *turn)
{
    return shared_swap(&turn->page->turn, VGPU_TURN_OPEN, VGPU_TURN_RUNNING);
}

int turn_ask(struct turn *turn)
{
    turn->asked = true;
    return link_send(turn->link, VGPU_LINK_ASK, 0);
}

int turn_finish(struct turn *turn)
{
    const bool stays = shared_swap(&turn->page->turn, VGPU_TURN_RUNNING, VGPU_TURN_OPEN);

    if (!stays) {
        shared_store_release(&turn->page->turn, VGPU_TURN_CLOSED);
    }
    if (stays && !turn->asked) {
        return 0;
    }
    turn->asked = false;
    return link_send(turn->link, VGPU_LINK_DONE, stays ? 0 : 1);
}
