/* SPDX-License-Identifier: MIT */
/*
 * vgpuctl: asks a running mediator, over its control socket (docs/control.md), and prints the
 * answer as a table or as it came.
 *
 *   main.c     options and commands
 *   ask.c      questions and answers
 *   print.c    answers as tables
 *   figures.c  what happened between two answers
 *   top.c      the same, again and again
 *
 * A command is a line of the table `commands`, with a function that makes the question and names
 * the one that prints its answer. Usage is checked here, before the mediator is asked; whether a
 * VM, a pool or a value exists is the mediator's to say, and its sentence is printed as it is. The
 * exit code tells these apart.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/unixaddr.h"
#include "common/version.h"
#include "mediator/ctl/ask.h"
#include "mediator/ctl/print.h"
#include "mediator/ctl/top.h"

#define DEFAULT_SOCKET "/run/vgpu/control.sock"
#define INTERVAL_MIN 0.1
#define INTERVAL_MAX 3600.0
#define COUNT_MAX 1000000000ul
#define UPGRADE_S 30 /* how long the next mediator is waited for */

enum exit_code { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_NO_MEDIATOR = 3 };

struct options {
    struct top_options top; /* the socket and --json are of all commands */
    const char *only_top;   /* an option that was given and is for top alone */
    char **arguments;       /* of the command */
    int argument_count;
};

static void usage(FILE *out)
{
    fputs("usage: vgpuctl [--socket PATH] [--json] COMMAND\n"
          "\n"
          "  list              what is attached, and what computes\n"
          "  show VM           everything about one VM\n"
          "  top               who uses the GPUs now; q ends it\n"
          "  set VM            what can be set for a VM, and how it stands\n"
          "  set VM KEY VALUE  set it, until the next reload\n"
          "  history POOL      the last turns on a pool's GPUs that had to be asked for\n"
          "  pause POOL|VM     take its work off the GPUs, and let nothing new start\n"
          "  resume POOL|VM    undo pause\n"
          "  reload            let the mediator read its configuration again\n"
          "  upgrade           replace the mediator by what is installed now; no session ends\n"
          "  end VM QUEUE      end the session on that queue\n"
          "  drain GPU         place nothing new there; what is there goes on until it ends\n"
          "  undrain GPU       undo drain\n"
          "  detach VM         end the VM's connection, and all that it has; it may come back\n"
          "\n"
          "  --socket PATH  the mediator's control socket (default " DEFAULT_SOCKET ")\n"
          "  --json         print the answer as JSON; top: an object a line\n"
          "  --interval S   top: seconds between refreshes (default 1)\n"
          "  --count N      top: end after N refreshes\n"
          "  --batch        top: print tables, as it does where there is no terminal\n"
          "  --help, --version\n"
          "\n"
          "A VM is named by its number, its UUID, or its name, as 'list' and 'show' have them.\n"
          "Exit codes: 0 done, 1 the mediator refused, 2 wrong usage, 3 no mediator.\n",
          out);
}

/* What an answer with an error says, and with which exit code. */
static int print_refusal(const char *command, struct json_object *answer)
{
    fprintf(stderr, "vgpuctl: %s: %s\n", command, get_text(answer, "error"));
    for (size_t i = 0; i < get_length(answer, "mistakes"); i++) {
        fprintf(stderr, "  %s\n", json_object_get_string(get_element(answer, "mistakes", i)));
    }
    return EXIT_REFUSED;
}

/*
 * Asks and prints, by `print` or as JSON where asked to. The question is freed. `print` is NULL for
 * commands that only do something: the exit code says that it was done.
 */
static int ask_and_print(const struct options *options, const char *command,
                         struct json_object *question, void (*print)(struct json_object *answer))
{
    const char *problem;
    struct json_object *answer = ask(options->top.path, question, &problem);
    struct json_object *error = get(answer, "error");
    int code = EXIT_DONE;

    json_object_put(question);
    if (!answer) {
        fprintf(stderr, "vgpuctl: %s\n", problem);
        code = EXIT_NO_MEDIATOR;
    } else if (error) {
        code = print_refusal(command, answer);
    } else if (options->top.json) {
        puts(json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PRETTY));
    } else if (print) {
        print(answer);
    }
    json_object_put(answer);
    return code;
}

/*
 * A pool's letter goes as it was typed: the mediator knows which pools there are, and names them.
 */
static struct json_object *question_with(const char *command, const char *key, const char *value)
{
    struct json_object *question = ask_question(command);

    json_object_object_add(question, key, json_object_new_string(value));
    return question;
}

