/* Turns the changes of a group into few, large statements without changing what they come to.
 *
 * Within one target transaction only the end state counts, and changes of different tables
 * commute (foreign keys and triggers do not fire while we apply). So each table's changes are
 * folded to their net effect per key: insert then update is an insert, update then delete is a
 * delete, and so on; what remains is given in batches of one table, one kind and one set of
 * columns. What cannot be folded (a changed key, a truncate, a new shape of the table, a table
 * without a key) keeps its place among that table's changes.
 *
 * A row inserted and deleted again in one group is not forgotten: it becomes an ABSENT check,
 * so that a row that was on the target all along is still noticed. */
#ifndef ENGINE_BATCH_H
#define ENGINE_BATCH_H

#include "engine/base/arena.h"
#include "engine/change.h"

enum batch_kind {
    BATCH_INSERT,
    BATCH_UPDATE,   /* Rows of one presence mask; matched by `before`. */
    BATCH_DELETE,   /* Matched by `before`. */
    BATCH_ABSENT,   /* Deletes by `before` and must touch no row. */
    BATCH_TRUNCATE, /* `truncate` holds it; no rows. */
};

/* Every row touches exactly one row of the target (ABSENT: none), else the group is wrong.
 * before[i]: what identifies the row (key columns set; IDENTITY_FULL: all). after[i]: new
 * values; DATUM_UNCHANGED columns are the same in all rows of an UPDATE batch, and are not
 * written. */
struct batch {
    enum batch_kind kind;
    const struct relation *relation;
    uint32_t count;
    const struct tuple *before;
    const struct tuple *after;
    const struct change *truncate;
};

struct batch_sink {
    bool (*put)(struct batch_sink *sink, const struct batch *batch, struct error *err);
};

struct batcher;

struct batcher *batcher_new(struct batch_sink *sink);
void batcher_free(struct batcher *b);

/* Adds a change whose bytes stay valid until the next flush. May put batches that had to come
 * before it. Errors are the sink's. */
must_check bool batcher_add(struct batcher *b, const struct change *change, struct error *err);

/* Puts all that is held, in an order in which it may be applied, and forgets it. */
must_check bool batcher_flush(struct batcher *b, struct error *err);

/* Forgets all without putting it (the group failed). */
void batcher_clear(struct batcher *b);

/* Bytes of values and bookkeeping held. */
uint64_t batcher_bytes(const struct batcher *b);

#endif
