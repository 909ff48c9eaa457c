/* SPDX-License-Identifier: MIT */
/*
 * What a ring session computes on where there is no GPU: device memory is host memory under
 * addresses of its own, kernels are the built-in ones, in C. The results are a GPU's bit for bit;
 * nothing is said of how long they take. CUDA's other calls are in calls.c.
 *
 * There are two threads. The worker's own calls the functions here: they check, resolve addresses
 * and put work into a ring. The other one carries it out in the order in which it was submitted,
 * whatever its stream: that is one of the orders that streams allow, and waiting for an event is
 * done by then. So positions do for everything: `submitted` counts the work in, `done` the work
 * out, a fence is a position, and so is the end of a stream.
 *
 * A piece of work holds pointers of the host, resolved when it was submitted. They stay good since
 * memory, and events, are freed by the same thread, as work behind the work that uses them.
 *
 * An address that does not hold up is what it is on a GPU: the context is lost, and all later calls
 * say so. Only sooner: when the work is submitted, and not when it is carried out.
 *
 * Of `struct cpu_gpu` the thread touches the ring, the two counts, `stop`, and an event's time; all
 * else is the worker's own and needs no mutex. There are no graphs here, whose nodes exec-graph.c
 * carries out one by one, and no mapped memory.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "common/shared.h"
#include "protocol/vgpu-worker.h"
#include "worker/backend-cpu/cpu.h"
#include "worker/gpu.h"
#include "worker/predict.h"

/* Device addresses are far from any pointer, so that a mistake does not work by chance. */
#define FIRST_ADDRESS UINT64_C(0x1000000000)
#define GRANULE UINT64_C(4096)    /* bytes; also between two allocations */
#define MAPPED_MAX 16384u         /* allocations, before those that are added go on the heap */
#define STEP_NS NS_PER_S          /* of kernels that end, without a thread */
#define WORK_MAX 1024u            /* submitted and not done */
#define CANONICAL_NAN 0x7fffffffu /* as the GPU has it, PTX ISA add.f32 */

struct allocation {
    uint64_t address, bytes;
    uint8_t *memory;
    uint64_t place; /* in the session's file; 0: on the heap */
    bool foreign;   /* another session's, by share_open() */
};

/* Memory of others that streams reach: by reach(). */
struct reached {
    struct reached *next;
    uint8_t *memory;
    uint64_t bytes;
};

enum work_kind {
    WORK_COPY,
    WORK_FILL,
    WORK_WAIT_VALUE,
    WORK_WRITE_VALUE,
    WORK_VADD,
    WORK_FILL_WORDS,
    WORK_REDUCE_SUM,
    WORK_SPIN,
    WORK_RECORD,
    WORK_FREE,
    WORK_UNMAP,
    WORK_DROP_EVENT,
};

/* One thing to do, its addresses resolved. */
struct work {
    enum work_kind kind;
    void *to;
    const void *from, *from2;
    uint64_t count;                      /* elements, bytes, or nanoseconds */
    uint64_t rows, to_pitch, from_pitch; /* of copies and fills; one row: 0 rows */
    uint64_t value64;
    uint32_t value, width;
    struct gpu_event *event;
};

struct gpu_event {
    struct gpu_event *next, **place; /* all of them */
    uint64_t position;               /* of its last record; 0: never */
    uint64_t ns;                     /* when that was done; the thread's until then */
    bool timing;
};

struct gpu_stream {
    struct gpu_stream *next, **place;
    uint64_t last; /* position of its last piece of work */
};

struct gpu_function {
    const char *name;
    const struct kernel *kernel;
};

struct gpu_module {
    int dummy; /* there is but one, the built-in */
};

struct cpu_gpu {
    struct gpu head;
    struct allocation *allocations; /* ascending addresses */
    size_t allocation_count, allocation_room;
    uint64_t next_address, used, limit; /* bytes */
    uint64_t next_place;                /* in the file */
    struct reached *reached;
    struct gpu_stream main; /* the default stream, in no list */
    struct gpu_stream *streams;
    struct gpu_event *events;

    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct work work[WORK_MAX]; /* a ring; this and what follows by the mutex */
    uint64_t submitted, done;   /* the latter is also read without */
    bool stop;
    bool stepped; /* there is no thread: cpu_gpu_step() */
    bool off;     /* work is not to go on; by any thread */
};

static struct cpu_gpu *cpu_of(struct gpu *gpu)
{
    return (struct cpu_gpu *)gpu;
}

/* The thread ----------------------------------------------------------------------------- */

/* Asked by work that may never end, so that a session can be closed all the same. */
static bool cpu_stopping(struct cpu_gpu *cpu)
{
    return __atomic_load_n(&cpu->stop, __ATOMIC_RELAXED);
}

static void fill_row(const struct work *work, uint8_t *row)
{
    for (uint64_t i = 0; i < work->count; i++) {
        memcpy(row + i * work->width, &work->value, work->width);
    }
}

static void run_fill(const struct work *work)
{
    const uint64_t rows = work->rows ? work->rows : 1;

    for (uint64_t row = 0; row < rows; row++) {
        fill_row(work, (uint8_t *)work->to + row * work->to_pitch);
    }
}

/*
 * memmove(), since a guest may have both sides overlap: on a GPU any bytes may come of that, here
 * it would be undefined behaviour of the worker.
 */
