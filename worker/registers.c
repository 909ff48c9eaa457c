/* SPDX-License-Identifier: MIT */
/*
 * Serving a register page: states and orders of stores as registers.h tells. A request comes by the
 * doorbell, or from the journal of the worker before; accept_request() decodes it and answers, runs
 * or queues it.
 *
 *   IDLE      The journal is EMPTY, no turn is held, and an answer is owed only where a doorbell
 *             is still up. That may be taken.
 *   WAITING   The journal is ACCEPTED, and nothing is done yet. Some turns may be held; they are
 *             given back if others come first. A worker that is killed here loses nothing.
 *   RUNNING   The journal is STARTED or ONCE. The backend reads and writes the copy or the shared
 *             memory, so no turn is given back, whatever its word says, until it has finished.
 *
 * In each state the guest may write to its buffers what it likes: s->copy is what counts. How a
 * request is decoded is in request.c; waiting for descriptors is register-worker.c's.
 */
#include "worker/registers.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/eventfds.h"
#include "common/shared.h"

/* How often a request that has one turn and waits for another looks whether it still has it. */
#define LOOK_NS (10 * NS_PER_MS)

/* The flag follows whether the guest has MSI-X on: a guest that polls wakes nobody. */
static void signal_irq(struct registers *s)
{
    if (shared_load(&s->page->irq_wanted) != 0) {
        interrupt_raise(&s->interrupt);
    }
}

static void count_answer(struct registers *s, enum vgpu_error error)
{
    struct vgpu_counters *counters = &s->turn_page->counters;

    counters->requests++;
    if (error != VGPU_ERROR_NONE) {
        counters->errors++;
    } else if (request_needs_turn(&s->request)) {
        counters->elements += s->request.count;
    }
}

/*
 * Gives the answer; the page is idle then. `length` bytes of s->response are it. If this worker is
 * killed before STATUS is stored the next one runs the request again, or says that it may not; if
 * before the journal is EMPTY, STATUS tells the next one that nothing is owed.
 */
static void publish_answer(struct registers *s, enum vgpu_error error, uint32_t length)
{
    memcpy(s->page->response, s->response, length);
    shared_store(&s->page->response_len, length);
    shared_store(&s->page->error, error);
    /* Partner: the load-acquire of STATUS in QEMU and in libvgpu. */
    shared_store_release(&s->page->status,
                         error == VGPU_ERROR_NONE ? VGPU_STATUS_COMPLETE : VGPU_STATUS_ERROR);
    shared_store_release(&s->page->journal.state, VGPU_JOURNAL_EMPTY);
    count_answer(s, error);
    s->state = REGISTERS_IDLE;
    s->published_ns = clock_ns();
    signal_irq(s);
}

/*
 * The journal's text before its state, so that a state is never ahead of its text. The next worker
 * reads the state first.
 */
static void note_journal(struct registers *s, enum vgpu_journal_state state)
{
    struct vgpu_journal *journal = &s->page->journal;

    if (state == VGPU_JOURNAL_ACCEPTED) {
        memcpy(journal->request, s->copy, sizeof(journal->request));
        shared_store(&journal->length, s->length);
    }
    shared_store_release(&journal->state, state);
}

static struct backend_job make_job(struct registers *s)
{
    const struct request *r = &s->request;
    struct backend_job job = {.type = r->type, .count = r->count};

    if (r->opcode == VGPU_OP_ADD_INLINE) {
        job.a = r->inlined.a;
        job.b = r->inlined.b;
        job.sum = s->response;
    } else {
        job.a = s->shm + r->shm.a;
        job.b = s->shm + r->shm.b;
        job.sum = s->shm + r->shm.sum;
        job.in_shm = 1;
    }
    return job;
}

/*
 * Ends all turns that are held, also when one of the messages fails. Returns 0 or the first error
 * of the link.
 */
static int end_turns(struct registers *s)
{
    int r = 0;

    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        if (s->held & 1u << i) {
            const int sent = turn_finish(&s->turns[i]);

            r = r < 0 ? r : sent;
        }
    }
    s->held = 0;
    return r;
}

/*
 * After the backend: `r` is 0 or its error. The guest has its answer before turns are returned: it
 * need not wait for the messages to the mediator.
 */
