/* SPDX-License-Identifier: MIT */
/*
 * Estimates, see estimate.h. The kind of a piece of work, by which its time is remembered
 * (predict.h), is a number mixed from all that its time depends on: for a launch the function and
 * the shape, for a copy its direction and size, for a call of CUDA's the words that have weight.
 * Nothing is wrong with an estimate that is wrong: the next one of the kind is better.
 */
#include "worker/estimate.h"

#include "common/shared.h"
#include "worker/api.h"
#include "worker/command-rules.h"
#include "worker/ring-session.h"

/* What is guessed of work that was not seen before, ns. */
#define GUESS_LAUNCH_NS UINT64_C(1000000)
#define GUESS_COPY_NS UINT64_C(10000) /* and a nanosecond for each GUESS_COPY_RATE bytes */
#define GUESS_COPY_RATE 8u

/* What kinds are mixed from first, so that those of one class meet none of another's. */
enum estimate_class {
    CLASS_COPY = 1,
    CLASS_FILL,
    CLASS_LAUNCH,
    CLASS_CALL,
};

uint64_t estimate_piece(const struct vgpu_turn_page *page, uint64_t left, uint64_t piece)
{
    return shared_load64(&page->terms.window_ns) != 0 && left > piece ? piece : left;
}

static void use_prediction(struct flight_piece *piece, struct prediction *prediction)
{
    piece->prediction = prediction;
    piece->ns = prediction->ns;
    piece->part = prediction->part != 0 ? prediction->part : PREDICT_WHOLE;
}

/* Remembers work on so many bytes by what its kind is mixed from. */
static void estimate_bytes(const struct execution *x, uint64_t kind, uint64_t bytes,
                           struct flight_piece *piece)
{
    use_prediction(
        piece, predict_find(&x->session->predictor, kind, GUESS_COPY_NS + bytes / GUESS_COPY_RATE));
}

/* Copies and fills of one row, in one direction: those of about the same size take as long. */
static void estimate_row(const struct execution *x, enum estimate_class class, unsigned direction,
                         uint64_t bytes, struct flight_piece *piece)
{
    const unsigned size = bytes == 0 ? 0 : 64 - (unsigned)__builtin_clzll(bytes);

    estimate_bytes(x, predict_kind(class, direction << 8 | size), bytes, piece);
}

/*
 * Those of several rows: how long they take depends on each dimension, since short rows are slow.
 * What is guessed is for a piece at most, as large ones are done in such.
 */
static void estimate_rows(const struct execution *x, enum estimate_class class, unsigned direction,
                          const uint64_t extent[3], uint64_t most, struct flight_piece *piece)
{
    uint64_t kind = predict_kind(class, 1u << 16 | direction), bytes = 1;

    for (int i = 0; i < 3; i++) {
        kind = predict_kind(kind, extent[i]);
        bytes = extent[i] == 0 || bytes > most / extent[i] ? most : bytes * extent[i];
    }
    estimate_bytes(x, kind, bytes, piece);
}

void estimate_copy(const struct execution *x, struct flight_piece *piece)
{
    const struct vgpu_cmd_copy *copy = x->body;
    const struct vgpu_copy_box *box = (const void *)(copy + 1);
    const unsigned direction = copy->kind <= VGPU_COPY_ON_DEVICE ? copy->kind : 0;
    const uint64_t most = direction == VGPU_COPY_ON_DEVICE ? ESTIMATE_FILL_PIECE
                                                           : ESTIMATE_COPY_PIECE;

    if (copy->box) {
        const uint64_t extent[] = {copy->bytes, box->height, box->depth};

        estimate_rows(x, CLASS_COPY, direction, extent, ESTIMATE_COPY_PIECE, piece);
    } else {
        estimate_row(x, CLASS_COPY, direction,
                     estimate_piece(x->session->page, copy->bytes - *x->progress, most), piece);
    }
}