/* A whole number and nothing else: strtoul(3) alone would also take blanks and a sign. */
static bool read_number(const char *text, unsigned long most, unsigned long *number)
{
    char *end;

    errno = 0;
    *number = strtoul(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *number <= most;
}

/* A question about the VM that the first argument names, by number, UUID or name. */
static struct json_object *question_about(const char *command, const char *name)
{
    return question_with(command, "vm", name);
}

static int run_list(const struct options *options)
{
    return ask_and_print(options, "list", ask_question("list"), print_list);
}

static int run_show(const struct options *options)
{
    return ask_and_print(options, "show", question_about("show", options->arguments[0]), print_vm);
}

/* With a VM alone it shows the keys that can be set, from the answer to "show". */
static int run_set(const struct options *options)
{
    const bool only_show = options->argument_count == 1;
    struct json_object *question;

    if (options->argument_count == 2) {
        fprintf(stderr,
                "vgpuctl: set: a value for '%s' is missing; 'vgpuctl set %s' shows what "
                "it is\n",
                options->arguments[1], options->arguments[0]);
        return EXIT_USAGE;
    }
    question = question_about(only_show ? "show" : "set", options->arguments[0]);
    if (only_show) {
        return ask_and_print(options, "set", question, print_limits);
    }
    json_object_object_add(question, "key", json_object_new_string(options->arguments[1]));
    json_object_object_add(question, "value", json_object_new_string(options->arguments[2]));
    return ask_and_print(options, "set", question, NULL);
}

static int run_history(const struct options *options)
{
    return ask_and_print(options, "history",
                         question_with("history", "pool", options->arguments[0]), print_history);
}

/* Pools are letters; a VM whose name is one has a number too. */
static int pause_or_resume(const struct options *options, const char *command)
{
    const char *name = options->arguments[0];
    const bool pool = name[0] != '\0' && name[1] == '\0' && (name[0] < '0' || name[0] > '9');

    return ask_and_print(
        options, command,
        pool ? question_with(command, "pool", name) : question_about(command, name), NULL);
}

static int run_pause(const struct options *options)
{
    return pause_or_resume(options, "pause");
}

static int run_resume(const struct options *options)
{
    return pause_or_resume(options, "resume");
}

static void print_reload(struct json_object *answer)
{
    for (size_t i = 0; i < get_length(answer, "restart"); i++) {
        puts(json_object_get_string(get_element(answer, "restart", i)));
    }
}

static int run_reload(const struct options *options)
{
    return ask_and_print(options, "reload", ask_question("reload"), print_reload);
}

static int run_detach(const struct options *options)
{
    return ask_and_print(options, "detach", question_about("detach", options->arguments[0]), NULL);
}

static void print_drain(struct json_object *answer)
{
    const uint64_t sessions = get_number(answer, "sessions");

    if (sessions == 0) {
        puts("no session is there");
    } else {
        printf("sessions that go on there until they end: %" PRIu64 "; 'vgpuctl list' shows whose, "
               "'vgpuctl end' ends one\n",
               sessions);
    }
}

static int drain_or_not(const struct options *options, const char *command,
                        void (*print)(struct json_object *answer))
{
    const char *name = options->arguments[0];
    struct json_object *question;
    unsigned long number;

    if (!read_number(name, INT32_MAX, &number)) {
        fprintf(stderr, "vgpuctl: %s: '%s' is no GPU's number; 'vgpuctl list' has them\n", command,
                name);
        return EXIT_USAGE;
    }
    question = ask_question(command);
    json_object_object_add(question, "gpu", json_object_new_uint64(number));
    return ask_and_print(options, command, question, print);
}

static int run_drain(const struct options *options)
{
    return drain_or_not(options, "drain", print_drain);
}

static int run_undrain(const struct options *options)
{
    return drain_or_not(options, "undrain", NULL);
}

static int run_end(const struct options *options)
{
    const char *queue = options->arguments[1];
    struct json_object *question;
    unsigned long number;

    if (!read_number(queue, INT32_MAX, &number)) {
        fprintf(stderr, "vgpuctl: end: '%s' is no queue's number; 'vgpuctl show %s' has them\n",
                queue, options->arguments[0]);
        return EXIT_USAGE;
    }
    question = question_about("end", options->arguments[0]);
    json_object_object_add(question, "queue", json_object_new_uint64(number));
    return ask_and_print(options, "end", question, NULL);
}

/* The answer of a mediator that is not the one with this number; NULL when none comes in time. */
static struct json_object *await_next(const struct options *options, uint64_t generation)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    const time_t end = time(NULL) + UPGRADE_S;
    const char *problem;

    while (time(NULL) < end) {
        struct json_object *question = ask_question("list");
        struct json_object *answer = ask(options->top.path, question, &problem);

        json_object_put(question);
        if (answer && get_number(answer, "generation") != generation) {
            return answer;
        }
        json_object_put(answer);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static int run_upgrade(const struct options *options)
{
    struct json_object *question = ask_question("upgrade");
    const char *problem;
    struct json_object *before = ask(options->top.path, question, &problem), *after;
    struct json_object *error = get(before, "error");
    int code = EXIT_DONE;

    json_object_put(question);
    after = before && !error ? await_next(options, get_number(before, "generation")) : NULL;
    if (error) {
        code = print_refusal("upgrade", before);
    } else if (!after) {
        fprintf(stderr, "vgpuctl: upgrade: %s\n",
                before ? "no other mediator has come; its log says why" : problem);
        code = EXIT_NO_MEDIATOR;
    } else if (options->top.json) {
        puts(json_object_to_json_string_ext(after, JSON_C_TO_STRING_PRETTY));
    } else {
        if (get_number(after, "carried_sessions") < get_number(before, "sessions")) {
            code = EXIT_REFUSED;
        }
        printf("version %s serves; %" PRIu64 " of %" PRIu64 " sessions were carried over; there "
               "was no mediator for %.0f ms\n",
               get_text(after, "version"), get_number(after, "carried_sessions"),
               get_number(before, "sessions"), 1000 * get_real(after, "gap_seconds"));
    }
    json_object_put(before);
    json_object_put(after);
    return code;
}

static int run_top(const struct options *options)
{
    return top(&options->top);
}

/* A new command also needs a line in control-answer.c and in docs/control.md. */
static const struct command {
    const char *name;
    int min, max; /* arguments */
    int (*run)(const struct options *options);
    const char *takes; /* for who gives others */
} commands[] = {
    {"list", 0, 0, run_list, "nothing"},
    {"show", 1, 1, run_show, "a VM"},
    {"top", 0, 0, run_top, "options alone"},
    {"set", 1, 3, run_set, "a VM, or that with a key and a value"},
    {"history", 1, 1, run_history, "a pool's letter"},
    {"pause", 1, 1, run_pause, "a pool's letter or a VM"},
    {"resume", 1, 1, run_resume, "a pool's letter or a VM"},
    {"reload", 0, 0, run_reload, "nothing"},
    {"upgrade", 0, 0, run_upgrade, "nothing"},
    {"end", 2, 2, run_end, "a VM and a queue's number"},
    {"detach", 1, 1, run_detach, "a VM"},
    {"drain", 1, 1, run_drain, "a GPU's number"},
    {"undrain", 1, 1, run_undrain, "a GPU's number"},
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

static double read_interval(const char *text)
{
    char *end;
    const double value = strtod(text, &end);

    /* Written so that it refuses "nan" too, with which every comparison is false. */
    if (end == text || *end != '\0' || !(value >= INTERVAL_MIN && value <= INTERVAL_MAX)) {
        fprintf(stderr, "vgpuctl: --interval is '%s', must be seconds from %g to %g\n", text,
                INTERVAL_MIN, INTERVAL_MAX);
        exit(EXIT_USAGE);
    }
    return value;
}

static unsigned long read_count(const char *text)
{
    char *end;
    const unsigned long value = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < 1 || value > COUNT_MAX) {
        fprintf(stderr, "vgpuctl: --count is '%s', must be a number from 1 to %lu\n", text,
                COUNT_MAX);
        exit(EXIT_USAGE);
    }
    return value;
}

/* Checked with the options, so that it is wrong usage and not a mediator that is missing. */
static void check_socket(const char *path)
{
    struct sockaddr_un address;

    if (unix_address(path, &address) == 0) {
        fprintf(stderr, "vgpuctl: --socket is '%s', which is empty or too long for a socket\n",
                path);
        exit(EXIT_USAGE);
    }
}

/*
 * Options may stand behind the command as well: getopt_long(3) moves them to the front. So at this
 * point it is not known yet whether the command is `top`, and only_top keeps the option for main()
 * to check.
 */
static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"socket", required_argument, NULL, 's'},   {"json", no_argument, NULL, 'j'},
        {"interval", required_argument, NULL, 'i'}, {"count", required_argument, NULL, 'n'},
        {"batch", no_argument, NULL, 'b'},          {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 's':
            o->top.path = optarg;
            break;
        case 'j':
            o->top.json = true;
            break;
        case 'i':
            o->top.interval = read_interval(optarg);
            o->only_top = "--interval";
            break;
        case 'n':
            o->top.count = read_count(optarg);
            o->only_top = "--count";
            break;
        case 'b':
            o->top.batch = true;
            o->only_top = "--batch";
            break;
        case 'h':
            usage(stdout);
            exit(EXIT_DONE);
        case 'V':
            puts("vgpuctl " VGPU_PACKAGE_VERSION);
            exit(EXIT_DONE);
        default:
            usage(stderr);
            exit(EXIT_USAGE);
        }
    }
    check_socket(o->top.path);
}

int main(int argc, char **argv)
{
    struct options options = {.top = {.path = DEFAULT_SOCKET, .interval = 1.0}};
    const struct command *command;

    /* For names that are not ASCII. */
    setlocale(LC_CTYPE, "");
    parse_options(argc, argv, &options);
    if (optind == argc) {
        usage(stderr);
        return EXIT_USAGE;
    }
    command = find_command(argv[optind]);
    options.arguments = argv + optind + 1;
    options.argument_count = argc - optind - 1;
    if (!command) {
        fprintf(stderr, "vgpuctl: unknown command '%s'; 'vgpuctl --help' lists them\n",
                argv[optind]);
        return EXIT_USAGE;
    }
    if (options.argument_count < command->min || options.argument_count > command->max) {
        fprintf(stderr, "vgpuctl: %s takes %s; 'vgpuctl list' shows what there is\n", command->name,
                command->takes);
        return EXIT_USAGE;
    }
    if (options.only_top && command->run != run_top) {
        fprintf(stderr, "vgpuctl: %s is for top alone\n", options.only_top);
        return EXIT_USAGE;
    }
    return command->run(&options);
}
