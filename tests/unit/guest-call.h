/* SPDX-License-Identifier: MIT */
/* Calls of api/ whose arguments are all words, over the ring of a fixture. */
#ifndef VGPU_TESTS_UNIT_GUEST_CALL_H
#define VGPU_TESTS_UNIT_GUEST_CALL_H

#include "tests/unit/ring-fixture.h"
#include "tests/unit/unit.h"

#define CALL_WORDS_MAX 16u

/* As in api/private.api. */
enum {
    CALL_UPLOAD_BEGIN = 6,
    CALL_UPLOAD_WRITE = 7,
    CALL_GRAPH_MAKE = 16,
    CALL_GRAPH_UPDATE = 17,
    CALL_GRAPH_LAUNCH = 18,
    CALL_GRAPH_DESTROY = 19,
    CALL_MEMORY_DROP = 20,
    CALL_ADDRESS_RESERVE = 21,
    CALL_ADDRESS_FREE = 22,
    CALL_MEMORY_CREATE = 23,
    CALL_MEMORY_RELEASE = 24,
    CALL_MEMORY_MAP = 25,
    CALL_MEMORY_UNMAP = 26,
};

struct call_body {
    struct vgpu_cmd_call call;
    uint64_t words[CALL_WORDS_MAX];
};

static inline uint32_t call_body(struct call_body *body, uint32_t id, const uint64_t *words,
                                 size_t count)
{
    assert_true(count <= CALL_WORDS_MAX);
    *body = (struct call_body){.call = {.call = id, .bytes = (uint32_t)(8 * count)}};
    memcpy(body->words, words, 8 * count);
    return (uint32_t)(sizeof(body->call) + 8 * count);
}

/* Posts the call for a slot, 0 for none. */
static inline void post_words(uint32_t slot, uint32_t id, const uint64_t *words, size_t count)
{
    struct call_body body;
    const uint32_t bytes = call_body(&body, id, words, count);

    post(VGPU_CMD_CALL, slot, &body, bytes);
}

/* What comes of it, at once. */
static inline enum vgpu_gpu_error call_words(uint32_t id, const uint64_t *words, size_t count)
{
    struct call_body body;
    const uint32_t bytes = call_body(&body, id, words, count);

    return call(VGPU_CMD_CALL, &body, bytes);
}

#define WORDS(...)                                                                                 \
    (const uint64_t[])                                                                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define CALL(id, ...) call_words(id, WORDS(__VA_ARGS__), sizeof(WORDS(__VA_ARGS__)) / 8)
#define POST(slot, id, ...) post_words(slot, id, WORDS(__VA_ARGS__), sizeof(WORDS(__VA_ARGS__)) / 8)

/* The first word of the results of the last call. */
static inline uint64_t result_word(void)
{
    uint64_t word;

    memcpy(&word, fixture.queue->slots[VGPU_SLOTS - 1].payload, sizeof(word));
    return word;
}

#endif
