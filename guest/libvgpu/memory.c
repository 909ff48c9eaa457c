/* SPDX-License-Identifier: MIT */
/*
 * Memory of a session: pinned pieces of its part of the arena, and copies.
 *
 * The part begins with a few stages. Memory that is not pinned goes through them in pieces, so
 * that one piece is copied here while the GPU copies another; a ticket tells for each stage
 * when the GPU is done with it. A stage behind a long kernel is out of use as long as that
 * takes; threads that would have to wait for it get others, made from the rest of the part. The
 * rest is for pinned memory, first fit.
 */
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "common/clock.h"
#include "common/shared.h"
#include "guest/libvgpu/ring-calls.h"

#define PINNED_ALIGN UINT64_C(256)
#define STAGE_MAX (UINT64_C(1) << 20) /* bytes: such pieces stay in the processor's cache */
#define PAGE UINT64_C(4096)
#define DEPTH 2u                        /* stages under way in one direction */
#define STAGE_WAIT_NS (100 * NS_PER_US) /* for a stage, before there is one more */
#define SPLIT_MIN (UINT64_C(8) << 20)   /* bytes: worth the start of a thread */
#define STREAM_MIN (UINT64_C(64) << 10) /* bytes: worth going past the caches */

/* Stages take at most this share of the part. */
#define STAGES_SHARE 4u

void memory_init(struct vgpu_session *s)
{
    uint8_t *arena = s->port->arena;
    uint64_t stages;

    s->stage_bytes = s->port->arena_size / STAGES_SHARE / STAGES & ~(PAGE - 1);
    if (s->stage_bytes > STAGE_MAX) {
        s->stage_bytes = STAGE_MAX;
    }
    if (s->stage_bytes == 0) {
        /* A part of a few pages is all stages. */
        s->stage_bytes = s->port->arena_size / STAGES & ~(PINNED_ALIGN - 1);
    }
    for (s->stage_count = 0; s->stage_count < STAGES; s->stage_count++) {
        s->stages[s->stage_count].memory = arena + s->stage_count * s->stage_bytes;
    }
    stages = STAGES * s->stage_bytes;
    if (s->port->arena_size > stages) {
        s->pinned = calloc(1, sizeof(*s->pinned));
    }
    /* Without memory for the list nothing can be pinned, and all else works. */
    if (s->pinned) {
        s->pinned->memory = arena + stages;
        s->pinned->bytes = s->port->arena_size - stages;
    }
    pthread_mutex_init(&s->memory_mutex, NULL);
    pthread_mutex_init(&s->stage_mutex, NULL);
}

void memory_release(struct vgpu_session *s)
{
    while (s->pinned) {
        struct pinned *piece = s->pinned;

        s->pinned = piece->next;
        if (piece->ordinary) {
            free(piece->memory);
        }
        free(piece);
    }
    pthread_mutex_destroy(&s->memory_mutex);
    pthread_mutex_destroy(&s->stage_mutex);
}

/* Pinned memory -------------------------------------------------------------------------- */

/*
 * Takes `bytes` from the first free piece that is large enough; what is left becomes a piece of its
 * own. NULL when none is, or when there is no memory for that one's structure. With the memory's
 * mutex, as all that touches the list.
 */
static struct pinned *take_piece(struct vgpu_session *s, uint64_t bytes)
{
    struct pinned *piece = s->pinned;

    while (piece && (piece->used || piece->ordinary || piece->bytes < bytes)) {
        piece = piece->next;
    }
    if (piece && piece->bytes > bytes) {
        struct pinned *rest = calloc(1, sizeof(*rest));

        if (!rest) {
            return NULL;
        }
        *rest = (struct pinned){
            .next = piece->next, .memory = piece->memory + bytes, .bytes = piece->bytes - bytes};
        piece->next = rest;
        piece->bytes = bytes;
    }
    return piece;
}

/*
 * Memory for a caller that finds the arena full. It goes to the end of the list: up to there
 * neighbours in the list are neighbours in memory, which join_next() relies on.
 */
