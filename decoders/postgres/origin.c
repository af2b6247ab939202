#include "decoders/postgres/origin.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "decoders/postgres/publication.h"
#include "decoders/postgres/slot.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/postgres/pg.h"

enum { CONNECT_TIMEOUT_S = 10, WAIT_REPORT_US = 5000000 };

struct pg_origin {
    struct origin base;
    const struct options *options;
    const char *conninfo;
    char object[PG_OBJECT_NAME_MAX];
    PGconn *pg;
    PGconn *keeper;      /* Holds the snapshot of create(). */
    uint64_t end_before; /* Where the log ended at the last probe. */
};

static const char schema_sql[] =
    "create schema if not exists teal;"
    "create table if not exists teal.migration (name text primary key, slot text not null,"
    " publication text not null, identity text not null, created timestamptz not null default "
    "now());"
    "create table if not exists teal.barrier (migration text primary key, id bigint not null)";

static struct pg_origin *origin_of(struct origin *o)
{
    return container_of(o, struct pg_origin, base);
}

void pg_object_name(const char *migration, char *out)
{
    (void)snprintf(out, PG_OBJECT_NAME_MAX, "teal_%s", migration);
}

void pg_identity_system(const char *identity, char *out, size_t size)
{
    out[0] = '\0';
    const char *at = strchr(identity, ' ');
    if (at != NULL)
        (void)snprintf(out, size, "%.*s", (int)strcspn(at + 1, " "), at + 1);
}

static bool pg_origin_open(struct origin *base, struct error *err)
{
    struct pg_origin *o = origin_of(base);
    if (o->pg != NULL && PQstatus(o->pg) == CONNECTION_OK)
        return true;
    pg_close(&o->pg);
    return pg_connect(o->conninfo, PG_QUERY, o->options->name, CONNECT_TIMEOUT_S, &o->pg, err);
}

/* ---- what stands there ---- */

static bool exists(struct pg_origin *o, const char *sql, bool *found, struct error *err)
{
    const char *values[] = {o->object};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(o->pg, sql, 1, values, &res, err));
    *found = PQntuples(res) > 0;
    return true;
}

/* Nothing of ours is there: then nothing may have our names. */
static bool refuse_foreign(struct pg_origin *o, struct error *err)
{
    bool slot;
    bool publication;
    TRY(exists(o, "select 1 from pg_replication_slots where slot_name = $1", &slot, err));
    TRY(exists(o, "select 1 from pg_publication where pubname = $1", &publication, err));
    if (!slot && !publication)
        return true;
    error_set(err, ERROR_CONFIG, "the source has a %s %s that this migration did not make",
              slot ? "replication slot" : "publication", o->object);
    return error_hint(err,
                      slot ? "Choose another [migration] name, or, if nobody needs it: SELECT "
                             "pg_drop_replication_slot('%s');"
                           : "Choose another [migration] name, or, if nobody needs it: DROP "
                             "PUBLICATION %s;",
                      o->object);
}

static bool check_slot(struct pg_origin *o, struct error *err)
{
    bool has_status = PQserverVersion(o->pg) >= 130000;
    const char *values[] = {o->object};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(o->pg,
                 has_status
                     ? "select coalesce(wal_status, ''), plugin, database = current_database() "
                       "from pg_replication_slots where slot_name = $1"
                     : "select '', plugin, database = current_database() from "
                       "pg_replication_slots where slot_name = $1",
                 1, values, &res, err));
    static const char way_out[] =
        "The changes since then can no longer be had. Start over: teal finish, "
        "empty the target's tables, teal run.";
    if (PQntuples(res) == 0) {
        error_set(err, ERROR_LOST,
                  "replication slot %s, which this migration made, is gone from the source",
                  o->object);
        return error_hint(err, "%s", way_out);
    }
    if (strcmp(PQgetvalue(res, 0, 0), "lost") == 0) {
        error_set(err, ERROR_LOST,
                  "the source invalidated replication slot %s: its log was removed", o->object);
        return error_hint(err, "%s Raise max_slot_wal_keep_size first.", way_out);
    }
    if (strcmp(PQgetvalue(res, 0, 1), "pgoutput") != 0 || !pg_bool(res, 0, 2))
        return error_set(err, ERROR_LOST,
                         "replication slot %s on the source is not the one this migration made",
                         o->object);
    return true;
}

