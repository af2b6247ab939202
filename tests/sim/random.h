/* Chance that can be had again: the same seed, the same sequence. */
#ifndef TESTS_SIM_RANDOM_H
#define TESTS_SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct chance {
    uint64_t state;
};

/* splitmix64. */
static inline uint64_t chance_next(struct chance *c)
{
    uint64_t z = c->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* 0 to n - 1. */
static inline unsigned chance_below(struct chance *c, unsigned n)
{
    return (unsigned)(chance_next(c) % n);
}

static inline bool chance_percent(struct chance *c, unsigned percent)
{
    return chance_below(c, 100) < percent;
}

static inline bool chance_permille(struct chance *c, unsigned permille)
{
    return chance_below(c, 1000) < permille;
}

#endif