void estimate_fill(const struct execution *x, struct flight_piece *piece)
{
    const struct vgpu_cmd_fill *fill = x->body;

    if (fill->rows == 1) {
        estimate_row(x, CLASS_FILL, 0,
                     estimate_piece(x->session->page, (fill->width - *x->progress) * fill->element,
                                    ESTIMATE_FILL_PIECE),
                     piece);
    } else {
        const uint64_t extent[] = {fill->width, fill->rows, fill->element};

        estimate_rows(x, CLASS_FILL, 0, extent, ESTIMATE_FILL_PIECE, piece);
    }
}

/* Mixes the kind of a launch from its function and shape, and remembers it as the last one. */
static __attribute__((noinline)) uint64_t mix_launch_kind(struct predictor *predictor,
                                                          const struct gpu_function *function,
                                                          const struct vgpu_cmd_launch *launch)
{
    const uint64_t *shape = (const void *)launch->grid;
    uint64_t kind = predict_kind(CLASS_LAUNCH, (uint64_t)(uintptr_t)function);

    for (int i = 0; i < 3; i++) {
        kind = predict_kind(kind, shape[i]);
        predictor->last.shape[i] = shape[i];
    }
    predictor->last.function = function;
    predictor->last.shared_bytes = launch->shared_bytes;
    predictor->last.kind = predict_kind(kind, launch->shared_bytes);
    return predictor->last.kind;
}

static uint64_t launch_kind(struct predictor *predictor, const struct gpu_function *function,
                            const struct vgpu_cmd_launch *launch)
{
    const uint64_t *shape = (const void *)launch->grid;

    static_assert(offsetof(struct vgpu_cmd_launch, grid) % 8 == 0 &&
                      offsetof(struct vgpu_cmd_launch, shared_bytes) -
                              offsetof(struct vgpu_cmd_launch, grid) ==
                          sizeof(predictor->last.shape),
                  "grid and block are read as double words");
    if (predictor->last.function == function && predictor->last.shape[0] == shape[0] &&
        predictor->last.shape[1] == shape[1] && predictor->last.shape[2] == shape[2] &&
        predictor->last.shared_bytes == launch->shared_bytes) {
        return predictor->last.kind;
    }
    return mix_launch_kind(predictor, function, launch);
}

/* Asks once for each kind how much of the GPU such a launch fills. */
static __attribute__((noinline)) void ask_part(const struct execution *x,
                                               struct prediction *prediction)
{
    struct gpu *gpu = x->session->gpu;

    prediction->part = gpu->ops->launch_part(gpu, x->objects[0], x->body);
}

void estimate_launch(const struct execution *x, struct flight_piece *piece)
{
    const struct vgpu_cmd_launch *launch = x->body;
    struct gpu_function *function = x->objects[0];
    struct prediction *prediction;

    if (!function) {
        return;
    }
    prediction = predict_find(&x->session->predictor,
                              launch_kind(&x->session->predictor, function, launch),
                              GUESS_LAUNCH_NS);
    if (prediction->part == 0) {
        ask_part(x, prediction);
    }
    use_prediction(piece, prediction);
}

/* A call's time depends on the words that have weight. */
void estimate_call(const struct execution *x, struct flight_piece *piece)
{
    const struct vgpu_cmd_call *body = x->body;
    const struct api_rule *call = x->facts->call;
    uint64_t kind = predict_kind(CLASS_CALL, body->call);

    if (!call) {
        return;
    }
    /* A call looks for its objects itself, and only when it is carried out. */
    if (call->stream != 0) {
        piece->stream = handles_get(&x->session->handles, HANDLE_STREAM, x->facts->key.stream);
    }
    if (call->weigh == 0) {
        return;
    }
    for (uint64_t left = call->weigh; left != 0; left &= left - 1) {
        kind = predict_kind(kind, api_word(body, (uint32_t)__builtin_ctzll(left)));
    }
    use_prediction(piece, predict_find(&x->session->predictor, kind, GUESS_LAUNCH_NS));
}
