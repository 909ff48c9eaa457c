/* SPDX-License-Identifier: MIT */
/*
 * The register-mode session: answers, turns, and what a worker finds that takes over. The
 * test plays QEMU, the mediator and a backend that finishes when told to.
 *
 * Tests: worker/registers*.c
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "worker/registers.h"

#define SHM (1u << 20)

static struct vgpu_regs_page page;
static struct vgpu_turn_page turn_page;
static _Alignas(16) uint8_t shm[SHM];
static struct registers session;
static int mediator; /* the other end of the link */
static int link_end;

static struct {
    struct backend head;
    int result;      /* of start, and of finish */
    unsigned starts; /* jobs that it was given */
} backend;

static int fake_start(struct backend *b, const struct backend_job *job)
{
    (void)b;
    backend.starts++;
    if (backend.result == 0) {
        for (uint64_t i = 0; i < job->count; i++) {
            ((uint32_t *)job->sum)[i] = ((const uint32_t *)job->a)[i] +
                                        ((const uint32_t *)job->b)[i];
        }
    }
    return backend.result;
}

static int fake_finish(struct backend *b)
{
    (void)b;
    return backend.result;
}

static const struct backend_ops fake_ops = {.start = fake_start, .finish = fake_finish};

/* A worker starts, which knows nothing of the one before. */
static int start_session(enum registers_takeover takeover, enum vgpu_error error)
{
    session = (struct registers){
        .page = &page,
        .shm = shm,
        .shm_size = SHM,
        .doorbell = session.doorbell,
        .interrupt = {.fd = session.interrupt.fd, .page = &turn_page},
        .backend = &backend.head,
        .turn_page = &turn_page,
        .link = link_end,
    };
    return registers_start(&session, takeover, error);
}

static int set_up(void **state)
{
    int pair[2];

    (void)state;
    memset(&page, 0, sizeof(page));
    memset(&turn_page, 0, sizeof(turn_page));
    memset(&session, 0, sizeof(session));
    memset(&backend, 0, sizeof(backend));
    backend.head.ops = &fake_ops;
    backend.head.info.backend = VGPU_FEATURE_BACKEND_CPU;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0) {
        return -1;
    }
    mediator = pair[0];
    link_end = pair[1];
    session.doorbell = eventfd(0, EFD_NONBLOCK);
    session.interrupt.fd = eventfd(0, EFD_NONBLOCK);
    return start_session(REGISTERS_RESUME, VGPU_ERROR_NONE);
}

static int tear_down(void **state)
{
    (void)state;
    close(mediator);
    close(link_end);
    close(session.doorbell);
    close(session.interrupt.fd);
    return 0;
}

static void write_request(uint32_t opcode, uint32_t type, uint64_t count, uint32_t length)
{
    const struct vgpu_request_header h = {.opcode = opcode, .type = type, .count = count};

    memcpy(page.request, &h, sizeof(h));
    page.request_len = length;
}

static void write_pair(uint32_t a, uint32_t b)
{
    write_request(VGPU_OP_ADD_INLINE, VGPU_TYPE_INT32, 1, 24);
    memcpy(page.request + 16, &a, 4);
    memcpy(page.request + 20, &b, 4);
}

static void write_shm(uint64_t a, uint64_t b, uint64_t sum)
{
    const struct vgpu_add_shm add = {.a = a, .b = b, .sum = sum};

    write_request(VGPU_OP_ADD_SHM, VGPU_TYPE_INT32, 1, 40);
    memcpy(page.request + 16, &add, sizeof(add));
}

static void ring(void)
{
    eventfd_write(session.doorbell, 1);
}

