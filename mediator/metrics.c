/* SPDX-License-Identifier: MIT */
/*
 * Where Prometheus asks. libmicrohttpd speaks HTTP, in this thread: it is started without threads
 * of its own and gives an epoll descriptor. The event loop watches that descriptor, and calls
 * MHD_run() when it is readable or when a time-out of the daemon's is over.
 *
 * The mediator has more important things to do, so all that a client can cost has a bound: the
 * number of connections, the memory of each, how long it may be silent, how often in a second the
 * loop turns to the daemon, and how often a page is made. All of it has the lowest priority in the
 * loop.
 *
 * metrics-page.c writes the page. There is no authentication: that is why the configuration allows
 * loopback ports and sockets' paths alone.
 */
#include "mediator/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "mediator/listen.h"
#include "mediator/metrics-page.h"

#define CONNECTIONS_MAX 16u
#define CONNECTION_BYTES ((size_t)16 << 10)
#define SILENCE_LIMIT_S 5u
/* A page is handed out for so long. */
#define PAGE_LIFE_NS (250 * NS_PER_MS)
/* Times that the loop turns to this in a second. */
#define EVENTS_PER_S 100u
#define USEC_PER_S UINT64_C(1000000)
#define BACKLOG 16
#define PAGE_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct metrics {
    struct mediator *mediator;
    struct MHD_Daemon *daemon;
    sd_event_source *source, *timer;
    struct MHD_Response *page; /* NULL: none yet */
    uint64_t page_ns;          /* when it was made */
};

/* Answers ---------------------------------------------------------------------------------- */

/* The page, made anew where it is old; NULL when memory is short. */
static struct MHD_Response *page_of(struct metrics *metrics)
{
    const uint64_t now = clock_ns();
    size_t length;
    char *text;

    if (metrics->page && now - metrics->page_ns < PAGE_LIFE_NS) {
        return metrics->page;
    }
    if (metrics->page) {
        /* The daemon counts references: connections that are still sending this page keep it. */
        MHD_destroy_response(metrics->page);
    }
    text = metrics_page(metrics->mediator, &length);
    metrics->page = text ? MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE)
                         : NULL;
    if (!metrics->page) {
        log_error("no memory for a page of metrics");
        return NULL;
    }
    metrics->page_ns = now;
    MHD_add_response_header(metrics->page, MHD_HTTP_HEADER_CONTENT_TYPE, PAGE_TYPE);
    return metrics->page;
}

/* MHD_NO, for want of memory, has the daemon close the connection. */
static enum MHD_Result metrics_refuse(struct MHD_Connection *connection, unsigned status,
                                      const char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    enum MHD_Result result;

    if (!response) {
        return MHD_NO;
    }
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW,
                                MHD_HTTP_METHOD_GET ", " MHD_HTTP_METHOD_HEAD);
    }
    result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* Answers at once: a body that a client wants to send is not read. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *body,
                                  size_t *body_length, void **state)
{
    struct MHD_Response *page;

    (void)version;
    (void)body;
    (void)body_length;
    (void)state;
    if (strcmp(url, "/metrics") != 0) {
        return metrics_refuse(connection, MHD_HTTP_NOT_FOUND, "there is /metrics alone\n");
    }
    /* For HEAD the daemon leaves the page itself out. */
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        return metrics_refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED,
                              "GET and HEAD alone are allowed\n");
    }
    page = page_of(context);
    return page ? MHD_queue_response(connection, MHD_HTTP_OK, page) : MHD_NO;
}

/* The event loop --------------------------------------------------------------------------- */

static unsigned metrics_connections(const struct metrics *metrics)
{
    return MHD_get_daemon_info(metrics->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)
        ->num_connections;
}

/*
 * Lets the daemon do its work, in this thread. The timer is set for when the daemon wants to be
 * called again even if nothing is readable.
 */
