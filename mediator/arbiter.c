/* SPDX-License-Identifier: MIT */
/*
 * The arbiter's decisions. arbiter.h has the rules, an example with numbers, and the states of a
 * member with the edges between them.
 *
 * Every call that changes something does three things in this order. arbiter_settle() charges the
 * time up to now, by what each member was until now. Then one thing changes. Then arbiter_advance()
 * moves the turn on as far as it can go. If the change came first, the wrong member would pay for
 * the time.
 */
#include "mediator/arbiter.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/shared.h"
#include "common/trace.h"

/* The next one is alerted so long before a slice ends. */
#define ALERT_NS UINT64_C(250000)
/* The end moves a little with each charge; without this there would be a tick for each move. */
#define ALERT_SLACK_NS UINT64_C(50000)
/* A YIELD may name a time so far ahead; a later one is a mistake or a lie. */
#define AHEAD_MAX_NS NS_PER_S
/* A band is lent nothing until it has been starved for this long. */
#define CREDIT_NS NS_PER_S
/* The limit is looked at again no sooner than this: time that holds nobody up does not count. */
#define LIMIT_STEP_NS UINT64_C(1000000)
/* So is a band's credit: a band that pays as fast as it earns never gets there. */
#define CREDIT_STEP_NS UINT64_C(100000)
/*
 * To turn a worker off and on again takes the GPU about 1 ms: work that ends within this is left to
 * end, for a higher band and for its own. And so long a worker that was stopped has to say when its
 * work ends.
 */
#define WORTH_NS UINT64_C(400000)
#define WORTH_IN_BAND_NS UINT64_C(2000000)
#define WORD_NS UINT64_C(50000)
/* Between two turns of a worker that has more to do. */
#define PAUSE_NS UINT64_C(2000000)
/* So long it takes until work that is turned on again runs: nobody pays for that. */
#define ON_NS UINT64_C(500000)
/* So many slices a turn of work that is to be turned off has, as it costs the others that time. */
#define OFF_SLICES 4u
/* The most that a band owes for lent turns, in times of what it earns in CREDIT_NS: a minute. */
#define CREDIT_MIN (-60)

static struct arbiter_member *member_of(struct list_entry *entry)
{
    return LIST_OWNER(entry, struct arbiter_member, entry);
}

static struct arbiter_account *account_of(struct list_entry *entry)
{
    return LIST_OWNER(entry, struct arbiter_account, entry);
}

static bool band_waits(const struct arbiter *a, unsigned band)
{
    return !list_empty(&a->band[band].accounts);
}

static bool anybody_waits(const struct arbiter *a)
{
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (band_waits(a, i)) {
            return true;
        }
    }
    return false;
}

/* Whether its work may come behind a kernel of its own that is off its engine: see `behind`. */
static bool is_held(const struct arbiter_member *member)
{
    return member->behind && member->behind->state == ARBITER_OFF;
}

/* Likewise, but the kernel may be running too; one that can be turned off may do so without end. */
static bool may_be_held(const struct arbiter_member *member)
{
    const struct arbiter_member *behind = member->behind;

    return behind && behind->turn_off &&
           (behind->state == ARBITER_CURRENT || behind->state == ARBITER_DRAINING ||
            behind->state == ARBITER_OFF);
}

/*
 * Whether the member has had all the patience that there is. Once late it stays so until its turn
 * ends: forget_dues() moves `due_ns`, and it is not to be waited for a second time.
 */
static bool is_overdue(const struct arbiter *a, const struct arbiter_member *member,
                       uint64_t now_ns)
{
    return member->late || (member->due_ns != 0 && !is_held(member) &&
                            now_ns >= member->due_ns + a->rules.patience_ns);
}

/*
 * Whether those who drain hold anybody up: one that waits, or current, which has work and gets only
 * a part of the engine for it. An OPEN word says that current has none.
 */
static bool in_the_way(const struct arbiter *a)
{
    return anybody_waits(a) ||
           (a->current && shared_load(&a->current->word->state) != VGPU_TURN_OPEN);
}

static void set_late(struct arbiter_member *member, bool late)
{
    if (late != member->late) {
        member->late = late;
        member->account->late = late ? member->account->late + 1 : member->account->late - 1;
    }
}

/* Marks the draining members that nobody waits for any more; arbiter_pick() goes by that. */
static void mark_late(struct arbiter *a, uint64_t now_ns)
{
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        set_late(member_of(e), is_overdue(a, member_of(e), now_ns));
    }
}

/*
 * To be called while nobody is held up: patience starts anew, since the time that went by harmed
 * nobody. Those who are late stay late. What counts against the limit is in `held_up_ns`, and
 * stays.
 */
static void forget_dues(struct arbiter *a, uint64_t now_ns)
{
    mark_late(a, now_ns);
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        member_of(e)->due_ns = now_ns;
    }
}

/* Accounts in the order of their virtual times ----------------------------------------- */

static uint64_t virtual_of(uint64_t ns, uint32_t weight)
{
    return ns * ARBITER_WEIGHT / weight;
}

/*
 * Puts an account that waits in its place. Mostly that is near the end, where the search begins:
 * its virtual time has just grown. arbiter_pick() and advance_band() rely on the order.
 */
static void list_account(struct arbiter *a, struct arbiter_account *account)
{
    struct list_entry *head = &a->band[account->priority].accounts;
    struct list_entry *place = head;

    list_remove(&account->entry);
    while (place->previous != head &&
           account_of(place->previous)->virtual_ns > account->virtual_ns) {
        place = place->previous;
    }
    list_add_before(place, &account->entry);
}

static bool account_active(const struct arbiter_account *account)
{
    return account->active > 0 || !list_empty(&account->waiting);
}

/*
 * The next member of a band: the first to ask, among the accounts that are ahead of the one
 * furthest behind by a slice at most. Accounts are in the order of their times, so the first that
 * may be served sets the limit. An account with a late member gets no more: a VM whose kernel does
 * not end would otherwise fill the engine with more of them. NULL when there is nobody.
 */
static struct arbiter_member *arbiter_pick(const struct arbiter *a, unsigned band)
{
    const struct list_entry *head = &a->band[band].accounts;
    struct arbiter_member *best = NULL;
    uint64_t limit = UINT64_MAX;

