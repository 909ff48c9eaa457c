/* SPDX-License-Identifier: MIT */
/*
 * Register mode from the client's side: write the request, ring, poll STATUS, read the response.
 * The same over each transport, but for the guest driver, which does a whole request by itself.
 *
 * STATUS is BUSY from the doorbell on, without a gap: the first other value that is read is about
 * this request. There is no interrupt in this; STATUS is read ever less often.
 *
 * Also here, since every part of the library needs them: the message of vgpu_last_message(), and
 * the pauses of all loops that poll. A handle serves one thread at a time, so there are no locks.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "guest/libvgpu/internal.h"

/*
 * vgpu_pause() returns at once for this long, since most answers come sooner than a sleep would
 * end; then it sleeps for a 16th of the time waited so far, within these limits. So a wait takes at
 * most a 16th longer than it has to, and long ones cost hardly any processor time.
 */
#define SPIN_NS (200 * NS_PER_US)
#define PAUSE_MIN_NS (20 * NS_PER_US)
#define PAUSE_MAX_NS (2 * NS_PER_MS)

/* Of each thread its own, so that a session's threads do not overwrite each other's. */
static _Thread_local char last_message[256] = "no error";

const char *vgpu_last_message(void)
{
    return last_message;
}

int vgpu_fail(int result, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(last_message, sizeof(last_message), format, args);
    va_end(args);
    return result;
}

int vgpu_fail_offline(void)
{
    return vgpu_fail(VGPU_OFFLINE,
                     "the device is offline: no mediator is running on the host, or it "
                     "has refused this VM, which its log tells");
}

static const struct {
    const char *name, *text;
} errors[] = {
#define VGPU_ERROR_ENTRY(value, name, text) [value] = {#name, text},
    VGPU_ERRORS(VGPU_ERROR_ENTRY)
#undef VGPU_ERROR_ENTRY
};
static_assert(sizeof(errors) / sizeof(errors[0]) == VGPU_ERROR_COUNT, "a text for each error");

const char *vgpu_error_name(enum vgpu_error error)
{
    return (unsigned)error < VGPU_ERROR_COUNT ? errors[error].name : "UNKNOWN";
}

const char *vgpu_error_text(enum vgpu_error error)
{
    return (unsigned)error < VGPU_ERROR_COUNT ? errors[error].text
                                              : "an error that this library does not know";
}

enum vgpu_error vgpu_device_error(const struct vgpu *vgpu)
{
    return vgpu->error;
}

void vgpu_set_timeout(struct vgpu *vgpu, uint32_t milliseconds)
{
    vgpu->timeout_ms = milliseconds;
}

void vgpu_close(struct vgpu *vgpu)
{
    if (vgpu) {
        vgpu->transport->close(vgpu);
    }
}

static uint32_t get_operand(struct vgpu *vgpu, uint32_t offset)
{
    return vgpu->transport->read(vgpu, offset);
}

static void put_operand(struct vgpu *vgpu, uint32_t offset, uint32_t value)
{
    vgpu->transport->write(vgpu, offset, value);
}

void vgpu_identify(struct vgpu *vgpu, struct vgpu_identity *identity)
{
    *identity = (struct vgpu_identity){
        .version = get_operand(vgpu, VGPU_REG_VERSION),
        .pool = get_operand(vgpu, VGPU_REG_POOL_ID),
        .priority = get_operand(vgpu, VGPU_REG_PRIORITY),
        .vm_id = get_operand(vgpu, VGPU_REG_VM_ID),
        .features = get_operand(vgpu, VGPU_REG_FEATURES),
        .generation = get_operand(vgpu, VGPU_REG_GENERATION),
        .queues = get_operand(vgpu, VGPU_REG_NUM_QUEUES),
        .shm_size = get_operand(vgpu, VGPU_REG_SHM_SIZE_LO) |
                    (uint64_t)get_operand(vgpu, VGPU_REG_SHM_SIZE_HI) << 32,
        .status = (enum vgpu_status)get_operand(vgpu, VGPU_REG_STATUS),
    };
}

/* A failure is not remembered: the next call tries again. */
void *vgpu_shm(struct vgpu *vgpu, uint64_t *size)
{
    if (!vgpu->shm) {
        vgpu->shm = vgpu->transport->map_shm(vgpu);
    }
    *size = vgpu->shm ? vgpu->shm_size : 0;
    return vgpu->shm;
}

/*
 * Registers are read and written in whole words alone; `length` is a multiple of 4. The callers'
 * bytes need not be aligned.
 */
