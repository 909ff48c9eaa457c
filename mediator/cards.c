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
 * A gauge that ends, or that says nothing new for a while, which is a library that hangs, is
 * started again; until then the cards say what it said last, but for the sensors. What workers
 * claim of their times and memory is for display, as everywhere.
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
#include "common/sequence.h"
#include "mediator/launcher.h"
#include "mediator/mediator.h"
#include "mediator/report.h"
#include "mediator/vm.h"

#define PERIOD_NS NS_PER_S
#define GAUGE_AGAIN_NS (60 * NS_PER_S)
/* As long as the gauge has not said anything, which takes a GPU's driver a moment, it is asked. */
#define FIRST_NS (50 * NS_PER_MS)
#define GAUGE_START_NS (60 * NS_PER_S)  /* within which it says anything */
#define GAUGE_SILENT_NS (15 * NS_PER_S) /* and within which something new */
/* How long VMs go without a card, or with an older mediator's, as it says nothing. */
#define AWAIT_NS (5 * NS_PER_S)

struct cards {
    sd_event_source *timer;
    int link; /* to the gauge; -1: there is none */
    pid_t pid;
    uint64_t start;                /* by which its end is told */
    uint64_t started_ns, moved_ns; /* and when its page has changed last */
    uint64_t again_ns;             /* when the next one is started; 0: not */
    const struct vgpu_gauge *page; /* that gauge's own; NULL: none */
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

static void drop_page(struct cards *cards)
{
    if (cards->page) {
        munmap((void *)(uintptr_t)cards->page, VGPU_GAUGE_PAGE_SIZE);
        cards->page = NULL;
    }
}

/* A page for one gauge: what another has left there would pass for its own. Returns 0 or -errno. */
static int renew_page(struct cards *cards, int *fd)
{
    void *page;

    *fd = memfd_make("vgpu-gauge", VGPU_GAUGE_PAGE_SIZE);
    if (*fd < 0) {
        return *fd;
    }
    page = mmap(NULL, VGPU_GAUGE_PAGE_SIZE, PROT_READ, MAP_SHARED, *fd, 0);
    if (page == MAP_FAILED) {
        const int r = -errno;

        close(*fd);
        return r;
    }
    drop_page(cards);
    cards->page = page;
    return 0;
}

static int launch_gauge(struct mediator *m, int page)
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
                         (const int[LAUNCHER_FDS]){pair[1], page, page, page, page, page},
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
    cards->pid = pid;
    cards->started_ns = cards->moved_ns = clock_ns();
    return 0;
}

/* Without one, what is known already is told, and it is tried again after a while. */
static void start_gauge(struct mediator *m)
{
    int page, r = renew_page(m->cards, &page);

    if (r == 0) {
        r = launch_gauge(m, page);
        close(page);
    }
    m->cards->again_ns = r == 0 ? 0 : clock_ns() + GAUGE_AGAIN_NS;
    if (r < 0) {
        log_warning("cannot start the process that tells what the GPUs are: %s; it is tried again "
                    "in %d s",
                    strerror(-r), (int)(GAUGE_AGAIN_NS / NS_PER_S));
    }
}

static void end_text(char *text, size_t size)
{
    text[size - 1] = '\0';
}

/* A copy of an entry that is whole; false when there is none, or none now. */
static bool read_gauge(const struct vgpu_gauge *from, struct vgpu_gauge *to)
{
    if (!sequence_copy(to, from, sizeof(*to))) {
        return false;
    }
    end_text(to->facts.name, sizeof(to->facts.name));
    end_text(to->facts.bus_id, sizeof(to->facts.bus_id));
    end_text(to->facts.driver, sizeof(to->facts.driver));
    end_text(to->facts.vbios, sizeof(to->facts.vbios));
    return true;
}

static void look_at_gauges(struct cards *cards)
{
    for (unsigned i = 0; cards->page && i < VGPU_GAUGES; i++) {
        struct vgpu_gauge gauge;

        if (read_gauge(&cards->page[i], &gauge)) {
            if (gauge.sequence != cards->seen[i].sequence) {
                cards->moved_ns = clock_ns();
            }
            cards->seen[i] = gauge;
        }
    }
}

/* Nobody reads the sensors any more: what they said is not true for long. */
static void forget_sensors(struct cards *cards)
{
    for (unsigned i = 0; i < VGPU_GAUGES; i++) {
        cards->seen[i].known &= VGPU_KNOWN_FACTS;
        cards->seen[i].sensors = (struct vgpu_gpu_sensors){0};
    }
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
    const bool well = info->si_code == CLD_EXITED && info->si_status == 0;

    if (!cards || cards->link < 0 || cards->start != start) {
        return false;
    }
    hang_up_gauge(cards);
    look_at_gauges(cards);
    drop_page(cards);
    forget_sensors(cards);
    /* Without sensors it has said what there is to say. */
    if (well && m->config.sensors == CONFIG_SENSORS_OFF) {
        return true;
    }
    cards->again_ns = clock_ns() + GAUGE_AGAIN_NS;
    log_warning("the process that reads the GPUs' sensors has ended (%s %d); the next one starts "
                "in %d s",
                info->si_code == CLD_EXITED ? "exit code" : "signal", info->si_status,
                (int)(GAUGE_AGAIN_NS / NS_PER_S));
    return true;
}

