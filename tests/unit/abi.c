/* SPDX-License-Identifier: MIT */
/*
 * Prints the protocol as numbers: every constant, and each field's offset and size. The
 * output is checked in as abi.golden; a difference is a change of the ABI. Python tests
 * read it to speak the protocol.
 */
#include <inttypes.h>
#include <stdio.h>

#include "vgpu-attach.h"
#include "vgpu-regs.h"
#include "vgpu-request.h"
#include "vgpu-worker.h"

/* clang-format would give the lists one line an entry and a staircase. */
/* clang-format off */
#define NUMBER(name) printf("number %s 0x%" PRIx64 "\n", #name, (uint64_t)(name));
#define SIZE(type) printf("size %s %zu\n", #type, sizeof(struct type));
#define FIELD(type, field)                                                                         \
    printf("field %s.%s %zu %zu\n", #type, #field, offsetof(struct type, field),                   \
           sizeof(((struct type *)0)->field));

#define NUMBERS(X)                                                                                 \
    X(VGPU_PCI_VENDOR_ID) X(VGPU_PCI_DEVICE_ID) X(VGPU_PCI_REVISION) X(VGPU_PCI_CLASS)             \
    X(VGPU_BAR_REGS) X(VGPU_BAR_SHM) X(VGPU_BAR_MSIX) X(VGPU_REGS_SIZE) X(VGPU_MAGIC)              \
    X(VGPU_VERSION) X(VGPU_REG_MAGIC) X(VGPU_REG_VERSION) X(VGPU_REG_POOL_ID)                      \
    X(VGPU_REG_PRIORITY) X(VGPU_REG_VM_ID) X(VGPU_REG_FEATURES) X(VGPU_REG_REQUEST_LEN)            \
    X(VGPU_REG_RESPONSE_LEN) X(VGPU_REG_DOORBELL) X(VGPU_REG_STATUS) X(VGPU_REG_ERROR)             \
    X(VGPU_REG_GENERATION) X(VGPU_REG_SHM_SIZE_LO) X(VGPU_REG_SHM_SIZE_HI)                         \
    X(VGPU_REG_NUM_QUEUES) X(VGPU_REG_CONTROL) X(VGPU_REG_REQUEST) X(VGPU_REG_RESPONSE)            \
    X(VGPU_REG_QUEUE_DOORBELL) X(VGPU_REQUEST_MAX) X(VGPU_RESPONSE_MAX) X(VGPU_MAX_QUEUES)         \
    X(VGPU_FEATURE_SHM) X(VGPU_FEATURE_MSIX) X(VGPU_FEATURE_BACKEND_CPU)                           \
    X(VGPU_FEATURE_BACKEND_GPU) X(VGPU_CONTROL_RESET) X(VGPU_STATUS_IDLE) X(VGPU_STATUS_BUSY)      \
    X(VGPU_STATUS_COMPLETE) X(VGPU_STATUS_ERROR) X(VGPU_STATUS_OFFLINE) X(VGPU_PRIORITY_LOW)       \
    X(VGPU_PRIORITY_MEDIUM) X(VGPU_PRIORITY_HIGH) X(VGPU_ERROR_COUNT) X(VGPU_JOURNAL_EMPTY)        \
    X(VGPU_JOURNAL_ACCEPTED) X(VGPU_JOURNAL_STARTED) X(VGPU_JOURNAL_ONCE) X(VGPU_SHM_MIN)          \
    X(VGPU_SHM_MAX) X(VGPU_OP_ECHO) X(VGPU_OP_DEVICE_INFO) X(VGPU_OP_ADD_INLINE)                   \
    X(VGPU_OP_ADD_SHM) X(VGPU_TYPE_INT32) X(VGPU_TYPE_FLOAT32) X(VGPU_ELEMENT_SIZE)                \
    X(VGPU_INLINE_MAX) X(VGPU_ECHO_MAX) X(VGPU_MSG_MAGIC) X(VGPU_MSG_SIZE)                         \
    X(VGPU_ATTACH_VECTORS) X(VGPU_ATTACH_FDS) X(VGPU_ATTACH_FDS_MAX) X(VGPU_MSG_HELLO)             \
    X(VGPU_MSG_ATTACHED) X(VGPU_MSG_REFUSED) X(VGPU_MSG_RESET) X(VGPU_MSG_RESET_DONE)              \
    X(VGPU_MSG_BYE) X(VGPU_HELLO_HANDOVER) X(VGPU_HELLO_HOST) X(VGPU_WORKER_FD_LINK)               \
    X(VGPU_WORKER_FD_MEMFD) X(VGPU_WORKER_FD_DOORBELL) X(VGPU_WORKER_FD_IRQ)                       \
    X(VGPU_WORKER_FD_TURN) X(VGPU_TURN_CLOSED) X(VGPU_TURN_OPEN) X(VGPU_TURN_RUNNING)              \
    X(VGPU_TURN_RECALLED) X(VGPU_TURN_PAGE_SIZE) X(VGPU_LINK_READY) X(VGPU_LINK_ASK)               \
    X(VGPU_LINK_DONE) X(VGPU_LINK_TURN) X(VGPU_LINK_FINISH)

