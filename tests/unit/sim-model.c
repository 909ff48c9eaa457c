/* SPDX-License-Identifier: MIT */
/* The simulated engine, workers and messages, see sim-model.h. */
#include "tests/unit/sim-model.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/shared.h"

#define PIECES 2048u /* of a worker, on the engine */
#define DRIVER_SLICE (2 * MS)
#define NOTICE (20 * US)
#define RESPAWN (20 * MS)
#define LEAST_LATENCY (5 * US)
#define MOST_LATENCY (300 * US)
/* How long there is no mediator, and how long the next one waits for all to say how they stand. */
#define LEAST_GAP (3 * MS)
#define MOST_GAP (60 * MS)
#define ADOPT_WAIT (20 * MS)

struct piece {
    uint64_t length_ns, left_ns, said_ns;
};

struct worker {
    struct arbiter_member member;
    struct vgpu_turn_word word;
    unsigned vm;
    unsigned life; /* counts its lives; events of former ones are stale */
    bool alive, doomed;
    bool asked, using, first, yielded;
    uint32_t seen; /* the word, when it last looked */
    unsigned jobs; /* pieces that wait; saturating ones always have some */
    struct piece piece[PIECES];
    unsigned head, count; /* of those on the engine */
    uint64_t said_ns;     /* the sum of theirs */
    uint64_t moved_ns;    /* when the first of them became the first */
    uint64_t link_ns;     /* when its last message arrives */
    uint64_t turn_ns;     /* the same, the other way */
    uint64_t asked_ns;    /* for the sample; 0: none under way */
    uint64_t yield_ns;    /* what it says in a YIELD: when the next may submit */
    uint64_t poll_ns;     /* the earliest poll to come; 0: none */
    unsigned active;      /* its place among those with work on the engine, 1...; 0: none */
    bool off_told, off;   /* what it was told, and what is so */
    unsigned off_count;   /* of what it was told */
    unsigned unheard;     /* by the mediator with this number, which has adopted it; 0: heard */
    uint32_t told;        /* how it stood, of a STATE that is under way */
};

enum kind {
    EVENT_MESSAGE,
    EVENT_TURN,
    EVENT_ENGINE,
    EVENT_POLL,
    EVENT_JOBS,
    EVENT_TICK,
    EVENT_BE,
    EVENT_OFF, /* what it was told is so */
    EVENT_SAYS_OFF,
    EVENT_DEATH,
    EVENT_ADOPT,
    EVENT_RESYNC, /* reaches a worker */
    EVENT_DOUBT,
};

enum being { COME, GO, END }; /* END: however often it came back */

struct event {
    uint64_t at_ns, order;
    struct worker *worker;
    enum kind kind;
    unsigned life, argument;
};

static struct {
    const struct sim_plan *plan;
    struct sim_result *result;
    struct arbiter arbiter;
    struct turn_history history;
    struct arbiter_account account[SIM_VMS];
    struct worker *worker;
    unsigned workers;
    uint64_t now_ns, random, order;
    struct event *heap;
    size_t events, room;

    struct worker **active;
    unsigned actives, turn; /* whose slice it is */
    uint64_t slice_ns;      /* since when */
    uint64_t counted_ns;    /* up to when progress is counted */
    unsigned engine_life;
    uint64_t tick_ns, ticked_ns;           /* the next one, and the last */
    unsigned ticks;                        /* in a row, less than 1 us from each other */
    unsigned generation;                   /* of the mediator, from 1 */
    uint64_t gone_ns;                      /* until then there is none */
    bool held;                             /* it has not heard all yet */
    uint64_t unserved_ns[VGPU_PRIORITIES]; /* since when a band waits; 0: it does not */
    unsigned traced;                       /* the VM of the line under way, 1...; 0: none */
    uint64_t traced_ns;
} s;

uint64_t sim_random(uint64_t *state, uint64_t below)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return below ? (*state * UINT64_C(2685821657736338717) >> 16) % below : 0;
}

uint64_t sim_length(uint64_t *state, uint64_t shortest, uint64_t longest)
{
    const double unit = (double)sim_random(state, 1u << 30) / (1u << 30);

    return shortest == longest
               ? shortest
               : (uint64_t)((double)shortest * pow((double)longest / (double)shortest, unit));
}

_Noreturn void sim_fail(const struct sim_plan *plan, uint64_t now_ns, const char *what)
{
    fprintf(stderr, "sim-arbiter: %s, seed %llu, at %llu ns\n", what,
            (unsigned long long)plan->seed, (unsigned long long)now_ns);
    abort();
}

