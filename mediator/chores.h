/* SPDX-License-Identifier: MIT */
/*
 * What may take long and is not the event loop's to wait for: closing descriptors that others have
 * sent or hold too, and storing into memory in which a guest can punch holes. Threads do it; the
 * event loop alone calls the functions below.
 */
#ifndef VGPU_MEDIATOR_CHORES_H
#define VGPU_MEDIATOR_CHORES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mediator/exports.h"
#include "protocol/vgpu-attach.h"
#include "protocol/vgpu-card.h"
#include "protocol/vgpu-regs.h"

/*
 * Sets the descriptor up that becomes readable when stores are done: chores_told() clears it.
 * Returns it or -errno.
 */
int chores_open(void);
void chores_told(void);

/* Waits for the stores that are under way, for a second at most. The mediator is about to end. */
void chores_finish(void);

/* Closes a descriptor, which is nobody's from here on. Without memory or threads it does so now. */
void chores_close(int fd);

/*
 * Frees what lies in a file but for these parts of it, which ascend, and closes it; both are
 * nobody's from here on.
 */
void chores_empty(int fd, struct extent *but, size_t count);

/*
 * The same for a socket of the mediator's own. Its peer sees the end of file now, however long it
 * takes to close what has been sent over it and not read.
 */
void chores_hang_up(int socket);

/*
 * QUEUE_STATUS and the card in a VM's register page: the mediator's own copies, and the stores that
 * are due. What stands in the memory itself is QEMU's to spoil, and is not read again.
 */
struct status_page;

/*
 * Takes the `queues` words that are in a VM's memory. Returns 0 or -errno, -EPERM where the memory
 * is sealed against writing; the descriptor stays the caller's.
 */
int status_page_create(int memfd, uint64_t shm_size, uint32_t queues, struct status_page **page);

/* Forgets it when the last store is done. */
void status_page_release(struct status_page *page);

uint32_t status_page_word(const struct status_page *page, uint32_t queue);

/* Stores a word, soon: of several stores to one word the last counts. */
void status_page_store(struct status_page *page, uint32_t queue, uint32_t word);

/* Stores the card (vgpu-card.h), soon, with a sequence of its own. */
void status_page_card(struct status_page *page, const struct vgpu_card *card);

/* Whether the last one could not be stored; says so once. */
bool status_page_lost_card(struct status_page *page);

/* Whether all that was stored is there for the guest to see. */
bool status_page_settled(struct status_page *page);

/*
 * Somebody else has filled the VM's memory: reads the words anew. To be called when the page is
 * settled. Returns 0 or -errno.
 */
int status_page_load(struct status_page *page);

#endif
