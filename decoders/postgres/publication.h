/* Which of the source's tables move, and the publication that says so to its server. */
#ifndef DECODERS_POSTGRES_PUBLICATION_H
#define DECODERS_POSTGRES_PUBLICATION_H

#include "engine/options.h"
#include "engine/postgres/pg.h"

/* Behind the publication's name: the one for tables that are only inserted into. */
#define PG_INSERTS_SUFFIX "_inserts"

/* A table of the source that holds rows itself. */
struct source_table {
    uint32_t oid;
    const char *schema;
    const char *name;
    const char *shown; /* schema.name */
    bool is_partition;
    char identity;  /* pg_class.relreplident. */
    bool has_key;   /* Its identity is set and names columns. */
    uint64_t bytes; /* Heap and TOAST. */
    uint64_t pages; /* Of the heap. */
    int64_t rows;   /* Estimate; -1: never analysed. */
    bool is_unlogged;
};

struct source_tables {
    struct arena arena;
    size_t count;
    struct source_table *list; /* Largest first. */
};

/* The ordinary tables and leaf partitions that the configuration takes in. Those of teal itself
 * and of the system never. */
must_check bool publication_tables(PGconn *pg, const struct options *o,
                                   struct source_tables *out, struct error *err);
void source_tables_release(struct source_tables *t);

/* Makes the publication for these tables and our own barrier table. A table with REPLICA
 * IDENTITY NOTHING goes into one of its own, which publishes no updates and deletes: in the
 * first, the source would refuse them. Partitioned tables are named by their roots where the
 * server can, so that partitions to come are followed. Gives tables the identity that [tables]
 * set-identity-full asks for. */
must_check bool publication_create(PGconn *pg, const struct options *o, const char *name,
                                   const struct source_tables *tables, struct error *err);

#endif
