/* SPDX-License-Identifier: MIT */
/*
 * Every call that goes over the wire: there and back again, and with bytes that no guest half
 * sends. See roundtrip.h. The same tests run on the specification of the API and on golden.api,
 * which has what the language allows and the API does not use.
 *
 * Tests: worker/api.c, guest/libcuda/wire/call.c
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/exports/proc.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "tests/api/roundtrip.h"
#include "tests/api/transport.h"
#include "worker/command.h"

#define ROUNDS 48u
#define WHOLE 3u       /* a round with something in each array and string */
#define OBJECTS 4u     /* of each type */
#define TYPES 256u     /* handles have 8 bits for it */
#define RANDOM 100000u /* handles that are tried for each argument */
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

enum vgpu_gpu_error fake_result;

static struct {
    uint64_t random;
    unsigned wanted;  /* bits of optional results */
    bool variant;     /* the default stream is the thread's own */
    unsigned entered; /* how often a fake was reached */
    uint32_t id;      /* which one */
    struct gpu gpu;
    char objects[TYPES][OBJECTS]; /* only their addresses matter */
    uint64_t live[TYPES][OBJECTS], dead[TYPES];
} test;

/* What is passed ------------------------------------------------------------------------------- */

uint64_t draw_random(void)
{
    test.random ^= test.random << 13;
    test.random ^= test.random >> 7;
    test.random ^= test.random << 17;
    return test.random;
}

static uint64_t largest(enum field_kind kind)
{
    switch (kind) {
    case FIELD_I32:
        return INT32_MAX;
    case FIELD_U8:
        return UINT8_MAX;
    case FIELD_U16:
        return UINT16_MAX;
    case FIELD_U32:
        return UINT32_MAX;
    default:
        return UINT64_MAX;
    }
}

uint64_t draw_number(enum field_kind kind, unsigned round)
{
    switch (round) {
    case 0:
        return 0;
    case 1:
        return largest(kind);
    case 2:
        return kind == FIELD_I32 ? (uint64_t)INT32_MIN : largest(kind) / 2 + 1;
    case 3:
        return kind == FIELD_I32 ? (uint64_t)-1 : 1;
    default:
        return kind == FIELD_I32 ? (uint64_t)(int32_t)draw_random() : draw_random() & largest(kind);
    }
}

unsigned draw_count(unsigned round)
{
    static const unsigned counts[] = {0, 1, 2, ELEMENTS, 5, 7, 3, 8};

    return round % ROUNDS == WHOLE ? ELEMENTS : counts[round % LENGTH(counts)];
}

void draw_string(char *string, unsigned round)
{
    static const unsigned lengths[] = {0, 1, 7, 20, 6, 8, STRING_ROOM - 1, 15};
    const unsigned length = lengths[round % LENGTH(lengths)];

    memset(string, 0, STRING_ROOM);
    for (unsigned i = 0; i < length; i++) {
        string[i] = (char)(draw_random() % 255 + 1);
    }
}

void draw_bytes(void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ((uint8_t *)bytes)[i] = (uint8_t)draw_random();
    }
}

uint64_t draw_handle(enum handle_type type, unsigned round)
{
    if (type == HANDLE_STREAM && round % 5 == 0) {
        return 0;
    }
    return test.live[type][round % OBJECTS];
}

bool is_wanted(unsigned bit)
{
    return (test.wanted >> bit & 1) != 0;
}

/* What arrives --------------------------------------------------------------------------------- */

void *object_behind(enum handle_type type, const void *passed)
{
    const uint64_t handle = (uint64_t)(uintptr_t)passed;

    for (unsigned i = 0; i < OBJECTS; i++) {
        if (handle != 0 && test.live[type][i] == handle) {
            return &test.objects[type][i];
        }
    }
    assert_int_equal(type, HANDLE_STREAM);
    assert_int_equal(handle, 0);
    return test.variant ? &test.objects[HANDLE_STREAM][0] : NULL;
}

void assert_zero(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(((const uint8_t *)bytes)[i], 0);
    }
}

void fake_entered(uint32_t id, const struct gpu *gpu)
{
    test.entered++;
    test.id = id;
    assert_ptr_equal(gpu, &test.gpu);
}

/* The session ---------------------------------------------------------------------------------- */

