/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that outlive the mediator. They lie in a store: that of systemd, or of vgpu-keeper,
 * which speaks the same protocol (sd_notify(3), FDSTORE=1; sd_listen_fds(3)). While a descriptor is
 * there its other end notices nothing of the mediator's end. The next mediator is started with all
 * of them, by their names:
 *
 *   host.r           the host's record (record.h)
 *   own.WHAT         a listening socket that a mediator has bound: attach or control
 *   VM.r             the VM's record
 *   VM.c             the connection that it came through
 *   VM.a             its account page
 *   VM.N             its memory and eventfds, in the order of vgpu-attach.h
 *   VM.wK.t          the turn page of its worker K: 0 for register mode, 1 + N for queue N
 *   VM.wK.l          the mediator's end of that worker's link
 *   VM.wK.p          a pidfd of it
 *   VM.wK.b          of a session that shares: its book of that (record.h)
 *   VM.wK.e, .m      its files of events and of memory that others may have
 *
 * Where nobody keeps descriptors all of this does nothing, and sessions end with the mediator.
 */
#ifndef VGPU_MEDIATOR_KEEP_H
#define VGPU_MEDIATOR_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names are shorter than this, with the NUL. */
#define KEEP_NAME_SIZE 32u

/* Takes stock of what this process was started with; first of all, before any is used. */
void keep_open(void);

/* Whether somebody may keep descriptors. */
bool keep_works(void);

/*
 * Has a descriptor kept; it stays the caller's. Until it is dropped the kernel does not close what
 * is behind it.
 */
void keep_put(const char *name, int fd);

/*
 * All names go into one string of the next mediator's environment, of 128 KiB at most. Takes room
 * there for names of so many bytes altogether, each with a byte more, and gives it back; false when
 * there is none.
 */
bool keep_reserve(size_t bytes);
void keep_release(size_t bytes);

/* Has it kept no longer. */
void keep_drop(const char *name);

/* What this process was started with under a name, which is the caller's from then on; or -1. */
int keep_take(const char *name);

/* The next VM whose record is there, for which *vm is the one before or 0. False: no more. */
bool keep_next_vm(uint32_t *vm);

/*
 * The one socket that was passed by somebody else, if it is only one, and has another name than
 * `but`; or -1.
 */
int keep_take_lone(const char *but);

/* Closes and drops what nobody has taken. Returns how many that were. */
unsigned keep_close_rest(void);

/* Names, in static storage until the next call. */
const char *keep_name_vm(uint32_t vm, const char *what);
const char *keep_name_memory(uint32_t vm, uint32_t number);
const char *keep_name_worker(uint32_t vm, uint32_t worker, char what);

#endif
