/* SPDX-License-Identifier: MIT */
/*
 * Copies in batches. CUDA may do the copies of a batch in any order, and side by side; here they
 * are posted one by one, each as the call for a single copy does it. What can be told of a batch
 * without its addresses is checked before the first.
 *
 * A program says when each source may be read: in the stream's order, during the call, or at any
 * time. Memory that is not page-locked is read during the call in any case, other memory in the
 * stream's order. So only page-locked memory that is to be read during the call is waited for.
 */
#include "api/array-format.h"
#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/array.h"
#include "guest/libcuda/model/box.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/state.h"

static bool is_order(CUmemcpySrcAccessOrder order)
{
    return order == CU_MEMCPY_SRC_ACCESS_ORDER_STREAM ||
           order == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL ||
           order == CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
}

/* Whether a source would be read only after the call that it is to be read in. */
static bool is_read_late(CUmemcpySrcAccessOrder order, CUdeviceptr from)
{
    struct memory area;

    return order == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL && memory_find(from, &area) &&
           (area.kind == MEMORY_HOST || area.kind == MEMORY_MANAGED);
}

/* Lines --------------------------------------------------------------------------------------- */

/* Whether each copy has attributes: the first of them from copy 0 on, others from later ones. */
static bool good_attributes(const struct copy_batch *batch)
{
    for (size_t i = 0; i < batch->attribute_count; i++) {
        if (!is_order(batch->attributes[i].srcAccessOrder) ||
            (i == 0 ? batch->starts[0] != 0 : batch->starts[i] <= batch->starts[i - 1]) ||
            batch->starts[i] >= batch->count) {
            return false;
        }
    }
    return batch->attribute_count > 0 && batch->attribute_count <= batch->count;
}

/* As copies that a batch cannot have: in the legacy default stream, or without one of the lists. */
static bool good_batch(const struct copy_batch *batch, uint64_t stream)
{
    if (stream == 0 || batch->count == 0 || !batch->to || !batch->from || !batch->sizes ||
        !batch->attributes || !batch->starts || !good_attributes(batch)) {
        return false;
    }
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->to[i] == 0 || batch->from[i] == 0 || batch->sizes[i] == 0) {
            return false;
        }
    }
    return true;
}

/* One of them. */
static CUresult copy_one(const struct copy_batch *batch, size_t i, uint64_t stream, bool captured)
{
    return captured
               ? captured_line(copy_line(CU_MEMORYTYPE_UNIFIED, batch->to[i], CU_MEMORYTYPE_UNIFIED,
                                         batch->from[i], batch->sizes[i]),
                               stream)
               : copy_any(batch->to[i], batch->from[i], batch->sizes[i], stream);
}

/* Where none in particular is wrong, *failed is SIZE_MAX. */
CUresult copy_batch(struct copy_batch batch, uint64_t stream, bool captured)
{
    size_t attributes = 0;
    bool wait = false;
    CUresult r = good_batch(&batch, stream) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

    if (batch.failed) {
        *batch.failed = SIZE_MAX;
    }
    for (size_t i = 0; r == CUDA_SUCCESS && i < batch.count; i++) {
        if (attributes + 1 < batch.attribute_count && i == batch.starts[attributes + 1]) {
            attributes++;
        }
        r = copy_one(&batch, i, stream, captured);
        wait = wait || is_read_late(batch.attributes[attributes].srcAccessOrder, batch.from[i]);
        if (r != CUDA_SUCCESS && batch.failed) {
            *batch.failed = i;
        }
    }
    return wait && !captured ? and_wait(r, stream) : r;
}

/* Boxes --------------------------------------------------------------------------------------- */

/* Bytes of an element: of the array, where one side is one. 0 for an array that there is not. */
static size_t element_bytes(const CUDA_MEMCPY3D_BATCH_OP *op)
{
    const CUmemcpy3DOperand *sides[] = {&op->src, &op->dst};
    size_t bytes = 1;

    for (unsigned i = 0; i < 2; i++) {
        if (sides[i]->type == CU_MEMCPY_OPERAND_TYPE_ARRAY) {
            const struct array *array = array_find(sides[i]->op.array.array);

            bytes = array ? array_element_bytes(array->shape.Format, array->shape.NumChannels) : 0;
        }
    }
    return bytes;
}

/* The copy as cuMemcpy3DAsync() has it; its sizes are in bytes. False for what is none. */
static bool as_copy(const CUDA_MEMCPY3D_BATCH_OP *op, CUDA_MEMCPY3D *copy)
{
    const size_t element = element_bytes(op);
    const CUmemcpy3DOperand *from = &op->src, *to = &op->dst;

    *copy = (CUDA_MEMCPY3D){.WidthInBytes = op->extent.width * element,
                            .Height = op->extent.height,
                            .Depth = op->extent.depth};
    if (element == 0 || copy->WidthInBytes / element != op->extent.width ||
        copy->WidthInBytes == 0 || copy->Height == 0 || copy->Depth == 0 ||
        !is_order(op->srcAccessOrder)) {
        return false;
    }
    if (from->type == CU_MEMCPY_OPERAND_TYPE_ARRAY) {
        copy->srcMemoryType = CU_MEMORYTYPE_ARRAY;
        copy->srcArray = from->op.array.array;
        copy->srcXInBytes = from->op.array.offset.x * element;
        copy->srcY = from->op.array.offset.y;
        copy->srcZ = from->op.array.offset.z;
    } else {
        copy->srcMemoryType = CU_MEMORYTYPE_UNIFIED;
        copy->srcDevice = from->op.ptr.ptr;
        copy->srcPitch = from->op.ptr.rowLength * element;
        copy->srcHeight = from->op.ptr.layerHeight;
    }
    if (to->type == CU_MEMCPY_OPERAND_TYPE_ARRAY) {
        copy->dstMemoryType = CU_MEMORYTYPE_ARRAY;
        copy->dstArray = to->op.array.array;
        copy->dstXInBytes = to->op.array.offset.x * element;
        copy->dstY = to->op.array.offset.y;
        copy->dstZ = to->op.array.offset.z;
    } else {
        copy->dstMemoryType = CU_MEMORYTYPE_UNIFIED;
        copy->dstDevice = to->op.ptr.ptr;
        copy->dstPitch = to->op.ptr.rowLength * element;
        copy->dstHeight = to->op.ptr.layerHeight;
    }
    return true;
}

CUresult copy_boxes(struct box_batch batch, uint64_t stream, bool captured)
{
    bool wait = false;
    CUresult r = stream != 0 && batch.flags == 0 && batch.ops && batch.count > 0
                     ? CUDA_SUCCESS
                     : CUDA_ERROR_INVALID_VALUE;

    if (batch.failed) {
        *batch.failed = SIZE_MAX;
    }
    for (size_t i = 0; r == CUDA_SUCCESS && i < batch.count; i++) {
        const CUDA_MEMCPY3D_BATCH_OP *op = &batch.ops[i];
        CUDA_MEMCPY3D copy;

        if (!as_copy(op, &copy)) {
            r = CUDA_ERROR_INVALID_VALUE;
        } else {
            r = captured ? captured_line(copy, stream) : copy_rows(copy, stream);
        }
        wait = wait || (op->src.type == CU_MEMCPY_OPERAND_TYPE_POINTER &&
                        is_read_late(op->srcAccessOrder, op->src.op.ptr.ptr));
        if (r != CUDA_SUCCESS && batch.failed) {
            *batch.failed = i;
        }
    }
    return wait && !captured ? and_wait(r, stream) : r;
}
