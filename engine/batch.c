/* Folds changes to the net effect on each row, and gives what remains in batches.
 *
 * A table with a key holds one `struct row` a key: what all changes so far come to for the row
 * that had this key when the table was last put. Keys are compared by their bytes. That is
 * finer than the database's own = (1.0 and 1.00, "a" and "A" under some collations), and right
 * all the same: the source sends a row's key in the same bytes until an update changes them,
 * such an update carries the old key, and it is not folded but put by itself. Between two such
 * updates, a change that finds no held row of its bytes is the first to that row.
 *
 * Deletes are put first, so that a value which must be unique is free before another row takes
 * it; absent checks next, for the row they look for may be equal by = to one just deleted; then
 * updates, then inserts.
 *
 * A table whose identity is the full row may hold several equal rows. There, nothing is folded
 * and no order is changed: what is held is one run of changes of the same kind.
 *
 * A pair that a correct source cannot send (an insert of a row that is there, an update of one
 * that is not) is never folded away: the table is put first, and the target's row count tells.
 */
#include "engine/batch.h"

#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/map.h"

enum {
    /* Beyond a few thousand rows a larger statement costs the target no less per row; and a
     * target that takes one in must hold all of it. */
    BATCH_ROWS_MAX = 4000,
    BATCH_BYTES_MAX = 4 << 20,
    INDEX_SIZE_FIRST = 64,
};

/* One change, or what several of one key come to. */
struct row {
    struct row *next;
    uint64_t hash;
    uint64_t bytes; /* Of values. */
    enum batch_kind kind;
    struct tuple before; /* IMAGE_NONE only with an insert. */
    struct tuple after;
};

struct row_list {
    struct row *first;
    struct row **end; /* Where the next is hung. */
};

/* Free if it is of another generation than its table. */
struct index_slot {
    struct row *row;
    uint64_t generation;
};

/* A table, and what is held of it. Its memory is kept from flush to flush, its shape is not: a
 * relation may not live longer. */
struct table {
    struct table *next; /* In the order of their first changes. */
    bool is_listed;
    const struct relation *relation;
    bool is_keyed;
    uint16_t key_count;
    uint16_t *key; /* Columns. */
    struct row_list rows;
    uint64_t bytes; /* Of values, of all changes behind `rows`. */
    uint64_t count; /* Of rows. */
    struct index_slot *index;
    uint64_t index_size; /* A power of two, or 0; never more than half full. */
    uint64_t generation;
};

/* Updates that leave the same columns alone. */
struct mask_group {
    struct mask_group *next;
    uint64_t hash;
    struct row_list rows;
};

struct batcher {
    struct batch_sink *sink;
    struct map tables;   /* Relation id: struct table. */
    struct table *first; /* With changes since the last flush. */
    struct table **end;
    struct arena arena; /* Rows and merged tuples; reset when nothing is held. */
    uint64_t bytes;     /* Of values. */
    uint64_t count;     /* Of rows. */
    struct tuple before[BATCH_ROWS_MAX];
    struct tuple after[BATCH_ROWS_MAX];
};

