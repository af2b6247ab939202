/* What the initial copy says of a change that may already be in the rows it copied.
 *
 * While the stream is still behind the last snapshot of the copy, a change of a copied table is
 * one of three things: in every row that was copied (it must not be applied again), in none (it
 * applies as always), or in some: then it is made so, whatever stands there. */
#ifndef ENGINE_VERDICT_H
#define ENGINE_VERDICT_H

#include "engine/txn.h"

enum verdict { VERDICT_APPLY, VERDICT_PASS, VERDICT_ENFORCE };

struct judge {
    /* Of the transaction, its xid and position are asked about. */
    enum verdict (*judge)(struct judge *j, const struct txn *txn, const struct relation *rel);
};

#endif
