/* SPDX-License-Identifier: MIT */
/*
 * Ring mode: how a guest process and its worker on the host share a command queue.
 *
 * Theory of operation
 * -------------------
 * BAR2 holds, from its start:
 *
 *   control block   VGPU_CONTROL_SIZE bytes; a claim for each queue
 *   queues          VGPU_QUEUE_SIZE bytes each: header, completion slots, ring
 *   arena           the rest, from vgpu_arena_offset(): memory for data, shared out by claims
 *
 * A guest process that wants a session takes a queue that no living process has. It writes its
 * claim, which says what part of the arena it uses and at which address both sides map that part.
 * Then it clears the queue's header and slots, and writes OPEN to QUEUE_CONTROL. The mediator
 * starts a worker for the queue. QUEUE_STATUS tells whether that worked, and later whether the
 * session has ended, and why. CLOSE ends the worker, and with it all that the session had on the
 * GPU. A process that finds an open queue whose process has died closes it.
 *
 * Commands go through the ring in the order in which they were posted. A command without a slot is
 * not answered: its failure is reported by the session's next synchronising command. One with a
 * slot is answered there, by storing the command's sequence number last. The number of slots alone
 * limits how many of those are under way at a time, and they may be answered in any order.
 *
 * Wake-ups: a worker that has nothing to do for a while sets `parked` to an odd number, looks at
 * `tail` once more, and sleeps. A process that posts stores `tail`, looks at `parked` and, if it is
 * odd, writes the queue's doorbell. Each does its store, then a full fence, then its load: so one
 * of them sees the other. In the same way a process sets `waiting` and looks at its slots once more
 * before it waits for the queue's interrupt, and the worker answers, then looks at `waiting`.
 *
 * The worker reads nothing twice and nothing that it wrote itself. A header or a length that is not
 * possible ends the session with VGPU_QUEUE_END_BAD_RING. An argument that is not possible fails
 * its command.
 */
#ifndef VGPU_PROTOCOL_VGPU_QUEUE_H
#define VGPU_PROTOCOL_VGPU_QUEUE_H

#include "vgpu-errors.h"
#include "vgpu-regs.h"

/* Layout of BAR2 --------------------------------------------------------------------- */

#define VGPU_CONTROL_SIZE 4096u /* bytes */

/*
 * Written by the guest before OPEN, read by the worker once, at its start. A part that is not
 * within the arena ends the session with VGPU_QUEUE_END_BAD_CLAIM, and so does any value that is
 * not allowed. An address that is in use on the host ends it with VGPU_QUEUE_END_ADDRESS.
 */
struct vgpu_claim {
    uint64_t arena_address; /* where both sides map the part; a multiple of 4096, not 0 */
    uint64_t arena_offset;  /* of the part, in bytes from the start of BAR2; a multiple of 4096 */
    uint64_t arena_size;    /* bytes of the part; a multiple of 4096, not 0 */
    uint64_t reserved;      /* 0 */
};
static_assert(sizeof(struct vgpu_claim) == 32, "ABI");

/* A part of the arena that a process of the guest uses. Written by the guest, read by it alone. */
struct vgpu_arena_part {
    uint64_t offset, size; /* bytes from the start of BAR2; bytes, 0: no part is used */
};

/*
 * The control block. `parts` and `owners` are for the guest's processes among themselves, when no
 * driver keeps book of the arena and, for people, of whose a queue is: one for each queue, then one
 * for the client of register mode, which has no owner.
 */
struct vgpu_control {
    struct vgpu_claim claims[VGPU_MAX_QUEUES];
    struct vgpu_arena_part parts[VGPU_MAX_QUEUES + 1];
    int32_t owners[VGPU_MAX_QUEUES + 1]; /* process ids; 0: nobody's, or not known */
    uint8_t unused[VGPU_CONTROL_SIZE - 32 * VGPU_MAX_QUEUES - 20 * (VGPU_MAX_QUEUES + 1)];
};
static_assert(sizeof(struct vgpu_control) == VGPU_CONTROL_SIZE, "ABI");
static_assert(offsetof(struct vgpu_control, parts) == 0x800, "ABI");

