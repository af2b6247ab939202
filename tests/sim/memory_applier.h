/* An applier (appliers/applier.h) over a target in memory, with all the trouble a network and a
 * server can make, from a seed.
 *
 * What is sent is executed some time later, and its result seen later still, by whichever call
 * meets it. A connection may be lost at any call: before or behind what that call sent, and
 * with results that were never seen. */
#ifndef TESTS_SIM_MEMORY_APPLIER_H
#define TESTS_SIM_MEMORY_APPLIER_H

#include "tests/sim/memory_target.h"

struct memory_applier {
    struct applier base;
    struct memory_target *target;
    struct chance *chance;
    unsigned loss_permille; /* Of a lost connection, per call. */
    bool may_send;          /* False: the lane is halted and must keep still. */
    bool fenced;            /* open() said so. */

    const struct model_db *source; /* As it is now; for columns a row image left out. */
    uint64_t source_seq;

    struct memory_connection connection;
    bool is_open;
    size_t seen; /* Results taken in. */
    struct error failure;
    uint64_t epoch;
    uint64_t committed;
    bool knows[VERSIONS_MAX];     /* By relation version. */
    uint32_t shape[VERSIONS_MAX]; /* The table's then. */
};

void memory_applier_init(struct memory_applier *a, struct memory_target *target,
                         struct chance *chance);

/* The server is gone at once, with all it was doing. */
void memory_applier_cut(struct memory_applier *a);

#endif