static void list_clear(struct row_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

static void list_add(struct row_list *list, struct row *row)
{
    row->next = NULL;
    *list->end = row;
    list->end = &row->next;
}

/* ---- tables ---- */

static void table_free(struct table *t)
{
    free(t->key);
    free(t->index);
    free(t);
}

/* Takes a new shape. Nothing of the old one may be held. */
static void table_shape(struct table *t, const struct relation *relation)
{
    check(t->rows.first == NULL);
    t->relation = relation;
    t->key_count = 0;
    free(t->key);
    t->key = calloc(relation->column_count + 1u, sizeof *t->key);
    check(t->key != NULL);
    for (uint16_t i = 0; i < relation->column_count; i++)
        if (relation->columns[i].in_key)
            t->key[t->key_count++] = i;
    t->is_keyed = relation->identity == IDENTITY_KEY && t->key_count > 0;
}

/* Forgets what is held of it. */
static void table_clear(struct batcher *b, struct table *t)
{
    b->bytes -= t->bytes;
    b->count -= t->count;
    t->bytes = t->count = 0;
    t->generation++;
    list_clear(&t->rows);
}

static struct table *table_of(struct batcher *b, uint32_t id)
{
    struct table *t = map_get(&b->tables, id);
    if (t == NULL) {
        t = calloc(1, sizeof *t);
        check(t != NULL);
        t->generation = 1;
        list_clear(&t->rows);
        map_put(&b->tables, id, t);
    }
    if (!t->is_listed) {
        t->is_listed = true;
        t->next = NULL;
        *b->end = t;
        b->end = &t->next;
    }
    return t;
}

/* ---- putting ---- */

/* Puts as many of the rows as one batch may hold, and leaves the others in *rows. */
static bool put_batch(struct batcher *b, const struct table *t, const struct row **rows,
                      struct error *err)
{
    struct batch batch = {
        .kind = (*rows)->kind,
        .relation = t->relation,
        .before = b->before,
        .after = b->after,
    };
    uint64_t bytes = 0;
    do {
        const struct row *row = *rows;
        b->before[batch.count] = row->before;
        b->after[batch.count] = row->after;
        batch.count++;
        bytes += row->bytes;
        *rows = row->next;
    } while (*rows != NULL && batch.count < BATCH_ROWS_MAX &&
             bytes + (*rows)->bytes <= BATCH_BYTES_MAX);
    return b->sink->put(b->sink, &batch, err);
}

/* Rows of one kind. */
static bool put_rows(struct batcher *b, const struct table *t, const struct row *rows,
                     struct error *err)
{
    while (rows != NULL)
        TRY(put_batch(b, t, &rows, err));
    return true;
}

static bool same_mask(const struct tuple *a, const struct tuple *b)
{
    for (uint16_t i = 0; i < a->count; i++)
        if ((a->datums[i].kind == DATUM_UNCHANGED) != (b->datums[i].kind == DATUM_UNCHANGED))
            return false;
    return true;
}

/* Equal for equal masks. */
static uint64_t mask_hash(const struct tuple *t)
{
    uint64_t hash = 1;
    for (uint16_t i = 0; i < t->count; i++)
        if (t->datums[i].kind == DATUM_UNCHANGED)
            hash = (hash ^ i) * UINT64_C(0x9e3779b97f4a7c15) + i;
    return hash;
}

static void add_to_group(struct batcher *b, struct mask_group **groups, struct row *row)
{
    uint64_t hash = mask_hash(&row->after);
    struct mask_group **at = groups;
    while (*at != NULL &&
           ((*at)->hash != hash || !same_mask(&(*at)->rows.first->after, &row->after)))
        at = &(*at)->next;
    if (*at == NULL) {
        *at = arena_new(&b->arena, struct mask_group);
        (*at)->hash = hash;
        list_clear(&(*at)->rows);
    }
    list_add(&(*at)->rows, row);
}

static bool put_keyed(struct batcher *b, const struct table *t, struct row *rows,
                      struct error *err)
{
    struct row_list kinds[BATCH_TRUNCATE];
    for (size_t i = 0; i < array_count(kinds); i++)
        list_clear(&kinds[i]);
    struct mask_group *groups = NULL;
    while (rows != NULL) {
        struct row *row = rows;
        rows = row->next;
        if (row->kind == BATCH_UPDATE)
            add_to_group(b, &groups, row);
        else
            list_add(&kinds[row->kind], row);
    }
    TRY(put_rows(b, t, kinds[BATCH_DELETE].first, err));
    TRY(put_rows(b, t, kinds[BATCH_ABSENT].first, err));
    for (const struct mask_group *g = groups; g != NULL; g = g->next)
        TRY(put_rows(b, t, g->rows.first, err));
    return put_rows(b, t, kinds[BATCH_INSERT].first, err);
}

static bool table_flush(struct batcher *b, struct table *t, struct error *err)
{
    struct row *rows = t->rows.first;
    table_clear(b, t);
    TRY(t->is_keyed ? put_keyed(b, t, rows, err) : put_rows(b, t, rows, err));
    if (b->count == 0)
        arena_reset(&b->arena);
    return true;
}

bool batcher_flush(struct batcher *b, struct error *err)
{
    for (struct table *t = b->first; t != NULL; t = t->next)
        TRY(table_flush(b, t, err));
    batcher_clear(b);
    return true;
}

void batcher_clear(struct batcher *b)
{
    for (struct table *t = b->first; t != NULL; t = t->next) {
        table_clear(b, t);
        t->is_listed = false;
        t->relation = NULL;
    }
    b->first = NULL;
    b->end = &b->first;
    arena_reset(&b->arena);
}

/* ---- keys ---- */

static uint64_t key_hash(const struct table *t, const struct tuple *key)
{
    uint64_t hash = 0;
    for (uint16_t i = 0; i < t->key_count; i++) {
        const struct datum *d = &key->datums[t->key[i]];
        hash = XXH3_64bits_withSeed(d->value.data, d->value.len, hash + (uint64_t)d->kind);
    }
    return hash;
}

static bool datum_equal(const struct datum *a, const struct datum *b)
{
    return a->kind == b->kind && (a->kind != DATUM_TEXT || bytes_equal(a->value, b->value));
}

static bool key_equal(const struct table *t, const struct tuple *a, const struct tuple *b)
{
    for (uint16_t i = 0; i < t->key_count; i++)
        if (!datum_equal(&a->datums[t->key[i]], &b->datums[t->key[i]]))
            return false;
    return true;
}

static const struct tuple *row_key(const struct row *row)
{
    return row->before.image != IMAGE_NONE ? &row->before : &row->after;
}

static bool slot_is_free(const struct table *t, const struct index_slot *slot)
{
    return slot->row == NULL || slot->generation != t->generation;
}

/* The slot of the row with this key, or the free one where it belongs. */
static struct index_slot *index_find(const struct table *t, const struct tuple *key,
                                     uint64_t hash)
{
    uint64_t i = hash & (t->index_size - 1);
    for (;; i = (i + 1) & (t->index_size - 1)) {
        struct index_slot *slot = &t->index[i];
        if (slot_is_free(t, slot) ||
            (slot->row->hash == hash && key_equal(t, row_key(slot->row), key)))
            return slot;
    }
}

static void index_grow(struct table *t)
{
    free(t->index);
    t->index_size = t->index_size == 0 ? INDEX_SIZE_FIRST : t->index_size * 2;
    t->index = calloc(t->index_size, sizeof *t->index);
    check(t->index != NULL);
    for (struct row *row = t->rows.first; row != NULL; row = row->next) {
        uint64_t i = row->hash & (t->index_size - 1);
        while (!slot_is_free(t, &t->index[i]))
            i = (i + 1) & (t->index_size - 1);
        t->index[i] = (struct index_slot){row, t->generation};
    }
}

/* ---- folding ---- */

static const enum batch_kind batch_of[] = {
    [CHANGE_INSERT] = BATCH_INSERT,
    [CHANGE_UPDATE] = BATCH_UPDATE,
    [CHANGE_DELETE] = BATCH_DELETE,
    [CHANGE_TRUNCATE] = BATCH_TRUNCATE,
};

static uint64_t tuple_bytes(const struct tuple *t)
{
    uint64_t bytes = t->count * sizeof *t->datums;
    for (uint16_t i = 0; i < t->count; i++)
        bytes += t->datums[i].value.len;
    return bytes;
}

static bool leaves_columns(const struct tuple *t)
{
    for (uint16_t i = 0; i < t->count; i++)
        if (t->datums[i].kind == DATUM_UNCHANGED)
            return true;
    return false;
}

/* `newer`, with the values of `older` where it leaves them. */
static struct tuple merge(struct batcher *b, const struct tuple *older,
                          const struct tuple *newer)
{
    if (!leaves_columns(newer))
        return *newer;
    struct datum *datums = arena_array(&b->arena, struct datum, newer->count);
    for (uint16_t i = 0; i < newer->count; i++)
        datums[i] =
            newer->datums[i].kind == DATUM_UNCHANGED ? older->datums[i] : newer->datums[i];
    return (struct tuple){newer->image, newer->count, datums};
}

/* What a row was is folded with what now happens to it. False: they do not follow each other.
 */
static bool fold(struct batcher *b, struct row *row, const struct row *now)
{
    bool is_there = row->kind == BATCH_INSERT || row->kind == BATCH_UPDATE;
    if (is_there != (now->kind != BATCH_INSERT))
        return false;
    switch (now->kind) {
    case BATCH_INSERT:
        if (leaves_columns(&now->after))
            return false;
        row->kind = row->kind == BATCH_ABSENT ? BATCH_INSERT : BATCH_UPDATE;
        if (row->kind == BATCH_INSERT)
            row->before = (struct tuple){0};
        row->after = now->after;
        break;
    case BATCH_UPDATE: row->after = merge(b, &row->after, &now->after); break;
    case BATCH_DELETE:
        row->kind = row->kind == BATCH_INSERT ? BATCH_ABSENT : BATCH_DELETE;
        row->before = now->before;
        row->after = (struct tuple){0};
        break;
    case BATCH_ABSENT:
    case BATCH_TRUNCATE: check_failed(__FILE__, __LINE__, "change kind");
    }
    row->bytes = tuple_bytes(&row->before) + tuple_bytes(&row->after);
    return true;
}

static struct row *hold(struct batcher *b, struct table *t, const struct row *now)
{
    struct row *row = arena_new(&b->arena, struct row);
    *row = *now;
    list_add(&t->rows, row);
    t->count++;
    b->count++;
    t->bytes += now->bytes;
    b->bytes += now->bytes;
    return row;
}

static bool add_keyed(struct batcher *b, struct table *t, struct row *now, struct error *err)
{
    const struct tuple *key = row_key(now);
    if ((t->count + 1) * 2 > t->index_size)
        index_grow(t);
    now->hash = key_hash(t, key);
    struct index_slot *slot = index_find(t, key, now->hash);
    if (!slot_is_free(t, slot)) {
        if (fold(b, slot->row, now)) {
            t->bytes += now->bytes;
            b->bytes += now->bytes;
            return true;
        }
        TRY(table_flush(b, t, err));
        slot = index_find(t, key, now->hash);
    }
    *slot = (struct index_slot){hold(b, t, now), t->generation};
    return true;
}

/* Extends the run, or starts one. */
static bool add_in_order(struct batcher *b, struct table *t, const struct row *now,
                         struct error *err)
{
    const struct row *first = t->rows.first;
    if (first != NULL && (first->kind != now->kind || !same_mask(&first->after, &now->after)))
        TRY(table_flush(b, t, err));
    hold(b, t, now);
    return true;
}

/* `now` is in no list. */
static bool put_alone(struct batcher *b, struct table *t, const struct row *now,
                      struct error *err)
{
    TRY(table_flush(b, t, err));
    return put_rows(b, t, now, err);
}

static bool add_truncate(struct batcher *b, const struct change *change, struct error *err)
{
    for (uint32_t i = 0; i < change->truncated_count; i++) {
        struct table *t = map_get(&b->tables, change->truncated[i]->id);
        if (t != NULL)
            TRY(table_flush(b, t, err));
    }
    struct batch batch = {
        .kind = BATCH_TRUNCATE, .relation = change->relation, .truncate = change};
    return b->sink->put(b->sink, &batch, err);
}

/* Whether an update gives the row another key. */
static bool moves_key(const struct table *t, const struct row *now)
{
    for (uint16_t i = 0; i < t->key_count; i++) {
        const struct datum *after = &now->after.datums[t->key[i]];
        if (after->kind != DATUM_UNCHANGED &&
            !datum_equal(&now->before.datums[t->key[i]], after))
            return true;
    }
    return false;
}

/* Whether the change says which row it is about. */
static bool names_row(const struct table *t, const struct row *now)
{
    if (now->kind == BATCH_INSERT)
        return true;
    if (t->relation->identity == IDENTITY_FULL)
        return now->before.image == IMAGE_ROW;
    if (!t->is_keyed || row_key(now)->image == IMAGE_NONE)
        return false;
    for (uint16_t i = 0; i < t->key_count; i++)
        if (row_key(now)->datums[t->key[i]].kind == DATUM_UNCHANGED)
            return false;
    return true;
}

bool batcher_add(struct batcher *b, const struct change *change, struct error *err)
{
    if (change->kind == CHANGE_TRUNCATE)
        return add_truncate(b, change, err);
    struct table *t = table_of(b, change->relation->id);
    if (t->relation != change->relation) {
        TRY(table_flush(b, t, err));
        table_shape(t, change->relation);
    }
    struct row now = {
        .kind = batch_of[change->kind],
        .before = change->before,
        .after = change->after,
        .bytes = tuple_bytes(&change->before) + tuple_bytes(&change->after),
    };
    if (!names_row(t, &now))
        return error_set(err, ERROR_DATA, "table %.*s.%.*s: a change does not say which row",
                         BYTES_ARG(t->relation->schema), BYTES_ARG(t->relation->name));
    if (!t->is_keyed)
        return add_in_order(b, t, &now, err);
    if (now.kind == BATCH_UPDATE && now.before.image == IMAGE_NONE)
        now.before = (struct tuple){IMAGE_KEY, now.after.count, now.after.datums};
    else if (now.kind == BATCH_UPDATE && moves_key(t, &now))
        return put_alone(b, t, &now, err);
    return add_keyed(b, t, &now, err);
}

struct batcher *batcher_new(struct batch_sink *sink)
{
    struct batcher *b = calloc(1, sizeof *b);
    check(b != NULL);
    b->sink = sink;
    b->end = &b->first;
    return b;
}

void batcher_free(struct batcher *b)
{
    if (b == NULL)
        return;
    size_t at = 0;
    for (struct table *t; (t = map_next(&b->tables, &at)) != NULL;)
        table_free(t);
    map_release(&b->tables);
    arena_clear(&b->arena);
    free(b);
}

uint64_t batcher_bytes(const struct batcher *b) { return b->bytes + b->arena.used; }
