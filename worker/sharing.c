/* SPDX-License-Identifier: MIT */
/*
 * What a session has together with others of its VM, see sharing.h; and the calls of api/ about it.
 *
 * Other workers count as hostile: what lies in a shared file is read once and checked, and says no
 * more than whether something has happened. The files are sealed, which the mediator has seen to.
 */
#include "worker/sharing.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fdmsg.h"
#include "common/memfd.h"
#include "common/shared.h"
#include "worker/api-calls.h"
#include "worker/ring-session.h"

#define WORD_MASK (VGPU_SHARED_EVENTS - 1)

/* So many files are mapped at a time: each has the GPU reach it. */
#define FILES_MAX 256u

/* Events in one file, which is mapped once. */
struct shared_file {
    struct shared_file *next;
    uint64_t session; /* whose it is, by the mediator's number; 0: this session's own */
    struct vgpu_shared_events *events;
    uint32_t users;     /* events of this session's that are in it */
    uint32_t next_word; /* where to look for a free one */
};

struct shared_event {
    struct shared_file *file;
    uint64_t handle;
    uint32_t number;
    bool exported;
    struct vgpu_export share; /* of its own, when it is exported; of another's */
};

struct exported_memory {
    struct exported_memory *next;
    uint64_t address;
    struct vgpu_export share;
};

struct imported_memory {
    struct imported_memory *next;
    uint64_t address;
    unsigned opened; /* so many times */
    struct vgpu_export share;
};

/* The mediator ------------------------------------------------------------------------------- */

/* 0 says that there is none. */
static uint32_t next_number(struct sharing *sharing)
{
    sharing->number += sharing->number == UINT32_MAX ? 2 : 1;
    return sharing->number;
}

/* Sends a message with this number, with room for it, for which it waits. Returns 0 or -errno. */
static int send_share(const struct sharing *sharing, enum vgpu_link_type type, uint32_t number,
                      const struct vgpu_export *share, const int *fd)
{
    const struct vgpu_link_msg msg = {.type = type, .number = number, .share = *share};
    ssize_t n;

    while ((n = fdmsg_send(sharing->link, &msg, sizeof(msg), fd, fd != NULL)) == -EAGAIN) {
        poll(&(struct pollfd){.fd = sharing->link, .events = POLLOUT}, 1, -1);
    }
    return n < 0 ? (int)n : 0;
}

/* Something is given back. */
static void tell_share(struct sharing *sharing, enum vgpu_link_type type,
                       const struct vgpu_export *share)
{
    /* Without a link the worker ends, as soon as it looks there. */
    send_share(sharing, type, next_number(sharing), share, NULL);
}

/*
 * Waits for the answer. Turns that are announced meanwhile are seen without the message, since the
 * words are looked at in each round. Returns 0, -EAGAIN where another mediator is there, which has
 * to be asked again, or another -errno.
 */
static int await_share(struct sharing *sharing, enum vgpu_link_type type, struct vgpu_link_msg *msg,
                       int *file)
{
    for (;;) {
        int fds[FDMSG_MAX];
        size_t count = 0;
        const ssize_t n = fdmsg_recv(sharing->link, msg, sizeof(*msg), fds, &count);

        if (n == (ssize_t)sizeof(*msg) && msg->type == (uint32_t)type && file && count > 0) {
            *file = fds[--count];
        }
        fdmsg_close(fds, &count);
        if (n == -EAGAIN) {
            poll(&(struct pollfd){.fd = sharing->link, .events = POLLIN}, 1, -1);
        } else if (n != (ssize_t)sizeof(*msg)) {
            return n < 0 ? (int)n : -EPIPE;
        } else if (msg->type == (uint32_t)type) {
            return 0;
        } else if (msg->type == VGPU_LINK_RESYNC && sharing->resync) {
            /* What was asked before does not count, and what is asked behind STATE does. */
            sharing->resync(msg->value);
            return -EAGAIN;
        }
    }
}

static enum vgpu_gpu_error error_of_answer(uint32_t result)
{
    switch (result) {
    case VGPU_LINK_DONE_WELL:
        return VGPU_GPU_SUCCESS;
    case VGPU_LINK_OWN:
        return CUDA_ERROR_INVALID_CONTEXT;
    case VGPU_LINK_FULL:
        return VGPU_GPU_OUT_OF_MEMORY;
    default:
        return VGPU_GPU_INVALID_VALUE;
    }
}

