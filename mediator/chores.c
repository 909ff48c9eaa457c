/* SPDX-License-Identifier: MIT */
/*
 * Chores, see chores.h.
 *
 * Any of them can take as long as somebody else likes. A close() is the last one of a file whose
 * owner decides how long that takes (a socket that lingers, a file system of the user's own), or of
 * what was sent over a connection and never read, or it frees gigabytes of a VM's memory. A store
 * waits while a hole is punched in the memory. So each kind has a crew: threads that are started
 * when there is work that nobody idle could take, up to a number, and that stay. Closing does not
 * keep stores waiting.
 *
 * A page has one store under way at a time, so that an older word cannot overtake a newer one.
 *
 * Threads have all signals blocked: those are for the event loop.
 */
#include "mediator/chores.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/fdmsg.h"
#include "common/log.h"
#include "mediator/list.h"

#define CREW_MAX 64u
/* Of those who store cards: a few, so that they keep nothing else waiting. */
#define CARDS_CREW_MAX 8u
#define NESTED_MAX 8u
#define FINISH_SECONDS 1

struct chore {
    struct chore *next;
    void (*run)(struct chore *chore); /* without the mutex */
};

struct crew {
    unsigned most;
    struct chore *first, **end; /* what nobody has taken */
    unsigned waiting;           /* how many those are */
    unsigned threads, idle;
    pthread_cond_t work;
};

struct closing {
    struct chore chore;
    int fd;
};

struct status_page {
    struct chore chore;
    int file;                       /* the VM's memory */
    off_t place;                    /* of QUEUE_STATUS in it */
    uint32_t queues;                /* words there */
    uint32_t word[VGPU_MAX_QUEUES]; /* as the event loop has it */
    uint64_t due;                   /* with the mutex: a bit for each word to be stored */
    struct chore card_chore;        /* the same of the card, by another crew */
    off_t card_place;               /* of the card in `file` */
    struct vgpu_card card;          /* with the mutex: as the event loop has it */
    bool card_due, card_busy;       /* with the mutex */
    bool card_lost;                 /* with the mutex: the last one could not be stored */
    uint32_t card_sequence;         /* of who stores: what it has stored last */
    bool busy;                      /* with the mutex: a thread has it, or it waits for one */
    bool released;                  /* with the mutex */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct crew closers = {
    .most = CREW_MAX, .end = &closers.first, .work = PTHREAD_COND_INITIALIZER};
static struct crew storers = {
    .most = CREW_MAX, .end = &storers.first, .work = PTHREAD_COND_INITIALIZER};
static struct crew carders = {
    .most = CARDS_CREW_MAX, .end = &carders.first, .work = PTHREAD_COND_INITIALIZER};
static unsigned stores;  /* pages that are busy */
static int done_fd = -1; /* an eventfd */

static void *crew_member(void *context)
{
    struct crew *crew = context;

    pthread_mutex_lock(&mutex);
    for (;;) {
        struct chore *chore = crew->first;

        if (!chore) {
            crew->idle++;
            pthread_cond_wait(&crew->work, &mutex);
            crew->idle--;
            continue;
        }
        crew->first = chore->next;
        if (!crew->first) {
            crew->end = &crew->first;
        }
        crew->waiting--;
        pthread_mutex_unlock(&mutex);
        chore->run(chore);
        pthread_mutex_lock(&mutex);
    }
    return NULL;
}

/* One more thread; none where that fails, and then those that there are have to do. */
static void crew_grow(struct crew *crew)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;