    for (struct list_entry *entry = head->next; entry != head; entry = entry->next) {
        struct arbiter_account *account = account_of(entry);
        struct arbiter_member *first = member_of(account->waiting.next);

        if (account->virtual_ns > limit) {
            break;
        }
        if (account->late > 0) {
            continue;
        }
        if (!best) {
            limit = account->virtual_ns + a->rules.slice_ns;
        }
        if (!best || first->queued_ns < best->queued_ns) {
            best = first;
        }
    }
    return best;
}

struct choice {
    struct arbiter_member *member; /* NULL: nobody waits */
    bool lent;
};

/* The band that is being served, or would be if its work were not about to end; -1: none. */
static int served_band(const struct arbiter *a)
{
    int served = a->current ? (int)a->current->account->priority : -1;

    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        const int band = (int)member_of(e)->account->priority;

        served = band > served ? band : served;
    }
    return served;
}

/*
 * Who is next: a member of the highest band that waits, or of a lower one that has earned it. A
 * lent turn comes first, since the higher band would be preferred each time. The band with the most
 * credit is lent it. A band is lent nothing that it would get anyway, as the highest that waits
 * with nothing above it being served.
 */
static struct choice arbiter_choose(struct arbiter *a)
{
    const int served = served_band(a);
    struct choice plain = {0}, lent = {.lent = true};
    int64_t credit = -1;

    if (a->lending) {
        /* Current was stopped for this. Without a member there any more the promise is off. */
        lent.member = arbiter_pick(a, a->lend_to);
        a->lending = lent.member != NULL;
    }
    for (int i = (int)VGPU_PRIORITIES - 1; i >= 0 && !a->lending; i--) {
        const struct arbiter_band *band = &a->band[i];
        struct arbiter_member *member = arbiter_pick(a, (unsigned)i);

        if (!member) {
            continue;
        }
        if ((plain.member || i < served) && a->rules.least_share > 0 && band->credit > credit) {
            lent.member = member;
            credit = band->credit;
        }
        if (!plain.member) {
            plain.member = member;
        }
    }
    return lent.member ? lent : plain;
}

/* Time ------------------------------------------------------------------------------------ */

/* What a band earns in CREDIT_NS. It starts with as much debt, and so waits for that long first. */
static int64_t full_credit(const struct arbiter *a)
{
    return (int64_t)(CREDIT_NS * a->rules.least_share);
}

/*
 * Charges a member's account and band for `part` ns of use. The account may wait at the same time,
 * for another of its members: then it moves in the list. The price has a limit so that it fits 64
 * bits.
 */
static void arbiter_charge(struct arbiter *a, struct arbiter_member *member, uint64_t part)
{
    struct arbiter_account *account = member->account;
    struct arbiter_band *band = &a->band[account->priority];
    const int64_t price = (int64_t)(part < CREDIT_NS ? part : CREDIT_NS) * ARBITER_LEAST_ONE;
    /*
     * A lent turn is paid for in full: a piece of 3 ms at 1 % costs 300 ms of waiting. Any other
     * costs the same, but at most takes the credit back to where it began.
     */
    const int64_t floor = member->lent ? CREDIT_MIN * full_credit(a) : -full_credit(a);

    account->used_ns += part;
    account->virtual_ns += virtual_of(part, account->weight);
    if (list_contains(&account->entry)) {
        list_account(a, account);
    }
    if (band->credit > floor && !member->late) { /* one late member must not use up the band's */
        band->credit = band->credit - price > floor ? band->credit - price : floor;
    }
}

/* Those that use the engine. */
static unsigned count_drainers(const struct arbiter *a)
{
    unsigned count = 0;

    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        count += !is_held(member_of(e));
    }
    return count;
}

/*
 * Charges `ns` to all that may have work on the engine, in equal parts, since the engine's own time
 * slicing parts it so. What a worker says of its use does not matter: it may lie. Current pays from
 * `from_ns` on, and while it has not left its word OPEN; arbiter_settle() sees to it that no
 * stretch of time lies on both sides of `from_ns`.
 */
static void charge_users(struct arbiter *a, uint64_t ns)
{
    const bool in_use = a->current && a->current->from_ns < a->charged_ns &&
                        shared_load(&a->current->word->state) != VGPU_TURN_OPEN;
    const unsigned payers = count_drainers(a) + in_use;
    const uint64_t part = payers > 0 ? ns / payers : 0;

    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        if (!is_held(member_of(e))) {
            arbiter_charge(a, member_of(e), part);
        }
    }
    if (in_use) {
        arbiter_charge(a, a->current, part);
    }
}

static bool band_active(const struct arbiter *a, unsigned band)
{
    if (band_waits(a, band) || (a->current && a->current->account->priority == band)) {
        return true;
    }
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        if (member_of(e)->account->priority == band) {
            return true;
        }
    }
    return false;
}

/*
 * Moves the band's time on, at which an account starts that comes back. While members compete, it
 * is the time of the account furthest behind: one that comes back is then neither ahead nor behind.
 * While nobody competes, it goes on with the clock, and so debts end. It never goes back, or a VM
 * could gain by leaving and coming back.
 */
static void advance_band(struct arbiter *a, unsigned band, bool contended, uint64_t ns)
{
    struct arbiter_band *b = &a->band[band];
    uint64_t least = UINT64_MAX;

    if (!contended || !band_active(a, band)) {
        b->virtual_ns += ns;
        return;
    }
    if (band_waits(a, band)) {
        least = account_of(b->accounts.next)->virtual_ns;
    }
    if (a->current && a->current->account->priority == band &&
        a->current->account->virtual_ns < least) {
        least = a->current->account->virtual_ns;
    }
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        const struct arbiter_account *account = member_of(e)->account;

        if (account->priority == band && account->virtual_ns < least) {
            least = account->virtual_ns;
        }
    }
    if (least > b->virtual_ns) {
        b->virtual_ns = least;
    }
}

/*
 * Bands that wait while a higher one is served earn their least share of the time, up to 0: nobody
 * can save up for several turns in a row.
 */
static void arbiter_earn(struct arbiter *a, uint64_t ns)
{
    const int served = served_band(a);
    const uint64_t limited = ns < CREDIT_NS ? ns : CREDIT_NS;

    for (int i = 0; i < served; i++) {
        if (band_waits(a, (unsigned)i) && a->band[i].credit < 0) {
            a->band[i].credit += (int64_t)(limited * a->rules.least_share);
        }
    }
}

