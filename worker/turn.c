/* SPDX-License-Identifier: MIT */
/*
 * The worker's side of a turn word: which change goes with which message. The states are told in
 * protocol/vgpu-worker.h.
 *
 *   turn_try()     OPEN to RUNNING                       none
 *   turn_ask()     CLOSED, which stays                   ASK
 *   turn_yield()   WANTED, SHARED or STOPPED to CLOSED   YIELD
 *   turn_finish()  the same                              DONE
 *                  CLOSED, by turn_yield()               DONE
 *                  RUNNING to OPEN                       KEPT if it was asked for, else none
 *
 * The mediator may change the word between any two steps, so each change is a compare-and-swap that
 * is tried again with what is there now; and a message is sent after the word is changed, since the
 * mediator looks at the word when it reads the message.
 *
 * Whether a state allows another piece of work is decided in ring-session.c and registers.c.
 */
#include "worker/turn.h"

#include "common/fdmsg.h"
#include "common/shared.h"

/*
 * Does not wait. The socket cannot fill: no turn is granted before its ASK is read, so an engine
 * has at most YIELD, DONE and the next ASK under way.
 */
static int link_send(const struct turn *turn, enum vgpu_link_type type, uint64_t from_ns)
{
    const struct vgpu_link_msg msg = {.type = type, .engine = turn->engine, .from_ns = from_ns};
    const ssize_t n = fdmsg_send(turn->link, &msg, sizeof(msg), NULL, 0);

    return n < 0 ? (int)n : 0;
}

static uint32_t *turn_word(const struct turn *turn)
{
    return &turn->page->turn[turn->engine].state;
}

bool turn_granted(const struct turn *turn)
{
    return turn_state(turn) != VGPU_TURN_CLOSED;
}

/* The swap fails if the mediator has just taken the turn back: then it is not had. */
bool turn_try(struct turn *turn)
{
    if (!shared_swap(turn_word(turn), VGPU_TURN_OPEN, VGPU_TURN_RUNNING)) {
        return false;
    }
    turn->page->counters.turns[turn->engine]++;
    return true;
}

int turn_ask(struct turn *turn)
{
    turn->asked = true;
    turn->page->counters.turns[turn->engine]++;
    return link_send(turn, VGPU_LINK_ASK, 0);
}

/*
 * Closes the word unless nobody waits; returns whether it is closed. The mediator may be changing
 * the word meanwhile, as from SHARED to STOPPED when a higher band comes: then it is tried again.
 */
static bool close_wanted(struct turn *turn)
{
    uint32_t state = shared_load(turn_word(turn));

    while (state != VGPU_TURN_RUNNING && !shared_swap(turn_word(turn), state, VGPU_TURN_CLOSED)) {
        state = shared_load(turn_word(turn));
    }
    return state != VGPU_TURN_RUNNING;
}

int turn_yield(struct turn *turn, uint64_t from_ns, bool *done)
{
    *done = close_wanted(turn);
    if (!*done) {
        return 0;
    }
    turn->yielded = true;
    return link_send(turn, VGPU_LINK_YIELD, from_ns);
}

int turn_finish(struct turn *turn)
{
    /*
     * After a YIELD the word is closed, and the mediator may have granted the turn to others. Else
     * it goes from RUNNING to OPEN or, if somebody has asked just now, is closed after all.
     */
    bool stays = false;

    while (!turn->yielded && !stays && !close_wanted(turn)) {
        stays = shared_swap(turn_word(turn), VGPU_TURN_RUNNING, VGPU_TURN_OPEN);
    }
    turn->yielded = false;
    if (stays && !turn->asked) {
        return 0;
    }
    turn->asked = false;
    return link_send(turn, stays ? VGPU_LINK_KEPT : VGPU_LINK_DONE, 0);
}

/* A CLOSED word stays so until its ASK is read: what is told with it is right for as long. */
uint32_t turn_tell(const struct turn *turn)
{
    return turn_state(turn) | (turn->asked ? VGPU_LINK_TURN_ASKED : 0) |
           (turn->yielded ? VGPU_LINK_TURN_YIELDED : 0);
}