static bool read_identity(const char *text, struct stream_identity *identity, struct error *err)
{
    const char *start = strrchr(text, ' ');
    uint64_t lsn;
    if (start == NULL || !pg_lsn_parse(start + 1, &lsn) ||
        strlen(text) >= sizeof identity->text)
        return error_set(err, ERROR_DATA,
                         "teal.migration on the source holds a damaged identity");
    (void)snprintf(identity->text, sizeof identity->text, "%s", text);
    identity->start =
        position_of((struct bytes){(const uint8_t *)start + 1, strlen(start + 1)});
    return true;
}

/* What an engine began to make and did not finish is unmade. */
static bool remove_objects(struct pg_origin *o, struct error *err)
{
    const char *values[] = {o->object};
    TRY(pg_query(o->pg,
                 "select pg_terminate_backend(active_pid) from pg_replication_slots "
                 "where slot_name = $1 and active_pid is not null",
                 1, values, NULL, err));
    for (int tries = 0;; tries++) {
        if (pg_query(
                o->pg,
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where "
                "slot_name = $1",
                1, values, NULL, err))
            break;
        if (strcmp(err->sqlstate, "55006") != 0 || tries == 50)
            return error_wrap(err, "drop replication slot %s", o->object);
        error_clear(err);
        (void)poll(NULL, 0, 100);
    }
    struct writer sql = {0};
    writer_printf(&sql, "drop publication if exists \"%s\", \"%s" PG_INSERTS_SUFFIX "\"",
                  o->object, o->object);
    bool ok = pg_execute(o->pg, writer_cstr(&sql), err);
    writer_release(&sql);
    return ok;
}

static bool pg_origin_find(struct origin *base, struct stream_identity *identity, bool *found,
                           struct error *err)
{
    struct pg_origin *o = origin_of(base);
    *found = false;
    const char *values[] = {o->options->name};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!pg_query(o->pg, "select identity from teal.migration where name = $1", 1, values, &res,
                  err)) {
        if (strcmp(err->sqlstate, "42P01") != 0 && strcmp(err->sqlstate, "3F000") != 0)
            return false;
        error_clear(err);
        return refuse_foreign(o, err);
    }
    if (PQntuples(res) == 0)
        return refuse_foreign(o, err);
    if (PQgetvalue(res, 0, 0)[0] == '\0')
        return remove_objects(o, err);
    TRY(read_identity(PQgetvalue(res, 0, 0), identity, err));
    *found = true;
    return check_slot(o, err);
}

static bool pg_origin_exists(struct origin *base, bool *found, struct error *err)
{
    struct pg_origin *o = origin_of(base);
    const char *values[] = {o->options->name, o->object};
    cleanup_with(pg_result_drop) PGresult *table = NULL;
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(o->pg, "select to_regclass('teal.migration') is not null", 0, NULL, &table,
                 err));
    TRY(pg_query(o->pg,
                 pg_bool(table, 0, 0)
                     ? "select 1 from teal.migration where name = $1 union all select 1 from "
                       "pg_replication_slots where slot_name = $2"
                     : "select 1 from pg_replication_slots where slot_name = $2 and $1 <> ''",
                 2, values, &res, err));
    *found = PQntuples(res) > 0;
    return true;
}

/* ---- making ---- */

static bool make_schema(struct pg_origin *o, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(o->pg,
                 "select to_regclass('teal.migration') is not null and "
                 "to_regclass('teal.barrier') is not null",
                 0, NULL, &res, err));
    if (pg_bool(res, 0, 0) || pg_execute(o->pg, schema_sql, err))
        return true;
    if (err->kind == ERROR_CONFIG)
        error_hint(err, "GRANT CREATE ON DATABASE %s TO %s;", PQdb(o->pg), PQuser(o->pg));
    return error_wrap(err, "make the schema teal on the source");
}

