/* SPDX-License-Identifier: MIT */
/*
 * vgpuctl: asks a running mediator, over its control socket (docs/control.md), and prints
 * the answer as a table or as it came.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unixaddr.h"
#include "version.h"

#define DEFAULT_SOCKET "/run/vgpu/control.sock"

static void usage(FILE *out)
{
    fputs("usage: vgpuctl [--socket PATH] [--json] COMMAND\n"
          "\n"
          "  list          what is attached, and what computes\n"
          "  show VM       everything about one VM\n"
          "  history POOL  the last turns on a pool's GPU that had to be waited for\n"
          "  pause POOL    let nothing new start on a pool's GPU\n"
          "  resume POOL   undo pause\n"
          "\n"
          "  --socket PATH  the mediator's control socket (default " DEFAULT_SOCKET ")\n"
          "  --json         print the answer as JSON\n"
          "  --help, --version\n"
          "\n"
          "Exit codes: 0 done, 1 the mediator refused, 2 wrong usage, 3 no mediator.\n",
          out);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address;
    const socklen_t length = unix_address(path, &address);
    int fd;

    if (length == 0) {
        fprintf(stderr, "vgpuctl: the socket's name '%s' is empty or too long\n", path);
        exit(2);
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, length) < 0) {
        fprintf(stderr, "vgpuctl: cannot reach the mediator at '%s': %s%s\n", path, strerror(errno),
                errno == EACCES ? "; are you root?" : "; is vgpu-mediator running?");
        exit(3);
    }
    return fd;
}

/* Sends the question and reads the whole answer. */
static struct json_object *ask(const char *path, struct json_object *question)
{
    const int fd = connect_to(path);
    struct json_tokener *tokener = json_tokener_new();
    struct json_object *answer = NULL;
    char buffer[4096];
    ssize_t n;

    dprintf(fd, "%s\n", json_object_to_json_string_ext(question, JSON_C_TO_STRING_PLAIN));
    while (!answer && (n = read(fd, buffer, sizeof(buffer))) > 0) {
        answer = json_tokener_parse_ex(tokener, buffer, (int)n);
    }
    json_tokener_free(tokener);
    close(fd);
    if (!answer) {
        fprintf(stderr, "vgpuctl: the mediator closed the connection without an answer\n");
        exit(3);
    }
    return answer;
}

static struct json_object *get(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(object, key, &value);
    return value;
}

static const char *text(struct json_object *object, const char *key)
{
    const char *value = json_object_get_string(get(object, key));

    return value ? value : "";
}

static uint64_t number(struct json_object *object, const char *key)
{
    return json_object_get_uint64(get(object, key));
}

static double real(struct json_object *object, const char *key)
{
    return json_object_get_double(get(object, key));
}

static void print_list(struct json_object *answer)
{
    struct json_object *vms = get(answer, "vms");
    struct json_object *pools = get(answer, "pools");

    printf("computing on %s\n", text(answer, "computes_on"));
    for (size_t i = 0; i < json_object_array_length(pools); i++) {
        struct json_object *pool = json_object_array_get_idx(pools, i);

        if (json_object_get_boolean(get(pool, "paused"))) {
            printf("pool %s is paused\n", text(pool, "pool"));
        }
    }
    if (json_object_array_length(vms) == 0) {
        puts("no VM is attached");
        return;
    }
    printf("%-8s %-16s %-4s %-8s %-8s %10s %8s %9s\n", "VM", "NAME", "POOL", "PRIORITY", "STATE",
           "REQUESTS", "ERRORS", "BUSY");
    for (size_t i = 0; i < json_object_array_length(vms); i++) {
        struct json_object *vm = json_object_array_get_idx(vms, i);

        printf("%-8" PRIu64 " %-16.16s %-4s %-8s %-8s %10" PRIu64 " %8" PRIu64 " %8.3fs\n",
               number(vm, "vm"), text(vm, "name"), text(vm, "pool"), text(vm, "priority"),
               text(vm, "state"), number(vm, "requests"), number(vm, "errors"),
               real(vm, "busy_seconds"));
    }
}

static void print_show(struct json_object *answer)
{
    json_object_object_foreach(answer, key, value)
    {
        printf("%-18s %s\n", key, json_object_get_string(value));
    }
}

static void print_history(struct json_object *answer)
{
    struct json_object *turns = get(answer, "turns");

    printf("%8s %8s %-8s %12s %12s\n", "TURN", "VM", "PRIORITY", "WAITED", "RAN");
    for (size_t i = 0; i < json_object_array_length(turns); i++) {
        struct json_object *turn = json_object_array_get_idx(turns, i);

        printf("%8" PRIu64 " %8" PRIu64 " %-8s %10.3fms %10.3fms\n", number(turn, "turn"),
               number(turn, "vm"), text(turn, "priority"), real(turn, "waited_seconds") * 1e3,
               real(turn, "ran_seconds") * 1e3);
    }
}

static void print_nothing(struct json_object *answer)
{
    (void)answer;
}

static const struct command {
    const char *name;
    const char *argument; /* the question's key for it; NULL: takes none */
    void (*print)(struct json_object *answer);
} commands[] = {
    {"list", NULL, print_list},         {"show", "vm", print_show},
    {"history", "pool", print_history}, {"pause", "pool", print_nothing},
    {"resume", "pool", print_nothing},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static struct json_object *make_question(const struct command *command, const char *argument)
{
    struct json_object *question = json_object_new_object();

    json_object_object_add(question, "command", json_object_new_string(command->name));
    if (argument && strcmp(command->argument, "vm") == 0) {
        json_object_object_add(question, "vm", json_object_new_int64(atoll(argument)));
    } else if (argument) {
        json_object_object_add(question, command->argument, json_object_new_string(argument));
    }
    return question;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"socket", required_argument, NULL, 's'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    const char *path = DEFAULT_SOCKET;
    const struct command *command;
    struct json_object *question, *answer, *error;
    bool json = false;
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 's':
            path = optarg;
            break;
        case 'j':
            json = true;
            break;
        case 'h':
            usage(stdout);
            return 0;
        case 'V':
            puts("vgpuctl " VGPU_PACKAGE_VERSION);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    command = optind < argc ? find_command(argv[optind]) : NULL;
    if (!command || argc - optind - 1 != (command->argument ? 1 : 0)) {
        usage(stderr);
        return 2;
    }
    question = make_question(command, command->argument ? argv[optind + 1] : NULL);
    answer = ask(path, question);
    error = get(answer, "error");
    if (error) {
        fprintf(stderr, "vgpuctl: %s: %s\n", command->name, json_object_get_string(error));
    } else if (json) {
        puts(json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PRETTY));
    } else {
        command->print(answer);
    }
    c = error ? 1 : 0;
    json_object_put(question);
    json_object_put(answer);
    return c;
}
