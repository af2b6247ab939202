/* One connection to the target, applying groups.
 *
 * begin, apply…, commit are pipelined: they may return before the target has done anything, and
 * an error they report may belong to an earlier call, even to an earlier group. Groups form a
 * chain: each names the checkpoint it builds on, and the target refuses one whose predecessor
 * did not commit. So after any error nothing later than the last collected commit has happened:
 * rollback(), then replay row by row, or open() again and ask where we are. */
#ifndef APPLIERS_APPLIER_H
#define APPLIERS_APPLIER_H

#include "checkpoint/checkpoint.h"
#include "engine/batch.h"

struct applier;

/* What came of one row. A conflict was met where `conflict` is not NULL: "insert exists",
 * "update missing", "delete missing", with the key as text. */
struct row_result {
    const char *conflict; /* A constant. */
    char key[256];        /* id=17; never other values. */
};

struct applier_ops {
    const char *name;

    /* Connects and reads the checkpoint. With `claim` it takes the migration over, raising the
     * epoch; without, an epoch that is not `found->epoch` is ERROR_FENCED. May be called again
     * after any failure. */
    bool (*open)(struct applier *a, bool claim, struct checkpoint *found, struct error *err);

    /* Starts a target transaction that moves the checkpoint from `from` to `to`. */
    bool (*begin)(struct applier *a, uint64_t from_seq, const struct checkpoint *to,
                  bool durable, struct error *err);
    /* Applies one batch. Its memory is free for reuse when this returns. */
    bool (*apply)(struct applier *a, const struct batch *batch, struct error *err);
    bool (*commit)(struct applier *a, uint64_t seq, struct error *err);
    /* Takes in results without waiting (or, with `wait_ms`, at most so long for one): the seq
     * of the last commit that is known to have happened. */
    bool (*collect)(struct applier *a, int wait_ms, uint64_t *committed, struct error *err);

    /* Which of the commits up to `committed` would survive a crash of the target now. Asks the
     * target on a connection of its own; called every few hundred milliseconds. */
    bool (*flushed)(struct applier *a, uint64_t committed, uint64_t *durable,
                    struct error *err);

    /* Applies one change by itself and waits for it; between begin and commit, not mixed with
     * apply. ERROR_CONFLICT in ROW_STRICT only. */
    bool (*apply_row)(struct applier *a, const struct change *change, enum row_mode mode,
                      struct row_result *result, struct error *err);

    /* Ends whatever is under way. Never fails; drops the connection if it must. */
    void (*rollback)(struct applier *a);

    /* Forgets what is known of the target's tables: they may have been changed. */
    void (*forget_shapes)(struct applier *a);

    void (*close)(struct applier *a); /* Idempotent; may be opened again. */
    void (*free)(struct applier *a);
};

struct applier {
    const struct applier_ops *ops;
};

#endif