#define SIZES(X)                                                                                   \
    X(vgpu_journal) X(vgpu_regs_page) X(vgpu_request_header) X(vgpu_add_shm) X(vgpu_device_info)   \
    X(vgpu_hello) X(vgpu_attached) X(vgpu_refused) X(vgpu_msg) X(vgpu_turn_page) X(vgpu_link_msg)

#define FIELDS(X)                                                                                  \
    X(vgpu_journal, state) X(vgpu_journal, length) X(vgpu_journal, request)                        \
    X(vgpu_regs_page, features) X(vgpu_regs_page, request_len) X(vgpu_regs_page, response_len)     \
    X(vgpu_regs_page, status) X(vgpu_regs_page, error) X(vgpu_regs_page, generation)               \
    X(vgpu_regs_page, request) X(vgpu_regs_page, response) X(vgpu_regs_page, irq_wanted)           \
    X(vgpu_regs_page, journal) X(vgpu_regs_page, journal.state) X(vgpu_regs_page, journal.length)  \
    X(vgpu_regs_page, journal.request) X(vgpu_request_header, opcode)                              \
    X(vgpu_request_header, type) X(vgpu_request_header, count) X(vgpu_add_shm, a)                  \
    X(vgpu_add_shm, b) X(vgpu_add_shm, sum) X(vgpu_device_info, backend)                           \
    X(vgpu_device_info, compute) X(vgpu_device_info, processors) X(vgpu_device_info, driver)       \
    X(vgpu_device_info, memory_total) X(vgpu_device_info, reserved) X(vgpu_device_info, name)      \
    X(vgpu_msg, magic) X(vgpu_msg, version) X(vgpu_msg, type) X(vgpu_msg, serial)                  \
    X(vgpu_msg, hello.flags) X(vgpu_msg, hello.vm_id) X(vgpu_msg, hello.pool)                      \
    X(vgpu_msg, hello.priority) X(vgpu_msg, hello.vectors) X(vgpu_msg, hello.queues)               \
    X(vgpu_msg, hello.shm_size) X(vgpu_msg, hello.name) X(vgpu_msg, attached.flags)                \
    X(vgpu_msg, attached.vm_id) X(vgpu_msg, attached.pool) X(vgpu_msg, attached.priority)          \
    X(vgpu_msg, attached.vectors) X(vgpu_msg, attached.queues) X(vgpu_msg, attached.shm_size)      \
    X(vgpu_msg, refused.reason) X(vgpu_turn_page, turn) X(vgpu_turn_page, requests)                \
    X(vgpu_turn_page, errors) X(vgpu_turn_page, busy_ns) X(vgpu_turn_page, elements)               \
    X(vgpu_link_msg, type) X(vgpu_link_msg, value) X(vgpu_link_msg, text)

/* clang-format on */

int main(void)
{
    NUMBERS(NUMBER)
#define ERROR(value, name, text) printf("error %d %s\n", value, #name);
    VGPU_ERRORS(ERROR)
    SIZES(SIZE)
    FIELDS(FIELD)
    return 0;
}