static void require(bool good, const char *what)
{
    if (!good) {
        sim_fail(s.plan, s.now_ns, what);
    }
}

static const struct sim_vm *vm_of(const struct worker *w)
{
    return &s.plan->vm[w->vm];
}

static struct worker *worker_of(struct arbiter_member *member)
{
    return (struct worker *)member; /* the first member */
}

/* Events, a heap ------------------------------------------------------------------------------ */

static bool before(const struct event *one, const struct event *other)
{
    return one->at_ns != other->at_ns ? one->at_ns < other->at_ns : one->order < other->order;
}

/* Behind those of the same time that are there. */
static void put(struct event event)
{
    size_t i = s.events++;

    event.order = s.order++;
    if (s.events > s.room) {
        s.room = s.room ? 2 * s.room : 1024;
        s.heap = realloc(s.heap, s.room * sizeof(*s.heap));
        require(s.heap != NULL, "no memory");
    }
    for (; i > 0 && before(&event, &s.heap[(i - 1) / 2]); i = (i - 1) / 2) {
        s.heap[i] = s.heap[(i - 1) / 2];
    }
    s.heap[i] = event;
}

static void schedule(enum kind kind, struct worker *worker, uint64_t at_ns, unsigned argument)
{
    put((struct event){.at_ns = at_ns > s.now_ns ? at_ns : s.now_ns,
                       .worker = worker,
                       .kind = kind,
                       .life = worker ? worker->life : 0,
                       .argument = argument});
}

static struct event next_event(void)
{
    const struct event first = s.heap[0], last = s.heap[--s.events];
    size_t i = 0;

    while (2 * i + 1 < s.events) {
        size_t child = 2 * i + 1;

        if (child + 1 < s.events && before(&s.heap[child + 1], &s.heap[child])) {
            child++;
        }
        if (!before(&s.heap[child], &last)) {
            break;
        }
        s.heap[i] = s.heap[child];
        i = child;
    }
    s.heap[i] = last;
    return first;
}

static uint64_t latency(void)
{
    return LEAST_LATENCY + sim_random(&s.random, MOST_LATENCY - LEAST_LATENCY);
}

/* The engine ---------------------------------------------------------------------------------- */

static void trace(unsigned vm)
{
    if (!s.plan->trace || vm == s.traced) {
        return;
    }
    if (s.traced) {
        fprintf(s.plan->trace, "%u,%u,%.1f,%.1f\n", s.traced,
                (unsigned)s.plan->vm[s.traced - 1].priority, (double)s.traced_ns / 1e3,
                (double)s.now_ns / 1e3);
    }
    s.traced = vm;
    s.traced_ns = s.now_ns;
}

static bool anybody_waits(void)
{
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (!list_empty(&s.arbiter.band[i].accounts)) {
            return true;
        }
    }
    return false;
}

/* Counts what ran until now. */
static void engine_count(void)
{
    const uint64_t ns = s.now_ns - s.counted_ns;

    s.counted_ns = s.now_ns;
    if (ns == 0) {
        return;
    }
    if (s.actives > 0) {
        struct worker *w = s.active[s.turn];

        w->piece[w->head].left_ns -= ns;
        if (s.now_ns > s.plan->warm_ns) {
            s.result->vm[w->vm].gpu_ns += ns;
        }
    } else if (anybody_waits() && s.now_ns > s.plan->warm_ns) {
        s.result->idle_ns += ns;
    }
}

static void engine_plan(void)
{
    uint64_t rest = UINT64_MAX;
    struct worker *w;

    s.engine_life++;
    trace(s.actives > 0 ? s.active[s.turn]->vm + 1 : 0);
    if (s.actives == 0) {
        return;
    }
    w = s.active[s.turn];
    if (w->asked_ns != 0 && w->piece[w->head].left_ns == w->piece[w->head].length_ns) {
        if (vm_of(w)->priority == VGPU_PRIORITY_HIGH && s.result->samples < SIM_SAMPLES) {
            s.result->sample[s.result->samples++] = s.now_ns - w->asked_ns;
        }
        w->asked_ns = 0;
    }
    if (s.actives > 1) {
        rest = s.slice_ns + DRIVER_SLICE - s.now_ns;
    }
    rest = w->piece[w->head].left_ns < rest ? w->piece[w->head].left_ns : rest;
    schedule(EVENT_ENGINE, NULL, s.now_ns + rest, s.engine_life);
}

