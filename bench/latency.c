/* latency.c - a histogram of latencies with logarithmic buckets; see load.h.
 * Needs C11. */
#include "load.h"

/* The buckets 0 to 15 are that many ns; from then on a power of two is split
 * in 16, by the bits that follow its highest one. */
static size_t bucket(uint64_t ns)
{
    unsigned exponent = 0;
    while (ns >> exponent >= 2U << SUB_BITS)
        exponent++;
    return ((size_t)exponent << SUB_BITS) + (size_t)(ns >> exponent);
}

static uint64_t upper_end(size_t bucket)
{
    if (bucket < 2U << SUB_BITS)
        return bucket;
    size_t exponent = (bucket >> SUB_BITS) - 1;
    uint64_t first = (uint64_t)(bucket - (exponent << SUB_BITS));
    return ((first + 1) << exponent) - 1;
}

void latency_add(struct latency *latency, uint64_t ns)
{
    latency->count[bucket(ns)]++;
    latency->total++;
    if (ns > latency->max_ns)
        latency->max_ns = ns;
}

uint64_t latency_percentile(const struct latency *latency, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)latency->total);
    uint64_t seen = 0;

    for (size_t i = 0; i < BUCKETS; i++) {
        seen += latency->count[i];
        if (seen > wanted)
            return upper_end(i) < latency->max_ns ? upper_end(i) : latency->max_ns;
    }
    return latency->max_ns;
}
