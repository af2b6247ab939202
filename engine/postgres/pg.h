/* What all that speaks to PostgreSQL shares: connecting, asking, quoting.
 *
 * A connection made here has every setting pinned that changes how values look or how long a
 * statement may take, whatever the role's or the database's defaults are. Errors carry the
 * server's SQLSTATE and message and a kind that says whether trying again can help. */
#ifndef ENGINE_POSTGRES_PG_H
#define ENGINE_POSTGRES_PG_H

#include <libpq-fe.h>

#include "engine/base/error.h"
#include "engine/base/writer.h"

enum pg_use {
    PG_QUERY, /* Catalogue reads, small writes. */
    PG_COPY,  /* Bulk rows, either way. */
    PG_APPLY, /* Applies changes: session_replication_role = replica, asynchronous commit. */
    PG_REPLICATION, /* replication=database: the walsender. */
};

/* Connects within `timeout_s`. application_name is "teal NAME". ERROR_CONNECT for what cannot
 * work as configured (password, database, TLS, pg_hba), ERROR_RETRY for what may work later
 * (refused, starting up, too many clients, network). */
must_check bool pg_connect(const char *conninfo, enum pg_use use, const char *name,
                           int timeout_s, PGconn **out, struct error *err);

/* Runs one statement with text parameters (all may be NULL) and expects rows or a command's
 * end. *out may be NULL if the rows are not wanted; else PQclear it
 * (cleanup_with(pg_result_drop)). */
must_check bool pg_query(PGconn *pg, const char *sql, int count, const char *const *values,
                         PGresult **out, struct error *err);
/* Several statements separated by semicolons, no parameters, results dropped. */
must_check bool pg_execute(PGconn *pg, const char *sql, struct error *err);

/* Fills err from a failed result (res may be NULL: then from the connection). Returns false.
 * The kind: lost connections, shutdowns, deadlocks, lock and statement timeouts, too many
 * connections, read-only targets (25006) and out-of-resource are ERROR_RETRY; 23xxx and 22xxx
 * ERROR_CONFLICT; 42xxx ERROR_SCHEMA, but 42501 ERROR_CONFIG; 28xxx and 3D000 ERROR_CONNECT. */
bool pg_failed(PGconn *pg, const PGresult *res, struct error *err);

/* "name" with doubled quotes, always quoted. */
void pg_quote_name(struct writer *w, struct bytes name);
void pg_quote_table(struct writer *w, struct bytes schema, struct bytes name);
/* 'text' as a literal that is right whatever standard_conforming_strings is. */
void pg_quote_literal(struct writer *w, struct bytes text);

/* Values of results. */
static inline const char *pg_text(const PGresult *res, int row, int column)
{
    return PQgetisnull(res, row, column) ? NULL : PQgetvalue(res, row, column);
}
uint64_t pg_u64(const PGresult *res, int row, int column); /* 0 if NULL or not a number. */
bool pg_bool(const PGresult *res, int row, int column);

/* "16/B374D848" to the number and back (at least 20 bytes of room). */
must_check bool pg_lsn_parse(const char *text, uint64_t *lsn);
void pg_lsn_text(uint64_t lsn, char *out);

/* For cleanup_with(). */
void pg_result_drop(PGresult **res);
void pg_close(PGconn **pg);

#endif
