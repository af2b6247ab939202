#include "decoders/postgres/publication.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/log.h"

/* relispartition is PostgreSQL 10's. A table's identity counts as a key if an index stands
 * behind it. */
static const char tables_sql[] =
    "select c.oid, n.nspname, c.relname, c.relispartition, c.relreplident, "
    "case c.relreplident when 'f' then true when 'n' then false "
    "else exists (select 1 from pg_index i where i.indrelid = c.oid and i.indisvalid and "
    "  i.indimmediate and (c.relreplident = 'd' and i.indisprimary or c.relreplident = 'i' and "
    "i.indisreplident)) "
    "end, "
    "pg_table_size(c.oid), pg_relation_size(c.oid) / current_setting('block_size')::int, "
    "case when c.reltuples < 0 or c.relpages = 0 then -1 else c.reltuples end::bigint, "
    "c.relpersistence = 'u' "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "where c.relkind = 'r' and c.relpersistence in ('p', 'u') "
    "and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'teal') "
    "and n.nspname !~ '^pg_(temp|toast)_' "
    "and not exists (select 1 from pg_depend d where d.classid = 'pg_class'::regclass and "
    "  d.objid = c.oid and d.deptype = 'e') "
    "order by 7 desc, 2, 3";

enum {
    T_OID,
    T_SCHEMA,
    T_NAME,
    T_PARTITION,
    T_IDENTITY,
    T_KEY,
    T_BYTES,
    T_PAGES,
    T_ROWS,
    T_UNLOGGED
};

static const char *keep(struct arena *a, const char *text)
{
    size_t len = strlen(text);
    return (const char *)arena_copy(a, (struct bytes){(const uint8_t *)text, len + 1}).data;
}

static void read_table(struct arena *a, const PGresult *res, int row, struct source_table *t)
{
    t->oid = (uint32_t)pg_u64(res, row, T_OID);
    t->schema = keep(a, PQgetvalue(res, row, T_SCHEMA));
    t->name = keep(a, PQgetvalue(res, row, T_NAME));
    struct writer w = {0};
    writer_printf(&w, "%s.%s", t->schema, t->name);
    t->shown = keep(a, writer_cstr(&w));
    writer_release(&w);
    t->is_partition = pg_bool(res, row, T_PARTITION);
    t->identity = PQgetvalue(res, row, T_IDENTITY)[0];
    t->has_key = pg_bool(res, row, T_KEY);
    t->bytes = pg_u64(res, row, T_BYTES);
    t->pages = pg_u64(res, row, T_PAGES);
    t->rows = strtoll(PQgetvalue(res, row, T_ROWS), NULL, 10);
    t->is_unlogged = pg_bool(res, row, T_UNLOGGED);
}

bool publication_tables(PGconn *pg, const struct options *o, struct source_tables *out,
                        struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    *out = (struct source_tables){0};
    TRY(pg_query(pg, tables_sql, 0, NULL, &res, err));
    int rows = PQntuples(res);
    out->list = arena_array(&out->arena, struct source_table, (size_t)rows + 1);
    for (int i = 0; i < rows; i++) {
        if (!options_includes(o, PQgetvalue(res, i, T_SCHEMA), PQgetvalue(res, i, T_NAME)))
            continue;
        read_table(&out->arena, res, i, &out->list[out->count++]);
    }
    return true;
}

void source_tables_release(struct source_tables *t) { arena_clear(&t->arena); }

/* ---- the publication ---- */

static struct bytes text(const char *t)
{
    return (struct bytes){(const uint8_t *)t, strlen(t)};
}

static bool is_listed(const struct options *o, const char *name)
{
    for (size_t i = 0; i < o->set_identity_full_count; i++)
        if (strcmp(o->set_identity_full[i], name) == 0)
            return true;
    return false;
}

static bool set_identities(PGconn *pg, const struct options *o,
                           const struct source_tables *tables, struct error *err)
{
    for (size_t i = 0; i < tables->count; i++) {
        const struct source_table *t = &tables->list[i];
        if (t->identity == 'f' || !is_listed(o, t->shown))
            continue;
        struct writer sql = {0};
        writer_text(&sql, "set lock_timeout = '5s'; alter table ");
        pg_quote_table(&sql, text(t->schema), text(t->name));
        writer_text(&sql, " replica identity full; reset lock_timeout");
        bool ok = pg_execute(pg, writer_cstr(&sql), err);
        writer_release(&sql);
        if (!ok)
            return error_wrap(err, "set the replica identity of %s", t->shown);
        log_event("publication.identity_full", LOG_INFO, "table=%s", t->shown);
    }
    return true;
}

