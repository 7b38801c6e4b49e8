#define _GNU_SOURCE
#include "writer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* Guarded by `mutex`, except that the thread reads `region` and `load` freely while `writing`. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct region *region;
static struct load load;
static bool writing;
static atomic_bool wanted;
static atomic_uint_fast64_t pages_written;

static const char *const NAMES[ACCESSES] = {"uniform", "sequential", "skewed"};

enum access access_named(const char *name)
{
    int found = 0;
    while (found < ACCESSES && strcmp(NAMES[found], name) != 0)
        found++;
    return (enum access)found;
}

/* xorshift64*: its upper half is good enough to choose pages. */
static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(((*state * 0x2545f4914f6cdd1dull >> 32) * below) >> 32);
}

static uint32_t next_page(uint64_t *state, uint32_t *cursor)
{
    if (load.access == SEQUENTIAL)
        return *cursor = *cursor + 1 < load.hot ? *cursor + 1 : 0;
    uint32_t hotter = (uint32_t)((uint64_t)load.hot * HOTTER_PAGES / 100);
    if (load.access == UNIFORM || hotter == 0)
        return draw(state, load.hot);
    if (draw(state, 100) < HOTTER_WRITES)
        return draw(state, hotter);
    return hotter + draw(state, load.hot - hotter);
}

static void write_pages(uint32_t count, uint64_t *state, uint32_t *cursor)
{
    for (uint32_t i = 0; i < count && atomic_load_explicit(&wanted, memory_order_relaxed); i++) {
        region_write(region, next_page(state, cursor), load.touch);
        atomic_fetch_add_explicit(&pages_written, 1, memory_order_relaxed);
    }
}

static void sleep_until(uint64_t when)
{
    struct timespec then = {(time_t)(when / 1000000000ull), (long)(when % 1000000000ull)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
}

/* Write until paused. `owed` is the work that is due, in pages. */
static void write_at_rate(uint64_t *state, uint32_t *cursor)
{
    const double per_ns = load.rate / 1e9;
    const double most = 2 * per_ns * SLICE_NS + 1, debt = per_ns * DEBT_NS + 1;
    double owed = 0;
    for (uint64_t last = now_ns(), next = last; atomic_load(&wanted);) {
        uint64_t now = now_ns();
        owed += per_ns * (double)(now - last);
        last = now;
        owed = owed < debt ? owed : debt;
        uint32_t due = (uint32_t)(owed < most ? owed : most);
        write_pages(due, state, cursor);
        owed -= due;
        next = next + SLICE_NS > now ? next + SLICE_NS : now;
        sleep_until(next);
    }
}

static void *writer_run(void *nothing)
{
    uint64_t state = 0x1234567890abcdefull;
    uint32_t cursor = 0;
    for (;;) {
        pthread_mutex_lock(&mutex);
        writing = false;
        pthread_cond_broadcast(&changed);
        while (!atomic_load(&wanted))
            pthread_cond_wait(&changed, &mutex);
        writing = true;
        pthread_mutex_unlock(&mutex);
        cursor = cursor < load.hot ? cursor : 0;
        write_at_rate(&state, &cursor);
    }
    return nothing;
}

void writer_start(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, writer_run, NULL);
}

void writer_pause(void)
{
    pthread_mutex_lock(&mutex);
    atomic_store(&wanted, false);
    while (writing)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

void writer_resume(struct region *memory, struct load under)
{
    pthread_mutex_lock(&mutex);
    region = memory;
    load = under;
    atomic_store(&wanted, under.hot > 0 && under.rate > 0);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

uint64_t writer_pages(void)
{
    return atomic_load_explicit(&pages_written, memory_order_relaxed);
}
