#include "appliers/postgres/statement.h"

#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/binary.h"

enum { TYPE_TEXT = 25, TYPE_FLOAT4 = 700, TYPE_FLOAT8 = 701, TYPE_TEXT_ARRAY = 1009 };

/* What is being built. */
struct build {
    struct binding *binding;
    struct statement *statement;
    struct writer sql;
    struct statement_param *params;
    uint16_t count;
};

static bool same_datum(const struct datum *a, const struct datum *b)
{
    return a->kind == b->kind && bytes_equal(a->value, b->value);
}

/* Only whole rows tell of a column outside the key whether it changed. */
static bool is_kept(const struct binding *b, uint16_t column, const struct tuple *before,
                    const struct tuple *after)
{
    const struct target_column *c = &b->columns[column];
    bool known = (b->by_key && c->matches) || (c->is_always && before->image == IMAGE_ROW);
    return after->datums[column].kind == DATUM_UNCHANGED ||
           (known && same_datum(&before->datums[column], &after->datums[column]));
}

enum statement_kind statement_for_update(const struct binding *b, const struct tuple *before,
                                         const struct tuple *after, uint8_t *set)
{
    enum statement_kind kind = STATEMENT_LOOK;
    for (uint16_t i = 0; i < b->relation->column_count; i++) {
        set[i] = b->columns[i].mapped && !is_kept(b, i, before, after);
        if (set[i] && b->columns[i].is_always)
            kind = STATEMENT_REPLACE;
        else if (set[i] && kind == STATEMENT_LOOK)
            kind = STATEMENT_UPDATE;
    }
    return kind;
}

/* ---- pieces of text ---- */

static uint16_t add_param(struct build *b, uint16_t column, bool from_before, uint32_t type)
{
    const struct target_column *c = &b->binding->columns[column];
    bool binary = b->statement->many && type == c->array_type && binary_knows(c->type);
    b->params[b->count] =
        (struct statement_param){column, from_before, type, binary ? c->type : 0};
    return ++b->count;
}

static uint32_t param_type(const struct build *b, uint16_t column)
{
    const struct target_column *c = &b->binding->columns[column];
    if (!b->statement->many)
        return c->type;
    return c->array_type != 0 ? c->array_type : TYPE_TEXT_ARRAY;
}

static void put_column(struct build *b, uint16_t column)
{
    pg_quote_name(&b->sql, b->binding->columns[column].name);
}

/* The value of a parameter where it is used: $3, or u.p3 with a cast if it came as text. */
static void put_value(struct build *b, uint16_t column, uint16_t number)
{
    const struct target_column *c = &b->binding->columns[column];
    if (!b->statement->many)
        writer_printf(&b->sql, "$%u", number);
    else if (c->array_type != 0)
        writer_printf(&b->sql, "u.p%u", number);
    else
        writer_printf(&b->sql, "u.p%u::%s", number, c->type_name);
}

/* unnest($1,$2) as u(p1,p2) */
static void put_unnest(struct build *b)
{
    writer_text(&b->sql, "unnest(");
    for (uint16_t i = 1; i <= b->count; i++)
        writer_printf(&b->sql, "%s$%u", i == 1 ? "" : ",", i);
    writer_text(&b->sql, ") as u(");
    for (uint16_t i = 1; i <= b->count; i++)
        writer_printf(&b->sql, "%sp%u", i == 1 ? "" : ",", i);
    writer_text(&b->sql, ")");
}

static void put_table(struct build *b)
{
    writer_printf(&b->sql, "%s%s t", b->binding->only ? "only " : "", b->binding->table);
}

/* ---- finding rows ---- */

/* What gives a float's bits, or NULL: two versions may write the same float with other digits.
 */
static const char *bits_of(uint32_t type)
{
    return type == TYPE_FLOAT4 ? "float4send" : type == TYPE_FLOAT8 ? "float8send" : NULL;
}

/* Equal to the last byte, whatever = thinks of 1.0 and 1.00. */
static void put_exact_match(struct build *b, uint16_t i)
{
    const struct target_column *c = &b->binding->columns[i];
    bool is_null = b->statement->nulls[i];
    const char *bits = is_null || c->is_plain ? NULL : bits_of(c->type);
    writer_printf(&b->sql, "%s(t.", bits == NULL ? "" : bits);
    put_column(b, i);
    if (is_null)
        writer_text(&b->sql, ") is null");
    else if (c->is_plain)
        writer_printf(&b->sql, ") = $%u", add_param(b, i, true, c->type));
    else if (bits != NULL)
        writer_printf(&b->sql, ") = %s($%u)", bits, add_param(b, i, true, c->type));
    else
        writer_printf(&b->sql, ")::text collate \"C\" = $%u", add_param(b, i, true, TYPE_TEXT));
}