static struct pinned *make_ordinary(struct vgpu_session *s, uint64_t bytes)
{
    struct pinned *piece = calloc(1, sizeof(*piece));
    struct pinned **end = &s->pinned;

    if (!piece) {
        return NULL;
    }
    piece->memory = aligned_alloc(PAGE, (bytes + PAGE - 1) & ~(PAGE - 1));
    if (!piece->memory) {
        free(piece);
        return NULL;
    }
    piece->bytes = bytes;
    piece->ordinary = true;
    while (*end) {
        end = &(*end)->next;
    }
    *end = piece;
    return piece;
}

int vgpu_pinned_alloc(struct vgpu_session *s, uint64_t bytes, void **memory)
{
    const uint64_t rounded = (bytes + PINNED_ALIGN - 1) & ~(PINNED_ALIGN - 1);
    struct pinned *piece;

    if (bytes == 0 || rounded < bytes) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "%llu bytes of pinned memory",
                         (unsigned long long)bytes);
    }
    pthread_mutex_lock(&s->memory_mutex);
    piece = take_piece(s, rounded);
    if (!piece) {
        piece = make_ordinary(s, rounded);
    }
    if (piece) {
        piece->used = true;
        *memory = piece->memory;
    }
    pthread_mutex_unlock(&s->memory_mutex);
    return piece ? VGPU_OK
                 : vgpu_fail(VGPU_SYSTEM, "no %llu bytes of memory", (unsigned long long)bytes);
}

/*
 * Whether [memory, memory + bytes) lies in the session's part of the arena. An address below it
 * wraps to an offset far beyond it.
 */
static bool in_arena(const struct vgpu_session *s, const void *memory, uint64_t bytes)
{
    const uint64_t offset = (uint64_t)(uintptr_t)memory - (uint64_t)(uintptr_t)s->port->arena;

    return offset < s->port->arena_size && bytes <= s->port->arena_size - offset;
}

int vgpu_is_pinned(const struct vgpu_session *s, const void *memory)
{
    return in_arena(s, memory, 1);
}

/* Joins a free piece with a free one behind it. */
static void join_next(struct pinned *piece)
{
    struct pinned *next = piece->next;

    if (!piece->used && next && !next->used && !next->ordinary) {
        piece->bytes += next->bytes;
        piece->next = next->next;
        free(next);
    }
}

void vgpu_pinned_free(struct vgpu_session *s, void *memory)
{
    struct pinned *before = NULL, *piece;

    if (!memory) {
        return;
    }
    pthread_mutex_lock(&s->memory_mutex);
    piece = s->pinned;
    while (piece && piece->memory != memory) {
        before = piece;
        piece = piece->next;
    }
    if (piece && piece->ordinary) {
        if (before) {
            before->next = piece->next;
        } else {
            s->pinned = piece->next;
        }
        free(piece->memory);
        free(piece);
    } else if (piece) {
        piece->used = false;
        join_next(piece);
        if (before && !before->ordinary) {
            join_next(before);
        }
    }
    pthread_mutex_unlock(&s->memory_mutex);
}

/* Copies --------------------------------------------------------------------------------- */

static int post_copy(struct vgpu_session *s, enum vgpu_copy_kind kind, uint64_t to, uint64_t from,
                     uint64_t bytes, uint64_t stream)
{
    const struct vgpu_cmd_copy body = {
        .to = to, .from = from, .bytes = bytes, .stream = stream, .kind = kind};

    return ring_copy(s, &body, NULL, 0);
}

/*
 * Asks to be told when the stream has done all that was posted: by STREAM_SYNC with what went
 * wrong before, by FENCE without.
 */
static int ask_done(struct vgpu_session *s, uint16_t opcode, uint64_t stream, struct ticket *ticket)
{
    const struct vgpu_cmd_value body = {.value = stream};

    return session_ask(
        s, &(struct command){.opcode = opcode, .body = &body, .body_bytes = sizeof(body)}, ticket);
}

