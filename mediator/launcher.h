/* SPDX-License-Identifier: MIT */
/*
 * Starting workers. The launcher is a process beside the mediator, forked before that has read
 * anything of a client's: it keeps the rights that a worker needs to begin with, and has none of
 * the descriptors that others send. The mediator keeps neither (confine.h).
 *
 * The mediator's side: one launcher for the process, used by the event loop's thread alone.
 */
#ifndef VGPU_MEDIATOR_LAUNCHER_H
#define VGPU_MEDIATOR_LAUNCHER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Descriptors of a worker, from VGPU_WORKER_FD_LINK on. */
#define LAUNCHER_FDS 6u
/* Exit code of a worker whose program there is not, as a shell has it. */
#define LAUNCHER_NOT_RUN 127
/* Arguments of a worker's, each with its NUL, all together. */
#define LAUNCHER_TEXT 1024u

/* What all workers have in common; fixed from the launcher's start on. */
struct launcher_fixed {
    const char *worker; /* the program */
    uid_t user;         /* (uid_t)-1: the worker's own choice */
    gid_t group;
    const char *socket; /* the attach socket's path; NULL: there is none */
};

/*
 * Forks the launcher. To be called once, before there are threads or an event loop. Returns the
 * socket to it, which is this module's, or -errno.
 */
int launcher_open(const struct launcher_fixed *fixed);

/*
 * Starts a worker with these arguments, NULL at their end, and LAUNCHER_FDS descriptors, which stay
 * the caller's. Waits until it is forked, which takes less than a millisecond. Returns its process
 * id or -errno; -EPIPE: there is no launcher any more. `start` becomes the number of the start, by
 * which its end is told, and `pidfd` a descriptor of the process, the caller's, or -1.
 */
pid_t launcher_start(const char *const arguments[], const int fds[], uint64_t *start, int *pidfd);

/*
 * A worker that another mediator's launcher has started is this one's from now on, by a pidfd,
 * which stays the caller's. Returns 0 or -errno; `start` as above. Its end is told with `si_code`
 * 0, as nobody but its parent learns more; where it cannot be adopted, that is told at once.
 */
int launcher_adopt(pid_t pid, int pidfd, uint64_t *start);

/* No more are adopted. To be called before anything of a client's is read. */
void launcher_settle(void);

/*
 * Looks up a user, a users_find_fn: libraries and servers that know users are the launcher's to
 * deal with. Waits for five seconds at most, and for a moment where that was too little lately.
 */
bool launcher_find_user(const char *name, uid_t *user, gid_t *group);

/* Lets these users reach the attach socket (access.h); waits until it is done. */
void launcher_admit(const uid_t *users, size_t count);

/* Kills a worker; nothing happens where it has ended already, whoever has its number now. */
void launcher_kill(pid_t pid);

/*
 * The next worker that has ended: the number of its start; `si_pid`, `si_code`, `si_status`.
 * Returns 1, 0 when there is none now, or -EPIPE when there is no launcher any more. To be called
 * when the socket is readable, and after launcher_start() where launcher_pending() says so.
 */
int launcher_next_end(siginfo_t *info, uint64_t *start);

/* Whether ends have been read already, which no event of the socket will tell. */
bool launcher_pending(void);

#endif
