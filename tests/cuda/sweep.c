/* SPDX-License-Identifier: MIT */
/*
 * What every call answers to NULL, to zero and to values that it cannot know, one parameter at a
 * time and all at once, by the libcuda.so.1 that the loader finds.
 *
 *   cuda-sweep [--jobs N] [--golden FILE] [--known FILE] [--without-gpu] [NAME...]
 *
 * Prints a line for each case: the call, the case, and the number of the result, or how the process
 * ended. FILE of --golden is such an output of NVIDIA's library: then only what differs is printed,
 * cases in which that one ended are left out, and so are those that FILE of --known has, with this
 * library's result and the reason. With --without-gpu it may be NOT_SUPPORTED, and FILE need not
 * know the cases of a new call: it can be made anew on a GPU alone. The exit code is 0 where
 * nothing differs.
 *
 * What is not the case's own is valid: objects are made anew for each. Where the process ends, or
 * its context is lost, the next one goes on behind.
 *
 * Tests: guest/libcuda/calls/, guest/libcuda/exports/proc.c
 */
#include "tests/cuda/sweep.h"

#include <dlfcn.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS_MAX 600
#define CASES_MAX (2 + 2 * SWEEP_PARAMETERS)
#define SECONDS 120  /* for a case */
#define AFTERWARDS 2 /* seconds for what it started: some streams wait for ever */
#define BUFFER 8192

enum state { NOT_RUN, STARTED, ANSWERED, ENDED, HUNG, NO_OBJECT, NO_SYMBOL, LEFT_OUT };

struct outcome {
    enum state state;
    int result;
};

static struct outcome (*outcomes)[CASES_MAX]; /* shared with the processes that call */
static unsigned jobs = 1;

extern const char kernels_ptx[];

/* Another value for one parameter, or for all. */
struct variant {
    int parameter; /* -1: none, -2: all */
    const char *name;
    uint64_t value;
};

/* Values that are not the valid one, by kind; returns how many. */
static int others(enum sweep_kind kind, struct variant *variant)
{
    switch (kind) {
    case SWEEP_NUMBER:
        variant[0] = (struct variant){0, "0", 0};
        variant[1] = (struct variant){0, "unknown", INT32_MAX};
        return 2;
    case SWEEP_FLAGS:
        variant[0] = (struct variant){0, "unknown", INT32_MAX};
        return 1;
    case SWEEP_SIZE:
        variant[0] = (struct variant){0, "0", 0};
        variant[1] = (struct variant){0, "huge", UINT64_C(1) << 40};
        return 2;
    case SWEEP_DEVICE:
        variant[0] = (struct variant){0, "unknown", 77};
        variant[1] = (struct variant){0, "-1", UINT64_MAX};
        return 2;
    case SWEEP_MEMORY:
    case SWEEP_ALLOCATION:
        variant[0] = (struct variant){0, "0", 0};
        variant[1] = (struct variant){0, "unknown", 4096};
        return 2;
    default:
        variant[0] = (struct variant){0, "NULL", 0};
        return 1;
    }
}

/* The cases of a call. */
static int variants(const struct sweep_call *call, struct variant *variant)
{
    int count = 0;

    variant[count++] = (struct variant){-1, "valid", 0};
    if (call->count > 0) {
        variant[count++] = (struct variant){-2, "zero", 0};
    }
    for (unsigned i = 0; i < call->count; i++) {
        const int more = others(call->parameters[i].kind, variant + count);

        for (int j = 0; j < more; j++) {
            variant[count++].parameter = (int)i;
        }
    }
    return count;
}

static void describe(const struct sweep_call *call, const struct variant *variant, char *text,
                     size_t size)
{
    if (variant->parameter < 0) {
        snprintf(text, size, "%s %s", call->name, variant->name);
    } else {
        snprintf(text, size, "%s %s=%s", call->name, call->parameters[variant->parameter].name,
                 variant->name);
    }
}

