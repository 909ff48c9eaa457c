/* SPDX-License-Identifier: MIT */
/*
 * Text from outside, see printable.h.
 *
 * What counts as printable is libc's word for it, in a locale that all hosts with UTF-8 have; where
 * there is none, ASCII alone. Beyond that nothing is let through that shows nothing, or turns the
 * direction of what follows: two names that look the same are to be the same, and a name is not to
 * rearrange its line.
 */
#include "mediator/printable.h"

#include <ctype.h>
#include <locale.h>
#include <stdbool.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

/* Unicode's format characters (category Cf), and its separators of lines and paragraphs. */
static bool is_format_character(wchar_t c)
{
    static const struct {
        wchar_t first, last;
    } ranges[] = {
        {0xad, 0xad},       {0x600, 0x605},     {0x61c, 0x61c},     {0x6dd, 0x6dd},
        {0x70f, 0x70f},     {0x890, 0x891},     {0x8e2, 0x8e2},     {0x180e, 0x180e},
        {0x200b, 0x200f},   {0x2028, 0x202e},   {0x2060, 0x206f},   {0xfeff, 0xfeff},
        {0xfff9, 0xfffb},   {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1343f},
        {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

/* Bytes of the printable character at the start of `length` bytes; 0: there is none. */
static size_t printable_bytes(const char *text, size_t length, bool wide)
{
    mbstate_t state = {0};
    wchar_t c;
    size_t n;

    if (!wide) {
        return isascii((unsigned char)text[0]) && isprint((unsigned char)text[0]);
    }
    n = mbrtowc(&c, text, length, &state);
    return n == 0 || n > length || !iswprint((wint_t)c) || is_format_character(c) ? 0 : n;
}

void printable_copy(char *to, size_t size, const char *from)
{
    static locale_t utf8;
    const size_t length = strlen(from);
    size_t done = 0, at = 0;
    locale_t before;

    if (!utf8) {
        utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    }
    before = utf8 ? uselocale(utf8) : (locale_t)0;
    while (at < length) {
        const size_t n = printable_bytes(from + at, length - at, utf8 != (locale_t)0);
        const char *shown = n > 0 ? from + at : "?";
        const size_t bytes = n > 0 ? n : 1;

        if (done + bytes >= size) {
            break;
        }
        memcpy(to + done, shown, bytes);
        done += bytes;
        at += bytes;
    }
    to[done] = '\0';
    if (utf8) {
        uselocale(before);
    }
}
