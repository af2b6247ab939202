/* Blue's tables against green's of the same, or the mapped, name.
 *
 * Both catalogues are read whole, one question a side, and compared here: a database has
 * thousands of tables, and the way to a server is long. */
#include "appliers/postgres/inspect_tables.h"

#include <stdlib.h>

/* ---- columns ---- */

enum {
    C_SCHEMA,
    C_TABLE,
    C_COLUMN,
    C_TYPE, /* Without the modifier. */
    C_TYPMOD,
    C_FULL_TYPE,
    C_NOT_NULL,
    C_NEEDS_VALUE,
    C_GENERATED,
    C_KEY,
    C_QUOTED,
    C_SHOWN,
};

/* Ordered, so that the columns of a table stand together. */
static const char columns_sql[] =
    "select n.nspname, c.relname, a.attname, format_type(a.atttypid, -1), a.atttypmod, "
    "format_type(a.atttypid, a.atttypmod), a.attnotnull, "
    "a.attnotnull and not a.atthasdef and a.attidentity = '', %s, "
    "coalesce(a.attnum = any (k.indkey::int2[]), false), quote_ident(a.attname), "
    "format('%%I.%%I', n.nspname, c.relname) "
    "from pg_attribute a join pg_class c on c.oid = a.attrelid "
    "join pg_namespace n on n.oid = c.relnamespace "
    "left join pg_index k on k.indrelid = c.oid and k.indisprimary and k.indisvalid "
    "where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and "
    "n.nspname not in ('information_schema', 'teal') and a.attnum > 0 and not a.attisdropped "
    "order by n.nspname::text collate \"C\", c.relname::text collate \"C\", a.attnum";

/* The rows [from, to) of a result are one table's columns. */
struct shape {
    const PGresult *res;
    int from;
    int to;
};

static const char *cell(const struct shape *s, int row, int column)
{
    return PQgetvalue(s->res, row, column);
}

static bool same_table(const PGresult *res, int row, const char *schema, const char *table)
{
    return strcmp(PQgetvalue(res, row, C_SCHEMA), schema) == 0 &&
           strcmp(PQgetvalue(res, row, C_TABLE), table) == 0;
}

static struct shape shape_at(const PGresult *res, int from)
{
    int to = from;
    while (to < PQntuples(res) &&
           same_table(res, to, PQgetvalue(res, from, C_SCHEMA), PQgetvalue(res, from, C_TABLE)))
        to++;
    return (struct shape){res, from, to};
}

/* By bisection: the order is C's, strcmp()'s. */
static int find_table(const PGresult *res, const char *schema, const char *table)
{
    int low = 0;
    int high = PQntuples(res);
    while (low < high) {
        int middle = low + (high - low) / 2;
        int order = strcmp(PQgetvalue(res, middle, C_SCHEMA), schema);
        if (order == 0)
            order = strcmp(PQgetvalue(res, middle, C_TABLE), table);
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < PQntuples(res) && same_table(res, low, schema, table) ? low : -1;
}

static int find_column(const struct shape *s, const char *name)
{
    for (int i = s->from; i < s->to; i++)
        if (strcmp(cell(s, i, C_COLUMN), name) == 0)
            return i;
    return -1;
}

/* ---- types ---- */

static bool one_of(const char *text, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strcmp(text, *list) == 0)
            return true;
    return false;
}

/* Whether the modifier of one type, such as the 10 of varchar(10), leaves room for another's.
 */
static bool modifier_holds(const char *type, int blue, int green)
{
    enum { NUMERIC_HEAD = 4, SCALE_BITS = 0x7ff };
    static const char *const lengths[] = {"character varying",
                                          "character",
                                          "bit varying",
                                          "timestamp without time zone",
                                          "time without time zone",
                                          "timestamp with time zone",
                                          "time with time zone",
                                          NULL};
    if (green == blue || green < 0)
        return true;
    if (strcmp(type, "numeric") == 0) {
        if (blue < 0)
            return false;
        int blue_scale = (blue - NUMERIC_HEAD) & SCALE_BITS;
        int green_scale = (green - NUMERIC_HEAD) & SCALE_BITS;
        int blue_whole = (blue - NUMERIC_HEAD) / 65536 - blue_scale;
        int green_whole = (green - NUMERIC_HEAD) / 65536 - green_scale;
        return green_scale >= blue_scale && green_whole >= blue_whole;
    }
    return one_of(type, lengths) && blue >= 0 && green >= blue;
}

