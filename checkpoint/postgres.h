/* The checkpoint on a PostgreSQL target: one row of teal.checkpoint a feed. Layout: FORMATS.md.
 */
#ifndef CHECKPOINT_POSTGRES_H
#define CHECKPOINT_POSTGRES_H

#include "checkpoint/checkpoint.h"
#include "engine/postgres/pg.h"

/* Which row. `identity` is the stream's (struct stream_identity). */
struct checkpoint_key {
    const char *migration;
    const char *feed; /* "forward", "reverse". */
    const char *identity;
};

/* Makes schema and table if they are missing. ERROR_CONFIG with the GRANT if it may not. */
must_check bool checkpoint_prepare(PGconn *pg, struct error *err);

/* The row as it is; *found false if there is none or no table yet. */
must_check bool checkpoint_read(PGconn *pg, const struct checkpoint_key *key,
                                struct checkpoint *out, bool *found, struct error *err);

/* Takes the row over for this engine: makes it at `start` if there is none, raises its epoch.
 * ERROR_LOST if it belongs to another stream. */
must_check bool checkpoint_claim(PGconn *pg, const struct checkpoint_key *key,
                                 const struct position *start, struct checkpoint *out,
                                 struct error *err);

/* The first statement of every transaction of ours, and so its marker: moves the row from one
 * seq to the next, or fails with SQLSTATE 22012 if the epoch or the seq is not the expected
 * one. Parameters: migration, feed, epoch, seq before, seq, pos, commit_time_us. */
extern const char checkpoint_move_sql[];

#endif
