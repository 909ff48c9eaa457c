/* SPDX-License-Identifier: MIT */
/*
 * A connection on the control socket: one line comes in, control-answer.c answers it, the answer
 * goes out, and the connection is closed.
 *
 * While `answer` is NULL the question is being read; afterwards the answer is being sent, and
 * nothing more is read. Neither waits for the client: when the socket is full, the rest is sent
 * later. A client that is slow, or never comes to the end of its line, is closed by the timer,
 * which runs from connecting on.
 *
 * Caveat: most functions here may destroy the connection, so a caller returns right behind them.
 *
 * There are no permissions to check: a user who may open the socket may do all that vgpuctl can.
 */
#include "mediator/control.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "mediator/chores.h"
#include "mediator/control-answer.h"

#define QUESTION_MAX 1024u
/* For a whole connection. */
#define CONNECTION_LIMIT_NS (10 * NS_PER_S)

struct control {
    struct mediator *mediator;
    int fd;
    sd_event_source *source, *timer;
    char question[QUESTION_MAX];
    size_t length;
    char *answer; /* NULL: none yet */
    size_t answer_length, sent;
};

static void control_destroy(struct control *control)
{
    sd_event_source_disable_unref(control->source);
    sd_event_source_disable_unref(control->timer);
    chores_hang_up(control->fd);
    free(control->answer);
    free(control);
}

/* Sends what the socket takes now; the end of the answer ends the connection. */
static void send_answer(struct control *control)
{
    const ssize_t n = send(control->fd, control->answer + control->sent,
                           control->answer_length - control->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        log_debug("control client does not take its answer: %s", strerror(errno));
        control_destroy(control);
        return;
    }
    /* A socket that takes nothing now has sent nothing; EPOLLOUT tells when it takes more. */
    control->sent += n > 0 ? (size_t)n : 0;
    if (control->sent == control->answer_length ||
        sd_event_source_set_io_events(control->source, EPOLLOUT) < 0) {
        control_destroy(control);
    }
}

/* Instead of an answer that there was no memory for. */
static const char no_memory[] = "{\"error\":\"the mediator has no memory left for an answer\"}";

/* Frees the answer and begins to send it. json-c's text goes with the object, so it is copied. */
static void begin_answer(struct control *control, struct json_object *answer)
{
    size_t length = sizeof(no_memory) - 1;
    const char *text = answer ? json_object_to_json_string_length(answer, JSON_C_TO_STRING_PLAIN,
                                                                  &length)
                              : no_memory;

    /* The newline takes the place of the NUL. */
    control->answer = text ? malloc(length + 1) : NULL;
    if (!control->answer) {
        log_error("no memory for an answer to a control client");
        json_object_put(answer);
        control_destroy(control);
        return;
    }
    memcpy(control->answer, text, length);
    control->answer[length] = '\n';
    control->answer_length = length + 1;
    json_object_put(answer);
    send_answer(control);
}

static void read_question(struct control *control)
{
    const ssize_t n = recv(control->fd, control->question + control->length,
                           QUESTION_MAX - 1 - control->length, MSG_DONTWAIT);
    struct ucred asker = {.pid = -1, .uid = (uid_t)-1};
    char *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        control_destroy(control);
        return;
    }
    control->length += (size_t)n;
    control->question[control->length] = '\0';
    /* Bytes behind the first line are dropped: there is one question to a connection. */
    end = memchr(control->question, '\n', control->length);
    if (end) {
        *end = '\0';
        getsockopt(control->fd, SOL_SOCKET, SO_PEERCRED, &asker, &(socklen_t){sizeof(asker)});
        begin_answer(control, control_answer(control->mediator, control->question, &asker));
    } else if (control->length == QUESTION_MAX - 1) {
        begin_answer(control, control_error("the question is too long: a line has less than %u "
                                            "bytes",
                                            QUESTION_MAX - 1));
    }
}

static int on_event(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct control *control = context;

    (void)source;
    (void)fd;
    (void)events;
    if (control->answer) {
        send_answer(control);
    } else {
        read_question(control);
    }
    return 0;
}

static int on_control_timer(sd_event_source *source, uint64_t usec, void *context)
{
    (void)source;
    (void)usec;
    control_destroy(context);
    return 0;
}

int control_create(struct mediator *mediator, int fd)
{
    struct control *control = calloc(1, sizeof(*control));
    int r;

    if (!control) {
        chores_hang_up(fd);
        return -ENOMEM;
    }
    control->mediator = mediator;
    control->fd = fd;
    r = sd_event_add_io(mediator->event, &control->source, fd, EPOLLIN, on_event, control);
    if (r >= 0) {
        r = sd_event_add_time_relative(mediator->event, &control->timer, CLOCK_MONOTONIC,
                                       CONNECTION_LIMIT_NS / NS_PER_US, 0, on_control_timer,
                                       control);
    }
    if (r < 0) {
        control_destroy(control);
    }
    return r;
}
