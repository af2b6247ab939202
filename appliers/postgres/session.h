/* The PostgreSQL applier from inside: its connections and what it knows of green's tables. */
#ifndef APPLIERS_POSTGRES_SESSION_H
#define APPLIERS_POSTGRES_SESSION_H

#include "appliers/postgres/applier.h"
#include "appliers/postgres/literal.h"
#include "appliers/postgres/pipeline.h"
#include "appliers/postgres/statement.h"
#include "checkpoint/postgres.h"
#include "engine/base/map.h"

struct session {
    struct applier base;
    struct pg_applier_options options;
    struct checkpoint_key key;
    PGconn *pg;    /* Applies. */
    PGconn *side;  /* Asks green's catalogue and how far its log is on disk. */
    PGconn *other; /* Asks the source; opened when first needed. */
    struct pipeline pipeline;
    bool in_pipeline;
    uint64_t connection; /* Grows whenever no statement is prepared any more. */
    uint64_t statements; /* Numbers statements. */
    uint64_t epoch;
    bool defers;         /* Some table applied to has a deferrable constraint. */
    struct map bindings; /* By relation version. */
    uint64_t marked;     /* flushed(): commits up to here ... */
    uint64_t mark_lsn;   /* ... stand before this place in green's log. */
    uint64_t durable;
    struct writer values; /* Scratch: the parameters of one statement. */
    size_t *offsets;
    const char **pointers;
    int *lengths;
    int *formats;
    size_t param_room;
};

/* The binding of a relation, made if need be. */
must_check bool session_binding(struct session *s, const struct relation *rel,
                                struct binding **out, struct error *err);

/* The statement's name on the current connection ("t17"), in `name`. True if it still has to be
 * prepared there; the caller then does. */
bool session_names_statement(struct session *s, struct statement *st, char *name, size_t size,
                             uint32_t *types);

/* The parameters of one row, or of many, valid until the next call. */
struct parameters session_values(struct session *s, const struct statement *st,
                                 const struct tuple *before, const struct tuple *after,
                                 uint32_t count);

/* A connection to the source, kept. */
must_check bool session_source(struct session *s, PGconn **out, struct error *err);

/* See applier_ops.apply_row; the connection is idle inside a transaction. */
must_check bool session_apply_row(struct session *s, const struct change *change,
                                  enum row_mode mode, struct row_result *result,
                                  struct error *err);

#endif