static void put_key_match(struct build *b, uint16_t i)
{
    uint16_t number = add_param(b, i, true, param_type(b, i));
    writer_text(&b->sql, "t.");
    put_column(b, i);
    writer_text(&b->sql, " = ");
    put_value(b, i, number);
}

static void put_conditions(struct build *b)
{
    bool first = true;
    for (uint16_t i = 0; i < b->binding->relation->column_count; i++) {
        if (!b->binding->columns[i].matches)
            continue;
        writer_text(&b->sql, first ? "" : " and ");
        first = false;
        if (b->binding->by_key)
            put_key_match(b, i);
        else
            put_exact_match(b, i);
    }
    if (first)
        writer_text(&b->sql, "true");
}

/* Of several equal rows exactly one is meant. */
static void put_where(struct build *b)
{
    writer_text(&b->sql, " where ");
    if (b->binding->by_key) {
        put_conditions(b);
        return;
    }
    writer_text(&b->sql, "(t.tableoid, t.ctid) = (select t.tableoid, t.ctid from ");
    put_table(b);
    writer_text(&b->sql, " where ");
    put_conditions(b);
    writer_text(&b->sql, " limit 1)");
}

/* ---- whole statements ---- */

static void build_insert(struct build *b)
{
    struct writer values = {0};
    struct writer sql = b->sql;
    writer_printf(&sql, "insert into %s (", b->binding->table);
    for (uint16_t i = 0; i < b->binding->relation->column_count; i++) {
        if (!b->binding->columns[i].mapped)
            continue;
        uint16_t number = add_param(b, i, false, param_type(b, i));
        writer_text(&sql, number == 1 ? "" : ",");
        pg_quote_name(&sql, b->binding->columns[i].name);
        b->sql = values;
        writer_text(&b->sql, number == 1 ? "" : ",");
        put_value(b, i, number);
        values = b->sql;
    }
    b->sql = sql;
    if (b->count == 0) {
        b->sql.len = 0;
        writer_printf(&b->sql, "insert into %s default values", b->binding->table);
    } else {
        writer_printf(&b->sql, ") overriding system value %s%.*s%s",
                      b->statement->many ? "select " : "values (",
                      BYTES_ARG(writer_view(&values)), b->statement->many ? " from " : ")");
        if (b->statement->many)
            put_unnest(b);
    }
    writer_release(&values);
}

static void put_set(struct build *b)
{
    for (uint16_t i = 0, set = 0; i < b->binding->relation->column_count; i++) {
        if (!b->statement->set[i])
            continue;
        writer_text(&b->sql, set++ == 0 ? "" : ",");
        put_column(b, i);
        writer_text(&b->sql, "=");
        put_value(b, i, add_param(b, i, false, param_type(b, i)));
    }
}

/* Every column that green does not compute. */
static void put_all_columns(struct build *b)
{
    const char *comma = "";
    for (uint16_t i = 0; i < b->binding->relation->column_count; i++) {
        if (!b->binding->columns[i].mapped)
            continue;
        writer_text(&b->sql, comma);
        put_column(b, i);
        comma = ",";
    }
    for (uint16_t i = 0; i < b->binding->extra_count; i++) {
        writer_text(&b->sql, comma);
        pg_quote_name(&b->sql, b->binding->extra[i]);
        comma = ",";
    }
}

/* Their values in the row to come: what was sent, else what the row had. */
static void put_all_values(struct build *b)
{
    const char *comma = "";
    for (uint16_t i = 0; i < b->binding->relation->column_count; i++) {
        if (!b->binding->columns[i].mapped)
            continue;
        writer_text(&b->sql, comma);
        comma = ",";
        if (b->statement->set[i]) {
            put_value(b, i, add_param(b, i, false, param_type(b, i)));
        } else {
            writer_text(&b->sql, "t.");
            put_column(b, i);
        }
    }
    for (uint16_t i = 0; i < b->binding->extra_count; i++) {
        writer_printf(&b->sql, "%st.", comma);
        pg_quote_name(&b->sql, b->binding->extra[i]);
        comma = ",";
    }
}

/* In the many form what stands behind the FROM is written before the FROM is known: it goes to
 * a text of its own first. */
