/* SPDX-License-Identifier: MIT */
/*
 * A question to the mediator. Each has a connection of its own: a line goes out, a JSON object
 * comes back. All calls block, since the program has nothing else to do. The mediator closes a
 * connection after 10 s, so this does not last for ever.
 *
 * The functions that get something out of an answer allow for everything: a key that is missing, or
 * of another type, gives nothing, an empty text or 0. So a vgpuctl that is newer than its mediator
 * prints empty columns instead of failing.
 */
#include "mediator/ctl/ask.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/unixaddr.h"

#define ANSWER_S 15

static char problem_text[512];

static int connect_to(const char *path)
{
    struct sockaddr_un address;
    /* The path was checked with the options: it is neither empty nor too long. */
    const socklen_t length = unix_address(path, &address);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Where there is no mediator the socket may be kept for the next one, and nobody answers. */
    const struct timeval limit = {.tv_sec = ANSWER_S};

    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    }
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, length) < 0) {
        snprintf(problem_text, sizeof(problem_text), "cannot reach the mediator at '%s': %s%s",
                 path, strerror(errno),
                 errno == EACCES ? "; are you root, or in the group vgpu?"
                                 : "; is vgpu-mediator running?");
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

/* Whether the question went out; the other side may close at once. */
static bool send_question(int fd, struct json_object *question)
{
    const char *text = json_object_to_json_string_ext(question, JSON_C_TO_STRING_PLAIN);

    return send(fd, text, strlen(text), MSG_NOSIGNAL) >= 0 && send(fd, "\n", 1, MSG_NOSIGNAL) >= 0;
}

struct json_object *ask(const char *path, struct json_object *question, const char **problem)
{
    const int fd = connect_to(path);
    struct json_tokener *tokener;
    struct json_object *answer = NULL;
    char buffer[16384];
    ssize_t n;

    *problem = problem_text;
    if (fd < 0) {
        return NULL;
    }
    /* The parser knows when the object is complete. Its size has no limit. */
    tokener = json_tokener_new();
    if (send_question(fd, question)) {
        while (!answer && (n = read(fd, buffer, sizeof(buffer))) > 0) {
            answer = json_tokener_parse_ex(tokener, buffer, (int)n);
        }
    }
    json_tokener_free(tokener);
    close(fd);
    if (!answer) {
        snprintf(problem_text, sizeof(problem_text),
                 "the mediator at '%s' closed the connection without an answer; is it stopping?",
                 path);
    }
    return answer;
}

struct json_object *ask_question(const char *command)
{
    struct json_object *question = json_object_new_object();

    json_object_object_add(question, "command", json_object_new_string(command));
    return question;
}

struct json_object *get(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(object, key, &value);
    return value;
}

const char *get_text(struct json_object *object, const char *key)
{
    /* json-c gives numbers as text too, so a table can print any value in this way. */
    const char *value = json_object_get_string(get(object, key));

    return value ? value : "";
}

uint64_t get_number(struct json_object *object, const char *key)
{
    return json_object_get_uint64(get(object, key));
}

double get_real(struct json_object *object, const char *key)
{
    return json_object_get_double(get(object, key));
}

bool get_bool(struct json_object *object, const char *key)
{
    return json_object_get_boolean(get(object, key));
}

size_t get_length(struct json_object *object, const char *key)
{
    struct json_object *array = get(object, key);

    return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

struct json_object *get_element(struct json_object *object, const char *key, size_t index)
{
    return json_object_array_get_idx(get(object, key), index);
}