#define VGPU_SLOTS 64u
#define VGPU_PAYLOAD_MAX 176u /* bytes of a result */

/* The answer to a command. Written by the worker; the guest clears it before OPEN. */
struct vgpu_slot {
    uint32_t sequence; /* the command's; store-release after the rest */
    uint32_t result;   /* enum vgpu_gpu_error, or another of CUDA's errors */
    uint32_t length;   /* bytes valid in `payload`, at most VGPU_PAYLOAD_MAX */
    uint32_t culprit;  /* vgpu_culprit() of the command that failed; 0: this one did, or none */
    uint8_t payload[VGPU_PAYLOAD_MAX]; /* a struct vgpu_result_*, or nothing */
};
static_assert(sizeof(struct vgpu_slot) == 192, "ABI");

#define VGPU_RING_SIZE (128u << 10) /* bytes; divides 2^32 */

/*
 * A queue. Each cache line of the header has one writer: G the guest process, W the worker. Counts
 * of bytes wrap at 2^32, of which the ring's size is a divisor.
 */
struct vgpu_queue {
    uint32_t tail; /* G: bytes posted since OPEN, in steps of 16; store-release after the command */
    uint32_t waiting; /* G: 1 while an answer is to raise the queue's interrupt, else 0 */
    uint8_t unused0[56];
    uint32_t head;   /* W: bytes taken since OPEN; store-release when they are copied */
    uint32_t parked; /* W: odd while it sleeps; counts up at each change */
    struct {
        uint32_t why;          /* enum vgpu_refusal; NONE until the session ends with BAD_RING */
        uint32_t offset;       /* of the command, in bytes since OPEN, as `head` counts */
        uint16_t opcode, slot; /* as its header says; any value */
        uint32_t length;       /* bytes, as its header says; any value */
    } refused;        /* W: the command that ended the session; store-release of `why` last */
    uint32_t lost;    /* W: the error of CUDA's with which the GPU's context was lost; 0 before */
    uint32_t printed; /* W: bytes that there were for VGPU_CMD_PRINTED since OPEN, which wraps */
    uint8_t unused1[VGPU_REGS_SIZE - 96];
    struct vgpu_slot slots[VGPU_SLOTS];                        /* W */
    uint8_t ring[VGPU_RING_SIZE] __attribute__((aligned(16))); /* G */
};
#define VGPU_QUEUE_SIZE (sizeof(struct vgpu_queue))
static_assert(offsetof(struct vgpu_queue, head) == 64, "ABI");
static_assert(offsetof(struct vgpu_queue, slots) == 0x1000, "ABI");
static_assert(offsetof(struct vgpu_queue, ring) == 0x4000, "ABI");
static_assert(VGPU_QUEUE_SIZE == 0x24000, "ABI");

/* The most queues that a shared memory of this size has room for: half of it may be queues. */
static inline uint32_t vgpu_queues_max(uint64_t shm_size)
{
    const uint64_t room = (shm_size / 2 - VGPU_CONTROL_SIZE) / VGPU_QUEUE_SIZE;

    return room < VGPU_MAX_QUEUES ? (uint32_t)room : VGPU_MAX_QUEUES;
}

/* Offset of a queue in BAR2, in bytes. */
static inline uint64_t vgpu_queue_offset(uint32_t queue)
{
    return VGPU_CONTROL_SIZE + (uint64_t)queue * VGPU_QUEUE_SIZE;
}

/* Offset of the arena in BAR2, in bytes; where there is room, aligned for huge pages. */
static inline uint64_t vgpu_arena_offset(uint64_t shm_size, uint32_t queues)
{
    const uint64_t align = shm_size >= (64u << 20) ? 2u << 20 : 4096u;

    return queues == 0 ? 0 : (vgpu_queue_offset(queues) + align - 1) & ~(align - 1);
}

/* QUEUE_STATUS and QUEUE_CONTROL ----------------------------------------------------- */

