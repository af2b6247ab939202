/* Collects interleaved transactions until they commit.
 *
 * An aborted part (a subtransaction) ends the transaction at the first change it made: while a
 * part is open its parent cannot write, and the abort comes in order, so all that stands behind
 * that change belongs to the part or to parts within it. The first changes of all parts are
 * kept as marks on a stack, in the order in which they were made; cutting at one drops those
 * above.
 *
 * A change of a transaction that never began is what is left of one that began before the place
 * where reading started. It stores nothing; if the target already has it, its commit says so
 * (skip_until), else the spool does not reach back far enough.
 *
 * Spilling takes the transaction that holds most memory. Only those that hold SPILL_MIN are
 * looked at, so many small ones may stay above the budget: a file each would cost more than
 * they hold. */
#include "engine/txn_buffer.h"

#include <inttypes.h>
#include <stdlib.h>

#include "engine/base/map.h"
#include "engine/txn_write.h"

enum {
    MARKS_FIRST = 4,
    HEAVY_MIN = 16 * 1024,
};

struct part_mark {
    uint64_t subxid;
    struct txn_mark mark;
};

/* A transaction that has not ended. */
struct open_txn {
    uint64_t xid;
    struct txn *txn;         /* NULL: its beginning was not read. */
    struct part_mark *marks; /* In the order of the changes. */
    size_t mark_count;
    size_t mark_size;
    struct map mark_of; /* subxid: mark_place(). */
};

struct txn_buffer {
    struct event_sink sink;
    struct txn_buffer_options options;
    char *spill_path;
    struct txn_memory *memory;
    struct map open; /* xid: struct open_txn. */
    uint64_t segment;
    struct txn_store *heavy; /* Open or committed, that could free HEAVY_MIN or more. */
    struct txn *first;       /* Committed. */
    struct txn *last;
    bool has_progress; /* Seen, not yet given, and no commit came behind it. */
    uint64_t progress_seq;
    struct position progress_pos;
};

/* ---- the memory budget ---- */

static void heavy_remove(struct txn_buffer *b, struct txn_store *s)
{
    if (!s->is_heavy)
        return;
    if (s->prev_heavy == NULL)
        b->heavy = s->next_heavy;
    else
        s->prev_heavy->next_heavy = s->next_heavy;
    if (s->next_heavy != NULL)
        s->next_heavy->prev_heavy = s->prev_heavy;
    s->prev_heavy = s->next_heavy = NULL;
    s->is_heavy = false;
}

/* Puts it on the list, or takes it off. */
static void weigh(struct txn_buffer *b, struct txn *txn)
{
    struct txn_store *s = txn_store_of(txn);
    if (txn_spillable(txn) < HEAVY_MIN) {
        heavy_remove(b, s);
        return;
    }
    if (s->is_heavy)
        return;
    s->next_heavy = b->heavy;
    if (b->heavy != NULL)
        b->heavy->prev_heavy = s;
    b->heavy = s;
    s->is_heavy = true;
}

static bool spill(struct txn_buffer *b, struct txn *txn, struct error *err)
{
    bool ok = txn_spill(txn, b->spill_path, err);
    weigh(b, txn);
    return ok;
}

/* Called when `grown` has taken a new block. */
static bool keep_budget(struct txn_buffer *b, struct txn *grown, struct error *err)
{
    if (grown->spill != NULL)
        TRY(spill(b, grown, err));
    weigh(b, grown);
    while (b->memory->bytes > b->options.memory_max && b->heavy != NULL) {
        struct txn_store *biggest = b->heavy;
        for (struct txn_store *s = b->heavy->next_heavy; s != NULL; s = s->next_heavy)
            if (txn_spillable(&s->txn) > txn_spillable(&biggest->txn))
                biggest = s;
        TRY(spill(b, &biggest->txn, err));
    }
    return true;
}

/* ---- open transactions ---- */

static struct open_txn *open_new(struct txn_buffer *b, uint64_t xid)
{
    struct open_txn *o = calloc(1, sizeof *o);
    check(o != NULL);
    o->xid = xid;
    map_put(&b->open, xid, o);
    return o;
}

/* Frees all but the transaction itself. */
static void open_free(struct open_txn *o)
{
    map_release(&o->mark_of);
    free(o->marks);
    free(o);
}

static void open_drop(struct txn_buffer *b, struct open_txn *o)
{
    if (o->txn != NULL)
        heavy_remove(b, txn_store_of(o->txn));
    txn_free(o->txn);
    open_free(o);
}