/* Asks the mediator; *share becomes the answer, and *file what comes with it, or -1. */
static enum vgpu_gpu_error ask_mediator(struct sharing *sharing, enum vgpu_link_type type,
                                        struct vgpu_export *share, int *file)
{
    const bool event = share->kind == VGPU_EXPORT_EVENT;
    bool *sent = event ? &sharing->sent_events : &sharing->sent_memory;
    const int own = event ? sharing->events : sharing->memory;
    const bool send = type == VGPU_LINK_EXPORT && !*sent && own >= 0;
    const uint32_t number = next_number(sharing);
    struct vgpu_link_msg msg = {0};
    int r;

    if (sharing->events < 0) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    do {
        r = send_share(sharing, type, number, share, send ? &own : NULL);
        r = r == 0 ? await_share(sharing, type, &msg, file) : r;
    } while (r == -EAGAIN);
    /* Without a link the worker ends, as soon as it looks there. */
    if (r < 0) {
        return VGPU_GPU_UNKNOWN;
    }
    *sent = *sent || (send && msg.value == VGPU_LINK_DONE_WELL);
    sharing->session = msg.from_ns;
    *share = msg.share;
    return error_of_answer(msg.value);
}

/* Files -------------------------------------------------------------------------------------- */

int sharing_make_files(bool memory, struct sharing_files *files)
{
    *files = (struct sharing_files){-1, -1};
    files->events = memfd_make("vgpu-events", sizeof(struct vgpu_shared_events));
    if (files->events < 0 || !memory) {
        return files->events < 0 ? files->events : 0;
    }
    files->memory = memfd_make("vgpu-memory", VGPU_SHARED_SIZE);
    if (files->memory < 0) {
        const int r = files->memory;

        close(files->events);
        *files = (struct sharing_files){-1, -1};
        return r;
    }
    return 0;
}

void sharing_init(struct ring_session *s, int link, const struct sharing_files *files)
{
    s->sharing = (struct sharing){.link = link, .events = files->events, .memory = files->memory};
}

/* Maps the events of a file, where the GPU reaches its words; NULL when that cannot be. */
static struct shared_file *map_file(struct ring_session *s, int fd, uint64_t session)
{
    struct shared_file *file = calloc(1, sizeof(*file));
    void *events;

    if (!file || !s->gpu->ops->reach) {
        free(file);
        return NULL;
    }
    events = mmap(NULL, sizeof(*file->events), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (events == MAP_FAILED) {
        free(file);
        return NULL;
    }
    file->events = events;
    file->session = session;
    if (!s->gpu->ops->reach(s->gpu, file->events->word, sizeof(file->events->word))) {
        munmap(events, sizeof(*file->events));
        free(file);
        return NULL;
    }
    file->next = s->sharing.files;
    s->sharing.files = file;
    return file;
}

/* The file of a session's, which is mapped if it is not yet; NULL when that cannot be. */
static struct shared_file *find_file(struct ring_session *s, int fd, uint64_t session)
{
    struct shared_file *file;
    unsigned count = 0;