static bool refuse_unidentified(const struct options *options,
                                const struct source_tables *tables, struct error *err)
{
    for (size_t i = 0; i < tables->count; i++) {
        const struct source_table *t = &tables->list[i];
        bool will_be = t->identity == 'f';
        for (size_t k = 0; k < options->set_identity_full_count; k++)
            will_be = will_be || strcmp(options->set_identity_full[k], t->shown) == 0;
        if (t->has_key || will_be || t->identity == 'n' || t->is_unlogged)
            continue;
        error_set(err, ERROR_CONFIG,
                  "table %s has no primary key and no usable replica identity: its updates and "
                  "deletes could not be followed",
                  t->shown);
        return error_hint(err,
                          "Give it a primary key, or ALTER TABLE %s REPLICA IDENTITY USING "
                          "INDEX <unique index>, "
                          "or list it in [tables] set-identity-full, or exclude it. teal check "
                          "names every such table.",
                          t->shown);
    }
    return true;
}

static bool intend(struct pg_origin *o, const char *identity, struct error *err)
{
    const char *values[] = {o->options->name, o->object, identity};
    return pg_query(
        o->pg,
        "insert into teal.migration (name, slot, publication, identity) values "
        "($1, $2, $2, $3) on conflict (name) do update set identity = excluded.identity",
        3, values, NULL, err);
}

/* Slot creation waits for every transaction that is running; say for which. */
static void report_waiting(struct pg_origin *o)
{
    struct error unheard = {0};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!pg_query(
            o->pg,
            "select coalesce(string_agg(pid::text, ',' order by xact_start), ''), "
            "coalesce(extract(epoch from now() - min(xact_start))::bigint, 0) "
            "from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()",
            0, NULL, &res, &unheard))
        return;
    log_event("slot.waiting", LOG_WARN, "slot=%s for_pids=%s oldest_seconds=%s", o->object,
              PQgetvalue(res, 0, 0)[0] == '\0' ? "none" : PQgetvalue(res, 0, 0),
              PQgetvalue(res, 0, 1));
}

static bool create_slot(struct pg_origin *o, PGconn *repl, PGresult **out, struct error *err)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   PQserverVersion(repl) >= 170000
                       ? "CREATE_REPLICATION_SLOT \"%s\" LOGICAL pgoutput (SNAPSHOT 'export', "
                         "FAILOVER true)"
                       : "CREATE_REPLICATION_SLOT \"%s\" LOGICAL pgoutput EXPORT_SNAPSHOT",
                   o->object);
    if (PQsendQuery(repl, sql) != 1)
        return pg_failed(repl, NULL, err);
    int64_t report_at = clock_mono_us() + WAIT_REPORT_US;
    while (PQisBusy(repl)) {
        struct pollfd p = {.fd = PQsocket(repl), .events = POLLIN};
        (void)poll(&p, 1, 500);
        if (p.revents != 0 && PQconsumeInput(repl) == 0)
            return pg_failed(repl, NULL, err);
        if (clock_mono_us() > report_at) {
            report_waiting(o);
            report_at = clock_mono_us() + WAIT_REPORT_US;
        }
    }
    *out = PQgetResult(repl);
    if (PQresultStatus(*out) == PGRES_TUPLES_OK)
        return true;
    pg_failed(repl, *out, err);
    if (err->kind == ERROR_CONFIG)
        error_hint(err, "ALTER ROLE %s REPLICATION;", PQuser(repl));
    else if (strcmp(err->sqlstate, "53400") == 0 || strcmp(err->sqlstate, "53300") == 0) {
        err->kind = ERROR_CONFIG;
        error_hint(err, "Raise max_replication_slots and max_wal_senders on the source, or "
                        "drop slots that nobody uses.");
    } else if (strcmp(err->sqlstate, "55000") == 0) {
        err->kind = ERROR_CONFIG;
        error_hint(err, "ALTER SYSTEM SET wal_level = logical; and restart the source.");
    }
    return error_wrap(err, "create replication slot %s", o->object);
}

/* The exported snapshot dies with the next command of the replication connection: take it over
 * into a transaction of our own and export it from there. */
