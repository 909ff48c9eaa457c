/* SPDX-License-Identifier: MIT */
/*
 * Prints the protocol as numbers: every constant, and each field's offset and size. The
 * output is checked in as abi.golden; a difference is a change of the ABI. Python tests
 * read it to speak the protocol.
 *
 * Tests: protocol/vgpu-*.h
 */
#include <inttypes.h>
#include <stdio.h>

#include "protocol/vgpu-attach.h"
#include "protocol/vgpu-card.h"
#include "protocol/vgpu-driver.h"
#include "protocol/vgpu-graph.h"
#include "protocol/vgpu-queue.h"
#include "protocol/vgpu-regs.h"
#include "protocol/vgpu-request.h"
#include "protocol/vgpu-worker.h"

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
    X(VGPU_REG_GENERATION) X(VGPU_REG_SHM_SIZE_LO) X(VGPU_REG_SHM_SIZE_HI) X(VGPU_REG_NUM_QUEUES)  \
    X(VGPU_REG_CONTROL) X(VGPU_REG_REQUEST) X(VGPU_REG_RESPONSE) X(VGPU_REG_QUEUE_DOORBELL)        \
    X(VGPU_REQUEST_MAX) X(VGPU_RESPONSE_MAX) X(VGPU_MAX_QUEUES) X(VGPU_FEATURE_SHM)                \
    X(VGPU_FEATURE_MSIX) X(VGPU_FEATURE_BACKEND_CPU) X(VGPU_FEATURE_BACKEND_GPU)                   \
    X(VGPU_CONTROL_RESET) X(VGPU_STATUS_IDLE) X(VGPU_STATUS_BUSY) X(VGPU_STATUS_COMPLETE)          \
    X(VGPU_STATUS_ERROR) X(VGPU_STATUS_OFFLINE) X(VGPU_PRIORITY_LOW) X(VGPU_PRIORITY_MEDIUM)       \
    X(VGPU_PRIORITY_HIGH) X(VGPU_ERROR_COUNT) X(VGPU_JOURNAL_EMPTY) X(VGPU_JOURNAL_ACCEPTED)       \
    X(VGPU_JOURNAL_STARTED) X(VGPU_JOURNAL_ONCE) X(VGPU_SHM_MIN) X(VGPU_SHM_MAX) X(VGPU_OP_ECHO)   \
    X(VGPU_OP_DEVICE_INFO) X(VGPU_OP_ADD_INLINE) X(VGPU_OP_ADD_SHM) X(VGPU_TYPE_INT32)             \
    X(VGPU_TYPE_FLOAT32) X(VGPU_ELEMENT_SIZE) X(VGPU_INLINE_MAX) X(VGPU_ECHO_MAX)                  \
    X(VGPU_MSG_MAGIC) X(VGPU_MSG_SIZE) X(VGPU_MSG_FDS_MAX) X(VGPU_ATTACH_FDS_MAX)                  \
    X(VGPU_MSG_HELLO) X(VGPU_MSG_ATTACHED) X(VGPU_MSG_REFUSED) X(VGPU_MSG_RESET)                   \
    X(VGPU_MSG_RESET_DONE) X(VGPU_MSG_BYE) X(VGPU_MSG_FDS) X(VGPU_MSG_QUEUE) X(VGPU_RESET_QUEUES)  \
    X(VGPU_MSG_STOP) X(VGPU_MSG_STOPPED) X(VGPU_MSG_CONTINUE) X(VGPU_ATTACHED_STOPS)               \
    X(VGPU_CONTINUE_LOADED)                                                                        \
    X(VGPU_HELLO_HANDOVER) X(VGPU_HELLO_HOST) X(VGPU_WORKER_FD_LINK) X(VGPU_WORKER_FD_MEMFD)       \
    X(VGPU_WORKER_FD_DOORBELL) X(VGPU_WORKER_FD_IRQ) X(VGPU_WORKER_FD_TURN)                        \
    X(VGPU_WORKER_FD_ACCOUNT) X(VGPU_ENGINE_COMPUTE) X(VGPU_ENGINE_TO_DEVICE)                      \
    X(VGPU_ENGINE_FROM_DEVICE) X(VGPU_ENGINES) X(VGPU_TURN_CLOSED) X(VGPU_TURN_OPEN)               \
    X(VGPU_TURN_RUNNING) X(VGPU_TURN_WANTED) X(VGPU_TURN_SHARED) X(VGPU_TURN_STOPPED)              \
    X(VGPU_TURN_PAGE_SIZE) X(VGPU_ACCOUNT_PAGE_SIZE) X(VGPU_LINK_READY) X(VGPU_LINK_ASK)           \
    X(VGPU_LINK_DONE) X(VGPU_LINK_TURN) X(VGPU_LINK_FINISH) X(VGPU_LINK_YIELD) X(VGPU_LINK_KEPT)   \
    X(VGPU_REG_QUEUE_STATUS) X(VGPU_REG_QUEUE_CONTROL) X(VGPU_FEATURE_QUEUES)                      \
    X(VGPU_CONTROL_SIZE) X(VGPU_SLOTS) X(VGPU_PAYLOAD_MAX) X(VGPU_RING_SIZE) X(VGPU_QUEUE_SIZE)    \
    X(VGPU_QUEUE_OPEN) X(VGPU_QUEUE_CLOSE) X(VGPU_QUEUE_FREE) X(VGPU_QUEUE_STARTING)               \
    X(VGPU_QUEUE_RUNNING) X(VGPU_QUEUE_ENDED) X(VGPU_COMMAND_ALIGN) X(VGPU_COMMAND_MAX)            \
    X(VGPU_PARAMS_MAX) X(VGPU_NAME_MAX) X(VGPU_COMMAND_COUNT) X(VGPU_CMD_PAD) X(VGPU_CMD_NOP)      \
    X(VGPU_CMD_DEVICE_INFO) X(VGPU_CMD_MEM_INFO) X(VGPU_CMD_MEM_ALLOC) X(VGPU_CMD_MEM_FREE)        \
    X(VGPU_CMD_COPY) X(VGPU_CMD_FILL) X(VGPU_CMD_MODULE_LOAD) X(VGPU_CMD_MODULE_BUILTIN)           \
    X(VGPU_CMD_MODULE_UNLOAD) X(VGPU_CMD_FUNCTION_GET) X(VGPU_CMD_FUNCTION_PARAM)                  \
    X(VGPU_CMD_LAUNCH) X(VGPU_CMD_STREAM_CREATE) X(VGPU_CMD_STREAM_DESTROY)                        \
    X(VGPU_CMD_STREAM_WAIT) X(VGPU_CMD_STREAM_SYNC) X(VGPU_CMD_STREAM_QUERY)                       \
    X(VGPU_CMD_EVENT_CREATE) X(VGPU_CMD_EVENT_DESTROY) X(VGPU_CMD_EVENT_RECORD)                    \
    X(VGPU_CMD_EVENT_SYNC) X(VGPU_CMD_EVENT_QUERY) X(VGPU_CMD_EVENT_ELAPSED) X(VGPU_CMD_SYNC)      \
    X(VGPU_CMD_FENCE) X(VGPU_CMD_CALL) X(VGPU_CMD_PRINTED) X(VGPU_PRINTED_OUT) X(VGPU_PRINTED_ERR) X(VGPU_PRINTED_KEPT) X(VGPU_REPLY_MAX) X(VGPU_ATTRIBUTES_MAX)                    \
    X(VGPU_RESULT_PARAMS) X(VGPU_COPY_TO_DEVICE) X(VGPU_COPY_FROM_DEVICE) X(VGPU_COPY_ON_DEVICE)   \
    X(VGPU_STREAM_NON_BLOCKING) X(VGPU_EVENT_NO_TIMING) X(VGPU_WORKER_EXIT_END)                    \
    X(VGPU_DRIVER_VERSION) X(VGPU_DRIVER_MMAP_ARENA) X(VGPU_IOC_INFO) X(VGPU_IOC_ARENA)            \
    X(VGPU_IOC_START) X(VGPU_IOC_KICK) X(VGPU_IOC_STATUS) X(VGPU_IOC_EVENTFD) X(VGPU_IOC_REQUEST)  \
    X(VGPU_IOC_RESET) X(VGPU_GRAPH_NODES_MAX) X(VGPU_GRAPH_NOTHING) X(VGPU_GRAPH_KERNEL)           \
    X(VGPU_GRAPH_COPY) X(VGPU_GRAPH_FILL) X(VGPU_GRAPH_GATE) X(VGPU_LINK_EXPORT)                   \
    X(VGPU_LINK_IMPORT) X(VGPU_LINK_RELEASE) X(VGPU_LINK_WITHDRAW) X(VGPU_LINK_OFF) X(VGPU_LINK_OPEN) X(VGPU_LINK_RESYNC) X(VGPU_LINK_STATE) X(VGPU_LINK_VERSION) X(VGPU_LINK_DEVICES) X(VGPU_LINK_TURN_STATE) X(VGPU_LINK_TURN_ASKED) X(VGPU_LINK_TURN_YIELDED) X(VGPU_READY_CAN_BE_OFF) X(VGPU_EXPORT_MEMORY)           \
    X(VGPU_EXPORT_EVENT) X(VGPU_LINK_DONE_WELL) X(VGPU_LINK_UNKNOWN) X(VGPU_LINK_OWN)              \
    X(VGPU_LINK_FULL) X(VGPU_EXPORTS_MAX) X(VGPU_SHARED_BITS) X(VGPU_SHARED_SESSION_BITS) X(VGPU_SHARED_EVENTS)                \
    X(VGPU_SHARED_MEMORY) X(VGPU_SHARED_SIZE)                                                      \
    X(VGPU_REG_CARD) X(VGPU_CARD_MAX) X(VGPU_CARD_UNIT) X(VGPU_CLOCKS)        \
    X(VGPU_KNOWN_DEVICE) X(VGPU_KNOWN_PCI) X(VGPU_KNOWN_CORES) X(VGPU_KNOWN_LINK)                  \
    X(VGPU_KNOWN_CLOCKS) X(VGPU_KNOWN_LIMITS) X(VGPU_KNOWN_ECC) X(VGPU_KNOWN_BOARD)                \
    X(VGPU_KNOWN_BUSY) X(VGPU_KNOWN_TEMPERATURE) X(VGPU_KNOWN_POWER) X(VGPU_KNOWN_POWER_LIMIT)     \
    X(VGPU_KNOWN_CLOCK) X(VGPU_KNOWN_STATE) X(VGPU_KNOWN_FAN) X(VGPU_KNOWN_MEMORY)                 \
    X(VGPU_KNOWN_ENERGY) X(VGPU_IOC_CARD) X(VGPU_WORKER_FD_GAUGE) X(VGPU_GAUGES)                   \
    X(VGPU_GAUGE_PAGE_SIZE)

