/* What survives a crash of the engine: how far the target is, told by the target itself.
 *
 * The checkpoint is written in the same target transaction as the rows it speaks of, so after
 * any crash the target's word is final. `epoch` counts the engines that ever held this
 * migration: one that claims it raises the epoch, and no transaction of an older one can commit
 * any more. */
#ifndef CHECKPOINT_CHECKPOINT_H
#define CHECKPOINT_CHECKPOINT_H

#include "engine/change.h"

struct checkpoint {
    uint64_t epoch;
    uint64_t seq;           /* The last boundary applied; 0: none yet. */
    struct position pos;    /* Its position; at first the stream's starting point. */
    int64_t commit_time_us; /* Of the last transaction applied; 0: none yet. */
};

#endif
