/* What of the initial copy is on a PostgreSQL target, told by the target itself.
 *
 * teal.copy: one row a migration, how far the copy is. teal.copy_table: one row a table, the
 * snapshots of the source at which its first and its last part were read. teal.copy_chunk: one
 * row a part, its row count once it is there, written in the transaction that brought the rows.
 * Layout: FORMATS.md. */
#ifndef APPLIERS_POSTGRES_LEDGER_H
#define APPLIERS_POSTGRES_LEDGER_H

#include "engine/base/arena.h"
#include "engine/postgres/pg.h"

enum ledger_stage {
    LEDGER_SCHEMA, /* Nothing yet, or the schema is being made. */
    LEDGER_ROWS,
    LEDGER_KEYS,   /* All rows are there. */
    LEDGER_WINDOW, /* Keys, too: changes may be applied; window_end is known. */
    LEDGER_DONE,
};

struct ledger_chunk {
    uint32_t part;
    const char *range; /* A condition on the source's table; "" : all of it. */
    bool done;
    uint64_t rows;
};

struct ledger_table {
    uint32_t oid; /* On the source. */
    const char *name;
    const char *target; /* On the target, as it stands in SQL. */
    const char *first;  /* What the snapshot of its first part saw. */
    const char *last;
    bool done;     /* All parts, and no row twice. */
    uint64_t file; /* The source's relfilenode when it was begun. */
    size_t chunk_count;
    struct ledger_chunk *chunks;
};

struct ledger {
    struct arena arena;
    enum ledger_stage stage;
    const char *window_end; /* "" before LEDGER_WINDOW. */
    size_t table_count;
    struct ledger_table *tables;
};

/* Makes the tables if they are missing. */
must_check bool ledger_prepare(PGconn *green, struct error *err);
must_check bool ledger_read(PGconn *green, const char *migration, struct ledger *out,
                            struct error *err);
void ledger_release(struct ledger *l);
uint64_t ledger_rows(const struct ledger *l); /* Of all chunks that are done. */

must_check bool ledger_set_stage(PGconn *green, const char *migration, enum ledger_stage stage,
                                 const char *window_end, struct error *err);

/* Begins a table: its chunks replace what was noted of it. */
must_check bool ledger_begin_table(PGconn *green, const char *migration,
                                   const struct ledger_table *t, struct error *err);
must_check bool ledger_set_last(PGconn *green, const char *migration, uint32_t oid,
                                const char *last, struct error *err);
must_check bool ledger_end_table(PGconn *green, const char *migration, uint32_t oid,
                                 struct error *err);

/* In the transaction of the rows. ERROR_FENCED if the chunk was done by somebody else. */
must_check bool ledger_end_chunk(PGconn *green, const char *migration, uint32_t oid,
                                 uint32_t part, uint64_t rows, struct error *err);

#endif
