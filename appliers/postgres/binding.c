#include "appliers/postgres/binding.h"

#include <stdio.h>
#include <stdlib.h>

/* Catalogue rows of green's table: one a column, in order. */
enum {
    COL_NAME,
    COL_TYPE,
    COL_ARRAY,
    COL_TYPE_NAME,
    COL_IDENTITY,
    COL_GENERATED,
    COL_NEEDS_VALUE,
    COL_PLAIN,
    COL_IN_KEY,
};

/* A typed array works as a parameter where unnest() gives back the very elements: not for
 * arrays (it flattens them), not for composites (it expands them), not for box (another
 * delimiter). "Plain" types are those whose = tells every byte apart. */
static const char columns_sql[] =
    "select a.attname, a.atttypid, "
    "case when t.typtype in ('b', 'e', 'r', 'm') and t.typcategory <> 'A' and t.typdelim = ',' "
    "then t.typarray else 0 end, "
    "format_type(a.atttypid, -1), a.attidentity, "
    "%s, "
    "a.attnotnull and not a.atthasdef and a.attidentity = '' , "
    "(t.typtype = 'e' or a.atttypid in (16,17,18,19,20,21,23,25,26,29,1042,1043,1082,1083,1114,"
    "1184,2950,869,650,829)) and a.attcollation in (0, 100, 950), "
    "coalesce(a.attnum = any (k.indkey::int2[]), false) "
    "from pg_attribute a join pg_type t on t.oid = a.atttypid "
    "left join pg_index k on k.indrelid = a.attrelid and k.indisprimary and k.indisvalid "
    "where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped order by a.attnum";

static const char table_sql[] =
    "select c.oid, c.relkind, "
    "exists (select 1 from pg_constraint d where d.conrelid = c.oid and d.condeferrable) "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')";

static const char *arena_text(struct arena *a, struct bytes text)
{
    char *copy = arena_array(a, char, text.len + 1);
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    return copy;
}

