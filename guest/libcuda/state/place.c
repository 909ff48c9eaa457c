/* SPDX-License-Identifier: MIT */
/*
 * Things at given addresses, see place.h.
 *
 * Several may lie in one page, and one may reach into the next: so the pages are found first, each
 * once, then mapped, filled and protected. They are never writable and executable at a time. Some
 * systems let a process execute nothing that it could write before (SELinux's execmem, systemd's
 * MemoryDenyWriteExecute): there it cannot be done.
 */
#include "guest/libcuda/state/place.h"

#include <stdbool.h>
#include <string.h>

#include "common/map-at.h"

#define PAGE UINT64_C(4096) /* of x86-64 */
#define PAGES_MAX (2 * PLACE_MOST)

struct pages {
    void *page[PAGES_MAX];
    unsigned count;
};

static struct pages placed; /* with what is there until places_end() */

static bool is_mapped(const struct pages *pages, const void *page)
{
    for (unsigned i = 0; i < pages->count; i++) {
        if (pages->page[i] == page) {
            return true;
        }
    }
    return false;
}

static bool map_page(struct pages *pages, uint64_t address)
{
    void *page = (void *)(uintptr_t)address;

    if (is_mapped(pages, page)) {
        return true;
    }
    if (map_at(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) < 0) {
        return false;
    }
    pages->page[pages->count++] = page;
    return true;
}

static bool map_around(struct pages *pages, const struct place *place)
{
    const uint64_t first = place->address & ~(PAGE - 1);
    const uint64_t last = (place->address + place->bytes - 1) & ~(PAGE - 1);

    /* NULL is no place, though root may have page 0. */
    return first != 0 && place->bytes > 0 && place->bytes <= PAGE && map_page(pages, first) &&
           map_page(pages, last);
}

static void unmap_pages(const struct pages *pages)
{
    for (unsigned i = 0; i < pages->count; i++) {
        munmap(pages->page[i], PAGE);
    }
}

enum placed place_all(const struct place *places, unsigned count)
{
    enum placed result = count <= PLACE_MOST ? PLACE_DONE : PLACE_TAKEN;
    struct pages pages = {.count = 0};

    for (unsigned i = 0; result == PLACE_DONE && i < count; i++) {
        result = map_around(&pages, &places[i]) ? PLACE_DONE : PLACE_TAKEN;
    }
    for (unsigned i = 0; result == PLACE_DONE && i < count; i++) {
        memcpy((void *)(uintptr_t)places[i].address, places[i].content, places[i].bytes);
    }
    for (unsigned i = 0; result == PLACE_DONE && i < pages.count; i++) {
        result = mprotect(pages.page[i], PAGE, PROT_READ | PROT_EXEC) == 0 ? PLACE_DONE
                                                                           : PLACE_REFUSED;
    }
    if (result == PLACE_DONE) {
        placed = pages;
    } else {
        unmap_pages(&pages);
    }
    return result;
}

void places_end(void)
{
    unmap_pages(&placed);
    placed.count = 0;
}
