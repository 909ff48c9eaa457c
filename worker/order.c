/* SPDX-License-Identifier: MIT */
/*
 * The order of commands behind some that wait, see order.h. Pure: what there is to know about a
 * command was found out when it left the ring.
 */
#include "worker/order.h"

/* How many of the commands that wait have to be carried out before all with these flags are. */
static uint64_t count_before(const struct command_facts *head, const struct backlog *backlog,
                             uint32_t flags, const struct command_key *key)
{
    const uint32_t place = backlog_find(backlog, flags, key);

    if (place > 0) {
        return place + 1;
    }
    return (head->flags & flags) != 0 && command_key_matches(key, &head->key);
}

enum order_place order_place(const struct command_facts *head, const struct backlog *backlog,
                             const struct command_facts *facts, bool alone, uint64_t *before)
{
    const uint32_t flags = facts->flags;

    *before = 0;
    /* What nobody knows is answered with an error, and touches nothing. */
    if (!facts->rule) {
        return ORDER_NOW;
    }
    if (flags & COMMAND_SLOW) {
        /* Where others want the GPU a turn may come meanwhile, which nobody would use. */
        return (flags & COMMAND_FREE) && alone ? ORDER_NOW : ORDER_LAST;
    }
    if (flags & COMMAND_FREE) {
        return ORDER_NOW;
    }
    if (!(flags & (COMMAND_WAITS | COMMAND_ASKS))) {
        return ORDER_LAST;
    }
    if (flags & COMMAND_BY_EVENT) {
        *before = count_before(head, backlog, COMMAND_CHANGES_EVENT, &facts->key);
    } else if (facts->key.stream == 0) {
        /* The default stream waits for all others. */
        *before = backlog->count + UINT64_C(1);
    } else {
        *before = count_before(head, backlog, COMMAND_CHANGES_STREAM, &facts->key);
    }
    if (*before == 0) {
        return ORDER_NOW;
    }
    return flags & COMMAND_ASKS ? ORDER_NOT_READY : ORDER_AFTER;
}
