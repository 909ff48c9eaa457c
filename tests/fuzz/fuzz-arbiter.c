/* SPDX-License-Identifier: MIT */
/*
 * Workers that lie: each three bytes are a worker, something stored in its turn word, and a
 * message of it, or what its owner or the operator does, with time going on. Now and then the
 * mediator ends, and another one adopts them, which they tell what they like. Whatever they do, the
 * lists are right, at most one is current, nobody who could be granted is forgotten, no deadline
 * stays in the past, and a worker that is caught is ended, as the mediator does it.
 *
 * Tests: mediator/arbiter*.c
 */
#include <stdlib.h>
#include <string.h>

#include "mediator/arbiter.h"

#define WORKERS 8u
#define ACCOUNTS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct arbiter arbiter;
static struct turn_history history;
static struct vgpu_turn_word words[WORKERS];
static struct arbiter_account accounts[ACCOUNTS];
static struct arbiter_member members[WORKERS];
static bool doomed[WORKERS];
static bool ordered_off[WORKERS];
static bool unheard[WORKERS]; /* adopted, and has not said how it stands */

static void require(bool good)
{
    if (!good) {
        abort();
    }
}

static void on_granted(struct arbiter_member *member)
{
    require(arbiter.current == member && !arbiter.paused && !member->account->paused);
}

static void on_alerted(struct arbiter_member *member)
{
    require(member->state == ARBITER_WAITING || member->state == ARBITER_CURRENT ||
            member->state == ARBITER_OFF);
}

static void on_turn_off(struct arbiter_member *member, bool off)
{
    /* Each order is news. */
    require(ordered_off[member - members] != off);
    ordered_off[member - members] = off;
}

static void on_expired(struct arbiter_member *member)
{
    doomed[member - members] = true;
}

static void join(unsigned i)
{
    members[i] = (struct arbiter_member){.word = &words[i],
                                         .account = &accounts[i % ACCOUNTS],
                                         .vm_id = i % ACCOUNTS + 1,
                                         .granted = on_granted,
                                         .alerted = on_alerted,
                                         .expired = on_expired,
                                         .turn_off = i % 2 == 0 ? on_turn_off : NULL};
    doomed[i] = false;
    ordered_off[i] = false;
    unheard[i] = false;
    arbiter_join(&arbiter, &members[i]);
}

/* Another mediator: it knows nothing but the words. */
static void begin_anew(uint64_t now)
{
    const struct arbiter_rules rules = arbiter.rules;

    arbiter_init(&arbiter, 0, 0, &history, &rules);
    arbiter_hold(&arbiter, now);
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        accounts[i] = (struct arbiter_account){
            .priority = accounts[i].priority, .weight = accounts[i].weight, .paused = false};
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        ordered_off[i] = false;
        unheard[i] = true;
        arbiter_adopt(&arbiter, &members[i], now);
    }
}

/* Some say how they stand, and of some it is not waited for. */
static int hear(unsigned i, uint8_t action, uint64_t now)
{
    const uint32_t told = members[i].word->state % 6 | (action & 16 ? VGPU_LINK_TURN_ASKED : 0) |
                          (action & 32 ? VGPU_LINK_TURN_YIELDED : 0);

    if (action & 128) {
        for (unsigned j = 0; j < WORKERS; j++) {
            if (unheard[j]) {
                arbiter_doubt(&members[j], now);
            }
        }
        arbiter_resume(&arbiter, now);
        return 0;
    }
    if (!unheard[i]) {
        return 0;
    }
    unheard[i] = false;
    return arbiter_resync(&members[i], action & 64 ? told ^ 3 : told, now);
}

/* The word is stored by a worker that lies; the mediator's next look at it may find that. */
static int act(unsigned i, uint8_t action, uint64_t now)
{
    struct arbiter_member *member = &members[i];

    /* What it says of its turn before STATE was for another mediator. */
    if (unheard[i] && action % 18 < 9) {
        return 0;
    }
    switch (action % 18) {
    case 0:
    case 1:
    case 2:
    case 3:
        return arbiter_ask(member, now);
    case 4:
    case 5:
        return arbiter_done(member, now);
    case 6:
    case 7:
        return arbiter_yield(member, now + ((uint64_t)1 << (2 * (action >> 4))), now);
    case 8:
        return arbiter_kept(member, now);
    case 9:
        arbiter_pause(&arbiter, now);
        return 0;
    case 10:
        arbiter_resume(&arbiter, now);
        return 0;
    case 11:
        arbiter_set_account(&arbiter, member->account,
                            (enum vgpu_priority)((action >> 4) % VGPU_PRIORITIES),
                            1 + (action >> 4) * 600u, now);
        return 0;
    case 12:
        return -1; /* it ends by itself */
    case 13:
        arbiter.rules.least_share = (action >> 4) * ARBITER_LEAST_ONE / 16;
        arbiter.rules.limit_ns = (action >> 4) * UINT64_C(1000000);
        return 0;
    case 14:
        arbiter_off(member, now);
        return 0;
    case 15:
        arbiter_pause_account(&arbiter, member->account, action & 16, now);
        return 0;
    case 16:
        if (action & 64) {
            begin_anew(now);
        }
        return 0;
    case 17:
        return hear(i, action, now);
    default:
        return 0; /* not reached */
    }
}

