/* SPDX-License-Identifier: MIT */
/*
 * Commands that are work for the GPU: copies, fills, launches. Each goes to its stream and is
 * forgotten; flight.c watches for its end.
 *
 * A large copy or fill goes in pieces where others want the GPU, so that none of it is longer than
 * somebody waits for: `progress` counts what has been submitted, and the handler is called again.
 * What a guest says of addresses is checked where it is about the arena, since that is this
 * process's own memory. Device addresses are the GPU's matter: it faults on a wrong one.
 */
#include "api/cuda-types.h"
#include "worker/api.h"
#include "worker/command-rules.h"
#include "worker/estimate.h"
#include "worker/ring-session.h"
#include "worker/rows.h"

/* Rows ---------------------------------------------------------------------------------------- */

/*
 * What is done next of a copy or fill in rows: a large one is done in pieces, each some rows or,
 * where rows are longer than a piece, a part of one. `progress` counts these.
 */
struct rows_piece {
    uint64_t slice, row, offset; /* bytes from the row's start */
    uint64_t bytes, rows;
};

static bool next_piece(struct execution *x, uint64_t width, uint64_t height, uint64_t depth,
                       uint64_t limit, struct rows_piece *piece)
{
    const uint64_t parts = (width - 1) / limit + 1;
    const uint64_t row = *x->progress / parts;
    uint64_t all;

    if (__builtin_mul_overflow(height, depth, &all) || __builtin_mul_overflow(all, parts, &all)) {
        return false;
    }
    piece->slice = row / height;
    piece->row = row % height;
    piece->offset = *x->progress % parts * limit;
    piece->bytes = width - piece->offset < limit ? width - piece->offset : limit;
    piece->rows = parts > 1 ? 1
                            : estimate_piece(x->session->page, height - piece->row, limit / width);
    *x->progress += piece->rows;
    x->again = *x->progress < all;
    return true;
}

static uint64_t piece_address(const struct rows_side *side, const struct rows_piece *piece)
{
    return side->address + (piece->slice * side->rows + piece->row) * side->pitch + piece->offset;
}

/* Copies ----------------------------------------------------------------------------------- */

static enum vgpu_gpu_error work_copy_box(struct execution *x, const struct vgpu_cmd_copy *copy)
{
    const struct vgpu_copy_box *box = (const void *)(copy + 1);
    const struct gpu *gpu = x->session->gpu;
    const struct rows_side target = {copy->to, box->to_pitch, box->to_rows};
    const struct rows_side source = {copy->from, box->from_pitch, box->from_rows};
    struct rows_piece piece;

    if (copy->bytes == 0 || box->height == 0 || box->depth == 0) {
        return VGPU_GPU_SUCCESS;
    }
    if (!rows_fit(&gpu->arena, &target, copy->kind == VGPU_COPY_FROM_DEVICE, copy->bytes,
                  box->height, box->depth) ||
        !rows_fit(&gpu->arena, &source, copy->kind == VGPU_COPY_TO_DEVICE, copy->bytes, box->height,
                  box->depth) ||
        !next_piece(x, copy->bytes, box->height, box->depth, ESTIMATE_COPY_PIECE, &piece)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    return gpu->ops->copy_rows(x->session->gpu,
                               &(struct gpu_rows){
                                   .kind = (enum vgpu_copy_kind)copy->kind,
                                   .to = piece_address(&target, &piece),
                                   .to_pitch = box->to_pitch,
                                   .from = piece_address(&source, &piece),
                                   .from_pitch = box->from_pitch,
                                   .width = piece.bytes,
                                   .rows = piece.rows,
                               },
                               x->objects[0]);
}

static enum vgpu_gpu_error work_copy_row(struct execution *x, const struct vgpu_cmd_copy *command)
{
    struct ring_session *s = x->session;
    struct gpu_copy copy = {
        .kind = (enum vgpu_copy_kind)command->kind,
        .to = command->to,
        .from = command->from,
        .bytes = command->bytes,
    };

    /* All of it, before the first piece: the guest is not to see half of a copy that is refused. */
    if ((copy.kind == VGPU_COPY_TO_DEVICE &&
         !gpu_in_arena(&s->gpu->arena, copy.from, copy.bytes)) ||
        (copy.kind == VGPU_COPY_FROM_DEVICE &&
         !gpu_in_arena(&s->gpu->arena, copy.to, copy.bytes))) {
        return VGPU_GPU_INVALID_VALUE;
    }
    copy.to += *x->progress;
    copy.from += *x->progress;
    copy.bytes = estimate_piece(s->page, command->bytes - *x->progress,
                                copy.kind == VGPU_COPY_ON_DEVICE ? ESTIMATE_FILL_PIECE
                                                                 : ESTIMATE_COPY_PIECE);
    *x->progress += copy.bytes;
    x->again = *x->progress < command->bytes;
    return copy.bytes == 0 ? VGPU_GPU_SUCCESS : s->gpu->ops->copy(s->gpu, &copy, x->objects[0]);
}

enum vgpu_gpu_error do_copy(struct execution *x)
{
    const struct vgpu_cmd_copy *command = x->body;

