/* SPDX-License-Identifier: MIT */
/*
 * libvgpu: a program's way to a vGPU, in a guest through the PCI device (by the guest driver
 * where it is loaded, else by sysfs) or on the host through the mediator's socket.
 *
 * There are two ways to use it. A session is a GPU of the process's own: memory, modules,
 * launches, streams, events; any number of threads may share it. Register mode is one fixed
 * operation at a time, through a handle that serves one thread at a time.
 *
 * Functions return VGPU_OK; or, below 0, another value of enum vgpu_result; or, above 0, an error
 * of the GPU (enum vgpu_gpu_error, CUDA's numbers). vgpu_last_message() then has a sentence for
 * people.
 */
#ifndef VGPU_GUEST_LIBVGPU_VGPU_H
#define VGPU_GUEST_LIBVGPU_VGPU_H

#include <stdint.h>

#include "vgpu-card.h"
#include "vgpu-queue.h"
#include "vgpu-regs.h"
#include "vgpu-request.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

struct vgpu;
struct vgpu_session;

enum vgpu_result {
    VGPU_OK = 0,
    VGPU_NO_DEVICE = -1,     /* no such device, or none at all */
    VGPU_NO_PERMISSION = -2, /* the device is there, this user may not open it */
    VGPU_OFFLINE = -3,       /* no mediator behind the device */
    VGPU_BUSY = -4,          /* another process uses the device */
    VGPU_TIMED_OUT = -5,     /* no answer in time; the request was dropped */
    VGPU_REFUSED = -6,       /* the host answered with an error, see vgpu_device_error() */
    VGPU_BAD_ARGUMENT = -7,
    VGPU_SYSTEM = -8,       /* a system call failed */
    VGPU_INCOMPATIBLE = -9, /* the device speaks another protocol version */
    VGPU_ENDED = -10,       /* the session is gone, see vgpu_session_end() */
};

/* "0000:00:04.0" and its NUL. */
#define VGPU_ADDRESS_SIZE 32

/* How a host process presents itself to the mediator. */
struct vgpu_host_options {
    const char *socket; /* path, or '@' and an abstract name */
    uint32_t vm_id;     /* unique among all that are attached; 0: the mediator chooses */
    char pool;          /* letter */
    enum vgpu_priority priority;
    uint64_t shm_size; /* bytes, see vgpu_shm_size_valid() */
};

/* What the registers say; nothing is asked of the host. */
struct vgpu_identity {
    uint32_t version, pool, priority, vm_id, features, generation, queues;
    uint64_t shm_size; /* bytes */
    enum vgpu_status status;
};

/* Why the last function of this thread failed; valid until the next failure. */
const char *vgpu_last_message(void);

/* The name and a text of any function's result; static. "UNKNOWN" for what this version lacks. */
const char *vgpu_result_name(int result);
const char *vgpu_result_text(int result);

/* PCI addresses of the guest's vGPUs, at most `max`. Returns how many there are, maybe more. */
unsigned vgpu_list(char addresses[][VGPU_ADDRESS_SIZE], unsigned max);

/* Sessions ------------------------------------------------------------------------------- */

struct vgpu_session_options {
    const char *address;                  /* PCI address; NULL: the guest's only vGPU */
    const struct vgpu_host_options *host; /* not NULL: by the mediator's socket instead */
    uint64_t arena_size; /* bytes of shared memory to use; 0: a quarter of the largest free part */
};

/*
 * Opens a session. NULL options are all zero. Waits until the host has a GPU context for it, a
 * fraction of a second. VGPU_BUSY when all queues are taken or no part of the wanted size is
 * free, VGPU_ENDED when the host could not start it; else the errors of vgpu_open() and
 * vgpu_open_host(). A child of fork() may not use its parent's session.
 */
int vgpu_session_open(const struct vgpu_session_options *options, struct vgpu_session **session);

/* Ends the session and all that it has on the GPU; NULL is allowed. No other thread may use it. */
void vgpu_session_close(struct vgpu_session *session);