/* Charges and earns for the time up to `now_ns`, in which nothing has changed. */
static void settle_until(struct arbiter *a, uint64_t now_ns)
{
    const uint64_t from_ns = a->charged_ns;
    const uint64_t ns = now_ns > from_ns ? now_ns - from_ns : 0;
    const bool contended = anybody_waits(a) || !list_empty(&a->draining);

    if (ns == 0) {
        return;
    }
    a->charged_ns = now_ns;
    if (!a->paused && in_the_way(a)) {
        for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
            struct arbiter_member *member = member_of(e);

            member->held_up_ns += may_be_held(member) ? 0 : ns;
            if (is_held(member)) {
                member->due_ns = now_ns; /* others wait for it from when it is not held any more */
            }
        }
    }
    if (contended && !a->paused) {
        charge_users(a, ns);
        arbiter_earn(a, ns);
    }
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        advance_band(a, i, contended, ns);
    }
    if (!contended && a->current &&
        a->current->account->virtual_ns < a->band[a->current->account->priority].virtual_ns) {
        /* Used by it alone: nothing is owed, and nothing saved. */
        a->current->account->virtual_ns = a->band[a->current->account->priority].virtual_ns;
    }
}

/* Brings all accounts up to now, in two steps where current may submit only from some time on. */
static void arbiter_settle(struct arbiter *a, uint64_t now_ns)
{
    if (a->current && a->current->from_ns < now_ns) {
        settle_until(a, a->current->from_ns); /* it uses nothing before */
    }
    settle_until(a, now_ns);
}

/* Turning work off ------------------------------------------------------------------------ */

/* Tells the worker, where that is news to it. */
static void set_off(struct arbiter_member *member, bool off)
{
    if (member->turn_off && member->off_asked != off) {
        member->off_asked = off;
        TRACE(order, member->arbiter->gpu, member->arbiter->engine, member->vm_id, member->sequence,
              off);
        member->turn_off(member, off);
    }
}

/*
 * When a member that drains is to be turned off: when it is due, but a moment later where its work
 * ends about then, by its word. `due_ns` is when its slice ends, or now for a higher band.
 */
static uint64_t off_time(const struct arbiter_member *member, uint64_t due_ns, uint64_t worth_ns)
{
    return member->yielded && member->from_ns <= due_ns + worth_ns
               ? (member->from_ns > due_ns ? member->from_ns : due_ns) + worth_ns
               : due_ns;
}

/*
 * When a turn that makes room for none of a higher band is over, where work has to be turned off
 * for that. That is before patience is. A lent turn has a slice, however soon it is due; without a
 * due time nobody of its band has waited, and its slices begin now.
 */
static uint64_t off_due(const struct arbiter *a, const struct arbiter_member *member,
                        uint64_t due_ns, uint64_t now_ns)
{
    const uint64_t long_ns = OFF_SLICES * a->rules.slice_ns;
    const uint64_t most_ns = due_ns + a->rules.patience_ns / 2;
    uint64_t end_ns = member->granted_ns + long_ns;

    if (member->lent) {
        return member->granted_ns + a->rules.slice_ns;
    }
    if (due_ns == 0) {
        return now_ns + long_ns;
    }
    end_ns = end_ns < most_ns ? end_ns : most_ns;
    return end_ns > due_ns ? end_ns : due_ns;
}

/*
 * Whether it is still to be told: others need the engine, or nobody is to have it. A current with
 * an OPEN word needs it too: it may start work at any time, of which nobody is told.
 */
static bool may_turn_off(const struct arbiter *a, const struct arbiter_member *member)
{
    return member->turn_off && !member->off_asked &&
           (a->paused || member->account->paused || a->current || anybody_waits(a));
}

static void turn_off_drainers(struct arbiter *a, uint64_t now_ns)
{
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        struct arbiter_member *member = member_of(e);

        if (may_turn_off(a, member) && now_ns >= member->off_ns) {
            set_off(member, true);
        }
    }
}

/* Turns ----------------------------------------------------------------------------------- */

/*
 * Stores a state in the word of a worker that is using its turn, and returns that state. The worker
 * changes the word too, so each change is a compare-and-swap: of a recall and a start only one can
 * win. Returns OPEN when the worker was not using its turn, and has lost it now, and CLOSED when it
 * has ended the turn: then nothing was stored, for only a grant may open a CLOSED word.
 */
static enum vgpu_turn set_word(struct arbiter_member *member, enum vgpu_turn state)
{
    uint32_t *word = &member->word->state;

    for (;;) {
        const uint32_t now = shared_load(word);

        if (now == VGPU_TURN_CLOSED) {
            return VGPU_TURN_CLOSED;
        }
        if (now == VGPU_TURN_OPEN) {
            if (shared_swap(word, VGPU_TURN_OPEN, VGPU_TURN_CLOSED)) {
                return VGPU_TURN_OPEN;
            }
        } else if (now == (uint32_t)state || shared_swap(word, now, state)) {
            return state;
        }
    }
}

/* What counts while it has a turn, or drains after one. */
static void forget_turn(struct arbiter_member *member)
{
    member->lent = false;
    member->told = false;
    member->held_up_ns = 0;
    member->alerted_next = false;
    set_late(member, false);
    member->due_ns = 0;
}

/*
 * The member has no turn any more. Edges: CURRENT or DRAINING to IDLE. `asked` stays: the worker
 * may still owe its KEPT, and must not ask before it has sent that.
 */
static void arbiter_retire(struct arbiter *a, struct arbiter_member *member)
{
    TRACE(pass, a->gpu, a->engine, member->vm_id, member->sequence,
          (int64_t)(a->charged_ns - member->first_ns));
    if (a->current == member) {
        a->current = NULL;
    } else {
        list_remove(&member->entry);
    }
    set_off(member, false);
    member->account->active--;
    member->account->left_ns = a->charged_ns;
    member->state = ARBITER_IDLE;
    member->resumed = false;
    member->yielded = false;
    forget_turn(member);
}

/*
 * Current has to end its work. Edge: CURRENT to DRAINING; the caller has stopped it or found its
 * word CLOSED, so it submits no more. `at_once`: it makes room for a higher band, or for a pause.
 * It is due from now on, or since its slice has ended: the time past that counts against the limit,
 * and one that is past its patience already is late at once.
 */
