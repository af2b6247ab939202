#include "appliers/postgres/ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char tables_sql[] =
    "create schema if not exists teal;"
    "create table if not exists teal.copy (migration text primary key, stage text not null,"
    " window_end text not null);"
    "create table if not exists teal.copy_table (migration text not null, oid bigint not null,"
    " name text not null, target text not null, first text not null, last text not null, file "
    "bigint not null,"
    " done boolean not null, primary key (migration, oid));"
    "create table if not exists teal.copy_chunk (migration text not null, oid bigint not null,"
    " part int not null, range text not null, rows bigint, primary key (migration, oid, part))";

static const char *const stage_names[] = {"schema", "rows", "keys", "window", "done"};

/* Numbers as parameters. */
struct number {
    char text[24];
};

static const char *number(struct number *n, uint64_t value)
{
    (void)snprintf(n->text, sizeof n->text, "%" PRIu64, value);
    return n->text;
}

bool ledger_prepare(PGconn *green, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(green, "select to_regclass('teal.copy_chunk') is not null", 0, NULL, &res,
                 err));
    if (pg_bool(res, 0, 0) || pg_execute(green, tables_sql, err))
        return true;
    if (err->kind == ERROR_CONFIG)
        error_hint(err, "GRANT CREATE ON DATABASE %s TO %s;", PQdb(green), PQuser(green));
    return error_wrap(err, "make the schema teal on the target");
}

static const char *keep(struct arena *a, const char *text)
{
    return (const char *)arena_copy(a, (struct bytes){(const uint8_t *)text, strlen(text) + 1})
        .data;
}

static bool read_stage(PGconn *green, const char *migration, struct ledger *out,
                       struct error *err)
{
    const char *values[] = {migration};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(green, "select stage, window_end from teal.copy where migration = $1", 1,
                 values, &res, err));
    out->stage = LEDGER_SCHEMA;
    out->window_end = "";
    if (PQntuples(res) == 0)
        return true;
    out->window_end = keep(&out->arena, PQgetvalue(res, 0, 1));
    for (size_t i = 0; i < array_count(stage_names); i++) {
        if (strcmp(PQgetvalue(res, 0, 0), stage_names[i]) != 0)
            continue;
        out->stage = (enum ledger_stage)i;
        return true;
    }
    return error_set(err, ERROR_DATA, "teal.copy on the target holds an unknown stage");
}

static struct ledger_table *find(struct ledger *l, uint64_t oid)
{
    for (size_t i = 0; i < l->table_count; i++)
        if (l->tables[i].oid == oid)
            return &l->tables[i];
    return NULL;
}

static bool read_chunks(PGconn *green, const char *migration, struct ledger *out,
                        struct error *err)
{
    const char *values[] = {migration};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(
        green,
        "select oid, part, range, rows, count(*) over (partition by oid) from teal.copy_chunk "
        "where migration = $1 order by oid, part",
        1, values, &res, err));
    for (int i = 0; i < PQntuples(res); i++) {
        struct ledger_table *t = find(out, pg_u64(res, i, 0));
        if (t == NULL)
            return error_set(
                err, ERROR_DATA,
                "teal.copy_chunk on the target holds a table that teal.copy_table does not");
        if (t->chunks == NULL)
            t->chunks = arena_array(&out->arena, struct ledger_chunk, pg_u64(res, i, 4));
        t->chunks[t->chunk_count++] = (struct ledger_chunk){
            .part = (uint32_t)pg_u64(res, i, 1),
            .range = keep(&out->arena, PQgetvalue(res, i, 2)),
            .done = !PQgetisnull(res, i, 3),
            .rows = pg_u64(res, i, 3),
        };
    }
    return true;
}

