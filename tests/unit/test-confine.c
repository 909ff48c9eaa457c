/* SPDX-License-Identifier: MIT */
/*
 * What a process can do, and cannot, once it is confined as the mediator is: each in a child.
 *
 * Tests: mediator/confine.c
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/sanitized.h"
#include "mediator/confine.h"
#include "tests/unit/unit.h"

static char file[] = "/tmp/vgpu-confine-XXXXXX";
static pid_t other;

static void *nothing(void *argument)
{
    return argument;
}

static int compare(const void *one, const void *another)
{
    return memcmp(one, another, 1);
}

/* Each returns whether it could be done. */

static bool threads(void)
{
    pthread_t thread;

    return pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0;
}

static bool sorting(void)
{
    static char many[1 << 20];

    qsort(many, sizeof(many), 1, compare);
    return true;
}

static bool terminal(void)
{
    return isatty(0) == 0;
}

static bool unknown_call(void)
{
    return syscall(9999) == -1 && errno == ENOSYS;
}

static bool reading(void)
{
    return open("/etc/passwd", O_RDONLY) >= 0;
}

static bool memory(void)
{
    const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    return fd >= 0 && ftruncate(fd, 4096) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0;
}

static bool writing(void)
{
    return open(file, O_WRONLY) >= 0;
}

static bool making(void)
{
    return open("/tmp", O_RDONLY | O_TMPFILE | O_WRONLY, 0600) >= 0 ||
           open("/tmp/vgpu-confine-made", O_RDONLY | O_CREAT, 0600) >= 0;
}

static bool executing(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
           MAP_FAILED;
}

static bool signalling(void)
{
    return syscall(SYS_tgkill, other, other, SIGKILL) == 0;
}

static bool signals_from_descriptors(void)
{
    return fcntl(0, F_SETOWN, other) == 0;
}

static bool forking(void)
{
    return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) >= 0;
}

static bool changing_modes(void)
{
    return chmod(file, 04755) == 0;
}

static bool killing(void)
{
    return kill(other, SIGKILL) == 0;
}

static bool starting(void)
{
    return execl("/bin/true", "true", (char *)NULL) == 0;
}

enum outcome { DONE, REFUSED, ENDED };

static enum outcome try_confined(bool (*what)(void))
{
    const pid_t pid = fork();
    int status;

    if (pid == 0) {
        if (confine(NULL, 0, NULL, 0) < 0) {
            _exit(9);
        }
        _exit(what() ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        assert_int_equal(WTERMSIG(status), SIGSYS);
        return ENDED;
    }
    assert_in_range(WEXITSTATUS(status), 0, 1);
    return WEXITSTATUS(status) == 0 ? DONE : REFUSED;
}

static int set_up(void **state)
{
    (void)state;
    close(mkstemp(file));
    other = fork();
    if (other == 0) {
        pause();
        _exit(0);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(file);
    /* It lives still. */
    assert_int_equal(waitpid(other, NULL, WNOHANG), 0);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    return 0;
}

static void test_what_goes_on(void **state)
{
    (void)state;
    assert_int_equal(try_confined(threads), DONE);
    assert_int_equal(try_confined(sorting), DONE);
    assert_int_equal(try_confined(terminal), DONE);
    assert_int_equal(try_confined(unknown_call), DONE);
    assert_int_equal(try_confined(reading), DONE);
    assert_int_equal(try_confined(memory), DONE);
}

static void test_what_fails(void **state)
{
    (void)state;
    if (SANITIZED) {
        skip();
    }
    assert_int_equal(try_confined(writing), REFUSED);
    assert_int_equal(try_confined(making), REFUSED);
    assert_int_equal(try_confined(executing), REFUSED);
    assert_int_equal(try_confined(signalling), REFUSED);
    assert_int_equal(try_confined(signals_from_descriptors), REFUSED);
    assert_int_equal(try_confined(forking), REFUSED);
}

static void test_what_ends_it(void **state)
{
    (void)state;
    if (SANITIZED) {
        skip();
    }
    assert_int_equal(try_confined(changing_modes), ENDED);
    assert_int_equal(try_confined(killing), ENDED);
    assert_int_equal(try_confined(starting), ENDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_goes_on),
        cmocka_unit_test(test_what_fails),
        cmocka_unit_test(test_what_ends_it),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