    sharing_drop_unused(s);
    for (file = s->sharing.files; file && file->session != session; file = file->next) {
        count++;
    }
    return file || count >= FILES_MAX ? file : map_file(s, fd, session);
}

/* Its own is kept: another event will follow. */
void sharing_drop_unused(struct ring_session *s)
{
    struct shared_file **place = &s->sharing.files;

    while (*place) {
        struct shared_file *file = *place;

        if (file->users > 0 || file->session == 0 || !flight_idle(&s->flight)) {
            place = &file->next;
            continue;
        }
        *place = file->next;
        s->gpu->ops->unreach(s->gpu, file->events->word);
        munmap(file->events, sizeof(*file->events));
        free(file);
    }
}

/* Memory ------------------------------------------------------------------------------------- */

enum vgpu_gpu_error host_shared_memory_export(struct api_serve *serve, uint8_t *key,
                                              CUdeviceptr address)
{
    struct ring_session *s = serve->session;
    struct exported_memory *made = s->sharing.exported;
    enum vgpu_gpu_error error;

    while (made && made->address != address) {
        made = made->next;
    }
    if (made) {
        memcpy(key, made->share.key, sizeof(made->share.key));
        return VGPU_GPU_SUCCESS;
    }
    if (!s->gpu->ops->share_name) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made->address = address;
    made->share.kind = VGPU_EXPORT_MEMORY;
    made->share.bytes = ledger_bytes(&s->memory.ledger, address);
    error = made->share.bytes == 0 ? VGPU_GPU_INVALID_VALUE
                                   : s->gpu->ops->share_name(s->gpu, address, made->share.name);
    if (error == VGPU_GPU_SUCCESS) {
        error = ask_mediator(&s->sharing, VGPU_LINK_EXPORT, &made->share, NULL);
    }
    if (error != VGPU_GPU_SUCCESS) {
        free(made);
        return error;
    }
    made->next = s->sharing.exported;
    s->sharing.exported = made;
    memcpy(key, made->share.key, sizeof(made->share.key));
    return VGPU_GPU_SUCCESS;
}

/*
 * What was exported is off this session's counter when it is withdrawn, and the mediator decides
 * when it is off the account.
 */
void sharing_memory_freed(struct ring_session *s, uint64_t address)
{
    struct exported_memory **place = &s->sharing.exported;
    struct exported_memory *exported;

    while (*place && (*place)->address != address) {
        place = &(*place)->next;
    }
    exported = *place;
    if (!exported) {
        ledger_free(&s->memory.ledger, address);
        return;
    }
    *place = exported->next;
    ledger_hand_over(&s->memory.ledger, address);
    tell_share(&s->sharing, VGPU_LINK_WITHDRAW, &exported->share);
    free(exported);
}

/* Gives back what was imported and is not opened. */
static void let_go(struct ring_session *s, const struct vgpu_export *share)
{
    if (share->foreign) {
        ledger_return(&s->memory.ledger, share->bytes);
    } else {
        tell_share(&s->sharing, VGPU_LINK_RELEASE, share);
    }
}

/* *made is imported and counted; it is opened on the GPU. */
static enum vgpu_gpu_error open_memory(struct ring_session *s, struct imported_memory *made, int fd)
{
    enum vgpu_gpu_error error = VGPU_GPU_SUCCESS;