/* A library that hangs, or the driver below it: its process is ended, where it can be. */
static void end_hung_gauge(struct cards *cards)
{
    const uint64_t now = clock_ns();
    const bool begins = cards->moved_ns == cards->started_ns;
    const uint64_t limit = begins ? GAUGE_START_NS : GAUGE_SILENT_NS;

    if (cards->link < 0 || now - cards->moved_ns < limit) {
        return;
    }
    log_warning("the process that reads the GPUs' sensors hangs, since %d s; ending it",
                (int)((now - cards->moved_ns) / NS_PER_S));
    forget_sensors(cards);
    launcher_kill(cards->pid);
    /* Its end is told when it comes; one that the kernel cannot end yet is asked again. */
    cards->moved_ns = now;
}

const struct vgpu_gauge *cards_gauge(const struct mediator *m, uint32_t number)
{
    const uint32_t place = m->has_gpu ? number : 0;
    const struct vgpu_gauge *gauge;

    if (!m->cards || place >= VGPU_GAUGES) {
        return NULL;
    }
    gauge = &m->cards->seen[place];
    /* One that found no GPU, whatever the mediator's probe has found, tells of something else. */
    return gauge->sequence != 0 && (gauge->backend == VGPU_FEATURE_BACKEND_GPU) == m->has_gpu
               ? gauge
               : NULL;
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

/* A process's time on each engine of a GPU, added to *sum. Its counters are read once for all. */
static uint64_t add_times(struct process *process, unsigned gpu, uint64_t sum[VGPU_ENGINES])
{
    uint64_t ns[VGPU_ENGINES];

    process_gpu_times(process, gpu, ns);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        sum[i] += ns[i];
    }
    return ns[VGPU_ENGINE_COMPUTE];
}

static void fill_session(const struct process *worker, struct vgpu_card_session *session)
{
    const uint64_t bytes = worker->seen.memory;
    const uint64_t units = bytes / VGPU_CARD_UNIT + (bytes % VGPU_CARD_UNIT != 0);

    session->memory = units < UINT32_MAX ? (uint32_t)units : UINT32_MAX;
}

/* How busy it was since the last card, and what that is counted from next time. */
static void fill_use(struct card_meter *meter, struct vm *vm, const struct pool_gpu *gpu,
                     struct vgpu_card *card)
{
    const unsigned index = (unsigned)(gpu - vm->pool->gpus);
    const uint64_t now = clock_ns();
    /* On another GPU than last time all begins anew. */
    const uint64_t interval = meter->ns != 0 && meter->gpu == gpu ? now - meter->ns : 0;
    uint64_t sum[VGPU_ENGINES] = {0};

    add_times(&vm->worker, index, sum);
    for (uint32_t i = 0; i < vm->queues; i++) {
        struct process *worker = vm->queue[i] ? &vm->queue[i]->worker : NULL;

        if (worker) {
            const uint64_t ns = add_times(worker, index, sum);

            if (worker->kept->pid != 0) {
                fill_session(worker, &card->session[i]);
                card->session[i].busy_permille = share_of_interval(ns, meter->session_ns[i],
                                                                   interval);
            }
            meter->session_ns[i] = ns;
        }
    }
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        card->busy_permille[i] = share_of_interval(sum[i], meter->engine_ns[i], interval);
        meter->engine_ns[i] = sum[i];
    }
    card->interval_ms = (uint32_t)(interval / NS_PER_MS);
    meter->ns = now;
    meter->gpu = gpu;
}

/* As the VM's workers call it. */
static void name_gpu(const struct vm *vm, struct vgpu_gpu_facts *facts)
{
    const char *name = vm->mediator->config.pools[vm->pool->id - 'A'].gpu_name;

    static_assert(sizeof(facts->name) == CONFIG_GPU_NAME, "one room for names");
    if (name[0] != '\0') {
        memcpy(facts->name, name, sizeof(facts->name));
    }
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
        name_gpu(vm, &card->facts);
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

/* For a while: what the mediator before has stored is better than nothing. */
static bool awaits_gauge(const struct cards *cards)
{
    return cards && cards->link >= 0 && cards->seen[0].sequence == 0 &&
           clock_ns() - cards->started_ns < AWAIT_NS;
}

/* Whether a card says what another one does: how long its interval was is no news. */
static bool is_same(const struct vgpu_card *card, const struct vgpu_card *other)
{
    struct vgpu_card copy = *card;

    copy.interval_ms = other->interval_ms;
    return memcmp(&copy, other, sizeof(copy)) == 0;
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
    if (!is_same(&card, &vm->meter->card) || status_page_lost_card(vm->status)) {
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
        start_gauge(m);
    }
    look_at_gauges(cards);
    end_hung_gauge(cards);
    for (struct vm *vm = m->vms; vm; vm = vm->next) {
        cards_tell(vm);
    }
    set_cards_timer(cards);
    return 0;
}

int cards_open(struct mediator *m)
{
    struct cards *cards = calloc(1, sizeof(*cards));
    int r;

    if (!cards) {
        return -ENOMEM;
    }
    m->cards = cards;
    cards->link = -1;
    r = sd_event_add_time_relative(m->event, &cards->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US,
                                   on_cards_timer, m);
    if (r < 0) {
        return r;
    }
    start_gauge(m);
    return 0;
}

void cards_close(struct mediator *m)
{
    struct cards *cards = m->cards;

    if (!cards) {
        return;
    }
    if (cards->link >= 0) {
        launcher_kill(cards->pid);
    }
    hang_up_gauge(cards);
    sd_event_source_disable_unref(cards->timer);
    drop_page(cards);
    free(cards);
    m->cards = NULL;
}
