/* SPDX-License-Identifier: MIT */
/*
 * Cards, see cards.h.
 *
 * Each second the gauge's page is copied, and each VM's card is made anew: what its GPU is, what
 * the VM may have and has, and how busy it was since its last card. It is stored where it differs
 * from that one, by the threads that store into VMs' memory (chores.h). Of a VM that stands still
 * to be saved nothing is stored.
 *
 * A VM has the card of the GPU that most of its workers are on, or, before it has any, of the first
 * of its pool. The sensors tell of the whole card and so of others' work: guests see them where the
 * configuration says so.
 *
 * A gauge that ends is started again after a while; the cards then say what it said last, but for
 * the sensors. What workers claim of their times and memory is for display, as everywhere.
 */
#include "mediator/cards.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/memfd.h"
#include "common/shared.h"
#include "mediator/launcher.h"
#include "mediator/mediator.h"
#include "mediator/report.h"
#include "mediator/vm.h"

#define PERIOD_NS NS_PER_S
#define GAUGE_AGAIN_NS (60 * NS_PER_S)
/* As long as the gauge has not said anything, which takes a GPU's driver a moment, it is asked. */
#define FIRST_NS (50 * NS_PER_MS)
/* How often a page is read that the gauge is about to change: it takes no time. */
#define READ_TRIES 8

struct cards {
    sd_event_source *timer;
    int link; /* to the gauge; -1: there is none */
    uint64_t start;
    uint64_t again_ns; /* when it is started again; 0: not */
    int page_fd;
    const struct vgpu_gauge *page; /* the gauge's */
    struct vgpu_gauge seen[VGPU_GAUGES];
};

struct card_meter {
    struct vgpu_card card; /* as it was stored last, with a sequence of 0 */
    uint64_t ns;           /* when it was made; 0: never */
    const struct pool_gpu *gpu;
    uint64_t engine_ns[VGPU_ENGINES];
    uint64_t session_ns[VGPU_MAX_QUEUES];
};

/* The gauge --------------------------------------------------------------------------------- */

static int start_gauge(struct mediator *m)
{
    static const char *const backends[] = {"auto", "cpu", "cuda"};
    struct cards *cards = m->cards;
    const char *const arguments[] = {
        "--gauge", "--backend", backends[m->has_gpu ? CONFIG_BACKEND_CUDA : CONFIG_BACKEND_CPU],
        m->config.sensors == CONFIG_SENSORS_OFF ? NULL : "--sensors", NULL};
    int pair[2], pidfd = -1;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return -errno;
    }
    pid = launcher_start(arguments,
                         (const int[LAUNCHER_FDS]){pair[1], cards->page_fd, cards->page_fd,
                                                   cards->page_fd, cards->page_fd, cards->page_fd},
                         &cards->start, &pidfd);
    close(pair[1]);
    if (pidfd >= 0) {
        close(pidfd);
    }
    if (pid < 0) {
        close(pair[0]);
        return (int)pid;
    }
    cards->link = pair[0];
    return 0;
}

static void hang_up_gauge(struct cards *cards)
{
    if (cards->link >= 0) {
        close(cards->link);
        cards->link = -1;
    }
}

bool cards_ended(struct mediator *m, const siginfo_t *info, uint64_t start)
{
    struct cards *cards = m->cards;

    if (!cards || cards->link < 0 || cards->start != start) {
        return false;
    }
    hang_up_gauge(cards);
    /* Without sensors it has said what there is to say. */
    if (info->si_code == CLD_EXITED && info->si_status == 0) {
        return true;
    }
    for (unsigned i = 0; i < VGPU_GAUGES; i++) {
        cards->seen[i].known &= VGPU_KNOWN_FACTS;
    }
    cards->again_ns = clock_ns() + GAUGE_AGAIN_NS;
    log_warning("the process that reads the GPUs' sensors has ended (%s %d); the next one starts "
                "in %d s",
                info->si_code == CLD_EXITED ? "exit code" : "signal", info->si_status,
                (int)(GAUGE_AGAIN_NS / NS_PER_S));
    return true;
}

static void end_text(char *text, size_t size)
{
    text[size - 1] = '\0';
}

