/* SPDX-License-Identifier: MIT */
/*
 * Values of the configuration: numbers, sizes, durations, words, users. A reader takes the whole
 * text or refuses it: a sign, a blank or a suffix too many is a mistake and is not passed over. Its
 * error is the second half of a sentence, "must be ...", which stands in the key's table
 * (config-key.c).
 *
 * All numbers are integers, also those with decimals: 1.5 is read as 1500 thousandths. So a value
 * that is written is exactly the value that was read, and the values that vgpuctl shows can be put
 * into a configuration.
 */
#include "mediator/config-value.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "mediator/arbiter.h"
#include "mediator/users.h"

#define ITEM_SIZE 256 /* of one word of a list */

/*
 * The first character must be a digit: strtoull() itself would also take blanks and a sign, and
 * read -1 as the largest number.
 */
bool config_parse_u64(const char *text, uint64_t max, uint64_t *value, const char **end)
{
    char *stop;

    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *value = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0 && *value <= max;
}

/*
 * A number with up to 3 decimals, in thousandths. The bound leaves room for the decimals, so the
 * sum cannot overflow.
 */
static bool parse_thousandths(const char *text, uint64_t *value, const char **end)
{
    uint64_t scale = 100;

    if (!config_parse_u64(text, UINT64_MAX / 1000 - 1, value, end)) {
        return false;
    }
    *value *= 1000;
    if (**end != '.') {
        return true;
    }
    for ((*end)++; **end >= '0' && **end <= '9'; (*end)++, scale /= 10) {
        if (scale == 0) {
            return false;
        }
        *value += scale * (uint64_t)(**end - '0');
    }
    /* A point has at least one digit behind it. */
    return scale < 100;
}

static const struct {
    const char *name;
    uint64_t ns; /* of a thousandth */
} time_units[] = {{"s", NS_PER_MS}, {"ms", NS_PER_US}, {"us", 1}};

static bool parse_duration(const char *text, uint64_t *ns)
{
    uint64_t thousandths;
    const char *end;

    if (!parse_thousandths(text, &thousandths, &end)) {
        return false;
    }
    /* A whole number alone means seconds; with a point it needs its unit. */
    if (*end == '\0' && !strchr(text, '.')) {
        end = "s";
    }
    for (size_t i = 0; i < sizeof(time_units) / sizeof(time_units[0]); i++) {
        if (strcmp(end, time_units[i].name) == 0) {
            return !__builtin_mul_overflow(thousandths, time_units[i].ns, ns);
        }
    }
    return false;
}

static bool parse_size(const char *text, uint64_t *size)
{
    static const char suffixes[] = "KMGT";
    const char *suffix, *end;
    unsigned shift;

    if (!config_parse_u64(text, UINT64_MAX, size, &end)) {
        return false;
    }
    if (*end == '\0') {
        return true;
    }
    suffix = strchr(suffixes, *end);
    if (!suffix || end[1] != '\0') {
        return false;
    }
    shift = 10 * (unsigned)(suffix - suffixes + 1);
    /* The shift itself would lose the upper bits without a word. */
    if (*size > UINT64_MAX >> shift) {
        return false;
    }
    *size <<= shift;
    return true;
}

/*
 * The next word of a list; false at its end. A word always fits: a line of the configuration has at
 * most 198 characters.
 */
static bool next_item(const char **list, char item[ITEM_SIZE])
{
    static const char separators[] = " ,\t";
    size_t length;

    *list += strspn(*list, separators);
    length = strcspn(*list, separators);
    snprintf(item, ITEM_SIZE, "%.*s", (int)length, *list);
    *list += length;
    return length > 0;
}

static bool value_in_range(const struct key *key, uint64_t value)
{
    return value >= key->min && value <= key->max;
}

static bool is_none(const struct key *key, const char *value)
{
    return key->none && strcmp(value, "none") == 0;
}

/* The field owns its text: the one before is freed, be it the default's or an earlier file's. */
const char *config_read_text(const struct key *key, const char *value, void *field)
{
    char **text = field;
    char *copy;

    if (value[0] == '\0') {
        return key->expected;
    }
    copy = strdup(value);
    if (!copy) {
        return "shorter: out of memory";
    }
    free(*text);
    *text = copy;
    return NULL;
}

const char *config_read_gpu_name(const struct key *key, const char *value, void *field)
{
    char name[CONFIG_GPU_NAME] = "";

    if (!is_none(key, value)) {
        /* Printable ASCII, as the protocol has it. */
        for (size_t i = 0; value[i] != '\0'; i++) {
            if (i == sizeof(name) - 1 || value[i] < ' ' || value[i] > '~') {
                return key->expected;
            }
            name[i] = value[i];
        }
        if (name[0] == '\0') {
            return key->expected;
        }
    }
    memcpy(field, name, sizeof(name));
    return NULL;
}

