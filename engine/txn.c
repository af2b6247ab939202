/* The serialised form, the blocks that hold it, and the cursor that reads it back.
 *
 * A change is written as it is needed again: relation pointers as they are (a relation lives as
 * long as its decoder, and no block is read by another process), a value as its length and its
 * bytes. Reading builds the arrays of datums in the cursor's scratch arena, and the datums
 * point into the block. So what a cursor gives is made of two things: bytes that live as long
 * as the block, and arrays that live as long as the cursor.
 *
 * Spilled blocks come before blocks in memory: spilling starts at the first and never skips
 * one. So all scratch there is when a spilled block is left belongs to it, and is reused.
 *
 * A block's `len` is what counts of it. A cut may leave a spilled block with less than was
 * stored; its rest is read and ignored. */
#include "engine/txn.h"

#include <stdlib.h>

#include "engine/txn_write.h"

enum {
    BLOCK_SIZE = 64 * 1024,
    BLOCK_SIZE_FIRST = 1024, /* Most transactions are small, and many may be open. */
    BLOCK_GROWTH = 4,
    SPILL_MIN = 16 * 1024, /* Less is not worth a read of its own. */
};

static const size_t pointer_size = sizeof(void *);

struct txn_block {
    struct txn_block *next;
    size_t len;
    size_t size;
    uint8_t *data; /* NULL: spilled. */
    struct spill_block stored;
};

/* Followed by the tuples that have an image or by the truncated relations. */
struct change_header {
    const struct relation *relation;
    uint8_t kind;
    uint8_t before;
    uint8_t after;
    bool restart_identity;
    uint32_t truncated_count;
};

/* The first byte of a datum: what it is, or its length if that is below the others. */
enum datum_tag {
    TAG_LENGTH_32 = 252,
    TAG_LENGTH_64,
    TAG_UNCHANGED,
    TAG_NULL,
};

/* ---- blocks ---- */

struct txn *txn_new(uint64_t xid, struct txn_memory *memory)
{
    struct txn_store *s = calloc(1, sizeof *s);
    check(s != NULL);
    s->txn.xid = xid;
    s->memory = memory;
    memory->holders++;
    return &s->txn;
}

void txn_memory_drop(struct txn_memory *memory)
{
    if (--memory->holders == 0)
        free(memory);
}

static void count_memory(struct txn_store *s, uint64_t more, uint64_t less)
{
    s->held = s->held + more - less;
    s->memory->bytes = s->memory->bytes + more - less;
}

/* Frees the content; the block stays. */
static void block_empty(struct txn_store *s, struct txn_block *block)
{
    if (block->data == NULL)
        return;
    free(block->data);
    block->data = NULL;
    count_memory(s, 0, block->size);
}

static void blocks_free(struct txn_store *s, struct txn_block *block)
{
    while (block != NULL) {
        struct txn_block *next = block->next;
        block_empty(s, block);
        free(block);
        block = next;
    }
}

void txn_free(struct txn *txn)
{
    if (txn == NULL)
        return;
    struct txn_store *s = txn_store_of(txn);
    blocks_free(s, txn->first);
    spill_free(txn->spill);
    txn_memory_drop(s->memory);
    free(s);
}

static struct txn_block *block_add(struct txn_store *s, size_t need)
{
    struct txn *txn = &s->txn;
    size_t size = txn->last == NULL ? BLOCK_SIZE_FIRST : txn->last->size * BLOCK_GROWTH;
    size = size > BLOCK_SIZE ? BLOCK_SIZE : size;
    struct txn_block *block = calloc(1, sizeof *block);
    check(block != NULL);
    block->size = size < need ? need : size;
    block->data = malloc(block->size);
    check(block->data != NULL);
    count_memory(s, block->size, 0);
    if (txn->last == NULL)
        txn->first = block;
    else
        txn->last->next = block;
    txn->last = block;
    if (s->unspilled == NULL)
        s->unspilled = block;
    return block;
}

struct txn_mark txn_end(const struct txn *txn)
{
    return (struct txn_mark){
        .block = txn->last,
        .at = txn->last == NULL ? 0 : txn->last->len,
        .bytes = txn->bytes,
        .change_count = txn->change_count,
        .barrier = txn->barrier,
    };
}

void txn_cut(struct txn *txn, const struct txn_mark *mark)
{
    struct txn_store *s = txn_store_of(txn);
    struct txn_block *last = mark->block;
    blocks_free(s, last == NULL ? txn->first : last->next);
    if (last == NULL) {
        txn->first = NULL;
    } else {
        check(mark->at <= last->len);
        last->next = NULL;
        last->len = mark->at;
    }
    txn->last = last;
    txn->bytes = mark->bytes;
    txn->change_count = mark->change_count;
    txn->barrier = mark->barrier;
    if (last != NULL && last->data != NULL)
        return;
    s->unspilled = NULL;
    if (txn->spill != NULL)
        spill_cut(txn->spill, last == NULL ? 0 : last->stored.offset + last->stored.stored_len);
}