/* A copy of an entry that is whole; false when there is none, or none now. */
static bool read_gauge(const struct vgpu_gauge *from, struct vgpu_gauge *to)
{
    for (unsigned i = 0; i < READ_TRIES; i++) {
        const uint32_t sequence = shared_load_acquire(&from->sequence);

        if (sequence == 0) {
            return false;
        }
        memcpy(to, from, sizeof(*to));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if ((sequence & 1) == 0 && shared_load(&from->sequence) == sequence) {
            end_text(to->facts.name, sizeof(to->facts.name));
            end_text(to->facts.bus_id, sizeof(to->facts.bus_id));
            end_text(to->facts.driver, sizeof(to->facts.driver));
            end_text(to->facts.vbios, sizeof(to->facts.vbios));
            to->sequence = sequence;
            return true;
        }
    }
    return false;
}

/* Without a gauge its page stays as it was, and what its sensors said is not true any more. */
static void look_at_gauges(struct cards *cards)
{
    for (unsigned i = 0; cards->again_ns == 0 && i < VGPU_GAUGES; i++) {
        struct vgpu_gauge gauge;

        if (read_gauge(&cards->page[i], &gauge)) {
            cards->seen[i] = gauge;
        }
    }
}

const struct vgpu_gauge *cards_gauge(const struct mediator *m, uint32_t number)
{
    const uint32_t place = m->has_gpu ? number : 0;
    const struct vgpu_gauge *gauge;

    if (!m->cards || place >= VGPU_GAUGES) {
        return NULL;
    }
    gauge = &m->cards->seen[place];
    return gauge->sequence != 0 ? gauge : NULL;
}

/* Cards ------------------------------------------------------------------------------------- */

/* Of a VM that is spread over several, the one that more of its workers are on than on others. */
static const struct pool_gpu *gpu_of_vm(const struct vm *vm)
{
    const struct pool_gpu *best = &vm->pool->gpus[0];
    unsigned most = 0;

    for (const struct pool_account *a = vm->accounts; a; a = a->next) {
        if (a->worker_count > most) {
            most = a->worker_count;
            best = a->gpu;
        }
    }
    return best;
}

static uint32_t share_of_interval(uint64_t now_ns, uint64_t then_ns, uint64_t interval_ns)
{
    const uint64_t used = now_ns > then_ns ? now_ns - then_ns : 0;

    if (interval_ns == 0) {
        return 0;
    }
    return used >= interval_ns ? 1000 : (uint32_t)(used * 1000 / interval_ns);
}

static void fill_session(struct card_meter *meter, struct vm *vm, unsigned gpu, uint32_t queue,
                         uint64_t interval_ns, struct vgpu_card_session *session)
{
    struct process *worker = &vm->queue[queue]->worker;
    const uint64_t ns = process_gpu_ns(worker, gpu, VGPU_ENGINE_COMPUTE);
    uint64_t units;

    if (worker->kept->pid != 0) {
        units = process_counters(worker).memory / VGPU_CARD_UNIT;
        session->memory = units < UINT32_MAX ? (uint32_t)units : UINT32_MAX;
        session->busy = share_of_interval(ns, meter->session_ns[queue], interval_ns);
    }
    meter->session_ns[queue] = ns;
}

/* How busy it was since the last card, and what that is counted from next time. */
static void fill_use(struct card_meter *meter, struct vm *vm, const struct pool_gpu *gpu,
                     struct vgpu_card *card)
{
    const unsigned index = (unsigned)(gpu - vm->pool->gpus);
    const uint64_t now = clock_ns();
    /* On another GPU than last time all begins anew. */
    const uint64_t interval = meter->ns != 0 && meter->gpu == gpu ? now - meter->ns : 0;

    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        const uint64_t ns = report_gpu_ns(vm, index, (enum vgpu_engine)i);

        card->busy[i] = share_of_interval(ns, meter->engine_ns[i], interval);
        meter->engine_ns[i] = ns;
    }
    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            fill_session(meter, vm, index, i, interval, &card->session[i]);
        }
    }
    /* Rounded, so that a VM that does nothing has the same card each time. */
    card->interval_ms = (uint32_t)((interval + NS_PER_S / 2) / NS_PER_S * 1000);
    meter->ns = now;
    meter->gpu = gpu;
}

