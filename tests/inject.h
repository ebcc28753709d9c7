/* inject.h - what the harness and the fault injector (inject.c) agree on.
 *
 * inject.so is loaded before the C library (LD_PRELOAD) and stands between the
 * server and the functions it calls. It counts the calls, and makes chosen ones
 * fail. The environment tells it what to do:
 *   INJECT         rules, separated by spaces: FUNCTION:WHICH=WHAT, where
 *                  WHICH is K (the K-th call), K-L (the K-th to the L-th), K- (from
 *                  the K-th on) or * (every call), counted from 1 over all threads;
 *                  with a + before it, calls that would end with EAGAIN do not count;
 *                  the first rule that fits a call applies to it;
 *                  WHAT is the name of an errno; "short" (send and recv move
 *                  one byte less than they could, but at least one); "SIGTERM"
 *                  (it is caught just before the call, which is made then); or
 *                  "closed" (poll finds the descriptor of its last entry closed).
 *                  For example: "accept:1-5=EMFILE send:*=short".
 *   INJECT_COUNTS  a file for the counters, of INJECT_SLOTS struct inject_slot. */
#ifndef INJECT_H
#define INJECT_H

#include <stdatomic.h>

enum { INJECT_SLOTS = 64 };

/* How often one function has been called, and how often it was made to fail. */
struct inject_slot {
    char function[32]; /* "" marks the end of the table */
    atomic_ullong calls;
    atomic_ullong faults;
    atomic_ullong failures; /* calls that failed, by themselves or by a fault */
};

#endif
