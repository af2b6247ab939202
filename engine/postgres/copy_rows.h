/* One part of one table, from blue to green: COPY to COPY, in one transaction on each side. */
#ifndef ENGINE_POSTGRES_COPY_ROWS_H
#define ENGINE_POSTGRES_COPY_ROWS_H

#include "engine/postgres/copy_plan.h"

struct copy_job {
    const char *migration;
    uint64_t epoch; /* Of the checkpoint: an engine that was fenced off copies nothing more. */
    const struct snapshot *snapshot;
    PGconn *blue; /* Idle; so after success. */
    PGconn *green;
    struct copy_table *table;
    struct copy_part *part;
    const atomic_bool *stop;
};

/* *rewritten: the table was truncated or rewritten since the snapshot, which can no longer see
 * its rows; nothing was kept. After a failure both connections must be closed. */
must_check bool copy_rows(const struct copy_job *job, bool *rewritten, struct error *err);

/* Leaves one row of each that several snapshots brought; the stream then makes it right.
 * `blue` tells which columns and expressions are unique. */
must_check bool copy_remove_duplicates(PGconn *blue, PGconn *green,
                                       const struct copy_table *table, struct error *err);

#endif
