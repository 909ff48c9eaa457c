/* SPDX-License-Identifier: MIT */
/*
 * What the mediator's parts ask of the whole, see mediator.h. Nothing here calls any of them
 * but launcher.c: it is the floor that they stand on, with main.c as the roof.
 */
#include "mediator/mediator.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "mediator/launcher.h"
#include "mediator/list.h"
#include "mediator/record.h"

#define REST_DEFAULT_NS (60 * NS_PER_S)
/* For how long a VM for which mediators have crashed stays out. */
#define ENDED_NS (600 * NS_PER_S)

/* Pools --------------------------------------------------------------------------------------- */

uint64_t mediator_rest_ns(const struct mediator *mediator)
{
    const uint64_t rest = mediator->config.register_rest_ns;

    /* The CPU costs nothing to keep. */
    if (rest == CONFIG_REST_DEFAULT) {
        return mediator->has_gpu ? REST_DEFAULT_NS : 0;
    }
    return rest;
}

bool mediator_preempts(const struct mediator *mediator)
{
    return mediator->can_preempt && mediator->config.preempt;
}

struct pool *mediator_pool(struct mediator *m, uint32_t letter)
{
    return &m->pools[letter - 'A'];
}

void mediator_watch_gpu(struct mediator *m, struct pool_gpu *gpu)
{
    const uint64_t deadline = gpu ? pool_deadline(gpu) : 0;
    sd_event_source *timer;

    if (!gpu) {
        return;
    }
    timer = m->gpu_timers[gpu->pool->id - 'A'][gpu - gpu->pool->gpus];
    /* Rounded up to the next microsecond: before its time a tick would find nothing to do. */
    if (deadline != 0) {
        sd_event_source_set_time(timer, deadline / NS_PER_US + 1);
    }
    sd_event_source_set_enabled(timer, deadline != 0 ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

void mediator_watch_pool(struct mediator *m, struct pool *pool)
{
    for (unsigned i = 0; i < pool->gpu_count; i++) {
        mediator_watch_gpu(m, &pool->gpus[i]);
    }
}

/*
 * A GPU's timer: somebody's slice is over, or their patience is. The mediator is found by way of
 * pool A, with which its array of pools begins.
 */
static int on_gpu_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct pool_gpu *gpu = context;
    struct pool *first = gpu->pool - (gpu->pool->id - 'A');

    (void)source;
    (void)usec;
    pool_tick(gpu, clock_ns());
    mediator_watch_gpu(LIST_OWNER(first, struct mediator, pools), gpu);
    return 0;
}

int mediator_open_pools(struct mediator *m)
{
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        const struct config_pool *config = &m->config.pools[i];

        if (!config->defined) {
            continue;
        }
        pool_init(&m->pools[i], (char)('A' + i), config, m->config.turn_limit_ns);
        for (unsigned j = 0; j < m->pools[i].gpu_count; j++) {
            sd_event_source **timer = &m->gpu_timers[i][j];
            /* Accurate to a microsecond: others wait. */
            const int r = sd_event_add_time(m->event, timer, CLOCK_MONOTONIC, 0, 1, on_gpu_timer,
                                            &m->pools[i].gpus[j]);

            if (r < 0) {
                return r;
            }
            sd_event_source_set_enabled(*timer, SD_EVENT_OFF);
        }
    }
    return 0;
}

void mediator_close_pools(struct mediator *m)
{
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        for (unsigned j = 0; j < CONFIG_DEVICES; j++) {
            sd_event_source_disable_unref(m->gpu_timers[i][j]);
        }
    }
}

/* Who may attach ------------------------------------------------------------------------------- */

/* Whoever the configuration names, but root and the mediator's own user: they own the socket. */
static size_t collect_users(const struct config *config, uid_t *users)
{
    size_t count = 0;

    for (unsigned i = 0; i < config->user_count; i++) {
        users[count++] = config->users[i];
    }
    for (size_t i = 0; i < config->vm_count; i++) {
        users[count++] = config->vms[i].user;
    }
    for (size_t i = 0; i < count;) {
        if (users[i] == (uid_t)-1 || users[i] == 0 || users[i] == geteuid()) {
            users[i] = users[--count];
        } else {
            i++;
        }
    }
    return count;
}

/*
 * An abstract name has no access.
 * SECURITY.md says what harm a user who reaches this socket can still do.
 */
void mediator_open_to_users(struct mediator *m)
{
    const size_t most = m->config.user_count + m->config.vm_count;
    uid_t *users;

    if (!m->rules_listen || m->config.listen[0] == '@') {
        return;
    }
    users = calloc(most + 1, sizeof(*users));
    if (!users) {
        log_warning("out of memory: who may reach '%s' stays", m->config.listen);
        return;
    }
    launcher_admit(users, collect_users(&m->config, users));
    free(users);
}

/* Adoption ------------------------------------------------------------------------------------ */

void mediator_end_adoption(struct mediator *m)
{
    const uint64_t now = clock_ns();

    m->adopt_timer = sd_event_source_disable_unref(m->adopt_timer);
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        if (m->pools[i].id != 0) {
            pool_release(&m->pools[i], now);
            mediator_watch_pool(m, &m->pools[i]);
        }
    }
}

void mediator_adopted(struct mediator *m)
{
    m->unheard--;
    if (m->unheard == 0 && m->adopt_timer) {
        mediator_end_adoption(m);
    }
}

void mediator_works_for(struct mediator *m, uint32_t vm)
{
    m->kept->working_for = vm;
}

void mediator_note_ended(struct mediator *m, uint32_t vm)
{
    unsigned oldest = 0;

    for (unsigned i = 1; i < RECORD_ENDED; i++) {
        oldest = m->kept->ended[i].ns < m->kept->ended[oldest].ns ? i : oldest;
    }
    m->kept->ended[oldest].id = vm;
    m->kept->ended[oldest].ns = clock_ns();
}

bool mediator_was_ended(const struct mediator *m, uint32_t vm)
{
    const uint64_t now = clock_ns();

    for (unsigned i = 0; i < RECORD_ENDED; i++) {
        if (m->kept->ended[i].ns != 0 && m->kept->ended[i].id == vm &&
            now - m->kept->ended[i].ns < ENDED_NS) {
            return true;
        }
    }
    return false;
}

void mediator_note_pools(struct mediator *m)
{
    uint32_t paused = 0;

    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        paused |= m->pools[i].paused ? 1u << i : 0;
    }
    if (m->kept) {
        m->kept->paused = paused;
    }
}

/* The end ------------------------------------------------------------------------------------- */

void mediator_end_if_idle(struct mediator *m)
{
    if (m->stopping && list_empty(&m->workers)) {
        sd_event_exit(m->event, 0);
    }
}