/* In the process that calls ---------------------------------------------------------------- */

static _Alignas(64) char buffers[SWEEP_PARAMETERS][BUFFER], pointed_to[BUFFER];
static CUcontext context;
static CUmodule module;
static CUgraph graph;
static CUgraphNode node;

static void host_function(void *data)
{
    (void)data;
}

static void callback(CUstream stream, CUresult result, void *data)
{
    (void)stream;
    (void)result;
    (void)data;
}

static size_t block_function(int threads)
{
    return (size_t)threads;
}

static CUresult make_array(uint64_t *value)
{
    const CUDA_ARRAY3D_DESCRIPTOR shape = {
        .Width = 16, .Height = 16, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};

    return cuArray3DCreate((CUarray *)value, &shape);
}

static CUresult make_mipmap(uint64_t *value)
{
    const CUDA_ARRAY3D_DESCRIPTOR shape = {
        .Width = 16, .Height = 16, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};

    return cuMipmappedArrayCreate((CUmipmappedArray *)value, &shape, 2);
}

static CUresult make_library(uint64_t *value)
{
    return cuLibraryLoadData((CUlibrary *)value, kernels_ptx, NULL, NULL, 0, NULL, NULL, 0);
}

static CUresult make_kernel(uint64_t *value)
{
    uint64_t library = 0;
    const CUresult result = make_library(&library);

    return result != CUDA_SUCCESS
               ? result
               : cuLibraryGetKernel((CUkernel *)value, (CUlibrary)(uintptr_t)library, "vadd");
}

static CUresult make_allocation(uint64_t *value)
{
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};

    return cuMemCreate((CUmemGenericAllocationHandle *)value, 2 << 20, &properties, 0);
}

static CUresult make_pool(uint64_t *value)
{
    const CUmemPoolProps properties = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                       .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};

    return cuMemPoolCreate((CUmemoryPool *)value, &properties);
}

static CUresult make_exec(uint64_t *value)
{
    return cuGraphInstantiateWithFlags((CUgraphExec *)value, graph, 0);
}

