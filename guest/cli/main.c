/* SPDX-License-Identifier: MIT */
/*
 * vgpu: a guest's command for its vGPU, and a host process's for the mediator. This file has the
 * options and the small commands; info.c, add.c and bench.c have the large ones.
 *
 * A command of the table `commands` gets an open device, with which it makes requests in register
 * mode, one at a time. The command is looked up before the device is opened, so a wrong word is
 * named as such, even if there is no device. `list`, `info` and `reap` get no device: the first
 * looks for all of them, the second at one without taking anything of it, the third closes sessions
 * whose process is gone.
 *
 * Each result of libvgpu has an exit code, so that a script can tell a device that is missing from
 * a host that refused. The error is printed in libvgpu's own words.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/version.h"
#include "guest/cli/cli.h"

#define LIST_MAX 64u

struct options {
    const char *address; /* PCI; NULL: the only device */
    struct vgpu_host_options host;
    uint32_t timeout_ms; /* 0: the library's */
};

const char *const cli_priorities[VGPU_PRIORITIES] = {"low", "medium", "high"};

static void usage(FILE *out)
{
    fputs("usage: vgpu [OPTIONS] COMMAND\n"
          "\n"
          "  list                    the vGPUs of this machine, by PCI address\n"
          "  info [--json]           what the device is, what computes behind it, and who uses it\n"
          "  add A B                 the sum of two numbers\n"
          "  add --file A B [-o OUT] the sums of two files of numbers (commas, white space)\n"
          "  add --n N --check       the sums of N pairs, each checked\n"
          "  echo TEXT               have TEXT come back from the host\n"
          "  reset                   drop what runs\n"
          "  reap                    close sessions whose process is gone\n"
          "  bench [--n N]           times of requests\n"
          "\n"
          "  add takes --type int32 or float32; otherwise numbers with a point or an\n"
          "  exponent make it float32.\n"
          "\n"
          "  --device ADDRESS   which vGPU, where there are several\n"
          "  --timeout SECONDS  how long a request may take (default 60)\n"
          "  --help, --version\n"
          "\n"
          "On the host itself, without a VM:\n"
          "  --socket PATH      attach to the mediator at PATH\n"
          "  --vm-id N          as this VM (default: a number that is free)\n"
          "  --pool X --priority low|medium|high --shm MIB\n"
          "\n"
          "Exit codes: 0 done, 1 a wrong result, 2 wrong usage, 3 no device, 4 no permission,\n"
          "5 offline, 6 the host answered with an error, 7 no answer in time, 8 in use,\n"
          "9 a file or system call failed.\n",
          out);
}

int cli_error(enum exit_code code, const char *format, ...)
{
    va_list args;

    fputs("vgpu: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return (int)code;
}

int cli_fail(int result)
{
    /* vgpu(1) has fewer codes than libvgpu has results, so some share one. */
    static const struct {
        int result;
        enum exit_code code;
    } codes[] = {
        {VGPU_NO_DEVICE, EXIT_NO_DEVICE},  {VGPU_NO_PERMISSION, EXIT_NO_PERMISSION},
        {VGPU_OFFLINE, EXIT_OFFLINE},      {VGPU_BUSY, EXIT_BUSY},
        {VGPU_TIMED_OUT, EXIT_TIMED_OUT},  {VGPU_REFUSED, EXIT_REFUSED},
        {VGPU_BAD_ARGUMENT, EXIT_USAGE},   {VGPU_SYSTEM, EXIT_SYSTEM},
        {VGPU_INCOMPATIBLE, EXIT_REFUSED}, {VGPU_ENDED, EXIT_REFUSED},
    };
    enum exit_code code = EXIT_SYSTEM;

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].result == result) {
            code = codes[i].code;
        }
    }
    return cli_error(code, "%s", vgpu_last_message());
}

/* No device is no mistake here: the list is empty then. */
static int cli_list(void)
{
    char addresses[LIST_MAX][VGPU_ADDRESS_SIZE];
    const unsigned count = vgpu_list(addresses, LIST_MAX);

    /* vgpu_list() tells how many there are, which may be more than it had room for. */
    for (unsigned i = 0; i < count && i < LIST_MAX; i++) {
        puts(addresses[i]);
    }
    return EXIT_OK;
}

/* For guests without the driver, which closes queues itself: then there are 0. Prints how many. */
static int cli_reap(const char *address)
{
    unsigned count = 0;
    const int r = vgpu_reap(address, &count);

    if (r != VGPU_OK) {
        return cli_fail(r);
    }
    printf("%u\n", count);
    return EXIT_OK;
}

static int cli_echo(struct vgpu *vgpu, int argc, char **argv)
{
    char text[VGPU_ECHO_MAX + 1] = "", back[VGPU_ECHO_MAX + 1] = "";
    uint32_t length;
    int r;

    if (argc != 1 || strlen(argv[0]) > VGPU_ECHO_MAX) {
        return cli_error(EXIT_USAGE, "echo takes one text of at most %u bytes", VGPU_ECHO_MAX);
    }
    length = (uint32_t)strlen(argv[0]);
    memcpy(text, argv[0], length);
    /* Registers have 4 bytes each. The padding is 0, like the rest of both texts. */
    r = vgpu_echo(vgpu, text, (length + 3) / 4 * 4, back);
    if (r != VGPU_OK) {
        return cli_fail(r);
    }
    puts(back);
    /* All of it is compared, so that bytes behind the text are found too. */
    return memcmp(text, back, sizeof(text)) == 0 ? EXIT_OK : EXIT_WRONG;
}

