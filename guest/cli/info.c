/* SPDX-License-Identifier: MIT */
/*
 * vgpu info: what the device says of itself in its registers, and its card: what the GPU is, what
 * this VM may have and has, and which of its processes have it. Nothing is asked of the host, and
 * no queue is taken; so it works beside anything, and as long as nothing else does.
 *
 * The lines are for people, and --json for programs. What is not known is left out of both.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/version.h"
#include "guest/cli/cli.h"

struct info {
    struct vgpu_identity id;
    const char *way;
    bool has_card;
    struct vgpu_card card;
    int32_t owners[VGPU_MAX_QUEUES];
};

/* The status is the device's word: it may be one that this version does not know. */
static const char *status_name(enum vgpu_status status)
{
    static const char *const names[] = {"idle", "busy", "complete", "error", "offline"};

    return (unsigned)status < sizeof(names) / sizeof(names[0]) ? names[status] : "unknown";
}

static const char *priority_name(uint32_t priority)
{
    return priority < VGPU_PRIORITIES ? cli_priorities[priority] : "?";
}

static bool card_knows(const struct info *info, uint32_t known)
{
    return info->has_card && (info->card.known & known) == known;
}

/* Lines ---------------------------------------------------------------------------------------- */

/* Without a card the registers say as much as this. */
static void print_backend(uint32_t features)
{
    if (features & VGPU_FEATURE_BACKEND_GPU) {
        puts("computes   a GPU");
    } else if (features & VGPU_FEATURE_BACKEND_CPU) {
        puts("computes   the CPU");
    }
}

static void print_gpu(const struct info *info)
{
    const struct vgpu_gpu_facts *facts = &info->card.facts;

    printf("computes   %s\n", facts->name);
    /* The rest describes a GPU, and says nothing where the CPU computes. */
    if (info->card.backend == VGPU_FEATURE_BACKEND_GPU) {
        printf("capability %" PRIu32 ".%" PRIu32 ", %" PRIu32 " multiprocessors, %" PRIu64 " MiB\n",
               facts->compute >> 16, facts->compute & 0xffff, facts->processors,
               facts->memory >> 20);
        printf("CUDA       %" PRIu32 ".%" PRIu32 ", driver %s\n", facts->cuda / 1000,
               facts->cuda % 1000 / 10, facts->driver[0] ? facts->driver : "unknown");
    }
}

static void print_use(const struct info *info)
{
    const struct vgpu_card *card = &info->card;

    printf("memory     %" PRIu64 " of %" PRIu64 " MiB\n", card->memory_used >> 20,
           card->memory_total >> 20);
    printf("busy       %" PRIu32 " %%\n", card->busy_permille[0] / 10);
    if (card_knows(info, VGPU_KNOWN_TEMPERATURE) && card_knows(info, VGPU_KNOWN_POWER)) {
        printf("card       %" PRIu32 " C, %" PRIu32 " W\n", card->sensors.temperature,
               card->sensors.power / 1000);
    }
    for (unsigned i = 0; i < VGPU_MAX_QUEUES; i++) {
        if (info->owners[i] > 0) {
            printf("session    queue %u: process %" PRId32 ", %" PRIu64 " MiB, %" PRIu32 " %%\n", i,
                   info->owners[i], (uint64_t)card->session[i].memory * VGPU_CARD_UNIT >> 20,
                   card->session[i].busy_permille / 10);
        }
    }
}

static void print_lines(const struct info *info)
{
    const struct vgpu_identity *id = &info->id;

    printf("VM         %" PRIu32 "\n", id->vm_id);
    printf("pool       %c\n", (int)id->pool);
    printf("priority   %s\n", priority_name(id->priority));
    printf("protocol   %" PRIu32 ".%" PRIu32 "\n", id->version >> 16, id->version & 0xffff);
    printf("by         %s\n", info->way);
    if (id->shm_size == 0) {
        /* As vgpu_open() would say. */
        puts("shared     none: it has no address, as the bridge above the device has no room; give "
             "its port a larger pref64-reserve in QEMU, or use OVMF");
    } else {
        printf("shared     %" PRIu64 " MiB\n", id->shm_size >> 20);
    }
    printf("queues     %" PRIu32 "\n", id->queues);
    printf("status     %s\n", status_name(id->status));
    printf("generation %" PRIu32 "\n", id->generation);
    if (info->has_card) {
        print_gpu(info);
        print_use(info);
    } else {
        print_backend(id->features);
    }
}