/* A valid value of a kind. */
static CUresult make(enum sweep_kind kind, char *buffer, uint64_t *value)
{
    static const char name[] = "vadd";

    *value = 0;
    switch (kind) {
    case SWEEP_NUMBER:
        *value = 1;
        return CUDA_SUCCESS;
    case SWEEP_SIZE:
        *value = 16;
        return CUDA_SUCCESS;
    case SWEEP_FLAGS:
    case SWEEP_DEVICE:
        return CUDA_SUCCESS;
    case SWEEP_POINTERS:
        for (size_t i = 0; i < BUFFER / sizeof(void *); i++) {
            ((void **)buffer)[i] = pointed_to;
        }
        *value = (uintptr_t)buffer;
        return CUDA_SUCCESS;
    case SWEEP_NODES:
        *(CUgraphNode *)buffer = node;
        *value = (uintptr_t)buffer;
        return CUDA_SUCCESS;
    case SWEEP_POINTER:
        *value = (uintptr_t)buffer;
        return CUDA_SUCCESS;
    case SWEEP_STRING:
        *value = (uintptr_t)name;
        return CUDA_SUCCESS;
    case SWEEP_HOST_FUNCTION:
        *value = (uintptr_t)host_function;
        return CUDA_SUCCESS;
    case SWEEP_CALLBACK:
        *value = (uintptr_t)callback;
        return CUDA_SUCCESS;
    case SWEEP_BLOCK_FUNCTION:
        *value = (uintptr_t)block_function;
        return CUDA_SUCCESS;
    case SWEEP_MEMORY:
        return cuMemAlloc((CUdeviceptr *)value, 4096);
    case SWEEP_ALLOCATION:
        return make_allocation(value);
    case SWEEP_CONTEXT:
        *value = (uintptr_t)context;
        return CUDA_SUCCESS;
    case SWEEP_MODULE:
        *value = (uintptr_t)module;
        return CUDA_SUCCESS;
    case SWEEP_FUNCTION:
        return cuModuleGetFunction((CUfunction *)value, module, name);
    case SWEEP_STREAM:
        return cuStreamCreate((CUstream *)value, CU_STREAM_NON_BLOCKING);
    case SWEEP_EVENT:
        return cuEventCreate((CUevent *)value, 0);
    case SWEEP_GRAPH:
        *value = (uintptr_t)graph;
        return CUDA_SUCCESS;
    case SWEEP_NODE:
        *value = (uintptr_t)node;
        return CUDA_SUCCESS;
    case SWEEP_EXEC:
        return make_exec(value);
    case SWEEP_POOL:
        return make_pool(value);
    case SWEEP_LIBRARY:
        return make_library(value);
    case SWEEP_KERNEL:
        return make_kernel(value);
    case SWEEP_ARRAY:
        return make_array(value);
    case SWEEP_MIPMAP:
        return make_mipmap(value);
    case SWEEP_LINK:
        return cuLinkCreate(0, NULL, NULL, (CUlinkState *)value);
    case SWEEP_USER:
        return cuUserObjectCreate((CUuserObject *)value, buffers, host_function, 1,
                                  CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    }
    return CUDA_ERROR_INVALID_VALUE;
}

/* Returns the library. */
static void *begin(void)
{
    const struct rlimit none = {0, 0};
    void *library = dlopen("libcuda.so.1", RTLD_NOW);

    setrlimit(RLIMIT_CORE, &none);
    if (!library || !freopen("/dev/null", "w", stderr) || cuInit(0) != CUDA_SUCCESS ||
        cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS) {
        _exit(0);
    }
    return library;
}

/* What every case finds; false where the context is lost. */
static bool prepare(void)
{
    memset(buffers, 0, sizeof(buffers));
    memset(pointed_to, 0, sizeof(pointed_to));
    return cuCtxSetCurrent(context) == CUDA_SUCCESS &&
           cuModuleLoadData(&module, kernels_ptx) == CUDA_SUCCESS &&
           cuGraphCreate(&graph, 0) == CUDA_SUCCESS &&
           cuGraphAddEmptyNode(&node, graph, NULL, 0) == CUDA_SUCCESS;
}

static void run_case(const struct sweep_call *call, const struct variant *variant, void *function,
                     struct outcome *outcome)
{
    uint64_t value[SWEEP_PARAMETERS] = {0};

    for (unsigned i = 0; i < call->count; i++) {
        if (make(call->parameters[i].kind, buffers[i], &value[i]) != CUDA_SUCCESS) {
            outcome->state = NO_OBJECT;
            return;
        }
    }
    if (variant->parameter == -2) {
        memset(value, 0, sizeof(value));
    } else if (variant->parameter >= 0) {
        value[variant->parameter] = variant->value;
    }
    outcome->state = STARTED;
    outcome->result = (int)call->run(function, value);
    outcome->state = ANSWERED;
}

/* The cases of a call that have no outcome yet. What one started is over before the next. */
static void run_cases(const struct sweep_call *call, void *library, struct outcome *outcome)
{
    struct variant variant[CASES_MAX];
    const int count = variants(call, variant);
    void *function = dlsym(library, call->name);

    for (int i = 0; i < count; i++) {
        if (outcome[i].state != NOT_RUN) {
            continue;
        }
        alarm(SECONDS);
        if (!function) {
            outcome[i].state = NO_SYMBOL;
            continue;
        }
        if (!prepare()) {
            _exit(0);
        }
        run_case(call, &variant[i], function, &outcome[i]);
        alarm(AFTERWARDS);
        cuCtxSetCurrent(context);
        if (cuCtxSynchronize() != CUDA_SUCCESS) {
            _exit(0);
        }
    }
}

/* In the processes that start those ---------------------------------------------------------- */

static bool chosen(const char *name, char **names)
{
    bool found = !*names;

    for (; *names; names++) {
        found = found || strcmp(*names, name) == 0;
    }
    return found;
}

/* The calls of one job. */
static bool own(unsigned call, unsigned job, char **names)
{
    return call % jobs == job && chosen(sweep_calls[call].name, names);
}

/* Gives the case that a process died of its outcome. Returns how many cases have none yet. */
static unsigned settle(unsigned job, char **names, int status)
{
    unsigned left = 0;

    for (unsigned i = 0; sweep_calls[i].name; i++) {
        struct variant variant[CASES_MAX];
        const int count = own(i, job, names) ? variants(&sweep_calls[i], variant) : 0;

        for (int j = 0; j < count; j++) {
            struct outcome *outcome = &outcomes[i][j];

            if (outcome->state == STARTED) {
                outcome->state = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? HUNG : ENDED;
            }
            left += outcome->state == NOT_RUN;
        }
    }
    return left;
}

static void run_job(unsigned job, char **names)
{
    unsigned left = settle(job, names, 0);

    while (left > 0) {
        const unsigned before = left;
        int status = 0;
        const pid_t pid = fork();

        if (pid == 0) {
            void *library = begin();

            for (unsigned i = 0; sweep_calls[i].name; i++) {
                if (own(i, job, names)) {
                    run_cases(&sweep_calls[i], library, outcomes[i]);
                }
            }
            _exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid) {
            perror("cuda-sweep: fork");
            exit(2);
        }
        left = settle(job, names, status);
        if (left == before) {
            fprintf(stderr, "cuda-sweep: no process that has a context, or no valid objects\n");
            exit(2);
        }
    }
}

static void run_all(char **names)
{
    int status = 0;

    for (unsigned job = 0; job < jobs; job++) {
        if (fork() == 0) {
            run_job(job, names);
            exit(0);
        }
    }
    while (wait(&status) > 0) {
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fprintf(stderr, "cuda-sweep: a job ended with status %#x\n", (unsigned)status);
            exit(2);
        }
    }
}