static void engine_rotate(void)
{
    s.turn = s.actives > 0 ? (s.turn + 1) % s.actives : 0;
    s.slice_ns = s.now_ns;
}

static void engine_number(unsigned from)
{
    for (unsigned i = from; i < s.actives; i++) {
        s.active[i]->active = i + 1;
    }
}

/* Its slice comes after everybody else's. */
static void engine_add(struct worker *w)
{
    const unsigned place = s.turn;

    if (s.actives == 0) {
        s.slice_ns = s.now_ns;
    } else if (s.actives == 1) {
        s.slice_ns = s.now_ns - (s.now_ns - s.slice_ns) % DRIVER_SLICE; /* they followed */
    }
    memmove(&s.active[place + 1], &s.active[place], (s.actives - place) * sizeof(*s.active));
    s.active[place] = w;
    s.turn += s.actives++ > 0;
    engine_number(place);
}

static void engine_remove(struct worker *w)
{
    const unsigned place = w->active - 1;

    if (w->active == 0) {
        return;
    }
    w->active = 0;
    s.actives--;
    memmove(&s.active[place], &s.active[place + 1], (s.actives - place) * sizeof(*s.active));
    engine_number(place);
    if (place < s.turn) {
        s.turn--;
    } else if (place == s.turn) {
        s.turn = s.actives > 0 ? s.turn % s.actives : 0;
        s.slice_ns = s.now_ns;
    }
}

static void poll(struct worker *w);

/* The first piece of whoever runs is over, or its slice is. */
static void engine_event(void)
{
    struct worker *w = s.active[s.turn];
    struct worker *ended = NULL;

    engine_count();
    if (w->piece[w->head].left_ns == 0) {
        w->said_ns -= w->piece[w->head].said_ns;
        w->head = (w->head + 1) % PIECES;
        w->count--;
        w->moved_ns = s.now_ns;
        ended = w;
        if (w->count == 0) {
            engine_remove(w);
        }
    }
    if (s.actives > 1 && s.now_ns >= s.slice_ns + DRIVER_SLICE) {
        engine_rotate();
    }
    engine_plan();
    if (ended) {
        poll(ended);
    }
}

/* What must hold at every submission and grant ----------------------------------------------- */

static bool overdue(const struct arbiter_member *member)
{
    return member->late ||
           (member->due_ns != 0 && s.now_ns >= member->due_ns + s.plan->rules.patience_ns);
}

/* Whether it waits, and for more than its own VM's work that is overdue. */
static bool waits(const struct worker *w)
{
    if (!w->alive || (w->member.state != ARBITER_WAITING && w->member.state != ARBITER_OFF)) {
        return false;
    }
    for (unsigned i = 0; i < s.workers && w->member.account->active > 0; i++) {
        const struct arbiter_member *m = &s.worker[i].member;

        if (s.worker[i].alive && m->account == w->member.account && m->state == ARBITER_DRAINING &&
            overdue(m)) {
            return false;
        }
    }
    return true;
}

static bool higher_waits(unsigned band)
{
    for (unsigned i = 0; i < s.workers; i++) {
        if (vm_of(&s.worker[i])->priority > band && waits(&s.worker[i])) {
            return true;
        }
    }
    return false;
}

/* Who may submit, with a higher band waiting, is only one that was lent its turn. */
static void check_submission(const struct worker *w)
{
    /* While there is no mediator, or it has not heard all, each has the rights that it had. */
    require(s.held || s.now_ns < s.gone_ns || w->member.lent || !higher_waits(vm_of(w)->priority),
            "a lower band submits while a higher one waits");
    require(s.arbiter.current == &w->member, "submits without being current");
}

/* The work of lower bands that is before the one who is granted, but for its longest piece. */
static void measure_ahead(const struct worker *granted)
{
    uint64_t sum = 0, longest = 0;

    engine_count();
    for (unsigned i = 0; i < s.actives; i++) {
        const struct worker *w = s.active[i];

        if (vm_of(w)->priority >= vm_of(granted)->priority || w->member.lent ||
            vm_of(w)->manner != SIM_HONEST || overdue(&w->member)) {
            continue;
        }
        for (unsigned j = 0; j < w->count; j++) {
            const struct piece *piece = &w->piece[(w->head + j) % PIECES];

            sum += piece->left_ns;
            longest = piece->left_ns > longest ? piece->left_ns : longest;
        }
    }
    if (sum - longest > s.result->ahead_ns) {
        s.result->ahead_ns = sum - longest;
    }
}

