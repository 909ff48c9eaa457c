/* SPDX-License-Identifier: MIT */
/* The library's state, how it begins and ends, and how its functions are found; see entry.h. */
#include "guest/libcuda/entry.h"

#include <dlfcn.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/shared.h"
#include "guest/libcuda/context.h"
#include "guest/libcuda/device.h"
#include "guest/libcuda/reserve.h"
#include "guest/libvgpu/session.h"

#define VGPU_DEFAULT_SHM (UINT64_C(256) << 20)

struct cuda cuda;
static pthread_mutex_t life_mutex = PTHREAD_MUTEX_INITIALIZER;

CUresult enter_init(void)
{
    switch (shared_load_acquire(&cuda.life)) {
    case CUDA_RUNNING:
        return CUDA_SUCCESS;
    case CUDA_ENDED:
        return CUDA_ERROR_DEINITIALIZED;
    default:
        return CUDA_ERROR_NOT_INITIALIZED;
    }
}

CUresult enter_context(void)
{
    const CUresult r = enter_init();

    if (r != CUDA_SUCCESS) {
        return r;
    }
    return context_check();
}

static const struct {
    CUresult error;
    const char *name, *text;
    bool sticky; /* the context is good for nothing afterwards */
} errors[] = {
#define ERROR(value, name, text, sticky)                                                           \
    {VGPU_GPU_##name, (value) == 0 ? "CUDA_SUCCESS" : "CUDA_ERROR_" #name, text, sticky},
    VGPU_GPU_ERRORS(ERROR)
#undef ERROR
};

static int find_error(CUresult error)
{
    for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        if (errors[i].error == error) {
            return (int)i;
        }
    }
    return -1;
}

static bool is_sticky(CUresult error)
{
    const int i = find_error(error);

    return i >= 0 && errors[i].sticky;
}

/* What a session that is gone means to a program. */
static CUresult library_ended(void)
{
    switch (vgpu_session_end(cuda.session)) {
    case VGPU_QUEUE_END_TIMEOUT:
        return CUDA_ERROR_LAUNCH_TIMEOUT;
    case VGPU_QUEUE_END_NO_MEMORY:
        return CUDA_ERROR_OUT_OF_MEMORY;
    default:
        return CUDA_ERROR_DEVICE_UNAVAILABLE;
    }
}

CUresult result_of(int result)
{
    CUresult error = (CUresult)result;

    if (result == VGPU_OK) {
        return CUDA_SUCCESS;
    }
    if (result == VGPU_ENDED) {
        error = library_ended();
    } else if (result == VGPU_BAD_ARGUMENT) {
        error = CUDA_ERROR_INVALID_VALUE;
    } else if (result == VGPU_SYSTEM) {
        error = CUDA_ERROR_OUT_OF_MEMORY;
    } else if (result < 0) {
        error = CUDA_ERROR_UNKNOWN;
    }
    if (is_sticky(error) && shared_load(&cuda.lost) == CUDA_SUCCESS) {
        shared_store(&cuda.lost, error);
        /* Not at the process's own end, which threads in a call see too. */
        if (result == VGPU_ENDED && enter_init() == CUDA_SUCCESS) {
            fprintf(stderr, "libcuda (vGPU): %s\n", vgpu_last_message());
        } else if (error == CUDA_ERROR_LAUNCH_TIMEOUT) {
            fputs("libcuda (vGPU): the session has ended (TIMEOUT): a kernel took longer than the "
                  "VM's max-kernel, or kept others waiting for longer than turn-limit\n",
                  stderr);
        }
    }
    return error;
}

void library_stays(void)
{
    Dl_info own;

    if (dladdr(&cuda, &own) != 0) {
        dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    }
}