/* What came, and what was expected --------------------------------------------------------- */

/* A file of --golden or --known: its lines, of a case and what is said of it. */
struct list {
    char **lines;
    bool *met; /* whether the case was looked for */
    size_t count;
};

static void read_list(const char *path, struct list *list)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;

    if (!file) {
        perror(path);
        exit(2);
    }
    while (getline(&line, &room, file) > 0) {
        if (line[0] != '#' && line[0] != '\n') {
            list->lines = realloc(list->lines, (list->count + 1) * sizeof(*list->lines));
            list->met = realloc(list->met, (list->count + 1) * sizeof(*list->met));
            if (!list->lines || !list->met) {
                abort();
            }
            list->met[list->count] = false;
            line[strcspn(line, "\n")] = 0;
            list->lines[list->count++] = strdup(line);
        }
    }
    free(line);
    fclose(file);
}

/* What the list says of a case, or NULL. */
static const char *said(const struct list *list, const char *text)
{
    const size_t length = strlen(text);

    for (size_t i = 0; i < list->count; i++) {
        if (strncmp(list->lines[i], text, length) == 0 && list->lines[i][length] == ' ') {
            list->met[i] = true;
            return list->lines[i] + length + 1;
        }
    }
    return NULL;
}

static void tell(const struct outcome *outcome, char *text, size_t size)
{
    static const char *const names[] = {
        [NOT_RUN] = "not-run",   [STARTED] = "started",     [ENDED] = "ends",
        [HUNG] = "hangs",        [NO_OBJECT] = "no-object", [NO_SYMBOL] = "no-symbol",
        [LEFT_OUT] = "left-out",
    };

    if (outcome->state == ANSWERED) {
        snprintf(text, size, "%d", outcome->result);
    } else {
        snprintf(text, size, "%s", names[outcome->state]);
    }
}