/*
 * Why a session ended, after VGPU_ENDED or LAUNCH_TIMEOUT, and the reason's name and text. Both
 * strings are static.
 */
enum vgpu_queue_end vgpu_session_end(const struct vgpu_session *session);
const char *vgpu_queue_end_name(enum vgpu_queue_end end);
const char *vgpu_queue_end_text(enum vgpu_queue_end end);

/*
 * Closes queues whose process is gone, which without the guest driver only the next session would
 * do. *count: how many. The errors of vgpu_open(); VGPU_OK with 0 where the driver does it.
 */
int vgpu_reap(const char *address, unsigned *count);

/*
 * About errors of all that follows: calls that say "posted" return before the GPU has worked,
 * mostly VGPU_OK. What goes wrong with them is returned by the next synchronising call of the
 * session, as CUDA does with its asynchronous errors. An error that loses the context
 * (ILLEGAL_ADDRESS and the like) is returned by every call from then on.
 */

/* Does nothing, there and back. */
int vgpu_session_ping(struct vgpu_session *session);

/* What computes. */
int vgpu_session_info(struct vgpu_session *session, struct vgpu_device_info *info);

/* Bytes of device memory, free and in all. */
int vgpu_mem_info(struct vgpu_session *session, uint64_t *free_bytes, uint64_t *total);

/* Device memory: its address is valid in kernels and copies of this session. */
int vgpu_mem_alloc(struct vgpu_session *session, uint64_t bytes, uint64_t *address);

/* Waits for all work of the session. INVALID_VALUE for what vgpu_mem_alloc() did not return. */
int vgpu_mem_free(struct vgpu_session *session, uint64_t address);

/*
 * Memory of this process that the GPU reaches directly, at the same address: copies from and to
 * it are not copied once more, and kernels can use it. From the session's part of the shared
 * memory; when that is full it is ordinary memory, with vgpu_is_pinned() false: slower, and not
 * for kernels. Aligned to 256 bytes. VGPU_SYSTEM when there is no memory at all.
 */
int vgpu_pinned_alloc(struct vgpu_session *session, uint64_t bytes, void **memory);
int vgpu_is_pinned(const struct vgpu_session *session, const void *memory);

/* Gives it back; nothing that uses it may still be running. NULL is allowed. */
void vgpu_pinned_free(struct vgpu_session *session, void *memory);

/*
 * Copies between this process's memory and the GPU's. The first two wait until it is done, behind
 * all work in the default stream. The Async ones are posted to a stream; with memory that is not
 * pinned, `from` may be changed when vgpu_copy_to_async() returns, and vgpu_copy_from_async() waits
 * until the copy is done.
 */
int vgpu_copy_to(struct vgpu_session *session, uint64_t to, const void *from, uint64_t bytes);
int vgpu_copy_from(struct vgpu_session *session, void *to, uint64_t from, uint64_t bytes);
int vgpu_copy_to_async(struct vgpu_session *session, uint64_t to, const void *from, uint64_t bytes,
                       uint64_t stream);
int vgpu_copy_from_async(struct vgpu_session *session, void *to, uint64_t from, uint64_t bytes,
                         uint64_t stream);

/* Within device memory; posted. */
int vgpu_copy_on_device(struct vgpu_session *session, uint64_t to, uint64_t from, uint64_t bytes,
                        uint64_t stream);

/* Fills `count` elements of 1, 2 or 4 bytes (`width`) with the low bytes of `value`; posted. */
int vgpu_fill(struct vgpu_session *session, uint64_t to, uint32_t value, uint32_t width,
              uint64_t count, uint64_t stream);

/*
 * Loads a module from an image in memory: PTX (with or without a NUL), cubin or fatbin.
 * NOT_SUPPORTED where no GPU computes; INVALID_IMAGE, INVALID_PTX and others as CUDA's
 * cuModuleLoadData(). Needs room for the image in the session's part of the shared memory.
 */
int vgpu_module_load(struct vgpu_session *session, const void *image, uint64_t bytes,
                     uint64_t *module);