/* First come, first served within a slice of whoever is furthest behind, and within a VM. */
static void check_order(const struct worker *granted)
{
    const struct arbiter_account *own = granted->member.account;
    uint64_t least = own->virtual_ns;

    for (unsigned i = 0; i < s.workers; i++) {
        const struct arbiter_account *account = s.worker[i].member.account;

        if (account && account->priority == own->priority && waits(&s.worker[i]) &&
            account->virtual_ns < least) {
            least = account->virtual_ns;
        }
    }
    require(own->virtual_ns <= least + s.plan->rules.slice_ns, "granted though ahead by a slice");
    for (unsigned i = 0; i < s.workers; i++) {
        const struct arbiter_member *m = &s.worker[i].member;

        require(!s.worker[i].alive || m->state != ARBITER_CURRENT || m == &granted->member,
                "two are current");
        require(!waits(&s.worker[i]) || m->account->priority != own->priority ||
                    m->queued_ns >= granted->member.queued_ns ||
                    m->account->virtual_ns > least + s.plan->rules.slice_ns,
                "granted before one who asked first");
    }
}

static void on_granted(struct arbiter_member *member)
{
    struct worker *w = worker_of(member);
    const unsigned band = vm_of(w)->priority;
    const uint64_t wait = s.now_ns - member->queued_ns;

    s.result->vm[w->vm].grants++;
    if (wait > s.result->vm[w->vm].wait_ns) {
        s.result->vm[w->vm].wait_ns = wait;
    }
    if (s.unserved_ns[band] != 0 && s.now_ns - s.unserved_ns[band] > s.result->starved_ns[band]) {
        s.result->starved_ns[band] = s.now_ns - s.unserved_ns[band];
    }
    s.unserved_ns[band] = 0;
    check_order(w);
    measure_ahead(w);
    require(member->lent || !higher_waits(band),
            "a lower band is granted while a higher one waits");
    w->turn_ns = s.now_ns + latency() > w->turn_ns ? s.now_ns + latency() : w->turn_ns;
    schedule(EVENT_TURN, w, w->turn_ns, 0);
}

/* It looks at its word, which has a new time to start at. */
static void on_alerted(struct arbiter_member *member)
{
    struct worker *w = worker_of(member);

    w->turn_ns = s.now_ns + latency() > w->turn_ns ? s.now_ns + latency() : w->turn_ns;
    schedule(EVENT_TURN, w, w->turn_ns, 1);
}

/* A member that is turned on again has been granted, where it waited. */
static void on_turn_off(struct arbiter_member *member, bool off)
{
    struct worker *w = worker_of(member);

    require(w->off_told != off, "told what it was told before");
    w->off_told = off;
    w->off_count++;
    if (!off && member->state == ARBITER_CURRENT && member->resumed) {
        require(member->lent || !higher_waits(vm_of(w)->priority),
                "a lower band is turned on while a higher one waits");
        s.unserved_ns[vm_of(w)->priority] = 0;
    }
    if (vm_of(w)->manner != SIM_DEAF) {
        schedule(EVENT_OFF, w,
                 s.now_ns + sim_length(&s.random, s.plan->off_shortest_ns, s.plan->off_longest_ns),
                 w->off_count);
    }
}

static void on_expired(struct arbiter_member *member)
{
    worker_of(member)->doomed = true;
}

/* Workers ------------------------------------------------------------------------------------- */

static void send(struct worker *w, enum vgpu_link_type type)
{
    const uint64_t at_ns = s.now_ns + latency();

    w->link_ns = at_ns > w->link_ns ? at_ns : w->link_ns;
    schedule(EVENT_MESSAGE, w, w->link_ns, type);
}

static void poll_at(struct worker *w, uint64_t at_ns)
{
    if (w->poll_ns <= s.now_ns || at_ns < w->poll_ns) {
        w->poll_ns = at_ns;
        schedule(EVENT_POLL, w, at_ns, 0);
    }
}

static bool may_submit(const struct worker *w)
{
    if (s.now_ns < w->word.from_ns) {
        return false;
    }
    switch (w->word.state) {
    case VGPU_TURN_RUNNING:
    case VGPU_TURN_WANTED:
        return true;
    case VGPU_TURN_SHARED:
        return w->first || s.now_ns < w->word.until_ns;
    default:
        return false;
    }
}

