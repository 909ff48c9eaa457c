/* SPDX-License-Identifier: MIT */
/* This process's part of copies in graphs, see transfer.h. */
#include "guest/libcuda/model/transfer.h"

#include <stdlib.h>
#include <string.h>

#include "common/shared.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"

#define WORD 4u /* bytes */

struct transfer {
    struct side to, from;
    uint64_t width, height, depth; /* bytes, rows, slices */
    void *between;                 /* in the arena, without gaps; NULL: both sides are here */
    uint32_t *taken;               /* behind that: 1 when the GPU has it, NULL: it takes nothing */
};

/* Making -------------------------------------------------------------------------------------- */

/* Whether the GPU cannot reach a side. */
static bool is_far(const struct box *box, const struct side *side)
{
    return side->host && !is_pinned(box, side);
}

static enum copy_way way_of(const struct box *box)
{
    if (box->to.host && box->from.host) {
        return COPY_BY_HOST;
    }
    return is_far(box, &box->from) ? COPY_TO_GPU
           : is_far(box, &box->to) ? COPY_BY_GPU
                                   : COPY_DIRECT;
}

/* The side of the arena, which is known when the graph is made executable. */
static struct side without_gaps(const struct box *box, const void *memory)
{
    return (struct side){.host = true,
                         .address = (uint64_t)(uintptr_t)memory,
                         .pitch = box->width,
                         .rows = box->height};
}

static struct vgpu_graph_copy plan_of(const struct box *box, enum copy_way way)
{
    const struct side arena = without_gaps(box, NULL);
    const struct side *to = way == COPY_BY_GPU ? &arena : &box->to;
    const struct side *from = way == COPY_TO_GPU ? &arena : &box->from;

    return (struct vgpu_graph_copy){
        .to = to->address,
        .to_pitch = to->pitch,
        .to_rows = to->rows,
        .from = from->address,
        .from_pitch = from->pitch,
        .from_rows = from->rows,
        .width = box->width,
        .height = box->height,
        .depth = box->depth,
        .kind = to->host     ? VGPU_COPY_FROM_DEVICE
                : from->host ? VGPU_COPY_TO_DEVICE
                             : VGPU_COPY_ON_DEVICE,
    };
}

CUresult copy_make(const CUDA_MEMCPY3D *copy, struct copy_work *work)
{
    CUresult r;

    *work = (struct copy_work){.said = *copy};
    r = make_box(copy, &work->box);
    if (r != CUDA_SUCCESS || is_empty(&work->box)) {
        return r;
    }
    if (has_array(&work->box)) {
        return REFUSE("a copy in a graph from or to an array");
    }
    work->way = way_of(&work->box);
    work->plan = plan_of(&work->box, work->way);
    return CUDA_SUCCESS;
}

struct transfer *transfer_new(const struct copy_work *copy, struct vgpu_graph_copy *plan)
{
    const struct box *box = &copy->box;
    struct transfer *made = calloc(1, sizeof(*made));
    uint64_t bytes;

    if (!made) {
        return NULL;
    }
    *made = (struct transfer){.to = box->to,
                              .from = box->from,
                              .width = box->width,
                              .height = box->height,
                              .depth = box->depth};
    *plan = copy->plan;
    if (copy->way == COPY_BY_HOST) {
        return made;
    }
    /* Its rows do not overlap, so this fits: make_box() has checked the whole side. */
    bytes = (box->width * box->height * box->depth + WORD - 1) & ~(uint64_t)(WORD - 1);
    made->between = memory_pinned(bytes + WORD);
    if (!made->between) {
        free(made);
        return NULL;
    }
    if (copy->way == COPY_TO_GPU) {
        made->to = without_gaps(box, made->between);
        plan->from = made->to.address;
        made->taken = (uint32_t *)((uint8_t *)made->between + bytes);
        shared_store(made->taken, 1);
    } else {
        made->from = without_gaps(box, made->between);
        plan->to = made->from.address;
    }
    return made;
}

void transfer_free(struct transfer *transfer, bool with_arena)
{
    if (transfer && with_arena && transfer->between) {
        vgpu_pinned_free(cuda.session, transfer->between);
    }
    free(transfer);
}

bool transfer_taken(const struct transfer *transfer)
{
    return !transfer->taken || shared_load(transfer->taken) == 1;
}

bool transfer_note(const struct transfer *transfer, struct vgpu_graph_fill *fill)
{
    *fill = (struct vgpu_graph_fill){.to = (uint64_t)(uintptr_t)transfer->taken,
                                     .pitch = WORD,
                                     .width = 1,
                                     .height = 1,
                                     .value = 1,
                                     .element = WORD};
    return transfer->taken != NULL;
}

/* Running ------------------------------------------------------------------------------------- */

void transfer_run(void *transfer)
{
    const struct transfer *t = transfer;

    if (t->taken) {
        /* The launch before has ended: launches of one graph come one after another. */
        shared_store(t->taken, 0);
    }
    for (uint64_t slice = 0; slice < t->depth; slice++) {
        for (uint64_t row = 0; row < t->height; row++) {
            /* A program may copy within one place. */
            memmove((void *)(uintptr_t)row_address(&t->to, slice, row),
                    (const void *)(uintptr_t)row_address(&t->from, slice, row), t->width);
        }
    }
}
