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
    STATEMENT_LOOK, /* Counts the rows that match: an update that sets nothing. */
};

struct statement_param {
    uint16_t column;
    bool from_before;
    uint32_t type; /* For the server. */
};

struct statement {
    struct statement *next;
    enum statement_kind kind;
    bool many;
    const uint8_t *set;   /* One byte a column: 1 if it is set (UPDATE). */
    const uint8_t *nulls; /* One byte a column: 1 if it must be NULL (whole-row match). */
    const char *sql;
    uint16_t param_count;
    const struct statement_param *params;
    uint64_t number;     /* Names it on a connection; unique in the process. 0: never used. */
    uint64_t connection; /* The connection it is prepared on; 0: none. */
};

/* Which columns an update sets, into set[column_count]: what was sent, without the key unless
 * it changed, without what only green may set. Returns how many. `before` finds the row. */
uint16_t statement_set_columns(const struct binding *b, const struct tuple *before,
                               const struct tuple *after, uint8_t *set);

/* Finds or builds. `set` as above (UPDATE, else NULL). `before` gives the NULLs of a whole-row
 * match, which is never many. */
struct statement *statement_get(struct binding *b, enum statement_kind kind, bool many,
                                const uint8_t *set, const struct tuple *before);

#endif