    if (made->share.foreign && !ledger_reserve(&s->memory.ledger, made->share.bytes)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->share_open(s->gpu, made->share.name, made->share.bytes, fd,
                                    &made->address);
    if (error != VGPU_GPU_SUCCESS) {
        let_go(s, &made->share);
    }
    return error;
}

enum vgpu_gpu_error host_shared_memory_import(struct api_serve *serve, CUdeviceptr *address,
                                              size_t *bytes, const uint8_t *key)
{
    struct ring_session *s = serve->session;
    struct imported_memory *made = s->sharing.imported;
    enum vgpu_gpu_error error;
    int fd = -1;

    while (made && memcmp(made->share.key, key, sizeof(made->share.key)) != 0) {
        made = made->next;
    }
    if (!made) {
        made = calloc(1, sizeof(*made));
        if (!made || !s->gpu->ops->share_open) {
            free(made);
            return made ? VGPU_GPU_NOT_SUPPORTED : VGPU_GPU_OUT_OF_MEMORY;
        }
        made->share.kind = VGPU_EXPORT_MEMORY;
        memcpy(made->share.key, key, sizeof(made->share.key));
        error = ask_mediator(&s->sharing, VGPU_LINK_IMPORT, &made->share, &fd);
        if (error == VGPU_GPU_SUCCESS) {
            error = open_memory(s, made, fd);
        }
        if (fd >= 0) {
            close(fd);
        }
        if (error != VGPU_GPU_SUCCESS) {
            free(made);
            return error;
        }
        made->next = s->sharing.imported;
        s->sharing.imported = made;
    }
    made->opened++;
    *address = made->address;
    *bytes = made->share.bytes;
    return VGPU_GPU_SUCCESS;
}

/* To be called when nothing uses it: the guest has waited. *left: how often it is still open. */
enum vgpu_gpu_error host_shared_memory_close(struct api_serve *serve, uint32_t *left,
                                             CUdeviceptr address)
{
    struct ring_session *s = serve->session;
    struct imported_memory **place = &s->sharing.imported;
    struct imported_memory *imported;
    enum vgpu_gpu_error error = VGPU_GPU_SUCCESS;

    while (*place && (*place)->address != address) {
        place = &(*place)->next;
    }
    imported = *place;
    if (!imported) {
        return VGPU_GPU_INVALID_VALUE;
    }
    *left = imported->opened - 1;
    if (*left == 0) {
        error = s->gpu->ops->share_close(s->gpu, address);
    }
    if (error != VGPU_GPU_SUCCESS) {
        /* The memory is still had, as when the context is lost: until the process ends. */
        return error;
    }
    imported->opened--;
    if (*left == 0) {
        *place = imported->next;
        let_go(s, &imported->share);
        free(imported);
    }
    return VGPU_GPU_SUCCESS;
}

/* Events ------------------------------------------------------------------------------------- */

static enum vgpu_gpu_error add_event(struct ring_session *s, struct shared_file *file,
                                     uint32_t number, struct shared_event **added)
{
    struct shared_event *event = calloc(1, sizeof(*event));

    if (event) {
        event->file = file;
        event->number = number;
        event->handle = handles_add(&s->handles, HANDLE_SHARED_EVENT, event, 0);
    }
    if (!event || event->handle == 0) {
        free(event);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    file->users++;
    *added = event;
    return VGPU_GPU_SUCCESS;
}

/* The number of an event of its own that is not in use. */
static bool find_free_event(const struct sharing *sharing, uint32_t *number)
{
    for (uint32_t i = 0; i < VGPU_SHARED_EVENTS / 64; i++) {
        if (~sharing->own[i] != 0) {
            *number = 64 * i + (uint32_t)__builtin_ctzll(~sharing->own[i]);
            return true;
        }
    }
    return false;
}

enum vgpu_gpu_error host_shared_event_make(struct api_serve *serve, uint64_t *event)
{
    struct ring_session *s = serve->session;
    struct shared_event *made;
    struct shared_file *file;
    uint32_t number;
    enum vgpu_gpu_error error;

    if (s->sharing.events < 0) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    if (!find_free_event(&s->sharing, &number)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    file = find_file(s, s->sharing.events, 0);
    if (!file) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    error = add_event(s, file, number, &made);
    if (error == VGPU_GPU_SUCCESS) {
        s->sharing.own[number / 64] |= UINT64_C(1) << number % 64;
        shared_store64(&file->events->current[number], 0);
        *event = made->handle;
    }
    return error;
}

enum vgpu_gpu_error host_shared_event_export(struct api_serve *serve, uint8_t *key,
                                             struct shared_event *event)
{
    struct ring_session *s = serve->session;
    enum vgpu_gpu_error error = VGPU_GPU_SUCCESS;

    /* One that was imported has its handle already. */
    if (event->file->session != 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (!event->exported) {
        event->share = (struct vgpu_export){.kind = VGPU_EXPORT_EVENT};
        memcpy(event->share.name, &event->number, sizeof(event->number));
        error = ask_mediator(&s->sharing, VGPU_LINK_EXPORT, &event->share, NULL);
        event->exported = error == VGPU_GPU_SUCCESS;
    }
    memcpy(key, event->share.key, sizeof(event->share.key));
    return error;
}

enum vgpu_gpu_error host_shared_event_import(struct api_serve *serve, uint64_t *event,
                                             const uint8_t *key)
{
    struct ring_session *s = serve->session;
    struct vgpu_export share = {.kind = VGPU_EXPORT_EVENT};
    struct shared_event *made = NULL;
    struct shared_file *file = NULL;
    enum vgpu_gpu_error error;
    uint32_t number;
    int fd = -1;

    memcpy(share.key, key, sizeof(share.key));
    error = ask_mediator(&s->sharing, VGPU_LINK_IMPORT, &share, &fd);
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    if (fd >= 0) {
        file = find_file(s, fd, share.session);
        close(fd);
    }
    memcpy(&number, share.name, sizeof(number));
    error = file && number < VGPU_SHARED_EVENTS ? add_event(s, file, number, &made)
                                                : VGPU_GPU_OUT_OF_MEMORY;
    if (error != VGPU_GPU_SUCCESS) {
        tell_share(&s->sharing, VGPU_LINK_RELEASE, &share);
        return error;
    }
    made->share = share;
    *event = made->handle;
    return VGPU_GPU_SUCCESS;
}

/* What streams still have to do with it is done all the same: the file stays mapped for that. */
enum vgpu_gpu_error host_shared_event_drop(struct api_serve *serve, struct shared_event *event)
{
    struct ring_session *s = serve->session;

    handles_remove(&s->handles, event->handle);
    if (event->file->session != 0) {
        tell_share(&s->sharing, VGPU_LINK_RELEASE, &event->share);
    } else {
        s->sharing.own[event->number / 64] &= ~(UINT64_C(1) << event->number % 64);
    }
    if (event->exported) {
        tell_share(&s->sharing, VGPU_LINK_WITHDRAW, &event->share);
    }
    event->file->users--;
    free(event);
    sharing_drop_unused(s);
    return VGPU_GPU_SUCCESS;
}

/* Whether a record has happened: the word has come so far, by CUDA's way to compare. */
static bool has_passed(const struct shared_event *event, uint64_t number)
{
    const uint64_t *word = &event->file->events->word[number & WORD_MASK];

    return number == 0 || (int64_t)(shared_load64_acquire(word) - number) >= 0;
}

enum vgpu_gpu_error host_shared_event_number(struct api_serve *serve, uint64_t *number,
                                             uint32_t *passed, struct shared_event *event)
{
    (void)serve;
    *number = shared_load64_acquire(&event->file->events->current[event->number]);
    *passed = has_passed(event, *number);
    return VGPU_GPU_SUCCESS;
}

/* Takes a word that has come to what was given out last. 0: all are on their way. */
static uint64_t take_shared_word(struct shared_file *file, uint64_t session)
{
    struct vgpu_shared_events *events = file->events;

    for (uint32_t i = 0; i < VGPU_SHARED_EVENTS; i++) {
        const uint32_t word = file->next_word++ & WORD_MASK;
        uint64_t taken = shared_load64(&events->taken[word]);
        const uint64_t next = vgpu_shared_next(taken, session, word);

        if (shared_load64_acquire(&events->word[word]) == taken &&
            __atomic_compare_exchange_n(&events->taken[word], &taken, next, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED)) {
            return next;
        }
    }
    return 0;
}

/* NOT_READY: so many records are on their way that there is none free; later there will be. */
enum vgpu_gpu_error host_shared_event_announce(struct api_serve *serve, uint64_t *number,
                                               struct shared_event *event)
{
    *number = take_shared_word(event->file, serve->session->sharing.session);
    if (*number == 0) {
        return VGPU_GPU_NOT_READY;
    }
    shared_store64_release(&event->file->events->current[event->number], *number);
    return VGPU_GPU_SUCCESS;
}

/* Only a number that was given out: a store of another one would have a record happen early. */
enum vgpu_gpu_error host_shared_event_record(struct api_serve *serve, struct gpu_stream *stream,
                                             struct shared_event *event, uint64_t number)
{
    struct vgpu_shared_events *events = event->file->events;
    const uint32_t word = (uint32_t)number & WORD_MASK;

    if (shared_load64(&events->taken[word]) != number) {
        return VGPU_GPU_INVALID_VALUE;
    }
    return serve->calls->cuStreamWriteValue64_v2
               ? serve->calls->cuStreamWriteValue64_v2(
                     serve->gpu, stream, (CUdeviceptr)(uintptr_t)&events->word[word], number, 0)
               : VGPU_GPU_NOT_SUPPORTED;
}

enum vgpu_gpu_error host_shared_event_wait(struct api_serve *serve, struct gpu_stream *stream,
                                           struct shared_event *event, uint64_t number)
{
    uint64_t *word = &event->file->events->word[number & WORD_MASK];

    if (has_passed(event, number)) {
        return VGPU_GPU_SUCCESS;
    }
    return serve->calls->cuStreamWaitValue64_v2
               ? serve->calls->cuStreamWaitValue64_v2(serve->gpu, stream,
                                                      (CUdeviceptr)(uintptr_t)word, number,
                                                      CU_STREAM_WAIT_VALUE_GEQ)
               : VGPU_GPU_NOT_SUPPORTED;
}

enum vgpu_gpu_error host_shared_event_query(struct api_serve *serve, struct shared_event *event,
                                            uint64_t number)
{
    if (has_passed(event, number)) {
        return VGPU_GPU_SUCCESS;
    }
    /* A record that this session has lost never comes. */
    return serve->gpu->lost != VGPU_GPU_SUCCESS ? serve->gpu->lost : VGPU_GPU_NOT_READY;
}

void sharing_release(struct ring_session *s)
{
    struct shared_event *event;
    uint32_t position = 0;

    while ((event = handles_next(&s->handles, HANDLE_SHARED_EVENT, &position)) != NULL) {
        free(event);
    }
    while (s->sharing.files) {
        struct shared_file *file = s->sharing.files;

        s->sharing.files = file->next;
        free(file);
    }
    while (s->sharing.exported) {
        struct exported_memory *exported = s->sharing.exported;

        s->sharing.exported = exported->next;
        free(exported);
    }
    while (s->sharing.imported) {
        struct imported_memory *imported = s->sharing.imported;

        s->sharing.imported = imported->next;
        free(imported);
    }
}
