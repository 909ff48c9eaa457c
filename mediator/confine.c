/* SPDX-License-Identifier: MIT */
/*
 * The mediator's sandbox, see confine.h. The order matters, since each step takes away what the one
 * before may have needed:
 *
 *   capabilities   all of them, with the bounding set; as root it stays the owner of its sockets
 *   no new privileges, which the next two need without capabilities
 *   files          by Landlock, where the kernel has it
 *   system calls   the filter, which ends the process at anything else
 *
 * The filter has to hold in any case. Its calls are those that were seen in a run of all tests, and
 * those that libc may make in their place.
 */
#include "mediator/confine.h"

#include <assert.h>
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/sanitized.h"

/* No execve, no kill and no ptrace, and nothing that opens what is not a file or a socket. */
static const int calls[] = {
    /* Descriptors. */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(lseek),
    SCMP_SYS(close),
    SCMP_SYS(fcntl),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(openat),
    SCMP_SYS(getdents64),
    SCMP_SYS(readlink),
    SCMP_SYS(unlink),
    SCMP_SYS(chmod),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fallocate),
    SCMP_SYS(memfd_create),
    SCMP_SYS(eventfd2),
    SCMP_SYS(setxattr),
    /* Sockets. */
    SCMP_SYS(socket),
    SCMP_SYS(socketpair),
    SCMP_SYS(connect),
    SCMP_SYS(accept4),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    /* Waiting. */
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(signalfd4),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(restart_syscall),
    /* Memory; what is executed is there already (see below). */
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    /* Threads, signals, the end. */
    SCMP_SYS(clone3),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(getrandom),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(tgkill),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};
static_assert(sizeof(calls) / sizeof(calls[0]) <= 68, "with mmap and mprotect, 70 at most");

/*
 * Memory that can be executed: none any more. That is an error and not the end, since a user's name
 * may be looked up by a library that has not been needed before; then that name is not known.
 */
static int limit_memory(scmp_filter_ctx filter)
{
    static const int maps[] = {SCMP_SYS(mmap), SCMP_SYS(mprotect)};
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(maps) / sizeof(maps[0]); i++) {
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, maps[i], 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
        if (r == 0) {
            r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), maps[i], 1,
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
        }
    }
    return r;
}

static int limit_calls(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r = filter ? seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) : -ENOMEM;

    for (size_t i = 0; r == 0 && i < sizeof(calls) / sizeof(calls[0]); i++) {
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
    }
    r = r == 0 ? limit_memory(filter) : r;
    r = r == 0 ? seccomp_load(filter) : r;
    seccomp_release(filter);
    return r;
}

/* Rights of Landlock's first version, which all later ones have. */
#define READS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define MAKES_SOCKETS (LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define ALL_RIGHTS                                                                                 \
    (READS | MAKES_SOCKETS | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |          \
     LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |  \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |  \
     LANDLOCK_ACCESS_FS_MAKE_SYM)

/* A directory that is not there needs no rule. */
static int allow_below(int rules, const char *path, uint64_t rights)
{
    struct landlock_path_beneath_attr rule = {
        .allowed_access = rights, .parent_fd = path ? open(path, O_PATH | O_CLOEXEC) : -1};
    int r = 0;

    if (rule.parent_fd >= 0) {
        r = (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
        close(rule.parent_fd);
    }
    return r;
}

/* The system's files are those of libc: users and hosts, time zones, locales, libraries. */
static bool limit_files(const char *const reads[], size_t read_count, const char *const sockets[],
                        size_t socket_count)
{
    static const char *const system[] = {
        "/etc", "/usr", "/lib", "/lib64", "/sys/devices/system", "/var/lib/extrausers"};
    const struct landlock_ruleset_attr attributes = {.handled_access_fs = ALL_RIGHTS};
    const int rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0);
    int r = rules < 0 ? -1 : 0;

    for (size_t i = 0; r == 0 && i < sizeof(system) / sizeof(system[0]); i++) {
        r = allow_below(rules, system[i], READS);
    }
    for (size_t i = 0; r == 0 && i < read_count; i++) {
        r = allow_below(rules, reads[i], READS);
    }
    for (size_t i = 0; r == 0 && i < socket_count; i++) {
        r = allow_below(rules, sockets[i], READS | MAKES_SOCKETS);
    }
    r = r == 0 ? (int)syscall(SYS_landlock_restrict_self, rules, 0) : r;
    if (rules >= 0) {
        close(rules);
    }
    return r == 0;
}

int confine(const char *const reads[], size_t read_count, const char *const sockets[],
            size_t socket_count)
{
    int r;

    capng_clear(CAPNG_SELECT_ALL);
    /* The bounding set while still allowed to. */
    if (geteuid() == 0 && capng_apply(CAPNG_SELECT_BOUNDS) < 0) {
        log_debug("the capability bounding set stays");
    }
    if (capng_apply(CAPNG_SELECT_CAPS) < 0) {
        log_error("cannot drop capabilities");
        return -EPERM;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        r = -errno;
        log_error("cannot refuse new privileges: %s", strerror(-r));
        return r;
    }
    if (!limit_files(reads, read_count, sockets, socket_count)) {
        log_debug("files are not out of sight: %s", strerror(errno));
    }
    r = SANITIZED ? 0 : limit_calls();
    if (r < 0) {
        log_error("cannot install the system call filter: %s", strerror(-r));
    }
    return r;
}