static int finish_request(struct registers *s, int r)
{
    const uint64_t ns = clock_ns() - s->started_ns;
    uint32_t length = 0;
    int link;

    if (s->request.opcode == VGPU_OP_ADD_INLINE && r == 0) {
        length = (uint32_t)s->request.count * VGPU_ELEMENT_SIZE;
    }
    s->turn_page->counters.gpu_ns[VGPU_ENGINE_COMPUTE] += ns;
    s->turn_page->counters.in_flight = 0;
    publish_answer(s,
                   r == 0         ? VGPU_ERROR_NONE
                   : r == -ENOMEM ? VGPU_ERROR_NO_MEMORY
                                  : VGPU_ERROR_BACKEND,
                   length);
    link = end_turns(s);
    /* Out of memory leaves the backend usable; after other failures a new worker is. */
    return r == 0 || r == -ENOMEM ? link : r;
}

/*
 * The journal says so before the backend starts. STARTED where the sum goes elsewhere than the
 * operands: to do it again gives the same. ONCE where it replaces one of them.
 */
static int run_request(struct registers *s)
{
    const struct backend_job job = make_job(s);
    int r;

    note_journal(s, request_repeatable(&s->request) ? VGPU_JOURNAL_STARTED : VGPU_JOURNAL_ONCE);
    s->state = REGISTERS_RUNNING;
    s->turn_page->counters.in_flight = 1;
    s->started_ns = clock_ns();
    r = backend_start(s->backend, &job);
    return r == -EINPROGRESS ? 0 : finish_request(s, r);
}

/* Vectors in the shared memory are copied from and to it. */
static unsigned engines_of(const struct request *request)
{
    const unsigned compute = 1u << VGPU_ENGINE_COMPUTE;

    return request->opcode == VGPU_OP_ADD_INLINE
               ? compute
               : compute | 1u << VGPU_ENGINE_TO_DEVICE | 1u << VGPU_ENGINE_FROM_DEVICE;
}

/* Whether others come first on an engine that it has the turn of. */
static bool turn_stopped(const struct registers *s)
{
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        if ((s->held & 1u << i) != 0 && turn_state(&s->turns[i]) == VGPU_TURN_STOPPED) {
            return true;
        }
    }
    return false;
}

/*
 * In how many ns the turns that it has may be used: then the work of the sessions before is about
 * to end. The mediator may store an earlier time at any moment, and says so by a TURN.
 */
static uint64_t starts_in(const struct registers *s)
{
    const uint64_t now = clock_ns();
    uint64_t last = now;

    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        const uint64_t from = shared_load64(&s->turn_page->turn[i].from_ns);

        if ((s->held & 1u << i) != 0 && from > last) {
            last = from;
        }
    }
    return last - now;
}

/*
 * Takes the turns that the request needs, or asks for the first that is not to be had. When one is
 * stopped all are returned: they are always taken in the same order, so that no two wait for each
 * other.
 */
static int take_turns(struct registers *s)
{
    const unsigned needed = engines_of(&s->request);
    const int r = turn_stopped(s) ? end_turns(s) : 0;

    if (r < 0) {
        return r;
    }
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        if (!(needed & ~s->held & 1u << i)) {
            continue;
        }
        /* One that was asked for is only looked at, since a second ASK would be a mistake. */
        if (s->turns[i].asked ? !turn_granted(&s->turns[i]) : !turn_try(&s->turns[i])) {
            s->state = REGISTERS_WAITING;
            return s->turns[i].asked ? 0 : turn_ask(&s->turns[i]);
        }
        s->held |= 1u << i;
    }
    s->state = REGISTERS_WAITING;
    return starts_in(s) == 0 ? run_request(s) : 0;
}

/* Never 0 while there is something to wait for: hence the nanosecond that is added. */
uint64_t registers_wait(const struct registers *s)
{
    if (s->state != REGISTERS_WAITING || s->held == 0) {
        return 0;
    }
    /* A turn that it has may be stopped while it waits for another, which nobody tells. */
    return s->held == engines_of(&s->request) ? starts_in(s) + 1 : LOOK_NS;
}

int registers_look(struct registers *s)
{
    return s->state == REGISTERS_WAITING && s->held != 0 &&
                   (turn_stopped(s) || s->held == engines_of(&s->request))
               ? take_turns(s)
               : 0;
}

/* Answers what needs no turn. */
static void give_answer(struct registers *s)
{
    uint32_t length;

    if (s->request.opcode == VGPU_OP_ECHO) {
        length = (uint32_t)s->request.count;
        memcpy(s->response, s->request.echo, length);
    } else {
        length = sizeof(s->backend->info);
        memcpy(s->response, &s->backend->info, length);
    }
    publish_answer(s, VGPU_ERROR_NONE, length);
}

/* Whether this worker is at rest, and the request is for one that is not. */
static bool wants_device(const struct registers *s)
{
    return !s->backend->ops &&
           (request_needs_turn(&s->request) ||
            (s->request.opcode == VGPU_OP_DEVICE_INFO && s->backend->info.name[0] == '\0'));
}

