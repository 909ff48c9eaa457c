/* SPDX-License-Identifier: MIT */
/*
 * What a CUDA program may expect of libcuda.so.1, checked from where a program stands: the same
 * program, unchanged, on NVIDIA's library and on this project's.
 *
 *   cuda-check [--list] [NAME...]
 *
 * This process never calls CUDA. It forks one for each test and learns from memory that both see
 * how the test went. Prints a line a test, and "N passed, N failed, N skipped" at the end. Exit
 * code 0 when none failed.
 */
#include "tests/cuda/check.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST_SECONDS 120

enum outcome { PASSED, FAILED, SKIPPED, OUTCOMES };

/* Shared by this process and those of the tests. */
static struct report {
    atomic_flag taken; /* a thread writes the fields below */
    _Atomic enum outcome outcome;
    char text[1024];
    _Atomic(const char *) file; /* the last expectation that was reached, by any thread */
    atomic_int line;
} * report;

static _Thread_local const char *own_file = "";
static _Thread_local int own_line;

static const struct test *const areas[] = {
    init_tests,         device_tests,    context_tests,  stack_tests,   module_tests,
    library_tests,      memory_tests,    host_tests,     pointer_tests, copy_tests,
    block_tests,        fill_tests,      stream_tests,   default_tests, event_tests,
    launch_tests,       extended_tests,  callback_tests, thread_tests,  process_tests,
    proc_tests,         errors_tests,    async_tests,    pool_tests,    vmm_tests,
    capture_tests,      isolation_tests, mode_tests,     graph_tests,   exec_tests,
    update_tests,       tables_tests,    tensor_tests,   user_tests,    link_tests,
    array_tests,        texture_tests,   printf_tests,   managed_tests, transfer_tests,
    graph_memory_tests, batch_tests,     ipc_tests,
};

void check_at(const char *file, int line)
{
    const char *slash = strrchr(file, '/');

    own_file = slash ? slash + 1 : file;
    own_line = line;
    atomic_store(&report->file, own_file);
    atomic_store(&report->line, line);
}

/* Ends the process: the first thread that comes here says why. */
static _Noreturn void end(enum outcome outcome, const char *format, va_list arguments)
{
    if (atomic_flag_test_and_set(&report->taken)) {
        usleep(100000); /* the first one writes */
        _exit(1);
    }
    vsnprintf(report->text, sizeof(report->text), format, arguments);
    atomic_store(&report->file, own_file);
    atomic_store(&report->line, own_line);
    atomic_store(&report->outcome, outcome);
    _exit(outcome == FAILED);
}

void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end(FAILED, format, arguments);
}

void fail_condition(const char *text, const char *format, ...)
{
    char came[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(came, sizeof(came), format, arguments);
    va_end(arguments);
    fail("expected %s, came %s", text, came);
}

void skip(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end(SKIPPED, format, arguments);
}

static const char *name_of(CUresult result)
{
    const char *name = NULL;

    return cuGetErrorName(result, &name) == CUDA_SUCCESS && name ? name : "unknown";
}

void check_result(const char *text, CUresult came, CUresult expected)
{
    if (came != expected) {
        fail("%s: expected %d %s, came %d %s", text, (int)expected, name_of(expected), (int)came,
             name_of(came));
    }
}

void check_one_of(const char *text, CUresult came, const CUresult *expected, size_t count)
{
    char list[512] = "";
    size_t length = 0;

    for (size_t i = 0; i < count; i++) {
        if (came == expected[i]) {
            return;
        }
        if (length < sizeof(list)) {
            length += (size_t)snprintf(list + length, sizeof(list) - length, "%s%d %s",
                                       i > 0 ? " or " : "", (int)expected[i], name_of(expected[i]));
        }
    }
    fail("%s: expected %s, came %d %s", text, list, (int)came, name_of(came));
}

void check_supported(const char *text, CUresult came)
{
    if (came == CUDA_ERROR_NOT_SUPPORTED && on_cpu()) {
        skip("no %s without a GPU", text);
    }
    check_result(text, came, CUDA_SUCCESS);
}

static void child(const struct test *test)
{
    alarm(TEST_SECONDS);
    if (!test->bare) {
        start();
    }
    test->run();
    exit(0);
}

/* What became of a process that did not say why it ended. */
static void judge_status(int status)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        snprintf(report->text, sizeof(report->text), "expected an end, came none in %d s",
                 TEST_SECONDS);
    } else if (WIFSIGNALED(status)) {
        snprintf(report->text, sizeof(report->text), "expected no signal, came %d (%s)",
                 WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0) {
        snprintf(report->text, sizeof(report->text), "expected exit code 0, came %d",
                 WEXITSTATUS(status));
    } else {
        return;
    }
    atomic_store(&report->outcome, FAILED);
}

static enum outcome run(const struct test *test)
{
    int status = 0;
    pid_t pid;

    memset(report, 0, sizeof(*report));
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        child(test);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("cuda-check: fork");
        exit(2);
    }
    if (report->outcome == PASSED) {
        judge_status(status);
    }
    if (report->outcome == FAILED) {
        printf("FAILED %s: %s:%d: %s\n", test->name, report->file ? report->file : "before",
               report->line, report->text);
    } else if (report->outcome == SKIPPED) {
        printf("skipped %s: %s\n", test->name, report->text);
    } else {
        printf("ok %s\n", test->name);
    }
    fflush(stdout);
    return report->outcome;
}

static bool wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return count == 0;
}

static void list_tests(void)
{
    for (size_t a = 0; a < sizeof(areas) / sizeof(areas[0]); a++) {
        for (const struct test *t = areas[a]; t->name; t++) {
            printf("%s\n", t->name);
        }
    }
}

int main(int argc, char **argv)
{
    unsigned counts[OUTCOMES] = {0};

    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        list_tests();
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        printf("usage: cuda-check [--list] [NAME...]    runs the tests of these names, or all\n");
        return 0;
    }
    report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED) {
        perror("cuda-check: mmap");
        return 2;
    }
    for (size_t a = 0; a < sizeof(areas) / sizeof(areas[0]); a++) {
        for (const struct test *t = areas[a]; t->name; t++) {
            if (wanted(t->name, argc - 1, argv + 1)) {
                counts[run(t)]++;
            }
        }
    }
    if (counts[PASSED] + counts[FAILED] + counts[SKIPPED] == 0) {
        fprintf(stderr, "cuda-check: no test of that name; --list names them\n");
        return 2;
    }
    printf("%u passed, %u failed, %u skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    return counts[FAILED] > 0;
}
