/* SPDX-License-Identifier: MIT */
/*
 * Bodies of commands for a fuzzer: what fills in each is generated from api/ring.api, field by
 * field, so that a new command is covered as soon as it is described.
 */
#ifndef VGPU_TESTS_FUZZ_COMMAND_BODIES_H
#define VGPU_TESTS_FUZZ_COMMAND_BODIES_H

#include <stdbool.h>
#include <stdint.h>

struct input;

/* By the fuzzer: what its input chooses for a double word, and for a number of 32 bits. */
uint64_t fuzz_argument(struct input *in);
uint32_t fuzz_number(struct input *in);

/*
 * By the fuzzer: fills in what follows, at most `most` units of `size` bytes, and `room` in all.
 * Returns the count, in units.
 */
uint32_t fuzz_follow(struct input *in, uint8_t *to, uint32_t size, uint32_t most, uint32_t room);

/* Generated. Writes the body of a command of good form, and returns its bytes. */
uint32_t command_body(struct input *in, uint32_t opcode, uint8_t *body, uint32_t room);

/* Generated: whether a command needs a slot, gives a handle or address, may say NOT_READY. */
bool command_wants_slot(uint32_t opcode);
bool command_gives_value(uint32_t opcode);
bool command_asks(uint32_t opcode);

#endif