static void arbiter_drain(struct arbiter *a, bool at_once, uint64_t now_ns)
{
    struct arbiter_member *member = a->current;

    a->current = NULL;
    member->state = ARBITER_DRAINING;
    member->off_ns = at_once ? now_ns + WORD_NS : off_due(a, member, member->due_ns, now_ns);
    member->off_ns = off_time(member, member->off_ns > now_ns ? member->off_ns : now_ns,
                              at_once ? WORTH_NS : WORTH_IN_BAND_NS);
    member->off_fast = at_once;
    member->resumed = false;
    if (member->due_ns == 0 || member->due_ns > now_ns) {
        member->due_ns = now_ns;
    }
    member->held_up_ns = now_ns - member->due_ns;
    list_add_before(&a->draining, &member->entry);
    set_late(member, is_overdue(a, member, now_ns));
}

/*
 * Until when current may submit, with `next` of its band waiting: for a slice, or for as long as it
 * takes to catch up with `next`. So a VM of more weight gets longer turns and not more of them:
 * each hand-over costs the GPU some 200 us. Beside members that drain it pays for a part of its
 * time only, and so needs more time to catch up.
 */
static uint64_t arbiter_slice_end(const struct arbiter *a, const struct arbiter_member *next,
                                  uint64_t now_ns)
{
    const struct arbiter_member *current = a->current;
    const struct arbiter_account *account = current->account;
    uint64_t end = current->granted_ns + a->rules.slice_ns;

    if (account->virtual_ns < next->account->virtual_ns) {
        /* It is behind, and so the next turn would be due to it as well. */
        const uint64_t behind = (next->account->virtual_ns - account->virtual_ns) *
                                account->weight / ARBITER_WEIGHT * (1 + count_drainers(a));

        end = now_ns + behind > end ? now_ns + behind : end;
    }
    if (end < now_ns) {
        /* It is over. A due time that is past stays, or each call would renew its patience. */
        end = current->due_ns != 0 && current->due_ns < now_ns ? current->due_ns : now_ns;
    }
    return end;
}

/*
 * From when on a member of this band may submit: when the work of those who have yielded is about
 * to end, by their own word. Lies are worth no more than silence: nobody waits past patience, nor
 * for a lower band.
 */
static uint64_t start_of(const struct arbiter *a, enum vgpu_priority band, uint64_t now_ns)
{
    uint64_t from = now_ns;

    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        const struct arbiter_member *member = member_of(e);

        if (member->yielded && member->account->priority >= band && !is_held(member) &&
            !is_overdue(a, member, now_ns)) {
            const uint64_t patient_ns = member->due_ns + a->rules.patience_ns;
            const uint64_t until_ns = member->from_ns < patient_ns ? member->from_ns : patient_ns;

            from = until_ns > from ? until_ns : from;
        }
    }
    return from;
}

/* Those of lower bands that drain are in the way of a higher one from now on. */
static void hasten_off(struct arbiter *a, unsigned band, uint64_t now_ns)
{
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        struct arbiter_member *member = member_of(e);
        const uint64_t due_ns = now_ns + (member->yielded ? 0 : WORD_NS);
        const uint64_t off_ns = off_time(member, due_ns, WORTH_NS);

        if (member->account->priority < band && off_ns < member->off_ns) {
            member->off_ns = off_ns;
            member->off_fast = true;
        }
    }
}

/* Takes a member out of its account's ring. */
static void leave_waiting(struct arbiter_member *member)
{
    list_remove(&member->entry);
    if (list_empty(&member->account->waiting)) {
        list_remove(&member->account->entry);
    }
}

/*
 * Makes the chosen member current. Edges: WAITING or OFF to CURRENT; there is no current, and
 * may_join() was asked. A member that shares is due at once: the next round of arbiter_advance()
 * finds who waits, and extends that to the end of its slice. For a lent turn it stays: one piece of
 * work, or a slice where that was begun before.
 */
static void arbiter_grant(struct arbiter *a, struct choice next, uint64_t now_ns)
{
    struct arbiter_member *member = next.member;
    struct arbiter_account *account = member->account;
    enum vgpu_turn state = VGPU_TURN_RUNNING;

    member->resumed = member->state == ARBITER_OFF;
    leave_waiting(member);
    account->active++;
    hasten_off(a, account->priority, now_ns);
    a->lending = false;
    a->current = member;
    member->state = ARBITER_CURRENT;
    member->lent = next.lent;
    member->granted_ns = start_of(a, account->priority, now_ns);
    member->due_ns = 0;
    if (member->resumed) {
        /* Its word stays: what is there may end, and no more is submitted. */
        member->granted_ns += ON_NS;
        member->from_ns = member->granted_ns;
        member->yielded = false;
        if (next.lent) {
            member->due_ns = member->from_ns + a->rules.slice_ns;
        }
        set_off(member, false);
        return;
    }
    member->asked = true;
    member->sequence = ++a->history->sequence;
    member->from_ns = member->first_ns = member->granted_ns;
    if (next.lent || band_waits(a, account->priority)) {
        state = VGPU_TURN_SHARED;
        member->due_ns = member->from_ns; /* to be extended, unless it is lent */
    } else if (anybody_waits(a)) {
        state = VGPU_TURN_WANTED;
    }
    /* Partner: turn_state() in worker/turn.h. With the state the worker has to see both times. */
    shared_store64(&member->word->from_ns, member->from_ns);
    shared_store64(&member->word->until_ns, next.lent ? 0 : member->from_ns + a->rules.slice_ns);
    shared_store_release(&member->word->state, state);
    TRACE(grant, a->gpu, a->engine, member->vm_id, member->sequence, state);
    member->granted(member);
}

/*
 * A member has ended. If it did so sooner than it had said, current need not wait for it any
 * longer, and is woken: it may sleep until the time that it was told at first.
 */
static void arbiter_hurry(struct arbiter *a, uint64_t now_ns)
{
    struct arbiter_member *current = a->current;
    uint64_t from;

    if (!current || current->from_ns <= now_ns || current->resumed) {
        return;
    }
    from = start_of(a, current->account->priority, now_ns);
    if (from < current->from_ns) {
        current->from_ns = current->first_ns = current->granted_ns = from;
        shared_store64(&current->word->from_ns, from);
        current->alerted(current);
    }
}

/*
 * The slice of current is about to end: the next member is to be awake by then, or the engine would
 * be without work for as long as a wake-up takes. Once for each turn.
 */