/* The built-in module, there on every host: see vgpu-queue.h for its functions. */
int vgpu_module_builtin(struct vgpu_session *session, uint64_t *module);

/* Waits for all work of the session. The module's functions are gone too. */
int vgpu_module_unload(struct vgpu_session *session, uint64_t module);

/* A function by its name; NOT_FOUND. */
int vgpu_function_get(struct vgpu_session *session, uint64_t module, const char *name,
                      uint64_t *function);

/* How to launch. What is not set is 0, and 0 blocks or threads count as 1. */
struct vgpu_launch {
    uint64_t function;
    uint64_t stream;   /* 0: the default stream */
    uint32_t grid[3];  /* blocks */
    uint32_t block[3]; /* threads in each */
    uint32_t shared_bytes;
};

/*
 * Launches a kernel; posted. `params` are its parameters as C would lay out a struct of them,
 * `bytes` of them, at most VGPU_PARAMS_MAX.
 */
int vgpu_launch(struct vgpu_session *session, const struct vgpu_launch *launch, const void *params,
                uint32_t bytes);

/*
 * The same with a pointer to each parameter, whose layout is asked of the GPU's driver at a
 * function's first launch. NOT_SUPPORTED when that cannot tell, which is CUDA before 12.4.
 */
int vgpu_launch_args(struct vgpu_session *session, const struct vgpu_launch *launch,
                     const void *const *args);

/* Streams: work in one is done in order; flags are VGPU_STREAM_*. Stream 0 is always there. */
int vgpu_stream_create(struct vgpu_session *session, uint32_t flags, uint64_t *stream);
/* Posted; what the stream has to do is still done. */
int vgpu_stream_destroy(struct vgpu_session *session, uint64_t stream);
/* What is posted to the stream from now on waits until the event has happened; posted. */
int vgpu_stream_wait(struct vgpu_session *session, uint64_t stream, uint64_t event);
/* Waits until the stream has done all. Synchronising. */
int vgpu_stream_sync(struct vgpu_session *session, uint64_t stream);
/* VGPU_OK when it has, NOT_READY when not. */
int vgpu_stream_query(struct vgpu_session *session, uint64_t stream);

/* Events: flags are VGPU_EVENT_*. */
int vgpu_event_create(struct vgpu_session *session, uint32_t flags, uint64_t *event);
/* Posted. */
int vgpu_event_destroy(struct vgpu_session *session, uint64_t event);
/* The event happens when the stream has done what was posted before; posted. */
int vgpu_event_record(struct vgpu_session *session, uint64_t event, uint64_t stream);
/* Waits until it has happened. Synchronising. */
int vgpu_event_sync(struct vgpu_session *session, uint64_t event);
int vgpu_event_query(struct vgpu_session *session, uint64_t event);
/* Time between two events that have happened; NOT_READY before. */
int vgpu_event_elapsed(struct vgpu_session *session, uint64_t start, uint64_t end,
                       float *milliseconds);

/* Waits until all streams have done all. Synchronising. */
int vgpu_session_sync(struct vgpu_session *session);

/* Watching ------------------------------------------------------------------------------- */

struct vgpu_watch;

/*
 * Opens a way to look at what the GPU is and does (vgpu-card.h), which takes no queue and disturbs
 * nobody. Of a guest's device at a PCI address, or its only one where that is NULL; with `host` by
 * the mediator's socket instead, as a process without a session. The errors of vgpu_open(), but
 * BUSY. A watch serves one thread at a time.
 */
int vgpu_watch_open(const char *address, const struct vgpu_host_options *host,
                    struct vgpu_watch **watch);

/*
 * The card as it is now. `owners`, where not NULL, becomes the process id of who has each queue, as
 * far as that is known: 0 otherwise. VGPU_OFFLINE without a mediator, VGPU_TIMED_OUT where the host
 * has told nothing for half a second, which is waited for; VGPU_INCOMPATIBLE where its QEMU, or the
 * guest driver, is of a release that does not tell; VGPU_NO_DEVICE when the device is gone.
 */