/* Objects of each type, and of each a handle that was given back and is in use anew. */
static int set_up(void **state)
{
    (void)state;
    memset(&test, 0, sizeof(test));
    test.random = UINT64_C(0x9e3779b97f4a7c15);
    fake_result = VGPU_GPU_SUCCESS;
    cuda.host_revision = API_REVISION;
    transport.gpu = &test.gpu;
    transport.calls = &fake_calls;
    transport.refuse_handles = false;
    transport.life = CUDA_SUCCESS;
    for (unsigned k = 0; k < handle_kind_count; k++) {
        const enum handle_type type = handle_kinds[k];

        test.dead[type] = handles_add(&transport.handles, type, &test.objects[type][0], 0);
        handles_remove(&transport.handles, test.dead[type]);
        for (unsigned i = 0; i < OBJECTS; i++) {
            test.live[type][i] = handles_add(&transport.handles, type, &test.objects[type][i], 0);
            assert_int_not_equal(test.live[type][i], 0);
        }
    }
    transport.own_stream = test.live[HANDLE_STREAM][0];
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    handles_release(&transport.handles);
    return 0;
}

static void set(const struct roundtrip *call, unsigned round)
{
    test.wanted = round; /* all combinations in turn */
    test.variant = false;
    if (call->set) {
        call->set(round);
    }
}

/* One call, as it is meant; what it sent stays in `transport`. */
static void run(const struct roundtrip *call, unsigned round, unsigned entry)
{
    CUresult r;

    set(call, round);
    test.variant = call->variant && entry == call->entries - 1;
    test.entered = 0;
    transport.runs = 0;
    r = call->run(entry);
    if (r != (CUresult)fake_result) {
        fail_msg("%s, entry %u, in round %u: error %d", call->name, entry, round, (int)r);
    }
    assert_int_equal(transport.runs, 1);
    assert_int_equal(transport.id, call->id);
    assert_int_equal(test.entered, 1);
    assert_int_equal(test.id, call->id);
}

/* There and back again -------------------------------------------------------------------- */

static void for_each(void (*check)(const struct roundtrip *call))
{
    for (unsigned i = 0; i < roundtrip_count; i++) {
        check(&roundtrips[i]);
    }
}

static void arrives(const struct roundtrip *call)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        run(call, round, 0);
        assert_int_equal(transport.post, call->post);
        assert_int_equal(transport.length, transport.back_bytes);
        assert_int_equal(transport.in_bytes % 8, 0);
    }
}

static void test_arguments_and_results_arrive(void **state)
{
    (void)state;
    for_each(arrives);
}

/* A host that has the call, and all those before. */
static void needs_its_revision(const struct roundtrip *call)
{
    for (cuda.host_revision = 0; cuda.host_revision < call->since; cuda.host_revision++) {
        set(call, WHOLE);
        transport.runs = 0;
        assert_int_equal(call->run(0), CUDA_ERROR_NOT_SUPPORTED);
        assert_int_equal(transport.runs, 0);
    }
    run(call, WHOLE, 0);
    cuda.host_revision = API_REVISION;
}

static void test_a_call_newer_than_the_host_is_not_sent(void **state)
{
    unsigned newer = 0;

    (void)state;
    for_each(needs_its_revision);
    for (unsigned i = 0; i < roundtrip_count; i++) {
        newer += roundtrips[i].since > 1;
    }
    assert_int_not_equal(newer, 0);
}

static void fails(const struct roundtrip *call)
{
    fake_result = VGPU_GPU_NOT_FOUND;
    run(call, WHOLE, 0); /* which finds the results untouched */
    fake_result = VGPU_GPU_SUCCESS;
}

static void test_an_error_comes_back_without_results(void **state)
{
    (void)state;
    for_each(fails);
}

static void is_exported(const struct roundtrip *call)
{
    for (unsigned entry = 1; entry < call->entries; entry++) {
        for (unsigned round = 0; round < ROUNDS; round++) {
            transport.context_asked = 0;
            run(call, round, entry);
            assert_int_equal(transport.context_asked, 1);
        }
        transport.life = CUDA_ERROR_INVALID_CONTEXT;
        transport.runs = 0;
        set(call, WHOLE);
        assert_int_equal(call->run(entry), CUDA_ERROR_INVALID_CONTEXT);
        assert_int_equal(transport.runs, 0);
        transport.life = CUDA_SUCCESS;
    }
}

static void test_exported_functions_of_calls_on_the_wire(void **state)
{
    (void)state;
    for_each(is_exported);
}

static void wants_its_pointers(const struct roundtrip *call)
{
    set(call, WHOLE);
    transport.runs = 0;
    for (unsigned missing = 0; missing < call->pointers; missing++) {
        assert_int_equal(call->null(missing), CUDA_ERROR_INVALID_VALUE);
    }
    assert_int_equal(transport.runs, 0);
}

