/* The schema teal on green may be shared: by another migration into the same database, or by
 * one that has this database as its source. So only rows of this migration go, and the schema
 * goes when no row of anybody is left in it. All in one transaction that locks the tables
 * first, so that a migration which is just starting is seen or waits. A schema of that name
 * without any table of ours is somebody else's. */
#include "appliers/postgres/cleanup.h"

#include <stdio.h>

#include "checkpoint/postgres.h"
#include "engine/base/log.h"
#include "engine/postgres/pg.h"

enum { CONNECT_TIMEOUT_S = 10 };

static const char *const our_tables[] = {"copy_chunk", "copy_table", "copy", "checkpoint"};

static bool is_ours(const char *name)
{
    for (size_t i = 0; i < array_count(our_tables); i++)
        if (strcmp(our_tables[i], name) == 0)
            return true;
    return false;
}

static void put_table(struct writer *w, const char *name)
{
    writer_text(w, "teal.");
    pg_quote_name(w, (struct bytes){(const uint8_t *)name, strlen(name)});
}

static bool lock_tables(PGconn *pg, const PGresult *tables, struct error *err)
{
    cleanup_with(writer_release) struct writer sql = {0};
    if (PQntuples(tables) == 0)
        return true;
    for (int i = 0; i < PQntuples(tables); i++) {
        writer_text(&sql, i == 0 ? "lock table " : ", ");
        put_table(&sql, PQgetvalue(tables, i, 0));
    }
    return pg_execute(pg, writer_cstr(&sql), err);
}

/* Tells in *any whether there is a table of ours. */
static bool delete_rows(PGconn *pg, const PGresult *tables, const char *migration, bool *any,
                        struct error *err)
{
    const char *values[] = {migration};
    *any = false;
    for (int i = 0; i < PQntuples(tables); i++) {
        if (!is_ours(PQgetvalue(tables, i, 0)))
            continue;
        *any = true;
        cleanup_with(writer_release) struct writer sql = {0};
        writer_text(&sql, "delete from ");
        put_table(&sql, PQgetvalue(tables, i, 0));
        writer_text(&sql, " where migration = $1");
        TRY(pg_query(pg, writer_cstr(&sql), 1, values, NULL, err));
    }
    return true;
}

static bool holds_rows(PGconn *pg, const PGresult *tables, bool *holds, struct error *err)
{
    cleanup_with(writer_release) struct writer sql = {0};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    writer_text(&sql, "select false");
    for (int i = 0; i < PQntuples(tables); i++) {
        writer_text(&sql, " or exists (select 1 from ");
        put_table(&sql, PQgetvalue(tables, i, 0));
        writer_text(&sql, ")");
    }
    TRY(pg_query(pg, writer_cstr(&sql), 0, NULL, &res, err));
    *holds = pg_bool(res, 0, 0);
    return true;
}

static bool clean(PGconn *pg, const char *migration, bool *dropped, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *tables = NULL;
    bool any;
    bool holds;
    TRY(pg_execute(pg, "begin; set local lock_timeout = '10s'", err));
    TRY(pg_query(pg,
                 "select c.relname from pg_class c join pg_namespace n on n.oid = "
                 "c.relnamespace where n.nspname = 'teal' and c.relkind in ('r', 'p') "
                 "order by 1",
                 0, NULL, &tables, err));
    TRY(lock_tables(pg, tables, err));
    TRY(delete_rows(pg, tables, migration, &any, err));
    TRY(holds_rows(pg, tables, &holds, err));
    *dropped = any && !holds;
    if (*dropped)
        TRY(pg_execute(pg,
                       "set local client_min_messages = warning; "
                       "drop schema if exists teal cascade",
                       err));
    return pg_execute(pg, "commit", err);
}

bool pg_clean_target(const struct options *o, struct error *err)
{
    cleanup_with(pg_close) PGconn *pg = NULL;
    bool dropped;
    TRY(pg_connect(o->green.conninfo, PG_QUERY, o->name, CONNECT_TIMEOUT_S, &pg, err));
    if (clean(pg, o->name, &dropped, err)) {
        log_event("target.cleaned", LOG_INFO, "schema_dropped=%s", dropped ? "yes" : "no");
        return true;
    }
    if (err->kind == ERROR_CONFIG)
        (void)error_hint(err,
                         "On the target, as the owner of the schema teal: DROP SCHEMA teal "
                         "CASCADE; if no other migration uses it.");
    return error_wrap(err, "clean the target");
}

bool pg_read_checkpoint(const struct options *o, const char *identity, struct checkpoint *out,
                        bool *found, struct error *err)
{
    cleanup_with(pg_close) PGconn *pg = NULL;
    struct checkpoint_key key = {.migration = o->name, .feed = "forward", .identity = identity};
    *found = false;
    TRY(pg_connect(o->green.conninfo, PG_QUERY, o->name, CONNECT_TIMEOUT_S, &pg, err));
    return checkpoint_read(pg, &key, out, found, err);
}