/* Values for QUEUE_CONTROL. A write is ignored while the write before it is not yet counted. */
#define VGPU_QUEUE_OPEN 1u  /* start a worker, unless there is one */
#define VGPU_QUEUE_CLOSE 2u /* end the worker */

/*
 * QUEUE_STATUS, written by the mediator: the state in bits 0-7, the reason of the end (enum
 * vgpu_queue_end) in bits 8-15, and in bits 16-31 the number of writes to QUEUE_CONTROL that were
 * acted upon, which wraps. The three are written one after another: the reason, the state, the
 * number. So whoever has seen the number move finds the state that it led to, and whoever has seen
 * ENDED why.
 */
enum vgpu_queue_state {
    VGPU_QUEUE_FREE = 0,     /* never opened, or closed as asked */
    VGPU_QUEUE_STARTING = 1, /* the worker makes its GPU context */
    VGPU_QUEUE_RUNNING = 2,  /* commands are taken */
    VGPU_QUEUE_ENDED = 3,    /* not as asked: the reason says why; may be opened again */
};

/* Why a session ended: value, name, text. The values are wire ABI. */
#define VGPU_QUEUE_ENDS(X)                                                                         \
    X(0, NONE, "it was closed")                                                                    \
    X(1, LOST, "the host process that served the session died")                                    \
    X(2, BAD_CLAIM, "the session's claim on the shared memory is wrong")                           \
    X(3, ADDRESS, "the address chosen for the arena is in use on the host")                        \
    X(4, BAD_RING, "what the ring holds is no command")                                            \
    X(5, BACKEND, "the GPU or its driver failed; the mediator's log says how")                     \
    X(6, TIMEOUT, "the session kept the GPU longer than the host allows while others waited")      \
    X(7, MEDIATOR, "the host's mediator was stopped or restarted")                                 \
    X(8, NO_MEMORY, "the host or its GPU is out of memory")                                        \
    X(9, QUOTA, "the VM has as many sessions as the host allows it")                               \
    X(10, NO_GPU, "no GPU of the VM's pool is free: each serves another VM, or is drained")        \
    X(11, OPERATOR, "an operator of the host has ended it")

enum vgpu_queue_end {
#define VGPU_QUEUE_END_ENUM(value, name, text) VGPU_QUEUE_END_##name = (value),
    VGPU_QUEUE_ENDS(VGPU_QUEUE_END_ENUM)
#undef VGPU_QUEUE_END_ENUM
};
#define VGPU_QUEUE_END_COUNT 12u

static inline enum vgpu_queue_state vgpu_queue_state(uint32_t status)
{
    return (enum vgpu_queue_state)(status & 0xff);
}
static inline enum vgpu_queue_end vgpu_queue_end(uint32_t status)
{
    return (enum vgpu_queue_end)(status >> 8 & 0xff);
}
static inline uint32_t vgpu_queue_count(uint32_t status)
{
    return status >> 16;
}

/*
 * Why a command ended its session with VGPU_QUEUE_END_BAD_RING: value, name, text. The values are
 * wire ABI.
 */
#define VGPU_REFUSALS(X)                                                                           \
    X(0, NONE, "nothing was refused")                                                              \
    X(1, TAIL, "the tail is further from the head than the ring is long, or not aligned")          \
    X(2, HEADER, "its header cannot be: length, slot or a reserved word is wrong")                 \
    X(3, LENGTH, "its length is not what its opcode and its counts ask for")                       \
    X(4, COUNT, "a count in it is larger than may be, or no multiple of what it has to be")        \
    X(5, SLOT_WANTED, "it needs a slot and has none")                                              \
    X(6, SLOT_USED, "another command that is not answered yet has its slot")

enum vgpu_refusal {
#define VGPU_REFUSAL_ENUM(value, name, text) VGPU_REFUSED_##name = (value),
    VGPU_REFUSALS(VGPU_REFUSAL_ENUM)
#undef VGPU_REFUSAL_ENUM
};
#define VGPU_REFUSAL_COUNT 7u

/* Commands --------------------------------------------------------------------------- */

