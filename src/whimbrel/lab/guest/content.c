#include "content.h"

#include <emmintrin.h>
#include <string.h>

#define UNITS (PAGE_BYTES / sizeof(__m128i))
#define WORDS (PAGE_BYTES / sizeof(uint64_t))
#define SLOTS 64u

/* How text repeats itself: out of a hundred words of 8 bytes this many are new; the others are
 * part of a run copied from earlier in the page. Tuned so that zstd level 1 leaves a third. */
enum { NEW_WORDS_PERCENT = 60, LONGEST_RUN = 4 };

/* Keys may change these bits of a text byte: letters stay letters, the alphabet stays small. */
static const uint64_t LETTER_BITS = 0x1f1f1f1f1f1f1f1full;
static const uint64_t LETTERS = 0x6060606060606060ull;

static uint64_t random_base[SLOTS][WORDS] __attribute__((aligned(4096)));
static uint64_t text_base[SLOTS][WORDS] __attribute__((aligned(4096)));
static uint64_t zero_base[WORDS] __attribute__((aligned(4096)));

static const char *const NAMES[PATTERNS] = {"zero", "constant", "text", "random", "mixed"};

struct recipe {
    const __m128i *base;
    __m128i key;
    uint64_t stamp;
};

enum pattern pattern_named(const char *name)
{
    int found = 0;
    while (found < PATTERNS && strcmp(NAMES[found], name) != 0)
        found++;
    return (enum pattern)found;
}

/* splitmix64: a bijection, so different inputs never meet. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static unsigned draw(uint64_t *state, unsigned below)
{
    *state += 1;
    return (unsigned)(mix(*state) % below);
}

static void write_text(uint64_t *words, uint64_t seed)
{
    unsigned length = 0;
    while (length < WORDS) {
        if (length < 8 || draw(&seed, 100) < NEW_WORDS_PERCENT) {
            seed++;
            words[length++] = LETTERS | (mix(seed) & LETTER_BITS);
            continue;
        }
        unsigned run = 1 + draw(&seed, LONGEST_RUN);
        /* An even distance: the key alternates between two words. */
        unsigned distance = 2 * (1 + draw(&seed, length / 2));
        for (; run > 0 && length < WORDS; run--, length++)
            words[length] = words[length - distance];
    }
}

void content_prepare(void)
{
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned i = 0; i < WORDS; i++)
            random_base[slot][i] = mix(((uint64_t)slot << 32 | i) ^ 0x5ca1ab1e00000000ull);
        write_text(text_base[slot], mix(slot));
    }
}

static enum pattern class_of(uint32_t page)
{
    unsigned share = (unsigned)(mix(page) >> 32) % 100;
    if (share < MIXED_ZERO)
        return ZERO;
    if (share < MIXED_ZERO + MIXED_CONSTANT)
        return CONSTANT;
    return share < MIXED_ZERO + MIXED_CONSTANT + MIXED_TEXT ? TEXT : RANDOM;
}

static inline __m128i pair(uint64_t low, uint64_t high)
{
    return _mm_set_epi64x((long long)high, (long long)low);
}

static inline struct recipe recipe_for(enum pattern pattern, uint32_t page, uint32_t counter)
{
    uint64_t stamp = (uint64_t)(page + 1) << 32 | counter;
    if (pattern == MIXED)
        pattern = class_of(page);
    if (pattern == ZERO) /* Written again, a zero page holds its stamp and is zero otherwise. */
        return (struct recipe){(const __m128i *)zero_base, _mm_setzero_si128(),
                               counter ? stamp : 0};
    if (pattern == CONSTANT)
        return (struct recipe){(const __m128i *)zero_base, pair(stamp, stamp), stamp};
    uint64_t low = mix(stamp), high = mix(~stamp);
    if (pattern == TEXT)
        return (struct recipe){(const __m128i *)text_base[page % SLOTS],
                               pair(low & LETTER_BITS, high & LETTER_BITS), stamp};
    return (struct recipe){(const __m128i *)random_base[page % SLOTS], pair(low, high), stamp};
}

static inline __m128i first_unit(const struct recipe *recipe)
{
    uint64_t words[2];
    _mm_storeu_si128((__m128i *)words, _mm_xor_si128(recipe->base[0], recipe->key));
    return pair(recipe->stamp, words[1]);
}

void content_write(void *memory, enum pattern pattern, uint32_t page, uint32_t counter,
                   unsigned touch)
{
    const struct recipe recipe = recipe_for(pattern, page, counter);
    const __m128i *base = recipe.base;
    const __m128i key = recipe.key, first = first_unit(&recipe);
    __m128i *out = memory;
    unsigned whole = touch / sizeof(__m128i), rest = touch % sizeof(__m128i), i = 1;
    if (whole > 0)
        _mm_store_si128(out, first);
    for (; i + 7 < whole; i += 8) {
        _mm_store_si128(out + i, _mm_xor_si128(base[i], key));
        _mm_store_si128(out + i + 1, _mm_xor_si128(base[i + 1], key));
        _mm_store_si128(out + i + 2, _mm_xor_si128(base[i + 2], key));
        _mm_store_si128(out + i + 3, _mm_xor_si128(base[i + 3], key));
        _mm_store_si128(out + i + 4, _mm_xor_si128(base[i + 4], key));
        _mm_store_si128(out + i + 5, _mm_xor_si128(base[i + 5], key));
        _mm_store_si128(out + i + 6, _mm_xor_si128(base[i + 6], key));
        _mm_store_si128(out + i + 7, _mm_xor_si128(base[i + 7], key));
    }
    for (; i < whole; i++)
        _mm_store_si128(out + i, _mm_xor_si128(base[i], key));
    if (rest > 0) {
        __m128i last = whole > 0 ? _mm_xor_si128(base[whole], key) : first;
        memcpy(out + whole, &last, rest);
    }
}

bool content_matches(const void *memory, enum pattern pattern, uint32_t page, uint32_t counter)
{
    const struct recipe recipe = recipe_for(pattern, page, counter);
    const __m128i *base = recipe.base, *held = memory;
    const __m128i key = recipe.key;
    __m128i wrong = _mm_xor_si128(held[0], first_unit(&recipe));
    for (unsigned i = 1; i < UNITS; i++)
        wrong = _mm_or_si128(wrong, _mm_xor_si128(_mm_xor_si128(base[i], held[i]), key));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(wrong, _mm_setzero_si128())) == 0xffff;
}