static void run_daemon(struct metrics *metrics)
{
    const unsigned before = metrics_connections(metrics);
    MHD_UNSIGNED_LONG_LONG ms = 0;
    bool again;

    MHD_run(metrics->daemon);
    /* At its limit the daemon does not listen, until the next run after a connection's end. */
    again = metrics_connections(metrics) != before ||
            MHD_get_timeout(metrics->daemon, &ms) == MHD_YES;
    if (again) {
        sd_event_source_set_time_relative(metrics->timer, ms * (NS_PER_MS / NS_PER_US));
    }
    sd_event_source_set_enabled(metrics->timer, again ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static int on_ready(sd_event_source *source, int fd, uint32_t events, void *context)
{
    (void)source;
    (void)fd;
    (void)events;
    run_daemon(context);
    return 0;
}

static int on_metrics_timer(sd_event_source *source, uint64_t usec, void *context)
{
    (void)source;
    (void)usec;
    run_daemon(context);
    return 0;
}

static int metrics_watch(struct metrics *metrics)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(metrics->daemon,
                                                           MHD_DAEMON_INFO_EPOLL_FD);
    sd_event *event = metrics->mediator->event;
    int r = info ? sd_event_add_io(event, &metrics->source, info->epoll_fd, EPOLLIN, on_ready,
                                   metrics)
                 : -ENOTSUP;

    if (r >= 0) {
        r = sd_event_add_time_relative(event, &metrics->timer, CLOCK_MONOTONIC, 0, 0,
                                       on_metrics_timer, metrics);
    }
    if (r < 0) {
        return r;
    }
    sd_event_source_set_enabled(metrics->timer, SD_EVENT_OFF);
    /*
     * Behind everything else that is due, and seldom: turns and attaching must not wait for this.
     */
    sd_event_source_set_priority(metrics->source, SD_EVENT_PRIORITY_IDLE);
    sd_event_source_set_priority(metrics->timer, SD_EVENT_PRIORITY_IDLE);
    sd_event_source_set_ratelimit(metrics->source, USEC_PER_S, EVENTS_PER_S);
    sd_event_source_set_ratelimit(metrics->timer, USEC_PER_S, EVENTS_PER_S);
    return 0;
}

/* Listening -------------------------------------------------------------------------------- */

static int bind_port(int fd, int family, uint16_t port)
{
    const struct sockaddr_in v4 = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback};

    /* Otherwise closed connections of the last mediator would keep the port busy for a while. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    return family == AF_INET ? bind(fd, (const struct sockaddr *)&v4, sizeof(v4))
                             : bind(fd, (const struct sockaddr *)&v6, sizeof(v6));
}

/*
 * Listens at a loopback address and port, whose form config_read_metrics() has checked. Returns the
 * descriptor or -errno, logged.
 */
static int listen_at_port(const char *address)
{
    const int family = address[0] == '[' ? AF_INET6 : AF_INET;
    const uint16_t port = (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || bind_port(fd, family, port) < 0 || listen(fd, BACKLOG) < 0) {
        const int r = -errno;

        log_error("cannot serve metrics at '%s': %s; 'metrics' in the configuration says where",
                  address, strerror(-r));
        if (fd >= 0) {
            close(fd);
        }
        return r;
    }
    return fd;
}

static bool is_path(const char *address)
{
    return address[0] == '/';
}

static int metrics_serve(struct metrics *metrics, const char *address)
{
    const int fd = is_path(address) ? listen_at(address, 0660) : listen_at_port(address);

    if (fd < 0) {
        return fd;
    }
    /* The socket is the daemon's from here on, which closes it. */
    metrics->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, metrics, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        SILENCE_LIMIT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, MHD_OPTION_END);
    if (!metrics->daemon) {
        log_error("cannot serve metrics at '%s': libmicrohttpd does not start", address);
        close(fd);
        return -EIO;
    }
    return 0;
}

int metrics_start(struct mediator *mediator, struct metrics **started)
{
    const char *address = mediator->config.metrics;
    struct metrics *metrics;
    int r;

    *started = NULL;
    if (strcmp(address, "off") == 0) {
        return 0;
    }
    metrics = calloc(1, sizeof(*metrics));
    if (!metrics) {
        return -ENOMEM;
    }
    metrics->mediator = mediator;
    r = metrics_serve(metrics, address);
    if (r < 0) {
        /* Sessions are worth more: any user may have taken the port while there was no mediator. */
        log_warning("going on without metrics; 'vgpuctl upgrade' tries again");
        free(metrics);
        return 0;
    }
    r = metrics_watch(metrics);
    if (r < 0) {
        log_error("cannot serve metrics at '%s': %s", address, strerror(-r));
        metrics_stop(metrics);
        return r;
    }
    log_info("metrics at %s", address);
    *started = metrics;
    return 0;
}

void metrics_stop(struct metrics *metrics)
{
    if (!metrics) {
        return;
    }
    sd_event_source_disable_unref(metrics->source);
    sd_event_source_disable_unref(metrics->timer);
    MHD_stop_daemon(metrics->daemon);
    if (metrics->page) {
        MHD_destroy_response(metrics->page);
    }
    /* A reload does not change `metrics`, so this is the path that was listened at. */
    if (is_path(metrics->mediator->config.metrics)) {
        listen_end(-1, metrics->mediator->config.metrics);
    }
    free(metrics);
}
