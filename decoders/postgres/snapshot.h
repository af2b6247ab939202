/* A moment of a PostgreSQL source, held so that several connections can read it, and exactly
 * which transactions it sees. */
#ifndef DECODERS_POSTGRES_SNAPSHOT_H
#define DECODERS_POSTGRES_SNAPSHOT_H

#include "engine/base/arena.h"
#include "engine/postgres/pg.h"

/* Which transactions a snapshot sees (PostgreSQL manual, 9.26.7: the format of pg_snapshot).
 * Zero sees none. */
struct visibility {
    uint64_t xmin; /* All before it are visible or aborted. */
    uint64_t xmax; /* None from it on is visible. */
    size_t count;
    const uint64_t *running; /* Between the two, ascending: not visible. */
};

/* "10:20:10,14,15". The list lives in `a`. */
must_check bool visibility_parse(struct arena *a, const char *text, struct visibility *out);

/* Whether it sees what top-level transaction `xid` did, if that committed. `xid` is what the
 * stream carries: the low 32 bits. */
bool visibility_sees(const struct visibility *v, uint32_t xid);

struct snapshot {
    PGconn *keeper;   /* Its transaction holds it; usable for catalogue reads in it. */
    char name[64];    /* For SET TRANSACTION SNAPSHOT. */
    char *seen;       /* As visibility_parse() takes it; owned. */
    int64_t taken_us; /* Monotonic. */
};

/* Takes one now, or, with `from` ("NAME|SEEN", see origin.h), takes over one that another
 * transaction still holds. */
must_check bool snapshot_take(struct snapshot *s, const char *conninfo, const char *migration,
                              const char *from, struct error *err);
void snapshot_drop(struct snapshot *s); /* Idempotent. */

/* Begins a transaction that sees it. */
must_check bool snapshot_begin(const struct snapshot *s, PGconn *pg, struct error *err);

#endif