static void submit(struct worker *w)
{
    const struct sim_vm *vm = vm_of(w);
    struct piece *piece = &w->piece[(w->head + w->count) % PIECES];

    check_submission(w);
    engine_count();
    piece->length_ns = piece->left_ns = sim_length(&s.random, vm->shortest_ns, vm->longest_ns);
    piece->said_ns = vm->manner == SIM_UNDERSTATES ? piece->left_ns / 100 : piece->left_ns;
    w->said_ns += piece->said_ns;
    w->first = false;
    if (w->count++ == 0) {
        w->moved_ns = s.now_ns;
        if (!w->off) {
            engine_add(w);
        }
    }
    if (vm->rest_ns != 0) {
        w->jobs--;
    }
}

static uint64_t said_left(const struct worker *w)
{
    const uint64_t ran = s.now_ns - w->moved_ns;

    return w->said_ns > ran ? w->said_ns - ran : 0;
}

static void rest(struct worker *w)
{
    schedule(EVENT_JOBS, w,
             s.now_ns + sim_length(&s.random, vm_of(w)->rest_ns / 4 + 1, vm_of(w)->rest_ns * 4 + 1),
             0);
}

/* What is on the engine goes on; false when the turn is over. */
static void use_turn(struct worker *w)
{
    bool submitted = false;

    while (w->jobs > 0 && !w->yielded && w->count < PIECES && may_submit(w) &&
           said_left(w) <= s.plan->window_ns) {
        submit(w);
        submitted = true;
    }
    if (submitted) {
        engine_plan();
    }
    if (w->count == 0 || w->yielded ||
        (w->word.state != VGPU_TURN_SHARED && w->word.state != VGPU_TURN_STOPPED)) {
        return;
    }
    if (w->jobs > 0 && may_submit(w)) {
        poll_at(w, w->word.until_ns);
        return;
    }
    w->yielded = true;
    w->yield_ns = s.now_ns + said_left(w);
    w->yield_ns -= said_left(w) > s.plan->yield_ns ? s.plan->yield_ns : said_left(w);
    shared_store(&w->word.state, VGPU_TURN_CLOSED);
    send(w, VGPU_LINK_YIELD);
}

static void end_turn(struct worker *w)
{
    const bool stays = !w->yielded &&
                       shared_swap(&w->word.state, VGPU_TURN_RUNNING, VGPU_TURN_OPEN);

    if (stays && w->asked) {
        send(w, VGPU_LINK_KEPT);
    } else if (!stays) {
        shared_store(&w->word.state, VGPU_TURN_CLOSED);
        send(w, VGPU_LINK_DONE);
    }
    w->asked = w->using = w->yielded = false;
}

/* An honest worker looks at its word and its work, and does what it may. */
static void poll_honest(struct worker *w)
{
    w->seen = w->word.state;
    if (w->using && w->jobs > 0 && w->count == 0 && s.now_ns < w->word.from_ns &&
        w->word.state != VGPU_TURN_STOPPED) {
        poll_at(w, w->word.from_ns);
        return;
    }
    if (w->using) {
        use_turn(w);
        if (w->count > 0) {
            return;
        }
        end_turn(w);
        if (w->jobs == 0) {
            rest(w);
        }
    }
    if (w->jobs == 0 || w->asked) {
        return;
    }
    if (shared_swap(&w->word.state, VGPU_TURN_OPEN, VGPU_TURN_RUNNING)) {
        w->using = true;
        w->seen = VGPU_TURN_RUNNING;
        use_turn(w);
        return;
    }
    w->asked = true;
    w->asked_ns = s.now_ns;
    send(w, VGPU_LINK_ASK);
}

/* It uses what it is granted, and never ends that. */
static void poll_keeper(struct worker *w)
{
    if (w->using) {
        while (w->count < 2 && may_submit(w)) {
            submit(w);
            engine_plan();
        }
        if (s.now_ns < w->word.from_ns) {
            poll_at(w, w->word.from_ns);
        }
    } else if (!w->asked) {
        w->asked = true;
        send(w, VGPU_LINK_ASK);
    }
}

static void poll_flooder(struct worker *w)
{
    static const enum vgpu_link_type types[] = {VGPU_LINK_ASK, VGPU_LINK_DONE, VGPU_LINK_YIELD,
                                                VGPU_LINK_KEPT};

    if (sim_random(&s.random, 2)) {
        shared_store(&w->word.state, (uint32_t)sim_random(&s.random, 8));
    }
    send(w, types[sim_random(&s.random, 4)]);
    poll_at(w, s.now_ns + 50 * US);
}