static bool doorbell_pending(void)
{
    struct pollfd p = {.fd = session.doorbell, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

/* The next message to the mediator; 0 when there is none. */
static uint32_t sent_about(uint32_t *engine)
{
    struct vgpu_link_msg msg = {0};

    if (recv(mediator, &msg, sizeof(msg), 0) != (ssize_t)sizeof(msg)) {
        return 0;
    }
    *engine = msg.engine;
    return msg.type;
}

/* The same where it is about the computing engine. */
static uint32_t sent(void)
{
    uint32_t engine = VGPU_ENGINE_COMPUTE;
    const uint32_t type = sent_about(&engine);

    assert_int_equal(engine, VGPU_ENGINE_COMPUTE);
    return type;
}

static void assert_sent(enum vgpu_link_type type, enum vgpu_engine engine)
{
    uint32_t about = VGPU_ENGINES;

    assert_int_equal(sent_about(&about), type);
    assert_int_equal(about, engine);
}

static uint32_t *word(enum vgpu_engine engine)
{
    return &turn_page.turn[engine].state;
}

static void open_turns(void)
{
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        *word((enum vgpu_engine)i) = VGPU_TURN_OPEN;
    }
}

/* The mediator grants a turn, and stores the word first. */
static void grant(enum vgpu_engine engine, enum vgpu_turn turn)
{
    *word(engine) = turn;
    assert_int_equal(registers_turn(&session, engine), 0);
}

static uint32_t result(void)
{
    uint32_t word;

    memcpy(&word, page.response, 4);
    return word;
}

static void test_open_turn_needs_no_mediator(void **state)
{
    (void)state;
    open_turns();
    write_pair(2, 3);
    ring();
    assert_int_equal(registers_doorbell(&session), 0);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    assert_int_equal(page.response_len, 4);
    assert_int_equal(result(), 5);
    assert_int_equal(*word(VGPU_ENGINE_COMPUTE), VGPU_TURN_OPEN);
    assert_int_equal(sent(), 0);
    assert_int_equal(turn_page.counters.requests, 1);
    assert_int_equal(turn_page.counters.elements, 1);
}

static void test_closed_turn_is_asked_for(void **state)
{
    (void)state;
    write_pair(2, 3);
    ring();
    assert_int_equal(registers_doorbell(&session), 0);
    assert_int_equal(page.status, VGPU_STATUS_BUSY);
    assert_int_equal(page.journal.state, VGPU_JOURNAL_ACCEPTED);
    assert_int_equal(session.state, REGISTERS_WAITING);
    assert_int_equal(sent(), VGPU_LINK_ASK);
    assert_int_equal(backend.starts, 0);
    grant(VGPU_ENGINE_COMPUTE, VGPU_TURN_WANTED);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    assert_int_equal(*word(VGPU_ENGINE_COMPUTE), VGPU_TURN_CLOSED);
    assert_int_equal(sent(), VGPU_LINK_DONE);
    assert_int_equal(sent(), 0);
    assert_int_equal(page.journal.state, VGPU_JOURNAL_EMPTY);
}

static void test_turn_that_was_asked_for_and_stays(void **state)
{
    (void)state;
    write_pair(2, 3);
    ring();
    registers_doorbell(&session);
    assert_int_equal(sent(), VGPU_LINK_ASK);
    grant(VGPU_ENGINE_COMPUTE, VGPU_TURN_RUNNING);
    assert_int_equal(*word(VGPU_ENGINE_COMPUTE), VGPU_TURN_OPEN);
    assert_int_equal(sent(), VGPU_LINK_KEPT);
    assert_int_equal(sent(), 0);
    write_pair(2, 3);
    ring();
    registers_doorbell(&session);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    assert_int_equal(sent(), 0);
    assert_int_equal(turn_page.counters.turns[VGPU_ENGINE_COMPUTE], 2);
}

/* Vectors in the shared memory need the engines that copy as well, one after the other. */
static void test_three_turns_one_by_one(void **state)
{
    (void)state;
    *word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_OPEN;
    write_shm(0, 4, 8);
    ring();
    registers_doorbell(&session);
    assert_sent(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE);
    assert_int_equal(registers_turn(&session, VGPU_ENGINES), -EPROTO);
    assert_int_equal(registers_turn(&session, UINT32_MAX), -EPROTO);
    grant(VGPU_ENGINE_COMPUTE, VGPU_TURN_RUNNING);
    assert_int_equal(*word(VGPU_ENGINE_TO_DEVICE), VGPU_TURN_RUNNING);
    assert_sent(VGPU_LINK_ASK, VGPU_ENGINE_FROM_DEVICE);
    assert_int_equal(backend.starts, 0);
    /* Messages about one that it has, and about one whose word is still closed. */
    assert_int_equal(registers_turn(&session, VGPU_ENGINE_COMPUTE), 0);
    assert_int_equal(registers_turn(&session, VGPU_ENGINE_TO_DEVICE), 0);
    assert_int_equal(registers_turn(&session, VGPU_ENGINE_FROM_DEVICE), 0);
    assert_int_equal(sent(), 0);
    assert_int_equal(backend.starts, 0);
    grant(VGPU_ENGINE_FROM_DEVICE, VGPU_TURN_SHARED);
    assert_int_equal(backend.starts, 1);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    assert_sent(VGPU_LINK_KEPT, VGPU_ENGINE_COMPUTE);
    assert_sent(VGPU_LINK_DONE, VGPU_ENGINE_FROM_DEVICE);
    assert_int_equal(sent(), 0);
    assert_int_equal(*word(VGPU_ENGINE_COMPUTE), VGPU_TURN_OPEN);
    assert_int_equal(*word(VGPU_ENGINE_TO_DEVICE), VGPU_TURN_OPEN);
    assert_int_equal(*word(VGPU_ENGINE_FROM_DEVICE), VGPU_TURN_CLOSED);
    assert_int_equal(registers_turn(&session, VGPU_ENGINE_COMPUTE), 0);
    assert_int_equal(backend.starts, 1);
}

/* Others come first on an engine that it has, while it waits for the next: it runs there later. */
/* The same, seen by itself: the turn that is waited for still is, and is not asked for twice. */
static void test_turn_stopped_while_the_next_is_still_waited_for(void **state)
{
    uint32_t engine;

    for (unsigned first = 0; first < 2; first++) {
        write_shm(0, 4, 8);
        ring();
        registers_doorbell(&session);
        assert_sent(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE);
        grant(VGPU_ENGINE_COMPUTE, VGPU_TURN_RUNNING);
        assert_sent(VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE);
        *word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_STOPPED;
        *word(VGPU_ENGINE_FROM_DEVICE) = VGPU_TURN_OPEN;
        assert_int_not_equal(registers_wait(&session), 0);
        assert_int_equal(registers_look(&session), 0);
        assert_sent(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE);
        assert_sent(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE);
        grant(first == 0 ? VGPU_ENGINE_COMPUTE : VGPU_ENGINE_TO_DEVICE, VGPU_TURN_RUNNING);
        assert_int_equal(sent_about(&engine), 0);
        grant(first == 0 ? VGPU_ENGINE_TO_DEVICE : VGPU_ENGINE_COMPUTE, VGPU_TURN_RUNNING);
        assert_int_equal(backend.starts, 1);
        assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
        assert_int_equal(tear_down(state), 0);
        assert_int_equal(set_up(state), 0);
    }
}

static void test_turn_stopped_while_the_next_is_waited_for(void **state)
{
    uint32_t engine = VGPU_ENGINES, type;

    (void)state;
    write_shm(0, 4, 8);
    ring();
    registers_doorbell(&session);
    assert_sent(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE);
    grant(VGPU_ENGINE_COMPUTE, VGPU_TURN_RUNNING);
    assert_sent(VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE);
    *word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_STOPPED;
    *word(VGPU_ENGINE_FROM_DEVICE) = VGPU_TURN_OPEN;
    grant(VGPU_ENGINE_TO_DEVICE, VGPU_TURN_RUNNING);
    assert_int_equal(backend.starts, 0);
    assert_int_equal(*word(VGPU_ENGINE_COMPUTE), VGPU_TURN_CLOSED);
    assert_sent(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE);
    /* Whatever becomes of the other one, this is asked for again. */
    do {
        type = sent_about(&engine);
    } while (type != 0 && type != VGPU_LINK_ASK);
    assert_int_equal(type, VGPU_LINK_ASK);
    assert_int_equal(engine, VGPU_ENGINE_COMPUTE);
    *word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_RUNNING;
    assert_int_equal(registers_turn(&session, VGPU_ENGINE_COMPUTE), 0);
    assert_int_equal(backend.starts, 1);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
}

static void test_recall_while_running(void **state)
{
    (void)state;
    open_turns();
    backend.result = -EINPROGRESS;
    write_pair(2, 3);
    ring();
    registers_doorbell(&session);
    assert_int_equal(*word(VGPU_ENGINE_COMPUTE), VGPU_TURN_RUNNING);
    assert_int_equal(turn_page.counters.in_flight, 1);
    *word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_STOPPED;
    backend.result = 0;
    assert_int_equal(registers_backend(&session), 0);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    assert_int_equal(sent(), VGPU_LINK_DONE);
    assert_int_equal(*word(VGPU_ENGINE_COMPUTE), VGPU_TURN_CLOSED);
    assert_int_equal(turn_page.counters.in_flight, 0);
    assert_true(turn_page.counters.gpu_ns[VGPU_ENGINE_COMPUTE] > 0);
}

static void test_bad_request_needs_no_turn(void **state)
{
    (void)state;
    write_request(99, 0, 0, 16);
    ring();
    assert_int_equal(registers_doorbell(&session), 0);
    assert_int_equal(page.status, VGPU_STATUS_ERROR);
    assert_int_equal(page.error, VGPU_ERROR_BAD_OPCODE);
    assert_int_equal(page.response_len, 0);
    assert_int_equal(sent(), 0);
    assert_int_equal(turn_page.counters.errors, 1);
}

/* What is changed after the doorbell was taken changes nothing. */
static void test_request_is_copied_once(void **state)
{
    (void)state;
    write_pair(2, 3);
    ring();
    registers_doorbell(&session);
    write_pair(1000, 1000);
    memset(page.request, 0xff, sizeof(page.request));
    page.request_len = UINT32_MAX;
    grant(VGPU_ENGINE_COMPUTE, VGPU_TURN_RUNNING);
    assert_int_equal(result(), 5);
}

static void test_echo_and_info(void **state)
{
    struct vgpu_device_info info;

    (void)state;
    strcpy(backend.head.info.name, "fake");
    write_request(VGPU_OP_ECHO, 0, 0, 20);
    memcpy(page.request + 16, "ping", 4);
    ring();
    registers_doorbell(&session);
    assert_int_equal(page.response_len, 4);
    assert_memory_equal(page.response, "ping", 4);
    write_request(VGPU_OP_DEVICE_INFO, 0, 0, 16);
    ring();
    registers_doorbell(&session);
    assert_int_equal(page.response_len, sizeof(info));
    memcpy(&info, page.response, sizeof(info));
    assert_string_equal(info.name, "fake");
}

/* A worker without a device: what needs one is left to the next, which has it. */
static void test_at_rest(void **state)
{
    (void)state;
    backend.head.ops = NULL;
    write_request(VGPU_OP_ECHO, 0, 0, 20);
    ring();
    assert_int_equal(registers_doorbell(&session), 0);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    write_request(VGPU_OP_DEVICE_INFO, 0, 0, 16);
    ring();
    assert_int_equal(registers_doorbell(&session), REGISTERS_WAKE);
    assert_int_equal(page.status, VGPU_STATUS_BUSY);
    strcpy(backend.head.info.name, "fake");
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(page.response_len, sizeof(struct vgpu_device_info));
    open_turns();
    write_pair(20, 22);
    ring();
    assert_int_equal(registers_doorbell(&session), REGISTERS_WAKE);
    assert_int_equal(page.journal.state, VGPU_JOURNAL_ACCEPTED);
    /* Another at rest leaves it alone as well. */
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), REGISTERS_WAKE);
    backend.head.ops = &fake_ops;
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    assert_int_equal(result(), 42);
}

