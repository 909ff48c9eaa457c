/* SPDX-License-Identifier: MIT */
/* What a worker gives up, see isolation.h. */
#include "worker/isolation.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log.h"

/* Where the empty root is mounted; the mount is seen by this process alone. */
#define EMPTY_ROOT "/tmp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* Whether mounts of this process are its own; what it mounts must not be seen by the host. */
static bool own_mounts;

/* Every worker: answer doorbells, wait, allocate, end. */
static const int base_calls[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(close),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(exit),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(exit_group),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(sched_yield),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(clock_nanosleep),
};

/* What NVIDIA's driver does besides once its context is made. */
static const int driver_calls[] = {
    SCMP_SYS(mlock),
    SCMP_SYS(munlock),
    SCMP_SYS(clone),
    SCMP_SYS(clone3),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(getcpu),
    SCMP_SYS(eventfd2),
    SCMP_SYS(pipe2),
    SCMP_SYS(lseek),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(sysinfo),
    SCMP_SYS(nanosleep),
    SCMP_SYS(get_mempolicy),
    SCMP_SYS(set_mempolicy),
    SCMP_SYS(mbind),
    SCMP_SYS(membarrier),
    SCMP_SYS(prctl),
    SCMP_SYS(sigaltstack),
};

/* What the sanitizers of a test build do; never in a release build. */
static const int sanitizer_calls[] = {
    SCMP_SYS(sigaltstack),
    SCMP_SYS(readlink),
    SCMP_SYS(openat),
    SCMP_SYS(prctl),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(getuid),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(prlimit64),
    SCMP_SYS(clone),
    SCMP_SYS(wait4),
    SCMP_SYS(newfstatat),
    SCMP_SYS(ioctl),
    SCMP_SYS(nanosleep),
    SCMP_SYS(fstat),
    SCMP_SYS(getdents64),
};

static int allow_calls(scmp_filter_ctx filter, const int *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);

        if (r < 0) {
            return r;
        }
    }
    return 0;
}

#define ALLOW(filter, calls) allow_calls(filter, calls, sizeof(calls) / sizeof((calls)[0]))

/* Calls that are harmless with some arguments alone. */
static int allow_limited(scmp_filter_ctx filter, bool gpu_driver)
{
    /* Signals to itself, as abort() does; other workers have the same user. */
    int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                             SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));

    if (r == 0 && gpu_driver) {
        /* Not what types into a terminal. */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                             SCMP_A1(SCMP_CMP_NE, TIOCSTI));
    }
    if (r == 0 && gpu_driver) {
        /* Not what makes QEMU's eventfds block, whose flags are shared. */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
                             SCMP_A1(SCMP_CMP_NE, F_SETFL));
    }
    if (r == 0 && gpu_driver) {
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sched_setaffinity), 1,
                             SCMP_A0(SCMP_CMP_EQ, 0));
    }
    return r;
}

/* Memory may be had, but none that is both new and executable. */
static int allow_data_memory(scmp_filter_ctx filter, int call)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                            SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

static int install_filter(bool gpu_driver)
{
    scmp_filter_ctx filter = seccomp_init(gpu_driver ? SCMP_ACT_ERRNO(EPERM)
                                                     : SCMP_ACT_KILL_PROCESS);
    int r;

    if (!filter) {
        return -ENOMEM;
    }
    /* Threads that the backend has started already are bound by the filter too. */
    r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r == 0) {
        r = ALLOW(filter, base_calls);
    }
    if (r == 0 && gpu_driver) {
        r = ALLOW(filter, driver_calls);
    }
    if (r == 0) {
        r = allow_limited(filter, gpu_driver);
    }
    if (r == 0 && SANITIZED) {
        r = ALLOW(filter, sanitizer_calls);
    }
    if (r == 0) {
        r = allow_data_memory(filter, SCMP_SYS(mmap));
    }
    if (r == 0) {
        r = allow_data_memory(filter, SCMP_SYS(mprotect));
    }
    if (r == 0) {
        r = seccomp_load(filter);
    }
    seccomp_release(filter);
    return r;
}

int isolation_early(int last_fd)
{
    const struct rlimit no_core = {0, 0};

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &no_core) < 0) {
        const int r = -errno;

        log_error("cannot restrict this process: %s", strerror(-r));
        return r;
    }
    if (close_range((unsigned)last_fd + 1, ~0u, 0) < 0) {
        const int r = -errno;

        log_error("cannot close stray descriptors: %s", strerror(-r));
        return r;
    }
    if (geteuid() == 0) {
        own_mounts = unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS) == 0;
        if (!own_mounts) {
            /* Containers often deny it; the system call filter holds all the same. */
            log_debug("no namespaces of its own: %s", strerror(errno));
        }
    }
    return 0;
}

/* Makes an empty, read-only directory the root; only in a mount namespace of its own. */
static void empty_root(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", EMPTY_ROOT, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4k") < 0 ||
        chroot(EMPTY_ROOT) < 0 || chdir("/") < 0) {
        log_debug("no empty root: %s", strerror(errno));
    }
}

static int change_user(uid_t user, gid_t group)
{
    if (geteuid() != 0 || user == (uid_t)-1) {
        return 0;
    }
    if (setgroups(0, NULL) < 0 || setresgid(group, group, group) < 0 ||
        setresuid(user, user, user) < 0) {
        return -errno;
    }
    /* A change of user clears it. */
    return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? -errno : 0;
}

int isolation_final(uid_t user, gid_t group, bool gpu_driver)
{
    int r;

    if (own_mounts) {
        empty_root();
    }
    capng_clear(CAPNG_SELECT_ALL);
    /* The bounding set while still allowed to; it needs CAP_SETPCAP, which others lack anyway. */
    if (geteuid() == 0 && capng_apply(CAPNG_SELECT_BOUNDS) < 0) {
        log_debug("the capability bounding set stays");
    }
    r = change_user(user, group);
    if (r < 0) {
        log_error("cannot become user %ld: %s", (long)user, strerror(-r));
        return r;
    }
    if (capng_apply(CAPNG_SELECT_CAPS) < 0) {
        log_error("cannot drop capabilities");
        return -EPERM;
    }
    r = install_filter(gpu_driver);
    if (r < 0) {
        log_error("cannot install the system call filter: %s", strerror(-r));
    }
    return r;
}