static void drop_all_open(struct txn_buffer *b)
{
    size_t at = 0;
    for (struct open_txn *o; (o = map_next(&b->open, &at)) != NULL;)
        open_drop(b, o);
    map_clear(&b->open);
}

static struct txn *txn_begin(struct txn_buffer *b, uint64_t xid)
{
    struct txn *txn = txn_new(xid, b->memory);
    txn->first_segment = b->segment;
    return txn;
}

static bool put_begin(struct txn_buffer *b, const struct event *event, struct error *err)
{
    if (map_get(&b->open, event->xid) != NULL)
        return error_set(err, ERROR_DATA, "transaction %" PRIu64 " begins twice", event->xid);
    open_new(b, event->xid)->txn = txn_begin(b, event->xid);
    return true;
}

/* ---- parts ---- */

/* Places on the stack as values of a map, which cannot be NULL: counted from 1. */
static void *mark_place(size_t index) { return (void *)(uintptr_t)(index + 1); }

static void mark_part(struct open_txn *o, uint64_t subxid)
{
    if (subxid == o->xid || map_get(&o->mark_of, subxid) != NULL)
        return;
    if (o->mark_count == o->mark_size) {
        o->mark_size = o->mark_size == 0 ? MARKS_FIRST : o->mark_size * 2;
        o->marks = reallocarray(o->marks, o->mark_size, sizeof *o->marks);
        check(o->marks != NULL);
    }
    o->marks[o->mark_count] = (struct part_mark){subxid, txn_end(o->txn)};
    map_put(&o->mark_of, subxid, mark_place(o->mark_count));
    o->mark_count++;
}

static void abort_part(struct txn_buffer *b, struct open_txn *o, uint64_t subxid)
{
    uintptr_t place = (uintptr_t)map_get(&o->mark_of, subxid);
    if (place == 0)
        return;
    txn_cut(o->txn, &o->marks[place - 1].mark);
    weigh(b, o->txn);
    while (o->mark_count >= place)
        map_remove(&o->mark_of, o->marks[--o->mark_count].subxid);
}

static void put_abort(struct txn_buffer *b, const struct event *event)
{
    struct open_txn *o = map_get(&b->open, event->xid);
    if (o == NULL)
        return;
    if (event->subxid != event->xid) {
        abort_part(b, o, event->subxid);
        return;
    }
    map_remove(&b->open, event->xid);
    open_drop(b, o);
}

/* ---- changes ---- */

static bool parse_number(struct bytes text, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (digit > 9 || *out > (UINT64_MAX - digit) / 10)
            return false;
        *out = *out * 10 + digit;
    }
    return text.len > 0;
}

static bool read_barrier(const struct change *change, uint64_t *barrier, struct error *err)
{
    const struct relation *rel = change->relation;
    for (uint16_t i = 0; i < rel->column_count && i < change->after.count; i++) {
        const struct datum *d = &change->after.datums[i];
        if (!bytes_equal(rel->columns[i].name, BYTES("id")))
            continue;
        if (d->kind == DATUM_TEXT && parse_number(d->value, barrier))
            return true;
    }
    return error_set(err, ERROR_DATA, "a row of the barrier table %.*s.%.*s has no number",
                     BYTES_ARG(rel->schema), BYTES_ARG(rel->name));
}

/* Whether it changes a table that is not ours. */
static bool is_users(const struct change *change)
{
    if (change->kind != CHANGE_TRUNCATE)
        return change->relation->role == ROLE_USER;
    for (uint32_t i = 0; i < change->truncated_count; i++)
        if (change->truncated[i]->role == ROLE_USER)
            return true;
    return false;
}

static bool put_change(struct txn_buffer *b, const struct event *event, struct error *err)
{
    const struct change *change = event->change;
    struct open_txn *o = map_get(&b->open, event->xid);
    if (o == NULL)
        o = open_new(b, event->xid);
    struct txn *txn = o->txn;
    if (txn == NULL)
        return true;
    mark_part(o, event->subxid);
    if (change->relation->role == ROLE_BARRIER &&
        (change->kind == CHANGE_INSERT || change->kind == CHANGE_UPDATE))
        return read_barrier(change, &txn->barrier, err);
    if (!is_users(change))
        return true;
    const struct txn_block *grew = txn->last;
    txn_append(txn, change);
    return txn->last == grew || keep_budget(b, txn, err);
}

/* ---- boundaries ---- */

