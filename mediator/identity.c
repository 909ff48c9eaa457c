/* SPDX-License-Identifier: MIT */
/* How VMs are named, see identity.h. */
#include "mediator/identity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mediator/printable.h"

static_assert(IDENTITY_TEXT >= SD_ID128_UUID_STRING_MAX, "room for a UUID");
static_assert(IDENTITY_TEXT >= sizeof(((struct identity *)0)->name), "room for a name");

/* ASCII's letters, and whatever is beyond ASCII. */
static bool begins_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
}

/* Nearly a UUID: one digit less or more, say. */
static bool is_mistyped(const char *text)
{
    const size_t length = strlen(text);

    return length > 28 && text[strspn(text, "0123456789abcdefABCDEF-")] == '\0';
}

bool identity_parse(const char *text, struct identity *named)
{
    *named = (struct identity){0};
    if (text[0] != '\0' && text[strspn(text, "0123456789")] == '\0') {
        unsigned long long id;

        errno = 0;
        id = strtoull(text, NULL, 10);
        named->id = errno == 0 && id <= UINT32_MAX ? (uint32_t)id : 0;
        return named->id != 0;
    }
    /* For the library 32 digits without hyphens are one too; here they are a mistake. */
    if (strlen(text) == SD_ID128_UUID_STRING_MAX - 1 &&
        sd_id128_from_string(text, &named->uuid) == 0) {
        return !sd_id128_is_null(named->uuid);
    }
    if (!begins_name(text[0]) || text[strlen(text) - 1] == ' ' || is_mistyped(text)) {
        return false;
    }
    printable_copy(named->name, sizeof(named->name), text);
    return strcmp(named->name, text) == 0;
}

const char *identity_format(const struct identity *named, char text[IDENTITY_TEXT])
{
    if (named->id != 0) {
        snprintf(text, IDENTITY_TEXT, "%" PRIu32, named->id);
    } else if (named->name[0] != '\0') {
        snprintf(text, IDENTITY_TEXT, "%s", named->name);
    } else {
        sd_id128_to_uuid_string(named->uuid, text);
    }
    return text;
}

bool identity_matches(const struct identity *named, const struct identity *who)
{
    if (named->id != 0) {
        return named->id == who->id;
    }
    if (named->name[0] != '\0') {
        return strcmp(named->name, who->name) == 0;
    }
    return sd_id128_equal(named->uuid, who->uuid);
}

void identity_of_hello(const struct vgpu_hello *hello, struct identity *who)
{
    *who = (struct identity){.id = hello->vm_id};
    if ((hello->flags & VGPU_HELLO_HOST) == 0) {
        memcpy(who->uuid.bytes, hello->uuid, sizeof(who->uuid.bytes));
        printable_copy(who->name, sizeof(who->name), hello->name);
    }
}