static void arbiter_alert(struct arbiter *a, uint64_t now_ns)
{
    struct arbiter_member *current = a->current;

    if (current && current->due_ns != 0 && !current->alerted_next &&
        now_ns + ALERT_NS + ALERT_SLACK_NS >= current->due_ns && !a->paused) {
        const struct choice next = arbiter_choose(a);

        current->alerted_next = true;
        if (next.member) {
            next.member->alerted(next.member);
        }
    }
}

/*
 * Whether `next` may have work on the engine beside those who drain. Beside lower bands it may: a
 * higher one starts at once. Of its own band or a higher one only a single member may drain, and
 * that one has to be about to end, so that the others have the engine to themselves but for a
 * moment. Those who are late do not count.
 */
static bool may_join(const struct arbiter *a, const struct choice *next, uint64_t now_ns)
{
    const unsigned band = next->member->account->priority;
    unsigned about_to_end = 0;

    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        const struct arbiter_member *member = member_of(e);

        if (is_held(member) || is_overdue(a, member, now_ns)) {
            continue;
        }
        if (member->account->priority >= band) {
            /* One that is turned on again has no time to be told from when on. */
            if (!member->yielded || ++about_to_end > 1 || next->member->state == ARBITER_OFF) {
                return false;
            }
        }
    }
    return true;
}

/*
 * When current, which is due, is stopped though it has said nothing. Where it can be turned off it
 * need not be waited for: its thread may be in a call of the driver's that takes long.
 */
static uint64_t stop_time(const struct arbiter *a)
{
    const struct arbiter_member *current = a->current;
    const uint64_t lent_ns = current->lent && !current->resumed ? a->rules.slice_ns : 0;

    if (!current->turn_off) {
        return current->due_ns + a->rules.patience_ns;
    }
    return current->due_ns + lent_ns + (current->resumed ? 0 : WORTH_NS);
}

/*
 * What current's word is to be with `next` waiting. A lent turn is stopped for no band, unless it
 * is overdue: its one piece of work was paid for by waiting.
 */
static enum vgpu_turn word_for(const struct arbiter *a, const struct choice *next, uint64_t now_ns)
{
    const struct arbiter_member *current = a->current;

    if (is_overdue(a, current, now_ns) || (current->due_ns != 0 && now_ns >= stop_time(a))) {
        return VGPU_TURN_STOPPED;
    }
    if (current->lent) {
        return VGPU_TURN_SHARED;
    }
    if (next->lent || next->member->account->priority > current->account->priority) {
        return VGPU_TURN_STOPPED;
    }
    return next->member->account->priority == current->account->priority ? VGPU_TURN_SHARED
                                                                         : VGPU_TURN_WANTED;
}

/*
 * The same for a current that was off before: it submits nothing, and so is not told, but turned
 * off when its time is over.
 */
static bool make_room_above_resumed(struct arbiter *a, const struct choice *next, bool at_once,
                                    uint64_t now_ns)
{
    struct arbiter_member *current = a->current;
    enum vgpu_turn state = word_for(a, next, now_ns);

    if (state == VGPU_TURN_SHARED && !current->lent) {
        current->due_ns = off_due(a, current, arbiter_slice_end(a, next->member, now_ns), now_ns);
        state = word_for(a, next, now_ns);
    } else if (state == VGPU_TURN_WANTED) {
        current->due_ns = 0;
    }
    if (state != VGPU_TURN_STOPPED) {
        return false;
    }
    a->lending = next->lent;
    a->lend_to = next->member->account->priority;
    arbiter_drain(a, at_once, now_ns);
    return true;
}

/* Tells current to make room for `next`. True when there is no current any more. */
static bool make_room_above(struct arbiter *a, const struct choice *next, uint64_t now_ns)
{
    struct arbiter_member *current = a->current;
    const enum vgpu_turn state = word_for(a, next, now_ns);
    const bool at_once = !next->lent &&
                         next->member->account->priority > current->account->priority;

    if (current->resumed) {
        return make_room_above_resumed(a, next, at_once, now_ns);
    }
    if (state == VGPU_TURN_SHARED && !current->lent) {
        current->due_ns = arbiter_slice_end(a, next->member, now_ns);
        shared_store64(&current->word->until_ns, current->due_ns);
    } else if (state == VGPU_TURN_WANTED) {
        current->due_ns = 0;
    }
    switch (set_word(current, state)) {
    case VGPU_TURN_OPEN:
        arbiter_retire(a, current);
        return true;
    case VGPU_TURN_STOPPED:
        /* The turn stays promised, though the higher band may wait again before the grant. */
        a->lending = next->lent;
        a->lend_to = next->member->account->priority;
        arbiter_drain(a, at_once, now_ns);
        return true;
    case VGPU_TURN_CLOSED:
        /* It submits no more; its message is on its way, or never comes. */
        arbiter_drain(a, at_once, now_ns);
        return true;
    default:
        return false;
    }
}

/*
 * With nobody waiting, a member that was stopped may go on. Edge: DRAINING to CURRENT, if it has
 * not closed its word and is not late. Without this it would have to end its turn and ask for
 * another.
 */
static void go_on(struct arbiter *a, uint64_t now_ns)
{
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        struct arbiter_member *member = member_of(e);

        if (!member->yielded && !member->account->paused && !is_overdue(a, member, now_ns) &&
            shared_swap(&member->word->state, VGPU_TURN_STOPPED, VGPU_TURN_RUNNING)) {
            set_off(member, false);
            list_remove(&member->entry);
            member->state = ARBITER_CURRENT;
            member->lent = false;
            member->told = false;
            member->held_up_ns = 0;
            member->due_ns = 0;
            a->current = member;
            return;
        }
    }
}

/*
 * Moves the turn on as far as it can go now. Each round finds the next member anew, since what the
 * last round did may have changed the choice: a current that was stopped for a lent turn, say.
 */
static void move_turn(struct arbiter *a, uint64_t now_ns)
{
    while (!a->paused) {
        const struct choice next = arbiter_choose(a);

        if (!next.member) {
            if (!a->current) {
                go_on(a, now_ns);
            } else {
                a->current->due_ns = a->current->lent ? now_ns : 0;
                if (!a->current->lent) {
                    shared_swap(&a->current->word->state, VGPU_TURN_SHARED, VGPU_TURN_RUNNING);
                }
            }
            return;
        }
        if (a->current) {
            if (!make_room_above(a, &next, now_ns)) {
                return;
            }
            continue;
        }
        if (!may_join(a, &next, now_ns)) {
            return;
        }
        arbiter_grant(a, next, now_ns);
    }
}

