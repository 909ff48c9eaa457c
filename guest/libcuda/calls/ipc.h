/* SPDX-License-Identifier: MIT */
/*
 * Memory and events that several processes of a guest have. The host's half is worker/sharing.h,
 * which says what the number of a record is.
 */
#ifndef VGPU_GUEST_LIBCUDA_CALLS_IPC_H
#define VGPU_GUEST_LIBCUDA_CALLS_IPC_H

#include <stdint.h>

#include "api/cuda-types.h"

struct event;

/* Makes an event that was just made one of several processes. */
CUresult ipc_event_make(struct event *event);

/* What the calls of these names do with such an event; streams are the host's handles. */
CUresult ipc_event_record(CUsharedEvent event, uint64_t stream);
CUresult ipc_event_wait(CUsharedEvent event, uint64_t stream);
CUresult ipc_event_query(CUsharedEvent event);
CUresult ipc_event_synchronize(CUsharedEvent event);

/* Closes another's memory, which begins here, however often it was opened: its context ends. */
void ipc_close_all(uint64_t address);

#endif