/* JSON ----------------------------------------------------------------------------------------- */

/* Texts are the host's: ASCII, and without what JSON would take for its own. */
static void print_string(const char *name, const char *value)
{
    printf(", \"%s\": \"", name);
    for (; *value; value++) {
        if (*value >= ' ' && *value < 0x7f && *value != '"' && *value != '\\') {
            putchar(*value);
        }
    }
    putchar('"');
}

static void print_number(const char *name, uint64_t value)
{
    printf(", \"%s\": %" PRIu64, name, value);
}

static void print_sessions(const struct info *info)
{
    const char *comma = "";

    printf(", \"sessions\": [");
    for (unsigned i = 0; i < VGPU_MAX_QUEUES; i++) {
        if (info->owners[i] > 0) {
            printf("%s{\"queue\": %u, \"process\": %" PRId32 ", \"memory\": %" PRIu64
                   ", \"busy\": %.1f}",
                   comma, i, info->owners[i],
                   (uint64_t)info->card.session[i].memory * VGPU_CARD_UNIT,
                   info->card.session[i].busy_permille / 10.0);
            comma = ", ";
        }
    }
    putchar(']');
}

static void print_card(const struct info *info)
{
    const struct vgpu_card *card = &info->card;

    print_string("backend", card->backend == VGPU_FEATURE_BACKEND_GPU ? "gpu" : "cpu");
    print_string("name", card->facts.name);
    print_string("driver", card->facts.driver);
    print_number("cuda", card->facts.cuda);
    printf(", \"capability\": \"%" PRIu32 ".%" PRIu32 "\"", card->facts.compute >> 16,
           card->facts.compute & 0xffff);
    print_number("multiprocessors", card->facts.processors);
    print_number("memory", card->memory_total);
    print_number("memory_used", card->memory_used);
    printf(", \"busy\": %.1f", card->busy_permille[0] / 10.0);
    if (card_knows(info, VGPU_KNOWN_TEMPERATURE)) {
        print_number("temperature", card->sensors.temperature);
    }
    if (card_knows(info, VGPU_KNOWN_POWER)) {
        printf(", \"power\": %.3f", card->sensors.power / 1000.0);
    }
    print_sessions(info);
}

static void print_info_json(const struct info *info)
{
    const struct vgpu_identity *id = &info->id;

    printf("{\"version\": \"" VGPU_PACKAGE_VERSION "\"");
    print_number("vm", id->vm_id);
    printf(", \"pool\": \"%c\"", id->pool >= 'A' && id->pool <= 'Z' ? (int)id->pool : '?');
    print_string("priority", priority_name(id->priority));
    printf(", \"protocol\": \"%" PRIu32 ".%" PRIu32 "\"", id->version >> 16, id->version & 0xffff);
    print_string("way", info->way);
    print_number("shared", id->shm_size);
    print_number("queues", id->queues);
    print_string("status", status_name(id->status));
    print_number("generation", id->generation);
    if (info->has_card) {
        print_card(info);
    }
    puts("}");
}

/* The command ---------------------------------------------------------------------------------- */

int cli_info(const char *address, const struct vgpu_host_options *host, int argc, char **argv)
{
    const bool json = argc == 1 && strcmp(argv[0], "--json") == 0;
    struct info info = {0};
    struct vgpu_watch *watch;
    int r;

    if (argc != json) {
        return cli_error(EXIT_USAGE, "info takes --json or nothing, not '%s'", argv[json]);
    }
    r = vgpu_watch_open(address, host, &watch);
    if (r != VGPU_OK) {
        return cli_fail(r);
    }
    /* The registers can be read without a mediator. */
    vgpu_watch_identify(watch, &info.id);
    info.way = vgpu_watch_way(watch);
    r = vgpu_watch_card(watch, &info.card, info.owners);
    info.has_card = r == VGPU_OK;
    (json ? print_info_json : print_lines)(&info);
    /* An older host tells less, which is no failure. */
    r = r == VGPU_OK || r == VGPU_INCOMPATIBLE ? EXIT_OK : cli_fail(r);
    vgpu_watch_close(watch);
    return r;
}
