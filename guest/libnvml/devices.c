/* SPDX-License-Identifier: MIT */
/*
 * The devices, see devices.h.
 *
 * A card is read again when it is older than CARD_AGE_NS: the host stores a new one each second at
 * most, and to read it through the registers takes longer than any answer here may. nvmlInit() and
 * nvmlShutdown() are counted. A device that cannot be opened is one all the same, as with NVIDIA's:
 * who asks for its handle is told why. In a child of fork() all goes on: what is read is memory
 * that both have, or a file's.
 */
#include "guest/libnvml/devices.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "guest/libvgpu/environment.h"

#define CARD_AGE_NS (100 * NS_PER_MS)

/* What a handle points to. */
struct nvmlDevice_st {
    struct vgpu_watch *watch;
    struct look look;
    uint64_t read_ns;    /* when; 0: never */
    nvmlReturn_t result; /* of that, or of opening it where there is no watch */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct nvmlDevice_st devices[NVML_DEVICES_MAX];
static unsigned device_count;
static unsigned begun; /* nvmlInit()s without their nvmlShutdown() */

/* As libcuda does: only where somebody has set something up for this library, and once. */
static void say_no_gpu(const char *why)
{
    static char said[256];

    if (strncmp(said, why, sizeof(said) - 1) == 0) {
        return;
    }
    snprintf(said, sizeof(said), "%s", why);
    if (getenv("VGPU_HOST") || getenv("VGPU_ADDRESS") || getenv("VGPU_VERBOSE")) {
        fprintf(stderr, "libnvidia-ml (vGPU): no device: %s\n", why);
    }
}

static nvmlReturn_t result_of(int r)
{
    switch (r) {
    case VGPU_OK:
        return NVML_SUCCESS;
    case VGPU_NO_PERMISSION:
        return NVML_ERROR_NO_PERMISSION;
    case VGPU_NO_DEVICE:
    case VGPU_OFFLINE:
        return NVML_ERROR_GPU_IS_LOST;
    case VGPU_TIMED_OUT:
        return NVML_ERROR_NOT_READY;
    case VGPU_INCOMPATIBLE:
        return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    default:
        return NVML_ERROR_UNKNOWN;
    }
}

static void close_devices(void)
{
    for (unsigned i = 0; i < device_count; i++) {
        vgpu_watch_close(devices[i].watch);
        devices[i] = (struct nvmlDevice_st){0};
    }
    device_count = 0;
}

static int open_one(const char *address, const struct vgpu_host_options *host)
{
    struct nvmlDevice_st *device = &devices[device_count];
    const int r = vgpu_watch_open(address, host, &device->watch);

    if (r != VGPU_OK) {
        say_no_gpu(vgpu_last_message());
    }
    device->result = result_of(r);
    device->look.index = device_count++;
    return r;
}

/* All of the guest's, in the order of their addresses. What the last that failed says counts. */
static int open_all(void)
{
    char addresses[NVML_DEVICES_MAX][VGPU_ADDRESS_SIZE];
    unsigned count = vgpu_list(addresses, NVML_DEVICES_MAX), good = 0;
    int r = VGPU_NO_DEVICE;

    count = count < NVML_DEVICES_MAX ? count : NVML_DEVICES_MAX;
    if (count == 0) {
        say_no_gpu("this machine has no vGPU");
    }
    for (unsigned i = 0; i < count; i++) {
        const int one = open_one(addresses[i], NULL);

        good += one == VGPU_OK;
        r = one != VGPU_OK ? one : r;
    }
    return good > 0 ? VGPU_OK : r;
}

static nvmlReturn_t open_devices(void)
{
    struct environment environment;
    const char *wrong = environment_read(&environment);
    int r;

    if (wrong) {
        say_no_gpu(wrong);
        return NVML_ERROR_DRIVER_NOT_LOADED;
    }
    if (environment.on_host) {
        /* It looks, and needs no memory of its own. */
        environment.host.shm_size = VGPU_SHM_MIN;
        r = open_one(NULL, &environment.host);
    } else {
        r = environment.address ? open_one(environment.address, NULL) : open_all();
    }
    if (r == VGPU_OK) {
        return NVML_SUCCESS;
    }
    close_devices();
    return r == VGPU_NO_PERMISSION ? NVML_ERROR_NO_PERMISSION : NVML_ERROR_DRIVER_NOT_LOADED;
}

/* A thread may hold it as another one forks: the child would wait for ever. */
static void lock_devices(void)
{
    pthread_mutex_lock(&mutex);
}

static void unlock_devices(void)
{
    pthread_mutex_unlock(&mutex);
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(lock_devices, unlock_devices, unlock_devices);
}

nvmlReturn_t devices_begin(unsigned flags)
{
    nvmlReturn_t r = NVML_SUCCESS;

    pthread_mutex_lock(&mutex);
    if (begun == 0) {
        r = open_devices();
        if (r == NVML_ERROR_DRIVER_NOT_LOADED && (flags & NVML_INIT_FLAG_NO_GPUS)) {
            r = NVML_SUCCESS;
        }
    }
    begun += r == NVML_SUCCESS;
    pthread_mutex_unlock(&mutex);
    return r;
}

nvmlReturn_t devices_end(void)
{
    nvmlReturn_t r = NVML_ERROR_UNINITIALIZED;

    pthread_mutex_lock(&mutex);
    if (begun > 0) {
        r = NVML_SUCCESS;
        begun--;
        if (begun == 0) {
            close_devices();
        }
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

nvmlReturn_t devices_count(unsigned *count)
{
    nvmlReturn_t r;

    pthread_mutex_lock(&mutex);
    r = begun > 0 ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
    *count = device_count;
    pthread_mutex_unlock(&mutex);
    return r;
}

nvmlReturn_t devices_handle(unsigned index, nvmlDevice_t *device)
{
    nvmlReturn_t r = NVML_ERROR_UNINITIALIZED;

    pthread_mutex_lock(&mutex);
    if (begun > 0) {
        r = index >= device_count          ? NVML_ERROR_INVALID_ARGUMENT
            : devices[index].watch == NULL ? devices[index].result
                                           : NVML_SUCCESS;
    }
    if (r == NVML_SUCCESS) {
        *device = &devices[index];
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* Whether it is a handle; with the mutex. */
static bool is_handle(const struct nvmlDevice_st *device)
{
    for (unsigned i = 0; i < device_count; i++) {
        if (device == &devices[i]) {
            return true;
        }
    }
    return false;
}

static void refresh_look(struct nvmlDevice_st *device)
{
    const uint64_t now = clock_ns();

    if (device->watch && (device->read_ns == 0 || now - device->read_ns > CARD_AGE_NS)) {
        device->result = result_of(
            vgpu_watch_card(device->watch, &device->look.card, device->look.owners));
        device->read_ns = clock_ns();
        if (device->result != NVML_SUCCESS) {
            say_no_gpu(vgpu_last_message());
        }
    }
}

nvmlReturn_t devices_look(nvmlDevice_t device, struct look *look)
{
    nvmlReturn_t r = NVML_ERROR_UNINITIALIZED;

    pthread_mutex_lock(&mutex);
    if (begun > 0) {
        r = NVML_ERROR_INVALID_ARGUMENT;
        if (is_handle(device)) {
            refresh_look(device);
            r = device->result;
            *look = device->look;
        }
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

unsigned devices_processes(const struct look *look, struct gpu_process *found)
{
    unsigned count = 0;

    for (unsigned i = 0; i < VGPU_MAX_QUEUES; i++) {
        const struct vgpu_card_session *session = &look->card.session[i];
        const unsigned pid = (unsigned)look->owners[i];
        unsigned at = 0;

        if (look->owners[i] <= 0) {
            continue;
        }
        while (at < count && found[at].pid != pid) {
            at++;
        }
        if (at == count) {
            found[count++] = (struct gpu_process){.pid = pid};
        }
        found[at].memory += (uint64_t)session->memory * VGPU_CARD_UNIT;
        found[at].busy += session->busy_permille / 10;
        found[at].busy = found[at].busy < 100 ? found[at].busy : 100;
    }
    return count;
}

nvmlReturn_t give_number(const struct look *look, uint32_t known, uint64_t value, unsigned *to)
{
    if ((look->card.known & known) != known) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    *to = (unsigned)value;
    return NVML_SUCCESS;
}

nvmlReturn_t give_string(const struct look *look, uint32_t known, const char *value, char *to,
                         unsigned size)
{
    if ((look->card.known & known) != known) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    if (size <= strlen(value)) {
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    memcpy(to, value, strlen(value) + 1);
    return NVML_SUCCESS;
}

nvmlReturn_t refuse_call(void)
{
    unsigned count;
    const nvmlReturn_t r = devices_count(&count);

    return r == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : r;
}
