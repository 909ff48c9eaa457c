/* SPDX-License-Identifier: MIT */
/*
 * Calls of api/ that are about arrays, textures and surfaces (protocol/vgpu-array.h). Handles in
 * what the guest says are looked up here; numbers of CUDA's are the driver's to check.
 *
 * An array counts against the VM's memory by its shape, from when it is made until it is destroyed.
 * The driver does not tell how much it takes: it is what is counted, or less.
 */
#include <stdlib.h>

#include "api/array-format.h"
#include "worker/api-calls.h"
#include "worker/estimate.h"
#include "worker/ring-session.h"
#include "worker/rows.h"
#include "worker/session-arrays.h"

/* Elements of an extent, more than any GPU's texture has. */
#define EXTENT_MAX (UINT64_C(1) << 32)

/*
 * Rows lie in tiles of 64 bytes and 8 rows, and tiles in blocks of up to 16 tiles' rows and 16
 * slices: the smallest power of two of them that has room for all, of which there are whole ones.
 * Measured on an H200; where a block would be large both ways it is smaller than that.
 */
#define TILE_BYTES 64u
#define TILE_ROWS 8u
#define BLOCK_ROWS 128u
#define BLOCK_SLICES 16u

/* Where the size of an element is not known: the largest. */
#define ELEMENT_MAX 16u

struct array {
    struct gpu_array *made;
    uint64_t bytes;  /* that count; 0 for a level, whose array has them */
    unsigned levels; /* 0: it is not mipmapped */
    struct array
        *next; /* of a mipmapped array: its levels that have a handle; of a level: the next */
    bool level;
};

/* Arrays -------------------------------------------------------------------------------------- */

static uint64_t whole_tiles(uint64_t count, uint64_t of)
{
    return (count + of - 1) / of * of;
}

/* Rows or slices of whole blocks, the smallest of which has `least`. */
static uint64_t whole_blocks(uint64_t count, uint64_t least, uint64_t most)
{
    uint64_t block = least;

    while (block < count && block < most) {
        block *= 2;
    }
    return whole_tiles(count, block);
}

/* Bytes of all levels; false when they do not fit 64 bits. Layers do not get fewer. */
static bool shape_bytes(const vgpu_array_shape *shape, uint64_t *bytes)
{
    const bool layers = shape->flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);
    const unsigned known = array_element_bytes(shape->format, shape->channels);
    const uint64_t element = known ? known : ELEMENT_MAX;

    *bytes = 0;
    for (unsigned i = 0; i < shape->levels || i == 0; i++) {
        const uint64_t row = whole_tiles(array_level_extent(shape->width, i) * element, TILE_BYTES);
        const uint64_t rows = whole_blocks(array_level_extent(shape->height, i), TILE_ROWS,
                                           BLOCK_ROWS);
        const uint64_t slices = layers ? array_level_extent(shape->depth, 0)
                                       : whole_blocks(array_level_extent(shape->depth, i), 1,
                                                      BLOCK_SLICES);
        uint64_t level;

        if (__builtin_mul_overflow(row, rows, &level) ||
            __builtin_mul_overflow(level, slices, &level) ||
            __builtin_add_overflow(*bytes, level, bytes)) {
            return false;
        }
    }
    return true;
}

static bool shape_valid(const vgpu_array_shape *shape)
{
    return shape->width > 0 && shape->width <= EXTENT_MAX && shape->height <= EXTENT_MAX &&
           shape->depth <= EXTENT_MAX &&
           shape->levels <= array_levels_max(shape->width, shape->height, shape->depth) &&
           !(shape->flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING));
}

static void free_array(struct ring_session *s, struct array *array)
{
    s->gpu->ops->array_destroy(s->gpu, array->made);
    ledger_return(&s->memory.ledger, array->bytes);
    free(array);
}