/* What stands in a ring is what is in that state, with links that agree. */
static unsigned check_ring(const struct list_entry *head, enum arbiter_state state,
                           const struct arbiter_account *account)
{
    unsigned count = 0;

    for (const struct list_entry *e = head->next; e != head; e = e->next) {
        const struct arbiter_member *member = LIST_OWNER(e, struct arbiter_member, entry);

        require(e->next->previous == e && e->previous->next == e);
        /* Those that are off wait too. */
        require(member->state == state ||
                (state == ARBITER_WAITING && member->state == ARBITER_OFF));
        require(!account || member->account == account);
        require(++count <= WORKERS);
    }
    return count;
}

/* How many wait that may be served: those of a paused account are in no band. */
static unsigned check_bands(void)
{
    unsigned waiting = 0;

    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        const struct list_entry *head = &arbiter.band[i].accounts;
        uint64_t before = 0;

        for (const struct list_entry *e = head->next; e != head; e = e->next) {
            const struct arbiter_account *account = LIST_OWNER(e, struct arbiter_account, entry);

            require(account->priority == i && account->virtual_ns >= before && !account->paused);
            before = account->virtual_ns;
            waiting += check_ring(&account->waiting, ARBITER_WAITING, account);
            require(account->waiting.next != &account->waiting);
        }
    }
    return waiting;
}

static void check_members(void)
{
    unsigned active[ACCOUNTS] = {0}, states[ARBITER_OFF + 1] = {0}, paused = 0;

    for (unsigned i = 0; i < WORKERS; i++) {
        const struct arbiter_member *member = &members[i];

        states[member->state]++;
        require((member->state == ARBITER_CURRENT) == (arbiter.current == member));
        active[i % ACCOUNTS] += member->state == ARBITER_CURRENT ||
                                member->state == ARBITER_DRAINING;
        require(member->state != ARBITER_DRAINING || member->due_ns != 0);
    }
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        require(accounts[i].active == active[i]);
        paused += accounts[i].paused
                      ? check_ring(&accounts[i].waiting, ARBITER_WAITING, &accounts[i])
                      : 0;
        require(!accounts[i].paused || !arbiter.current ||
                arbiter.current->account != &accounts[i]);
    }
    require(states[ARBITER_WAITING] + states[ARBITER_OFF] == check_bands() + paused);
    require(states[ARBITER_DRAINING] == check_ring(&arbiter.draining, ARBITER_DRAINING, NULL));
}

/* Nobody waits at an engine that is free, and whoever waits is looked after in time. */
static void check_progress(uint64_t now)
{
    const bool waiting = check_bands() > 0;
    const uint64_t deadline = arbiter_deadline(&arbiter);

    if (arbiter.paused) {
        require(deadline == 0);
        return;
    }
    require(!waiting || arbiter.current || !list_empty(&arbiter.draining));
    require(deadline == 0 || deadline > now);
}

static void start(void)
{
    const struct arbiter_rules rules = {.slice_ns = 2000000,
                                        .patience_ns = 10000000,
                                        .limit_ns = 100000000,
                                        .least_share = ARBITER_LEAST_ONE / 100};

    memset(accounts, 0, sizeof(accounts));
    memset(words, 0, sizeof(words));
    memset(&history, 0, sizeof(history));
    arbiter_init(&arbiter, 0, 0, &history, &rules);
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        accounts[i].priority = (enum vgpu_priority)(i % VGPU_PRIORITIES);
        accounts[i].weight = ARBITER_WEIGHT;
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        join(i);
    }
}

static bool end_doomed(uint64_t now)
{
    bool any = false;

    for (unsigned i = 0; i < WORKERS; i++) {
        if (doomed[i]) {
            arbiter_leave(&members[i], now);
            join(i);
            any = true;
        }
    }
    return any;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t now = 1;

    start();
    for (size_t i = 0; i + 2 < size; i += 3) {
        const unsigned worker = data[i] % WORKERS;

        now += (uint64_t)1 << data[i] / 8; /* up to 2 s */
        if (data[i + 1] & 0x80) {
            words[worker].state = data[i + 1] & 7;
        }
        if (act(worker, data[i + 2], now) < 0) {
            arbiter_leave(&members[worker], now);
            join(worker);
        }
        do {
            arbiter_tick(&arbiter, now);
        } while (end_doomed(now));
        check_members();
        check_progress(now);
    }
    return 0;
}