/*
 * Only loopback addresses are allowed, since there is no authentication. They are compared as text:
 * a name would have to be looked up, and could lead anywhere.
 */
const char *config_read_metrics(const struct key *key, const char *value, void *field)
{
    static const char *const loopbacks[] = {"127.0.0.1:", "[::1]:"};
    bool known = value[0] == '/' || strcmp(value, "off") == 0;

    for (size_t i = 0; i < sizeof(loopbacks) / sizeof(loopbacks[0]); i++) {
        const size_t length = strlen(loopbacks[i]);
        const char *end;
        uint64_t port;

        known |= strncmp(value, loopbacks[i], length) == 0 &&
                 config_parse_u64(value + length, UINT16_MAX, &port, &end) && *end == '\0' &&
                 port > 0;
    }
    return known ? config_read_text(key, value, field) : key->expected;
}

/* The field is a bool or an enum; the words are in the order of its values. */
const char *config_read_word(const struct key *key, const char *value, void *field)
{
    for (unsigned i = 0; key->words[i]; i++) {
        if (strcmp(value, key->words[i]) != 0) {
            continue;
        }
        if (key->size == sizeof(bool)) {
            *(bool *)field = i != 0;
        } else {
            memcpy(field, &i, sizeof(i));
        }
        return NULL;
    }
    return key->expected;
}

/* Only for enums: a bool has fewer bytes than are read here. */
void config_write_word(const struct key *key, const void *field, char *text, size_t size)
{
    unsigned value;

    memcpy(&value, field, sizeof(value));
    snprintf(text, size, "%s", key->words[value]);
}

/*
 * `none` is stored as 0. A 0 that is written as a number is below the key's minimum, and so a
 * mistake.
 */
const char *config_read_number(const struct key *key, const char *value, void *field)
{
    const char *end;
    uint64_t number = 0;

    if (!is_none(key, value) && (!config_parse_u64(value, UINT32_MAX, &number, &end) ||
                                 *end != '\0' || !value_in_range(key, number))) {
        return key->expected;
    }
    *(uint32_t *)field = (uint32_t)number;
    return NULL;
}

void config_write_number(const struct key *key, const void *field, char *text, size_t size)
{
    const uint32_t number = *(const uint32_t *)field;

    if (key->none && number == 0) {
        snprintf(text, size, "none");
    } else {
        snprintf(text, size, "%" PRIu32, number);
    }
}

const char *config_read_size(const struct key *key, const char *value, void *field)
{
    uint64_t size = 0;

    if (!is_none(key, value) && (!parse_size(value, &size) || !value_in_range(key, size))) {
        return key->expected;
    }
    *(uint64_t *)field = size;
    return NULL;
}

/* The largest unit that divides the number of bytes: 1.5 GiB is "1536M". */
void config_write_size(const struct key *key, const void *field, char *text, size_t size)
{
    static const char *const suffixes[] = {"", "K", "M", "G", "T"};
    uint64_t bytes = *(const uint64_t *)field;
    unsigned i = 0;

    if (key->none && bytes == 0) {
        snprintf(text, size, "none");
        return;
    }
    for (; i < 4 && bytes != 0 && bytes % 1024 == 0; i++) {
        bytes /= 1024;
    }
    snprintf(text, size, "%" PRIu64 "%s", bytes, suffixes[i]);
}

const char *config_read_shm(const struct key *key, const char *value, void *field)
{
    uint64_t size;

    if (!parse_size(value, &size) || !vgpu_shm_size_valid(size)) {
        return key->expected;
    }
    *(uint64_t *)field = size;
    return NULL;
}

/* Where none is a value, so is any 0. */
const char *config_read_duration(const struct key *key, const char *value, void *field)
{
    uint64_t ns = 0;

    if (!is_none(key, value) &&
        (!parse_duration(value, &ns) || !(value_in_range(key, ns) || (key->none && ns == 0)))) {
        return key->expected;
    }
    *(uint64_t *)field = ns;
    return NULL;
}

/*
 * The value is written in the largest unit in which it is at least 1 and has at most 3 decimals:
 * 1500000 ns is "1.5ms", and 1234567 ns is "1234.567us".
 */