bool ledger_read(PGconn *green, const char *migration, struct ledger *out, struct error *err)
{
    *out = (struct ledger){0};
    TRY(read_stage(green, migration, out, err));
    const char *values[] = {migration};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(green,
                 "select oid, name, first, last, done, file, target from teal.copy_table where "
                 "migration = $1 "
                 "order by oid",
                 1, values, &res, err));
    int rows = PQntuples(res);
    out->tables = arena_array(&out->arena, struct ledger_table, (size_t)rows + 1);
    for (int i = 0; i < rows; i++)
        out->tables[out->table_count++] = (struct ledger_table){
            .oid = (uint32_t)pg_u64(res, i, 0),
            .name = keep(&out->arena, PQgetvalue(res, i, 1)),
            .first = keep(&out->arena, PQgetvalue(res, i, 2)),
            .last = keep(&out->arena, PQgetvalue(res, i, 3)),
            .done = pg_bool(res, i, 4),
            .file = pg_u64(res, i, 5),
            .target = keep(&out->arena, PQgetvalue(res, i, 6)),
        };
    return read_chunks(green, migration, out, err);
}

void ledger_release(struct ledger *l) { arena_clear(&l->arena); }

uint64_t ledger_rows(const struct ledger *l)
{
    uint64_t rows = 0;
    for (size_t i = 0; i < l->table_count; i++)
        for (size_t k = 0; k < l->tables[i].chunk_count; k++)
            rows += l->tables[i].chunks[k].rows;
    return rows;
}

bool ledger_set_stage(PGconn *green, const char *migration, enum ledger_stage stage,
                      const char *window_end, struct error *err)
{
    const char *values[] = {migration, stage_names[stage], window_end};
    return pg_query(
        green,
        "insert into teal.copy (migration, stage, window_end) values ($1, $2, $3) on "
        "conflict (migration) do update set stage = $2, window_end = $3",
        3, values, NULL, err);
}

static bool insert_table(PGconn *green, const char *migration, const struct ledger_table *t,
                         struct error *err)
{
    struct number oid;
    struct number file;
    const char *values[] = {migration, number(&oid, t->oid),   t->name,  t->first,
                            t->last,   number(&file, t->file), t->target};
    TRY(pg_query(green, "delete from teal.copy_chunk where migration = $1 and oid = $2", 2,
                 values, NULL, err));
    TRY(pg_query(
        green,
        "insert into teal.copy_table (migration, oid, name, first, last, file, target, "
        "done) values ($1, $2, $3, $4, $5, $6, $7, false) on conflict (migration, oid) "
        "do update set name = $3, first = $4, last = $5, file = $6, target = $7, "
        "done = false",
        7, values, NULL, err));
    for (size_t i = 0; i < t->chunk_count; i++) {
        struct number part;
        const char *chunk[] = {migration, oid.text, number(&part, t->chunks[i].part),
                               t->chunks[i].range};
        TRY(pg_query(
            green,
            "insert into teal.copy_chunk (migration, oid, part, range) values ($1, $2, $3, $4)",
            4, chunk, NULL, err));
    }
    return true;
}

bool ledger_begin_table(PGconn *green, const char *migration, const struct ledger_table *t,
                        struct error *err)
{
    TRY(pg_execute(green, "begin", err));
    if (insert_table(green, migration, t, err))
        return pg_execute(green, "commit", err);
    struct error unheard = {0};
    (void)!pg_execute(green, "rollback", &unheard);
    return false;
}

bool ledger_set_last(PGconn *green, const char *migration, uint32_t oid, const char *last,
                     struct error *err)
{
    struct number id;
    const char *values[] = {migration, number(&id, oid), last};
    return pg_query(green,
                    "update teal.copy_table set last = $3 where migration = $1 and oid = $2", 3,
                    values, NULL, err);
}

bool ledger_end_table(PGconn *green, const char *migration, uint32_t oid, struct error *err)
{
    struct number id;
    const char *values[] = {migration, number(&id, oid)};
    return pg_query(green,
                    "update teal.copy_table set done = true where migration = $1 and oid = $2",
                    2, values, NULL, err);
}

bool ledger_end_chunk(PGconn *green, const char *migration, uint32_t oid, uint32_t part,
                      uint64_t rows, struct error *err)
{
    struct number id;
    struct number which;
    struct number count;
    const char *values[] = {migration, number(&id, oid), number(&which, part),
                            number(&count, rows)};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(
        green,
        "update teal.copy_chunk set rows = $4 where migration = $1 and oid = $2 and part = $3 "
        "and rows is null returning 1",
        4, values, &res, err));
    return PQntuples(res) == 1 ||
           error_set(err, ERROR_FENCED, "another engine has copied part %u of table %u", part,
                     oid);
}