static void arbiter_advance(struct arbiter *a, uint64_t now_ns)
{
    mark_late(a, now_ns);
    move_turn(a, now_ns);
    turn_off_drainers(a, now_ns);
}

/* Records a turn that was asked for, once: by its KEPT or by its DONE. */
static void arbiter_remember(struct arbiter *a, struct arbiter_member *member, uint64_t now_ns)
{
    struct turn_history *history = a->history;

    if (!member->asked) {
        return;
    }
    member->asked = false;
    history->record[history->count++ % TURN_HISTORY] = (struct turn_record){
        .sequence = member->sequence,
        .vm_id = member->vm_id,
        .engine = a->engine,
        .gpu = a->gpu,
        .priority = member->account->priority,
        .wait_ns = member->first_ns - member->asked_ns,
        .run_ns = now_ns > member->first_ns ? now_ns - member->first_ns : 0,
    };
}

/* What the owner does ---------------------------------------------------------------------- */

void arbiter_init(struct arbiter *a, uint32_t gpu, uint32_t engine, struct turn_history *history,
                  const struct arbiter_rules *rules)
{
    memset(a, 0, sizeof(*a));
    a->gpu = gpu;
    a->engine = engine;
    a->history = history;
    a->rules = *rules;
    list_init(&a->draining);
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        list_init(&a->band[i].accounts);
        a->band[i].credit = -full_credit(a);
    }
}

/* The state becomes IDLE. */
static void add_member(struct arbiter *a, struct arbiter_member *member)
{
    struct arbiter_account *account = member->account;

    if (!account->waiting.next) {
        list_init(&account->waiting);
    }
    a->members++;
    member->arbiter = a;
    member->state = ARBITER_IDLE;
    member->asked = false;
    member->lent = false;
    member->yielded = false;
    member->told = false;
    member->held_up_ns = 0;
    member->late = false;
    member->off_asked = false;
    member->resumed = false;
    member->due_ns = 0;
}

/* The word may be left from the worker before, in the same page. */
void arbiter_join(struct arbiter *a, struct arbiter_member *member)
{
    add_member(a, member);
    shared_store(&member->word->state, VGPU_TURN_CLOSED);
}

/* Edge: IDLE to DRAINING, of an adopted worker whose turn was another mediator's grant. */
static void adopt_drainer(struct arbiter *a, struct arbiter_member *member, uint64_t now_ns)
{
    member->state = ARBITER_DRAINING;
    member->account->active++;
    member->due_ns = now_ns;
    member->from_ns = now_ns;
    member->off_ns = now_ns + OFF_SLICES * a->rules.slice_ns;
    member->off_fast = false;
    list_add_before(&a->draining, &member->entry);
}

/* Edge: IDLE to CURRENT, likewise. */
static void adopt_current(struct arbiter *a, struct arbiter_member *member, uint64_t now_ns)
{
    member->state = ARBITER_CURRENT;
    member->account->active++;
    member->asked_ns = member->granted_ns = member->first_ns = member->from_ns = now_ns;
    member->alerted_next = false;
    a->current = member;
}

/*
 * One has a standing grant, and keeps it: it notices nothing. What a word says is the worker's to
 * spoil, so others that say the same are stopped, and nobody has to be believed.
 */
void arbiter_adopt(struct arbiter *a, struct arbiter_member *member, uint64_t now_ns)
{
    const uint32_t word = shared_load(&member->word->state);

    add_member(a, member);
    arbiter_settle(a, now_ns);
    if (!a->current && word >= VGPU_TURN_OPEN && word <= VGPU_TURN_SHARED) {
        adopt_current(a, member, now_ns);
    } else if (set_word(member, VGPU_TURN_STOPPED) == VGPU_TURN_STOPPED) {
        adopt_drainer(a, member, now_ns);
    }
}

/* Edges: any state to IDLE. A worker that was killed may hold a turn, or stand in the queue. */
void arbiter_leave(struct arbiter_member *member, uint64_t now_ns)
{
    struct arbiter *a = member->arbiter;

    if (!a) {
        return;
    }
    arbiter_settle(a, now_ns);
    if (member->state == ARBITER_WAITING || member->state == ARBITER_OFF) {
        leave_waiting(member);
        member->account->left_ns = now_ns;
        member->state = ARBITER_IDLE;
    } else if (member->state != ARBITER_IDLE) {
        arbiter_retire(a, member);
    }
    a->members--;
    member->arbiter = NULL;
    arbiter_hurry(a, now_ns);
    arbiter_advance(a, now_ns);
}

/* Puts a member last into its account's ring. */
static void join_waiting(struct arbiter *a, struct arbiter_member *member, uint64_t now_ns)
{
    member->queued_ns = now_ns;
    list_add_before(&member->account->waiting, &member->entry);
    if (!list_contains(&member->account->entry) && !member->account->paused) {
        list_account(a, member->account);
    }
}

/*
 * The account has been away. Time that it did not use is not saved up. After a pause as a worker
 * makes between two turns it counts as used, so that what the account is behind its band is not
 * lost with each turn.
 */
static void come_back(struct arbiter_account *account, uint64_t band_ns, uint64_t now_ns)
{
    const uint64_t away_ns = now_ns - account->left_ns;
    const uint64_t behind_ns = band_ns > account->virtual_ns ? band_ns - account->virtual_ns : 0;
    const uint64_t missed_ns = away_ns < PAUSE_NS ? virtual_of(away_ns, account->weight)
                                                  : UINT64_MAX;

    account->virtual_ns += behind_ns < missed_ns ? behind_ns : missed_ns;
}

/* Edge: IDLE to WAITING. */
int arbiter_ask(struct arbiter_member *member, uint64_t now_ns)
{
    struct arbiter *a = member->arbiter;
    struct arbiter_account *account = member->account;
    struct arbiter_band *band;

    if (!a || member->state != ARBITER_IDLE || member->asked) {
        return -EPROTO;
    }
    arbiter_settle(a, now_ns);
    band = &a->band[account->priority];
    if (!account_active(account)) {
        come_back(account, band->virtual_ns, now_ns);
    }
    /* Before the member waits itself: those who drain have held nobody up until now. */
    if (!in_the_way(a)) {
        forget_dues(a, now_ns);
    }
    member->state = ARBITER_WAITING;
    member->asked_ns = now_ns;
    join_waiting(a, member, now_ns);
    TRACE(ask, a->gpu, a->engine, member->vm_id);
    arbiter_advance(a, now_ns);
    return 0;
}

