/* SPDX-License-Identifier: MIT */
/*
 * Words in memory that a stream waits for and writes, in batches. Each is posted as if it had been
 * given by a call of its own: streams keep the order, which is all that a batch promises.
 */
#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

#define BATCH_MAX 256u /* as CUDA has it */

/* Nothing of a batch is done where one of it cannot be. */
static CUresult check_batch(const CUstreamBatchMemOpParams *operations, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        switch (operations[i].operation) {
        case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        case CU_STREAM_MEM_OP_WRITE_VALUE_32:
        case CU_STREAM_MEM_OP_WRITE_VALUE_64:
            break;
        case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES: /* no GPU says that it can */
        case CU_STREAM_MEM_OP_BARRIER:
            return REFUSE("a barrier in a batch of cuStreamBatchMemOp");
        default:
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    return CUDA_SUCCESS;
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
