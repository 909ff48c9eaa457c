/* SPDX-License-Identifier: MIT */
/* A small job whose every bit is known: what session-fault.c and session-victim.c compute. */
#ifndef VGPU_TESTS_SESSION_JOB_H
#define VGPU_TESTS_SESSION_JOB_H

#include <stdbool.h>
#include <string.h>

#include "guest/libvgpu/vgpu.h"

#define JOB_COUNT 4096u /* elements */

struct job {
    struct vgpu_session *session;
    uint64_t vadd, reduce;        /* functions */
    uint64_t a, b, sum, total;    /* device memory */
    float from[2][JOB_COUNT];     /* a and b */
    float back[JOB_COUNT];        /* their sum */
    int64_t total_back, expected; /* of the bits of a */
};

/* VGPU_OK or the error of a call. */
static inline int job_prepare(struct job *j, struct vgpu_session *session)
{
    uint64_t module = 0;
    int r = vgpu_module_builtin(session, &module);

    j->session = session;
    r = r ? r : vgpu_function_get(session, module, "vadd", &j->vadd);
    r = r ? r : vgpu_function_get(session, module, "reduce_sum", &j->reduce);
    r = r ? r : vgpu_mem_alloc(session, sizeof(j->back), &j->a);
    r = r ? r : vgpu_mem_alloc(session, sizeof(j->back), &j->b);
    r = r ? r : vgpu_mem_alloc(session, sizeof(j->back), &j->sum);
    return r ? r : vgpu_mem_alloc(session, sizeof(j->total_back), &j->total);
}

/* Other numbers in each round, whose sums are exact. */
static inline void job_draw(struct job *j, uint32_t round)
{
    j->expected = 0;
    for (uint32_t i = 0; i < JOB_COUNT; i++) {
        int32_t bits;

        j->from[0][i] = (float)((i + round) % 65536);
        j->from[1][i] = (float)((i * 7 + round * 13) % 65536);
        memcpy(&bits, &j->from[0][i], sizeof(bits));
        j->expected += bits;
    }
    memset(j->back, 0xff, sizeof(j->back));
    j->total_back = -1;
}

/* There, two kernels, and back. */
static inline int job_run(struct job *j)
{
    const struct vgpu_launch vadd = {.function = j->vadd, .grid = {4}, .block = {256}};
    const struct vgpu_launch reduce = {.function = j->reduce, .grid = {4}, .block = {256}};
    const struct {
        uint64_t a, b, sum, count;
    } add = {j->a, j->b, j->sum, JOB_COUNT};
    const struct {
        uint64_t from, count, sum;
    } all = {j->a, JOB_COUNT, j->total};
    int r = vgpu_copy_to(j->session, j->a, j->from[0], sizeof(j->from[0]));

    r = r ? r : vgpu_copy_to(j->session, j->b, j->from[1], sizeof(j->from[1]));
    r = r ? r : vgpu_fill(j->session, j->total, 0, 4, 2, 0);
    r = r ? r : vgpu_launch(j->session, &vadd, &add, sizeof(add));
    r = r ? r : vgpu_launch(j->session, &reduce, &all, sizeof(all));
    r = r ? r : vgpu_copy_from(j->session, j->back, j->sum, sizeof(j->back));
    return r ? r : vgpu_copy_from(j->session, &j->total_back, j->total, sizeof(j->total_back));
}

/* Bytes that are wrong. */
static inline uint64_t job_wrong(const struct job *j)
{
    uint64_t wrong = j->total_back == j->expected ? 0 : sizeof(j->total_back);

    for (uint32_t i = 0; i < JOB_COUNT; i++) {
        const float sum = j->from[0][i] + j->from[1][i];

        wrong += memcmp(&j->back[i], &sum, sizeof(sum)) == 0 ? 0 : sizeof(sum);
    }
    return wrong;
}

#endif