static void poll(struct worker *w)
{
    switch (vm_of(w)->manner) {
    case SIM_KEEPS:
        poll_keeper(w);
        break;
    case SIM_FLOODS:
        poll_flooder(w);
        break;
    default:
        poll_honest(w);
        break;
    }
}

static void join(struct worker *w)
{
    const unsigned vm = w->vm;
    const unsigned life = w->life;

    memset(w, 0, offsetof(struct worker, piece));
    w->vm = vm;
    w->life = life;
    w->head = w->count = 0;
    w->said_ns = w->link_ns = w->turn_ns = w->asked_ns = w->poll_ns = 0;
    w->member.word = &w->word;
    w->member.account = &s.account[vm];
    w->member.vm_id = vm + 1;
    w->member.granted = on_granted;
    w->member.alerted = on_alerted;
    w->member.expired = on_expired;
    w->member.turn_off = s.plan->off_longest_ns != 0 ? on_turn_off : NULL;
    w->off = w->off_told = false;
    w->alive = true;
    arbiter_join(&s.arbiter, &w->member);
    w->jobs = vm_of(w)->burst;
    poll(w);
    if (vm_of(w)->manner == SIM_LEAVES) {
        schedule(EVENT_BE, w, s.now_ns + latency(), GO);
    }
}

static void leave(struct worker *w)
{
    if (!w->alive) {
        return;
    }
    engine_count();
    w->alive = false;
    w->life++;
    engine_remove(w);
    w->count = 0;
    engine_plan();
    arbiter_leave(&w->member, s.now_ns);
    if (vm_of(w)->manner != SIM_HONEST) {
        schedule(EVENT_BE, w, s.now_ns + (vm_of(w)->manner == SIM_LEAVES ? latency() : RESPAWN),
                 COME);
    }
}

/* The mediator -------------------------------------------------------------------------------- */

/* Since when each band waits. */
static void count_unserved(void)
{
    bool any[VGPU_PRIORITIES] = {false};

    for (unsigned i = 0; i < s.workers; i++) {
        const unsigned band = vm_of(&s.worker[i])->priority;

        any[band] = any[band] || waits(&s.worker[i]);
    }
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (!any[i]) {
            s.unserved_ns[i] = 0;
        } else if (s.unserved_ns[i] == 0) {
            s.unserved_ns[i] = s.now_ns;
        }
    }
}

/* After every decision: whose word was changed looks at it soon; nobody is forgotten. */
static void after_decision(void)
{
    struct arbiter *arbiter = &s.arbiter;
    uint64_t deadline;

    s.result->decisions++;
    for (unsigned i = 0; i < s.workers; i++) {
        struct worker *w = &s.worker[i];

        if (w->alive && w->doomed) {
            leave(w);
        }
        if (w->alive && w->using && !w->yielded && w->word.state != w->seen) {
            poll_at(w, s.now_ns + NOTICE);
        }
    }
    require(s.held || arbiter->current || !list_empty(&arbiter->draining) || !anybody_waits(),
            "the engine is free, and somebody waits");
    count_unserved();
    deadline = arbiter_deadline(arbiter);
    if (deadline != 0 && deadline <= s.now_ns) {
        arbiter_tick(arbiter, s.now_ns);
        deadline = arbiter_deadline(arbiter);
    }
    require(deadline == 0 || deadline > s.now_ns, "a deadline has passed, and stays");
    if (deadline != 0 && (s.tick_ns <= s.now_ns || deadline < s.tick_ns)) {
        s.tick_ns = deadline;
        schedule(EVENT_TICK, NULL, deadline, 0);
    }
}

/* Turns go on: all have said how they stand, or have had their time for it. */
static void end_hold(void)
{
    s.held = false;
    arbiter_resume(&s.arbiter, s.now_ns);
}

static int on_state(struct worker *w)
{
    const int result = arbiter_resync(&w->member, w->told, s.now_ns);
    bool all = true;

    w->unheard = 0;
    for (unsigned i = 0; i < s.workers; i++) {
        all = all && (!s.worker[i].alive || s.worker[i].unheard == 0);
    }
    if (s.held && all) {
        end_hold();
    }
    return result;
}

