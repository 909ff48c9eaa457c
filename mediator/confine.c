/* SPDX-License-Identifier: MIT */
/*
 * The mediator's sandbox, see confine.h. The order matters, since each step takes away what the one
 * before may have needed:
 *
 *   capabilities   all, with the bounding set, but one: descriptors that are on their way count
 *                  against their sender's user, and with CAP_SYS_RESOURCE they do not
 *   no new privileges, which the next two need without capabilities
 *   files          by Landlock, where the kernel has it
 *   system calls   the filter
 *
 * The filter has to hold in any case. Its calls are those that were seen in a run of all tests, and
 * those that libc makes in their place.
 */
#include "mediator/confine.h"

#include <assert.h>
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
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

/* What runs with any arguments. */
static const int calls[] = {
    /* Descriptors. */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(lseek),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(getdents64),
    SCMP_SYS(readlink),
    SCMP_SYS(unlink),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fallocate),
    SCMP_SYS(memfd_create),
    SCMP_SYS(eventfd2),
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
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(signalfd4),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(restart_syscall),
    /* Memory. */
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(sysinfo),
    SCMP_SYS(sched_getaffinity),
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
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};
static_assert(sizeof(calls) / sizeof(calls[0]) <= 64, "with those below, 70 at most");

/*
 * What nothing here does, nor any library: whoever calls this is somebody else by now. Other calls
 * fail, as on a kernel that does not have them: a library may ask for anything.
 */
static const int deadly[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(kill),
    SCMP_SYS(tkill),
    SCMP_SYS(rt_sigqueueinfo),
    SCMP_SYS(rt_tgsigqueueinfo),
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(unshare),
    SCMP_SYS(setns),
    SCMP_SYS(setuid),
    SCMP_SYS(setgid),
    SCMP_SYS(setresuid),
    SCMP_SYS(setresgid),
    SCMP_SYS(setgroups),
    SCMP_SYS(capset),
    SCMP_SYS(chmod),
    SCMP_SYS(fchmod),
    SCMP_SYS(fchmodat),
    SCMP_SYS(chown),
    SCMP_SYS(lchown),
    SCMP_SYS(fchown),
    SCMP_SYS(fchownat),
    SCMP_SYS(setxattr),
    SCMP_SYS(lsetxattr),
    SCMP_SYS(fsetxattr),
    SCMP_SYS(mknod),
    SCMP_SYS(mknodat),
    SCMP_SYS(link),
    SCMP_SYS(linkat),
    SCMP_SYS(symlink),
    SCMP_SYS(symlinkat),
    SCMP_SYS(rename),
    SCMP_SYS(renameat),
    SCMP_SYS(renameat2),
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(reboot),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
};

/* With these arguments it runs, with others it fails. */
struct limit {
    int call;
    struct scmp_arg_cmp argument;
};

/* Bits of open()'s flags by which a file is written or made. */
#define MAKES_FILES (O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))

/*
 * Memory is not executed, but for what is there already: a library that was not needed before does
 * not load. Files are read alone; signals go to this process, and from no descriptor.
 */
static int limit_arguments(scmp_filter_ctx filter)
{
    const struct limit limits[] = {
        {SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        {SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        {SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, MAKES_FILES, O_RDONLY)},
        {SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid())},
        {SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)},
        {SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_DUPFD_CLOEXEC)},
        {SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_GETFD)},
        {SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_SETFD)},
        {SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_GETFL)},
        {SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_SETFL)},
        {SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_GET_SEALS)},
        {SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_ADD_SEALS)},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(limits) / sizeof(limits[0]); i++) {
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, limits[i].call, 1, limits[i].argument);
    }
    return r;
}

static int add_rules(scmp_filter_ctx filter, uint32_t action, const int *list, size_t count)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        r = seccomp_rule_add(filter, action, list[i], 0);
    }
    return r;
}

static int limit_calls(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    int r = filter ? seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) : -ENOMEM;

    r = r == 0 ? add_rules(filter, SCMP_ACT_ALLOW, calls, sizeof(calls) / sizeof(calls[0])) : r;
    r = r == 0
            ? add_rules(filter, SCMP_ACT_KILL_PROCESS, deadly, sizeof(deadly) / sizeof(deadly[0]))
            : r;
    r = r == 0 ? limit_arguments(filter) : r;
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
    /* A sanitizer looks for leaks in all threads. */
    static const char *const system[] = {"/etc",
                                         "/usr",
                                         "/lib",
                                         "/lib64",
                                         "/sys/devices/system",
                                         "/var/lib/extrausers",
                                         SANITIZED ? "/proc" : NULL};
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
    bool keeps;
    int r;

    /* A container may lack it. */
    keeps = capng_get_caps_process() == 0 &&
            capng_have_capability(CAPNG_PERMITTED, CAP_SYS_RESOURCE) == 1;
    capng_clear(CAPNG_SELECT_ALL);
    if (keeps) {
        capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_RESOURCE, -1);
    }
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
        log_warning("the mediator sees all files, as this kernel has no Landlock: %s",
                    strerror(errno));
    }
    r = SANITIZED ? 0 : limit_calls();
    if (r < 0) {
        log_error("cannot install the system call filter: %s", strerror(-r));
    }
    return r;
}