static void test_interrupt_only_when_wanted(void **state)
{
    eventfd_t value;

    (void)state;
    write_request(VGPU_OP_ECHO, 0, 0, 16);
    ring();
    registers_doorbell(&session);
    assert_int_equal(eventfd_read(session.interrupt.fd, &value), -1);
    page.irq_wanted = 1;
    ring();
    registers_doorbell(&session);
    assert_int_equal(eventfd_read(session.interrupt.fd, &value), 0);
}

static void test_backend_errors(void **state)
{
    (void)state;
    open_turns();
    backend.result = -ENOMEM;
    write_pair(1, 1);
    ring();
    assert_int_equal(registers_doorbell(&session), 0); /* the worker lives on */
    assert_int_equal(page.error, VGPU_ERROR_NO_MEMORY);
    backend.result = -EIO;
    write_pair(1, 1);
    ring();
    assert_int_equal(registers_doorbell(&session), -EIO); /* this one does not */
    assert_int_equal(page.status, VGPU_STATUS_ERROR);
    assert_int_equal(page.error, VGPU_ERROR_BACKEND);
}

/* Leaves a session as a worker would that is killed while its request waits. */
static void leave_waiting(void)
{
    write_shm(0, 4, 8);
    ring();
    registers_doorbell(&session);
    assert_int_equal(sent(), VGPU_LINK_ASK);
    /* The guest's buffer no longer matters. */
    memset(page.request, 0, sizeof(page.request));
}