static void put_bytes(struct vgpu *vgpu, uint32_t offset, const void *bytes, uint32_t length)
{
    for (uint32_t i = 0; i < length; i += 4) {
        uint32_t word;

        memcpy(&word, (const uint8_t *)bytes + i, 4);
        put_operand(vgpu, offset + i, word);
    }
}

static void get_bytes(struct vgpu *vgpu, uint32_t offset, void *bytes, uint32_t length)
{
    for (uint32_t i = 0; i < length; i += 4) {
        const uint32_t word = get_operand(vgpu, offset + i);

        memcpy((uint8_t *)bytes + i, &word, length - i < 4 ? length - i : 4);
    }
}

void vgpu_pause(uint64_t waited_ns)
{
    struct timespec t = {0};

    if (waited_ns < SPIN_NS) {
        return;
    }
    t.tv_nsec = (long)(waited_ns / 16);
    if (t.tv_nsec < (long)PAUSE_MIN_NS) {
        t.tv_nsec = PAUSE_MIN_NS;
    }
    if (waited_ns / 16 > PAUSE_MAX_NS) {
        t.tv_nsec = PAUSE_MAX_NS;
    }
    nanosleep(&t, NULL);
}

/*
 * While it is offline the device keeps the reset, and does it when the mediator is back: this does
 * not wait for that.
 */
int vgpu_reset(struct vgpu *vgpu)
{
    const uint64_t start = clock_ns();
    uint64_t waited = 0;

    if (vgpu->transport->reset) {
        return vgpu->transport->reset(vgpu);
    }
    put_operand(vgpu, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
    while (get_operand(vgpu, VGPU_REG_CONTROL) & VGPU_CONTROL_RESET) {
        if (get_operand(vgpu, VGPU_REG_STATUS) == VGPU_STATUS_OFFLINE) {
            return vgpu_fail(VGPU_OFFLINE, "the device is offline: the reset is done when the "
                                           "host's mediator is back");
        }
        if (waited > vgpu->timeout_ms * NS_PER_MS) {
            return vgpu_fail(VGPU_TIMED_OUT, "no reset within %u ms", vgpu->timeout_ms);
        }
        vgpu_pause(waited);
        waited = clock_ns() - start;
    }
    return VGPU_OK;
}

int vgpu_refused(struct vgpu *vgpu, uint32_t error)
{
    vgpu->error = (enum vgpu_error)error;
    return vgpu_fail(VGPU_REFUSED, "the host answered with error %u (%s): %s", error,
                     vgpu_error_name(vgpu->error), vgpu_error_text(vgpu->error));
}

/* Waits for the answer to the doorbell just rung. */
static int await_answer(struct vgpu *vgpu)
{
    const uint64_t start = clock_ns();
    uint64_t waited = 0;

    for (;;) {
        switch (get_operand(vgpu, VGPU_REG_STATUS)) {
        case VGPU_STATUS_COMPLETE:
            return VGPU_OK;
        case VGPU_STATUS_ERROR:
            return vgpu_refused(vgpu, get_operand(vgpu, VGPU_REG_ERROR));
        /* A reset by somebody else: the request is dropped, and no answer will come. */
        case VGPU_STATUS_IDLE:
            return vgpu_fail(VGPU_REFUSED, "the device was reset while the request ran");
        /* In a guest the journal keeps the request, and the next mediator's worker answers. */
        case VGPU_STATUS_OFFLINE:
            if (!vgpu->transport->comes_back) {
                return vgpu_fail(VGPU_OFFLINE, "the mediator went away while the request ran");
            }
            break;
        default: /* busy */
            break;
        }
        if (waited > vgpu->timeout_ms * NS_PER_MS) {
            /*
             * So that it cannot write to the shared memory any more. The reset is not waited for;
             * the next request finds the device BUSY until it is done.
             */
            put_operand(vgpu, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
            return vgpu_fail(VGPU_TIMED_OUT, "no answer within %u ms; the request was dropped",
                             vgpu->timeout_ms);
        }
        vgpu_pause(waited);
        waited = clock_ns() - start;
    }
}

int vgpu_request(struct vgpu *vgpu, const void *request, uint32_t length, void *response,
                 uint32_t *response_length)
{
    int r;

    if (length > VGPU_REQUEST_MAX || length % 4 != 0) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "a request of %u bytes; at most %u, a multiple of 4",
                         length, VGPU_REQUEST_MAX);
    }
    if (vgpu->transport->request) {
        return vgpu->transport->request(vgpu, request, length, response, response_length);
    }
    switch (get_operand(vgpu, VGPU_REG_STATUS)) {
    case VGPU_STATUS_OFFLINE:
        return vgpu_fail_offline();
    case VGPU_STATUS_BUSY:
        /* Left behind by a process that ended midway, or by one whose request timed out. */
        r = vgpu_reset(vgpu);
        if (r != VGPU_OK) {
            return r;
        }
        break;
    default:
        break;
    }
    put_bytes(vgpu, VGPU_REG_REQUEST, request, length);
    put_operand(vgpu, VGPU_REG_REQUEST_LEN, length);
    put_operand(vgpu, VGPU_REG_DOORBELL, 1);
    r = await_answer(vgpu);
    if (r == VGPU_OK) {
        *response_length = get_operand(vgpu, VGPU_REG_RESPONSE_LEN);
        /* The host's number: `response` has room for no more. */
        if (*response_length > VGPU_RESPONSE_MAX) {
            return vgpu_fail(VGPU_INCOMPATIBLE, "a response of %u bytes", *response_length);
        }
        get_bytes(vgpu, VGPU_REG_RESPONSE, response, *response_length);
    }
    return r;
}

