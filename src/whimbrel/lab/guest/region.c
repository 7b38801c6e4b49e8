#define _GNU_SOURCE
#include "writer.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define HUGE_PAGE (2ull << 20)
#define PROGRESS_NS 250000000ull
#define PROGRESS_PAGES 4096u

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void *map(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void unmap(void *memory, uint64_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

bool region_map(struct region *region, uint64_t bytes, enum pattern pattern)
{
    uint32_t pages = (uint32_t)((bytes + PAGE_BYTES - 1) / PAGE_BYTES);
    *region = (struct region){.pages = pages, .pattern = pattern};
    region->memory = map((uint64_t)pages * PAGE_BYTES);
    region->counter = map(pages * sizeof(uint32_t));
    region->base = map(pages * sizeof(uint32_t));
    region->touched = map(pages * sizeof(uint16_t));
    if (!region->memory || !region->counter || !region->base || !region->touched) {
        region_unmap(region);
        return false;
    }
    /* 512 page faults less per 2 MiB; where the kernel has no huge page it gives small ones. */
    madvise(region->memory, (uint64_t)pages * PAGE_BYTES, MADV_HUGEPAGE);
    return true;
}

void region_unmap(struct region *region)
{
    unmap(region->memory, (uint64_t)region->pages * PAGE_BYTES);
    unmap(region->counter, region->pages * sizeof(uint32_t));
    unmap(region->base, region->pages * sizeof(uint32_t));
    unmap(region->touched, region->pages * sizeof(uint16_t));
    *region = (struct region){0};
}

/* Tell about four times a second how far a loop over the pages is. */
static void tell(const struct region *region, uint32_t page, uint64_t *last, progress_fn *progress,
                 void *whom)
{
    if (page % PROGRESS_PAGES != 0 || now_ns() - *last < PROGRESS_NS)
        return;
    *last = now_ns();
    progress(whom, (double)page / region->pages);
}

void region_fill(struct region *region, uint32_t first, progress_fn *progress, void *whom)
{
    uint64_t last = now_ns();
    for (uint32_t page = 0; page < region->pages; page++) {
        content_write(region->memory + (uint64_t)page * PAGE_BYTES, region->pattern, first + page,
                      0, PAGE_BYTES);
        region->touched[page] = PAGE_BYTES;
        tell(region, page, &last, progress, whom);
    }
}

void region_write(struct region *region, uint32_t page, unsigned touch)
{
    uint32_t counter = ++region->counter[page];
    unsigned before = region->touched[page];
    if (before == PAGE_BYTES && touch < PAGE_BYTES)
        region->base[page] = counter - 1;
    else if (before > touch)
        touch = PAGE_BYTES; /* Fewer bytes than before would leave three contents in one page. */
    if (before != touch)
        region->touched[page] = (uint16_t)touch;
    content_write(region->memory + (uint64_t)page * PAGE_BYTES, region->pattern, page, counter,
                  touch);
}

static bool page_intact(const struct region *region, uint32_t page)
{
    static uint8_t expected[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    const uint8_t *held = region->memory + (uint64_t)page * PAGE_BYTES;
    if (region->touched[page] == PAGE_BYTES)
        return content_matches(held, region->pattern, page, region->counter[page]);
    content_write(expected, region->pattern, page, region->base[page], PAGE_BYTES);
    content_write(expected, region->pattern, page, region->counter[page], region->touched[page]);
    return memcmp(expected, held, PAGE_BYTES) == 0;
}

uint32_t region_verify(const struct region *region, uint32_t *first_bad, progress_fn *progress,
                       void *whom)
{
    uint64_t last = now_ns();
    uint32_t bad = 0;
    for (uint32_t page = 0; page < region->pages; page++) {
        if (!page_intact(region, page) && bad++ == 0)
            *first_bad = page;
        tell(region, page, &last, progress, whom);
    }
    return bad;
}