static void run_copy(const struct work *work)
{
    const uint64_t rows = work->rows ? work->rows : 1;

    for (uint64_t row = 0; row < rows; row++) {
        memmove((uint8_t *)work->to + row * work->to_pitch,
                (const uint8_t *)work->from + row * work->from_pitch, work->count);
    }
}

/* Words order what the stream and the guest do: partners are the guest's own loads and stores. */
static uint64_t read_value(const struct work *work)
{
    return work->width == 8 ? shared_load64_acquire(work->to) : shared_load_acquire(work->to);
}

/* Whether what is waited for is there: conditions as in CUDA's CUstreamWaitValue_flags. */
static bool value_there(const struct work *work)
{
    const uint64_t value = read_value(work), wanted = work->value64;
    const uint64_t ahead = value - wanted;

    switch (work->value) {
    case CPU_WAIT_GEQ:
        return work->width == 8 ? (int64_t)ahead >= 0 : (int32_t)(uint32_t)ahead >= 0;
    case CPU_WAIT_EQ:
        return value == wanted;
    case CPU_WAIT_AND:
        return (value & wanted) != 0;
    /* NOR. The bits above the word's own are ones after the complement, and are shifted out. */
    default:
        return ~(value | wanted) << (64 - 8 * work->width) != 0;
    }
}

/*
 * The guest writes the word, and nobody tells this thread: it looks at it now and then. All other
 * streams' work waits behind this, which is what docs/cuda.md says of hosts without a GPU.
 */
static void wait_value(struct cpu_gpu *cpu, const struct work *work)
{
    const struct timespec nap = {.tv_nsec = 20 * (long)NS_PER_US};

    while (!value_there(work) && !cpu_stopping(cpu)) {
        nanosleep(&nap, NULL);
    }
}

static void write_value(const struct work *work)
{
    if (work->width == 8) {
        shared_store64_release(work->to, work->value64);
    } else {
        shared_store_release(work->to, (uint32_t)work->value64);
    }
}

/*
 * By memcpy(), here and below, since a guest's addresses need not be aligned. On a GPU that would
 * be an error; here it would be undefined behaviour.
 */
static void run_vadd(const struct work *work)
{
    for (uint64_t i = 0; i < work->count; i++) {
        float a, b;
        union {
            float value;
            uint32_t bits;
        } sum;

        memcpy(&a, (const uint8_t *)work->from + 4 * i, 4);
        memcpy(&b, (const uint8_t *)work->from2 + 4 * i, 4);
        sum.value = a + b;
        if (sum.value != sum.value) {
            sum.bits = CANONICAL_NAN;
        }
        memcpy((uint8_t *)work->to + 4 * i, &sum.bits, 4);
    }
}

static void reduce_sum(const struct work *work)
{
    uint64_t sum;

    /* Unsigned, so that overflow wraps as it does on the GPU. */
    memcpy(&sum, work->to, 8);
    for (uint64_t i = 0; i < work->count; i++) {
        int32_t value;

        memcpy(&value, (const uint8_t *)work->from + 4 * i, 4);
        sum += (uint64_t)(int64_t)value;
    }
    memcpy(work->to, &sum, 8);
}

/* While work is off: this thread is to do nothing. Returns how long that was. */
static uint64_t stay_off(struct cpu_gpu *cpu)
{
    const struct timespec nap = {.tv_nsec = 20 * (long)NS_PER_US};
    const uint64_t start = clock_ns();

    if (!__atomic_load_n(&cpu->off, __ATOMIC_RELAXED)) {
        return 0;
    }
    while (__atomic_load_n(&cpu->off, __ATOMIC_RELAXED) && !cpu_stopping(cpu)) {
        nanosleep(&nap, NULL);
    }
    return clock_ns() - start;
}

/* For so long on the engine: time that it is off does not count. */
static void run_spin(struct cpu_gpu *cpu, uint64_t ns)
{
    uint64_t start = clock_ns();

    while (clock_ns() - start < ns && !cpu_stopping(cpu)) {
        start += stay_off(cpu);
    }
}

static void cpu_carry_out(struct cpu_gpu *cpu, const struct work *work)
{
    switch (work->kind) {
    case WORK_COPY:
        run_copy(work);
        break;
    case WORK_WAIT_VALUE:
        wait_value(cpu, work);
        break;
    case WORK_WRITE_VALUE:
        write_value(work);
        break;
    case WORK_FILL:
    case WORK_FILL_WORDS:
        run_fill(work);
        break;
    case WORK_VADD:
        run_vadd(work);
        break;
    case WORK_REDUCE_SUM:
        reduce_sum(work);
        break;
    case WORK_SPIN:
        run_spin(cpu, work->count);
        break;
    case WORK_RECORD:
        work->event->ns = clock_ns();
        break;
    case WORK_FREE:
        free(work->to);
        break;
    case WORK_UNMAP:
        /* Its own memory is given back; for who still has it mapped it becomes 0. */
        if (work->value) {
            madvise(work->to, work->count, MADV_REMOVE);
        }
        munmap(work->to, work->count);
        break;
    case WORK_DROP_EVENT:
        free(work->event);
        break;
    }
}

