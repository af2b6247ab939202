/* Batches against the changes they stand for: a source of four tables is changed at random, one
 * change at a time; the same changes go through the batcher to a target that is as strict as
 * the real one. Both must end alike, and no batch may touch a row too many or too few on the
 * way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/batch.h"

enum { COLUMNS = 4, ROWS_MAX = 64, TABLES = 4, VALUE_NULL = -1, VALUE_UNCHANGED = -2 };
enum { SEEDS = 4000, STEPS = 120 };

/* ---- the model ---- */

struct model_row {
    int v[COLUMNS];
};

struct model_table {
    size_t count;
    struct model_row rows[ROWS_MAX];
};

struct shape {
    enum identity identity;
    bool in_key[COLUMNS];
};

static const struct shape shapes[TABLES] = {
    {IDENTITY_KEY, {true}},
    {IDENTITY_KEY, {false, true, true}},
    {IDENTITY_FULL, {false}},
    {IDENTITY_NONE, {false}},
};

struct world {
    struct batch_sink sink;
    struct batcher *batcher;
    struct arena values; /* What the changes point at; gone after a flush. */
    struct arena relations;
    const struct relation *relation[TABLES];
    struct model_table source[TABLES];
    struct model_table target[TABLES];
    uint64_t random;
    uint32_t version;
    size_t put_count;
    size_t fail_at; /* 0: never. */
};

static uint32_t below(struct world *w, uint32_t n)
{
    w->random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = w->random;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) % n);
}

static void describe(struct world *w, uint32_t id)
{
    static const char *const names[COLUMNS] = {"a", "b", "c", "d"};
    struct relation *rel = arena_new(&w->relations, struct relation);
    struct column *columns = arena_array(&w->relations, struct column, COLUMNS);
    for (size_t i = 0; i < COLUMNS; i++) {
        columns[i].name = (struct bytes){(const uint8_t *)names[i], 1};
        columns[i].in_key = shapes[id].in_key[i];
    }
    *rel = (struct relation){
        .id = id,
        .version = ++w->version,
        .identity = shapes[id].identity,
        .schema = BYTES("public"),
        .name = BYTES("t"),
        .column_count = COLUMNS,
        .columns = columns,
    };
    w->relation[id] = rel;
}

static struct datum datum_of(struct world *w, int value)
{
    if (value == VALUE_NULL)
        return (struct datum){.kind = DATUM_NULL};
    if (value == VALUE_UNCHANGED)
        return (struct datum){.kind = DATUM_UNCHANGED};
    char text[16];
    int len = value == 0 ? 0 : snprintf(text, sizeof text, "%d", value);
    return (struct datum){
        .kind = DATUM_TEXT,
        .value = arena_copy(&w->values, (struct bytes){(const uint8_t *)text, (size_t)len})};
}

static int value_of(const struct datum *d)
{
    if (d->kind == DATUM_NULL)
        return VALUE_NULL;
    if (d->kind == DATUM_UNCHANGED)
        return VALUE_UNCHANGED;
    char text[16] = "0";
    assert_true(d->value.len < sizeof text);
    if (d->value.len > 0)
        memcpy(text, d->value.data, d->value.len);
    return (int)strtol(text, NULL, 10);
}

static struct tuple tuple_of(struct world *w, const struct model_row *row, enum image image,
                             const bool *in_key)
{
    struct datum *datums = arena_array(&w->values, struct datum, COLUMNS);
    for (size_t i = 0; i < COLUMNS; i++)
        datums[i] = datum_of(w, image == IMAGE_KEY && !in_key[i] ? VALUE_NULL : row->v[i]);
    return (struct tuple){image, COLUMNS, datums};
}

static struct model_row row_of(const struct tuple *t)
{
    struct model_row row;
    assert_int_equal(t->count, COLUMNS);
    for (size_t i = 0; i < COLUMNS; i++)
        row.v[i] = value_of(&t->datums[i]);
    return row;
}

static bool row_matches(const struct shape *s, const struct model_row *a,
                        const struct model_row *b)
{
    for (size_t i = 0; i < COLUMNS; i++)
        if ((s->identity != IDENTITY_KEY || s->in_key[i]) && a->v[i] != b->v[i])
            return false;
    return true;
}

static struct model_row *find(struct model_table *t, const struct shape *s,
                              const struct model_row *key)
{
    for (size_t i = 0; i < t->count; i++)
        if (row_matches(s, &t->rows[i], key))
            return &t->rows[i];
    return NULL;
}

