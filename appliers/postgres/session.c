/* What both ways of applying, in batches and row by row, need of green and of blue's catalogue.
 */
#include "appliers/postgres/session.h"

#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/binary.h"
#include "engine/base/log.h"

enum { CONNECT_TIMEOUT_S = 10 };

bool session_source(struct session *s, PGconn **out, struct error *err)
{
    if (s->other != NULL && PQstatus(s->other) == CONNECTION_BAD)
        pg_close(&s->other);
    if (s->other == NULL)
        TRY(pg_connect(s->options.source, PG_QUERY, s->key.migration, CONNECT_TIMEOUT_S,
                       &s->other, err));
    *out = s->other;
    return true;
}

/* ---- what only the source's catalogue knows; unanswered questions are not errors ---- */

static bool ask_source(struct session *s, const char *sql, int count, const char *const *values,
                       PGresult **out)
{
    struct error unheard = {0};
    PGconn *pg;
    return session_source(s, &pg, &unheard) &&
           pg_query(pg, sql, count, values, out, &unheard) && PQntuples(*out) == 1 &&
           !PQgetisnull(*out, 0, 0);
}

static bool root_of(void *context, const struct relation *rel, struct writer *schema,
                    struct writer *name)
{
    char oid[16];
    (void)snprintf(oid, sizeof oid, "%u", rel->id);
    const char *values[] = {oid};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!ask_source(context,
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

static bool type_name(void *context, uint32_t type, int32_t typmod, struct writer *out)
{
    char oid[16];
    char mod[16];
    (void)snprintf(oid, sizeof oid, "%u", type);
    (void)snprintf(mod, sizeof mod, "%d", typmod);
    const char *values[] = {oid, mod};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!ask_source(context, "select format_type($1::oid, $2::int4)", 2, values, &res))
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
static bool column_type(void *context, const struct relation *rel, struct bytes name,
                        struct writer *out, struct column_facts *facts)
{
    struct session *s = context;
    struct error unheard = {0};
    PGconn *pg;
    char sql[sizeof column_sql + 160];
    char oid[16];
    struct writer column = {0};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!session_source(s, &pg, &unheard))
        return false;
    bool knows = PQserverVersion(pg) >= 110000;
    (void)snprintf(sql, sizeof sql, column_sql,
                   knows
                       ? "case when a.atthasmissing then (a.attmissingval::text::text[])[1] end"
                       : "null::text",
                   knows ? "a.atthasmissing" : "false");
    (void)snprintf(oid, sizeof oid, "%u", rel->id);
    writer_bytes(&column, name);
    const char *values[] = {oid, writer_cstr(&column)};
    bool ok = ask_source(s, sql, 2, values, &res);
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

/* The lock it needs may be held by what we have in flight ourselves: then it gives up, the
 * group is rolled back, and the next attempt finds nothing in its way. */
static bool mend(void *context, const char *sql)
{
    struct session *s = context;
    struct error err = {0};
    struct writer all = {0};
    writer_printf(&all, "set lock_timeout = '2s'; %s; reset lock_timeout", sql);
    bool ok = pg_execute(s->side, writer_cstr(&all), &err);
    writer_release(&all);
    if (ok)
        log_event("ddl.forwarded", LOG_INFO, "statement=\"%s\"", sql);
    else
        log_error("ddl.not_forwarded", LOG_WARN, &err);
    return ok;
}

/* ---- bindings and statements ---- */

bool session_binding(struct session *s, const struct relation *rel, struct binding **out,
                     struct error *err)
{
    *out = map_get(&s->bindings, rel->version);
    if (*out != NULL)
        return true;
    /* Only with the other: to a target that died meanwhile, this one alone would lie of its
     * disk. */
    if (s->side == NULL || PQstatus(s->side) == CONNECTION_BAD)
        return error_set(err, ERROR_RETRY, "the connection to the target was lost");
    struct binding_source from = {.green = s->side,
                                  .options = s->options.options,
                                  .root_of = root_of,
                                  .type_name = type_name,
                                  .column_type = column_type,
                                  .context = s};
    if (s->options.options->ddl_policy == DDL_FORWARD)
        from.mend = mend;
    TRY(binding_new(&from, rel, out, err));
    s->defers = s->defers || (*out)->deferrable;
    map_put(&s->bindings, rel->version, *out);
    return true;
}

bool session_names_statement(struct session *s, struct statement *st, char *name, size_t size,
                             uint32_t *types)
{
    if (st->number == 0)
        st->number = ++s->statements;
    (void)snprintf(name, size, "t%llu", (unsigned long long)st->number);
    if (st->connection == s->connection)
        return false;
    for (uint16_t i = 0; i < st->param_count; i++)
        types[i] = st->params[i].type;
    return true;
}

static void make_room(struct session *s, size_t count)
{
    if (count <= s->param_room)
        return;
    s->param_room = count * 2;
    s->offsets = realloc(s->offsets, s->param_room * sizeof *s->offsets);
    s->pointers = realloc(s->pointers, s->param_room * sizeof *s->pointers);
    s->lengths = realloc(s->lengths, s->param_room * sizeof *s->lengths);
    s->formats = realloc(s->formats, s->param_room * sizeof *s->formats);
    check(s->offsets != NULL && s->pointers != NULL && s->lengths != NULL &&
          s->formats != NULL);
}

/* True: in binary. */
static bool put_values(struct writer *w, const struct statement *st, uint16_t i,
                       const struct tuple *rows, uint32_t count)
{
    const struct statement_param *p = &st->params[i];
    if (!st->many) {
        check(rows->datums[p->column].kind == DATUM_TEXT);
        writer_bytes(w, rows->datums[p->column].value);
        return false;
    }
    if (p->element != 0 && binary_column(w, rows, count, p->column, p->element))
        return true;
    literal_column(w, rows, count, p->column);
    return false;
}

struct parameters session_values(struct session *s, const struct statement *st,
                                 const struct tuple *before, const struct tuple *after,
                                 uint32_t count)
{
    static const size_t is_null = SIZE_MAX;
    make_room(s, st->param_count + 1u);
    writer_clear(&s->values);
    for (uint16_t i = 0; i < st->param_count; i++) {
        const struct tuple *rows = st->params[i].from_before ? before : after;
        s->offsets[i] = s->values.len;
        s->formats[i] = 0;
        if (!st->many && rows->datums[st->params[i].column].kind == DATUM_NULL)
            s->offsets[i] = is_null;
        else
            s->formats[i] = put_values(&s->values, st, i, rows, count);
        s->lengths[i] = (int)(s->values.len - s->offsets[i]);
        writer_u8(&s->values, '\0');
    }
    for (uint16_t i = 0; i < st->param_count; i++)
        s->pointers[i] =
            s->offsets[i] == is_null ? NULL : (const char *)s->values.data + s->offsets[i];
    return (struct parameters){st->param_count, s->pointers, s->lengths, s->formats};
}

bool session_truncate_sql(struct session *s, const struct change *change, struct writer *sql,
                          struct error *err)
{
    writer_text(sql, "truncate ");
    for (uint32_t i = 0; i < change->truncated_count; i++) {
        struct binding *b;
        TRY(session_binding(s, change->truncated[i], &b, err));
        if (b->through_root)
            return error_set(err, ERROR_SCHEMA,
                             "partition %.*s was truncated on the source, but on the target it "
                             "is only a part of %s",
                             BYTES_ARG(change->truncated[i]->name), b->shown);
        writer_printf(sql, "%s%s%s", i == 0 ? "" : ", ", b->only ? "only " : "", b->table);
    }
    writer_text(sql, change->restart_identity ? " restart identity" : " continue identity");
    return true;
}