void config_write_duration(const struct key *key, const void *field, char *text, size_t size)
{
    const uint64_t ns = *(const uint64_t *)field;
    unsigned unit = 0;
    uint64_t whole, decimals;
    int digits = 3;

    if (key->none && ns == 0) {
        snprintf(text, size, "none");
        return;
    }
    while (time_units[unit].ns > 1 &&
           (ns % time_units[unit].ns != 0 || ns < time_units[unit].ns * 1000)) {
        unit++;
    }
    whole = ns / time_units[unit].ns / 1000;
    decimals = ns / time_units[unit].ns % 1000;
    if (decimals == 0) {
        snprintf(text, size, "%" PRIu64 "%s", whole, time_units[unit].name);
        return;
    }
    for (; decimals % 10 == 0; digits--) {
        decimals /= 10;
    }
    snprintf(text, size, "%" PRIu64 ".%0*" PRIu64 "%s", whole, digits, decimals,
             time_units[unit].name);
}

const char *config_read_percentage(const struct key *key, const char *value, void *field)
{
    uint64_t thousandths;
    const char *end;

    if (!parse_thousandths(value, &thousandths, &end) || !value_in_range(key, thousandths) ||
        (*end != '\0' && strcmp(end, "%") != 0)) {
        return key->expected;
    }
    /* 1 % is 1000 thousandths of a per cent here, and 10000 ARBITER_LEAST_ONEths in the field. */
    *(uint32_t *)field = (uint32_t)(thousandths * (ARBITER_LEAST_ONE / 100) / 1000);
    return NULL;
}

/* The letter itself is the pool's number in messages, fields and registers. */
bool config_parse_pool(const char *text, uint32_t *pool)
{
    *pool = (uint32_t)text[0];
    return text[0] >= 'A' && text[0] <= 'Z' && text[1] == '\0';
}

/* `any` is stored as 0. A section's name cannot be `any`, and so does not come through here. */
const char *config_read_pool(const struct key *key, const char *value, void *field)
{
    uint32_t pool = 0;

    if (strcmp(value, "any") != 0 && !config_parse_pool(value, &pool)) {
        return key->expected;
    }
    *(uint32_t *)field = pool;
    return NULL;
}

/*
 * The field is the whole pool. A wrong list leaves the pool without GPUs, so that check_pools()
 * does not find mistakes in a part of it.
 */
const char *config_read_devices(const struct key *key, const char *value, void *field)
{
    struct config_pool *pool = field;
    bool listed[CONFIG_GPUS_MAX] = {false};
    char item[ITEM_SIZE];

    pool->device_count = 0;
    while (next_item(&value, item)) {
        const char *end;
        uint64_t number;

        if (!config_parse_u64(item, CONFIG_GPUS_MAX - 1, &number, &end) || *end != '\0' ||
            listed[number] || pool->device_count == CONFIG_DEVICES) {
            pool->device_count = 0;
            return key->expected;
        }
        listed[number] = true;
        pool->devices[pool->device_count++] = (int)number;
    }
    return pool->device_count > 0 ? NULL : key->expected;
}

/*
 * A user by name or number; *group may be NULL. A number counts even if no user has it; the group
 * then gets the same number.
 */
static bool find_user(const char *name, uid_t *user, gid_t *group)
{
    const char *end;
    uint64_t number;
    uid_t found;
    gid_t own;

    if (config_parse_u64(name, INT_MAX, &number, &end) && *end == '\0') {
        *user = (uid_t)number;
        if (group) {
            *group = users_find(name, &found, &own) ? own : (gid_t)number;
        }
        return true;
    }
    if (!users_find(name, &found, &own)) {
        return false;
    }
    *user = found;
    if (group) {
        *group = own;
    }
    return true;
}

const char *config_read_user(const struct key *key, const char *value, void *field)
{
    return find_user(value, field, NULL) ? NULL : key->expected;
}

/* The field of this and the next one is the whole configuration. */
const char *config_read_worker_user(const struct key *key, const char *value, void *field)
{
    struct config *config = field;
    uid_t user;
    gid_t group;

    /* The threads that a worker has would keep root's rights. */
    if (!find_user(value, &user, &group) || user == 0) {
        return key->expected;
    }
    config->worker_user = user;
    config->worker_group = group;
    return NULL;
}

const char *config_read_users(const struct key *key, const char *value, void *field)
{
    struct config *config = field;
    char item[ITEM_SIZE];

    static char unknown[ITEM_SIZE + 64];

    config->user_count = 0;
    while (next_item(&value, item)) {
        if (config->user_count == CONFIG_USERS) {
            return key->expected;
        }
        if (!find_user(item, &config->users[config->user_count], NULL)) {
            snprintf(unknown, sizeof(unknown), "users on this host, where nobody is '%s'", item);
            return unknown;
        }
        config->user_count++;
    }
    return NULL;
}
