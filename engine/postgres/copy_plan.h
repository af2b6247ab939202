/* What the initial copy has to do: each table with its parts, the statements that read and
 * write them, and what the ledger says is done already. */
#ifndef ENGINE_POSTGRES_COPY_PLAN_H
#define ENGINE_POSTGRES_COPY_PLAN_H

#include <stdatomic.h>

#include "appliers/postgres/binding.h"
#include "appliers/postgres/ledger.h"
#include "decoders/postgres/publication.h"
#include "decoders/postgres/snapshot.h"
#include "engine/options.h"

struct copy_part {
    uint32_t number;
    const char *range; /* A condition, or "". */
    bool done;
    uint64_t rows;
    uint64_t weight; /* Bytes on the source, about. */
};

struct copy_table {
    const struct source_table *source;
    struct relation relation;
    struct binding *binding;
    const char *reads;  /* "select a, b from only s.t" */
    const char *whole;  /* The same as COPY's own table form: faster. */
    const char *writes; /* "s.t (a, b)" */
    bool binary;
    bool at_one_moment;   /* All its parts must be of one snapshot. */
    bool through_staging; /* Rows may be there already, under a unique index. */
    bool mixed;           /* Parts of several snapshots: duplicates must go. */
    bool done;
    uint64_t file;
    size_t part_count;
    struct copy_part *parts;
    size_t next_part; /* The first that no worker looked at. */
    atomic_ullong rows_done;
    atomic_ullong bytes_done;
    atomic_uint parts_left;
    atomic_bool running;
};

struct copy_plan {
    struct arena arena;
    struct source_tables sources;
    size_t table_count;
    struct copy_table *tables;
};

struct copy_planner {
    const struct options *options;
    const struct snapshot *snapshot; /* Its keeper reads the catalogue. */
    PGconn *green;                   /* Idle. */
};

/* Compares with the ledger, which it brings up to date: a table that was never begun must be
 * empty on the target; one that was begun at another snapshot goes on if its rows have a key
 * and else starts again. */
must_check bool copy_plan_make(const struct copy_planner *p, struct copy_plan *out,
                               struct error *err);
void copy_plan_release(struct copy_plan *plan);

#endif