int vgpu_watch_card(struct vgpu_watch *watch, struct vgpu_card *card,
                    int32_t owners[VGPU_MAX_QUEUES]);

/*
 * The registers that identify the device. Cannot fail, also while offline. A shared memory of 0
 * bytes is one without an address: a bridge had no room for it when it was plugged in.
 */
void vgpu_watch_identify(struct vgpu_watch *watch, struct vgpu_identity *identity);

/* How the device is reached, for people: "guest driver", "sysfs", "mediator's socket"; static. */
const char *vgpu_watch_way(const struct vgpu_watch *watch);

/* NULL is allowed. */
void vgpu_watch_close(struct vgpu_watch *watch);

/* Register mode -------------------------------------------------------------------------- */

/*
 * Opens the device at a PCI address, or the only one when `address` is NULL; with several,
 * NULL is VGPU_BAD_ARGUMENT. By sysfs the handle holds the device's lock, which ends with
 * it or with the process; VGPU_BUSY when another process holds it for longer than 5 s. With the
 * guest driver it takes one of the device's queues, and requests of all processes take turns;
 * VGPU_BUSY when no queue is left. An offline device can be opened.
 */
int vgpu_open(const char *address, struct vgpu **vgpu);

/*
 * Attaches this process to the mediator of its own host. VGPU_OFFLINE when none is there,
 * VGPU_NO_PERMISSION when it refuses, whatever for: the message has its reason.
 */
int vgpu_open_host(const struct vgpu_host_options *options, struct vgpu **vgpu);

/* Gives the device back; NULL is allowed. A request must not be running. */
void vgpu_close(struct vgpu *vgpu);

/* Reads the registers that identify the device. Cannot fail, also while offline. */
void vgpu_identify(struct vgpu *vgpu, struct vgpu_identity *identity);

/* How long requests may take, in milliseconds; 60,000 unless set. */
void vgpu_set_timeout(struct vgpu *vgpu, uint32_t milliseconds);

/*
 * The part of the shared memory that is this handle's, valid as long as it: half of the largest
 * part that no session uses when first asked for. NULL with a message on failure.
 */
void *vgpu_shm(struct vgpu *vgpu, uint64_t *size);

/* The ERROR register after VGPU_REFUSED. */
enum vgpu_error vgpu_device_error(const struct vgpu *vgpu);

/* Name and text of an ERROR value; "UNKNOWN" for one of a newer host. */
const char *vgpu_error_name(enum vgpu_error error);
const char *vgpu_error_text(enum vgpu_error error);

/*
 * One request in register mode: `length` bytes, at most VGPU_REQUEST_MAX, a multiple of 4;
 * the response has room for VGPU_RESPONSE_MAX. A mediator that goes away meanwhile
 * is waited for until the timeout. VGPU_OFFLINE when there is none to begin with,
 * VGPU_TIMED_OUT, VGPU_REFUSED, VGPU_BAD_ARGUMENT for a bad length.
 */
int vgpu_request(struct vgpu *vgpu, const void *request, uint32_t length, void *response,
                 uint32_t *response_length);

/* Has `length` bytes, at most VGPU_ECHO_MAX, a multiple of 4, come back in `back`. */
int vgpu_echo(struct vgpu *vgpu, const void *bytes, uint32_t length, void *back);

/* What computes behind the device; the errors of vgpu_request(). */
int vgpu_device_info(struct vgpu *vgpu, struct vgpu_device_info *info);

/* sum[i] = a[i] + b[i] for `count` elements, at most VGPU_INLINE_MAX. */
int vgpu_add(struct vgpu *vgpu, enum vgpu_type type, uint32_t count, const void *a, const void *b,
             void *sum);

/* The same for vectors at byte offsets from vgpu_shm(): see struct vgpu_add_shm. */
int vgpu_add_shm(struct vgpu *vgpu, enum vgpu_type type, uint64_t count, uint64_t a, uint64_t b,
                 uint64_t sum);

/* Drops the running request and returns when the device is idle. */
int vgpu_reset(struct vgpu *vgpu);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