CUresult library_thread(void *(*run)(void *argument), void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    int r;

    library_stays();
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return r == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

CUresult refuse(const char *name, int *said)
{
    if (__atomic_exchange_n(said, 1, __ATOMIC_RELAXED) == 0) {
        fprintf(stderr, "libcuda (vGPU): %s is not served: CUDA_ERROR_NOT_SUPPORTED\n", name);
    }
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* Beginning and end ------------------------------------------------------------------------- */

/* A number from the environment, or what there is without it. */
static uint64_t setting_number(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);

    return text && text[0] != '\0' ? strtoull(text, NULL, 0) : otherwise;
}

/* Whether the environment says what it may: nothing, or one of these. */
static bool check_choice(const char *variable, const char *const *choices, unsigned count,
                         unsigned *choice)
{
    const char *text = getenv(variable);

    for (unsigned i = 0; text && text[0] != '\0' && i < count; i++) {
        if (strcmp(text, choices[i]) == 0) {
            *choice = i;
            return true;
        }
    }
    return !text || text[0] == '\0';
}

/* Whether a variable of the environment is a number, where it is there. */
static bool check_number(const char *variable)
{
    const char *text = getenv(variable);
    char *end = NULL;

    if (!text || text[0] == '\0') {
        return true;
    }
    strtoull(text, &end, 0);
    return *end == '\0' && text[0] != '-';
}

/* Says which variable is not what it may be; NULL: all are. */
static const char *wrong_variable(unsigned *priority)
{
    static const char *const priorities[] = {"low", "medium", "high"};
    const char *pool = getenv("VGPU_POOL");

    if (!check_number("VGPU_VM_ID") || !check_number("VGPU_SHM_MIB") ||
        !check_number("VGPU_ARENA_MIB")) {
        return "VGPU_VM_ID, VGPU_SHM_MIB and VGPU_ARENA_MIB are numbers";
    }
    if (!check_choice("VGPU_PRIORITY", priorities, 3, priority)) {
        return "VGPU_PRIORITY is low, medium or high";
    }
    return pool && pool[0] != '\0' && pool[1] != '\0' ? "VGPU_POOL is one letter" : NULL;
}

/* How a process on the host itself reaches the mediator: VGPU_HOST is its socket. */
static struct vgpu_host_options host_options(const char *socket, unsigned priority)
{
    const char *pool = getenv("VGPU_POOL");
    const char *letter = pool && pool[0] != '\0' ? pool : "A";

    return (struct vgpu_host_options){
        .socket = socket,
        .vm_id = (uint32_t)setting_number("VGPU_VM_ID", 1000000u + (uint32_t)getpid()),
        .pool = letter[0],
        .priority = (enum vgpu_priority)priority,
        .shm_size = setting_number("VGPU_SHM_MIB", VGPU_DEFAULT_SHM >> 20) << 20,
    };
}

static int open_session(unsigned priority)
{
    const char *socket = getenv("VGPU_HOST");
    const struct vgpu_host_options host = host_options(socket, priority);
    const bool on_host = socket && socket[0] != '\0';
    const struct vgpu_session_options options = {
        .address = getenv("VGPU_ADDRESS"),
        .host = on_host ? &host : NULL,
        .arena_size = setting_number("VGPU_ARENA_MIB", on_host ? (host.shm_size >> 20) / 2 : 0)
                      << 20,
    };

    return vgpu_session_open(&options, &cuda.session);
}

/* Asks for all that does not change. */
static CUresult say_hello(void)
{
    CUresult r;

    cuda.host_revision = 1;
    r = call_hello(API_REVISION, &cuda.host_revision, &cuda.driver_version, &cuda.total_memory,
                   cuda.name);
    cuda.name[sizeof(cuda.name) - 1] = '\0';
    if (r == CUDA_SUCCESS) {
        r = call_device_identity(&cuda.uuid, cuda.pci_bus_id);
        cuda.pci_bus_id[sizeof(cuda.pci_bus_id) - 1] = '\0';
    }
    return r == CUDA_SUCCESS ? call_device_attributes(cuda.attributes, ATTRIBUTES) : r;
}

/* What is said of an open that failed: a reason that a program's own message will not have. */
static CUresult no_device(const char *why)
{
    if (getenv("VGPU_HOST") || getenv("VGPU_ADDRESS") || getenv("VGPU_VERBOSE")) {
        fprintf(stderr, "libcuda (vGPU): no device: %s\n", why);
    }
    return CUDA_ERROR_NO_DEVICE;
}

static void child_of_fork(void)
{
    if (cuda.life == CUDA_RUNNING) {
        cuda.life = CUDA_FORKED;
    }
}

static CUresult begin_session(void)
{
    unsigned priority = VGPU_PRIORITY_MEDIUM;
    const char *wrong = wrong_variable(&priority);
    int r;

    if (wrong) {
        return no_device(wrong);
    }
    r = open_session(priority);

    if (r != VGPU_OK) {
        return no_device(vgpu_last_message());
    }
    if (say_hello() != CUDA_SUCCESS) {
        vgpu_session_close(cuda.session);
        cuda.session = NULL;
        return no_device("the host's mediator is older than this library and does not know CUDA "
                         "calls");
    }
    pthread_atfork(NULL, NULL, child_of_fork);
    device_tell_truth();
    shared_store_release(&cuda.life, CUDA_RUNNING);
    return CUDA_SUCCESS;
}

CUresult guest_cuInit(unsigned int flags)
{
    CUresult r = CUDA_SUCCESS;

    if (flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&life_mutex);
    if (cuda.life == CUDA_NOT_YET) {
        r = begin_session();
    } else {
        r = enter_init();
    }
    pthread_mutex_unlock(&life_mutex);
    return r;
}

/* At exit, and when the library is unloaded. Threads that are still in a call find it ended. */
__attribute__((destructor)) static void end_session(void)
{
    if (shared_load_acquire(&cuda.life) == CUDA_RUNNING) {
        shared_store_release(&cuda.life, CUDA_ENDED);
        session_hang_up(cuda.session);
        reservations_end();
    }
}

CUresult guest_cuDriverGetVersion(int *version)
{
    if (!version) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *version = CUDA_VERSION;
    if (shared_load_acquire(&cuda.life) == CUDA_RUNNING && cuda.driver_version != 0 &&
        cuda.driver_version < CUDA_VERSION) {
        *version = cuda.driver_version;
    }
    return CUDA_SUCCESS;
}

/* Errors by name ----------------------------------------------------------------------------- */

CUresult guest_cuGetErrorName(CUresult error, const char **name)
{
    const int i = find_error(error);

    if (!name) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *name = i < 0 ? NULL : errors[i].name;
    return i < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult guest_cuGetErrorString(CUresult error, const char **text)
{
    const int i = find_error(error);

    if (!text) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *text = i < 0 ? NULL : errors[i].text;
    return i < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* Finding functions -------------------------------------------------------------------------- */

/* The first entry of a name, or NULL. */
static const struct entry *find_entry(const char *name)
{
    unsigned low = 0, high = entry_count;

    while (low < high) {
        const unsigned middle = (low + high) / 2;

        if (strcmp(entries[middle].name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < entry_count && strcmp(entries[low].name, name) == 0 ? &entries[low] : NULL;
}

/* The newest function of a name that a version of CUDA has. */
static void *find_proc(const struct entry *entry, int version, bool own)
{
    const char *name = entry->name;
    void *found = NULL;

    for (; entry < entries + entry_count && strcmp(entry->name, name) == 0; entry++) {
        if (entry->version <= version) {
            found = own && entry->own_version != 0 && entry->own_version <= version
                        ? entry->own
                        : entry->function;
        }
    }
    return found;
}

CUresult guest_cuGetProcAddress_v2(const char *symbol, void **function, int version,
                                   cuuint64_t flags, CUdriverProcAddressQueryResult *status,
                                   CUstream default_stream)
{
    const bool own = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0 ||
                     (flags == CU_GET_PROC_ADDRESS_DEFAULT &&
                      default_stream == CU_STREAM_PER_THREAD);
    CUdriverProcAddressQueryResult found = CU_GET_PROC_ADDRESS_SUCCESS;
    const struct entry *entry;

    if (!symbol || !function || version < 0 ||
        (flags & ~(cuuint64_t)(CU_GET_PROC_ADDRESS_LEGACY_STREAM |
                               CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    entry = find_entry(symbol);
    *function = entry ? find_proc(entry, version, own) : NULL;
    if (!*function) {
        found = entry ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                      : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    }
    if (status) {
        *status = found;
    }
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult guest_cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags)
{
    return guest_cuGetProcAddress_v2(symbol, function, version, flags, NULL, CU_STREAM_LEGACY);
}

CUresult guest_cuGetExportTable(const void **table, const CUuuid *id)
{
    static int said;

    (void)id;
    if (table) {
        *table = NULL;
    }
    if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED) == 0) {
        fputs("libcuda (vGPU): NVIDIA's runtime library (cudart), which asks for cuGetExportTable, "
              "is "
              "not served yet\n",
              stderr);
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuProfilerStart(void)
{
    return CUDA_SUCCESS;
}

CUresult guest_cuProfilerStop(void)
{
    return CUDA_SUCCESS;
}