static void test_null_pointers_are_refused_by_the_guest(void **state)
{
    (void)state;
    for_each(wants_its_pointers);
}

static void wants_its_handles(const struct roundtrip *call)
{
    bool any = false;

    for (unsigned i = 0; i < call->field_count; i++) {
        any = any || call->fields[i].kind == FIELD_HANDLE;
    }
    if (any) {
        set(call, WHOLE);
        transport.runs = 0;
        transport.refuse_handles = true;
        assert_int_equal(call->run(0), CUDA_ERROR_INVALID_HANDLE);
        transport.refuse_handles = false;
        assert_int_equal(transport.runs, 0);
    }
}

static void test_unknown_handles_are_refused_by_the_guest(void **state)
{
    (void)state;
    for_each(wants_its_handles);
}

/* Rules ----------------------------------------------------------------------------------- */

static uint64_t sent(unsigned word)
{
    uint64_t value;

    memcpy(&value, transport.in + 8 * (size_t)word, sizeof(value));
    return value;
}

static void has_its_rule(const struct roundtrip *call)
{
    const struct api_rule *rule = api_find(call->id);
    uint64_t weigh = 0;
    unsigned stream = 0;

    assert_non_null(rule);
    assert_string_equal(rule->name, call->name);
    assert_int_equal((rule->flags & COMMAND_SLOT) == 0, call->post);
    for (unsigned i = 0; i < call->field_count; i++) {
        weigh |= call->fields[i].weight ? UINT64_C(1) << call->fields[i].word : 0;
        stream = call->fields[i].stream ? call->fields[i].word + 1 : stream;
    }
    assert_int_equal(rule->weigh, weigh);
    assert_int_equal(rule->stream, stream);
    run(call, WHOLE, 0);
    if (stream != 0) {
        assert_non_null(handles_get(&transport.handles, HANDLE_STREAM, sent(stream - 1)));
    }
}

static void test_rules(void **state)
{
    (void)state;
    for_each(has_its_rule);
}

static void test_other_ids_are_unknown(void **state)
{
    unsigned known = 0;

    (void)state;
    for (uint32_t id = 0; id < api_ids + 1000; id++) {
        known += api_find(id) != NULL;
    }
    assert_int_equal(known, roundtrip_count);
    assert_null(api_find(UINT32_MAX));
}

static void needs_the_backend(const struct roundtrip *call)
{
    static const struct gpu_calls none;

    run(call, WHOLE, 0);
    test.entered = 0;
    transport.calls = &none;
    if (transport_serve(call->id, transport.in, transport.in_bytes, NULL, transport.back_bytes,
                        NULL) != VGPU_GPU_SUCCESS) {
        assert_int_equal(transport_serve(call->id, transport.in, transport.in_bytes, NULL,
                                         transport.back_bytes, NULL),
                         VGPU_GPU_NOT_SUPPORTED);
        assert_int_equal(test.entered, 0);
    }
    transport.calls = &fake_calls;
}

static void test_what_a_backend_lacks_is_not_supported(void **state)
{
    (void)state;
    for_each(needs_the_backend);
}

/* What no guest half sends ---------------------------------------------------------------- */

/* What a call sent, to be changed. */
struct message {
    const struct roundtrip *call;
    uint32_t bytes, room;
    uint64_t words[TRANSPORT_ROOM / 8];
};

/* As the round has it. */
static struct message *message_of(const struct roundtrip *call, unsigned round)
{
    static struct message message;

    run(call, round, 0);
    message.call = call;
    message.bytes = transport.in_bytes;
    message.room = transport.back_bytes;
    memset(message.words, 0, sizeof(message.words));
    memcpy(message.words, transport.in, transport.in_bytes);
    return &message;
}

static enum vgpu_gpu_error serve(const struct message *message)
{
    test.entered = 0;
    return transport_serve(message->call->id, message->words, message->bytes, NULL, message->room,
                           NULL);
}

static void assert_refused(const struct message *message, const char *why)
{
    const enum vgpu_gpu_error error = serve(message);

    if (error == VGPU_GPU_SUCCESS || test.entered != 0) {
        fail_msg("%s: accepted with %s", message->call->name, why);
    }
}

static void assert_refused_with(struct message *message, unsigned word, uint64_t value,
                                const char *why)
{
    const uint64_t before = message->words[word];

    message->words[word] = value;
    assert_refused(message, why);
    message->words[word] = before;
}

