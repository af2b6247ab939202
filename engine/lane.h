/* One connection applying groups in commit order.
 *
 * Whole transactions are handed in; the lane collects them into groups, sends at most two ahead
 * of their results, and frees them when the target has committed them. What fails as a group is
 * replayed transaction by transaction and, if need be, row by row: that either works, following
 * the operator's word on conflicts, or names the row.
 *
 * States. OPEN: working. CLOSED: the connection is gone; lane_open() again, which asks the
 * target how far it is and drops what it already holds; ERROR_REWOUND if it is behind what it
 * had committed, for those transactions are only in the spool now. HALTED: a row or a shape
 * does not fit; lane_retry() tries again. In every state all transactions that are not known to
 * be committed are still held. One thread uses a lane. */
#ifndef ENGINE_LANE_H
#define ENGINE_LANE_H

#include "appliers/applier.h"
#include "engine/txn.h"
#include "engine/verdict.h"

struct lane;

struct lane_options {
    struct applier *applier; /* Borrowed. */
    enum row_mode on_conflict;
    uint64_t group_bytes_max; /* Of changes in one group. */
    void *context;
    /* A transaction is on the target; it is freed when this returns. */
    void (*applied)(void *context, const struct txn *txn);
    /* A conflict that was overwritten or skipped, once it is committed. */
    void (*conflict)(void *context, const struct relation *rel,
                     const struct row_result *result);
    /* How many changes of `rel` were applied; called when their group is committed. */
    void (*counted)(void *context, const struct relation *rel, uint64_t changes);
};

enum lane_state { LANE_CLOSED, LANE_OPEN, LANE_HALTED };

struct lane *lane_new(const struct lane_options *options);
void lane_free(struct lane *l);

/* Connects, claiming the migration the first time. What the target already has is dropped, the
 * rest will be sent again. *found is where the target is. ERROR_REWOUND: it has lost commits
 * (they were not on its disk yet) that are no longer held here: only a reader that starts again
 * from its checkpoint can go on. */
must_check bool lane_open(struct lane *l, struct checkpoint *found, struct error *err);

/* NULL: none. It is asked whenever a transaction is sent: change it only while none is held. */
void lane_set_judge(struct lane *l, struct judge *judge);

/* Takes the transaction over. Its seq must follow the last one's. */
void lane_add(struct lane *l, struct txn *txn);

/* Nothing was applied between the last transaction and this boundary. */
void lane_pass(struct lane *l, uint64_t seq, const struct position *pos);

/* Whether more should be handed in before the next lane_work(). */
bool lane_has_room(const struct lane *l);

/* Sends what may be sent and takes results in. `idle`: nothing more is to be had, so that an
 * incomplete group may go. Waits at most wait_ms, and only if something is in flight. False:
 * the lane is CLOSED or HALTED, with the reason. */
must_check bool lane_work(struct lane *l, bool idle, int wait_ms, struct error *err);

/* HALTED: forgets what is known of the target's tables and tries again. */
must_check bool lane_retry(struct lane *l, struct error *err);

/* An empty group, so that the target's checkpoint follows what was passed; `durable`: it waits
 * for the target's disk. */
must_check bool lane_move_checkpoint(struct lane *l, bool durable, struct error *err);

enum lane_state lane_state(const struct lane *l);
bool lane_is_busy(const struct lane *l); /* Holds transactions. */

/* The last boundary that is on the target or needed nothing there. */
void lane_applied(const struct lane *l, uint64_t *seq, struct position *pos);
/* The last one whose checkpoint the target would still know after a crash of its own. Asks it.
 */
must_check bool lane_durable(struct lane *l, uint64_t *seq, struct error *err);

/* The commit time of the oldest transaction held; 0: none. */
int64_t lane_oldest_us(const struct lane *l);
uint64_t lane_held(const struct lane *l); /* Transactions held. */
/* The lowest first_segment of transactions held, or `otherwise` if that is lower. */
uint64_t lane_oldest_segment(const struct lane *l, uint64_t otherwise);

#endif
