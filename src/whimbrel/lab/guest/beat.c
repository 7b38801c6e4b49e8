#define _GNU_SOURCE
#include "beat.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "writer.h"

/* A second of beats at their usual interval, to tell the rate from. */
enum { KEPT = 200 };

static int port;
static uint64_t interval = BEAT_NS;
static _Atomic double rate;

static void beat_send(const struct beat *beat)
{
    /* A virtio port takes a buffer whole or says EAGAIN, which loses this beat, as promised. */
    ssize_t ignored = write(port, beat, sizeof *beat);
    (void)ignored;
}

static void *beat_run(void *nothing)
{
    static struct beat kept[KEPT];
    uint64_t due = now_ns();
    for (uint64_t sequence = 0;; sequence++) {
        struct beat beat = {"", sequence, now_ns(), writer_pages()};
        memcpy(beat.magic, "WHIMBEAT", sizeof beat.magic);
        beat_send(&beat);
        struct beat *oldest = &kept[sequence % KEPT];
        if (beat.guest_ns > oldest->guest_ns && oldest->magic[0])
            atomic_store(&rate, (double)(beat.pages - oldest->pages) * 1e9 /
                                    (double)(beat.guest_ns - oldest->guest_ns));
        *oldest = beat;
        /* A beat that comes late moves the following ones: catching up would hide the gap. */
        due = due + interval > beat.guest_ns ? due + interval : beat.guest_ns + interval;
        struct timespec then = {(time_t)(due / 1000000000ull), (long)(due % 1000000000ull)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
    }
    return nothing;
}

void beat_start(int open_port)
{
    pthread_t thread;
    pthread_attr_t attributes;
    struct sched_param priority = {.sched_priority = 50};
    const char *asked = getenv("beat_ms");
    port = open_port;
    if (asked && atoi(asked) > 0)
        interval = (uint64_t)atoi(asked) * 1000000ull;
    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
    pthread_attr_setschedparam(&attributes, &priority);
    /* Outside the guest (tests) real-time priority may be refused; then an ordinary thread. */
    if (pthread_create(&thread, &attributes, beat_run, NULL) != 0)
        pthread_create(&thread, NULL, beat_run, NULL);
}

double beat_rate(void)
{
    return atomic_load(&rate);
}