static void build_changing(struct build *b, const char *head, const char *from,
                           const char *returning)
{
    bool many = b->statement->many;
    writer_text(&b->sql, head);
    put_table(b);
    if (b->statement->kind == STATEMENT_UPDATE) {
        writer_text(&b->sql, " set ");
        put_set(b);
    }
    struct writer front = b->sql;
    b->sql = (struct writer){0};
    put_where(b);
    if (returning != NULL) {
        writer_text(&b->sql, returning);
        put_all_values(b);
    }
    struct writer behind = b->sql;
    b->sql = front;
    if (many) {
        writer_text(&b->sql, from);
        put_unnest(b);
    }
    writer_bytes(&b->sql, writer_view(&behind));
    writer_release(&behind);
}

/* One statement, so that the row that comes may have the unique values of the one that goes. */
static void build_coming(struct build *b)
{
    writer_printf(&b->sql, "insert into %s (", b->binding->table);
    put_all_columns(b);
    writer_text(&b->sql, ") overriding system value select * from gone");
}

static void build_plain(struct build *b)
{
    switch (b->statement->kind) {
    case STATEMENT_INSERT: build_insert(b); return;
    case STATEMENT_UPDATE: build_changing(b, "update ", " from ", NULL); return;
    case STATEMENT_DELETE: build_changing(b, "delete from ", " using ", NULL); return;
    case STATEMENT_LOOK: build_changing(b, "select 1 from ", ", ", NULL); return;
    case STATEMENT_REPLACE: build_coming(b); return;
    }
    check_failed(__FILE__, __LINE__, "statement kind");
}

static void build_text(struct build *b)
{
    const struct statement *s = b->statement;
    const char *comma = "with ";
    if (s->kind == STATEMENT_REPLACE) {
        writer_text(&b->sql, "with gone as (");
        build_changing(b, "delete from ", " using ", " returning ");
        writer_text(&b->sql, ") ");
        comma = ", ";
    }
    if (s->demand == DEMAND_NOTHING) {
        build_plain(b);
        return;
    }
    check(s->kind != STATEMENT_INSERT);
    writer_printf(&b->sql, "%stouched as (", comma);
    build_plain(b);
    writer_printf(&b->sql, "%s) select 1 / (count(*) = %s)::int from touched",
                  s->kind == STATEMENT_LOOK ? "" : " returning 1",
                  s->demand == DEMAND_NONE ? "0"
                  : s->many                ? "cardinality($1)"
                                           : "1");
}

static const uint8_t *copy_flags(struct binding *b, const uint8_t *flags)
{
    size_t len = b->relation->column_count;
    return flags == NULL ? NULL : arena_copy(&b->arena, (struct bytes){flags, len}).data;
}

static struct statement *statement_build(struct binding *binding, enum statement_kind kind,
                                         enum statement_demand demand, bool many,
                                         const uint8_t *set, const uint8_t *nulls)
{
    struct arena *a = &binding->arena;
    struct statement *s = arena_new(a, struct statement);
    s->kind = kind;
    s->demand = demand;
    s->many = many;
    s->set = copy_flags(binding, set);
    s->nulls = copy_flags(binding, nulls);
    size_t most = (size_t)binding->relation->column_count * 2 + 1;
    struct build b = {.binding = binding, .statement = s};
    b.params = arena_array(a, struct statement_param, most);
    build_text(&b);
    s->param_count = b.count;
    s->params = b.params;
    s->sql = (const char *)arena_copy(
                 a, (struct bytes){(const uint8_t *)writer_cstr(&b.sql), b.sql.len + 1})
                 .data;
    writer_release(&b.sql);
    s->next = binding->statements;
    binding->statements = s;
    return s;
}

static bool same_flags(const uint8_t *a, const uint8_t *b, size_t len)
{
    if (len == 0)
        return true;
    return a == NULL || b == NULL ? a == b : memcmp(a, b, len) == 0;
}

struct statement *statement_get(struct binding *b, enum statement_kind kind,
                                enum statement_demand demand, bool many, const uint8_t *set,
                                const struct tuple *before)
{
    uint16_t count = b->relation->column_count;
    uint8_t *nulls = NULL;
    if (kind != STATEMENT_UPDATE && kind != STATEMENT_REPLACE)
        set = NULL;
    if (kind != STATEMENT_INSERT && !b->by_key) {
        check(!many);
        nulls = calloc(count + 1u, 1);
        check(nulls != NULL);
        for (uint16_t i = 0; i < count; i++)
            nulls[i] = before->datums[i].kind == DATUM_NULL;
    }
    struct statement *s = b->statements;
    while (s != NULL && !(s->kind == kind && s->demand == demand && s->many == many &&
                          same_flags(s->set, set, count) && same_flags(s->nulls, nulls, count)))
        s = s->next;
    if (s == NULL)
        s = statement_build(b, kind, demand, many, set, nulls);
    free(nulls);
    return s;
}
