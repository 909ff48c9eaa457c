/* SPDX-License-Identifier: MIT */
/*
 * Decoder of register-mode requests. One table says what each opcode takes; the checks that all
 * opcodes share are made once, from the table: length, opcode, then type and count. Each opcode's
 * own function then has a count that is in range, and looks at its operands.
 *
 * The bytes are a hostile guest's, copied once by the caller. Nothing is computed from them that
 * could wrap before it is compared with a limit, and nothing is looked at beyond `length`.
 */
#include "worker/request.h"

#include <string.h>

#define HEADER ((uint32_t)sizeof(struct vgpu_request_header))

struct opcode_rule {
    bool known;
    bool elements; /* type and count are used; otherwise both are zero */
    uint64_t max;  /* of count */
    enum vgpu_error (*decode)(const uint8_t *operands, uint32_t length, uint64_t shm_size,
                              struct request *request);
};

/* Any bytes, as many as there are: `count`, which was 0 in the header, becomes their number. */
static enum vgpu_error decode_echo(const uint8_t *operands, uint32_t length, uint64_t shm_size,
                                   struct request *request)
{
    (void)shm_size;
    request->echo = operands;
    request->count = length;
    return VGPU_ERROR_NONE;
}

static enum vgpu_error decode_device_info(const uint8_t *operands, uint32_t length,
                                          uint64_t shm_size, struct request *request)
{
    (void)operands;
    (void)shm_size;
    (void)request;
    return length == 0 ? VGPU_ERROR_NONE : VGPU_ERROR_BAD_LENGTH;
}

static enum vgpu_error decode_add_inline(const uint8_t *operands, uint32_t length,
                                         uint64_t shm_size, struct request *request)
{
    /* count is at most VGPU_INLINE_MAX here, so this cannot wrap. */
    const uint32_t vector = (uint32_t)request->count * VGPU_ELEMENT_SIZE;

    (void)shm_size;
    if (length != 2 * vector) {
        return VGPU_ERROR_BAD_LENGTH;
    }
    request->inlined.a = operands;
    request->inlined.b = operands + vector;
    return VGPU_ERROR_NONE;
}

/*
 * Whether [offset, offset + bytes) lies in [0, size), for any values of the first two: no sum is
 * made that could wrap.
 */
static bool request_in_range(uint64_t offset, uint64_t bytes, uint64_t size)
{
    return offset <= size && bytes <= size - offset;
}

/*
 * Whether two ranges of `bytes`, both known to lie inside the memory, share a byte. The sums do not
 * wrap: the memory has VGPU_SHM_MAX bytes at most.
 */
static bool vectors_overlap(uint64_t one, uint64_t other, uint64_t bytes)
{
    return one < other + bytes && other < one + bytes;
}

static enum vgpu_error decode_add_shm(const uint8_t *operands, uint32_t length, uint64_t shm_size,
                                      struct request *request)
{
    struct vgpu_add_shm add;
    /* count is at most VGPU_SHM_MAX / VGPU_ELEMENT_SIZE here, so this cannot wrap. */
    const uint64_t bytes = request->count * VGPU_ELEMENT_SIZE;

    if (length != sizeof(add)) {
        return VGPU_ERROR_BAD_LENGTH;
    }
    memcpy(&add, operands, sizeof(add));
    if ((add.a | add.b | add.sum) % VGPU_ELEMENT_SIZE != 0) {
        return VGPU_ERROR_BAD_ALIGNMENT;
    }
    if (!request_in_range(add.a, bytes, shm_size) || !request_in_range(add.b, bytes, shm_size) ||
        !request_in_range(add.sum, bytes, shm_size)) {
        return VGPU_ERROR_BAD_RANGE;
    }
    /*
     * In place is allowed, element by element. A sum that is shifted against an operand would
     * overwrite elements before they are read, and not the same ones on every backend.
     */
    if ((add.sum != add.a && vectors_overlap(add.sum, add.a, bytes)) ||
        (add.sum != add.b && vectors_overlap(add.sum, add.b, bytes))) {
        return VGPU_ERROR_BAD_OVERLAP;
    }
    request->shm = add;
    return VGPU_ERROR_NONE;
}

static const struct opcode_rule rules[] = {
    [VGPU_OP_ECHO] = {.known = true, .decode = decode_echo},
    [VGPU_OP_DEVICE_INFO] = {.known = true, .decode = decode_device_info},
    [VGPU_OP_ADD_INLINE] = {.known = true,
                            .elements = true,
                            .max = VGPU_INLINE_MAX,
                            .decode = decode_add_inline},
    [VGPU_OP_ADD_SHM] = {.known = true,
                         .elements = true,
                         .max = VGPU_SHM_MAX / VGPU_ELEMENT_SIZE,
                         .decode = decode_add_shm},
};

enum vgpu_error request_decode(const uint8_t *bytes, uint32_t length, uint64_t shm_size,
                               struct request *request)
{
    struct vgpu_request_header header;
    const struct opcode_rule *rule;

    if (length < HEADER || length > VGPU_REQUEST_MAX) {
        return VGPU_ERROR_BAD_LENGTH;
    }
    memcpy(&header, bytes, sizeof(header));
    if (header.opcode >= sizeof(rules) / sizeof(rules[0]) || !rules[header.opcode].known) {
        return VGPU_ERROR_BAD_OPCODE;
    }
    rule = &rules[header.opcode];
    /* Of the union, an opcode fills in its own member alone. */
    memset(request, 0, sizeof(*request));
    request->opcode = (enum vgpu_opcode)header.opcode;
    if (!rule->elements) {
        /* Fields without a meaning are 0, so that they can get one in a later version. */
        if (header.type != 0 || header.count != 0) {
            return VGPU_ERROR_BAD_RESERVED;
        }
    } else {
        if (header.type != VGPU_TYPE_INT32 && header.type != VGPU_TYPE_FLOAT32) {
            return VGPU_ERROR_BAD_TYPE;
        }
        if (header.count == 0 || header.count > rule->max) {
            return VGPU_ERROR_BAD_COUNT;
        }
        request->type = (enum vgpu_type)header.type;
        request->count = header.count;
    }
    return rule->decode(bytes + HEADER, length - HEADER, shm_size, request);
}

bool request_needs_turn(const struct request *request)
{
    return request->opcode == VGPU_OP_ADD_INLINE || request->opcode == VGPU_OP_ADD_SHM;
}

bool request_repeatable(const struct request *request)
{
    return request->opcode != VGPU_OP_ADD_SHM ||
           (request->shm.sum != request->shm.a && request->shm.sum != request->shm.b);
}