static void *cpu_gpu_thread(void *argument)
{
    struct cpu_gpu *cpu = argument;

    pthread_mutex_lock(&cpu->mutex);
    for (;;) {
        struct work work;

        while (!cpu->stop && cpu->done == cpu->submitted) {
            pthread_cond_wait(&cpu->wake, &cpu->mutex);
        }
        if (cpu->stop) {
            break;
        }
        /* Without the mutex: work may take long, and the worker's thread goes on submitting. */
        work = cpu->work[cpu->done % WORK_MAX];
        pthread_mutex_unlock(&cpu->mutex);
        stay_off(cpu);
        cpu_carry_out(cpu, &work);
        pthread_mutex_lock(&cpu->mutex);
        /* Partner: position_done(); what was carried out is seen by who sees this. */
        __atomic_store_n(&cpu->done, cpu->done + 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&cpu->mutex);
    return NULL;
}

bool cpu_gpu_step(struct gpu *gpu)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    const struct work work = cpu->work[cpu->done % WORK_MAX];

    if (cpu->done == cpu->submitted || cpu->off ||
        (work.kind == WORK_WAIT_VALUE && !value_there(&work)) ||
        (work.kind == WORK_SPIN && work.count > STEP_NS)) {
        return false;
    }
    cpu_carry_out(cpu, &work);
    __atomic_store_n(&cpu->done, cpu->done + 1, __ATOMIC_RELEASE);
    return true;
}

/*
 * Submits work; the caller has seen that there is room (cpu_room()). Returns its position, which is
 * never 0: an event that was never recorded has that.
 */
static uint64_t cpu_submit(struct cpu_gpu *cpu, const struct work *work)
{
    uint64_t position;

    pthread_mutex_lock(&cpu->mutex);
    cpu->work[cpu->submitted % WORK_MAX] = *work;
    position = ++cpu->submitted;
    pthread_cond_signal(&cpu->wake);
    pthread_mutex_unlock(&cpu->mutex);
    return position;
}

/* The same for a stream, NULL for the default one. */
static uint64_t submit_in(struct cpu_gpu *cpu, struct gpu_stream *stream, const struct work *work)
{
    stream = stream ? stream : &cpu->main;
    stream->last = cpu_submit(cpu, work);
    return stream->last;
}

static uint64_t position_done(struct cpu_gpu *cpu)
{
    return __atomic_load_n(&cpu->done, __ATOMIC_ACQUIRE);
}

/* Memory ---------------------------------------------------------------------------------- */