/* The last block, while so little is in it that it had better stay: a transaction that grows
 * under pressure would be spilled change by change. */
static const struct txn_block *kept_block(const struct txn *txn)
{
    const struct txn_block *last = txn->last;
    return last != NULL && last->data != NULL && last->len < SPILL_MIN ? last : NULL;
}

uint64_t txn_spillable(struct txn *txn)
{
    const struct txn_block *kept = kept_block(txn);
    return txn_store_of(txn)->held - (kept == NULL ? 0 : kept->size);
}

bool txn_spill(struct txn *txn, const char *folder, struct error *err)
{
    struct txn_store *s = txn_store_of(txn);
    const struct txn_block *kept = kept_block(txn);
    if (txn->spill == NULL)
        TRY(spill_new(folder, &txn->spill, err));
    while (s->unspilled != NULL && s->unspilled != kept) {
        struct txn_block *block = s->unspilled;
        TRY(spill_append(txn->spill, (struct bytes){block->data, block->len}, &block->stored,
                         err));
        block_empty(s, block);
        s->unspilled = block->next;
    }
    return true;
}

/* ---- writing ---- */

static size_t tuple_size(const struct tuple *t)
{
    size_t size = t->count; /* Tags. */
    for (uint16_t i = 0; i < t->count; i++) {
        size_t len = t->datums[i].kind == DATUM_TEXT ? t->datums[i].value.len : 0;
        size += len;
        if (len >= TAG_LENGTH_32)
            size += len <= UINT32_MAX ? sizeof(uint32_t) : sizeof(uint64_t);
    }
    return size;
}

static uint8_t *put(uint8_t *at, const void *data, size_t len)
{
    if (len > 0)
        memcpy(at, data, len);
    return at + len;
}

static uint8_t *put_text(uint8_t *at, struct bytes value)
{
    if (value.len < TAG_LENGTH_32) {
        *at++ = (uint8_t)value.len;
    } else if (value.len <= UINT32_MAX) {
        uint32_t len = (uint32_t)value.len;
        *at++ = TAG_LENGTH_32;
        at = put(at, &len, sizeof len);
    } else {
        uint64_t len = value.len;
        *at++ = TAG_LENGTH_64;
        at = put(at, &len, sizeof len);
    }
    return put(at, value.data, value.len);
}

static uint8_t *put_tuple(uint8_t *at, const struct tuple *t)
{
    for (uint16_t i = 0; i < t->count; i++) {
        switch (t->datums[i].kind) {
        case DATUM_NULL: *at++ = TAG_NULL; break;
        case DATUM_UNCHANGED: *at++ = TAG_UNCHANGED; break;
        case DATUM_TEXT: at = put_text(at, t->datums[i].value); break;
        }
    }
    return at;
}

static uint8_t *put_truncated(uint8_t *at, const struct change *change)
{
    for (uint32_t i = 0; i < change->truncated_count; i++)
        if (change->truncated[i]->role == ROLE_USER)
            at = put(at, &change->truncated[i], pointer_size);
    return at;
}

static struct change_header header_of(const struct change *change)
{
    struct change_header h = {
        .relation = change->relation,
        .kind = (uint8_t)change->kind,
        .before = (uint8_t)change->before.image,
        .after = (uint8_t)change->after.image,
        .restart_identity = change->restart_identity,
    };
    uint16_t columns = change->relation->column_count;
    check(change->before.count == (change->before.image == IMAGE_NONE ? 0 : columns));
    check(change->after.count == (change->after.image == IMAGE_NONE ? 0 : columns));
    if (change->kind == CHANGE_TRUNCATE) {
        for (uint32_t i = 0; i < change->truncated_count; i++)
            h.truncated_count += change->truncated[i]->role == ROLE_USER;
        check(h.truncated_count > 0);
    }
    return h;
}

void txn_append(struct txn *txn, const struct change *change)
{
    struct change_header h = header_of(change);
    size_t need = sizeof h + h.truncated_count * pointer_size + tuple_size(&change->before) +
                  tuple_size(&change->after);
    struct txn_block *block = txn->last;
    if (block == NULL || block->data == NULL || need > block->size - block->len)
        block = block_add(txn_store_of(txn), need);
    uint8_t *start = block->data + block->len;
    uint8_t *at = put(start, &h, sizeof h);
    if (change->kind == CHANGE_TRUNCATE)
        at = put_truncated(at, change);
    at = put_tuple(at, &change->before);
    at = put_tuple(at, &change->after);
    check((size_t)(at - start) == need);
    block->len += need;
    txn->bytes += need;
    txn->change_count++;
}