/* Stages --------------------------------------------------------------------------------- */

/*
 * A stage that nobody uses and that the GPU is done with; NULL when there is none. With the stages'
 * mutex, like add_stage().
 */
static struct stage *find_stage(struct vgpu_session *s)
{
    for (unsigned i = 0; i < s->stage_count; i++) {
        struct stage *stage = &s->stages[i];

        if (!stage->used && (stage->ticket.slot == 0 || session_answered(s, &stage->ticket))) {
            return stage;
        }
    }
    return NULL;
}

/* One more, from the memory that could be pinned; NULL when there is none left. */
static struct stage *add_stage(struct vgpu_session *s)
{
    struct stage *stage = &s->stages[s->stage_count];
    void *memory = NULL;

    if (s->stage_count == STAGES_MAX || vgpu_pinned_alloc(s, s->stage_bytes, &memory) != VGPU_OK) {
        return NULL;
    }
    if (!vgpu_is_pinned(s, memory)) {
        vgpu_pinned_free(s, memory);
        return NULL;
    }
    s->stage_count++;
    stage->memory = memory;
    return stage;
}

static void give_stage(struct vgpu_session *s, struct stage *stage)
{
    pthread_mutex_lock(&s->stage_mutex);
    stage->used = false;
    pthread_mutex_unlock(&s->stage_mutex);
}

/*
 * Takes a stage, waiting for one as long as it takes; without `wait` *taken may be NULL instead. A
 * thread that has a stage may not wait for another one: if several did, each could wait for a stage
 * of the others for ever. VGPU_OK or VGPU_ENDED.
 */
static int take_stage(struct vgpu_session *s, bool wait, struct stage **taken)
{
    const uint64_t start = clock_ns();
    uint64_t waited = 0;
    struct stage *stage = NULL;

    for (;;) {
        pthread_mutex_lock(&s->stage_mutex);
        stage = find_stage(s);
        if (!stage && waited > STAGE_WAIT_NS) {
            stage = add_stage(s);
        }
        if (stage) {
            stage->used = true;
        }
        pthread_mutex_unlock(&s->stage_mutex);
        if (stage || !wait || shared_load(&s->end) != 0) {
            break;
        }
        session_look(s, waited);
        vgpu_pause(waited);
        waited = clock_ns() - start;
    }
    *taken = stage;
    if (!stage) {
        return wait ? session_ended(s) : VGPU_OK;
    }
    /*
     * It is answered: this gives its slot back. The result is that of an earlier copy, whose caller
     * is not waiting any more; only the session's end concerns this one.
     */
    if (stage->ticket.slot != 0 && session_await(s, &stage->ticket, NULL, 0) == VGPU_ENDED) {
        give_stage(s, stage);
        return session_ended(s);
    }
    return VGPU_OK;
}

/*
 * Copies out of a stage past the processor's caches: the destination would be read first, only to
 * be overwritten.
 */
static void stage_copy_out(uint8_t *to, const uint8_t *from, size_t bytes)
{
#ifdef __SSE2__
    const size_t head = (size_t)(-(uintptr_t)to % sizeof(__m128i));

    if (bytes >= STREAM_MIN) {
        memcpy(to, from, head);
        for (to += head, from += head, bytes -= head; bytes >= 64;
             to += 64, from += 64, bytes -= 64) {
            const __m128i *source = (const void *)from;
            __m128i *target = (void *)to;
            const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
            const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);

            _mm_stream_si128(target, a);
            _mm_stream_si128(target + 1, b);
            _mm_stream_si128(target + 2, c);
            _mm_stream_si128(target + 3, d);
        }
        _mm_sfence();
    }
#endif
    memcpy(to, from, bytes);
}

/* A copy, or a half of one, that goes through stages. */
struct staged {
    struct vgpu_session *s;
    int (*run)(struct staged *copy);
    uint8_t *memory; /* not written where the copy goes to the device */
    uint64_t device, bytes, stream;
    int result;
};

