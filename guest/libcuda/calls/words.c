/* SPDX-License-Identifier: MIT */
/*
 * Words in memory that a stream waits for and writes, in batches. Each is posted as if it had been
 * given by a call of its own: streams keep the order, which is all that a batch promises.
 */
#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

#define BATCH_MAX 256u /* as CUDA has it */

#define WAIT_FLAGS (3u | CU_STREAM_WAIT_VALUE_FLUSH)

CUresult word_check(uint64_t address, uint64_t bytes, unsigned flags, enum word word)
{
    struct memory area;

    return memory_find(address, &area) && address % bytes == 0 &&
                   address + bytes <= area.address + area.bytes &&
                   (flags & ~(word == WORD_WAIT ? WAIT_FLAGS
                                                : CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER)) == 0
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}

/* Nothing of a batch is done where one of it cannot be. */
static CUresult check_batch(const CUstreamBatchMemOpParams *operations, unsigned count)
{
    CUresult r = CUDA_SUCCESS;

    for (unsigned i = 0; r == CUDA_SUCCESS && i < count; i++) {
        const CUstreamBatchMemOpParams *o = &operations[i];

        switch (o->operation) {
        case CU_STREAM_MEM_OP_WAIT_VALUE_32:
            r = word_check(o->waitValue.address, 4, o->waitValue.flags, WORD_WAIT);
            break;
        case CU_STREAM_MEM_OP_WAIT_VALUE_64:
            r = word_check(o->waitValue.address, 8, o->waitValue.flags, WORD_WAIT);
            break;
        case CU_STREAM_MEM_OP_WRITE_VALUE_32:
            r = word_check(o->writeValue.address, 4, o->writeValue.flags, WORD_WRITE);
            break;
        case CU_STREAM_MEM_OP_WRITE_VALUE_64:
            r = word_check(o->writeValue.address, 8, o->writeValue.flags, WORD_WRITE);
            break;
        case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES: /* no GPU says that it can */
        case CU_STREAM_MEM_OP_BARRIER:
            return REFUSE("a barrier in a batch of cuStreamBatchMemOp");
        default:
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    return r;
}

static CUresult post_word(uint64_t stream, const CUstreamBatchMemOpParams *o)
{
    switch (o->operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        return call_cuStreamWaitValue32_v2(stream, o->waitValue.address, o->waitValue.value,
                                           o->waitValue.flags);
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        return call_cuStreamWaitValue64_v2(stream, o->waitValue.address, o->waitValue.value64,
                                           o->waitValue.flags);
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
        return call_cuStreamWriteValue32_v2(stream, o->writeValue.address, o->writeValue.value,
                                            o->writeValue.flags);
    default:
        return call_cuStreamWriteValue64_v2(stream, o->writeValue.address, o->writeValue.value64,
                                            o->writeValue.flags);
    }
}

CUresult word_batch(uint64_t stream, unsigned count, const CUstreamBatchMemOpParams *operations,
                    unsigned flags)
{
    CUresult r;

    if (flags != 0 || count > BATCH_MAX || (count > 0 && !operations)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = check_batch(operations, count);
    for (unsigned i = 0; r == CUDA_SUCCESS && i < count; i++) {
        r = post_word(stream, &operations[i]);
    }
    return r;
}