static void on_message(struct worker *w, unsigned type)
{
    int result = 0;

    if (w->unheard != 0 && type != VGPU_LINK_STATE + s.generation) {
        return; /* it was for another mediator */
    }
    switch (type) {
    case VGPU_LINK_ASK:
        result = arbiter_ask(&w->member, s.now_ns);
        break;
    case VGPU_LINK_DONE:
        result = arbiter_done(&w->member, s.now_ns);
        break;
    case VGPU_LINK_YIELD:
        result = arbiter_yield(&w->member, w->yield_ns, s.now_ns);
        break;
    case VGPU_LINK_KEPT:
        result = arbiter_kept(&w->member, s.now_ns);
        break;
    default:
        result = w->unheard != 0 ? on_state(w) : 0;
        break;
    }
    if (result < 0) {
        require(vm_of(w)->manner != SIM_HONEST, "an honest worker is refused");
        leave(w);
    }
    after_decision();
}

/* Its work leaves the engine, or comes back; what it was told meanwhile follows. */
static void on_off(struct worker *w, unsigned count)
{
    if (count != w->off_count) {
        return;
    }
    engine_count();
    s.result->offs += w->off_told;
    w->off = w->off_told;
    if (w->off) {
        engine_remove(w);
        schedule(EVENT_SAYS_OFF, w, s.now_ns + latency(), count);
    } else if (w->count > 0 && w->active == 0) {
        w->moved_ns = s.now_ns;
        engine_add(w);
    }
    engine_plan();
}

/* Another mediator ------------------------------------------------------------------------- */

static void on_death(void)
{
    s.result->deaths++;
    s.generation++;
    s.gone_ns = s.now_ns + sim_length(&s.random, LEAST_GAP, MOST_GAP);
    s.tick_ns = 0;
    schedule(EVENT_ADOPT, NULL, s.gone_ns, 0);
}

static void adopt(struct worker *w)
{
    w->member.turn_off = NULL;
    arbiter_adopt(&s.arbiter, &w->member, s.now_ns);
    w->member.turn_off = s.plan->off_longest_ns != 0 ? on_turn_off : NULL;
    if (w->off_told) {
        on_turn_off(&w->member, false);
    }
    w->unheard = s.generation;
    w->doomed = false;
    /* Now and then it is in a call of the driver's that takes long. */
    schedule(EVENT_RESYNC, w,
             s.now_ns + (sim_random(&s.random, 8) == 0 ? sim_length(&s.random, 5 * MS, 200 * MS)
                                                       : latency()),
             s.generation);
}

static void on_adopt(void)
{
    arbiter_init(&s.arbiter, 0, 0, &s.history, &s.plan->rules);
    arbiter_hold(&s.arbiter, s.now_ns);
    s.held = true;
    memset(s.unserved_ns, 0, sizeof(s.unserved_ns));
    for (unsigned i = 0; i < s.plan->count; i++) {
        s.account[i] = (struct arbiter_account){.priority = s.plan->vm[i].priority,
                                                .weight = s.plan->vm[i].weight};
    }
    for (unsigned i = 0; i < s.workers; i++) {
        if (s.worker[i].alive) {
            adopt(&s.worker[i]);
        }
    }
    schedule(EVENT_DOUBT, NULL, s.now_ns + ADOPT_WAIT, s.generation);
    schedule(EVENT_DEATH, NULL, s.now_ns + 1 + sim_random(&s.random, 2 * s.plan->death_ns), 0);
    after_decision();
}

static void on_doubt(void)
{
    for (unsigned i = 0; i < s.workers; i++) {
        if (s.worker[i].alive && s.worker[i].unheard != 0) {
            arbiter_doubt(&s.worker[i].member, s.now_ns);
        }
    }
    if (s.held) {
        end_hold();
    }
    after_decision();
}

/* It says how it stands, and sees what a lost message would have told. A deaf one says nothing. */
static void on_resync(struct worker *w, unsigned generation)
{
    const bool liar = vm_of(w)->manner == SIM_FLOODS;

    if (generation != s.generation) {
        return; /* that mediator is gone, and the next one's RESYNC comes behind this */
    }
    w->told = w->word.state | (w->asked ? VGPU_LINK_TURN_ASKED : 0) |
              (w->yielded ? VGPU_LINK_TURN_YIELDED : 0);
    if (liar) {
        w->told = (uint32_t)sim_random(&s.random, 1024);
    }
    if (vm_of(w)->manner != SIM_KEEPS) {
        send(w, VGPU_LINK_STATE + generation);
    }
    if (w->asked && !w->using && w->word.state != VGPU_TURN_CLOSED) {
        w->using = w->first = true;
        poll(w);
    }
}

static void on_being(struct worker *w, const struct event *event)
{
    const uint64_t until = vm_of(w)->until_ns;

    if (event->argument != COME) {
        if (event->argument == END || event->life == w->life) {
            leave(w);
        }
    } else if (!w->alive && (until == 0 || s.now_ns < until)) {
        join(w);
    }
    after_decision();
}