static uint64_t stage_part(const struct vgpu_session *s, uint64_t left)
{
    return left < s->stage_bytes ? left : s->stage_bytes;
}

/*
 * To the device: done with the memory when it returns, which is before the GPU is done. A stage's
 * ticket is a FENCE: a STREAM_SYNC would report an earlier command's failure, and the thread that
 * takes the stage next would lose that.
 */
static int send_staged(struct staged *copy)
{
    struct vgpu_session *s = copy->s;
    int r = VGPU_OK;

    for (uint64_t done = 0; done < copy->bytes && r == VGPU_OK;) {
        const uint64_t count = stage_part(s, copy->bytes - done);
        struct stage *stage;

        r = take_stage(s, true, &stage);
        if (r != VGPU_OK) {
            break;
        }
        memcpy(stage->memory, copy->memory + done, count);
        r = post_copy(s, VGPU_COPY_TO_DEVICE, copy->device + done,
                      (uint64_t)(uintptr_t)stage->memory, count, copy->stream);
        if (r == VGPU_OK) {
            r = ask_done(s, VGPU_CMD_FENCE, copy->stream, &stage->ticket);
        }
        give_stage(s, stage);
        done += count;
    }
    return r;
}

/* Has the GPU fill a stage; without `wait` *stage may be NULL, and nothing is done. */
static int stage_fetch(const struct staged *copy, uint64_t offset, uint64_t bytes, bool wait,
                       struct stage **stage)
{
    struct vgpu_session *s = copy->s;
    int r = take_stage(s, wait, stage);

    if (r != VGPU_OK || !*stage) {
        return r;
    }
    r = post_copy(s, VGPU_COPY_FROM_DEVICE, (uint64_t)(uintptr_t)(*stage)->memory,
                  copy->device + offset, bytes, copy->stream);
    if (r == VGPU_OK) {
        /* What goes wrong with a part is this call's to return. */
        r = ask_done(s, VGPU_CMD_STREAM_SYNC, copy->stream, &(*stage)->ticket);
    }
    if (r != VGPU_OK) {
        give_stage(s, *stage);
    }
    return r;
}

/*
 * From the device, a few stages under way at a time: while one is copied out here the GPU fills the
 * next. It waits for a stage only while it has none, see take_stage().
 */
static int receive_staged(struct staged *copy)
{
    struct vgpu_session *s = copy->s;
    struct stage *stages[DEPTH];
    uint64_t asked = 0, done = 0, next = 0, i = 0;
    int r = VGPU_OK;

    while (done < copy->bytes && r == VGPU_OK) {
        const uint64_t count = stage_part(s, copy->bytes - done);

        while (r == VGPU_OK && asked < copy->bytes && next < i + DEPTH) {
            const uint64_t wanted = stage_part(s, copy->bytes - asked);

            r = stage_fetch(copy, asked, wanted, next == i, &stages[next % DEPTH]);
            if (r != VGPU_OK || !stages[next % DEPTH]) {
                break;
            }
            asked += wanted;
            next++;
        }
        if (r == VGPU_OK) {
            struct stage *stage = stages[i++ % DEPTH];

            r = session_await(s, &stage->ticket, NULL, 0);
            if (r == VGPU_OK) {
                stage_copy_out(copy->memory + done, stage->memory, count);
                done += count;
            }
            give_stage(s, stage);
        }
    }
    /* After a failure. The GPU may still write to them, and their tickets keep others off. */
    while (i < next) {
        give_stage(s, stages[i++ % DEPTH]);
    }
    return r;
}

static void *run_half(void *half)
{
    struct staged *copy = half;

    copy->result = copy->run(copy);
    return NULL;
}

/*
 * Runs a copy through the stages. One processor copies slower than the bus, so a large one is done
 * in halves, by a thread that lives as long as that takes. If there can be none, this one does all.
 * From the device each half has DEPTH stages under way, both together STAGES.
 */
