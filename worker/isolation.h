/* SPDX-License-Identifier: MIT */
/*
 * What a worker gives up, in two stages, because the GPU's driver has to find its
 * files first.
 *
 * | stage  | when                     | what goes                                          |
 * |--------|--------------------------|----------------------------------------------------|
 * | early  | before anything          | new privileges, core dumps, being traced, outliving |
 * |        |                          | the mediator, stray descriptors, the network        |
 * | final  | after the backend opened | the file system, the user, capabilities, system     |
 * |        |                          | calls that its work does not need                   |
 *
 * As root a worker also loses the network, IPC and mount namespaces of the host and sees
 * an empty root directory. Without root those steps are not allowed; the system call
 * filter still denies opening files and sockets.
 */
#ifndef VGPU_WORKER_ISOLATION_H
#define VGPU_WORKER_ISOLATION_H

#include <stdbool.h>
#include <sys/types.h>

/* Closes every descriptor above `last_fd`. Returns 0 or -errno, logged. */
int isolation_early(int last_fd);

/*
 * `user` and `group` are taken when root, unless (uid_t)-1. With `gpu_driver` the filter
 * lets through what a driver needs and answers EPERM to the rest; without it a forbidden
 * call kills the process. Returns 0 or -errno, logged.
 */
int isolation_final(uid_t user, gid_t group, bool gpu_driver);

#endif