static bool type_holds(const struct shape *blue, int b, const struct shape *green, int g)
{
    static const char *const pairs[][2] = {
        {"smallint", "integer"},       {"smallint", "bigint"},
        {"integer", "bigint"},         {"smallint", "numeric"},
        {"integer", "numeric"},        {"bigint", "numeric"},
        {"real", "double precision"},  {"character varying", "text"},
        {"character", "text"},         {"character", "character varying"},
        {"text", "character varying"},
    };
    const char *from = cell(blue, b, C_TYPE);
    const char *to = cell(green, g, C_TYPE);
    int from_mod = (int)strtol(cell(blue, b, C_TYPMOD), NULL, 10);
    int to_mod = (int)strtol(cell(green, g, C_TYPMOD), NULL, 10);
    if (strcmp(from, to) == 0)
        return modifier_holds(from, from_mod, to_mod);
    for (size_t i = 0; i < array_count(pairs); i++)
        if (strcmp(from, pairs[i][0]) == 0 && strcmp(to, pairs[i][1]) == 0)
            return to_mod < 0 || (from_mod >= 0 && to_mod >= from_mod);
    return false;
}

/* ---- one table ---- */

struct pair {
    struct survey *green;
    const struct table_options *map; /* Or NULL. */
    struct shape on_blue;
    struct shape on_green;
    const char *shown; /* On green, as it stands in SQL. */
};

/* Green's name of blue's column, or NULL if it is left out. */
static const char *mapped(const struct pair *p, const char *name)
{
    if (p->map == NULL || p->map->column_count == 0)
        return name;
    for (size_t i = 0; i < p->map->column_count; i++)
        if (strcmp(p->map->columns[i].from, name) == 0)
            return p->map->columns[i].to;
    return NULL;
}

static void check_column(const struct pair *p, int b, int g)
{
    struct findings *f = p->green->findings;
    const char *quoted = cell(&p->on_green, g, C_QUOTED);
    if (cell(&p->on_green, g, C_GENERATED)[0] == 't')
        return; /* Green computes it. */
    if (!type_holds(&p->on_blue, b, &p->on_green, g)) {
        finding_add(f, SEVERITY_ERROR, "column.type", p->shown,
                    "Column %s is %s on blue; green's %s cannot hold that.", quoted,
                    cell(&p->on_blue, b, C_FULL_TYPE), cell(&p->on_green, g, C_FULL_TYPE));
        finding_fix(f, "ALTER TABLE %s ALTER COLUMN %s TYPE %s; (on green)", p->shown, quoted,
                    cell(&p->on_blue, b, C_FULL_TYPE));
    }
    if (cell(&p->on_green, g, C_NOT_NULL)[0] == 't' &&
        cell(&p->on_blue, b, C_NOT_NULL)[0] == 'f') {
        finding_add(f, SEVERITY_ERROR, "column.not_null", p->shown,
                    "Column %s may be NULL on blue, but not on green.", quoted);
        finding_fix(f, "ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL; (on green)", p->shown,
                    quoted);
    }
}

static void lacks_column(const struct pair *p, int b, const char *name)
{
    struct findings *f = p->green->findings;
    struct writer quoted = {0};
    pg_quote_name(&quoted, (struct bytes){(const uint8_t *)name, strlen(name)});
    bool ignored = p->green->options->ddl_policy == DDL_IGNORE;
    finding_add(f, ignored ? SEVERITY_WARNING : SEVERITY_ERROR, "column.missing", p->shown,
                "Green's table has no column %s; blue's has.", name);
    finding_fix(f, "ALTER TABLE %s ADD COLUMN %s %s; (on green)", p->shown,
                writer_cstr(&quoted), cell(&p->on_blue, b, C_FULL_TYPE));
    writer_release(&quoted);
}