#define VGPU_COMMAND_ALIGN 16u       /* bytes; of every command's start and length */
#define VGPU_COMMAND_MAX (40u << 10) /* bytes of a command with its header */
#define VGPU_PARAMS_MAX 32764u       /* bytes of a kernel's parameters, as CUDA has it */
#define VGPU_NAME_MAX 16384u         /* bytes of a function's name with its NUL */

/*
 * A command's header. It and all that follows, the structures vgpu_cmd_*, are written by the guest.
 * The worker copies a command out of the ring, and then checks it. Handles and addresses have 64
 * bits; reserved fields are 0.
 */
struct vgpu_command {
    uint16_t opcode; /* enum vgpu_command_opcode */
    uint16_t slot;   /* of the answer, 1 to VGPU_SLOTS; 0: no answer is wanted */
    uint32_t length; /* bytes with this header; a multiple of 16, at most COMMAND_MAX, except PAD */
    uint32_t sequence; /* any; the slot gets it with the answer */
    uint32_t reserved; /* 0 */
};
static_assert(sizeof(struct vgpu_command) == VGPU_COMMAND_ALIGN, "ABI");

/*
 * Opcodes. api/ring.api says for each what follows the header, what the answer is, whether it must
 * have a slot and whether it waits for a turn; docs/commands.md is that as a table. Lengths are
 * exact but for padding to the alignment.
 */
enum vgpu_command_opcode {
    VGPU_CMD_PAD = 0, /* fills the ring up to its end, and is skipped; `slot` is 0 */
    VGPU_CMD_NOP = 1,
    VGPU_CMD_DEVICE_INFO = 2,
    VGPU_CMD_MEM_INFO = 3,
    VGPU_CMD_MEM_ALLOC = 4,
    VGPU_CMD_MEM_FREE = 5,
    VGPU_CMD_COPY = 6,
    VGPU_CMD_FILL = 7,
    VGPU_CMD_MODULE_LOAD = 8,
    VGPU_CMD_MODULE_BUILTIN = 9,
    VGPU_CMD_MODULE_UNLOAD = 10,
    VGPU_CMD_FUNCTION_GET = 11,
    VGPU_CMD_FUNCTION_PARAM = 12,
    VGPU_CMD_LAUNCH = 13,
    VGPU_CMD_STREAM_CREATE = 14,
    VGPU_CMD_STREAM_DESTROY = 15,
    VGPU_CMD_STREAM_WAIT = 16,
    VGPU_CMD_STREAM_SYNC = 17,
    VGPU_CMD_STREAM_QUERY = 18,
    VGPU_CMD_EVENT_CREATE = 19,
    VGPU_CMD_EVENT_DESTROY = 20,
    VGPU_CMD_EVENT_RECORD = 21,
    VGPU_CMD_EVENT_SYNC = 22,
    VGPU_CMD_EVENT_QUERY = 23,
    VGPU_CMD_EVENT_ELAPSED = 24,
    VGPU_CMD_SYNC = 25,
    VGPU_CMD_FENCE = 26,
    VGPU_CMD_CALL = 27,
    VGPU_CMD_PRINTED = 28,
};
#define VGPU_COMMAND_COUNT 29u

/*
 * A handle is made by the worker. 0 is none; where a stream is asked for, it is the default stream.
 * Bits 0-23 are an index counted from 1, bits 24-31 the type, bits 32-63 a generation. When a
 * handle is given back another one gets its index, and the generation tells the two apart.
 */
static inline uint32_t vgpu_handle_index(uint64_t handle)
{
    return (uint32_t)(handle & 0xffffff) - 1; /* ~0 for 0 */
}
static inline uint32_t vgpu_handle_type(uint64_t handle)
{
    return (uint32_t)(handle >> 24 & 0xff);
}

/* A command with one argument: docs/commands.md says what it is. */
struct vgpu_cmd_value {
    uint64_t value;    /* a handle, an address, bytes or flags */
    uint64_t reserved; /* 0 */
};

/* A command with two arguments. */
struct vgpu_cmd_pair {
    uint64_t first, second; /* handles; in FUNCTION_PARAM a handle, and an index from 0 */
};