static void commit(struct txn_buffer *b, struct txn *txn, const struct event *event)
{
    txn->seq = event->seq;
    txn->pos = position_of(event->pos);
    txn->commit_time_us = event->commit_time_us;
    if (b->first == NULL)
        b->first = txn;
    else
        b->last->next = txn;
    b->last = txn;
    b->has_progress = false;
    weigh(b, txn);
}

static bool put_commit(struct txn_buffer *b, const struct event *event, struct error *err)
{
    struct open_txn *o = map_get(&b->open, event->xid);
    if (event->seq > b->options.skip_until && o != NULL && o->txn == NULL)
        return error_set(err, ERROR_DATA,
                         "transaction %" PRIu64 " has no beginning in the spool", event->xid);
    if (o != NULL)
        map_remove(&b->open, event->xid);
    if (event->seq > b->options.skip_until) {
        commit(b, o != NULL ? o->txn : txn_begin(b, event->xid), event);
        if (o != NULL)
            open_free(o);
    } else if (o != NULL) {
        open_drop(b, o);
    }
    return true;
}

static void put_progress(struct txn_buffer *b, const struct event *event)
{
    if (event->seq <= b->options.skip_until)
        return;
    b->has_progress = true;
    b->progress_seq = event->seq;
    b->progress_pos = position_of(event->pos);
}

static bool buffer_put(struct event_sink *sink, const struct event *event, struct error *err)
{
    struct txn_buffer *b = container_of(sink, struct txn_buffer, sink);
    switch (event->kind) {
    case EVENT_BEGIN: return put_begin(b, event, err);
    case EVENT_CHANGE: return put_change(b, event, err);
    case EVENT_COMMIT: return put_commit(b, event, err);
    case EVENT_ABORT: put_abort(b, event); return true;
    case EVENT_PROGRESS: put_progress(b, event); return true;
    case EVENT_RESET: drop_all_open(b); return true;
    }
    check_failed(__FILE__, __LINE__, "event kind");
}

/* ---- the reader's side ---- */

bool txn_buffer_new(const struct txn_buffer_options *options, struct txn_buffer **out,
                    struct error *err)
{
    TRY(spill_prepare(options->spill_path, err));
    struct txn_buffer *b = calloc(1, sizeof *b);
    struct txn_memory *memory = calloc(1, sizeof *memory);
    check(b != NULL && memory != NULL);
    b->sink.put = buffer_put;
    b->options = *options;
    b->spill_path = strdup(options->spill_path);
    check(b->spill_path != NULL);
    b->options.spill_path = b->spill_path;
    b->memory = memory;
    memory->holders = 1;
    *out = b;
    return true;
}

void txn_buffer_free(struct txn_buffer *b)
{
    if (b == NULL)
        return;
    drop_all_open(b);
    map_release(&b->open);
    for (struct txn *txn; (txn = txn_buffer_take(b)) != NULL;)
        txn_free(txn);
    txn_memory_drop(b->memory);
    free(b->spill_path);
    free(b);
}

struct event_sink *txn_buffer_sink(struct txn_buffer *b) { return &b->sink; }

void txn_buffer_at_segment(struct txn_buffer *b, uint64_t segment) { b->segment = segment; }

struct txn *txn_buffer_take(struct txn_buffer *b)
{
    struct txn *txn = b->first;
    if (txn == NULL)
        return NULL;
    b->first = txn->next;
    txn->next = NULL;
    heavy_remove(b, txn_store_of(txn));
    return txn;
}

bool txn_buffer_is_empty(const struct txn_buffer *b) { return b->first == NULL; }

bool txn_buffer_progress(struct txn_buffer *b, uint64_t *seq, struct position *pos)
{
    if (!b->has_progress || b->first != NULL)
        return false;
    b->has_progress = false;
    *seq = b->progress_seq;
    *pos = b->progress_pos;
    return true;
}

uint64_t txn_buffer_oldest_segment(const struct txn_buffer *b, uint64_t otherwise)
{
    uint64_t oldest = UINT64_MAX;
    bool found = false;
    size_t at = 0;
    for (const struct open_txn *o; (o = map_next(&b->open, &at)) != NULL;) {
        if (o->txn == NULL)
            continue;
        found = true;
        oldest = o->txn->first_segment < oldest ? o->txn->first_segment : oldest;
    }
    return found ? oldest : otherwise;
}

uint64_t txn_buffer_bytes(const struct txn_buffer *b) { return b->memory->bytes; }
