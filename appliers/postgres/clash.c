/* What an index compares may be expressions, by operators other than =, and of some rows only.
 * So both rows are compared as it does: by its own expressions, operators and collations,
 * within its own condition. The row to come is a FROM item of one row with the table's column
 * names, so that the expressions read the same over both. */
#include "appliers/postgres/clash.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEY_EXPRESSION, KEY_OPERATOR, KEY_COLLATION, KEY_CONDITION, KEY_GENERATED };

static const char keys_sql[] =
    "select pg_get_indexdef(i.indexrelid, k, true), "
    "case when to_jsonb(i) ->> 'indnullsnotdistinct' = 'true' then 'is not distinct from' else "
    "format('operator(%I.%s)', opn.nspname, op.oprname) end, "
    "case when co.oid is null then '' else format('collate %I.%I', con.nspname, co.collname) "
    "end, "
    "coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'), "
    "(select coalesce(string_agg(format(', (%s) as %I', pg_get_expr(d.adbin, d.adrelid), "
    "a.attname), ''), '') from pg_attribute a join pg_attrdef d on d.adrelid = a.attrelid and "
    "d.adnum = a.attnum where a.attrelid = i.indrelid and a.attgenerated <> '') "
    "from pg_index i join pg_class c on c.oid = i.indexrelid "
    "cross join generate_series(1, i.indnkeyatts::int) k "
    "left join pg_constraint x on x.conindid = i.indexrelid and x.contype = 'x' "
    "join pg_opclass oc on oc.oid = i.indclass[k - 1] "
    "left join pg_amop am on x.oid is null and am.amopfamily = oc.opcfamily and "
    "am.amopstrategy = 3 and am.amoplefttype = oc.opcintype and am.amoprighttype = "
    "oc.opcintype "
    "join pg_operator op on op.oid = coalesce(x.conexclop[k], am.amopopr) "
    "join pg_namespace opn on opn.oid = op.oprnamespace "
    "left join pg_collation co on co.oid = i.indcollation[k - 1] "
    "left join pg_namespace con on con.oid = co.collnamespace "
    "where c.relname = $2 and (i.indrelid = $1::regclass or "
    "i.indrelid in (select relid from pg_partition_tree($1::regclass))) order by k";

/* A statement with its values. */
struct clash {
    const struct binding *b;
    struct writer sql;
    struct writer texts;
    size_t *offsets; /* SIZE_MAX: null. */
    int count;
};

static void put_parameter(struct clash *c, uint16_t column, const struct datum *value)
{
    c->offsets[c->count++] = value->kind == DATUM_TEXT ? c->texts.len : SIZE_MAX;
    writer_bytes(&c->texts, value->value);
    writer_u8(&c->texts, '\0');
    writer_printf(&c->sql, "$%d::%s", c->count, c->b->columns[column].type_name);
}

/* (select E1 as e1, E2 as e2 from */
static void put_expressions(struct clash *c, const PGresult *keys, const char *first)
{
    writer_printf(&c->sql, "(select %s", first);
    for (int i = 0; i < PQntuples(keys); i++)
        writer_printf(&c->sql, "%s%s as e%d", i == 0 && first[0] == '\0' ? "" : ", ",
                      PQgetvalue(keys, i, KEY_EXPRESSION), i);
    writer_text(&c->sql, " from ");
}

static void put_row_to_come(struct clash *c, const PGresult *keys, const struct tuple *after)
{
    put_expressions(c, keys, "");
    writer_printf(&c->sql, "(select n.*%s from (select ", PQgetvalue(keys, 0, KEY_GENERATED));
    const char *comma = "";
    for (uint16_t i = 0; i < after->count; i++) {
        if (!c->b->columns[i].mapped || after->datums[i].kind == DATUM_UNCHANGED)
            continue;
        writer_text(&c->sql, comma);
        put_parameter(c, i, &after->datums[i]);
        writer_text(&c->sql, " as ");
        pg_quote_name(&c->sql, c->b->columns[i].name);
        comma = ", ";
    }
    writer_printf(&c->sql, ") n) n where %s) y", PQgetvalue(keys, 0, KEY_CONDITION));
}

static void put_other_row(struct clash *c, const struct tuple *key)
{
    const char *word = " and not (";
    for (uint16_t i = 0; i < key->count; i++) {
        if (!c->b->columns[i].matches)
            continue;
        writer_printf(&c->sql, "%st.", word);
        pg_quote_name(&c->sql, c->b->columns[i].name);
        writer_text(&c->sql, " = ");
        put_parameter(c, i, &key->datums[i]);
        word = " and ";
    }
    writer_text(&c->sql, ")");
}

static void put_statement(struct clash *c, const PGresult *keys, const struct tuple *key,
                          const struct tuple *after)
{
    writer_printf(&c->sql,
                  "delete from %s t where (t.tableoid, t.ctid) in (select x.tableoid, "
                  "x.ctid from ",
                  c->b->table);
    put_expressions(c, keys, "tableoid, ctid");
    writer_printf(&c->sql, "%s where %s) x, ", c->b->table, PQgetvalue(keys, 0, KEY_CONDITION));
    put_row_to_come(c, keys, after);
    for (int i = 0; i < PQntuples(keys); i++)
        writer_printf(&c->sql, " %s x.e%d %s y.e%d %s", i == 0 ? "where" : "and", i,
                      PQgetvalue(keys, i, KEY_OPERATOR), i, PQgetvalue(keys, i, KEY_COLLATION));
    writer_text(&c->sql, ")");
    if (key != NULL && c->b->by_key)
        put_other_row(c, key);
}

static bool run(struct clash *c, PGconn *pg, uint64_t *gone, struct error *err)
{
    const char **values = calloc((size_t)c->count + 1, sizeof *values);
    check(values != NULL);
    for (int i = 0; i < c->count; i++)
        if (c->offsets[i] != SIZE_MAX)
            values[i] = (const char *)c->texts.data + c->offsets[i];
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    bool ok = pg_query(pg, writer_cstr(&c->sql), c->count, values, &res, err);
    *gone = ok ? strtoull(PQcmdTuples(res), NULL, 10) : 0;
    free(values);
    return ok;
}

bool clash_make_way(PGconn *pg, const struct binding *b, const char *index,
                    const struct tuple *key, const struct tuple *after, struct error *err)
{
    const char *values[] = {b->table, index};
    uint64_t gone = 0;
    bool ok = true;
    cleanup_with(pg_result_drop) PGresult *keys = NULL;
    TRY(pg_query(pg, keys_sql, 2, values, &keys, err));
    if (PQntuples(keys) > 0) {
        struct clash c = {.b = b};
        c.offsets = calloc((size_t)after->count * 2 + 1, sizeof *c.offsets);
        check(c.offsets != NULL);
        put_statement(&c, keys, key, after);
        ok = run(&c, pg, &gone, err);
        free(c.offsets);
        writer_release(&c.sql);
        writer_release(&c.texts);
    }
    if (ok && gone == 0)
        return error_set(err, ERROR_CONFLICT,
                         "table %s: cannot tell which row stands in the way of %s", b->shown,
                         index);
    return ok;
}
