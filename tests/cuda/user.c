/* SPDX-License-Identifier: MIT */
/*
 * User objects: they live as long as the program, a graph, a copy of it or what was made executable
 * of it counts on them, and end once.
 *
 * Tests: guest/libcuda/model/user-object.c, guest/libcuda/calls/graph.c
 */
#include "tests/cuda/check.h"

#include <unistd.h>

static void note_end(void *ends)
{
    __atomic_fetch_add((int *)ends, 1, __ATOMIC_SEQ_CST);
}

static CUuserObject object_of(int *ends, unsigned count)
{
    CUuserObject object = NULL;

    GOOD(cuUserObjectCreate(&object, ends, note_end, count, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    EXPECT(object, "none");
    return object;
}

static CUgraph graph_new(void)
{
    CUgraph graph = NULL;

    GOOD(cuGraphCreate(&graph, 0));
    return graph;
}

/* The function may be called by another thread, some time later. */
static void expect_end(const int *ends)
{
    for (int i = 0; i < 5000 && __atomic_load_n(ends, __ATOMIC_SEQ_CST) == 0; i++) {
        usleep(1000);
    }
    usleep(20000);
    EXPECT(__atomic_load_n(ends, __ATOMIC_SEQ_CST) == 1, "%d times", *ends);
}

static void expect_life(const int *ends)
{
    usleep(50000);
    EXPECT(__atomic_load_n(ends, __ATOMIC_SEQ_CST) == 0, "ended");
}

static void test_count_of_a_user_object(void)
{
    int ends = 0;
    const CUuserObject object = object_of(&ends, 2);

    GOOD(cuUserObjectRetain(object, 3));
    GOOD(cuUserObjectRelease(object, 4));
    expect_life(&ends);
    GOOD(cuUserObjectRelease(object, 1));
    expect_end(&ends);
}

static void test_graph_holds_a_user_object(void)
{
    const CUgraph graph = graph_new();
    CUgraph copy;
    int ends = 0;
    const CUuserObject object = object_of(&ends, 1);

    GOOD(cuGraphRetainUserObject(graph, object, 2, 0));
    GOOD(cuUserObjectRelease(object, 1));
    GOOD(cuGraphReleaseUserObject(graph, object, 1));
    GOOD(cuGraphClone(&copy, graph));
    GOOD(cuGraphDestroy(graph));
    expect_life(&ends);
    GOOD(cuGraphDestroy(copy));
    expect_end(&ends);
}

static void test_executable_graph_holds_a_user_object(void)
{
    const CUgraph graph = graph_new();
    CUgraphExec exec;
    int ends = 0;
    const CUuserObject object = object_of(&ends, 1);

    GOOD(cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
    GOOD(cuGraphInstantiate(&exec, graph, 0));
    GOOD(cuGraphDestroy(graph));
    GOOD(cuGraphLaunch(exec, NULL));
    expect_life(&ends);
    GOOD(cuGraphExecDestroy(exec));
    expect_end(&ends);
}

static void test_wrong_user_objects(void)
{
    const CUgraph graph = graph_new();
    CUuserObject object;
    int ends = 0;

    RESULT(cuUserObjectCreate(NULL, &ends, note_end, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuUserObjectCreate(&object, &ends, NULL, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuUserObjectCreate(&object, &ends, note_end, 0, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuUserObjectCreate(&object, &ends, note_end, 1, 0), CUDA_ERROR_INVALID_VALUE);
    object = object_of(&ends, 1);
    RESULT(cuUserObjectRetain(object, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuUserObjectRelease(NULL, 1), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphRetainUserObject(graph, NULL, 1, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphRetainUserObject(graph, object, 0, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphRetainUserObject(graph, object, 1, 2), CUDA_ERROR_INVALID_VALUE);
    expect_life(&ends);
}

const struct test user_tests[] = {
    {"count_of_a_user_object", test_count_of_a_user_object, false},
    {"graph_holds_a_user_object", test_graph_holds_a_user_object, false},
    {"executable_graph_holds_a_user_object", test_executable_graph_holds_a_user_object, false},
    {"wrong_user_objects", test_wrong_user_objects, false},
    {NULL, NULL, false},
};