static bool keep_snapshot(struct pg_origin *o, const char *name, char *snapshot, size_t size,
                          struct error *err)
{
    TRY(pg_connect(o->conninfo, PG_COPY, o->options->name, CONNECT_TIMEOUT_S, &o->keeper, err));
    char sql[256];
    (void)snprintf(
        sql, sizeof sql,
        "begin isolation level repeatable read read only; set transaction snapshot '%s'", name);
    TRY(pg_execute(o->keeper, sql, err));
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(o->keeper,
                 PQserverVersion(o->keeper) >= 130000
                     ? "select pg_export_snapshot(), pg_current_snapshot()"
                     : "select pg_export_snapshot(), txid_current_snapshot()",
                 0, NULL, &res, err));
    if ((size_t)snprintf(snapshot, size, "%s|%s", PQgetvalue(res, 0, 0),
                         PQgetvalue(res, 0, 1)) >= size)
        return error_set(err, ERROR_RETRY,
                         "too many transactions are running on the source to note them all");
    return true;
}

static bool make_stream(struct pg_origin *o, PGconn *repl, struct stream_identity *identity,
                        char *snapshot, size_t size, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *system = PQexec(repl, "IDENTIFY_SYSTEM");
    if (PQresultStatus(system) != PGRES_TUPLES_OK)
        return pg_failed(repl, system, err);
    cleanup_with(pg_result_drop) PGresult *slot = NULL;
    TRY(create_slot(o, repl, &slot, err));
    const char *start = PQgetvalue(slot, 0, 1);
    (void)snprintf(identity->text, sizeof identity->text, "postgresql %s %.63s %s %s",
                   PQgetvalue(system, 0, 0), PQgetvalue(system, 0, 3), o->object, start);
    identity->start = position_of((struct bytes){(const uint8_t *)start, strlen(start)});
    TRY(keep_snapshot(o, PQgetvalue(slot, 0, 2), snapshot, size, err));
    return intend(o, identity->text, err);
}

static bool pg_origin_create(struct origin *base, struct stream_identity *identity,
                             char *snapshot, size_t size, struct error *err)
{
    struct pg_origin *o = origin_of(base);
    struct source_tables tables = {0};
    TRY(make_schema(o, err));
    TRY(intend(o, "", err));
    bool ok = publication_tables(o->pg, o->options, &tables, err) &&
              refuse_unidentified(o->options, &tables, err) &&
              publication_create(o->pg, o->options, o->object, &tables, err);
    source_tables_release(&tables);
    if (!ok)
        return false;
    cleanup_with(pg_close) PGconn *repl = NULL;
    TRY(pg_connect(o->conninfo, PG_REPLICATION, o->options->name, CONNECT_TIMEOUT_S, &repl,
                   err));
    TRY(make_stream(o, repl, identity, snapshot, size, err));
    log_event("slot.created", LOG_INFO, "slot=%s position=%s", o->object, identity->start.text);
    return true;
}

static void pg_origin_release_snapshot(struct origin *base)
{
    pg_close(&origin_of(base)->keeper);
}

static bool pg_origin_remove(struct origin *base, struct error *err)
{
    struct pg_origin *o = origin_of(base);
    pg_close(&o->keeper);
    TRY(remove_objects(o, err));
    const char *values[] = {o->options->name};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(o->pg, "select to_regclass('teal.migration') is not null", 0, NULL, &res,
                 err));
    if (!pg_bool(res, 0, 0))
        return true;
    TRY(pg_query(o->pg, "delete from teal.migration where name = $1", 1, values, NULL, err));
    TRY(pg_query(o->pg, "delete from teal.barrier where migration = $1", 1, values, NULL, err));
    cleanup_with(pg_result_drop) PGresult *left = NULL;
    TRY(pg_query(o->pg, "select count(*) from teal.migration", 0, NULL, &left, err));
    if (pg_u64(left, 0, 0) > 0)
        return true;
    return pg_execute(o->pg, "drop schema teal cascade", err);
}

/* ---- how far ---- */

/* Where the log ends, flushed or not. At the start of a page the place of the next insert lies
 * behind a header that no record will be sent for. */
