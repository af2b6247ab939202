#include "appliers/postgres/catalog.h"

#include <stdio.h>
#include <string.h>

static bool ask(PGconn *source, const char *sql, int count, const char *const *values,
                PGresult **out)
{
    struct error unheard = {0};
    return pg_query(source, sql, count, values, out, &unheard) && PQntuples(*out) == 1 &&
           !PQgetisnull(*out, 0, 0);
}

bool catalog_root_of(PGconn *source, const struct relation *rel, struct writer *schema,
                     struct writer *name)
{
    char oid[16];
    (void)snprintf(oid, sizeof oid, "%u", rel->id);
    const char *values[] = {oid};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!ask(source,
             "with recursive up(oid, level) as (select $1::oid, 0 union all select "
             "i.inhparent, level + 1 from up join pg_inherits i on i.inhrelid = up.oid "
             "join pg_class c on c.oid = i.inhparent and c.relkind = 'p') "
             "select n.nspname, c.relname from up join pg_class c on c.oid = up.oid "
             "join pg_namespace n on n.oid = c.relnamespace where level > 0 "
             "order by level desc limit 1",
             1, values, &res))
        return false;
    writer_text(schema, PQgetvalue(res, 0, 0));
    writer_text(name, PQgetvalue(res, 0, 1));
    return true;
}

bool catalog_are_all_leaves(PGconn *source, const struct relation *rel, const char *oids)
{
    char oid[16];
    (void)snprintf(oid, sizeof oid, "%u", rel->id);
    const char *values[] = {oid, oids};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    return ask(source,
               "with recursive up(oid) as (select $1::oid union all select i.inhparent from up "
               "join pg_inherits i on i.inhrelid = up.oid), down(oid) as (select oid from up "
               "union select i.inhrelid from down join pg_inherits i on i.inhparent = "
               "down.oid) "
               "select bool_and(c.relkind = 'p' or c.oid = any ($2::oid[])) from down "
               "join pg_class c on c.oid = down.oid",
               2, values, &res) &&
           pg_bool(res, 0, 0);
}

bool catalog_partition_rows(PGconn *source, const struct relation *rel, struct writer *out)
{
    char oid[16];
    (void)snprintf(oid, sizeof oid, "%u", rel->id);
    const char *values[] = {oid};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!ask(source, "select pg_get_partition_constraintdef($1::oid)", 1, values, &res) ||
        strstr(PQgetvalue(res, 0, 0), "satisfies_hash_partition") != NULL)
        return false;
    writer_text(out, PQgetvalue(res, 0, 0));
    return true;
}

bool catalog_type_name(PGconn *source, uint32_t type, int32_t typmod, struct writer *out)
{
    char oid[16];
    char mod[16];
    (void)snprintf(oid, sizeof oid, "%u", type);
    (void)snprintf(mod, sizeof mod, "%d", typmod);
    const char *values[] = {oid, mod};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!ask(source, "select format_type($1::oid, $2::int4)", 2, values, &res))
        return false;
    writer_text(out, PQgetvalue(res, 0, 0));
    return true;
}

static const char column_sql[] =
    "select format_type(a.atttypid, a.atttypmod), a.attnotnull, %s, "
    "case when %s then false else d.adbin is not null end, "
    "case when co.collname is not null and a.attcollation <> t.typcollation then "
    "quote_ident(cn.nspname) || '.' || quote_ident(co.collname) end, "
    "not exists (select 1 from pg_attribute x where x.attrelid = a.attrelid and "
    "x.attnum = a.attnum - 1 and x.attisdropped) "
    "from pg_attribute a join pg_type t on t.oid = a.atttypid "
    "left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum "
    "left join pg_collation co on co.oid = a.attcollation "
    "left join pg_namespace cn on cn.oid = co.collnamespace "
    "where a.attrelid = $1::oid and a.attname = $2 and a.attnum > 0 and not a.attisdropped";

/* Since PostgreSQL 11 a column added with a default is not written into the rows: the catalogue
 * holds what they read as. */
bool catalog_column(PGconn *source, const struct relation *rel, struct bytes name,
                    struct writer *out, struct column_facts *facts)
{
    char sql[sizeof column_sql + 160];
    char oid[16];
    struct writer column = {0};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    bool knows = PQserverVersion(source) >= 110000;
    (void)snprintf(sql, sizeof sql, column_sql,
                   knows
                       ? "case when a.atthasmissing then (a.attmissingval::text::text[])[1] end"
                       : "null::text",
                   knows ? "a.atthasmissing" : "false");
    (void)snprintf(oid, sizeof oid, "%u", rel->id);
    writer_bytes(&column, name);
    const char *values[] = {oid, writer_cstr(&column)};
    bool ok = ask(source, sql, 2, values, &res);
    writer_release(&column);
    if (!ok)
        return false;
    writer_text(out, PQgetvalue(res, 0, 0));
    if (!PQgetisnull(res, 0, 4))
        writer_printf(out, " COLLATE %s", PQgetvalue(res, 0, 4));
    if (!PQgetisnull(res, 0, 2)) {
        const char *missing = PQgetvalue(res, 0, 2);
        writer_text(out, " DEFAULT ");
        pg_quote_literal(out, (struct bytes){(const uint8_t *)missing, strlen(missing)});
    }
    if (pg_bool(res, 0, 1))
        writer_text(out, " NOT NULL");
    *facts = (struct column_facts){
        .is_known = true, .is_exact = !pg_bool(res, 0, 3), .follows = pg_bool(res, 0, 5)};
    return true;
}