/* Edges: CURRENT, DRAINING or OFF to IDLE. */
static void end_any_turn(struct arbiter *a, struct arbiter_member *member)
{
    if (member->state == ARBITER_OFF) {
        /* Its work had ended just before it was off. It is none of those with a turn. */
        leave_waiting(member);
        member->account->active++;
        list_init(&member->entry);
    }
    arbiter_retire(a, member);
}

/*
 * Whether the worker may say that its turn ends: it has one, and has closed its word. With any
 * other word it could go on submitting beside the next one. Partner: the worker's swap in turn.c.
 */
static bool ends_turn(const struct arbiter_member *member)
{
    return member->arbiter &&
           (member->state == ARBITER_CURRENT || member->state == ARBITER_DRAINING ||
            member->state == ARBITER_OFF) &&
           shared_load_acquire(&member->word->state) == VGPU_TURN_CLOSED;
}

int arbiter_yield(struct arbiter_member *member, uint64_t from_ns, uint64_t now_ns)
{
    struct arbiter *a = member->arbiter;

    if (!ends_turn(member) || member->yielded) {
        return -EPROTO;
    }
    arbiter_settle(a, now_ns);
    if (member->resumed) {
        /* It has its turn for what it had submitted before, and goes on for its slice. */
        arbiter_advance(a, now_ns);
        return 0;
    }
    member->yielded = true;
    member->from_ns = from_ns < now_ns + AHEAD_MAX_NS ? from_ns : now_ns + AHEAD_MAX_NS;
    if (member->state == ARBITER_CURRENT) {
        arbiter_drain(a, false, now_ns);
    } else if (member->state == ARBITER_DRAINING) {
        member->off_ns = off_time(member, member->off_ns,
                                  member->off_fast ? WORTH_NS : WORTH_IN_BAND_NS);
    }
    TRACE(yield, a->gpu, a->engine, member->vm_id, member->sequence);
    arbiter_advance(a, now_ns);
    return 0;
}

int arbiter_done(struct arbiter_member *member, uint64_t now_ns)
{
    struct arbiter *a = member->arbiter;

    if (!ends_turn(member)) {
        return -EPROTO;
    }
    arbiter_settle(a, now_ns);
    arbiter_remember(a, member, now_ns);
    end_any_turn(a, member);
    arbiter_hurry(a, now_ns);
    arbiter_advance(a, now_ns);
    return 0;
}

/*
 * Edge: DRAINING to OFF. Nobody is held up by it any more, and it waits from now on. Who was to
 * start when its work has ended starts now.
 */
bool arbiter_off(struct arbiter_member *member, uint64_t now_ns)
{
    struct arbiter *a = member->arbiter;

    if (!a || member->state != ARBITER_DRAINING || !member->off_asked) {
        return false;
    }
    arbiter_settle(a, now_ns);
    list_remove(&member->entry);
    member->account->active--;
    member->state = ARBITER_OFF;
    forget_turn(member);
    member->off_ns = now_ns;
    TRACE(off, a->gpu, a->engine, member->vm_id, member->sequence);
    join_waiting(a, member, now_ns);
    arbiter_hurry(a, now_ns);
    arbiter_advance(a, now_ns);
    return true;
}

int arbiter_kept(struct arbiter_member *member, uint64_t now_ns)
{
    if (!member->arbiter || !member->asked) {
        return -EPROTO;
    }
    arbiter_settle(member->arbiter, now_ns);
    arbiter_remember(member->arbiter, member, now_ns);
    /* It may have become idle just before somebody asked, who then was told to wait. */
    arbiter_advance(member->arbiter, now_ns);
    return 0;
}

void arbiter_set_account(struct arbiter *a, struct arbiter_account *account,
                         enum vgpu_priority priority, uint32_t weight, uint64_t now_ns)
{
    const bool waits = list_contains(&account->entry);

    arbiter_settle(a, now_ns);
    if (account->priority != priority) {
        list_remove(&account->entry);
        account->priority = priority;
        account->virtual_ns = a->band[priority].virtual_ns;
        if (waits) {
            list_account(a, account);
        }
    }
    account->weight = weight;
    arbiter_advance(a, now_ns);
}

/* Current is not to go on, whoever waits. */
static void stop_current(struct arbiter *a, uint64_t now_ns)
{
    if (!a->current->resumed && set_word(a->current, VGPU_TURN_STOPPED) == VGPU_TURN_OPEN) {
        arbiter_retire(a, a->current);
    } else {
        arbiter_drain(a, true, now_ns);
    }
}

/*
 * A word that was CLOSED then is so still, since nobody has granted anything, and so what the
 * worker has said of its turn before is all told by this. With any other word what it says about
 * the end of that turn is yet to come.
 */
int arbiter_resync(struct arbiter_member *member, uint32_t told, uint64_t now_ns)
{
    struct arbiter *a = member->arbiter;
    const uint32_t word = told & VGPU_LINK_TURN_STATE;
    const bool asked = (told & VGPU_LINK_TURN_ASKED) != 0;

    if (!a) {
        return -EPROTO;
    }
    arbiter_settle(a, now_ns);
    /* Nobody has granted anything since: a word that was CLOSED then is so now. */
    if (word == VGPU_TURN_CLOSED && shared_load_acquire(&member->word->state) != VGPU_TURN_CLOSED) {
        return -EPROTO;
    }
    if (word != VGPU_TURN_CLOSED) {
        /* Without a turn it can only have left one OPEN, which was recalled meanwhile. */
        if (member->state == ARBITER_IDLE && word != VGPU_TURN_OPEN && word != VGPU_TURN_RUNNING) {
            return -EPROTO;
        }
        member->asked = asked;
    } else if (told & VGPU_LINK_TURN_YIELDED) {
        if (a->current == member) {
            arbiter_drain(a, false, now_ns);
        } else if (member->state == ARBITER_IDLE) {
            adopt_drainer(a, member, now_ns);
        }
        /* What is off is so, whatever it has said of its end. */
        member->yielded = member->state == ARBITER_DRAINING;
        member->from_ns = now_ns;
        member->asked = asked;
    } else {
        if (member->state != ARBITER_IDLE) {
            end_any_turn(a, member);
        }
        if (asked) {
            return arbiter_ask(member, now_ns);
        }
    }
    arbiter_advance(a, now_ns);
    return 0;
}