static void assert_accepted(const struct message *message)
{
    assert_int_equal(serve(message), VGPU_GPU_SUCCESS);
    assert_int_equal(test.entered, 1);
}

/* Arrays of some lengths: paddings differ. */
static const unsigned rounds[] = {WHOLE, 0, 1, 4, 5};

static void for_each_message(void (*check)(struct message *message))
{
    for (unsigned i = 0; i < roundtrip_count; i++) {
        for (unsigned j = 0; j < LENGTH(rounds); j++) {
            struct message *message = message_of(&roundtrips[i], rounds[j]);

            assert_accepted(message);
            check(message);
            assert_accepted(message);
        }
    }
}

static void has_one_length(struct message *message)
{
    const uint32_t right = message->bytes;

    for (message->bytes = 0; message->bytes < right; message->bytes++) {
        assert_refused(message, "fewer bytes");
    }
    for (unsigned more = 8; more <= 64; more += 8) {
        message->bytes = right + more;
        assert_refused(message, "more bytes");
    }
    message->bytes = right;
}

static void test_other_lengths_are_refused(void **state)
{
    (void)state;
    for_each_message(has_one_length);
}

static void needs_room(struct message *message)
{
    const uint32_t right = message->room;

    for (message->room = 0; message->room < right; message->room++) {
        assert_refused(message, "too little room for results");
    }
    message->room = right + 8;
    assert_accepted(message);
    message->room = right;
}

static void test_too_little_room_is_refused(void **state)
{
    (void)state;
    for_each_message(needs_room);
}

static void has_ranges(struct message *message)
{
    for (unsigned i = 0; i < message->call->field_count; i++) {
        const struct field *field = &message->call->fields[i];
        const uint64_t max = largest(field->kind);

        if (field->kind > FIELD_U32) {
            continue;
        }
        assert_refused_with(message, field->word, max + 1, "a number out of its range");
        assert_refused_with(message, field->word, UINT64_C(1) << 32, "2^32");
        assert_refused_with(message, field->word, UINT64_C(1) << 63, "2^63");
        assert_refused_with(message, field->word, INT64_MAX, "2^63 - 1");
        assert_refused_with(message, field->word, (uint64_t)INT32_MIN - 1, "less than INT32_MIN");
        assert_refused_with(message, field->word, message->words[field->word] ^ UINT64_C(1) << 40,
                            "a high bit");
        if (field->kind != FIELD_I32) {
            assert_refused_with(message, field->word, UINT64_MAX, "-1 as an unsigned number");
        }
    }
}

static void test_numbers_out_of_range_are_refused(void **state)
{
    (void)state;
    for_each_message(has_ranges);
}

static void has_counts(struct message *message)
{
    for (unsigned i = 0; i < message->call->field_count; i++) {
        const struct field *field = &message->call->fields[i];
        const uint64_t count = message->words[field->word];

        if (!field->count && field->kind != FIELD_LENGTH) {
            continue;
        }
        for (unsigned more = 8; more < 40; more++) {
            assert_refused_with(message, field->word, count + more, "more elements than there are");
        }
        /* Many; and so many that their bytes, in 32 or 64 bits, are few or none. */
        for (unsigned bit = 16; bit < 64; bit++) {
            assert_refused_with(message, field->word, UINT64_C(1) << bit, "2^N elements");
            assert_refused_with(message, field->word, count + (UINT64_C(1) << bit),
                                "2^N elements more");
            assert_refused_with(message, field->word, (UINT64_C(1) << bit) - 1, "2^N - 1 elements");
        }
        assert_refused_with(message, field->word, UINT64_MAX, "2^64 - 1 elements");
        assert_refused_with(message, field->word, UINT64_MAX - 7, "2^64 - 8 elements");
    }
}

static void test_counts_of_what_is_not_there_are_refused(void **state)
{
    (void)state;
    for_each_message(has_counts);
}

static void has_a_mask(struct message *message)
{
    for (unsigned i = 0; i < message->call->field_count; i++) {
        const struct field *field = &message->call->fields[i];

        for (unsigned bit = field->bits; field->kind == FIELD_MASK && bit < 64; bit++) {
            assert_refused_with(message, field->word,
                                message->words[field->word] | UINT64_C(1) << bit,
                                "a result that it does not have");
        }
    }
}

static void test_unknown_optional_results_are_refused(void **state)
{
    (void)state;
    for_each_message(has_a_mask);
}

