/* The schema between its own files: schema.c reads it from blue, schema_check.c looks
 * whether green can take it, schema_apply.c and schema_keys.c make it, schema_after.c does what
 * follows the last row. */
#ifndef APPLIERS_POSTGRES_SCHEMA_INNER_H
#define APPLIERS_POSTGRES_SCHEMA_INNER_H

#include "appliers/postgres/dump.h"
#include "appliers/postgres/schema.h"

struct schema_table {
    const char *schema; /* On blue. */
    const char *name;
    bool wanted;         /* It is copied. */
    bool made;           /* And made by us: it is not mapped to a table of another name. */
    bool partition;      /* Of a table that is copied: is analysed with it. */
    const char *pattern; /* "schema"."name". */
    const char *green;   /* The same on green. */
};

struct schema {
    const struct options *options;
    struct arena arena;
    struct dump pre;
    struct dump post;
    bool *post_done; /* By entry. */
    size_t table_count;
    struct schema_table *tables;
    bool leaves_out; /* Some table is not made here. */
    size_t role_count;
    const char **roles; /* That are granted something, besides the entries' owners. */
};

enum entry_outcome {
    ENTRY_MADE,
    ENTRY_THERE,   /* Green had it. */
    ENTRY_SKIPPED, /* With a warning. */
    ENTRY_EARLY,   /* What it needs is not there yet. */
    ENTRY_FAILED,
};

/* ERROR_CONFIG if green lacks roles or extensions that the dump names. */
must_check bool schema_check_green(const struct schema *s, PGconn *green, struct error *err);

/* The settings the dump relies on. */
must_check bool schema_settle(const struct dump *dump, PGconn *green, struct error *err);

/* Runs `sql`, which may be several statements, and cancels it when *stop becomes true. */
must_check bool schema_run(PGconn *pg, const char *sql, const _Atomic bool *stop,
                           struct error *err);

/* One entry of either dump. ENTRY_EARLY only if `may_wait`. */
enum entry_outcome schema_entry(const struct schema *s, const struct dump_entry *entry,
                                bool may_wait, PGconn *pg, const _Atomic bool *stop,
                                struct error *err);

/* Whether the entry belongs to the stage of the keys. */
bool schema_is_key(const struct dump_entry *entry);

#endif