/* The index of the first allocation that ends behind `address`. */
static size_t cpu_find_allocation(const struct cpu_gpu *cpu, uint64_t address)
{
    size_t low = 0, high = cpu->allocation_count;

    while (low < high) {
        const size_t middle = (low + high) / 2;
        const struct allocation *a = &cpu->allocations[middle];

        if (a->address + a->bytes <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/*
 * Where [address, address + count * width) lies, in the arena or in one allocation, or NULL: then
 * the context is lost. For any values: the product counts only if it has not wrapped.
 */
static void *cpu_resolve(struct cpu_gpu *cpu, uint64_t address, uint64_t count, uint64_t width)
{
    const size_t i = cpu_find_allocation(cpu, address);
    const uint64_t bytes = count * width;

    if (count <= UINT64_MAX / width) {
        if (gpu_in_arena(&cpu->head.arena, address, bytes)) {
            return cpu->head.arena.address + (address - (uintptr_t)cpu->head.arena.address);
        }
        if (i < cpu->allocation_count) {
            const struct allocation *a = &cpu->allocations[i];

            if (address >= a->address && bytes <= a->bytes - (address - a->address)) {
                return a->memory + (address - a->address);
            }
        }
        for (const struct reached *r = cpu->reached; r; r = r->next) {
            const uint64_t offset = address - (uintptr_t)r->memory;

            if (offset <= r->bytes && bytes <= r->bytes - offset) {
                return r->memory + offset;
            }
        }
    }
    cpu->head.lost = VGPU_GPU_ILLEGAL_ADDRESS;
    return NULL;
}

/* What this GPU has. What the VM may have of it is the ledger's matter, not this file's. */
static enum vgpu_gpu_error cpu_mem_info(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total)
{
    *free_bytes = cpu_of(gpu)->limit - cpu_of(gpu)->used;
    *total = cpu_of(gpu)->limit;
    return gpu->lost;
}

/* What an allocation takes of the device's memory. */
static uint64_t granules_of(uint64_t bytes)
{
    return (bytes + GRANULE - 1) & ~(GRANULE - 1);
}

/*
 * Gives an allocation its address. No address is used a second time, and between two allocations
 * there is nothing: so memory that was freed, and the byte behind an allocation, are found to be
 * wrong. NULL when memory is short.
 */
static struct allocation *add_allocation(struct cpu_gpu *cpu, const struct allocation *made)
{
    struct allocation *a;

    if (cpu->allocation_count == cpu->allocation_room) {
        const size_t room = cpu->allocation_room * 2 + 64;
        struct allocation *more = realloc(cpu->allocations, room * sizeof(*more));

        if (!more) {
            return NULL;
        }
        cpu->allocations = more;
        cpu->allocation_room = room;
    }
    a = &cpu->allocations[cpu->allocation_count++];
    *a = *made;
    a->address = cpu->next_address;
    cpu->next_address += granules_of(made->bytes) + GRANULE;
    return a;
}

static uint8_t *map_place(int file, uint64_t place, uint64_t bytes)
{
    void *memory = mmap(NULL, granules_of(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file,
                        (off_t)place);

    return memory == MAP_FAILED ? NULL : memory;
}

/*
 * Memory, zeroed, since what was on the worker's heap is not for the guest. It is of the session's
 * file, where others can have it too; no place there is used a second time, so that who has kept
 * one that was freed never sees what came after it. Without a file, or where it cannot be mapped,
 * it is of the heap.
 */
static bool make_memory(struct cpu_gpu *cpu, struct allocation *a)
{
    const uint64_t bytes = granules_of(a->bytes);

    if (cpu->head.file >= 0 && bytes <= VGPU_SHARED_SIZE - cpu->next_place &&
        cpu->allocation_count < MAPPED_MAX) {
        a->memory = map_place(cpu->head.file, cpu->next_place, a->bytes);
    }
    if (a->memory) {
        a->place = cpu->next_place;
        cpu->next_place += bytes;
    } else {
        a->memory = calloc(1, a->bytes);
    }
    return a->memory != NULL;
}

/* In its turn: work submitted before may use the memory. */
static void drop_memory(struct cpu_gpu *cpu, const struct allocation *a)
{
    if (a->place == 0 && !a->foreign) {
        cpu_submit(cpu, &(struct work){.kind = WORK_FREE, .to = a->memory});
        return;
    }
    cpu_submit(cpu, &(struct work){.kind = WORK_UNMAP,
                                   .to = a->memory,
                                   .count = granules_of(a->bytes),
                                   .value = !a->foreign});
}

static enum vgpu_gpu_error cpu_mem_alloc(struct gpu *gpu, uint64_t bytes, uint64_t *address)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct allocation made = {.bytes = bytes};
    const struct allocation *a;

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    /*
     * Whole granules, so that many small ones are limited too. The first comparison is there since
     * rounding the largest values up would wrap.
     */
    if (bytes > cpu->limit || granules_of(bytes) > cpu->limit - cpu->used ||
        !make_memory(cpu, &made)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    a = add_allocation(cpu, &made);
    if (!a) {
        drop_memory(cpu, &made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    cpu->used += granules_of(bytes);
    *address = a->address;
    return VGPU_GPU_SUCCESS;
}

/* Frees the session's own memory, or gives another's back. */
static enum vgpu_gpu_error forget_allocation(struct gpu *gpu, uint64_t address, bool foreign)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    const size_t i = cpu_find_allocation(cpu, address);
    struct allocation *a;

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    if (i == cpu->allocation_count || cpu->allocations[i].address != address ||
        cpu->allocations[i].foreign != foreign) {
        return VGPU_GPU_INVALID_VALUE;
    }
    a = &cpu->allocations[i];
    cpu->used -= foreign ? 0 : granules_of(a->bytes);
    drop_memory(cpu, a);
    memmove(a, a + 1, (--cpu->allocation_count - i) * sizeof(*a));
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error cpu_mem_free(struct gpu *gpu, uint64_t address)
{
    return forget_allocation(gpu, address, false);
}

/* Sharing: the name of memory is its place in the exporter's file ----------------------------- */

static bool cpu_reach(struct gpu *gpu, void *memory, uint64_t bytes)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct reached *made = calloc(1, sizeof(*made));

    if (made) {
        *made = (struct reached){.next = cpu->reached, .memory = memory, .bytes = bytes};
        cpu->reached = made;
    }
    return made != NULL;
}

static void cpu_unreach(struct gpu *gpu, void *memory)
{
    struct reached **place = &cpu_of(gpu)->reached;
    struct reached *found;

    while (*place && (*place)->memory != memory) {
        place = &(*place)->next;
    }
    found = *place;
    if (found) {
        *place = found->next;
        free(found);
    }
}

static enum vgpu_gpu_error cpu_share_name(struct gpu *gpu, uint64_t address, uint8_t name[64])
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    const size_t i = cpu_find_allocation(cpu, address);

    if (i == cpu->allocation_count || cpu->allocations[i].address != address ||
        cpu->allocations[i].place == 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    memset(name, 0, 64);
    memcpy(name, &cpu->allocations[i].place, sizeof(cpu->allocations[i].place));
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error cpu_share_open(struct gpu *gpu, const uint8_t name[64], uint64_t bytes,
                                          int file, uint64_t *address)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct allocation made = {.bytes = bytes, .foreign = true};
    const struct allocation *a;
    uint64_t place;

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    memcpy(&place, name, sizeof(place));
    /* The exporter counts as hostile: what is behind the end of the file would raise SIGBUS. */
    if (file < 0 || bytes == 0 || place < VGPU_SHARED_MEMORY || place % GRANULE != 0 ||
        place > VGPU_SHARED_SIZE || bytes > VGPU_SHARED_SIZE - place) {
        return VGPU_GPU_INVALID_VALUE;
    }
    made.memory = map_place(file, place, bytes);
    if (!made.memory) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    a = add_allocation(cpu, &made);
    if (!a) {
        drop_memory(cpu, &made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    *address = a->address;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error cpu_share_close(struct gpu *gpu, uint64_t address)
{
    return forget_allocation(gpu, address, true);
}

static enum vgpu_gpu_error cpu_copy(struct gpu *gpu, const struct gpu_copy *copy,
                                    struct gpu_stream *stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct work work = {.kind = WORK_COPY, .count = copy->bytes};

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    work.to = cpu_resolve(cpu, copy->to, copy->bytes, 1);
    work.from = cpu_resolve(cpu, copy->from, copy->bytes, 1);
    if (work.to && work.from) {
        submit_in(cpu, stream, &work);
    }
    return cpu->head.lost;
}

/*
 * The same for rows: the bytes from the first to the last, which have to lie in one allocation with
 * the gaps between them. There is at least one row.
 */
static void *resolve_rows(struct cpu_gpu *cpu, uint64_t address, uint64_t pitch, uint64_t width,
                          uint64_t rows)
{
    uint64_t bytes;

    if (__builtin_mul_overflow(pitch, rows - 1, &bytes) ||
        __builtin_add_overflow(bytes, width, &bytes)) {
        cpu->head.lost = VGPU_GPU_ILLEGAL_ADDRESS;
        return NULL;
    }
    return cpu_resolve(cpu, address, bytes, 1);
}

static enum vgpu_gpu_error cpu_copy_rows(struct gpu *gpu, const struct gpu_rows *rows,
                                         struct gpu_stream *stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct work work = {
        .kind = WORK_COPY,
        .count = rows->width,
        .rows = rows->rows,
        .to_pitch = rows->to_pitch,
        .from_pitch = rows->from_pitch,
    };

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    work.to = resolve_rows(cpu, rows->to, rows->to_pitch, rows->width, rows->rows);
    work.from = resolve_rows(cpu, rows->from, rows->from_pitch, rows->width, rows->rows);
    if (work.to && work.from) {
        submit_in(cpu, stream, &work);
    }
    return cpu->head.lost;
}

static enum vgpu_gpu_error cpu_fill_rows(struct gpu *gpu, const struct gpu_fill_rows *rows,
                                         struct gpu_stream *stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct work work = {
        .kind = WORK_FILL,
        .count = rows->width,
        .rows = rows->rows,
        .to_pitch = rows->pitch,
        .value = rows->value,
        .width = rows->element,
    };

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    work.to = resolve_rows(cpu, rows->address, rows->pitch, rows->width * rows->element,
                           rows->rows);
    if (work.to) {
        submit_in(cpu, stream, &work);
    }
    return cpu->head.lost;
}

/*
 * A word that the stream waits for or writes; its address is a multiple of its width, or it could
 * not be read and written as one.
 */
enum vgpu_gpu_error cpu_word(struct gpu *gpu, const struct cpu_word *word,
                             struct gpu_stream *stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct work work = {
        .kind = word->write ? WORK_WRITE_VALUE : WORK_WAIT_VALUE,
        .value64 = word->value,
        .value = word->condition,
        .width = word->width,
    };

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    if (word->address % word->width != 0 || word->condition > CPU_WAIT_NOR) {
        return VGPU_GPU_INVALID_VALUE;
    }
    work.to = cpu_resolve(cpu, word->address, 1, word->width);
    if (work.to) {
        submit_in(cpu, stream, &work);
    }
    return cpu->head.lost;
}

static enum vgpu_gpu_error cpu_fill(struct gpu *gpu, const struct gpu_fill *fill_command,
                                    struct gpu_stream *stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct work work = {
        .kind = WORK_FILL,
        .count = fill_command->count,
        .value = fill_command->value,
        .width = fill_command->width,
    };

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    work.to = cpu_resolve(cpu, fill_command->address, work.count, work.width);
    if (work.to) {
        submit_in(cpu, stream, &work);
    }
    return cpu->head.lost;
}

/* Kernels: parameters as their functions in vgpu-queue.h have them ------------------------- */

/*
 * Parameters are read when the kernel is launched, once; cpu_launch() has seen that there are as
 * many bytes as the kernel wants. The functions below resolve all addresses, also of 0 elements.
 */
static uint64_t kernel_param(const struct gpu_launch *launch, size_t offset)
{
    uint64_t value;

    memcpy(&value, (const uint8_t *)launch->params + offset, sizeof(value));
    return value;
}

static void make_vadd(struct cpu_gpu *cpu, const struct gpu_launch *launch, struct work *work)
{
    work->kind = WORK_VADD;
    work->count = kernel_param(launch, 24);
    work->from = cpu_resolve(cpu, kernel_param(launch, 0), work->count, 4);
    work->from2 = cpu_resolve(cpu, kernel_param(launch, 8), work->count, 4);
    work->to = cpu_resolve(cpu, kernel_param(launch, 16), work->count, 4);
}

static void make_fill(struct cpu_gpu *cpu, const struct gpu_launch *launch, struct work *work)
{
    work->kind = WORK_FILL_WORDS;
    work->count = kernel_param(launch, 8);
    work->width = 4;
    memcpy(&work->value, (const uint8_t *)launch->params + 16, 4);
    work->to = cpu_resolve(cpu, kernel_param(launch, 0), work->count, 4);
}

static void make_reduce_sum(struct cpu_gpu *cpu, const struct gpu_launch *launch, struct work *work)
{
    work->kind = WORK_REDUCE_SUM;
    work->count = kernel_param(launch, 8);
    work->from = cpu_resolve(cpu, kernel_param(launch, 0), work->count, 4);
    work->to = cpu_resolve(cpu, kernel_param(launch, 16), 1, 8);
}

static void make_spin(struct cpu_gpu *cpu, const struct gpu_launch *launch, struct work *work)
{
    (void)cpu;
    work->kind = WORK_SPIN;
    work->count = kernel_param(launch, 0);
}

/* What a kernel is called, what makes work of its parameters, and how these are laid out. */
static const struct kernel {
    const char *name;
    void (*make)(struct cpu_gpu *cpu, const struct gpu_launch *launch, struct work *work);
    uint32_t param_bytes, params;
    struct vgpu_result_param param[4];
} kernels[] = {
    {"vadd", make_vadd, 32, 4, {{0, 8}, {8, 8}, {16, 8}, {24, 8}}},
    {"fill", make_fill, 20, 3, {{0, 8}, {8, 8}, {16, 4}}},
    {"reduce_sum", make_reduce_sum, 24, 3, {{0, 8}, {8, 8}, {16, 8}}},
    {"spin", make_spin, 8, 1, {{0, 8}}},
};
#define KERNELS (sizeof(kernels) / sizeof(kernels[0]))

/* One module and one function of each name, for good: unloading frees nothing. */
static struct gpu_module builtin;
static struct gpu_function functions[KERNELS] = {
    {"vadd", &kernels[0]},
    {"fill", &kernels[1]},
    {"reduce_sum", &kernels[2]},
    {"spin", &kernels[3]},
};

const char *cpu_function_name(unsigned index)
{
    return index < KERNELS ? functions[index].name : NULL;
}

/* The built-in module is known by its PTX too: its functions are here in C. */
static enum vgpu_gpu_error cpu_module_load(struct gpu *gpu, const void *image, uint64_t bytes,
                                           struct gpu_compile *compile, struct gpu_module **module)
{
    const char *text = image;
    const uint64_t length = strlen(cuda_kernels_ptx);

    (void)compile;
    if (bytes < length || bytes > length + 1 || strcmp(text, cuda_kernels_ptx) != 0) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    *module = &builtin;
    return gpu->lost;
}

static enum vgpu_gpu_error cpu_module_builtin(struct gpu *gpu, struct gpu_module **module)
{
    *module = &builtin;
    return gpu->lost;
}

static enum vgpu_gpu_error cpu_module_unload(struct gpu *gpu, struct gpu_module *module)
{
    (void)module;
    return gpu->lost;
}

static enum vgpu_gpu_error cpu_function_get(struct gpu *gpu, struct gpu_module *module,
                                            const char *name, struct gpu_function **function,
                                            struct vgpu_result_function *info)
{
    (void)module;
    for (size_t i = 0; i < KERNELS; i++) {
        if (strcmp(name, functions[i].name) == 0) {
            *function = &functions[i];
            info->params = kernels[i].params;
            info->max_threads = 1024;
            return gpu->lost;
        }
    }
    return VGPU_GPU_NOT_FOUND;
}

static enum vgpu_gpu_error cpu_function_param(struct gpu *gpu, struct gpu_function *function,
                                              uint64_t index, struct vgpu_result_param *result)
{
    (void)gpu;
    if (index >= function->kernel->params) {
        return VGPU_GPU_INVALID_VALUE;
    }
    *result = function->kernel->param[index];
    return VGPU_GPU_SUCCESS;
}

/* Grid and block are not looked at: the built-in kernels do the same work in any. */
static enum vgpu_gpu_error cpu_launch(struct gpu *gpu, struct gpu_function *function,
                                      const struct gpu_launch *launch, struct gpu_stream *stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct work work = {0};

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    if (!gpu_params_fit(launch->param_bytes, function->kernel->param_bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    function->kernel->make(cpu, launch, &work);
    if (cpu->head.lost == VGPU_GPU_SUCCESS) {
        submit_in(cpu, stream, &work);
    }
    return cpu->head.lost;
}

/* One thread does all work, so nothing runs beside anything else. */
static uint32_t cpu_launch_part(struct gpu *gpu, struct gpu_function *function,
                                const struct vgpu_cmd_launch *shape)
{
    (void)gpu;
    (void)function;
    (void)shape;
    return PREDICT_WHOLE;
}

/* What NVIDIA's driver has at first. They are stored and told, and change nothing. */
size_t cpu_limits[] = {
    [CU_LIMIT_STACK_SIZE] = 1 << 10,
    [CU_LIMIT_PRINTF_FIFO_SIZE] = 1 << 20,
    [CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20,
};

static enum vgpu_gpu_error cpu_set_limit(struct gpu *gpu, CUlimit limit, uint64_t value)
{
    if ((unsigned)limit > CU_LIMIT_MALLOC_HEAP_SIZE) {
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    }
    cpu_limits[limit] = value;
    return gpu->lost;
}

/* Streams, events, fences ------------------------------------------------------------------ */

/*
 * Flags and priority have no meaning where all work is done in one order. The list is for
 * cpu_gpu_close().
 */
static enum vgpu_gpu_error cpu_stream_create(struct gpu *gpu, uint32_t flags, int32_t priority,
                                             struct gpu_stream **stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct gpu_stream *made;

    (void)flags;
    (void)priority;
    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made->next = cpu->streams;
    made->place = &cpu->streams;
    if (made->next) {
        made->next->place = &made->next;
    }
    cpu->streams = made;
    *stream = made;
    return VGPU_GPU_SUCCESS;
}

/* No work in the ring points to its stream. */
static void cpu_stream_destroy(struct gpu *gpu, struct gpu_stream *stream)
{
    (void)gpu;
    *stream->place = stream->next;
    if (stream->next) {
        stream->next->place = stream->place;
    }
    free(stream);
}

static enum vgpu_gpu_error cpu_stream_wait(struct gpu *gpu, struct gpu_stream *stream,
                                           struct gpu_event *event)
{
    /*
     * The record is in the ring already, so the event happens before whatever comes next. But a
     * fence of the stream is to wait for it too.
     */
    stream = stream ? stream : &cpu_of(gpu)->main;
    stream->last = stream->last > event->position ? stream->last : event->position;
    return gpu->lost;
}

static enum vgpu_gpu_error cpu_event_create(struct gpu *gpu, uint32_t flags,
                                            struct gpu_event **event)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    struct gpu_event *made;

    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made->timing = (flags & VGPU_EVENT_NO_TIMING) == 0;
    made->next = cpu->events;
    made->place = &cpu->events;
    if (made->next) {
        made->next->place = &made->next;
    }
    cpu->events = made;
    *event = made;
    return VGPU_GPU_SUCCESS;
}

static void cpu_event_destroy(struct gpu *gpu, struct gpu_event *event)
{
    *event->place = event->next;
    if (event->next) {
        event->next->place = event->place;
    }
    /* The thread may be about to write to it, so it is freed there, behind its last record. */
    cpu_submit(cpu_of(gpu), &(struct work){.kind = WORK_DROP_EVENT, .event = event});
}

static enum vgpu_gpu_error cpu_event_record(struct gpu *gpu, struct gpu_event *event,
                                            struct gpu_stream *stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);

    if (cpu->head.lost == VGPU_GPU_SUCCESS) {
        event->position = submit_in(cpu, stream,
                                    &(struct work){.kind = WORK_RECORD, .event = event});
    }
    return cpu->head.lost;
}

static enum vgpu_gpu_error poll_position(struct cpu_gpu *cpu, uint64_t position)
{
    if (cpu->head.lost != VGPU_GPU_SUCCESS) {
        return cpu->head.lost;
    }
    return position_done(cpu) >= position ? VGPU_GPU_SUCCESS : VGPU_GPU_NOT_READY;
}

/*
 * The position is what the event was recorded as by now: a later record changes nothing for those
 * who wait. One that was never recorded has 0, which is passed.
 */
static enum vgpu_gpu_error cpu_event_fence(struct gpu *gpu, struct gpu_event *event,
                                           struct gpu_fence *fence)
{
    *fence = (struct gpu_fence){.position = event->position};
    return gpu->lost;
}

static enum vgpu_gpu_error cpu_event_query(struct gpu *gpu, struct gpu_event *event)
{
    return poll_position(cpu_of(gpu), event->position);
}

static enum vgpu_gpu_error cpu_event_elapsed(struct gpu *gpu, struct gpu_event *start,
                                             struct gpu_event *end, float *milliseconds)
{
    struct cpu_gpu *cpu = cpu_of(gpu);
    const uint64_t last = start->position > end->position ? start->position : end->position;
    /* Until both are done their times are the thread's to write. */
    const enum vgpu_gpu_error error = poll_position(cpu, last);

    if (start->position == 0 || end->position == 0 || !start->timing || !end->timing) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    if (error == VGPU_GPU_SUCCESS) {
        *milliseconds = (float)((double)(int64_t)(end->ns - start->ns) / (double)NS_PER_MS);
    }
    return error;
}

static enum vgpu_gpu_error cpu_fence(struct gpu *gpu, struct gpu_stream *stream,
                                     struct gpu_fence *fence)
{
    struct cpu_gpu *cpu = cpu_of(gpu);

    /*
     * Only this thread submits, so `submitted` is read without the mutex. The default stream ends
     * after all others.
     */
    *fence = (struct gpu_fence){.position = stream ? stream->last : cpu->submitted};
    return cpu->head.lost;
}

/*
 * Of the default stream its own work alone, since flight.c watches each stream by itself. To wait
 * for that stream as a program does is cpu_fence().
 */
static enum vgpu_gpu_error cpu_stream_poll(struct gpu *gpu, struct gpu_stream *stream)
{
    struct cpu_gpu *cpu = cpu_of(gpu);

    return poll_position(cpu, stream ? stream->last : cpu->main.last);
}

static enum vgpu_gpu_error cpu_fence_poll(struct gpu *gpu, const struct gpu_fence *fence)
{
    return poll_position(cpu_of(gpu), fence->position);
}

/* A position holds nothing. */
static void cpu_fence_release(struct gpu *gpu, struct gpu_fence *fence)
{
    (void)gpu;
    (void)fence;
}

/* Of kernels `spin` alone is long enough to be stopped within; others are stopped before. */
static bool cpu_set_off(struct gpu *gpu, bool off)
{
    __atomic_store_n(&cpu_of(gpu)->off, off, __ATOMIC_RELAXED);
    return true;
}

/*
 * Asked before each command. The places that are kept back are for frees that had to wait: each
 * slot may have one, and they are submitted when their time has come, without asking here.
 */
static bool cpu_room(struct gpu *gpu)
{
    struct cpu_gpu *cpu = cpu_of(gpu);

    return cpu->submitted - position_done(cpu) < WORK_MAX - VGPU_SLOTS;
}

/* Opening and closing ------------------------------------------------------------------------ */

/* Frees memory and events whose turn in the ring has not come. All other work is dropped. */
static void drop_work(struct cpu_gpu *cpu)
{
    for (; cpu->done < cpu->submitted; cpu->done++) {
        const struct work *work = &cpu->work[cpu->done % WORK_MAX];

        if (work->kind == WORK_FREE || work->kind == WORK_UNMAP || work->kind == WORK_DROP_EVENT) {
            cpu_carry_out(cpu, work);
        }
    }
}

/* The thread is joined first: from then on nothing uses memory, events or the ring. */
static void cpu_gpu_close(struct gpu *gpu)
{
    struct cpu_gpu *cpu = cpu_of(gpu);

    pthread_mutex_lock(&cpu->mutex);
    __atomic_store_n(&cpu->stop, true, __ATOMIC_RELAXED);
    pthread_cond_signal(&cpu->wake);
    pthread_mutex_unlock(&cpu->mutex);
    if (!cpu->stepped) {
        pthread_join(cpu->thread, NULL);
    }
    drop_work(cpu);
    for (struct gpu_stream *stream = cpu->streams, *next; stream; stream = next) {
        next = stream->next;
        free(stream);
    }
    for (struct gpu_event *event = cpu->events, *next; event; event = next) {
        next = event->next;
        free(event);
    }
    while (cpu->allocation_count > 0) {
        const struct allocation *a = &cpu->allocations[--cpu->allocation_count];

        if (a->place == 0 && !a->foreign) {
            free(a->memory);
        } else {
            munmap(a->memory, granules_of(a->bytes));
        }
    }
    free(cpu->allocations);
    while (cpu->reached) {
        cpu_unreach(gpu, cpu->reached->memory);
    }
    pthread_cond_destroy(&cpu->wake);
    pthread_mutex_destroy(&cpu->mutex);
    free(cpu);
}

static const struct gpu_ops cpu_ops = {
    .mem_info = cpu_mem_info,
    .mem_alloc = cpu_mem_alloc,
    .mem_free = cpu_mem_free,
    .copy = cpu_copy,
    .fill = cpu_fill,
    .copy_rows = cpu_copy_rows,
    .fill_rows = cpu_fill_rows,
    .array_create = cpu_array_create,
    .array_destroy = cpu_array_destroy,
    .array_level = cpu_array_level,
    .array_copy = cpu_array_copy,
    .module_load = cpu_module_load,
    .module_builtin = cpu_module_builtin,
    .module_unload = cpu_module_unload,
    .function_get = cpu_function_get,
    .function_param = cpu_function_param,
    .launch = cpu_launch,
    .launch_part = cpu_launch_part,
    .set_limit = cpu_set_limit,
    .stream_create = cpu_stream_create,
    .stream_destroy = cpu_stream_destroy,
    .stream_poll = cpu_stream_poll,
    .stream_wait = cpu_stream_wait,
    .event_create = cpu_event_create,
    .event_destroy = cpu_event_destroy,
    .event_record = cpu_event_record,
    .event_fence = cpu_event_fence,
    .event_query = cpu_event_query,
    .event_elapsed = cpu_event_elapsed,
    .fence = cpu_fence,
    .fence_poll = cpu_fence_poll,
    .fence_release = cpu_fence_release,
    .reach = cpu_reach,
    .unreach = cpu_unreach,
    .share_name = cpu_share_name,
    .share_open = cpu_share_open,
    .share_close = cpu_share_close,
    .set_off = cpu_set_off,
    .room = cpu_room,
    .close = cpu_gpu_close,
};

/* All but the thread; NULL without memory. */
static struct cpu_gpu *make_gpu(const struct gpu_arena *arena, uint64_t memory)
{
    struct cpu_gpu *cpu = calloc(1, sizeof(*cpu));

    if (!cpu) {
        return NULL;
    }
    cpu->head.ops = &cpu_ops;
    cpu->head.calls = &cpu_calls;
    cpu->head.arena = *arena;
    cpu->head.file = -1;
    cpu->next_place = VGPU_SHARED_MEMORY;
    cpu->head.info = (struct vgpu_device_info){
        .backend = VGPU_FEATURE_BACKEND_CPU,
        .processors = 1,
        .memory_total = memory,
        .name = CPU_NAME,
    };
    cpu->limit = memory;
    cpu->next_address = FIRST_ADDRESS;
    pthread_mutex_init(&cpu->mutex, NULL);
    pthread_cond_init(&cpu->wake, NULL);
    return cpu;
}

int cpu_gpu_open(const struct gpu_arena *arena, uint64_t memory, struct gpu **gpu)
{
    struct cpu_gpu *cpu = make_gpu(arena, memory);
    int r;

    if (!cpu) {
        return -ENOMEM;
    }
    r = pthread_create(&cpu->thread, NULL, cpu_gpu_thread, cpu);
    if (r != 0) {
        free(cpu);
        return -r;
    }
    *gpu = &cpu->head;
    return 0;
}

int cpu_gpu_open_stepped(const struct gpu_arena *arena, uint64_t memory, struct gpu **gpu)
{
    struct cpu_gpu *cpu = make_gpu(arena, memory);

    if (!cpu) {
        return -ENOMEM;
    }
    /* As if it were about to end: what takes its time takes none. */
    cpu->stepped = cpu->stop = true;
    *gpu = &cpu->head;
    return 0;
}