static void test_takeover_of_a_waiting_request(void **state)
{
    (void)state;
    leave_waiting();
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(page.generation, 2);
    assert_int_equal(session.state, REGISTERS_WAITING);
    assert_int_equal(sent(), VGPU_LINK_ASK);
    memcpy(shm, (const uint32_t[]){20, 22, 0}, 12);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        grant((enum vgpu_engine)i, VGPU_TURN_RUNNING);
    }
    assert_int_equal(((uint32_t *)(void *)shm)[2], 42);
}

static void test_takeover_of_a_started_request(void **state)
{
    (void)state;
    open_turns();
    backend.result = -EINPROGRESS;
    write_shm(0, 4, 8);
    ring();
    registers_doorbell(&session);
    assert_int_equal(page.journal.state, VGPU_JOURNAL_STARTED);
    open_turns();
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(backend.starts, 2);
}

static void test_takeover_never_runs_an_in_place_sum_twice(void **state)
{
    (void)state;
    open_turns();
    backend.result = -EINPROGRESS;
    write_shm(0, 4, 0);
    ring();
    registers_doorbell(&session);
    assert_int_equal(page.journal.state, VGPU_JOURNAL_ONCE);
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(backend.starts, 1);
    assert_int_equal(page.status, VGPU_STATUS_ERROR);
    assert_int_equal(page.error, VGPU_ERROR_WORKER_LOST);
}