static int run_staged(struct staged *copy)
{
    const uint64_t half = copy->bytes / 2 & ~(PAGE - 1);
    struct staged other = *copy;
    pthread_t thread;

    other.memory += half;
    other.device += half;
    other.bytes -= half;
    if (copy->bytes < SPLIT_MIN || pthread_create(&thread, NULL, run_half, &other) != 0) {
        return copy->run(copy);
    }
    copy->bytes = half;
    copy->result = copy->run(copy);
    pthread_join(thread, NULL);
    if (copy->result == VGPU_OK && other.result != VGPU_OK) {
        /* The other thread's message is its own. */
        copy->result = vgpu_fail(other.result, "half of the copy failed: %s",
                                 vgpu_result_text(other.result));
    }
    return copy->result;
}

int vgpu_copy_to_async(struct vgpu_session *s, uint64_t to, const void *from, uint64_t bytes,
                       uint64_t stream)
{
    if (in_arena(s, from, bytes)) {
        return post_copy(s, VGPU_COPY_TO_DEVICE, to, (uint64_t)(uintptr_t)from, bytes, stream);
    }
    return run_staged(&(struct staged){.s = s,
                                       .run = send_staged,
                                       .memory = (uint8_t *)(uintptr_t)from,
                                       .device = to,
                                       .bytes = bytes,
                                       .stream = stream});
}

int vgpu_copy_from_async(struct vgpu_session *s, void *to, uint64_t from, uint64_t bytes,
                         uint64_t stream)
{
    if (in_arena(s, to, bytes)) {
        return post_copy(s, VGPU_COPY_FROM_DEVICE, (uint64_t)(uintptr_t)to, from, bytes, stream);
    }
    return run_staged(&(struct staged){.s = s,
                                       .run = receive_staged,
                                       .memory = to,
                                       .device = from,
                                       .bytes = bytes,
                                       .stream = stream});
}

int vgpu_copy_to(struct vgpu_session *s, uint64_t to, const void *from, uint64_t bytes)
{
    const int r = vgpu_copy_to_async(s, to, from, bytes, 0);

    return r == VGPU_OK ? ring_stream_sync(s, 0) : r;
}

int vgpu_copy_from(struct vgpu_session *s, void *to, uint64_t from, uint64_t bytes)
{
    const int r = vgpu_copy_from_async(s, to, from, bytes, 0);

    /* Through the stages it is done. */
    return r == VGPU_OK && in_arena(s, to, bytes) ? ring_stream_sync(s, 0) : r;
}

int vgpu_copy_on_device(struct vgpu_session *s, uint64_t to, uint64_t from, uint64_t bytes,
                        uint64_t stream)
{
    return post_copy(s, VGPU_COPY_ON_DEVICE, to, from, bytes, stream);
}

/* Modules -------------------------------------------------------------------------------- */

int vgpu_module_load(struct vgpu_session *s, const void *image, uint64_t bytes, uint64_t *module)
{
    struct vgpu_result_value result = {0};
    void *copy = NULL;
    int r;

    if (bytes == 0) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "a module of 0 bytes");
    }
    r = vgpu_pinned_alloc(s, bytes, &copy);
    if (r != VGPU_OK || !copy) {
        return r;
    }
    if (!in_arena(s, copy, bytes)) {
        vgpu_pinned_free(s, copy);
        return vgpu_fail(VGPU_SYSTEM,
                         "no room for a module of %llu bytes in the %llu bytes of "
                         "shared memory that this session has",
                         (unsigned long long)bytes, (unsigned long long)s->port->arena_size);
    }
    memcpy(copy, image, bytes);
    r = ring_module_load(s, (uint64_t)(uintptr_t)copy, bytes, &result);
    vgpu_pinned_free(s, copy);
    *module = result.value;
    if (r == VGPU_GPU_NOT_SUPPORTED) {
        return vgpu_fail(r, "the host computes on the CPU, which cannot load modules; the built-in "
                            "one works there (vgpu_module_builtin)");
    }
    return r;
}
