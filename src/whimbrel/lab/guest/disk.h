/*
 * The redlined disks: blocks of content that follows from the block's number and write counter,
 * as in memory (content.h), and for each disk a thread that keeps writing some of them again.
 *
 * The counters lie in guest memory. So a verification compares the disk with the memory that
 * travelled beside it: a write that one of them has and the other has not is found.
 */
#ifndef REDLINE_DISK_H
#define REDLINE_DISK_H

#include "writer.h"

enum { MOST_DISKS = 4 };

struct disk;

/* The disk at this path ("/dev/vda", or a file), opened when it is first named; NULL and
 * `wrong` set when it cannot be opened or there are too many. */
struct disk *disk_named(const char *path, const char **wrong);
/* Write `bytes` of content from byte `at` on; NULL, or what went wrong. The writer is paused. */
const char *disk_fill(struct disk *disk, uint64_t at, uint64_t bytes, progress_fn *progress,
                      void *whom);
/* Write the first `hot` bytes of the fill again and again, `rate` blocks per second in all. */
const char *disk_load(struct disk *disk, uint64_t hot, double rate);
/* Read every block of the fill past all caches; the number of bad ones. Writing pauses. */
uint32_t disk_verify(struct disk *disk, uint32_t *first_bad, progress_fn *progress, void *whom);
uint32_t disk_blocks(const struct disk *disk);
/* Blocks written again since the program began, and writes that failed. */
uint64_t disk_written(const struct disk *disk);
uint64_t disk_failed(const struct disk *disk);

#endif
