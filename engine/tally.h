/* How many changes of each relation, for the counters. A zero one is empty. */
#ifndef ENGINE_TALLY_H
#define ENGINE_TALLY_H

#include "engine/base/map.h"
#include "engine/change.h"

struct tally {
    struct map of; /* By relation version. */
};

void tally_add(struct tally *t, const struct relation *rel);
void tally_clear(struct tally *t);
void tally_tell(const struct tally *t, void *context,
                void (*counted)(void *context, const struct relation *rel, uint64_t changes));

#endif