    if (pthread_attr_init(&attributes) != 0) {
        return;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 4 * (size_t)PTHREAD_STACK_MIN);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, &attributes, crew_member, crew) == 0) {
        crew->threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* False when there is nobody who could ever do it. With the mutex. */
static bool crew_give(struct crew *crew, struct chore *chore)
{
    if (crew->waiting >= crew->idle && crew->threads < crew->most) {
        crew_grow(crew);
    }
    if (crew->threads == 0) {
        return false;
    }
    chore->next = NULL;
    *crew->end = chore;
    crew->end = &chore->next;
    crew->waiting++;
    pthread_cond_signal(&crew->work);
    return true;
}

/* Closing ---------------------------------------------------------------------------------- */

static void close_now(int fd, unsigned depth);

/*
 * Takes out of a Unix socket what has come and closes that: descriptors that wait in there, or in
 * connections that nobody has accepted, would be closed as their senders have set them.
 */
static void close_sent(int socket, unsigned depth)
{
    char bytes[256];
    int fds[FDMSG_MAX], connection;
    size_t count;
    ssize_t n;

    fcntl(socket, F_SETFL, O_NONBLOCK);
    while ((connection = accept4(socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        close_now(connection, depth + 1);
    }
    do {
        count = 0;
        n = fdmsg_recv(socket, bytes, sizeof(bytes), fds, &count);
        for (size_t i = 0; i < count; i++) {
            close_now(fds[i], depth + 1);
        }
    } while (n > 0 || count > 0);
}

/* Unix sockets may be in each other; Linux lets fewer than NESTED_MAX of them. */
static void close_now(int fd, unsigned depth)
{
    int domain = 0;
    socklen_t size = sizeof(domain);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0) {
        /* Whoever sent a socket may have set it so that it lingers. */
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 0},
                   sizeof(struct linger));
    }
    if (domain == AF_UNIX && depth < NESTED_MAX) {
        /* Nothing more comes. */
        shutdown(fd, SHUT_RDWR);
        close_sent(fd, depth);
    }
    close(fd);
}

/* Whether there is somebody who does it. */
static bool give_to_closers(struct chore *chore)
{
    bool given;

    pthread_mutex_lock(&mutex);
    given = crew_give(&closers, chore);
    pthread_mutex_unlock(&mutex);
    return given;
}

static void run_closing(struct chore *chore)
{
    struct closing *closing = LIST_OWNER((uintptr_t)chore, struct closing, chore);

    close_now(closing->fd, 0);
    free(closing);
}

void chores_close(int fd)
{
    struct closing *closing = malloc(sizeof(*closing));
    bool given = false;

    if (closing) {
        *closing = (struct closing){.chore = {.run = run_closing}, .fd = fd};
        given = give_to_closers(&closing->chore);
    }
    if (!given) {
        free(closing);
        close_now(fd, 0);
    }
}

/* Emptying --------------------------------------------------------------------------------- */

struct emptying {
    struct chore chore;
    int fd;
    struct extent *but;
    size_t count;
};

static void free_part(int fd, uint64_t from, uint64_t to)
{
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

    if (to > from && fallocate(fd, mode, (off_t)from, (off_t)(to - from)) < 0) {
        log_debug("cannot free what an ended session has shared: %s", strerror(errno));
    }
}

/* What stands in the extents is a worker's word: whatever it is, no more is freed than the file. */
static void empty_now(int fd, const struct extent *but, size_t count)
{
    uint64_t from = 0;

    for (size_t i = 0; i < count && but[i].start < VGPU_SHARED_SIZE; i++) {
        const uint64_t left = VGPU_SHARED_SIZE - but[i].start;
        const uint64_t end = but[i].start + (but[i].bytes < left ? but[i].bytes : left);

        free_part(fd, from, but[i].start);
        from = end > from ? end : from;
    }
    free_part(fd, from, VGPU_SHARED_SIZE);
    close(fd);
}

static void run_emptying(struct chore *chore)
{
    struct emptying *emptying = LIST_OWNER((uintptr_t)chore, struct emptying, chore);

    empty_now(emptying->fd, emptying->but, emptying->count);
    free(emptying->but);
    free(emptying);
}

void chores_empty(int fd, struct extent *but, size_t count)
{
    struct emptying *emptying = malloc(sizeof(*emptying));
    bool given = false;

    if (emptying) {
        *emptying = (struct emptying){{.run = run_emptying}, fd, but, count};
        given = give_to_closers(&emptying->chore);
    }
    if (!given) {
        free(emptying);
        empty_now(fd, but, count);
        free(but);
    }
}