static void fill_card(struct vm *vm, struct vgpu_card *card)
{
    const struct mediator *m = vm->mediator;
    const struct pool_gpu *gpu = gpu_of_vm(vm);
    const struct vgpu_gauge *gauge = cards_gauge(m, gpu->number);
    const uint64_t limit = vm->limits.memory;

    *card = (struct vgpu_card){.size = sizeof(*card)};
    card->backend = m->has_gpu ? VGPU_FEATURE_BACKEND_GPU : VGPU_FEATURE_BACKEND_CPU;
    if (gauge) {
        card->known = gauge->known;
        card->facts = gauge->facts;
        card->sensors = gauge->sensors;
    }
    if (m->config.sensors != CONFIG_SENSORS_GUESTS) {
        card->known &= VGPU_KNOWN_FACTS;
        card->sensors = (struct vgpu_gpu_sensors){0};
    }
    card->memory_total = card->facts.memory;
    if (limit != 0 && (limit < card->memory_total || card->memory_total == 0)) {
        card->memory_total = limit;
    }
    card->memory_used = report_memory(vm);
    fill_use(vm->meter, vm, gpu, card);
}

/* What the mediator before has stored is better than nothing. */
static bool awaits_gauge(const struct cards *cards)
{
    return cards && cards->link >= 0 && cards->seen[0].sequence == 0;
}

void cards_tell(struct vm *vm)
{
    struct vgpu_card card;

    if (!vm->meter) {
        vm->meter = calloc(1, sizeof(*vm->meter));
    }
    if (!vm->meter || vm->kept->stopped || awaits_gauge(vm->mediator->cards)) {
        return;
    }
    fill_card(vm, &card);
    if (memcmp(&card, &vm->meter->card, sizeof(card)) != 0) {
        vm->meter->card = card;
        status_page_card(vm->status, &card);
    }
}

void cards_forget(struct card_meter *meter)
{
    free(meter);
}

static void set_cards_timer(struct cards *cards)
{
    const uint64_t next = awaits_gauge(cards) ? FIRST_NS : PERIOD_NS;

    sd_event_source_set_time_relative(cards->timer, next / NS_PER_US);
    sd_event_source_set_enabled(cards->timer, SD_EVENT_ONESHOT);
}

static int on_cards_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct mediator *m = context;
    struct cards *cards = m->cards;

    (void)source;
    (void)usec;
    if (m->stopping) {
        return 0;
    }
    if (cards->again_ns != 0 && clock_ns() >= cards->again_ns) {
        cards->again_ns = start_gauge(m) == 0 ? 0 : clock_ns() + GAUGE_AGAIN_NS;
    }
    look_at_gauges(cards);
    for (struct vm *vm = m->vms; vm; vm = vm->next) {
        cards_tell(vm);
    }
    set_cards_timer(cards);
    return 0;
}

int cards_open(struct mediator *m)
{
    struct cards *cards = calloc(1, sizeof(*cards));
    void *page;
    int r;

    if (!cards) {
        return -ENOMEM;
    }
    m->cards = cards;
    cards->link = -1;
    cards->page_fd = -1;
    cards->page_fd = memfd_make("vgpu-gauge", VGPU_GAUGE_PAGE_SIZE);
    if (cards->page_fd < 0) {
        r = cards->page_fd;
    } else {
        page = mmap(NULL, VGPU_GAUGE_PAGE_SIZE, PROT_READ, MAP_SHARED, cards->page_fd, 0);
        r = page == MAP_FAILED ? -errno : 0;
    }
    if (r == 0) {
        cards->page = page;
        r = sd_event_add_time_relative(m->event, &cards->timer, CLOCK_MONOTONIC, 0,
                                       TIMER_ACCURACY_US, on_cards_timer, m);
    }
    if (r >= 0) {
        r = start_gauge(m);
    }
    if (r < 0) {
        log_error("cannot find out what the GPUs are: %s", strerror(-r));
    }
    return r < 0 ? r : 0;
}

void cards_close(struct mediator *m)
{
    struct cards *cards = m->cards;

    if (!cards) {
        return;
    }
    hang_up_gauge(cards);
    sd_event_source_disable_unref(cards->timer);
    if (cards->page) {
        munmap((void *)(uintptr_t)cards->page, VGPU_GAUGE_PAGE_SIZE);
    }
    if (cards->page_fd >= 0) {
        close(cards->page_fd);
    }
    free(cards);
    m->cards = NULL;
}