#define SIZES(X)                                                                                   \
    X(vgpu_journal) X(vgpu_regs_page) X(vgpu_request_header) X(vgpu_add_shm) X(vgpu_device_info)   \
    X(vgpu_hello) X(vgpu_attached) X(vgpu_refused) X(vgpu_msg) X(vgpu_turn_word) X(vgpu_terms)     \
    X(vgpu_counters) X(vgpu_turn_page) X(vgpu_account_page) X(vgpu_link_msg) X(vgpu_link_state) X(vgpu_export) X(vgpu_shared_events) X(vgpu_claim)         \
    X(vgpu_arena_part) X(vgpu_control) X(vgpu_slot) X(vgpu_queue) X(vgpu_command)                  \
    X(vgpu_cmd_value) X(vgpu_cmd_pair) X(vgpu_cmd_copy) X(vgpu_cmd_fill) X(vgpu_copy_box)          \
    X(vgpu_cmd_stream_create) X(vgpu_cmd_module_load) X(vgpu_cmd_function_get) X(vgpu_cmd_launch)  \
    X(vgpu_cmd_call) X(vgpu_cmd_printed) X(vgpu_result_printed) X(vgpu_result_value) X(vgpu_result_mem_info) X(vgpu_result_function)          \
    X(vgpu_result_param) X(vgpu_result_elapsed) X(vgpu_reset) X(vgpu_queue_action)                 \
    X(vgpu_continue)                                                                               \
    X(vgpu_driver_info) X(vgpu_driver_arena) X(vgpu_driver_start) X(vgpu_driver_request)           \
    X(vgpu_graph_node) X(vgpu_graph_copy) X(vgpu_graph_fill) X(vgpu_graph_gate)                    \
    X(vgpu_gpu_facts) X(vgpu_gpu_sensors) X(vgpu_card_session) X(vgpu_card) X(vgpu_gauge)          \
    X(vgpu_driver_card)

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
    X(vgpu_msg, hello.shm_size) X(vgpu_msg, hello.name) X(vgpu_msg, hello.uuid)                    \
    X(vgpu_msg, attached.flags)                                                                    \
    X(vgpu_msg, attached.vm_id) X(vgpu_msg, attached.pool) X(vgpu_msg, attached.priority)          \
    X(vgpu_msg, attached.vectors) X(vgpu_msg, attached.queues) X(vgpu_msg, attached.shm_size)      \
    X(vgpu_msg, refused.reason) X(vgpu_turn_word, state) X(vgpu_turn_word, reserved)               \
    X(vgpu_turn_word, from_ns) X(vgpu_turn_word, until_ns) X(vgpu_turn_word, off) X(vgpu_turn_word, unused)               \
    X(vgpu_terms, window_ns) X(vgpu_terms, kernel_ns) X(vgpu_terms, commands)                      \
    X(vgpu_terms, doorbells) X(vgpu_terms, interrupts) X(vgpu_terms, slice_us) X(vgpu_terms, reserved)\
    X(vgpu_counters, requests) X(vgpu_counters, errors) X(vgpu_counters, elements)                 \
    X(vgpu_counters, gpu_ns) X(vgpu_counters, turns) X(vgpu_counters, memory)                      \
    X(vgpu_counters, in_flight) X(vgpu_counters, doorbells) X(vgpu_counters, interrupts)           \
    X(vgpu_counters, faults) X(vgpu_counters, reserved) X(vgpu_turn_page, turn)                    \
    X(vgpu_turn_page, terms) X(vgpu_turn_page, counters) X(vgpu_turn_page, exit_code) X(vgpu_turn_page, further) X(vgpu_link_state, turn) X(vgpu_link_state, name) X(vgpu_account_page, limit)               \
    X(vgpu_account_page, used) X(vgpu_link_msg, type) X(vgpu_link_msg, value)                      \
    X(vgpu_link_msg, engine) X(vgpu_link_msg, flags) X(vgpu_link_msg, from_ns)                  \
    X(vgpu_link_msg, text) X(vgpu_link_msg, share) X(vgpu_export, key) X(vgpu_export, bytes)       \
    X(vgpu_export, kind) X(vgpu_export, foreign) X(vgpu_export, name) X(vgpu_export, session)      \
    X(vgpu_shared_events, current) X(vgpu_shared_events, taken) X(vgpu_shared_events, word)        \
    X(vgpu_claim, arena_address) X(vgpu_claim, arena_offset)                \
    X(vgpu_claim, arena_size) X(vgpu_claim, reserved) X(vgpu_arena_part, offset)                   \
    X(vgpu_arena_part, size) X(vgpu_control, claims) X(vgpu_control, parts)                        \
    X(vgpu_slot, sequence) X(vgpu_slot, result) X(vgpu_slot, length) X(vgpu_slot, culprit)         \
    X(vgpu_slot, payload) X(vgpu_queue, tail) X(vgpu_queue, waiting) X(vgpu_queue, head)           \
    X(vgpu_queue, parked) X(vgpu_queue, refused.why) X(vgpu_queue, refused.offset)                 \
    X(vgpu_queue, refused.opcode) X(vgpu_queue, refused.slot) X(vgpu_queue, refused.length)        \
    X(vgpu_queue, lost) X(vgpu_queue, printed) X(vgpu_cmd_printed, file) X(vgpu_cmd_printed, bytes) X(vgpu_cmd_printed, to) X(vgpu_result_printed, bytes) X(vgpu_result_printed, reserved) X(vgpu_result_printed, text)                                                                            \
    X(vgpu_queue, slots) X(vgpu_queue, ring) X(vgpu_command, opcode) X(vgpu_command, slot)         \
    X(vgpu_command, length) X(vgpu_command, sequence) X(vgpu_command, reserved)                    \
    X(vgpu_cmd_value, value) X(vgpu_cmd_value, reserved) X(vgpu_cmd_pair, first)                   \
    X(vgpu_cmd_pair, second) X(vgpu_cmd_copy, to) X(vgpu_cmd_copy, from) X(vgpu_cmd_copy, bytes)   \
    X(vgpu_cmd_copy, stream) X(vgpu_cmd_copy, kind) X(vgpu_cmd_copy, box)                          \
    X(vgpu_cmd_copy, reserved) X(vgpu_cmd_fill, address) X(vgpu_cmd_fill, element)                 \
    X(vgpu_cmd_fill, pitch) X(vgpu_cmd_fill, rows) X(vgpu_cmd_fill, stream)                        \
    X(vgpu_cmd_fill, value) X(vgpu_cmd_fill, width) X(vgpu_copy_box, to_pitch)                     \
    X(vgpu_copy_box, to_rows) X(vgpu_copy_box, from_pitch) X(vgpu_copy_box, from_rows)             \
    X(vgpu_copy_box, height) X(vgpu_copy_box, depth) X(vgpu_cmd_stream_create, flags)              \
    X(vgpu_cmd_stream_create, priority) X(vgpu_cmd_stream_create, reserved)                        \
    X(vgpu_cmd_module_load, image) X(vgpu_cmd_module_load, bytes)                                  \
    X(vgpu_cmd_function_get, module) X(vgpu_cmd_function_get, length)                              \
    X(vgpu_cmd_launch, function) X(vgpu_cmd_launch, stream) X(vgpu_cmd_launch, grid)               \
    X(vgpu_cmd_launch, block) X(vgpu_cmd_launch, shared_bytes) X(vgpu_cmd_launch, param_bytes)     \
    X(vgpu_cmd_launch, attributes) X(vgpu_cmd_call, call) X(vgpu_cmd_call, bytes)                  \
    X(vgpu_cmd_call, reply) X(vgpu_cmd_call, reply_bytes) X(vgpu_cmd_call, reserved)               \
    X(vgpu_cmd_call, reserved2) X(vgpu_result_value, value) X(vgpu_result_mem_info, free)          \
    X(vgpu_result_mem_info, total) X(vgpu_result_function, function)                               \
    X(vgpu_result_function, params) X(vgpu_result_function, max_threads)                           \
    X(vgpu_result_param, offset) X(vgpu_result_param, size) X(vgpu_result_elapsed, milliseconds)   \
    X(vgpu_result_elapsed, reserved) X(vgpu_driver_info, driver_version)                           \
    X(vgpu_driver_info, queue) X(vgpu_driver_info, interrupts) X(vgpu_driver_info, version)        \
    X(vgpu_driver_info, pool) X(vgpu_driver_info, priority) X(vgpu_driver_info, vm_id)             \
    X(vgpu_driver_info, features) X(vgpu_driver_info, generation) X(vgpu_driver_info, status)      \
    X(vgpu_driver_info, queues) X(vgpu_driver_info, reserved) X(vgpu_driver_info, shm_size)        \
    X(vgpu_driver_arena, size) X(vgpu_driver_arena, offset) X(vgpu_driver_start, address)          \
    X(vgpu_driver_start, status) X(vgpu_driver_start, reserved) X(vgpu_driver_request, length)     \
    X(vgpu_driver_request, timeout_ms) X(vgpu_driver_request, status)                              \
    X(vgpu_driver_request, error) X(vgpu_driver_request, response_length)                          \
    X(vgpu_driver_request, reserved) X(vgpu_driver_request, request)                               \
    X(vgpu_driver_request, response) X(vgpu_regs_page, queue_status) X(vgpu_msg, reset.flags)      \
    X(vgpu_msg, queue.queue) X(vgpu_msg, queue.action) X(vgpu_msg, go_on.flags) X(vgpu_graph_node, kind)                    \
    X(vgpu_graph_node, bytes) X(vgpu_graph_node, follows) X(vgpu_graph_node, reserved)             \
    X(vgpu_graph_copy, to) X(vgpu_graph_copy, to_pitch) X(vgpu_graph_copy, to_rows)                \
    X(vgpu_graph_copy, from) X(vgpu_graph_copy, from_pitch) X(vgpu_graph_copy, from_rows)          \
    X(vgpu_graph_copy, width) X(vgpu_graph_copy, height) X(vgpu_graph_copy, depth)                 \
    X(vgpu_graph_copy, kind) X(vgpu_graph_copy, reserved) X(vgpu_graph_fill, to)                   \
    X(vgpu_graph_fill, pitch) X(vgpu_graph_fill, width) X(vgpu_graph_fill, height)                 \
    X(vgpu_graph_fill, value) X(vgpu_graph_fill, element) X(vgpu_graph_gate, address)        \
    X(vgpu_gpu_facts, name) X(vgpu_gpu_facts, uuid) X(vgpu_gpu_facts, bus_id)                      \
    X(vgpu_gpu_facts, driver) X(vgpu_gpu_facts, cuda) X(vgpu_gpu_facts, compute)                   \
    X(vgpu_gpu_facts, processors) X(vgpu_gpu_facts, cores) X(vgpu_gpu_facts, memory)               \
    X(vgpu_gpu_facts, pci_device) X(vgpu_gpu_facts, pci_subsystem)                                 \
    X(vgpu_gpu_facts, architecture) X(vgpu_gpu_facts, brand) X(vgpu_gpu_facts, bus_width)          \
    X(vgpu_gpu_facts, link_generation) X(vgpu_gpu_facts, link_width)                               \
    X(vgpu_gpu_facts, clock_max) X(vgpu_gpu_facts, power_least) X(vgpu_gpu_facts, power_most)      \
    X(vgpu_gpu_facts, power_default) X(vgpu_gpu_facts, ecc) X(vgpu_gpu_facts, vbios)               \
    X(vgpu_gpu_sensors, busy) X(vgpu_gpu_sensors, memory_busy)                                     \
    X(vgpu_gpu_sensors, temperature) X(vgpu_gpu_sensors, power)                                    \
    X(vgpu_gpu_sensors, power_limit) X(vgpu_gpu_sensors, clock) X(vgpu_gpu_sensors, state)         \
    X(vgpu_gpu_sensors, fan) X(vgpu_gpu_sensors, reserved) X(vgpu_gpu_sensors, memory_used)        \
    X(vgpu_gpu_sensors, energy) X(vgpu_card_session, memory) X(vgpu_card_session, busy_permille)            \
    X(vgpu_card, sequence) X(vgpu_card, size) X(vgpu_card, backend) X(vgpu_card, known)            \
    X(vgpu_card, facts) X(vgpu_card, sensors) X(vgpu_card, memory_total)                           \
    X(vgpu_card, memory_used) X(vgpu_card, busy_permille) X(vgpu_card, interval_ms)                         \
    X(vgpu_card, session) X(vgpu_gauge, sequence) X(vgpu_gauge, facts) X(vgpu_gauge, sensors)      \
    X(vgpu_control, owners) X(vgpu_regs_page, card) X(vgpu_driver_card, card)                      \
    X(vgpu_driver_card, owner)

/* clang-format on */

int main(void)
{
    NUMBERS(NUMBER)
#define ERROR(value, name, text) printf("error %d %s\n", value, #name);
    VGPU_ERRORS(ERROR)
#define GPU_ERROR(value, name, text, sticky) printf("number VGPU_GPU_%s 0x%x\n", #name, value);
    VGPU_GPU_ERRORS(GPU_ERROR)
#define QUEUE_END(value, name, text) printf("number VGPU_QUEUE_END_%s 0x%x\n", #name, value);
    VGPU_QUEUE_ENDS(QUEUE_END)
#define REFUSAL(value, name, text) printf("number VGPU_REFUSED_%s 0x%x\n", #name, value);
    VGPU_REFUSALS(REFUSAL)
    SIZES(SIZE)
    FIELDS(FIELD)
    return 0;
}