/* ---- reading ---- */

/* What stands in a block was written above and, if it was spilled, its hash was checked: it is
 * read without doubt. */
static const uint8_t *get(const uint8_t *at, void *out, size_t len)
{
    memcpy(out, at, len);
    return at + len;
}

static const uint8_t *get_datum(const uint8_t *at, struct datum *out)
{
    uint8_t tag = *at++;
    size_t len = tag;
    if (tag == TAG_NULL || tag == TAG_UNCHANGED) {
        *out = (struct datum){.kind = tag == TAG_NULL ? DATUM_NULL : DATUM_UNCHANGED};
        return at;
    }
    if (tag == TAG_LENGTH_32) {
        uint32_t narrow;
        at = get(at, &narrow, sizeof narrow);
        len = narrow;
    } else if (tag == TAG_LENGTH_64) {
        uint64_t wide;
        at = get(at, &wide, sizeof wide);
        len = wide;
    }
    *out = (struct datum){.kind = DATUM_TEXT, .value = {at, len}};
    return at + len;
}

static struct tuple tuple_in(uint8_t image, uint16_t columns, const struct datum *datums)
{
    if (image == IMAGE_NONE)
        return (struct tuple){0};
    return (struct tuple){(enum image)image, columns, datums};
}

static const uint8_t *get_tuples(struct txn_cursor *c, const uint8_t *at,
                                 const struct change_header *h)
{
    uint16_t columns = h->relation->column_count;
    uint32_t before = h->before == IMAGE_NONE ? 0 : columns;
    uint32_t count = before + (h->after == IMAGE_NONE ? 0 : columns);
    struct datum *datums = arena_array(&c->scratch, struct datum, count);
    for (uint32_t i = 0; i < count; i++)
        at = get_datum(at, &datums[i]);
    c->change.before = tuple_in(h->before, columns, datums);
    c->change.after = tuple_in(h->after, columns, datums + before);
    return at;
}

static const uint8_t *get_truncated(struct txn_cursor *c, const uint8_t *at,
                                    const struct change_header *h)
{
    const struct relation **truncated =
        arena_array(&c->scratch, const struct relation *, h->truncated_count);
    at = get(at, truncated, h->truncated_count * pointer_size);
    c->change.relation = truncated[0];
    c->change.truncated_count = h->truncated_count;
    c->change.truncated = truncated;
    c->change.restart_identity = h->restart_identity;
    return at;
}

void txn_cursor_init(struct txn_cursor *c, const struct txn *txn)
{
    *c = (struct txn_cursor){.txn = txn};
}

void txn_cursor_release(struct txn_cursor *c)
{
    free(c->loaded);
    arena_clear(&c->scratch);
    *c = (struct txn_cursor){0};
}

static bool enter(struct txn_cursor *c, const struct txn_block *block, struct error *err)
{
    uint8_t *loaded = NULL;
    if (block->data == NULL) {
        loaded = malloc(block->stored.content_len);
        check(loaded != NULL);
        if (!spill_read(c->txn->spill, &block->stored, loaded, err)) {
            free(loaded);
            return false;
        }
    }
    if (c->loaded != NULL) {
        free(c->loaded);
        arena_reset(&c->scratch);
    }
    c->loaded = loaded;
    c->block = block;
    c->at = 0;
    return true;
}

bool txn_cursor_next(struct txn_cursor *c, const struct change **change, struct error *err)
{
    if (c->block == NULL || c->at == c->block->len) {
        const struct txn_block *next = c->block == NULL ? c->txn->first : c->block->next;
        *change = NULL;
        if (next == NULL)
            return true;
        TRY(enter(c, next, err));
    }
    const uint8_t *data = c->loaded != NULL ? c->loaded : c->block->data;
    struct change_header h;
    const uint8_t *at = get(data + c->at, &h, sizeof h);
    c->change = (struct change){.kind = (enum change_kind)h.kind, .relation = h.relation};
    if (c->change.kind == CHANGE_TRUNCATE)
        at = get_truncated(c, at, &h);
    else
        at = get_tuples(c, at, &h);
    c->at = (size_t)(at - data);
    *change = &c->change;
    return true;
}

bool txn_cursor_leaves_block(const struct txn_cursor *c)
{
    return c->loaded != NULL && c->at == c->block->len && c->block->next != NULL;
}