/* In the order in which they come: the later one has the later place in the heap. */
static void put_off(const struct event *event)
{
    struct event later = *event;

    later.at_ns = s.gone_ns;
    put(later);
}

static void on_event(const struct event *event)
{
    struct worker *w = event->worker;

    if (s.now_ns < s.gone_ns && (event->kind == EVENT_BE || event->kind == EVENT_MESSAGE)) {
        /* There is nobody who would see it yet. */
        put_off(event);
        return;
    }
    if (event->kind == EVENT_BE) {
        on_being(w, event);
        return;
    }
    if (w && (event->life != w->life || !w->alive)) {
        return;
    }
    switch (event->kind) {
    case EVENT_MESSAGE:
        on_message(w, event->argument);
        break;
    case EVENT_TURN:
        if (event->argument == 0) {
            w->using = w->first = true;
        }
        if (w->using) {
            poll(w);
        }
        break;
    case EVENT_ENGINE:
        if (event->argument == s.engine_life) {
            engine_event();
        }
        break;
    case EVENT_JOBS:
        w->jobs += vm_of(w)->burst;
        poll(w);
        break;
    case EVENT_OFF:
        on_off(w, event->argument);
        break;
    case EVENT_DEATH:
        on_death();
        break;
    case EVENT_ADOPT:
        on_adopt();
        break;
    case EVENT_RESYNC:
        on_resync(w, event->argument);
        break;
    case EVENT_DOUBT:
        if (event->argument == s.generation && s.now_ns >= s.gone_ns) {
            on_doubt();
        }
        break;
    case EVENT_SAYS_OFF:
        if (event->argument == w->off_count && s.now_ns >= s.gone_ns) {
            arbiter_off(&w->member, s.now_ns);
            after_decision();
        }
        break;
    case EVENT_POLL:
        if (event->at_ns == w->poll_ns) {
            poll(w);
        }
        break;
    default:
        if (event->at_ns == s.tick_ns && s.now_ns >= s.gone_ns) {
            s.ticks = s.now_ns < s.ticked_ns + US ? s.ticks + 1 : 0;
            s.ticked_ns = s.now_ns;
            require(s.ticks < 1000, "ticks without end");
            arbiter_tick(&s.arbiter, s.now_ns);
            after_decision();
        }
        break;
    }
}

static void populate(const struct sim_plan *plan)
{
    unsigned index = 0;

    for (unsigned i = 0; i < plan->count; i++) {
        s.account[i].priority = plan->vm[i].priority;
        s.account[i].weight = plan->vm[i].weight;
        s.workers += plan->vm[i].sessions;
    }
    s.worker = calloc(s.workers, sizeof(*s.worker));
    s.active = calloc(s.workers, sizeof(struct worker *));
    require(s.worker && s.active, "no memory");
    for (unsigned i = 0; i < plan->count; i++) {
        for (unsigned j = 0; j < plan->vm[i].sessions; j++) {
            struct worker *w = &s.worker[index++];

            w->vm = i;
            schedule(EVENT_BE, w, plan->vm[i].from_ns + 1 + sim_random(&s.random, MS), COME);
            if (plan->vm[i].until_ns != 0) {
                schedule(EVENT_BE, w, plan->vm[i].until_ns, END);
            }
        }
    }
}

void sim_run(const struct sim_plan *plan, struct sim_result *result)
{
    memset(&s, 0, sizeof(s));
    memset(result, 0, sizeof(*result));
    s.plan = plan;
    s.result = result;
    s.random = plan->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    arbiter_init(&s.arbiter, 0, 0, &s.history, &plan->rules);
    populate(plan);
    if (plan->death_ns != 0) {
        schedule(EVENT_DEATH, NULL, 1 + sim_random(&s.random, 2 * plan->death_ns), 0);
    }
    while (s.events > 0) {
        const struct event event = next_event();

        if (event.at_ns > plan->run_ns) {
            break;
        }
        s.now_ns = event.at_ns;
        on_event(&event);
    }
    s.now_ns = plan->run_ns;
    engine_count();
    trace(0);
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (s.unserved_ns[i] != 0 && s.now_ns - s.unserved_ns[i] > result->starved_ns[i]) {
            result->starved_ns[i] = s.now_ns - s.unserved_ns[i];
        }
    }
    free(s.worker);
    free(s.active);
    free(s.heap);
}