/* ---- the target ---- */

static void target_insert(struct model_table *t, const struct shape *s,
                          const struct batch *batch, uint32_t i)
{
    struct model_row row = row_of(&batch->after[i]);
    for (size_t c = 0; c < COLUMNS; c++)
        assert_int_not_equal(row.v[c], VALUE_UNCHANGED);
    if (s->identity == IDENTITY_KEY)
        assert_null(find(t, s, &row));
    assert_true(t->count < ROWS_MAX);
    t->rows[t->count++] = row;
}

static void target_update(struct model_table *t, const struct shape *s,
                          const struct batch *batch, uint32_t i)
{
    struct model_row key = row_of(&batch->before[i]);
    struct model_row after = row_of(&batch->after[i]);
    struct model_row *row = find(t, s, &key);
    assert_non_null(row);
    for (size_t c = 0; c < COLUMNS; c++) {
        bool unchanged = batch->after[0].datums[c].kind == DATUM_UNCHANGED;
        assert_int_equal(after.v[c] == VALUE_UNCHANGED, unchanged);
        if (!unchanged)
            row->v[c] = after.v[c];
    }
}

static void target_delete(struct model_table *t, const struct shape *s,
                          const struct batch *batch, uint32_t i)
{
    struct model_row key = row_of(&batch->before[i]);
    struct model_row *row = find(t, s, &key);
    if (batch->kind == BATCH_ABSENT) {
        assert_null(row);
        return;
    }
    assert_non_null(row);
    *row = t->rows[--t->count];
}

static bool target_put(struct batch_sink *sink, const struct batch *batch, struct error *err)
{
    struct world *w = container_of(sink, struct world, sink);
    if (++w->put_count == w->fail_at)
        return error_set(err, ERROR_RETRY, "as asked");
    if (batch->kind == BATCH_TRUNCATE) {
        for (uint32_t i = 0; i < batch->truncate->truncated_count; i++)
            w->target[batch->truncate->truncated[i]->id].count = 0;
        return true;
    }
    struct model_table *t = &w->target[batch->relation->id];
    const struct shape *s = &shapes[batch->relation->id];
    assert_true(batch->count > 0);
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->kind == BATCH_INSERT)
            target_insert(t, s, batch, i);
        else if (batch->kind == BATCH_UPDATE)
            target_update(t, s, batch, i);
        else
            target_delete(t, s, batch, i);
    }
    return true;
}

/* ---- the source ---- */

static void add(struct world *w, const struct change *change)
{
    struct error err = {0};
    if (!batcher_add(w->batcher, change, &err))
        fail_msg("%s", err.text);
}

static void flush(struct world *w)
{
    struct error err = {0};
    if (!batcher_flush(w->batcher, &err))
        fail_msg("%s", err.text);
    assert_int_equal(batcher_bytes(w->batcher), 0);
    arena_clear(&w->values);
}

static void random_row(struct world *w, const struct shape *s, struct model_row *row)
{
    for (size_t i = 0; i < COLUMNS; i++) {
        int value = (int)below(w, 5);
        row->v[i] = value == 4 && !s->in_key[i] ? VALUE_NULL : value;
    }
}

static void source_insert(struct world *w, uint32_t id)
{
    const struct shape *s = &shapes[id];
    struct model_table *t = &w->source[id];
    struct model_row row;
    random_row(w, s, &row);
    if (t->count == ROWS_MAX || (s->identity == IDENTITY_KEY && find(t, s, &row) != NULL))
        return;
    t->rows[t->count++] = row;
    struct change change = {.kind = CHANGE_INSERT,
                            .relation = w->relation[id],
                            .after = tuple_of(w, &row, IMAGE_ROW, NULL)};
    add(w, &change);
}

