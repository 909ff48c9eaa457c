/* SPDX-License-Identifier: MIT */
/*
 * What the generated half of test-roundtrip (api-roundtrip.c) and the hand-written one share.
 *
 * For each call there is a structure of what is passed and what is to come back. set() fills it;
 * run() calls the guest half with it and compares what came back; a fake in place of the backend
 * compares what arrived, and answers from it. In between lies the generated code of both halves,
 * with a transport (transport.c) in place of the ring and of the rest of libcuda.
 */
#ifndef VGPU_TESTS_API_ROUNDTRIP_H
#define VGPU_TESTS_API_ROUNDTRIP_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/unit/unit.h"
#include "worker/api-calls.h"

#define ELEMENTS 9u      /* the most in an array */
#define STRING_ROOM 128u /* bytes, with the NUL */
#define UNTOUCHED 0x5a   /* where a result comes back, before it does */
#define PASSED 0x20u     /* what is passed to hand-written functions, counted up */

/* What lies in a word of the fixed part. */
enum field_kind {
    FIELD_I32,
    FIELD_U8,
    FIELD_U16,
    FIELD_U32,
    FIELD_U64,
    FIELD_HANDLE,
    FIELD_LENGTH, /* of a string */
    FIELD_MASK,   /* which results are wanted */
};

struct field {
    unsigned word;
    enum field_kind kind;
    enum handle_type type; /* of a handle */
    unsigned bits;         /* of a mask */
    bool stream;           /* the one that the call is work in */
    bool count;            /* of an array */
    bool weight;
};

/* What follows the fixed part. */
struct part {
    unsigned word;  /* where its count is */
    uint64_t fixed; /* or the count itself */
    size_t size;    /* of an element */
    bool string;
};

struct roundtrip {
    uint32_t id, since;
    const char *name;
    bool post;
    unsigned words;                     /* of the fixed part */
    void (*set)(unsigned round);        /* NULL: no arguments */
    CUresult (*run)(unsigned entry);    /* 0: call_NAME(); then the exported functions */
    CUresult (*null)(unsigned missing); /* with one of the pointers NULL */
    unsigned entries, pointers;
    bool variant; /* the last entry's default stream is the thread's own */
    const struct field *fields;
    unsigned field_count;
    const struct part *parts;
    unsigned part_count;
};

/* An exported function whose inner one is written by hand. */
struct hand_entry {
    const char *symbol, *guest;
    CUresult (*run)(bool null_stream);
    enum { NEEDS_NOTHING, NEEDS_INIT, NEEDS_CONTEXT } needs;
    unsigned count;      /* of parameters */
    unsigned stream;     /* which is the stream, from 1; 0: none */
    bool variant;        /* its default stream is the thread's own */
    bool default_stream; /* which one that is follows the parameters */
};

struct refusal {
    const char *name; /* without _vN */
    int version;
    const char *symbol, *own; /* "": no variant */
};

extern const struct roundtrip roundtrips[];
extern const unsigned roundtrip_count;
extern const struct hand_entry hand_entries[];
extern const unsigned hand_entry_count;
extern const struct refusal refusals[];
extern const unsigned refusal_count;
extern const enum handle_type handle_kinds[];
extern const unsigned handle_kind_count;
extern const struct gpu_calls fake_calls;

/* Values to pass: extremes in the first rounds, then random ones. */
uint64_t draw_random(void);
uint64_t draw_number(enum field_kind kind, unsigned round);
unsigned draw_count(unsigned round);
void draw_string(char *string, unsigned round);
void draw_bytes(void *bytes, size_t count);
uint64_t draw_handle(enum handle_type type, unsigned round);

/* Whether the caller asks for the optional result with this bit. */
bool is_wanted(unsigned bit);

/* The worker's object for what a program passed. */
void *object_behind(enum handle_type type, const void *passed);

void assert_zero(const void *bytes, size_t count);

/* What the fakes answer. */
extern enum vgpu_gpu_error fake_result;

/* Says that the fake of a call, or what is written by hand, has been reached. */
void fake_entered(uint32_t id, const struct gpu *gpu);
CUresult guest_entered(const char *name, const uint64_t *passed, unsigned count);

#endif