static void check_blue_columns(const struct pair *p, bool *taken)
{
    for (int b = p->on_blue.from; b < p->on_blue.to; b++) {
        const char *name = mapped(p, cell(&p->on_blue, b, C_COLUMN));
        if (name == NULL)
            continue;
        int g = find_column(&p->on_green, name);
        if (g >= 0) {
            taken[g - p->on_green.from] = true;
            check_column(p, b, g);
        } else if (cell(&p->on_blue, b, C_GENERATED)[0] != 't') {
            lacks_column(p, b, name);
        }
    }
}

static void check_extra_columns(const struct pair *p, const bool *taken)
{
    struct findings *f = p->green->findings;
    for (int g = p->on_green.from; g < p->on_green.to; g++) {
        if (taken[g - p->on_green.from] || cell(&p->on_green, g, C_NEEDS_VALUE)[0] != 't')
            continue;
        finding_add(f, SEVERITY_ERROR, "column.needs_value", p->shown,
                    "Column %s is NOT NULL without a default on green, and gets none from "
                    "blue.",
                    cell(&p->on_green, g, C_QUOTED));
        finding_fix(f, "ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL; (on green)", p->shown,
                    cell(&p->on_green, g, C_QUOTED));
    }
}

static void check_key(const struct pair *p)
{
    int blue_key = 0;
    int green_key = 0;
    int both = 0;
    for (int g = p->on_green.from; g < p->on_green.to; g++)
        green_key += cell(&p->on_green, g, C_KEY)[0] == 't';
    for (int b = p->on_blue.from; b < p->on_blue.to; b++) {
        if (cell(&p->on_blue, b, C_KEY)[0] != 't')
            continue;
        blue_key++;
        const char *name = mapped(p, cell(&p->on_blue, b, C_COLUMN));
        int g = name == NULL ? -1 : find_column(&p->on_green, name);
        both += g >= 0 && cell(&p->on_green, g, C_KEY)[0] == 't';
    }
    if (blue_key == both && green_key == both)
        return;
    if (green_key == 0)
        finding_add(
            p->green->findings, SEVERITY_WARNING, "table.no_primary_key", p->shown,
            "Green's table has no primary key, blue's has: without an index on the same "
            "columns every update and delete reads the whole table.");
    else
        finding_add(p->green->findings, SEVERITY_WARNING, "table.primary_key_differs", p->shown,
                    "Green's primary key is not blue's: rows that are two on blue may be one "
                    "on green.");
}

static void check_pair(const struct pair *p)
{
    size_t count = (size_t)(p->on_green.to - p->on_green.from);
    bool *taken = arena_array(&p->green->findings->arena, bool, count + 1);
    check_blue_columns(p, taken);
    check_extra_columns(p, taken);
    check_key(p);
}

/* ---- what green's table allows, apart from its columns ---- */

static const char table_sql[] =
    "select has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT') and "
    "has_table_privilege(c.oid, 'UPDATE') and has_table_privilege(c.oid, 'DELETE') and "
    "has_table_privilege(c.oid, 'TRUNCATE'), row_security_active(c.oid), "
    "(select string_agg(quote_ident(g.tgname), ', ') from pg_trigger g where g.tgrelid = c.oid "
    "and not g.tgisinternal and g.tgenabled in ('A', 'R')), c.relkind, "
    "c.relkind = 'p' or c.relreplident = 'f' or exists (select 1 from pg_index i where "
    "i.indrelid = c.oid and i.indisvalid and i.indimmediate and (i.indisreplident or "
    "(c.relreplident = 'd' and i.indisprimary))), has_schema_privilege(n.oid, 'USAGE'), "
    "quote_ident(n.nspname) "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "where n.nspname = $1 and c.relname = $2";

