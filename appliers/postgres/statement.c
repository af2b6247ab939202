#include "appliers/postgres/statement.h"

#include <stdio.h>
#include <stdlib.h>

enum { TYPE_TEXT = 25, TYPE_TEXT_ARRAY = 1009 };

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

uint16_t statement_set_columns(const struct binding *b, const struct tuple *before,
                               const struct tuple *after, uint8_t *set)
{
    uint16_t count = 0;
    for (uint16_t i = 0; i < b->relation->column_count; i++) {
        const struct target_column *c = &b->columns[i];
        bool key_kept = b->by_key && c->matches &&
                        (after->datums[i].kind == DATUM_UNCHANGED ||
                         same_datum(&before->datums[i], &after->datums[i]));
        set[i] =
            c->mapped && !c->is_always && !key_kept && after->datums[i].kind != DATUM_UNCHANGED;
        count = (uint16_t)(count + set[i]);
    }
    return count;
}

/* ---- pieces of text ---- */

static uint16_t add_param(struct build *b, uint16_t column, bool from_before, uint32_t type)
{
    b->params[b->count] = (struct statement_param){column, from_before, type};
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

/* Equal to the last byte, whatever = thinks of 1.0 and 1.00. */
static void put_exact_match(struct build *b, uint16_t i)
{
    const struct target_column *c = &b->binding->columns[i];
    writer_text(&b->sql, "t.");
    put_column(b, i);
    if (b->statement->nulls[i])
        writer_text(&b->sql, " is null");
    else if (c->is_plain)
        writer_printf(&b->sql, " = $%u", add_param(b, i, true, c->type));
    else
        writer_printf(&b->sql, "::text collate \"C\" = $%u", add_param(b, i, true, TYPE_TEXT));
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

/* In the many form the conditions are written before the FROM they refer to is known: they go
 * to a text of their own first. */
static void build_changing(struct build *b, const char *head, const char *from)
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
    struct writer where = b->sql;
    b->sql = front;
    if (many) {
        writer_text(&b->sql, from);
        put_unnest(b);
    }
    writer_bytes(&b->sql, writer_view(&where));
    writer_release(&where);
}

static void build_text(struct build *b)
{
    switch (b->statement->kind) {
    case STATEMENT_INSERT: build_insert(b); return;
    case STATEMENT_UPDATE: build_changing(b, "update ", " from "); return;
    case STATEMENT_DELETE: build_changing(b, "delete from ", " using "); return;
    case STATEMENT_LOOK: build_changing(b, "select 1 from ", ", "); return;
    }
    check_failed(__FILE__, __LINE__, "statement kind");
}

static const uint8_t *copy_flags(struct binding *b, const uint8_t *flags)
{
    size_t len = b->relation->column_count;
    return flags == NULL ? NULL : arena_copy(&b->arena, (struct bytes){flags, len}).data;
}

static struct statement *statement_build(struct binding *binding, enum statement_kind kind,
                                         bool many, const uint8_t *set, const uint8_t *nulls)
{
    struct arena *a = &binding->arena;
    struct statement *s = arena_new(a, struct statement);
    s->kind = kind;
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

struct statement *statement_get(struct binding *b, enum statement_kind kind, bool many,
                                const uint8_t *set, const struct tuple *before)
{
    uint16_t count = b->relation->column_count;
    uint8_t *nulls = NULL;
    if (kind != STATEMENT_INSERT && !b->by_key) {
        check(!many);
        nulls = calloc(count + 1u, 1);
        check(nulls != NULL);
        for (uint16_t i = 0; i < count; i++)
            nulls[i] = before->datums[i].kind == DATUM_NULL;
    }
    struct statement *s = b->statements;
    while (s != NULL && !(s->kind == kind && s->many == many &&
                          same_flags(s->set, set, count) && same_flags(s->nulls, nulls, count)))
        s = s->next;
    if (s == NULL)
        s = statement_build(b, kind, many, set, nulls);
    free(nulls);
    return s;
}
