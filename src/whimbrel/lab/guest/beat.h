/*
 * The heartbeat: every BEAT_NS, or beat_ms milliseconds where the kernel's command line says so
 * (guests that are emulated twice cannot keep up with 5), one frame on its own port, from a thread that everything else
 * must wait for. A frame is written whole or not at all, and never waited for: when the host
 * does not read, beats are lost and the sequence number says how many.
 */
#ifndef REDLINE_BEAT_H
#define REDLINE_BEAT_H

#include <stdint.h>

#define BEAT_NS 5000000ull

struct beat {
    char magic[8];      /* "WHIMBEAT" */
    uint64_t sequence;  /* counts from 0, lost beats too */
    uint64_t guest_ns;  /* the guest's CLOCK_MONOTONIC */
    uint64_t pages;     /* page writes since the program began */
};

/* Start beating on an open port. */
void beat_start(int port);
/* Page writes per second over the last second of guest time. */
double beat_rate(void);

#endif