/* Killed between clearing the doorbell and the journal. */
static void test_takeover_of_an_unnoted_request(void **state)
{
    (void)state;
    open_turns();
    write_pair(2, 3);
    page.status = VGPU_STATUS_BUSY;
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    assert_int_equal(backend.starts, 1);
}

/* Killed between storing BUSY and clearing the doorbell: the doorbell brings it, once. */
static void test_takeover_with_the_doorbell_up(void **state)
{
    (void)state;
    open_turns();
    write_pair(2, 3);
    page.status = VGPU_STATUS_BUSY;
    ring();
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(backend.starts, 0);
    registers_doorbell(&session);
    assert_int_equal(backend.starts, 1);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
}

/* Killed between storing the answer and emptying the journal. */
static void test_takeover_after_the_answer(void **state)
{
    (void)state;
    page.status = VGPU_STATUS_COMPLETE;
    page.journal.state = VGPU_JOURNAL_STARTED;
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(backend.starts, 0);
    assert_int_equal(page.status, VGPU_STATUS_COMPLETE);
    assert_int_equal(page.journal.state, VGPU_JOURNAL_EMPTY);
}

static void test_takeover_fails_on_order(void **state)
{
    (void)state;
    leave_waiting();
    assert_int_equal(start_session(REGISTERS_FAIL, VGPU_ERROR_TIMEOUT), 0);
    assert_int_equal(page.status, VGPU_STATUS_ERROR);
    assert_int_equal(page.error, VGPU_ERROR_TIMEOUT);
}

static void test_discard(void **state)
{
    (void)state;
    leave_waiting();
    ring();
    assert_int_equal(start_session(REGISTERS_DISCARD, VGPU_ERROR_NONE), 0);
    assert_int_equal(page.status, VGPU_STATUS_IDLE);
    assert_int_equal(page.journal.state, VGPU_JOURNAL_EMPTY);
    assert_false(doorbell_pending());
}

/* A journal that QEMU, taken over by its guest, has filled with nonsense. */
static void test_takeover_of_a_forged_journal(void **state)
{
    (void)state;
    page.status = VGPU_STATUS_BUSY;
    page.journal.state = VGPU_JOURNAL_ACCEPTED;
    page.journal.length = UINT32_MAX;
    memset(page.journal.request, 0xff, sizeof(page.journal.request));
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(page.status, VGPU_STATUS_ERROR);
    page.status = VGPU_STATUS_BUSY;
    page.journal.state = 77;
    assert_int_equal(start_session(REGISTERS_RESUME, VGPU_ERROR_NONE), 0);
    assert_int_equal(page.error, VGPU_ERROR_WORKER_LOST);
    assert_int_equal(backend.starts, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_open_turn_needs_no_mediator),
        TEST(test_closed_turn_is_asked_for),
        TEST(test_turn_that_was_asked_for_and_stays),
        TEST(test_three_turns_one_by_one),
        TEST(test_turn_stopped_while_the_next_is_waited_for),
        TEST(test_turn_stopped_while_the_next_is_still_waited_for),
        TEST(test_recall_while_running),
        TEST(test_bad_request_needs_no_turn),
        TEST(test_request_is_copied_once),
        TEST(test_echo_and_info),
        TEST(test_at_rest),
        TEST(test_interrupt_only_when_wanted),
        TEST(test_backend_errors),
        TEST(test_takeover_of_a_waiting_request),
        TEST(test_takeover_of_a_started_request),
        TEST(test_takeover_never_runs_an_in_place_sum_twice),
        TEST(test_takeover_of_an_unnoted_request),
        TEST(test_takeover_with_the_doorbell_up),
        TEST(test_takeover_after_the_answer),
        TEST(test_takeover_fails_on_order),
        TEST(test_discard),
        TEST(test_takeover_of_a_forged_journal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
