/* SPDX-License-Identifier: MIT */
/*
 * How long things took: counts by powers of two of microseconds, as Prometheus wants them. Pure.
 */
#ifndef VGPU_MEDIATOR_HISTOGRAM_H
#define VGPU_MEDIATOR_HISTOGRAM_H

#include <stdint.h>

/* Bucket N holds what took at most 2^N us; the last one all the rest. */
#define HISTOGRAM_BUCKETS 26u

struct histogram {
    uint64_t count[HISTOGRAM_BUCKETS];
    uint64_t sum_ns;
};

/* The largest that bucket N, but not the last, holds. */
static inline uint64_t histogram_bound_ns(unsigned bucket)
{
    return UINT64_C(1000) << bucket;
}

static inline void histogram_add(struct histogram *histogram, uint64_t ns)
{
    unsigned bucket = 0;

    while (bucket < HISTOGRAM_BUCKETS - 1 && ns > histogram_bound_ns(bucket)) {
        bucket++;
    }
    histogram->count[bucket]++;
    histogram->sum_ns += ns;
}

static inline void histogram_merge(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        to->count[i] += from->count[i];
    }
    to->sum_ns += from->sum_ns;
}

static inline uint64_t histogram_total(const struct histogram *histogram)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        total += histogram->count[i];
    }
    return total;
}

/* What `percent` of all are at most, as far as the buckets tell; 0 when there are none. */
static inline uint64_t histogram_percentile_ns(const struct histogram *histogram, unsigned percent)
{
    const uint64_t total = histogram_total(histogram);
    uint64_t seen = 0;

    for (unsigned i = 0; total > 0 && i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->count[i];
        if (seen * 100 >= total * percent) {
            return histogram_bound_ns(i);
        }
    }
    return 0;
}

#endif