void chores_hang_up(int socket)
{
    shutdown(socket, SHUT_RDWR);
    chores_close(socket);
}

/* Status pages ------------------------------------------------------------------------------- */

static void page_free(struct status_page *page)
{
    chores_close(page->file);
    free(page);
}

/*
 * Stores a word, without a mapping: one that a guest has mapped ten thousands of times too makes
 * each fork() of this process slow. The kernel copies byte by byte, so what whoever reads the word
 * goes by comes last: the reason before the state, and both before the count.
 */
static void store_word(const struct status_page *page, unsigned queue, uint32_t word)
{
    const off_t place = page->place + (off_t)(queue * sizeof(word));
    const uint8_t bytes[] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16),
                             (uint8_t)(word >> 24)};

    /* It is sealed against shrinking, and was not against writing. */
    if (pwrite(page->file, bytes + 1, 1, place + 1) != 1 ||
        pwrite(page->file, bytes, 1, place) != 1 ||
        pwrite(page->file, bytes + 2, 2, place + 2) != 2) {
        log_error(
            "cannot store the status of queue %u, for which its guest waits: %s; reset the VM",
            queue, strerror(errno));
    }
}

/* One byte of it: the kernel copies byte by byte. */
static bool store_sequence(struct status_page *page, uint8_t sequence)
{
    page->card_sequence = sequence;
    return pwrite(page->file, &sequence, 1, page->card_place) == 1;
}

/*
 * Who reads the card finds an odd number first, then the rest, then an even one that is not 0; see
 * vgpu-card.h. The calls are in this order for others too.
 */
static bool store_card(struct status_page *page, const struct vgpu_card *card)
{
    const size_t head = sizeof(card->sequence), rest = sizeof(*card) - head;
    const uint8_t odd = (uint8_t)(page->card_sequence | 1), even = (uint8_t)(odd + 1);
    const bool stored = store_sequence(page, odd) &&
                        pwrite(page->file, (const uint8_t *)card + head, rest,
                               page->card_place + (off_t)head) == (ssize_t)rest &&
                        store_sequence(page, even != 0 ? even : 2);

    if (!stored) {
        log_debug("cannot store what a VM's GPU is: %s", strerror(errno));
    }
    return stored;
}

/* What is last in a chore that stores. With the mutex, which is let go. */
static void end_stores(struct status_page *page)
{
    const bool released = page->released && !page->busy && !page->card_busy;

    stores--;
    pthread_mutex_unlock(&mutex);
    if (released) {
        page_free(page);
    }
    eventfd_write(done_fd, 1);
}

static void run_stores(struct chore *chore)
{
    struct status_page *page = LIST_OWNER((uintptr_t)chore, struct status_page, chore);

    pthread_mutex_lock(&mutex);
    while (page->due != 0) {
        uint32_t word[VGPU_MAX_QUEUES];
        const uint64_t due = page->due;

        page->due = 0;
        for (unsigned i = 0; i < VGPU_MAX_QUEUES; i++) {
            word[i] = page->word[i];
        }
        pthread_mutex_unlock(&mutex);
        for (unsigned i = 0; i < VGPU_MAX_QUEUES; i++) {
            if (due & UINT64_C(1) << i) {
                store_word(page, i, word[i]);
            }
        }
        pthread_mutex_lock(&mutex);
    }
    page->busy = false;
    end_stores(page);
}

static void run_cards(struct chore *chore)
{
    struct status_page *page = LIST_OWNER((uintptr_t)chore, struct status_page, card_chore);

    pthread_mutex_lock(&mutex);
    while (page->card_due) {
        const struct vgpu_card card = page->card;
        bool stored;

        page->card_due = false;
        pthread_mutex_unlock(&mutex);
        stored = store_card(page, &card);
        pthread_mutex_lock(&mutex);
        page->card_lost = !stored;
    }
    page->card_busy = false;
    end_stores(page);
}