static bool check_rows(const struct pair *p, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    const char *sql = findings_text(p->green->findings, "select 1 from %s limit 1", p->shown);
    TRY(survey_ask(p->green, sql, NULL, &res, err));
    if (PQntuples(res) == 0)
        return true;
    bool copies = p->green->options->schema_mode == SCHEMA_COPY;
    finding_add(p->green->findings, copies ? SEVERITY_ERROR : SEVERITY_WARNING,
                "table.not_empty", p->shown, "Green's table already holds rows%s.",
                copies ? ": the copy needs it empty" : ", which the copy will meet");
    finding_fix(p->green->findings, "TRUNCATE %s; (on green)", p->shown);
    return true;
}

static void check_access(const struct pair *p, const PGresult *res)
{
    struct findings *f = p->green->findings;
    const char *role = p->green->role;
    if (!pg_bool(res, 0, 6)) {
        finding_add(f, SEVERITY_ERROR, "schema.not_usable", p->shown,
                    "Role %s may not look into its schema on green.", role);
        finding_fix(f, "GRANT USAGE ON SCHEMA %s TO %s; (on green)", PQgetvalue(res, 0, 7),
                    role);
    }
    if (!pg_bool(res, 0, 0) || !pg_bool(res, 0, 1)) {
        finding_add(f, SEVERITY_ERROR, "table.not_writable", p->shown,
                    "Role %s may not read and write it on green.", role);
        finding_fix(f,
                    "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE %s TO %s; (on "
                    "green)",
                    p->shown, role);
    }
    if (pg_bool(res, 0, 2)) {
        finding_add(f, SEVERITY_ERROR, "table.row_security", p->shown,
                    "Row security stands between role %s and its rows on green.", role);
        finding_fix(f, "ALTER ROLE %s BYPASSRLS; (on green)", role);
    }
    if (!PQgetisnull(res, 0, 3)) {
        finding_add(f, SEVERITY_WARNING, "table.trigger_always", p->shown,
                    "Trigger %s is enabled ALWAYS or REPLICA on green: it also fires for the "
                    "rows that teal applies.",
                    PQgetvalue(res, 0, 3));
        finding_fix(f, "ALTER TABLE %s ENABLE TRIGGER …; (on green)", p->shown);
    }
    if (!pg_bool(res, 0, 5)) {
        finding_add(f, SEVERITY_WARNING, "table.no_identity_for_return", p->shown,
                    "On green it has no primary key and no replica identity: after the cutover "
                    "its updates and deletes could not be carried back to blue.");
        finding_fix(f, "ALTER TABLE %s REPLICA IDENTITY FULL; (on green)", p->shown);
    }
}

static bool check_table(const struct pair *p, bool resumes, struct error *err)
{
    const char *values[] = {cell(&p->on_green, p->on_green.from, C_SCHEMA),
                            cell(&p->on_green, p->on_green.from, C_TABLE), NULL};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(p->green, table_sql, values, &res, err));
    if (PQntuples(res) != 1)
        return true;
    check_access(p, res);
    bool readable = pg_bool(res, 0, 0) && pg_bool(res, 0, 6) && !pg_bool(res, 0, 2);
    return resumes || !readable ? true : check_rows(p, err);
}

/* ---- all tables ---- */

static bool list_columns(struct survey *s, PGresult **out, struct error *err)
{
    const char *sql = findings_text(s->findings, columns_sql,
                                    s->version >= 120000 ? "a.attgenerated <> ''" : "false");
    return survey_ask(s, sql, NULL, out, err);
}

static bool list_partitions(struct survey *s, PGresult **out, struct error *err)
{
    return survey_ask(s,
                      "select n.nspname, c.relname, pn.nspname, p.relname from pg_inherits i "
                      "join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = "
                      "i.inhparent join pg_namespace n on n.oid = c.relnamespace join "
                      "pg_namespace pn on pn.oid = p.relnamespace where c.relispartition "
                      "order by n.nspname::text collate \"C\", c.relname::text collate \"C\"",
                      NULL, out, err);
}