static uint64_t log_end(uint64_t inserted, uint64_t flushed)
{
    enum { PAGE = 8192, SHORT_HEADER = 24, LONG_HEADER = 40 };
    uint64_t in_page = inserted % PAGE;
    bool only_header =
        (in_page == SHORT_HEADER || in_page == LONG_HEADER) && inserted - flushed == in_page;
    return only_header ? flushed : inserted;
}

/* An idle server may leave the last records of its log in memory for seconds, and sends what is
 * flushed alone. A commit with something in it flushes. */
static void flush_log(struct pg_origin *o)
{
    struct error unheard = {0};
    (void)!pg_query(o->pg, "select pg_logical_emit_message(true, 'teal', '')", 0, NULL, NULL,
                    &unheard);
}

static bool pg_origin_reaches_back(struct origin *base, const struct position *from,
                                   struct error *err)
{
    struct pg_origin *o = origin_of(base);
    uint64_t lsn;
    if (!pg_lsn_parse(from->text, &lsn))
        return error_set(err, ERROR_DATA, "not a position: %s", from->text);
    return slot_is_free(o->pg, o->object, err) && slot_reaches_back(o->pg, o->object, lsn, err);
}

static bool pg_origin_probe(struct origin *base, const struct position *since,
                            struct origin_probe *p, struct error *err)
{
    struct pg_origin *o = origin_of(base);
    TRY(pg_origin_open(base, err));
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(o->pg,
                 "select pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn(), "
                 "(extract(epoch from clock_timestamp()) * 1000000)::bigint",
                 0, NULL, &res, err));
    uint64_t inserted;
    uint64_t flushed;
    uint64_t from = 0;
    if (!pg_lsn_parse(PQgetvalue(res, 0, 0), &inserted) ||
        !pg_lsn_parse(PQgetvalue(res, 0, 1), &flushed))
        return error_set(err, ERROR_DATA, "the source's log position cannot be read");
    uint64_t end = log_end(inserted, flushed);
    if (flushed < o->end_before)
        flush_log(o);
    o->end_before = end;
    char text[20];
    pg_lsn_text(end, text);
    p->pos = position_of((struct bytes){(const uint8_t *)text, strlen(text)});
    p->server_time_us = (int64_t)pg_u64(res, 0, 2);
    bool known = since != NULL && pg_lsn_parse(since->text, &from);
    p->bytes_behind = known && end > from ? end - from : 0;
    return true;
}

static bool pg_origin_barrier(struct origin *base, uint64_t id, struct error *err)
{
    struct pg_origin *o = origin_of(base);
    TRY(pg_origin_open(base, err));
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, id);
    const char *values[] = {o->options->name, text};
    return pg_query(o->pg,
                    "insert into teal.barrier (migration, id) values ($1, $2) "
                    "on conflict (migration) do update set id = excluded.id",
                    2, values, NULL, err);
}

static bool pg_origin_reaches(const struct position *a, const struct position *b)
{
    uint64_t x;
    uint64_t y;
    return pg_lsn_parse(a->text, &x) && pg_lsn_parse(b->text, &y) && x >= y;
}

static void pg_origin_close(struct origin *base)
{
    struct pg_origin *o = origin_of(base);
    pg_close(&o->pg);
    pg_close(&o->keeper);
}

static void pg_origin_free(struct origin *base)
{
    pg_origin_close(base);
    free(origin_of(base));
}

static const struct origin_ops pg_origin_ops = {
    .name = "postgres",
    .open = pg_origin_open,
    .find = pg_origin_find,
    .exists = pg_origin_exists,
    .create = pg_origin_create,
    .release_snapshot = pg_origin_release_snapshot,
    .reaches_back = pg_origin_reaches_back,
    .probe = pg_origin_probe,
    .barrier = pg_origin_barrier,
    .remove = pg_origin_remove,
    .reaches = pg_origin_reaches,
    .close = pg_origin_close,
    .free = pg_origin_free,
};

struct origin *pg_origin_new(const struct options *options, const char *conninfo)
{
    struct pg_origin *o = calloc(1, sizeof *o);
    check(o != NULL);
    o->base.ops = &pg_origin_ops;
    o->options = options;
    o->conninfo = conninfo;
    pg_object_name(options->name, o->object);
    return &o->base;
}