static int cli_reset(struct vgpu *vgpu, int argc, char **argv)
{
    int r;

    (void)argv;
    if (argc != 0) {
        usage(stderr);
        return EXIT_USAGE;
    }
    r = vgpu_reset(vgpu);
    return r == VGPU_OK ? EXIT_OK : cli_fail(r);
}

static const struct {
    const char *name;
    int (*run)(struct vgpu *vgpu, int argc, char **argv);
} commands[] = {
    {"add", cli_add},
    {"echo", cli_echo},
    {"reset", cli_reset},
    {"bench", cli_bench},
};

/* A whole number from 1 to `max`; ends the process otherwise. */
static uint64_t number_option(const char *name, const char *value, uint64_t max)
{
    char *end;
    const unsigned long long number = strtoull(value, &end, 10);

    /* strtoull(3) alone would also take blanks and a sign; a number too large is above `max`. */
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || number == 0 || number > max) {
        cli_error(EXIT_USAGE, "--%s is '%s', must be a number from 1 to %" PRIu64, name, value,
                  max);
        exit(EXIT_USAGE);
    }
    return number;
}

static void set_priority(struct vgpu_host_options *host, const char *value)
{
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (strcmp(value, cli_priorities[i]) == 0) {
            host->priority = (enum vgpu_priority)i;
            return;
        }
    }
    cli_error(EXIT_USAGE, "--priority is '%s', must be low, medium or high", value);
    exit(EXIT_USAGE);
}

/* Options up to the command; ends the process on --help, --version and mistakes. */
static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"device", required_argument, NULL, 'd'}, {"timeout", required_argument, NULL, 't'},
        {"socket", required_argument, NULL, 's'}, {"vm-id", required_argument, NULL, 'i'},
        {"pool", required_argument, NULL, 'p'},   {"priority", required_argument, NULL, 'r'},
        {"shm", required_argument, NULL, 'm'},    {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0},
    };
    int c;

    /* '+': a command's own options are not ours. */
    while ((c = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
        switch (c) {
        case 'd':
            o->address = optarg;
            break;
        case 't':
            o->timeout_ms = (uint32_t)number_option("timeout", optarg, 86400) * 1000;
            break;
        case 's':
            o->host.socket = optarg;
            break;
        case 'i':
            o->host.vm_id = (uint32_t)number_option("vm-id", optarg, UINT32_MAX);
            break;
        case 'p':
            if (optarg[0] < 'A' || optarg[0] > 'Z' || optarg[1] != '\0') {
                exit(cli_error(EXIT_USAGE, "--pool is '%s', must be a letter from A to Z", optarg));
            }
            o->host.pool = optarg[0];
            break;
        case 'r':
            set_priority(&o->host, optarg);
            break;
        case 'm':
            o->host.shm_size = number_option("shm", optarg, VGPU_SHM_MAX >> 20) << 20;
            break;
        case 'h':
            usage(stdout);
            exit(EXIT_OK);
        case 'V':
            puts("vgpu " VGPU_PACKAGE_VERSION);
            exit(EXIT_OK);
        default:
            usage(stderr);
            exit(EXIT_USAGE);
        }
    }
}

static int run_command(const struct options *o, const char *name, int argc, char **argv)
{
    struct vgpu *vgpu;
    int r;

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(name, commands[i].name) != 0) {
            continue;
        }
        /* With a socket this process attaches by itself, as QEMU does for a VM. */
        r = o->host.socket ? vgpu_open_host(&o->host, &vgpu) : vgpu_open(o->address, &vgpu);
        if (r != VGPU_OK) {
            return cli_fail(r);
        }
        if (o->timeout_ms != 0) {
            vgpu_set_timeout(vgpu, o->timeout_ms);
        }
        r = commands[i].run(vgpu, argc, argv);
        vgpu_close(vgpu);
        return r;
    }
    cli_error(EXIT_USAGE, "unknown command '%s'; 'vgpu --help' lists them", name);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    struct options options = {.host = {
                                  .pool = 'A',
                                  .priority = VGPU_PRIORITY_MEDIUM,
                                  .shm_size = UINT64_C(256) << 20,
                              }};
    int r;

    parse_options(argc, argv, &options);
    if (optind == argc) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[optind], "list") == 0) {
        r = cli_list();
    } else if (strcmp(argv[optind], "info") == 0) {
        r = cli_info(options.address, options.host.socket ? &options.host : NULL, argc - optind - 1,
                     argv + optind + 1);
    } else if (strcmp(argv[optind], "reap") == 0) {
        r = options.host.socket
                ? cli_error(EXIT_USAGE, "reap is for guests; on the host a session ends with its "
                                        "process")
                : cli_reap(options.address);
    } else {
        r = run_command(&options, argv[optind], argc - optind - 1, argv + optind + 1);
    }
    /* The last moment to find that the output went nowhere, to a full disk for instance. */
    if (fflush(stdout) != 0) {
        return cli_error(EXIT_SYSTEM, "cannot write to standard output");
    }
    return r;
}