enum vgpu_copy_kind {
    VGPU_COPY_TO_DEVICE = 1,   /* `from` lies in the session's part of the arena */
    VGPU_COPY_FROM_DEVICE = 2, /* `to` lies in the session's part of the arena */
    VGPU_COPY_ON_DEVICE = 3,   /* both are addresses of device memory */
};

struct vgpu_cmd_copy {
    uint64_t to, from; /* addresses of the first byte */
    uint64_t bytes;    /* bytes of each row; with 0 nothing is copied */
    uint64_t stream;   /* handle of a stream, or 0 */
    uint32_t kind;     /* enum vgpu_copy_kind */
    uint32_t box;      /* 1: a struct vgpu_copy_box follows; 0: there is one row */
    uint64_t reserved; /* 0 */
};

/*
 * A copy of several rows and slices. On each side it is `pitch` bytes from row to row, and `rows`
 * times `pitch` bytes from slice to slice. With a height or a depth of 0 nothing is copied.
 */
struct vgpu_copy_box {
    uint64_t to_pitch, to_rows, from_pitch, from_rows; /* bytes, rows */
    uint64_t height, depth;                            /* rows of a slice, slices */
};

struct vgpu_cmd_fill {
    uint64_t address; /* a multiple of `element` */
    uint64_t width;   /* elements of a row; with 0 nothing is filled */
    uint64_t stream;  /* handle of a stream, or 0 */
    uint32_t value;   /* of each element: its low `element` bytes count */
    uint32_t element; /* bytes of an element: 1, 2 or 4 */
    uint64_t pitch;   /* bytes from row to row, a multiple of `element`; not used for one row */
    uint64_t rows;    /* number of rows; with 0 nothing is filled */
};

struct vgpu_cmd_stream_create {
    uint32_t flags;    /* VGPU_STREAM_NON_BLOCKING or 0 */
    int32_t priority;  /* any, as CUDA takes it: a lower number comes first */
    uint64_t reserved; /* 0 */
};

struct vgpu_cmd_module_load {
    uint64_t image; /* address in the session's part of the arena, a multiple of 4 */
    uint64_t bytes; /* of the image, 1 to 1 GiB; the worker takes a copy */
};

struct vgpu_cmd_function_get {
    uint64_t module; /* its handle */
    uint64_t length; /* bytes of the name that follows, without a NUL; below VGPU_NAME_MAX */
};

struct vgpu_cmd_launch {
    uint64_t function;     /* its handle */
    uint64_t stream;       /* handle of a stream, or 0 */
    uint32_t grid[3];      /* blocks in x, y, z; none is 0 */
    uint32_t block[3];     /* threads of a block in x, y, z; none is 0 */
    uint32_t shared_bytes; /* bytes of dynamic shared memory of a block */
    uint32_t param_bytes;  /* bytes of parameters, as the function has them; padding may follow */
    uint64_t attributes;   /* number of CUlaunchAttribute, at most VGPU_ATTRIBUTES_MAX */
};
#define VGPU_ATTRIBUTES_MAX 64u /* of a launch; behind the structure, before the parameters */

/*
 * The culprit of a failure that another command reports: the opcode in bits 0-7, and in bits 8-31
 * the id of the call if that is VGPU_CMD_CALL.
 */
static inline uint32_t vgpu_culprit(uint32_t opcode, uint32_t call)
{
    return (opcode & 0xff) | call << 8;
}

#define VGPU_REPLY_MAX (1u << 20) /* bytes of results that go into the arena */

/*
 * A call of CUDA's driver API, or one of those in api/private.api. api/README.md says how arguments
 * and results lie. Results go into the slot, or into the arena if they do not fit there.
 */
struct vgpu_cmd_call {
    uint32_t call;        /* id of the call; one that is not known gets NOT_SUPPORTED */
    uint32_t bytes;       /* of the arguments that follow; a multiple of 8 */
    uint64_t reply;       /* address in the session's part of the arena; 0: into the slot */
    uint32_t reply_bytes; /* room there, a multiple of 8, at most VGPU_REPLY_MAX; 0 for the slot */
    uint32_t reserved;    /* 0 */
    uint64_t reserved2;   /* 0 */
};

