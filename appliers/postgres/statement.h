/* The SQL that applies rows: text and parameters from a binding, a kind and a set of columns.
 *
 * Pure: no connection. A statement is built once and kept with its binding. "Many" statements
 * take one array a column (unnest), the others one value a column. */
#ifndef APPLIERS_POSTGRES_STATEMENT_H
#define APPLIERS_POSTGRES_STATEMENT_H

#include "appliers/postgres/binding.h"
#include "engine/batch.h"

enum statement_kind {
    STATEMENT_INSERT,
    STATEMENT_UPDATE,
    STATEMENT_DELETE,
    STATEMENT_LOOK,    /* Counts the rows that match: an update that sets nothing. */
    STATEMENT_REPLACE, /* An update that the server refuses as one: the row goes and comes. */
};

/* How many rows a change must touch, asked by the statement itself: it divides by zero if it
 * was another number. Its commit was sent behind it and must not happen then. */
enum statement_demand {
    DEMAND_NOTHING,
    DEMAND_EACH, /* One row for each that was given. */
    DEMAND_NONE, /* No row. */
};

struct statement_param {
    uint16_t column;
    bool from_before;
    uint32_t type;    /* For the server. */
    uint32_t element; /* Not 0: an array of this type, which may go in binary. */
};

struct statement {
    struct statement *next;
    enum statement_kind kind;
    enum statement_demand demand;
    bool many;
    const uint8_t *set;   /* One byte a column: 1 if it is set (UPDATE, REPLACE). */
    const uint8_t *nulls; /* One byte a column: 1 if it must be NULL (whole-row match). */
    const char *sql;
    uint16_t param_count;
    const struct statement_param *params;
    uint64_t number;     /* Names it on a connection; unique in the process. 0: never used. */
    uint64_t connection; /* The connection it is prepared on; 0: none. */
};

/* How to update a row, and which columns that sets, into set[column_count]: what was sent,
 * without the key unless it changed. An identity that is GENERATED ALWAYS cannot be set by an
 * UPDATE. `before` finds the row; all rows of a batch are updated alike. */
enum statement_kind statement_for_update(const struct binding *b, const struct tuple *before,
                                         const struct tuple *after, uint8_t *set);

/* Finds or builds. `set` as above (UPDATE and REPLACE, else ignored). `before` gives the NULLs
 * of a whole-row match, which is never many. An insert has no demand: it fails by itself. */
struct statement *statement_get(struct binding *b, enum statement_kind kind,
                                enum statement_demand demand, bool many, const uint8_t *set,
                                const struct tuple *before);

#endif
