/* What a relation of the stream is on green: which table, which columns, how to match a row.
 *
 * A binding is made when a relation's version is first applied, from green's catalogue and the
 * operator's mapping, and says there and then whether the two shapes fit. It lives until the
 * applier forgets the shapes. */
#ifndef APPLIERS_POSTGRES_BINDING_H
#define APPLIERS_POSTGRES_BINDING_H

#include "engine/base/arena.h"
#include "engine/change.h"
#include "engine/options.h"
#include "engine/postgres/pg.h"

struct target_column {
    bool mapped; /* false: left out by the operator; nothing else is set. */
    struct bytes name;
    uint32_t type;
    uint32_t array_type;   /* 0: values travel as text[] and are cast to type_name. */
    const char *type_name; /* As a cast target, without a modifier. */
    bool is_always;        /* GENERATED ALWAYS AS IDENTITY: may be inserted, never set. */
    bool is_plain;         /* Equal by = means equal to the last byte. */
    bool matches;          /* One of the columns that find a row. */
};

struct statement;

struct binding {
    const struct relation *relation;
    struct arena arena;
    const char *shown; /* schema.table on green, for messages. */
    const char *table; /* Quoted, as it stands in SQL. */
    bool only;         /* An ordinary table: children are not ours to touch. */
    bool deferrable;   /* Has a constraint that may be checked at the end. */
    bool by_key; /* Matched columns are a key; else the whole row, and duplicates may be. */
    bool through_root;             /* The partition is not on green; its root is. */
    struct target_column *columns; /* As many as the relation has. */
    uint16_t extra_count;
    struct bytes *extra; /* Green's other columns, without those that it computes. */
    struct statement *statements;
    struct binding *next;
};

struct column_facts {
    bool is_known;
    bool is_exact; /* Else the source gave each older row a value of its own. */
    bool follows;  /* No column was dropped from right before it. */
};

struct binding_source {
    PGconn *green; /* Not in a pipeline. */
    const struct options *options;
    /* Answers what only blue's catalogue knows; may fail. Writes the partition root of a table
     * (false: none), or the SQL name of a type. */
    bool (*root_of)(void *context, const struct relation *rel, struct writer *schema,
                    struct writer *name);
    bool (*type_name)(void *context, uint32_t type, int32_t typmod, struct writer *out);
    /* "integer DEFAULT '7' NOT NULL": what makes a column in which the rows that are there read
     * as on the source. */
    bool (*column_type)(void *context, const struct relation *rel, struct bytes name,
                        struct writer *out, struct column_facts *facts);
    /* Runs a statement that mends the target; NULL unless the operator wants that. */
    bool (*mend)(void *context, const char *sql);
    void *context;
};

/* ERROR_SCHEMA, with the statement that mends it, if the relation does not fit. */
must_check bool binding_new(const struct binding_source *from, const struct relation *rel,
                            struct binding **out, struct error *err);
void binding_free(struct binding *b);

#endif