static void source_update(struct world *w, uint32_t id)
{
    const struct shape *s = &shapes[id];
    struct model_table *t = &w->source[id];
    if (t->count == 0)
        return;
    struct model_row *row = &t->rows[below(w, (uint32_t)t->count)];
    struct model_row now;
    random_row(w, s, &now);
    if (below(w, 4) != 0)
        for (size_t i = 0; i < COLUMNS; i++)
            now.v[i] = s->in_key[i] ? row->v[i] : now.v[i];
    bool keeps_key = s->identity == IDENTITY_KEY && row_matches(s, row, &now);
    if (s->identity == IDENTITY_KEY && !keeps_key && find(t, s, &now) != NULL)
        return;
    struct model_row sent = now;
    for (size_t i = 0; i < COLUMNS; i++) {
        if (s->in_key[i] || row->v[i] == VALUE_NULL || below(w, 3) != 0)
            continue;
        sent.v[i] = VALUE_UNCHANGED;
        now.v[i] = row->v[i];
    }
    struct change change = {.kind = CHANGE_UPDATE,
                            .relation = w->relation[id],
                            .after = tuple_of(w, &sent, IMAGE_ROW, NULL)};
    if (s->identity == IDENTITY_FULL)
        change.before = tuple_of(w, row, IMAGE_ROW, NULL);
    else if (!keeps_key || below(w, 2) == 0)
        change.before = tuple_of(w, row, IMAGE_KEY, s->in_key);
    *row = now;
    add(w, &change);
}

static void source_delete(struct world *w, uint32_t id)
{
    const struct shape *s = &shapes[id];
    struct model_table *t = &w->source[id];
    if (t->count == 0)
        return;
    struct model_row *row = &t->rows[below(w, (uint32_t)t->count)];
    enum image image = s->identity == IDENTITY_KEY ? IMAGE_KEY : IMAGE_ROW;
    struct change change = {.kind = CHANGE_DELETE,
                            .relation = w->relation[id],
                            .before = tuple_of(w, row, image, s->in_key)};
    *row = t->rows[--t->count];
    add(w, &change);
}

static void source_truncate(struct world *w)
{
    const struct relation *truncated[TABLES];
    uint32_t first = below(w, TABLES);
    uint32_t count = 1 + below(w, 2);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = (first + i) % TABLES;
        truncated[i] = w->relation[id];
        w->source[id].count = 0;
    }
    add(w, &(struct change){.kind = CHANGE_TRUNCATE,
                            .relation = truncated[0],
                            .truncated_count = count,
                            .truncated = truncated});
}

static void step(struct world *w)
{
    uint32_t id = below(w, TABLES);
    uint32_t what = below(w, 100);
    bool insert_only = shapes[id].identity == IDENTITY_NONE;
    if (what < 1)
        source_truncate(w);
    else if (what < 3)
        describe(w, id);
    else if (what < 5)
        flush(w);
    else if (what < 40 || insert_only)
        source_insert(w, id);
    else if (what < 75)
        source_update(w, id);
    else
        source_delete(w, id);
}

static int compare_rows(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct model_row));
}

static void assert_same(struct world *w)
{
    for (size_t id = 0; id < TABLES; id++) {
        struct model_table *a = &w->source[id];
        struct model_table *b = &w->target[id];
        assert_int_equal(a->count, b->count);
        qsort(a->rows, a->count, sizeof *a->rows, compare_rows);
        qsort(b->rows, b->count, sizeof *b->rows, compare_rows);
        assert_memory_equal(a->rows, b->rows, a->count * sizeof *a->rows);
    }
}

static void world_open(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->sink.put = target_put;
    w->batcher = batcher_new(&w->sink);
    w->random = seed;
    for (uint32_t id = 0; id < TABLES; id++)
        describe(w, id);
}

static void world_close(struct world *w)
{
    batcher_free(w->batcher);
    arena_clear(&w->values);
    arena_clear(&w->relations);
}

static void batches_come_to_the_same_as_the_changes(void **state)
{
    (void)state;
    static struct world w;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        world_open(&w, seed);
        for (size_t i = 0; i < STEPS; i++)
            step(&w);
        flush(&w);
        assert_same(&w);
        world_close(&w);
    }
}

static void a_failed_group_is_forgotten(void **state)
{
    (void)state;
    static struct world w;
    world_open(&w, 7);
    for (int i = 0; i < 30; i++)
        source_insert(&w, 0);
    w.fail_at = w.put_count + 1;
    struct error err = {0};
    assert_false(batcher_flush(w.batcher, &err));
    assert_int_equal(err.kind, ERROR_RETRY);
    batcher_clear(w.batcher);
    assert_int_equal(batcher_bytes(w.batcher), 0);
    size_t before = w.put_count;
    flush(&w);
    assert_int_equal(w.put_count, before);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_come_to_the_same_as_the_changes),
        cmocka_unit_test(a_failed_group_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