/* Where a part's bytes are, and how many. */
static char *part_at(struct message *message, unsigned which, uint64_t *count)
{
    uint64_t at = 8 * (uint64_t)message->call->words;

    for (unsigned i = 0;; i++) {
        const struct part *part = &message->call->parts[i];

        *count = part->fixed ? part->fixed : message->words[part->word];
        if (i == which) {
            return (char *)message->words + at;
        }
        at += (*count * part->size + 7) & ~UINT64_C(7);
    }
}

static void has_strings(struct message *message)
{
    for (unsigned i = 0; i < message->call->part_count; i++) {
        const struct part *part = &message->call->parts[i];
        uint64_t count;
        char *string;

        if (!part->string) {
            continue;
        }
        string = part_at(message, i, &count);
        assert_refused_with(message, part->word, 0, "a string of no bytes");
        assert_refused_with(message, part->word, count - 1, "no NUL");
        string[count - 1] = 'x';
        assert_refused(message, "something in place of the NUL");
        string[count - 1] = '\0';
        for (uint64_t j = 0; j + 1 < count; j++) {
            const char before = string[j];

            string[j] = '\0';
            assert_refused(message, "a NUL within");
            string[j] = before;
        }
    }
}

static void test_strings_without_their_nul_are_refused(void **state)
{
    (void)state;
    for_each_message(has_strings);
}

/* Handles --------------------------------------------------------------------------------- */

static void try_handles(struct message *message, const struct field *field)
{
    const uint64_t live = test.live[field->type][1];

    if (field->type != HANDLE_STREAM) {
        assert_refused_with(message, field->word, 0, "no handle");
    }
    assert_refused_with(message, field->word, test.dead[field->type], "a handle given back");
    for (unsigned bit = 0; bit < 64; bit++) {
        /* Another index may be a handle too, but not one with this type and generation. */
        if (bit >= 24) {
            assert_refused_with(message, field->word, live ^ UINT64_C(1) << bit,
                                "a handle with a bit changed");
        }
    }
    for (unsigned k = 0; k < handle_kind_count; k++) {
        const uint64_t other = test.live[handle_kinds[k]][1];

        if (handle_kinds[k] != field->type) {
            assert_refused_with(message, field->word, other, "a handle of another type");
            assert_refused_with(message, field->word,
                                (other & ~(UINT64_C(0xff) << 24)) | (uint64_t)field->type << 24,
                                "another object's handle with its type");
        }
    }
}

static void has_handles(struct message *message)
{
    for (unsigned i = 0; i < message->call->field_count; i++) {
        if (message->call->fields[i].kind == FIELD_HANDLE) {
            try_handles(message, &message->call->fields[i]);
        }
    }
}

static void test_wrong_handles_are_refused(void **state)
{
    (void)state;
    for_each_message(has_handles);
}

static bool is_live(enum handle_type type, uint64_t handle)
{
    bool live = type == HANDLE_STREAM && handle == 0;

    for (unsigned i = 0; i < OBJECTS; i++) {
        live = live || test.live[type][i] == handle;
    }
    return live;
}

/* Random bits; half of them with an index that is in use, half of those with the type besides. */
static uint64_t random_handle(enum handle_type type)
{
    const uint64_t handle = draw_random();
    const uint64_t index = draw_random() % (transport.handles.count + 1);

    switch (draw_random() % 4) {
    case 0:
        return (handle & ~UINT64_C(0xffffffff)) | (uint64_t)type << 24 | index;
    case 1:
        return (handle & ~UINT64_C(0xffffff)) | index;
    default:
        return handle;
    }
}

static void try_random(const struct roundtrip *call, const struct field *field)
{
    struct message *message = message_of(call, WHOLE);

    for (unsigned i = 0; i < RANDOM; i++) {
        const uint64_t handle = random_handle(field->type);

        if (!is_live(field->type, handle)) {
            assert_refused_with(message, field->word, handle, "a random handle");
        }
    }
}

static void tries_random(const struct roundtrip *call)
{
    for (unsigned i = 0; i < call->field_count; i++) {
        if (call->fields[i].kind == FIELD_HANDLE) {
            try_random(call, &call->fields[i]);
        }
    }
}

static void test_random_handles_are_refused(void **state)
{
    (void)state;
    for_each(tries_random);
}

/* What programs call --------------------------------------------------------------------------- */

static struct {
    const char *name;
    uint64_t passed[32];
    unsigned count;
} guest;

