/* A sequence's state is two values, and PostgreSQL shows both only to whoever selects from the
 * sequence itself. But pg_sequence_last_value() answers for thousands in one short statement,
 * and is exact for those that were called. So the others alone, few on a server in use, are
 * selected from, some hundreds in a statement. */
#include "appliers/postgres/sequences.h"

#include <stdlib.h>

enum { SELECTS_MAX = 400 };

static const char list_sql[] =
    "select c.oid, n.nspname, c.relname, tn.nspname, t.relname, a.attname, "
    "s.seqincrement, s.seqmin, s.seqmax, s.seqcycle, "
    "has_schema_privilege(n.oid, 'usage') and has_sequence_privilege(c.oid, 'select'), "
    "has_sequence_privilege(c.oid, 'update') "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "join pg_sequence s on s.seqrelid = c.oid "
    "left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid "
    "  and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 "
    "  and d.deptype in ('a', 'i') "
    "left join pg_class t on t.oid = d.refobjid "
    "left join pg_namespace tn on tn.oid = t.relnamespace "
    "left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid "
    "where c.relkind = 'S' and c.relpersistence <> 't' "
    "and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'teal') "
    "and not exists (select 1 from pg_depend e where e.classid = 'pg_class'::regclass "
    "  and e.objid in (c.oid, t.oid) and e.deptype = 'e')";

enum {
    S_OID,
    S_SCHEMA,
    S_NAME,
    S_OWNER_SCHEMA,
    S_OWNER_TABLE,
    S_OWNER_COLUMN,
    S_INCREMENT,
    S_MIN,
    S_MAX,
    S_CYCLES,
    S_MAY_READ,
    S_MAY_SET
};

static struct bytes text(const char *t)
{
    return (struct bytes){(const uint8_t *)t, strlen(t)};
}

static const char *keep(struct arena *a, const PGresult *res, int row, int column)
{
    const char *value = pg_text(res, row, column);
    if (value == NULL)
        return NULL;
    return (const char *)arena_copy(a,
                                    (struct bytes){(const uint8_t *)value, strlen(value) + 1})
        .data;
}

static int64_t number(const PGresult *res, int row, int column)
{
    return strtoll(PQgetvalue(res, row, column), NULL, 10);
}

static int compare_names(const char *schema, const char *name, const struct sequence *s)
{
    int order = strcmp(schema, s->schema);
    return order != 0 ? order : strcmp(name, s->name);
}

static int compare(const void *a, const void *b)
{
    const struct sequence *s = a;
    return compare_names(s->schema, s->name, b);
}

bool sequences_list(PGconn *pg, struct sequences *out, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    *out = (struct sequences){0};
    TRY(pg_query(pg, list_sql, 0, NULL, &res, err));
    int rows = PQntuples(res);
    out->list = arena_array(&out->arena, struct sequence, (size_t)rows + 1);
    for (int i = 0; i < rows; i++) {
        if (PQgetisnull(res, i, S_MAY_SET)) /* Dropped meanwhile. */
            continue;
        struct arena *a = &out->arena;
        out->list[out->count++] = (struct sequence){
            .oid = (uint32_t)pg_u64(res, i, S_OID),
            .schema = keep(a, res, i, S_SCHEMA),
            .name = keep(a, res, i, S_NAME),
            .owner_schema = keep(a, res, i, S_OWNER_SCHEMA),
            .owner_table = keep(a, res, i, S_OWNER_TABLE),
            .owner_column = keep(a, res, i, S_OWNER_COLUMN),
            .increment = number(res, i, S_INCREMENT),
            .min = number(res, i, S_MIN),
            .max = number(res, i, S_MAX),
            .cycles = pg_bool(res, i, S_CYCLES),
            .may_read = pg_bool(res, i, S_MAY_READ),
            .may_set = pg_bool(res, i, S_MAY_SET),
        };
    }
    qsort(out->list, out->count, sizeof *out->list, compare);
    return true;
}

void sequences_release(struct sequences *s)
{
    arena_clear(&s->arena);
    *s = (struct sequences){0};
}

struct sequence *sequences_find(const struct sequences *s, const char *schema, const char *name)
{
    size_t low = 0;
    size_t high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_names(schema, name, &s->list[middle]);
        if (order == 0)
            return &s->list[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

struct sequence *sequences_find_owned(const struct sequences *s, const char *schema,
                                      const char *table, const char *column)
{
    for (size_t i = 0; i < s->count; i++) {
        struct sequence *q = &s->list[i];
        if (q->owner_table != NULL && strcmp(q->owner_column, column) == 0 &&
            strcmp(q->owner_table, table) == 0 && strcmp(q->owner_schema, schema) == 0)
            return q;
    }
    return NULL;
}

/* ---- where they stand ---- */

/* Selects from those of list[from..] that were never called, and tells where it stopped. */
static bool read_uncalled(PGconn *pg, struct sequence *const *list, size_t count, size_t *from,
                          struct error *err)
{
    cleanup_with(writer_release) struct writer sql = {0};
    int selects = 0;
    size_t i = *from;
    for (; i < count && selects < SELECTS_MAX; i++) {
        if (list[i]->called)
            continue;
        writer_printf(&sql, "%sselect %zu, last_value, is_called from ",
                      selects == 0 ? "" : " union all ", i);
        pg_quote_table(&sql, text(list[i]->schema), text(list[i]->name));
        selects++;
    }
    *from = i;
    if (selects == 0)
        return true;
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(pg, writer_cstr(&sql), 0, NULL, &res, err));
    for (int row = 0; row < PQntuples(res); row++) {
        struct sequence *s = list[pg_u64(res, row, 0)];
        s->last = number(res, row, 1);
        s->called = pg_bool(res, row, 2);
    }
    return true;
}

bool sequences_read(PGconn *pg, struct sequence *const *list, size_t count, struct error *err)
{
    static const char called_sql[] =
        "select pg_sequence_last_value(o.oid::regclass) "
        "from unnest($1::oid[]) with ordinality o(oid, at) order by o.at";
    cleanup_with(writer_release) struct writer oids = {0};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    for (size_t i = 0; i < count; i++)
        writer_printf(&oids, "%s%u", i == 0 ? "{" : ",", list[i]->oid);
    writer_text(&oids, count == 0 ? "{}" : "}");
    const char *values[] = {writer_cstr(&oids)};
    TRY(pg_query(pg, called_sql, 1, values, &res, err));
    check((size_t)PQntuples(res) == count);
    for (size_t i = 0; i < count; i++) {
        list[i]->called = !PQgetisnull(res, (int)i, 0);
        list[i]->last = number(res, (int)i, 0);
    }
    size_t at = 0;
    while (at < count)
        TRY(read_uncalled(pg, list, count, &at, err));
    return true;
}

bool sequences_vanished(const struct error *err)
{
    return err->kind == ERROR_SCHEMA || strcmp(err->sqlstate, "XX000") == 0;
}