/* What it is made of is reserved first, so that the count is never too small. */
static enum vgpu_gpu_error make_array(struct ring_session *s, const vgpu_array_shape *shape,
                                      uint64_t bytes, struct array **array)
{
    struct array *made = calloc(1, sizeof(*made));
    enum vgpu_gpu_error error;

    memory_free_dropped(s);
    if (!made || !ledger_reserve(&s->memory.ledger, bytes)) {
        free(made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->array_create(s->gpu, shape, &made->made);
    if (error != VGPU_GPU_SUCCESS) {
        ledger_return(&s->memory.ledger, bytes);
        free(made);
        return error;
    }
    made->bytes = bytes;
    made->levels = shape->levels;
    *array = made;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error host_array_create(struct api_serve *serve, uint64_t *array,
                                      const vgpu_array_shape *shape)
{
    struct ring_session *s = serve->session;
    struct array *made = NULL;
    enum vgpu_gpu_error error;
    uint64_t bytes;

    if (!shape_valid(shape) || !shape_bytes(shape, &bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = make_array(s, shape, bytes, &made);
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    *array = handles_add(&s->handles, HANDLE_ARRAY, made, 0);
    if (*array == 0) {
        free_array(s, made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error host_array_destroy(struct api_serve *serve, struct array *array)
{
    struct ring_session *s = serve->session;
    struct array *level = array->next;
    uint64_t handle;

    if (array->level) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    handle = handles_find(&s->handles, HANDLE_ARRAY, array, 0);
    handles_remove_children(&s->handles, handle);
    handles_remove(&s->handles, handle);
    while (level) {
        struct array *next = level->next;

        free_array(s, level);
        level = next;
    }
    free_array(s, array);
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error host_array_level(struct api_serve *serve, uint64_t *level, struct array *array,
                                     unsigned number)
{
    struct ring_session *s = serve->session;
    struct array *made;
    enum vgpu_gpu_error error;

    if (number >= array->levels) {
        return VGPU_GPU_INVALID_VALUE;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->array_level(s->gpu, array->made, number, &made->made);
    if (error != VGPU_GPU_SUCCESS) {
        free(made);
        return error;
    }
    made->level = true;
    *level = handles_add(&s->handles, HANDLE_ARRAY, made,
                         handles_find(&s->handles, HANDLE_ARRAY, array, 0));
    if (*level == 0) {
        free_array(s, made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made->next = array->next;
    array->next = made;
    return VGPU_GPU_SUCCESS;
}

/* Copies -------------------------------------------------------------------------------------- */

/* What is copied next: some rows of a slice. */
struct array_piece {
    uint64_t slice, row, rows;
};

/* A side of a piece; false when what the guest says of it cannot be. */
static bool piece_side(const struct ring_session *s, const struct vgpu_array_side *said,
                       const vgpu_array_copy *copy, const struct array_piece *piece,
                       struct gpu_array_side *side)
{
    const struct rows_side rows = {said->address, said->pitch, said->rows};
    const struct array *array;

    if (said->kind == VGPU_ARRAY_SIDE_ARRAY) {
        array = handles_get(&s->handles, HANDLE_ARRAY, said->array);
        if (!array || array->levels > 0) {
            return false;
        }
        *side = (struct gpu_array_side){.array = array->made,
                                        .x = said->x,
                                        .y = said->y + piece->row,
                                        .z = said->z + piece->slice};
        return true;
    }
    *side = (struct gpu_array_side){
        .host = said->kind == VGPU_ARRAY_SIDE_ARENA,
        .address = said->address + (piece->slice * said->rows + piece->row) * said->pitch,
        .pitch = said->pitch,
    };
    return said->kind <= VGPU_ARRAY_SIDE_ARENA &&
           rows_fit(&s->gpu->arena, &rows, side->host, copy->width, copy->height, copy->depth);
}

/* `bytes`, by which the duration is predicted, is no word of the guest's own. */
static bool sizes_agree(const vgpu_array_copy *copy, uint64_t bytes)
{
    uint64_t all;

    return copy->width > 0 && copy->height > 0 && copy->depth > 0 &&
           !__builtin_mul_overflow(copy->width, copy->height, &all) &&
           !__builtin_mul_overflow(all, copy->depth, &all) && all == bytes;
}

/* A large one in pieces, where others want the GPU too; `progress` counts rows. */
enum vgpu_gpu_error host_array_copy(struct api_serve *serve, const vgpu_array_copy *copy,
                                    struct gpu_stream *stream, size_t bytes)
{
    struct ring_session *s = serve->session;
    uint64_t *progress = serve->execution->progress;
    struct gpu_array_copy next = {.width = copy->width};
    struct array_piece piece;

    if (!sizes_agree(copy, bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    piece.slice = *progress / copy->height;
    piece.row = *progress % copy->height;
    piece.rows = estimate_piece(
        s->page, copy->height - piece.row,
        copy->width < ESTIMATE_COPY_PIECE ? ESTIMATE_COPY_PIECE / copy->width : 1);
    next.rows = piece.rows;
    if (!piece_side(s, &copy->to, copy, &piece, &next.to) ||
        !piece_side(s, &copy->from, copy, &piece, &next.from) ||
        (!next.to.array && !next.from.array)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    *progress += piece.rows;
    serve->execution->again = *progress < copy->height * copy->depth;
    return s->gpu->ops->array_copy(s->gpu, &next, stream);
}

/* Textures and surfaces ----------------------------------------------------------------------- */

/* In *place, where it is or would be. */
static bool find_texture(const struct textures *textures, uint64_t number, uint32_t form,
                         uint32_t *place)
{
    *place = 0;
    while (*place < textures->count &&
           (textures->made[*place].number != number || textures->made[*place].form != form)) {
        ++*place;
    }
    return *place < textures->count;
}

static bool make_room(struct textures *textures)
{
    const uint32_t room = 2 * textures->room + 16;
    struct texture *more;

    if (textures->count < textures->room) {
        return true;
    }
    if (textures->count >= HANDLES_MAX) {
        return false;
    }
    more = realloc(textures->made, room * sizeof(*more));
    if (more) {
        textures->made = more;
        textures->room = room;
    }
    return more != NULL;
}

enum vgpu_gpu_error host_texture_create(struct api_serve *serve, uint64_t *texture,
                                        const vgpu_texture *described)
{
    struct ring_session *s = serve->session;
    const bool arrays = described->resource <= CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
    const bool levels = described->resource == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
    const struct array *array = NULL;
    enum vgpu_gpu_error error;

    if (!s->gpu->ops->texture_create) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    if (described->form > VGPU_SURFACE || described->resource > CU_RESOURCE_TYPE_PITCH2D) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (arrays) {
        array = handles_get(&s->handles, HANDLE_ARRAY, described->array);
        if (!array || (array->levels > 0) != levels) {
            return VGPU_GPU_INVALID_HANDLE;
        }
    }
    if (!make_room(&s->textures)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->texture_create(s->gpu, described, array ? array->made : NULL, texture);
    if (error == VGPU_GPU_SUCCESS) {
        s->textures.made[s->textures.count++] = (struct texture){*texture, described->form};
    }
    return error;
}

enum vgpu_gpu_error host_texture_destroy(struct api_serve *serve, uint64_t texture, uint32_t form)
{
    struct textures *textures = &serve->session->textures;
    uint32_t place;

    if (!find_texture(textures, texture, form, &place)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    textures->made[place] = textures->made[--textures->count];
    return serve->gpu->ops->texture_destroy(serve->gpu, texture, form);
}

void array_release_all(struct ring_session *s)
{
    uint32_t position = 0;
    struct array *array;

    while ((array = handles_next(&s->handles, HANDLE_ARRAY, &position)) != NULL) {
        free_array(s, array);
    }
    free(s->textures.made);
}
