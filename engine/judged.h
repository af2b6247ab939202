/* What is to be done with the changes of a transaction, as the judge says, and with how much of
 * each. A zero one has no judge: every change is applied. */
#ifndef ENGINE_JUDGED_H
#define ENGINE_JUDGED_H

#include "engine/tally.h"
#include "engine/txn.h"
#include "engine/verdict.h"

struct judged {
    struct judge *judge;
    const struct relation **kept; /* What was left of the last truncate. */
};

/* A truncate of several tables is left with those that it must not pass by; valid until the
 * next call. */
enum verdict judged_change(struct judged *j, const struct txn *txn, struct change *change);

/* Whether some change must be enforced, or cannot be read. */
bool judged_needs_enforcing(struct judged *j, const struct txn *txn);

/* Counts the changes that are applied. What cannot be read is not counted. */
void judged_tally(struct judged *j, const struct txn *txn, struct tally *tally);

void judged_release(struct judged *j);

#endif