static struct bytes text_bytes(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

/* Green's name of a column, or NULL if the operator leaves it out. */
static const char *mapped_name(struct arena *a, const struct table_options *map,
                               struct bytes name)
{
    if (map == NULL || map->column_count == 0)
        return arena_text(a, name);
    for (size_t i = 0; i < map->column_count; i++)
        if (bytes_equal(text_bytes(map->columns[i].from), name))
            return map->columns[i].to;
    return NULL;
}

static int find_column(const PGresult *res, const char *name)
{
    for (int i = 0; i < PQntuples(res); i++)
        if (strcmp(PQgetvalue(res, i, COL_NAME), name) == 0)
            return i;
    return -1;
}

/* Ids below this are the same in every cluster; above, each has its own. */
enum { FIRST_USER_TYPE = 16384 };

/* A column that the source has and the target has not. */
struct lack {
    const struct binding_source *from;
    const struct binding *binding;
    const struct table_options *map;
    const PGresult *green; /* The target's columns. */
    const struct column *column;
    const char *name; /* On the target. */
};

/* The column as the source has it, with what rows that are older than it read there. */
static void put_column_type(const struct lack *l, struct writer *out,
                            struct column_facts *facts)
{
    const struct binding_source *from = l->from;
    *facts = (struct column_facts){0};
    if (from->column_type != NULL &&
        from->column_type(from->context, l->binding->relation, l->column->name, out, facts))
        return;
    if (from->type_name == NULL ||
        !from->type_name(from->context, l->column->type, l->column->typmod, out))
        writer_text(out, "<its type on the source>");
}

static bool is_on_source(const struct lack *l, const char *green_name)
{
    struct arena scratch = {0};
    const struct relation *rel = l->binding->relation;
    bool found = false;
    for (uint16_t i = 0; !found && i < rel->column_count; i++) {
        const char *name = mapped_name(&scratch, l->map, rel->columns[i].name);
        found = name != NULL && strcmp(name, green_name) == 0;
    }
    arena_clear(&scratch);
    return found;
}

/* The target's column which this one may have been before it was renamed: nothing on the source
 * answers to it any more, and the type is the same. NULL: none. */
static const char *former_name(const struct lack *l)
{
    for (int row = 0; row < PQntuples(l->green); row++) {
        const char *name = PQgetvalue(l->green, row, COL_NAME);
        uint32_t type = (uint32_t)pg_u64(l->green, row, COL_TYPE);
        bool same = type == l->column->type ||
                    (type >= FIRST_USER_TYPE && l->column->type >= FIRST_USER_TYPE);
        if (same && !pg_bool(l->green, row, COL_GENERATED) && !is_on_source(l, name))
            return name;
    }
    return NULL;
}

static void put_rename(const struct lack *l, const char *former, struct writer *out)
{
    writer_printf(out, "ALTER TABLE %s RENAME COLUMN ", l->binding->table);
    pg_quote_name(out, text_bytes(former));
    writer_text(out, " TO ");
    pg_quote_name(out, text_bytes(l->name));
}

/* True if the target has the column now. A column that may have been renamed is never added:
 * its old rows would be empty. */
static bool add_column(const struct lack *l, struct error *err)
{
    struct column_facts facts;
    struct writer sql = {0};
    struct writer rename = {0};
    writer_printf(&sql, "ALTER TABLE %s ADD COLUMN ", l->binding->table);
    pg_quote_name(&sql, text_bytes(l->name));
    writer_text(&sql, " ");
    put_column_type(l, &sql, &facts);
    const char *former = facts.is_known && !facts.follows ? NULL : former_name(l);
    bool mended = facts.is_known && facts.is_exact && former == NULL && l->from->mend != NULL &&
                  l->from->mend(l->from->context, writer_cstr(&sql));
    if (!mended)
        error_set(err, ERROR_SCHEMA,
                  "table %s has no column %s on the target, but the source has",
                  l->binding->shown, l->name);
    if (!mended && former != NULL) {
        put_rename(l, former, &rename);
        error_hint(err, "%s; -- or, if it is new: %s;", writer_cstr(&rename),
                   writer_cstr(&sql));
    } else if (!mended) {
        error_hint(err, "%s;%s", writer_cstr(&sql),
                   facts.is_exact || !facts.is_known
                       ? ""
                       : " -- the rows that were there before got values of their own on the "
                         "source, which are not in the stream: copy them");
    }
    writer_release(&sql);
    writer_release(&rename);
    return mended;
}

/* Whether text of one built-in type is always accepted, unchanged, by another. */
static bool widens(uint32_t from, uint32_t to)
{
    enum { INT8 = 20, INT2 = 21, INT4 = 23, TEXT = 25, FLOAT4 = 700, FLOAT8 = 701 };
    enum { BPCHAR = 1042, VARCHAR = 1043, NUMERIC = 1700 };
    static const uint32_t pairs[][2] = {
        {INT2, INT4},    {INT2, INT8},      {INT4, INT8},     {INT2, NUMERIC},
        {INT4, NUMERIC}, {INT8, NUMERIC},   {FLOAT4, FLOAT8}, {VARCHAR, TEXT},
        {BPCHAR, TEXT},  {BPCHAR, VARCHAR}, {TEXT, VARCHAR},
    };
    for (size_t i = 0; i < array_count(pairs); i++)
        if (pairs[i][0] == from && pairs[i][1] == to)
            return true;
    return false;
}

static bool wrong_type(const struct binding_source *from, const struct binding *b,
                       const struct column *column, const struct target_column *target,
                       struct error *err)
{
    struct writer type = {0};
    if (from->type_name == NULL ||
        !from->type_name(from->context, column->type, column->typmod, &type))
        writer_printf(&type, "type %u", column->type);
    struct writer quoted = {0};
    pg_quote_name(&quoted, target->name);
    error_set(err, ERROR_SCHEMA,
              "column %.*s of table %s is %s on the source, which %s on the "
              "target cannot hold",
              BYTES_ARG(target->name), b->shown, writer_cstr(&type), target->type_name);
    error_hint(err, "ALTER TABLE %s ALTER COLUMN %s TYPE %s;", b->table, writer_cstr(&quoted),
               writer_cstr(&type));
    writer_release(&quoted);
    writer_release(&type);
    return false;
}

static bool read_column(const struct binding_source *from, struct binding *b,
                        const struct column *column, const PGresult *res, int row,
                        struct target_column *out, struct error *err)
{
    const char *name = PQgetvalue(res, row, COL_NAME);
    out->mapped = true;
    out->name = text_bytes(arena_text(&b->arena, text_bytes(name)));
    out->type = (uint32_t)pg_u64(res, row, COL_TYPE);
    out->array_type = (uint32_t)pg_u64(res, row, COL_ARRAY);
    out->type_name = arena_text(&b->arena, text_bytes(PQgetvalue(res, row, COL_TYPE_NAME)));
    out->is_always = PQgetvalue(res, row, COL_IDENTITY)[0] == 'a';
    out->is_plain = pg_bool(res, row, COL_PLAIN);
    if (pg_bool(res, row, COL_GENERATED))
        out->mapped = false; /* Green computes it. */
    bool both_built_in = column->type < FIRST_USER_TYPE && out->type < FIRST_USER_TYPE;
    if (both_built_in && column->type != out->type && !widens(column->type, out->type))
        return wrong_type(from, b, column, out, err);
    return true;
}

/* *again: a column was added, the catalogue has to be read again. */
static bool read_columns(const struct binding_source *from, struct binding *b,
                         const PGresult *res, bool *taken, bool *again, struct error *err)
{
    const struct relation *rel = b->relation;
    const struct table_options *map = options_table(from->options, rel->schema, rel->name);
    for (uint16_t i = 0; i < rel->column_count; i++) {
        const char *name = mapped_name(&b->arena, map, rel->columns[i].name);
        if (name == NULL)
            continue;
        int row = find_column(res, name);
        if (row < 0 && from->options->ddl_policy == DDL_IGNORE)
            continue;
        if (row < 0) {
            struct lack lack = {from, b, map, res, &rel->columns[i], name};
            *again = add_column(&lack, err);
            return *again;
        }
        taken[row] = true;
        TRY(read_column(from, b, &rel->columns[i], res, row, &b->columns[i], err));
    }
    return true;
}

static bool take_extra(struct binding *b, const PGresult *res, const bool *taken,
                       struct error *err)
{
    b->extra = arena_array(&b->arena, struct bytes, (size_t)PQntuples(res) + 1);
    for (int row = 0; row < PQntuples(res); row++) {
        if (taken[row] || pg_bool(res, row, COL_GENERATED))
            continue;
        const char *name = PQgetvalue(res, row, COL_NAME);
        b->extra[b->extra_count++] = text_bytes(arena_text(&b->arena, text_bytes(name)));
        if (!pg_bool(res, row, COL_NEEDS_VALUE))
            continue;
        error_set(err, ERROR_SCHEMA,
                  "column %s of table %s is NOT NULL without a default on "
                  "the target, and the source does not have it",
                  name, b->shown);
        return error_hint(err,
                          "ALTER TABLE %s ALTER COLUMN \"%s\" DROP NOT NULL; or DROP "
                          "COLUMN, or give it a default",
                          b->table, name);
    }
    return true;
}

static bool choose_match(struct binding *b, const PGresult *res, struct error *err)
{
    const struct relation *rel = b->relation;
    b->by_key = rel->identity == IDENTITY_KEY;
    for (uint16_t i = 0; i < rel->column_count; i++) {
        struct target_column *c = &b->columns[i];
        c->matches = rel->columns[i].in_key && c->mapped && rel->identity == IDENTITY_KEY;
        if (rel->columns[i].in_key && !c->mapped && rel->identity == IDENTITY_KEY)
            return error_set(err, ERROR_SCHEMA,
                             "table %s: column %.*s identifies its rows and "
                             "must not be left out",
                             b->shown, BYTES_ARG(rel->columns[i].name));
    }
    if (rel->identity != IDENTITY_FULL)
        return true;
    /* The whole row comes; green's primary key, if it has one, finds it faster. */
    int key_columns = 0;
    int found = 0;
    for (int row = 0; row < PQntuples(res); row++)
        key_columns += pg_bool(res, row, COL_IN_KEY);
    for (uint16_t i = 0; i < rel->column_count && key_columns > 0; i++) {
        struct target_column *c = &b->columns[i];
        int row = c->mapped ? find_column(res, (const char *)c->name.data) : -1;
        c->matches = row >= 0 && pg_bool(res, row, COL_IN_KEY);
        found += c->matches;
    }
    b->by_key = key_columns > 0 && found == key_columns;
    for (uint16_t i = 0; i < rel->column_count && !b->by_key; i++)
        b->columns[i].matches = b->columns[i].mapped;
    return true;
}

static bool find_table(const struct binding_source *from, struct binding *b,
                       struct bytes schema, struct bytes name, PGresult **out,
                       struct error *err)
{
    const char *values[] = {arena_text(&b->arena, schema), arena_text(&b->arena, name)};
    TRY(pg_query(from->green, table_sql, 2, values, out, err));
    struct writer w = {0};
    pg_quote_table(&w, schema, name);
    b->table = arena_text(&b->arena, writer_view(&w));
    writer_clear(&w);
    writer_printf(&w, "%s.%s", values[0], values[1]);
    b->shown = arena_text(&b->arena, writer_view(&w));
    writer_release(&w);
    return true;
}

/* Finds the table by its mapped name, or the root of the partitioned table it belongs to. */
static bool locate(const struct binding_source *from, struct binding *b, PGresult **table,
                   struct error *err)
{
    const struct relation *rel = b->relation;
    const struct table_options *map = options_table(from->options, rel->schema, rel->name);
    struct bytes schema = map != NULL ? text_bytes(map->to_schema) : rel->schema;
    struct bytes name = map != NULL ? text_bytes(map->to_table) : rel->name;
    TRY(find_table(from, b, schema, name, table, err));
    if (PQntuples(*table) == 1)
        return true;
    struct writer root_schema = {0};
    struct writer root = {0};
    bool ok = true;
    if (from->root_of != NULL && from->root_of(from->context, rel, &root_schema, &root)) {
        pg_result_drop(table);
        b->through_root = true;
        ok = find_table(from, b, writer_view(&root_schema), writer_view(&root), table, err);
    }
    writer_release(&root_schema);
    writer_release(&root);
    if (!ok || PQntuples(*table) == 1)
        return ok;
    error_set(err, ERROR_SCHEMA, "table %.*s.%.*s is not on the target", BYTES_ARG(schema),
              BYTES_ARG(name));
    return error_hint(err, "Create it on the target as it is on the source (pg_dump -s -t), or "
                           "leave it out with [tables] exclude.");
}

static bool bind(const struct binding_source *from, struct binding *b, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *table = NULL;
    TRY(locate(from, b, &table, err));
    b->only = PQgetvalue(table, 0, 1)[0] == 'r';
    b->deferrable = pg_bool(table, 0, 2);
    char sql[sizeof columns_sql + 64];
    bool knows_generated = PQserverVersion(from->green) >= 120000;
    (void)snprintf(sql, sizeof sql, columns_sql,
                   knows_generated ? "a.attgenerated <> ''" : "false");
    const char *oid = PQgetvalue(table, 0, 0);
    bool again = true;
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    bool *taken = NULL;
    while (again) {
        again = false;
        pg_result_drop(&res);
        TRY(pg_query(from->green, sql, 1, &oid, &res, err));
        b->columns =
            arena_array(&b->arena, struct target_column, b->relation->column_count + 1u);
        taken = arena_array(&b->arena, bool, (size_t)PQntuples(res) + 1);
        TRY(read_columns(from, b, res, taken, &again, err));
    }
    TRY(take_extra(b, res, taken, err));
    return choose_match(b, res, err);
}

bool binding_new(const struct binding_source *from, const struct relation *rel,
                 struct binding **out, struct error *err)
{
    struct binding *b = calloc(1, sizeof *b);
    check(b != NULL);
    b->relation = rel;
    if (!bind(from, b, err)) {
        binding_free(b);
        return false;
    }
    *out = b;
    return true;
}

void binding_free(struct binding *b)
{
    arena_clear(&b->arena);
    free(b);
}
