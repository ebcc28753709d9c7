/* load.h - the load generator: what its files share. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What the command line asked for. */
struct options {
    uint16_t port;
    pid_t pid;          /* the server, whose costs are read; 0 for none */
    size_t connections; /* how many are open */
    size_t active;      /* how many of them speak; they are spread evenly among all */
    size_t size;        /* of a message, in bytes */
    size_t pipeline;    /* messages that a client has under way at once */
    bool step;          /* all ask at the same moment, and again when all have their answers */
    bool spin;          /* never sleep: a server then need not wake us */
    bool idle;          /* measure the memory for idle connections, not the time */
    bool turns;         /* measure once for each line on standard input */
    double warmup;      /* seconds before the measurement */
    double seconds;     /* how long to measure */
    uint64_t messages;  /* ... or until so many were answered; 0 for no limit */
};

/* Says what is wrong, and ends the program with status 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

int64_t now_ns(void);

/* ---- latency.c: a histogram ---- */

/* Buckets grow with the figure: 16 to each power of two, so that a percentile
 * is at most 6 % too high, be it microseconds or seconds. */
enum { SUB_BITS = 4, BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS };

struct latency {
    uint64_t count[BUCKETS];
    uint64_t total;
    uint64_t max_ns;
};

void latency_add(struct latency *latency, uint64_t ns);

/* The upper end of the bucket which the share (0 to 1) of all does not exceed, in ns. */
uint64_t latency_percentile(const struct latency *latency, double share);

/* ---- cost.c: what a process has cost so far, as Linux counts it ---- */

struct cost {
    int64_t cpu_ns;    /* CPU time of all its threads */
    int64_t queued_ns; /* how long its threads were ready, and waited for a processor */
    int64_t waits;     /* how often one of them gave up its processor in order to wait */
};

/* Reads it. Returns false if there is no such process (any more). Source: proc(5). */
bool cost_read(pid_t pid, struct cost *cost);

/* Bytes of memory that belong to the process alone; waits until they stay the same. */
int64_t cost_memory(pid_t pid);

/* ---- clients.c: the connections ---- */

struct clients;

/* Opens the connections. */
struct clients *clients_open(const struct options *options);

/* Asks and hears answers, which it checks byte by byte, until ns have passed or
 * so many messages were answered (0: no limit), but not before the first was. latency may be NULL.
 * Returns how many were answered. */
uint64_t clients_run(struct clients *clients, int64_t ns, uint64_t messages, struct latency *latency);

/* Resets all connections, so that none stays in TIME_WAIT. */
void clients_close(struct clients *clients);

#endif
