/* SPDX-License-Identifier: MIT */
/*
 * Functions within graphs, see gate.h.
 *
 * One word is enough for each function of a graph, however often that is launched: CUDA lets a
 * launch of an executable graph begin only when the one before it has ended, also in another
 * stream. So the word is at 0 again when the next launch comes there. The host writes 1 and 0, the
 * thread here only 2, each waits for the other; in a worker these are a write, a wait and a write
 * (worker/backend-cuda/graph.c).
 *
 * A graph's thread starts at its first launch and lives as long as the graph. It looks at all gates
 * in turn, so functions of one graph are called one after another, never two at once.
 */
#include "guest/libcuda/model/gate.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/shared.h"
#include "guest/libcuda/model/transfer.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

enum gate_word {
    GATE_FREE = 0,
    GATE_REACHED = 1,
    GATE_OPEN = 2,
};

struct gate {
    CUDA_HOST_NODE_PARAMS host;
    struct transfer *transfer; /* NULL: a function of the program's */
    uint32_t *word;            /* in the arena */
    uint64_t passed;           /* launches; the thread's */
};

struct gates {
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t more;
    struct gate *gate;
    size_t count, room;
    uint64_t launched;
    bool running; /* there is a thread, which frees all this */
    bool ending;
};

struct gates *gates_new(void)
{
    struct gates *g = calloc(1, sizeof(*g));

    if (g) {
        pthread_mutex_init(&g->mutex, NULL);
        pthread_cond_init(&g->more, NULL);
    }
    return g;
}

static bool gates_make_room(struct gates *g)
{
    const size_t room = 2 * g->room + 4;
    struct gate *more;

    if (g->count < g->room) {
        return true;
    }
    more = realloc(g->gate, room * sizeof(*more));
    if (more) {
        g->gate = more;
        g->room = room;
    }
    return more != NULL;
}

/* No mutex: the graph is being written for the host, nobody else knows it yet. */
bool gates_add(struct gates *g, const CUDA_HOST_NODE_PARAMS *host, struct transfer *transfer,
               uint64_t *address)
{
    void *word = gates_make_room(g) ? memory_pinned(sizeof(uint32_t)) : NULL;

    if (!word) {
        return false;
    }
    shared_store(word, GATE_FREE);
    g->gate[g->count++] = (struct gate){.host = *host, .transfer = transfer, .word = word};
    *address = (uint64_t)(uintptr_t)word;
    return true;
}

/* After the session's end the arena is gone, and the words with it. */
static void free_gates(struct gates *g)
{
    const bool with_arena = enter_init() == CUDA_SUCCESS;

    for (size_t i = 0; i < g->count; i++) {
        transfer_free(g->gate[i].transfer, with_arena);
        if (with_arena) {
            vgpu_pinned_free(cuda.session, g->gate[i].word);
        }
    }
    pthread_cond_destroy(&g->more);
    pthread_mutex_destroy(&g->mutex);
    free(g->gate);
    free(g);
}

/*
 * Calls the functions of gates that are reached. Whether all have been passed by all launches. Each
 * gate counts for itself: gates of a launch are reached in an order that this side does not know.
 */
static bool gates_pass(struct gates *g, uint64_t launched, bool *any)
{
    bool all = true;

    for (size_t i = 0; i < g->count; i++) {
        struct gate *gate = &g->gate[i];

        if (shared_load(gate->word) == GATE_REACHED) {
            /* What the graph has done by then is there. */
            shared_fence();
            gate->host.fn(gate->host.userData);
            /* What the function has written is there before the GPU sees the word and goes on. */
            shared_fence();
            shared_store(gate->word, GATE_OPEN);
            gate->passed++;
            *any = true;
        }
        all = all && gate->passed >= launched;
    }
    return all;
}

/*
 * Whether the GPU is done with the words and with what lies behind transfers: it stores FREE when
 * it has left a gate, and a transfer's note when it has taken the bytes.
 */
static bool gates_left(const struct gates *g)
{
    for (size_t i = 0; i < g->count; i++) {
        const struct gate *gate = &g->gate[i];

        if (shared_load(gate->word) != GATE_FREE ||
            (gate->transfer && !transfer_taken(gate->transfer))) {
            return false;
        }
    }
    return true;
}

/* Whether the session goes on, so that something may still come of the GPU. */
static bool gates_alive(void)
{
    return enter_init() == CUDA_SUCCESS && session_lost(cuda.session) == 0 &&
           vgpu_session_end(cuda.session) == VGPU_QUEUE_END_NONE;
}

/* All launches have passed the gates; the last of them may not have left them yet. */
static void wait_until_left(const struct gates *g)
{
    const uint64_t start = clock_ns();

    while (gates_alive() && !gates_left(g)) {
        session_look(cuda.session, clock_ns() - start);
        vgpu_pause(clock_ns() - start);
    }
}

/*
 * Looks after the gates until all launches have passed them, ever more slowly: a pause is a
 * sixteenth of the time since something happened last. It gives up when the session ends or the
 * context is lost, since no gate will be reached then. Without the mutex, which a launch needs:
 * functions may take long.
 */
static void gates_watch(struct gates *g, uint64_t launched)
{
    uint64_t since = clock_ns();
    bool any = false;

    while (!gates_pass(g, launched, &any) && gates_alive()) {
        since = any ? clock_ns() : since;
        any = false;
        session_look(cuda.session, clock_ns() - since);
        vgpu_pause(clock_ns() - since);
    }
}

/*
 * `launched` is read once for each round. A launch that comes meanwhile starts another round, in
 * which gates that it has passed already are counted: they are not looked for again.
 */
static void *gates_serve(void *argument)
{
    struct gates *g = argument;
    uint64_t done = 0;

    pthread_mutex_lock(&g->mutex);
    for (;;) {
        if (done < g->launched) {
            const uint64_t launched = g->launched;

            pthread_mutex_unlock(&g->mutex);
            gates_watch(g, launched);
            pthread_mutex_lock(&g->mutex);
            done = launched;
        } else if (g->ending) {
            break;
        } else {
            pthread_cond_wait(&g->more, &g->mutex);
        }
    }
    pthread_mutex_unlock(&g->mutex);
    wait_until_left(g);
    free_gates(g);
    return NULL;
}

/*
 * The thread is there before the launch: a graph that stands at a gate without anybody to open it
 * would hold its stream for good. The mutex is held over the post, so that `launched` never runs
 * behind what the host has been sent and gates_end() comes before or after the whole.
 */
CUresult gates_launch(struct gates *g, CUgraphExec exec, uint64_t stream)
{
    CUresult r;

    pthread_mutex_lock(&g->mutex);
    r = g->running ? CUDA_SUCCESS : library_thread(gates_serve, g);
    g->running = r == CUDA_SUCCESS;
    if (r == CUDA_SUCCESS) {
        r = call_graph_launch(exec, stream);
    }
    if (r == CUDA_SUCCESS) {
        g->launched++;
        pthread_cond_signal(&g->more);
    }
    pthread_mutex_unlock(&g->mutex);
    return r;
}

void gates_end(struct gates *g)
{
    bool running;

    if (!g) {
        return;
    }
    pthread_mutex_lock(&g->mutex);
    running = g->running;
    g->ending = true;
    pthread_cond_signal(&g->more);
    pthread_mutex_unlock(&g->mutex);
    /* Nothing was ever launched, so nobody looks at the words. Otherwise the thread frees all. */
    if (!running) {
        free_gates(g);
    }
}