/* The buffer of a request: a header, and room for operands. */
struct buffer {
    struct vgpu_request_header header;
    uint8_t operands[VGPU_REQUEST_MAX - sizeof(struct vgpu_request_header)];
};

/* A request with so many bytes of operands, whose response must have exactly `expected` bytes. */
static int exchange_request(struct vgpu *vgpu, const struct buffer *buffer, uint32_t operands,
                            void *back, uint32_t expected)
{
    uint8_t response[VGPU_RESPONSE_MAX];
    uint32_t length = 0;
    const int r = vgpu_request(vgpu, buffer, (uint32_t)sizeof(buffer->header) + operands, response,
                               &length);

    if (r != VGPU_OK) {
        return r;
    }
    if (length != expected) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "a response of %u bytes, expected %u", length,
                         expected);
    }
    if (expected > 0) {
        memcpy(back, response, expected);
    }
    return VGPU_OK;
}

int vgpu_echo(struct vgpu *vgpu, const void *bytes, uint32_t length, void *back)
{
    struct buffer buffer = {.header.opcode = VGPU_OP_ECHO};

    if (length > VGPU_ECHO_MAX) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "an echo of %u bytes; at most %u", length,
                         VGPU_ECHO_MAX);
    }
    memcpy(buffer.operands, bytes, length);
    return exchange_request(vgpu, &buffer, length, back, length);
}

int vgpu_device_info(struct vgpu *vgpu, struct vgpu_device_info *info)
{
    const struct buffer buffer = {.header.opcode = VGPU_OP_DEVICE_INFO};
    const int r = exchange_request(vgpu, &buffer, 0, info, sizeof(*info));

    if (r == VGPU_OK) {
        /* The host's bytes: a name without a NUL would be read past its end. */
        info->name[sizeof(info->name) - 1] = '\0';
    }
    return r;
}

int vgpu_add(struct vgpu *vgpu, enum vgpu_type type, uint32_t count, const void *a, const void *b,
             void *sum)
{
    struct buffer buffer = {.header = {.opcode = VGPU_OP_ADD_INLINE, .type = type}};
    const uint32_t bytes = count * VGPU_ELEMENT_SIZE;

    if (count == 0 || count > VGPU_INLINE_MAX) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "%u inline elements; 1 to %u", count, VGPU_INLINE_MAX);
    }
    buffer.header.count = count;
    memcpy(buffer.operands, a, bytes);
    memcpy(buffer.operands + bytes, b, bytes);
    return exchange_request(vgpu, &buffer, 2 * bytes, sum, bytes);
}

int vgpu_add_shm(struct vgpu *vgpu, enum vgpu_type type, uint64_t count, uint64_t a, uint64_t b,
                 uint64_t sum)
{
    struct buffer buffer = {.header = {.opcode = VGPU_OP_ADD_SHM, .type = type, .count = count}};
    /*
     * The caller counts from the start of vgpu_shm(), the host from the start of BAR2. Neither
     * vectors nor sizes are checked here: the host does that, and the guest driver, which alone
     * keeps a request within its process's part.
     */
    const struct vgpu_add_shm operands = {
        .a = vgpu->shm_offset + a,
        .b = vgpu->shm_offset + b,
        .sum = vgpu->shm_offset + sum,
    };

    memcpy(buffer.operands, &operands, sizeof(operands));
    return exchange_request(vgpu, &buffer, sizeof(operands), NULL, 0);
}