CUresult guest_entered(const char *name, const uint64_t *passed, unsigned count)
{
    assert_true(count <= LENGTH(guest.passed));
    guest.name = name;
    guest.count = count;
    memcpy(guest.passed, passed, count * sizeof(*passed));
    return CUDA_ERROR_NOT_FOUND;
}

static void check_passed(const struct hand_entry *entry, bool null_stream)
{
    const uint64_t default_stream = (uint64_t)(uintptr_t)(entry->variant ? CU_STREAM_PER_THREAD
                                                                         : CU_STREAM_LEGACY);

    assert_int_equal(guest.count, entry->count + entry->default_stream);
    for (unsigned i = 0; i < entry->count; i++) {
        const bool is_null = null_stream && i + 1 == entry->stream;

        assert_int_equal(guest.passed[i],
                         !is_null ? PASSED + i : (entry->variant ? default_stream : 0));
    }
    if (entry->default_stream) {
        assert_int_equal(guest.passed[entry->count], default_stream);
    }
}

static void check_entry(const struct hand_entry *entry, bool null_stream)
{
    guest.name = "";
    transport.init_asked = 0;
    transport.context_asked = 0;
    assert_int_equal(entry->run(null_stream), CUDA_ERROR_NOT_FOUND);
    assert_string_equal(guest.name, entry->guest);
    assert_int_equal(transport.init_asked, entry->needs == NEEDS_INIT);
    assert_int_equal(transport.context_asked, entry->needs == NEEDS_CONTEXT);
    check_passed(entry, null_stream);
    if (entry->needs != NEEDS_NOTHING) {
        guest.name = "";
        transport.life = CUDA_ERROR_NOT_INITIALIZED;
        assert_int_equal(entry->run(null_stream), CUDA_ERROR_NOT_INITIALIZED);
        assert_string_equal(guest.name, "");
        transport.life = CUDA_SUCCESS;
    }
}

static void test_exported_functions_of_what_is_written_by_hand(void **state)
{
    (void)state;
    transport.any_stream = true;
    for (unsigned i = 0; i < hand_entry_count; i++) {
        check_entry(&hand_entries[i], false);
        check_entry(&hand_entries[i], true);
    }
    transport.any_stream = false;
}

static const struct entry *entry_of(const struct refusal *refusal)
{
    for (unsigned i = 0; i < exported_entries.count; i++) {
        if (strcmp(exported_entries.entry[i].name, refusal->name) == 0 &&
            exported_entries.entry[i].version == refusal->version) {
            return &exported_entries.entry[i];
        }
    }
    return NULL;
}

static void check_refused(void *function, const char *symbol)
{
    CUresult (*refused)(void);

    memcpy(&refused, &function, sizeof(refused));
    transport.refused = "";
    assert_int_equal(refused(), CUDA_ERROR_NOT_SUPPORTED);
    assert_string_equal(transport.refused, symbol);
}

static void test_refused_functions(void **state)
{
    (void)state;
    for (unsigned i = 0; i < refusal_count; i++) {
        const struct entry *entry = entry_of(&refusals[i]);

        assert_non_null(entry);
        check_refused(entry->function, refusals[i].symbol);
        assert_int_equal(entry->own != NULL, refusals[i].own[0] != '\0');
        if (entry->own) {
            check_refused(entry->own, refusals[i].own);
        }
    }
}

static void test_entries_ascend(void **state)
{
    (void)state;
    for (unsigned i = 0; i < exported_entries.count; i++) {
        assert_non_null(exported_entries.entry[i].function);
        assert_int_equal(exported_entries.entry[i].own != NULL,
                         exported_entries.entry[i].own_version != 0);
        if (i > 0) {
            const int order = strcmp(exported_entries.entry[i - 1].name,
                                     exported_entries.entry[i].name);

            assert_true(order < 0 || (order == 0 && exported_entries.entry[i - 1].version <=
                                                        exported_entries.entry[i].version));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_arguments_and_results_arrive, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_call_newer_than_the_host_is_not_sent, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_an_error_comes_back_without_results, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_exported_functions_of_calls_on_the_wire, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_null_pointers_are_refused_by_the_guest, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_handles_are_refused_by_the_guest, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_rules, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_ids_are_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_backend_lacks_is_not_supported, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_other_lengths_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_little_room_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_numbers_out_of_range_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_counts_of_what_is_not_there_are_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_optional_results_are_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_strings_without_their_nul_are_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_handles_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_random_handles_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_exported_functions_of_what_is_written_by_hand, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_refused_functions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_entries_ascend, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
