/* SPDX-License-Identifier: MIT */
/* A register-mode session: states and orders of stores as session.h tells. */
#include "session.h"

#include <errno.h>
#include <string.h>

#include "clock.h"
#include "eventfds.h"
#include "shared.h"

static void signal_irq(struct session *s)
{
    if (shared_load(&s->page->irq_wanted) != 0) {
        eventfds_signal(s->irq);
    }
}

static void count_answer(struct session *s, enum vgpu_error error)
{
    struct vgpu_turn_page *counters = s->turn.page;

    counters->requests++;
    if (error != VGPU_ERROR_NONE) {
        counters->errors++;
    } else if (request_needs_turn(&s->request)) {
        counters->elements += s->request.count;
    }
}

/* Gives the answer; the session is idle then. `length` bytes of s->response are it. */
static void publish(struct session *s, enum vgpu_error error, uint32_t length)
{
    memcpy(s->page->response, s->response, length);
    shared_store(&s->page->response_len, length);
    shared_store(&s->page->error, error);
    /* Partner: the load-acquire of STATUS in QEMU and in libvgpu. */
    shared_store_release(&s->page->status,
                         error == VGPU_ERROR_NONE ? VGPU_STATUS_COMPLETE : VGPU_STATUS_ERROR);
    shared_store_release(&s->page->journal.state, VGPU_JOURNAL_EMPTY);
    count_answer(s, error);
    s->state = SESSION_IDLE;
    s->published_ns = clock_ns();
    signal_irq(s);
}

/* The journal's text before its state, so that a state is never ahead of its text. */
static void note(struct session *s, enum vgpu_journal_state state)
{
    struct vgpu_journal *journal = &s->page->journal;

    if (state == VGPU_JOURNAL_ACCEPTED) {
        memcpy(journal->request, s->copy, sizeof(journal->request));
        shared_store(&journal->length, s->length);
    }
    shared_store_release(&journal->state, state);
}

static struct backend_job make_job(struct session *s)
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

/* After the backend: `r` is 0 or its error. */
static int finish(struct session *s, int r)
{
    const uint64_t ns = clock_ns() - s->started_ns;
    uint32_t length = 0;
    int link;

    if (s->request.opcode == VGPU_OP_ADD_INLINE && r == 0) {
        length = (uint32_t)s->request.count * VGPU_ELEMENT_SIZE;
    }
    s->turn.page->busy_ns += ns;
    publish(s,
            r == 0         ? VGPU_ERROR_NONE
            : r == -ENOMEM ? VGPU_ERROR_NO_MEMORY
                           : VGPU_ERROR_BACKEND,
            length);
    link = turn_finish(&s->turn);
    /* Out of memory leaves the backend usable; after other failures a new worker is. */
    return r == 0 || r == -ENOMEM ? link : r;
}

static int run(struct session *s)
{
    const struct backend_job job = make_job(s);
    int r;

    note(s, request_repeatable(&s->request) ? VGPU_JOURNAL_STARTED : VGPU_JOURNAL_ONCE);
    s->state = SESSION_RUNNING;
    s->started_ns = clock_ns();
    r = backend_start(s->backend, &job);
    return r == -EINPROGRESS ? 0 : finish(s, r);
}

/* Answers what needs no turn. */
static void answer(struct session *s)
{
    uint32_t length;

    if (s->request.opcode == VGPU_OP_ECHO) {
        length = (uint32_t)s->request.count;
        memcpy(s->response, s->request.echo, length);
    } else {
        length = sizeof(s->backend->info);
        memcpy(s->response, &s->backend->info, length);
    }
    publish(s, VGPU_ERROR_NONE, length);
}

/* Decodes s->copy and starts, queues or answers it. */
static int accept_request(struct session *s)
{
    const enum vgpu_error error = request_decode(s->copy, s->length, s->shm_size, &s->request);

    if (error != VGPU_ERROR_NONE) {
        publish(s, error, 0);
        return 0;
    }
    if (!request_needs_turn(&s->request)) {
        answer(s);
        return 0;
    }
    note(s, VGPU_JOURNAL_ACCEPTED);
    if (turn_try(&s->turn)) {
        return run(s);
    }
    s->state = SESSION_WAITING;
    return turn_ask(&s->turn);
}

/* Takes the request from where the guest wrote it. */
static int take_request(struct session *s)
{
    s->length = shared_load(&s->page->request_len);
    shared_copy_in(s->copy, s->page->request, sizeof(s->copy));
    return accept_request(s);
}

/* The same, from the journal of the worker before. */
static int take_over(struct session *s)
{
    s->length = shared_load(&s->page->journal.length);
    shared_copy_in(s->copy, s->page->journal.request, sizeof(s->copy));
    return accept_request(s);
}

int session_doorbell(struct session *s)
{
    eventfd_t value;

    if (!eventfds_ready(s->doorbell)) {
        return 0;
    }
    /* BUSY first: see session.h. */
    shared_store_release(&s->page->status, VGPU_STATUS_BUSY);
    if (eventfd_read(s->doorbell, &value) != 0) {
        return -errno;
    }
    return take_request(s);
}

int session_turn(struct session *s)
{
    return run(s);
}

int session_backend(struct session *s)
{
    const int r = backend_finish(s->backend);

    return r == -EINPROGRESS ? 0 : finish(s, r);
}

static void discard(struct session *s)
{
    eventfds_clear(s->doorbell);
    shared_store(&s->page->response_len, 0);
    shared_store(&s->page->error, VGPU_ERROR_NONE);
    shared_store_release(&s->page->journal.state, VGPU_JOURNAL_EMPTY);
    shared_store_release(&s->page->status, VGPU_STATUS_IDLE);
}

int session_start(struct session *s, enum session_takeover takeover, enum vgpu_error error)
{
    const uint32_t state = shared_load_acquire(&s->page->journal.state);

    s->state = SESSION_IDLE;
    shared_store(&s->page->generation, shared_load(&s->page->generation) + 1);
    shared_store(&s->page->features, s->backend->info.backend);
    if (takeover == SESSION_DISCARD) {
        discard(s);
        return 0;
    }
    if (shared_load_acquire(&s->page->status) != VGPU_STATUS_BUSY) {
        shared_store_release(&s->page->journal.state, VGPU_JOURNAL_EMPTY);
        return 0;
    }
    if (takeover == SESSION_FAIL) {
        publish(s, error, 0);
        return 0;
    }
    switch (state) {
    case VGPU_JOURNAL_ACCEPTED:
    case VGPU_JOURNAL_STARTED:
        return take_over(s);
    case VGPU_JOURNAL_EMPTY:
        /* It was not noted yet. Where its doorbell is still up, that brings it again. */
        return eventfds_ready(s->doorbell) ? 0 : take_request(s);
    default:
        publish(s, VGPU_ERROR_WORKER_LOST, 0);
        return 0;
    }
}