/*
 * Decodes s->copy and starts, queues or answers it. A request that needs no turn is not noted in
 * the journal: it is answered at once, and a worker that took over would find it in the buffer.
 */
static int accept_request(struct registers *s)
{
    const enum vgpu_error error = request_decode(s->copy, s->length, s->shm_size, &s->request);

    if (error != VGPU_ERROR_NONE) {
        publish_answer(s, error, 0);
        return 0;
    }
    if (wants_device(s)) {
        note_journal(s, VGPU_JOURNAL_ACCEPTED);
        return REGISTERS_WAKE;
    }
    if (!request_needs_turn(&s->request)) {
        give_answer(s);
        return 0;
    }
    note_journal(s, VGPU_JOURNAL_ACCEPTED);
    return take_turns(s);
}

/* Takes the request from where the guest wrote it. */
static int take_request(struct registers *s)
{
    s->length = shared_load(&s->page->request_len);
    shared_copy_in(s->copy, s->page->request, sizeof(s->copy));
    return accept_request(s);
}

/*
 * The same, from the journal of the worker before. The page is also QEMU's, so what the journal
 * holds is decoded like a guest's bytes.
 */
static int take_over_owed(struct registers *s)
{
    s->length = shared_load(&s->page->journal.length);
    shared_copy_in(s->copy, s->page->journal.request, sizeof(s->copy));
    return accept_request(s);
}

int registers_doorbell(struct registers *s)
{
    eventfd_t value;

    /* QEMU has the eventfd too: if it has emptied it, reading would block, and nobody has rung. */
    if (!eventfds_ready(s->doorbell)) {
        return 0;
    }
    /* BUSY first: see registers.h. */
    shared_store_release(&s->page->status, VGPU_STATUS_BUSY);
    if (eventfd_read(s->doorbell, &value) != 0) {
        return -errno;
    }
    return take_request(s);
}

int registers_turn(struct registers *s, uint32_t engine)
{
    if (engine >= VGPU_ENGINES) {
        return -EPROTO;
    }
    if (s->state != REGISTERS_WAITING || (s->held & 1u << engine) != 0 || !s->turns[engine].asked ||
        !turn_granted(&s->turns[engine])) {
        return 0; /* it is told that the turn comes soon, or may start earlier */
    }
    s->held |= 1u << engine;
    return take_turns(s);
}

int registers_backend(struct registers *s)
{
    const int r = backend_finish(s->backend);

    return r == -EINPROGRESS ? 0 : finish_request(s, r);
}

/*
 * The guest was reset. STATUS comes last: while it is BUSY a worker that took over would look at
 * the journal, which is not EMPTY yet.
 */
static void discard_owed(struct registers *s)
{
    eventfds_clear(s->doorbell);
    shared_store(&s->page->response_len, 0);
    shared_store(&s->page->error, VGPU_ERROR_NONE);
    shared_store_release(&s->page->journal.state, VGPU_JOURNAL_EMPTY);
    shared_store_release(&s->page->status, VGPU_STATUS_IDLE);
}

int registers_start(struct registers *s, enum registers_takeover takeover, enum vgpu_error error)
{
    const uint32_t state = shared_load_acquire(&s->page->journal.state);

    s->state = REGISTERS_IDLE;
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        s->turns[i] = (struct turn){
            .page = s->turn_page,
            .link = s->link,
            .engine = (enum vgpu_engine)i,
        };
    }
    shared_store(&s->page->generation, shared_load(&s->page->generation) + 1);
    shared_store(&s->page->features, s->backend->info.backend);
    if (takeover == REGISTERS_DISCARD) {
        discard_owed(s);
        return 0;
    }
    if (shared_load_acquire(&s->page->status) != VGPU_STATUS_BUSY) {
        shared_store_release(&s->page->journal.state, VGPU_JOURNAL_EMPTY);
        return 0;
    }
    if (takeover == REGISTERS_FAIL) {
        publish_answer(s, error, 0);
        return 0;
    }
    switch (state) {
    case VGPU_JOURNAL_ACCEPTED:
    case VGPU_JOURNAL_STARTED:
        return take_over_owed(s);
    case VGPU_JOURNAL_EMPTY:
        /*
         * The worker before was killed between storing BUSY and noting the request, or answering
         * one that is not noted. A doorbell that is still up brings it: it is not to run twice.
         */
        return eventfds_ready(s->doorbell) ? 0 : take_request(s);
    /* ONCE, or what a hostile QEMU has written. */
    default:
        publish_answer(s, VGPU_ERROR_WORKER_LOST, 0);
        return 0;
    }
}
