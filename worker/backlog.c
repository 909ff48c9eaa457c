/* SPDX-License-Identifier: MIT */
/* Commands that wait for their time, see backlog.h. */
#include "worker/backlog.h"

#include <stdlib.h>
#include <string.h>

static struct backlog_entry *entry_at(struct backlog *b, uint32_t index)
{
    return &b->entries[(b->first + index) % BACKLOG_COMMANDS];
}

bool backlog_has_room(const struct backlog *b)
{
    return b->count < BACKLOG_COMMANDS && BACKLOG_BYTES - b->used >= VGPU_COMMAND_MAX;
}

/* Copies between the ring, from `offset` on, and `bytes`, in two parts where it wraps. */
static void backlog_copy_out(const struct backlog *b, uint32_t offset, void *bytes, uint32_t length)
{
    const uint32_t to_end = BACKLOG_BYTES - offset;
    const uint32_t now = length < to_end ? length : to_end;

    memcpy(bytes, b->bytes + offset, now);
    memcpy((uint8_t *)bytes + now, b->bytes, length - now);
}

static void copy_in(struct backlog *b, uint32_t offset, const void *bytes, uint32_t length)
{
    const uint32_t to_end = BACKLOG_BYTES - offset;
    const uint32_t now = length < to_end ? length : to_end;

    memcpy(b->bytes + offset, bytes, now);
    memcpy(b->bytes, (const uint8_t *)bytes + now, length - now);
}

bool backlog_add(struct backlog *b, const struct ring_command *command,
                 const struct command_facts *facts)
{
    const struct vgpu_command *header = &command->header;

    if (!b->bytes) {
        b->bytes = malloc(BACKLOG_BYTES);
        if (!b->bytes) {
            return false;
        }
    }
    *entry_at(b, b->count) = (struct backlog_entry){
        .facts = *facts,
        .length = header->length,
        .slot = header->slot,
    };
    copy_in(b, (b->head + b->used) % BACKLOG_BYTES, command, header->length);
    b->count++;
    b->used += header->length;
    if (header->slot != 0) {
        b->slots |= UINT64_C(1) << (header->slot - 1);
    }
    return true;
}

void backlog_take(struct backlog *b, struct ring_command *command, struct command_facts *facts)
{
    const struct backlog_entry *entry = entry_at(b, 0);

    backlog_copy_out(b, b->head, command, entry->length);
    *facts = entry->facts;
    if (entry->slot != 0) {
        b->slots &= ~(UINT64_C(1) << (entry->slot - 1));
    }
    b->head = (b->head + entry->length) % BACKLOG_BYTES;
    b->used -= entry->length;
    b->first = (b->first + 1) % BACKLOG_COMMANDS;
    b->count--;
}

uint32_t backlog_find(const struct backlog *b, uint32_t flags, const struct command_key *key)
{
    for (uint32_t i = b->count; i > 0; i--) {
        const struct backlog_entry *entry = &b->entries[(b->first + i - 1) % BACKLOG_COMMANDS];

        if ((entry->facts.flags & flags) != 0 && command_key_matches(key, &entry->facts.key)) {
            return i;
        }
    }
    return 0;
}

void backlog_release(struct backlog *b)
{
    free(b->bytes);
    b->bytes = NULL;
    b->count = 0;
}
