/*
 * The redlined memory: a region with a write counter for every page, and the thread that keeps
 * writing pages of its hot part at a given rate.
 *
 * The writer works in slices of SLICE_NS. A slice that comes late catches up, but never with more
 * than twice a slice's work at once and never for more than DEBT_NS: what a stopped guest missed
 * is not made up for.
 */
#ifndef REDLINE_WRITER_H
#define REDLINE_WRITER_H

#include "content.h"

enum access { UNIFORM, SEQUENTIAL, SKEWED, ACCESSES };

/* The law of SKEWED: HOTTER_WRITES percent of the writes fall, uniformly, on the first
 * HOTTER_PAGES percent of the hot pages; the other writes, uniformly, on the other pages. */
enum { HOTTER_WRITES = 80, HOTTER_PAGES = 20 };

#define SLICE_NS 5000000ull
#define DEBT_NS 100000000ull

struct load {
    uint32_t hot;       /* pages that are written again, from the region's start */
    double rate;        /* page writes per second */
    enum access access;
    unsigned touch;     /* bytes of a page that one write changes */
};

struct region {
    uint8_t *memory;
    uint32_t pages;
    enum pattern pattern;
    uint32_t *counter;  /* writes of a page since the fill */
    uint32_t *base;     /* the counter of what lies beyond the touched bytes */
    uint16_t *touched;  /* bytes that hold `counter`'s content; PAGE_BYTES: all, base is not used */
};

typedef void progress_fn(void *whom, double share);

enum access access_named(const char *name);
uint64_t now_ns(void);

/* Map a region; false (and nothing mapped) when the kernel refuses. */
bool region_map(struct region *region, uint64_t bytes, enum pattern pattern);
void region_unmap(struct region *region);
/* Write every page's first content; pages are numbered from `first`. */
void region_fill(struct region *region, uint32_t first, progress_fn *progress, void *whom);
/* Write one page again with `touch` bytes. */
void region_write(struct region *region, uint32_t page, unsigned touch);
/* Check every page; the number of bad ones, `first_bad` holds the first. */
uint32_t region_verify(const struct region *region, uint32_t *first_bad, progress_fn *progress,
                       void *whom);

/* Start the thread, paused. */
void writer_start(void);
/* Return when the writer no longer writes; it stays so until `writer_resume`. */
void writer_pause(void);
/* Write this region under this load from now on. */
void writer_resume(struct region *region, struct load load);
/* Pages written since the program began. */
uint64_t writer_pages(void);

#endif