struct catalogues {
    struct survey *green;
    PGresult *blue_columns;
    PGresult *green_columns;
    PGresult *partitions; /* Of blue: child, parent. Found by bisection like columns. */
    bool resumes;
};

static struct bytes view(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

/* The nearest table above a partition that green has: -1 if none. */
static int find_parent(const struct catalogues *c, const char *schema, const char *table)
{
    int at = find_table(c->partitions, schema, table);
    while (at >= 0) {
        const char *up_schema = PQgetvalue(c->partitions, at, 2);
        const char *up = PQgetvalue(c->partitions, at, 3);
        int found = find_table(c->green_columns, up_schema, up);
        if (found >= 0)
            return found;
        at = find_table(c->partitions, up_schema, up);
    }
    return -1;
}

static void lacks_table(const struct catalogues *c, const struct shape *blue, const char *shown)
{
    struct findings *f = c->green->findings;
    int parent =
        find_parent(c, cell(blue, blue->from, C_SCHEMA), cell(blue, blue->from, C_TABLE));
    if (c->green->options->schema_mode == SCHEMA_COPY && parent < 0)
        return; /* It will be made. */
    if (parent >= 0) {
        finding_add(f, SEVERITY_WARNING, "table.partition_missing", shown,
                    "Green has its parent %s but not this partition: rows go through the "
                    "parent, and a TRUNCATE of the partition alone halts replication.",
                    PQgetvalue(c->green_columns, parent, C_SHOWN));
        return;
    }
    finding_add(f, SEVERITY_ERROR, "table.missing", shown,
                "Green does not have this table, and [schema] mode = existing says that you "
                "make it.");
    finding_fix(f, "pg_dump --schema-only --table='%s' … | psql … (or [schema] mode = copy)",
                shown);
}

static bool compare_table(const struct catalogues *c, struct shape blue, struct error *err)
{
    const char *schema = cell(&blue, blue.from, C_SCHEMA);
    const char *table = cell(&blue, blue.from, C_TABLE);
    if (!options_includes(c->green->options, schema, table))
        return true;
    struct pair p = {.green = c->green, .on_blue = blue};
    p.map = options_table(c->green->options, view(schema), view(table));
    const char *to_schema = p.map == NULL ? schema : p.map->to_schema;
    const char *to_table = p.map == NULL ? table : p.map->to_table;
    int at = find_table(c->green_columns, to_schema, to_table);
    if (at < 0) {
        p.shown = p.map == NULL
                      ? cell(&blue, blue.from, C_SHOWN)
                      : findings_text(c->green->findings, "%s.%s", to_schema, to_table);
        lacks_table(c, &blue, p.shown);
        return true;
    }
    p.shown = PQgetvalue(c->green_columns, at, C_SHOWN);
    p.on_green = shape_at(c->green_columns, at);
    check_pair(&p);
    return check_table(&p, c->resumes, err);
}

static bool compare_all(const struct catalogues *c, struct error *err)
{
    if (c->blue_columns == NULL || c->green_columns == NULL)
        return true;
    for (int at = 0; at < PQntuples(c->blue_columns);) {
        struct shape blue = shape_at(c->blue_columns, at);
        TRY(compare_table(c, blue, err));
        at = blue.to;
    }
    return true;
}

bool inspect_shapes(struct survey *blue, struct survey *green, bool resumes, struct error *err)
{
    struct catalogues c = {.green = green, .resumes = resumes};
    bool ok = list_columns(blue, &c.blue_columns, err) &&
              list_columns(green, &c.green_columns, err) &&
              list_partitions(blue, &c.partitions, err) && compare_all(&c, err);
    PQclear(c.blue_columns);
    PQclear(c.green_columns);
    PQclear(c.partitions);
    return ok;
}