    if (command->kind < VGPU_COPY_TO_DEVICE || command->kind > VGPU_COPY_ON_DEVICE) {
        return VGPU_GPU_INVALID_VALUE;
    }
    return command->box ? work_copy_box(x, command) : work_copy_row(x, command);
}

/* Fills ------------------------------------------------------------------------------------ */

static enum vgpu_gpu_error work_fill_rows(struct execution *x, const struct vgpu_cmd_fill *fill)
{
    const struct rows_side target = {fill->address, fill->pitch, fill->rows};
    struct gpu *gpu = x->session->gpu;
    struct rows_piece piece;
    uint64_t bytes;

    if (fill->pitch % fill->element != 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (fill->width == 0 || fill->rows == 0) {
        return VGPU_GPU_SUCCESS;
    }
    if (__builtin_mul_overflow(fill->width, fill->element, &bytes) ||
        !rows_fit(&gpu->arena, &target, false, bytes, fill->rows, 1) ||
        !next_piece(x, bytes, fill->rows, 1, ESTIMATE_FILL_PIECE, &piece)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    return gpu->ops->fill_rows(gpu,
                               &(struct gpu_fill_rows){
                                   .address = piece_address(&target, &piece),
                                   .pitch = fill->pitch,
                                   .width = piece.bytes / fill->element,
                                   .rows = piece.rows,
                                   .value = fill->value,
                                   .element = fill->element,
                               },
                               x->objects[0]);
}

static enum vgpu_gpu_error work_fill_row(struct execution *x, const struct vgpu_cmd_fill *command)
{
    struct gpu *gpu = x->session->gpu;
    struct gpu_fill fill = {.value = command->value, .width = command->element};

    uint64_t end;

    if (command->width > UINT64_MAX / 4 ||
        __builtin_add_overflow(command->address, command->width * command->element, &end)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    fill.address = command->address + *x->progress * command->element;
    fill.count = estimate_piece(x->session->page, command->width - *x->progress,
                                ESTIMATE_FILL_PIECE / command->element);
    *x->progress += fill.count;
    x->again = *x->progress < command->width;
    return fill.count == 0 ? VGPU_GPU_SUCCESS : gpu->ops->fill(gpu, &fill, x->objects[0]);
}

enum vgpu_gpu_error do_fill(struct execution *x)
{
    const struct vgpu_cmd_fill *fill = x->body;

    if ((fill->element != 1 && fill->element != 2 && fill->element != 4) ||
        fill->address % fill->element != 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    return fill->rows == 1 ? work_fill_row(x, fill) : work_fill_rows(x, fill);
}

/* Launches --------------------------------------------------------------------------------- */

/* Attributes that hold a handle would hold one of the driver's, which no guest has. */
static enum vgpu_gpu_error check_launch_attributes(const CUlaunchAttribute *attributes,
                                                   uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!api_attribute_is_plain(attributes[i].id)) {
            return VGPU_GPU_NOT_SUPPORTED;
        }
    }
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error do_launch(struct execution *x)
{
    const struct vgpu_cmd_launch *command = x->body;
    const CUlaunchAttribute *attributes = (const void *)(command + 1);
    const struct gpu_launch launch = {
        .shape = command,
        .params = attributes + command->attributes,
        .param_bytes = command->param_bytes,
        .attributes = attributes,
        .attribute_count = (uint32_t)command->attributes,
    };
    enum vgpu_gpu_error error = VGPU_GPU_SUCCESS;

    /* Each by itself: the product of six could wrap to 0. */
    if (command->grid[0] == 0 || command->grid[1] == 0 || command->grid[2] == 0 ||
        command->block[0] == 0 || command->block[1] == 0 || command->block[2] == 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (command->attributes != 0) {
        error = check_launch_attributes(attributes, command->attributes);
    }
    return error == VGPU_GPU_SUCCESS ? x->session->gpu->ops->launch(x->session->gpu, x->objects[0],
                                                                    &launch, x->objects[1])
                                     : error;
}