/* Has the stores done that are due. With the mutex, which is let go where nobody else does them. */
static void page_work(struct status_page *page)
{
    if (page->busy) {
        return;
    }
    page->busy = true;
    stores++;
    if (!crew_give(&storers, &page->chore)) {
        pthread_mutex_unlock(&mutex);
        run_stores(&page->chore);
        pthread_mutex_lock(&mutex);
    }
}

void status_page_card(struct status_page *page, const struct vgpu_card *card)
{
    pthread_mutex_lock(&mutex);
    page->card = *card;
    page->card_due = true;
    if (!page->card_busy) {
        page->card_busy = crew_give(&carders, &page->card_chore);
        stores += page->card_busy;
        page->card_lost = !page->card_busy;
        page->card_due = page->card_busy;
    }
    pthread_mutex_unlock(&mutex);
}

bool status_page_lost_card(struct status_page *page)
{
    bool lost;

    pthread_mutex_lock(&mutex);
    lost = page->card_lost;
    page->card_lost = false;
    pthread_mutex_unlock(&mutex);
    return lost;
}

/* To read a file waits for no hole that is being punched in it. */
int status_page_load(struct status_page *page)
{
    const ssize_t bytes = (ssize_t)(page->queues * sizeof(page->word[0]));
    /* The next card's sequence is none that a reader may have seen before this one. */
    return pread(page->file, page->word, (size_t)bytes, page->place) == bytes &&
                   pread(page->file, &page->card_sequence, 1, page->card_place) == 1
               ? 0
               : -EIO;
}

int status_page_create(int memfd, uint64_t shm_size, uint32_t queues, struct status_page **page)
{
    struct status_page *made = calloc(1, sizeof(*made));
    const int seals = fcntl(memfd, F_GET_SEALS);
    int r = 0;

    static_assert(VGPU_MAX_QUEUES <= 64, "a bit for each");
    if (!made) {
        return -ENOMEM;
    }
    made->chore.run = run_stores;
    made->card_chore.run = run_cards;
    made->queues = queues;
    made->place = (off_t)vgpu_regs_page_offset(shm_size) +
                  (off_t)offsetof(struct vgpu_regs_page, queue_status);
    made->card_place = (off_t)vgpu_regs_page_offset(shm_size) + (off_t)VGPU_REG_CARD;
    made->file = fcntl(memfd, F_DUPFD_CLOEXEC, 0);
    if (made->file < 0) {
        r = -errno;
        free(made);
        return r;
    }
    if (seals < 0 || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) {
        r = -EPERM;
    } else {
        r = status_page_load(made);
    }
    if (r < 0) {
        page_free(made);
        return r;
    }
    *page = made;
    return 0;
}

void status_page_release(struct status_page *page)
{
    bool busy;

    pthread_mutex_lock(&mutex);
    page->released = true;
    busy = page->busy || page->card_busy;
    pthread_mutex_unlock(&mutex);
    if (!busy) {
        page_free(page);
    }
}

uint32_t status_page_word(const struct status_page *page, uint32_t queue)
{
    return page->word[queue];
}

void status_page_store(struct status_page *page, uint32_t queue, uint32_t word)
{
    pthread_mutex_lock(&mutex);
    page->word[queue] = word;
    page->due |= UINT64_C(1) << queue;
    page_work(page);
    pthread_mutex_unlock(&mutex);
}

bool status_page_settled(struct status_page *page)
{
    bool busy;

    pthread_mutex_lock(&mutex);
    busy = page->busy || page->card_busy;
    pthread_mutex_unlock(&mutex);
    return !busy;
}

int chores_open(void)
{
    done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return done_fd < 0 ? -errno : done_fd;
}

void chores_told(void)
{
    eventfd_t count;

    eventfd_read(done_fd, &count);
}

void chores_finish(void)
{
    const struct timespec part = {.tv_nsec = 1000000};

    for (unsigned i = 0; i < FINISH_SECONDS * 1000; i++) {
        unsigned left;

        pthread_mutex_lock(&mutex);
        left = stores;
        pthread_mutex_unlock(&mutex);
        if (left == 0) {
            return;
        }
        nanosleep(&part, NULL);
    }
}