/* For each case that is run: its text and its outcome. */
static void for_each(char **names, const struct list *golden, const struct list *known,
                     void (*act)(const char *text, struct outcome *outcome,
                                 const struct list *golden, const struct list *known))
{
    for (unsigned i = 0; sweep_calls[i].name; i++) {
        struct variant variant[CASES_MAX];
        const int count = variants(&sweep_calls[i], variant);

        for (int j = 0; j < count && chosen(sweep_calls[i].name, names); j++) {
            char text[128];

            describe(&sweep_calls[i], &variant[j], text, sizeof(text));
            act(text, &outcomes[i][j], golden, known);
        }
    }
}

static void leave_out(const char *text, struct outcome *outcome, const struct list *golden,
                      const struct list *known)
{
    const char *expected = said(golden, text);

    (void)known;
    if (expected && (expected[0] < '0' || expected[0] > '9')) {
        outcome->state = LEFT_OUT;
    }
}

static unsigned compared, different, without;
static bool without_gpu; /* then much is not supported */

static bool refused(const struct outcome *outcome)
{
    return outcome->state == ANSWERED && outcome->result == CUDA_ERROR_NOT_SUPPORTED;
}

static void compare(const char *text, struct outcome *outcome, const struct list *golden,
                    const struct list *known)
{
    const char *expected = said(golden, text), *allowed = said(known, text);
    char came[32];

    tell(outcome, came, sizeof(came));
    if (outcome->state == LEFT_OUT ||
        (without_gpu && (outcome->state == NO_OBJECT || refused(outcome) || !expected))) {
        without++;
        return;
    }
    compared++;
    if (!expected) {
        printf("%s: came %s, and the golden file does not know it\n", text, came);
        different++;
    } else if (strcmp(came, expected) != 0 &&
               !(allowed && strncmp(allowed, came, strlen(came)) == 0 &&
                 allowed[strlen(came)] == ' ')) {
        printf("%s: expected %s, came %s\n", text, expected, came);
        different++;
    } else if (strcmp(came, expected) == 0 && allowed) {
        printf("%s: %s as expected, and yet it is among the known differences\n", text, came);
        different++;
    }
}

static void show(const char *text, struct outcome *outcome, const struct list *golden,
                 const struct list *known)
{
    char came[32];

    (void)golden;
    (void)known;
    tell(outcome, came, sizeof(came));
    printf("%s %s\n", text, came);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"jobs", required_argument, NULL, 'j'},
        {"golden", required_argument, NULL, 'g'},
        {"known", required_argument, NULL, 'k'},
        {"without-gpu", no_argument, NULL, 'w'},
        {0},
    };
    struct list golden = {0}, known = {0};
    const char *golden_path = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (option == 'j') {
            jobs = (unsigned)strtoul(optarg, NULL, 10);
        } else if (option == 'g') {
            golden_path = optarg;
        } else if (option == 'k') {
            read_list(optarg, &known);
        } else if (option == 'w') {
            without_gpu = true;
        } else {
            return 2;
        }
    }
    outcomes = mmap(NULL, sizeof(*outcomes) * CALLS_MAX, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcomes == MAP_FAILED || jobs < 1) {
        return 2;
    }
    if (golden_path) {
        read_list(golden_path, &golden);
        for_each(argv + optind, &golden, &known, leave_out);
    }
    run_all(argv + optind);
    for_each(argv + optind, &golden, &known, golden_path ? compare : show);
    for (size_t i = 0; golden_path && optind == argc && i < known.count; i++) {
        if (!known.met[i]) {
            printf("%s: there is no such case\n", known.lines[i]);
            different++;
        }
    }
    if (golden_path) {
        printf("%u cases compared, %u different, %u left out\n", compared, different, without);
    }
    return different > 0;
}
