/* SPDX-License-Identifier: MIT */
/*
 * What a worker gives up: isolation.h has the stages, this file the order within them, which
 * matters since each step takes away what the one before may have needed.
 *
 *   early   death signal, no core, no new privileges; stray descriptors; namespaces
 *   final   empty root (needs CAP_SYS_ADMIN, and the GPU's driver has found its files by now);
 *           bounding set (CAP_SETPCAP); groups and user (CAP_SETGID, CAP_SETUID); capabilities;
 *           the filter, which forbids most of the above
 *
 * A step that only root can take is left out without root, and one that containers often deny is
 * logged and passed over. The filter has to hold in any case: if it cannot be installed the worker
 * ends. CPU time and memory are not limited here.
 */
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
#include "common/sanitized.h"

/* Where the empty root is mounted; the mount is seen by this process alone. */
#define EMPTY_ROOT "/tmp"

/* Whether mounts of this process are its own; what it mounts must not be seen by the host. */
static bool own_mounts;

/*
 * Every worker: answer doorbells, wait, allocate, end. No open, no socket, no execve and no kill: a
 * worker has all descriptors that it will ever have. mremap is for realloc() of large blocks.
 */
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

/*
 * What NVIDIA's driver does besides once its context is made; ioctl and fcntl are in
 * allow_limited(). Nobody knows what its next version calls: that fails with EPERM, since a session
 * that goes on without is better than one whose worker is killed.
 */
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
        /*
         * Not what types into a terminal: stderr is the mediator's, which may have been started
         * from one.
         */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                             SCMP_A1(SCMP_CMP_NE, TIOCSTI));
    }
    if (r == 0 && gpu_driver) {
        /* Not what makes QEMU's eventfds block, whose flags are shared. */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
                             SCMP_A1(SCMP_CMP_NE, F_SETFL));
    }
    if (r == 0 && gpu_driver) {
        /* Of the calling thread, which is 0. */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sched_setaffinity), 1,
                             SCMP_A0(SCMP_CMP_EQ, 0));
    }
    return r;
}

/*
 * Memory may be had, but none that is executable: code that was smuggled in as data cannot be made
 * to run. The backend's own code is mapped by now.
 */
static int allow_data_memory(scmp_filter_ctx filter, int call)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                            SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

/*
 * Without a driver the list is complete, so a call off it is an attack or a mistake, and kills.
 * Returns 0 or -errno.
 */
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

    /*
     * Not dumpable: no core file has a guest's data, and other workers, which have the same user,
     * cannot trace this one.
     */
    if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        setrlimit(RLIMIT_CORE, &no_core) < 0) {
        const int r = -errno;

        log_error("cannot restrict this process: %s", strerror(-r));
        return r;
    }
    /* stdin, stdout and stderr stay: log lines go to the mediator's. */
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

/*
 * Makes an empty, read-only directory the root; only in a mount namespace of its own. The mounts
 * become private first, or the host would see this one too. A failure leaves the file system in
 * sight, which the filter lets nobody open.
 */
static void empty_root(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", EMPTY_ROOT, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4k") < 0 ||
        chroot(EMPTY_ROOT) < 0 || chdir("/") < 0) {
        log_debug("no empty root: %s", strerror(errno));
    }
}

/*
 * Groups first: without root they could not be changed any more. All three ids each, so that there
 * is no way back. Returns 0 or -errno.
 */
static int change_user(uid_t user, gid_t group)
{
    if (geteuid() != 0 || user == (uid_t)-1) {
        return 0;
    }
    return setgroups(0, NULL) < 0 || setresgid(group, group, group) < 0 ||
                   setresuid(user, user, user) < 0
               ? -errno
               : 0;
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
