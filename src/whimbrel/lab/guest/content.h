/*
 * What a page of redlined memory holds.
 *
 * The content of a page follows from its pattern, its number and its write counter alone, so
 * that every byte can be checked after a move without having kept a copy:
 *
 *     unit i (16 bytes)  =  base[i] XOR key(page, counter)
 *     word 0 (8 bytes)   =  counter in the low, page + 1 in the high half: the stamp
 *
 * `base` is one of a few precomputed pages; the key differs for every page and counter, so no
 * two pages are alike and no window of a stream compressor holds a page's words twice. One load,
 * one XOR and one store for 16 bytes is about the least an emulated CPU can do.
 */
#ifndef REDLINE_CONTENT_H
#define REDLINE_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u

enum pattern { ZERO, CONSTANT, TEXT, RANDOM, MIXED, PATTERNS };

/* What `mixed` is made of, in percent of the pages; the rest of the hundred is random. */
enum { MIXED_ZERO = 25, MIXED_CONSTANT = 10, MIXED_TEXT = 40 };

/* Read a pattern's name; PATTERNS when there is none of that name. */
enum pattern pattern_named(const char *name);

/* Compute the base pages (2 * 256 KiB); to be called once, before anything else here. */
void content_prepare(void);

/* Write the first `touch` bytes (1..4096) of page number `page` as its `counter`-th content. */
void content_write(void *memory, enum pattern pattern, uint32_t page, uint32_t counter,
                   unsigned touch);

/* Whether a page holds exactly the content that `content_write` wrote with touch 4096. */
bool content_matches(const void *memory, enum pattern pattern, uint32_t page, uint32_t counter);

#endif