/* The topmost partitioned table above a leaf, as SQL; NULL result column if there is none. */
static const char roots_sql[] =
    "with recursive up(leaf, oid, level) as (select c.oid, c.oid, 0 from unnest($1::oid[]) "
    "c(oid) "
    "union all select leaf, i.inhparent, level + 1 from up join pg_inherits i on i.inhrelid = "
    "up.oid "
    "join pg_class p on p.oid = i.inhparent and p.relkind = 'p') "
    "select distinct quote_ident(n.nspname) || '.' || quote_ident(c.relname), n.nspname, "
    "c.relname from "
    "(select distinct on (leaf) leaf, oid from up order by leaf, level desc) t "
    "join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace";

static void put_oids(struct writer *w, const struct source_tables *tables, bool partitions)
{
    writer_text(w, "{");
    bool first = true;
    for (size_t i = 0; i < tables->count; i++) {
        if (tables->list[i].is_partition != partitions || tables->list[i].is_unlogged ||
            tables->list[i].identity == 'n')
            continue;
        writer_printf(w, "%s%u", first ? "" : ",", tables->list[i].oid);
        first = false;
    }
    writer_text(w, "}");
}

/* Roots whose every leaf moves are named themselves; the operator who takes in only some leaves
 * gets those. */
static bool put_partitions(PGconn *pg, const struct options *o,
                           const struct source_tables *tables, struct writer *sql,
                           struct error *err)
{
    bool roots_work = PQserverVersion(pg) >= 130000;
    for (size_t i = 0; i < tables->count; i++) {
        const struct source_table *t = &tables->list[i];
        if (!t->is_partition || t->is_unlogged || t->identity == 'n' ||
            (roots_work && o->exclude_count == 0 && o->include_count == 0))
            continue;
        writer_text(sql, ", ");
        pg_quote_table(sql, text(t->schema), text(t->name));
    }
    if (!roots_work)
        return true;
    cleanup_with(writer_release) struct writer oids = {0};
    put_oids(&oids, tables, true);
    const char *values[] = {writer_cstr(&oids)};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(pg, roots_sql, 1, values, &res, err));
    for (int i = 0; i < PQntuples(res); i++)
        if (options_includes(o, PQgetvalue(res, i, 1), PQgetvalue(res, i, 2)))
            writer_printf(sql, ", %s", PQgetvalue(res, i, 0));
    return true;
}

/* The publication of tables whose updates and deletes nobody can tell apart: inserts alone. */
static bool create_for_inserts(PGconn *pg, const char *name, const struct source_tables *tables,
                               struct error *err)
{
    cleanup_with(writer_release) struct writer sql = {0};
    writer_printf(&sql, "create publication \"%s" PG_INSERTS_SUFFIX "\" for table ", name);
    size_t count = 0;
    for (size_t i = 0; i < tables->count; i++) {
        const struct source_table *t = &tables->list[i];
        if (t->identity != 'n' || t->is_unlogged)
            continue;
        writer_text(&sql, count++ == 0 ? "" : ", ");
        pg_quote_table(&sql, text(t->schema), text(t->name));
    }
    writer_printf(&sql, " with (publish = '%s')",
                  PQserverVersion(pg) >= 110000 ? "insert, truncate" : "insert");
    return count == 0 || pg_execute(pg, writer_cstr(&sql), err);
}

static bool create_main(PGconn *pg, const struct options *o, const char *name,
                        const struct source_tables *tables, struct error *err)
{
    cleanup_with(writer_release) struct writer sql = {0};
    writer_text(&sql, "create publication ");
    pg_quote_name(&sql, text(name));
    writer_text(&sql, " for table teal.barrier");
    for (size_t i = 0; i < tables->count; i++) {
        const struct source_table *t = &tables->list[i];
        if (t->is_partition || t->is_unlogged || t->identity == 'n')
            continue;
        writer_text(&sql, ", ");
        pg_quote_table(&sql, text(t->schema), text(t->name));
    }
    TRY(put_partitions(pg, o, tables, &sql, err));
    return pg_execute(pg, writer_cstr(&sql), err);
}

bool publication_create(PGconn *pg, const struct options *o, const char *name,
                        const struct source_tables *tables, struct error *err)
{
    TRY(set_identities(pg, o, tables, err));
    if (create_main(pg, o, name, tables, err) && create_for_inserts(pg, name, tables, err))
        return true;
    if (err->kind == ERROR_CONFIG)
        error_hint(err,
                   "A publication can be made by the owner of its tables who may create in the "
                   "database: GRANT CREATE ON DATABASE %s TO %s; and GRANT <owner of the "
                   "tables> TO %s;",
                   PQdb(pg), PQuser(pg), PQuser(pg));
    return error_wrap(err, "create publication %s", name);
}
