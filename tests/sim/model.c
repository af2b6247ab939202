#include "tests/sim/model.h"

#include <stdio.h>

static const struct column item_columns[] = {
    {.name = BYTES_INIT("id"), .in_key = true},
    {.name = BYTES_INIT("u")},
    {.name = BYTES_INIT("v")},
    {.name = BYTES_INIT("w")},
};
static const struct column pair_columns[] = {
    {.name = BYTES_INIT("a"), .in_key = true},
    {.name = BYTES_INIT("b"), .in_key = true},
    {.name = BYTES_INIT("v")},
    {.name = BYTES_INIT("w")},
};
static const struct column note_columns[] = {
    {.name = BYTES_INIT("a"), .in_key = true},
    {.name = BYTES_INIT("b"), .in_key = true},
    {.name = BYTES_INIT("c"), .in_key = true},
    {.name = BYTES_INIT("w"), .in_key = true},
};
static const struct column blob_columns[] = {
    {.name = BYTES_INIT("id"), .in_key = true},
    {.name = BYTES_INIT("big")},
    {.name = BYTES_INIT("v")},
    {.name = BYTES_INIT("w")},
};

#define RELATION(number, shape, text, how, its_columns)                                        \
    {                                                                                          \
        .id = (number) + 100, .version = (number)*SHAPES + (shape) + 1, .role = ROLE_USER,     \
        .identity = (how), .schema = BYTES_INIT("public"), .name = BYTES_INIT(text),           \
        .column_count = COLUMNS_FIRST + (shape), .columns = (its_columns)                      \
    }
#define RELATIONS(number, text, how, its_columns)                                              \
    {                                                                                          \
        RELATION(number, 0, text, how, its_columns),                                           \
            RELATION(number, 1, text, how, its_columns)                                        \
    }

const struct relation model_relations[TABLES][SHAPES] = {
    [ITEMS] = RELATIONS(ITEMS, "items", IDENTITY_KEY, item_columns),
    [PAIRS] = RELATIONS(PAIRS, "pairs", IDENTITY_KEY, pair_columns),
    [NOTES] = RELATIONS(NOTES, "notes", IDENTITY_FULL, note_columns),
    [BLOBS] = RELATIONS(BLOBS, "blobs", IDENTITY_KEY, blob_columns),
};

static const struct column id_column[] = {{.name = BYTES_INIT("id"), .in_key = true}};
const struct relation model_barrier = {.id = 1,
                                       .version = 101,
                                       .role = ROLE_BARRIER,
                                       .identity = IDENTITY_KEY,
                                       .schema = BYTES_INIT("teal"),
                                       .name = BYTES_INIT("barrier"),
                                       .column_count = 1,
                                       .columns = id_column};
const struct relation model_ours = {.id = 2,
                                    .version = 102,
                                    .role = ROLE_OURS,
                                    .identity = IDENTITY_KEY,
                                    .schema = BYTES_INIT("teal"),
                                    .name = BYTES_INIT("heartbeat"),
                                    .column_count = 1,
                                    .columns = id_column};

unsigned model_table_of(const struct relation *rel) { return rel->id - 100; }

bool model_has_key(unsigned table)
{
    return model_relations[table][0].identity == IDENTITY_KEY;
}

bool model_is_key(unsigned table, unsigned column)
{
    return model_relations[table][1].columns[column].in_key;
}

bool model_same_key(unsigned table, const struct model_row *a, const struct model_row *b)
{
    for (unsigned i = 0; i < COLUMNS; i++)
        if (model_is_key(table, i) && a->v[i] != b->v[i])
            return false;
    return true;
}

int model_find(const struct model_db *db, unsigned table, const struct model_row *row)
{
    const struct model_table *t = &db->tables[table];
    for (int i = 0; i < t->count; i++)
        if (model_same_key(table, &t->rows[i], row))
            return i;
    return -1;
}

int model_clash(const struct model_db *db, unsigned table, const struct model_row *row,
                int self)
{
    const struct model_table *t = &db->tables[table];
    for (int i = 0; table == ITEMS && row->v[1] != 0 && i < t->count; i++)
        if (i != self && t->rows[i].v[1] == row->v[1])
            return i;
    return -1;
}

void model_add(struct model_db *db, unsigned table, const struct model_row *row)
{
    struct model_table *t = &db->tables[table];
    check(t->count < ROWS_MAX);
    t->rows[t->count++] = *row;
}

void model_remove(struct model_db *db, unsigned table, int at)
{
    struct model_table *t = &db->tables[table];
    t->rows[at] = t->rows[--t->count];
}

static unsigned count_equal(const struct model_table *t, const struct model_row *row)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->count; i++)
        count += memcmp(&t->rows[i], row, sizeof *row) == 0;
    return count;
}

bool model_same_rows(const struct model_table *a, const struct model_table *b,
                     const struct model_row *row)
{
    return count_equal(a, row) == count_equal(b, row);
}

/* ---- the stream's form ---- */

static uint16_t read_value(const struct datum *d)
{
    uint16_t value = 0;
    for (size_t i = 0; i < d->value.len && d->value.data[i] != '-'; i++)
        value = (uint16_t)(value * 10 + (d->value.data[i] - '0'));
    return value;
}

struct model_row model_read(unsigned table, const struct tuple *tuple, uint8_t *unchanged)
{
    struct model_row row = {0};
    for (uint16_t i = 0; i < tuple->count; i++) {
        const struct datum *d = &tuple->datums[i];
        if (tuple->image == IMAGE_KEY && !model_is_key(table, i))
            continue;
        if (d->kind == DATUM_TEXT)
            row.v[i] = read_value(d);
        else if (d->kind == DATUM_UNCHANGED)
            *unchanged |= (uint8_t)(1u << i);
    }
    return row;
}

static struct datum datum_of(struct arena *a, uint16_t value, size_t filler)
{
    char digits[8];
    if (value == 0)
        return (struct datum){.kind = DATUM_NULL};
    size_t len = (size_t)snprintf(digits, sizeof digits, "%u", value);
    uint8_t *text = arena_alloc(a, len + filler, 1);
    memcpy(text, digits, len);
    memset(text + len, '-', filler);
    return (struct datum){DATUM_TEXT, {text, len + filler}};
}

struct tuple model_tuple(struct arena *a, unsigned table, unsigned width, enum image image,
                         const struct model_row *row, uint8_t unchanged, unsigned big)
{
    struct datum *datums = arena_array(a, struct datum, width);
    for (unsigned i = 0; i < width; i++) {
        if (image == IMAGE_KEY && !model_is_key(table, i))
            datums[i].kind = DATUM_NULL;
        else if (unchanged & 1u << i)
            datums[i].kind = DATUM_UNCHANGED;
        else
            datums[i] = datum_of(a, row->v[i], table == BLOBS && i == 1 ? big : 0);
    }
    return (struct tuple){image, (uint16_t)width, datums};
}

struct model_change model_change_of(const struct change *change)
{
    struct model_change c = {.table = (uint8_t)model_table_of(change->relation),
                             .width = (uint8_t)change->relation->column_count};
    uint8_t unread = 0;
    c.before = model_read(c.table, &change->before, &unread);
    c.after = model_read(c.table, &change->after, &c.unchanged);
    for (uint32_t i = 0; i < change->truncated_count; i++)
        c.truncated |= (uint8_t)(1u << model_table_of(change->truncated[i]));
    return c;
}