/* Those who drain, of this account or of all, are to be off at once. */
static void pause_drainers(struct arbiter *a, const struct arbiter_account *account,
                           uint64_t now_ns)
{
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        if (!account || member_of(e)->account == account) {
            member_of(e)->off_ns = now_ns;
        }
    }
    turn_off_drainers(a, now_ns);
}

/* What was stopped for a pause has held others up meanwhile, which was not its own fault. */
static void resume_drainers(struct arbiter *a, const struct arbiter_account *account,
                            uint64_t now_ns)
{
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        if (!account || member_of(e)->account == account) {
            set_late(member_of(e), false);
            member_of(e)->due_ns = now_ns;
        }
    }
}

void arbiter_pause_account(struct arbiter *a, struct arbiter_account *account, bool paused,
                           uint64_t now_ns)
{
    const struct arbiter_band *band = &a->band[account->priority];

    if (account->paused == paused) {
        return;
    }
    arbiter_settle(a, now_ns);
    account->paused = paused;
    if (paused) {
        list_remove(&account->entry);
        if (a->current && a->current->account == account) {
            stop_current(a, now_ns);
        }
        pause_drainers(a, account, now_ns);
    } else {
        if (account->virtual_ns < band->virtual_ns) {
            account->virtual_ns = band->virtual_ns;
        }
        /* Without members until now it has no ring yet. */
        if (account->waiting.next && !list_empty(&account->waiting)) {
            list_account(a, account);
        }
        resume_drainers(a, account, now_ns);
    }
    arbiter_advance(a, now_ns);
}

void arbiter_pause(struct arbiter *a, uint64_t now_ns)
{
    arbiter_settle(a, now_ns);
    a->paused = true;
    if (a->current) {
        stop_current(a, now_ns);
    }
    pause_drainers(a, NULL, now_ns);
}

void arbiter_hold(struct arbiter *a, uint64_t now_ns)
{
    arbiter_settle(a, now_ns);
    a->paused = true;
}

void arbiter_doubt(struct arbiter_member *member, uint64_t now_ns)
{
    struct arbiter *a = member->arbiter;

    if (a && a->current == member) {
        arbiter_settle(a, now_ns);
        stop_current(a, now_ns);
    }
}

void arbiter_resume(struct arbiter *a, uint64_t now_ns)
{
    arbiter_settle(a, now_ns);
    a->paused = false;
    resume_drainers(a, NULL, now_ns);
    arbiter_advance(a, now_ns);
}

/*
 * When a band that waits will have earned a turn; 0: never, or already. `charged_ns` is the time
 * that `credit` is of.
 */
static uint64_t credit_deadline(const struct arbiter *a, int band)
{
    const int64_t credit = a->band[band].credit;

    if (a->rules.least_share == 0 || band >= served_band(a) || !band_waits(a, (unsigned)band) ||
        credit >= 0) {
        return 0;
    }
    return a->charged_ns + (uint64_t)-credit / a->rules.least_share + CREDIT_STEP_NS;
}

/* When a member will have held others up for as long as it may, if it does so from now on. */
static uint64_t limit_deadline(const struct arbiter *a, const struct arbiter_member *member)
{
    const uint64_t left = a->rules.limit_ns > member->held_up_ns
                              ? a->rules.limit_ns - member->held_up_ns
                              : 0;

    return a->charged_ns + (left > LIMIT_STEP_NS ? left : LIMIT_STEP_NS);
}

static bool anybody_to_serve(const struct arbiter *a)
{
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (arbiter_pick(a, i)) {
            return true;
        }
    }
    return false;
}

uint64_t arbiter_deadline(const struct arbiter *a)
{
    uint64_t deadline = 0;

    if (a->paused || (!anybody_waits(a) && !a->current)) {
        return 0;
    }
    /* One that waits and may not be served, for a late one of its VM, ends nobody's turn. */
    if (a->current && a->current->due_ns != 0 && anybody_to_serve(a)) {
        deadline = stop_time(a);
        if (!a->current->alerted_next) {
            /* 1 is long past and so means now; 0 would mean never. */
            deadline = a->current->due_ns > ALERT_NS ? a->current->due_ns - ALERT_NS : 1;
        }
    }
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        const struct arbiter_member *member = member_of(e);
        const uint64_t late = member->due_ns + a->rules.patience_ns;

        if (may_turn_off(a, member)) {
            deadline = clock_earlier(deadline, member->off_ns > 1 ? member->off_ns : 1);
        }
        if (late > a->charged_ns && !member->late && !is_held(member) && anybody_waits(a)) {
            deadline = clock_earlier(deadline, late);
        } else if (a->rules.limit_ns != 0 && !member->told && !may_be_held(member)) {
            deadline = clock_earlier(deadline, limit_deadline(a, member));
        }
    }
    for (int i = 0; i < (int)VGPU_PRIORITIES; i++) {
        deadline = clock_earlier(deadline, credit_deadline(a, i));
    }
    return deadline;
}

void arbiter_tick(struct arbiter *a, uint64_t now_ns)
{
    arbiter_settle(a, now_ns);
    arbiter_advance(a, now_ns);
    arbiter_alert(a, now_ns);
    if (a->paused || a->rules.limit_ns == 0) {
        return;
    }
    if (!in_the_way(a)) {
        forget_dues(a, now_ns);
        return;
    }
    for (struct list_entry *e = a->draining.next; e != &a->draining; e = e->next) {
        struct arbiter_member *member = member_of(e);

        if (!member->told && member->held_up_ns >= a->rules.limit_ns) {
            member->told = true;
            member->expired(member);
        }
    }
}

bool arbiter_busy(const struct arbiter_member *member)
{
    return member->state == ARBITER_WAITING || member->state == ARBITER_DRAINING ||
           member->state == ARBITER_OFF ||
           (member->state == ARBITER_CURRENT &&
            shared_load(&member->word->state) != VGPU_TURN_OPEN);
}