/*
 * What kernels print goes to their program's standard output, and what is said of their failed
 * assertions to its standard error. The host's driver writes it in the worker, which keeps the last
 * VGPU_PRINTED_KEPT bytes of each until the guest's process fetches them, in pieces, and writes
 * them where they belong. `printed` in the queue says when there is something: it is counted before
 * the answer to what synchronises, as the driver writes before that returns.
 */
enum vgpu_printed_file {
    VGPU_PRINTED_OUT = 1, /* as descriptors are numbered */
    VGPU_PRINTED_ERR = 2,
};
#define VGPU_PRINTED_FILES 2u
#define VGPU_PRINTED_KEPT (16u << 20) /* bytes */

struct vgpu_cmd_printed {
    uint32_t file;  /* enum vgpu_printed_file */
    uint32_t bytes; /* of room at `to` */
    uint64_t to;    /* address in the session's part of the arena; 0: the text goes into the slot */
};

static_assert(sizeof(struct vgpu_cmd_printed) == 16, "ABI");
static_assert(sizeof(struct vgpu_cmd_value) == 16, "ABI");
static_assert(sizeof(struct vgpu_cmd_call) == 32, "ABI");
static_assert(sizeof(struct vgpu_cmd_pair) == 16, "ABI");
static_assert(sizeof(struct vgpu_cmd_copy) == 48, "ABI");
static_assert(sizeof(struct vgpu_cmd_fill) == 48, "ABI");
static_assert(sizeof(struct vgpu_copy_box) == 48, "ABI");
static_assert(sizeof(struct vgpu_cmd_stream_create) == 16, "ABI");
static_assert(sizeof(struct vgpu_cmd_module_load) == 16, "ABI");
static_assert(sizeof(struct vgpu_cmd_function_get) == 16, "ABI");
static_assert(sizeof(struct vgpu_cmd_launch) == 56, "ABI");

#define VGPU_STREAM_NON_BLOCKING 1u /* neither it nor the default stream waits for the other */
#define VGPU_EVENT_NO_TIMING 2u     /* cannot be used with EVENT_ELAPSED, but is cheaper */

/* Results, in the slot's payload. Written by the worker. */

struct vgpu_result_value {
    uint64_t value; /* a handle, or an address of device memory */
};

struct vgpu_result_mem_info {
    uint64_t free, total; /* bytes that may still be allocated; in all, at most the VM's quota */
};

struct vgpu_result_function {
    uint64_t function;    /* its handle */
    uint32_t params;      /* number of parameters; ~0 when the GPU's driver cannot tell */
    uint32_t max_threads; /* threads of a block, at most */
};

/* A parameter. FUNCTION_PARAM answers with as many as fit, from the one that was asked for on. */
struct vgpu_result_param {
    uint64_t offset, size; /* bytes from the start of the parameters; bytes */
};
#define VGPU_RESULT_PARAMS (VGPU_PAYLOAD_MAX / 16u)

struct vgpu_result_elapsed {
    float milliseconds; /* between the two events, as CUDA measures it */
    uint32_t reserved;  /* 0 */
};

#define VGPU_PRINTED_SLOT (VGPU_PAYLOAD_MAX - 8u)

/* The oldest text that was not fetched yet, in no special place: a line may be cut anywhere. */
struct vgpu_result_printed {
    uint32_t bytes;                  /* 0: there is none */
    uint32_t reserved;               /* 0 */
    uint8_t text[VGPU_PRINTED_SLOT]; /* when it was not to go into the arena */
};

/*
 * The built-in module, the same on every backend. Its functions, with their parameters as in C.
 * `count` is in elements. Any grid will do:
 *
 *   vadd(const float *a, const float *b, float *sum, uint64_t count)
 *   fill(uint32_t *to, uint64_t count, uint32_t value)
 *   reduce_sum(const int32_t *from, uint64_t count, int64_t *sum)  adds to *sum
 *   spin(uint64_t ns)                                              takes so many ns
 */

#endif
