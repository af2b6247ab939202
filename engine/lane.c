/* Groups are a queue: the front ones are in flight, the last may still be filling.
 *
 * A group's checkpoint names the one before it, so that the target itself refuses a group whose
 * predecessor did not commit. Therefore any failure is handled alike: roll back, drop what is
 * known to be committed, and go on from the first group that is not. What "committed" means is
 * the target's word alone: an answer that came in, or the checkpoint read after reconnecting.
 */
#include "engine/lane.h"

#include <inttypes.h>
#include <stdlib.h>

#include "engine/base/map.h"
#include "engine/batch.h"

enum {
    IN_FLIGHT_MAX = 2,     /* Groups: one being answered while the next is being sent. */
    GROUP_TXNS_MAX = 2000, /* So that a failed group is replayed in bounded time. */
    BATCH_BYTES_MAX = 4 << 20,
};

struct group {
    struct group *next;
    struct txn *first;
    struct txn *last;
    uint32_t count;
    uint64_t bytes;
    struct checkpoint to;
    bool durable; /* Holds a barrier. */
    bool alone;   /* Holds changes that must be enforced: never as a batch. */
};

/* Changes of one relation in the groups sent, for the counters. */
struct tally {
    const struct relation *relation;
    uint64_t changes;
};

struct lane {
    struct lane_options options;
    enum lane_state state;
    bool claimed;
    struct batcher *batcher;
    struct batch_sink sink;
    struct judge *judge;
    struct group *first; /* Oldest not committed. */
    struct group *last;
    struct group *unsent; /* The first that is not in flight; NULL: all are. */
    unsigned in_flight;
    bool filling; /* `last` may take more. */
    uint64_t held;
    struct checkpoint sent; /* Of the last group in flight, else the target's. */
    struct checkpoint at;   /* The target's checkpoint, as far as known. */
    uint64_t passed;        /* Boundaries up to here need nothing further. */
    struct position passed_pos;
    struct map tallies;
    struct arena scratch; /* What the batcher's changes were read into. */
};

static bool put_batch(struct batch_sink *sink, const struct batch *batch, struct error *err)
{
    struct lane *l = container_of(sink, struct lane, sink);
    return l->options.applier->ops->apply(l->options.applier, batch, err);
}

struct lane *lane_new(const struct lane_options *options)
{
    struct lane *l = calloc(1, sizeof *l);
    check(l != NULL);
    l->options = *options;
    l->sink.put = put_batch;
    l->batcher = batcher_new(&l->sink);
    return l;
}

/* ---- the queue ---- */

static void group_free(struct group *g)
{
    for (struct txn *t = g->first; t != NULL;) {
        struct txn *next = t->next;
        txn_free(t);
        t = next;
    }
    free(g);
}

void lane_free(struct lane *l)
{
    while (l->first != NULL) {
        struct group *next = l->first->next;
        group_free(l->first);
        l->first = next;
    }
    size_t at = 0;
    for (struct tally *t; (t = map_next(&l->tallies, &at)) != NULL;)
        free(t);
    map_release(&l->tallies);
    batcher_free(l->batcher);
    arena_clear(&l->scratch);
    free(l);
}

static void report_tallies(struct lane *l)
{
    size_t at = 0;
    for (struct tally *t; (t = map_next(&l->tallies, &at)) != NULL;) {
        if (t->changes > 0)
            l->options.counted(l->options.context, t->relation, t->changes);
        t->changes = 0;
    }
}

static void tally(struct lane *l, const struct relation *rel)
{
    struct tally *t = map_get(&l->tallies, rel->version);
    if (t == NULL) {
        t = calloc(1, sizeof *t);
        check(t != NULL);
        t->relation = rel;
        map_put(&l->tallies, rel->version, t);
    }
    t->changes++;
}

/* The target has everything up to boundary `seq`. */
static void drop_committed(struct lane *l, uint64_t seq)
{
    while (l->first != NULL && l->first->to.seq <= seq) {
        struct group *g = l->first;
        check(g != l->unsent || l->in_flight == 0);
        if (g == l->unsent)
            l->unsent = g->next;
        else if (l->in_flight > 0)
            l->in_flight--;
        l->first = g->next;
        if (l->first == NULL) {
            l->last = NULL;
            l->filling = false;
        }
        l->at = g->to;
        for (const struct txn *t = g->first; t != NULL; t = t->next)
            l->options.applied(l->options.context, t);
        l->held -= g->count;
        if (g->to.seq > l->passed) {
            l->passed = g->to.seq;
            l->passed_pos = g->to.pos;
        }
        group_free(g);
    }
    report_tallies(l);
}

void lane_set_judge(struct lane *l, struct judge *judge) { l->judge = judge; }

/* Whether some change of it must be enforced. Such a transaction goes row by row. */
static bool needs_enforcing(struct lane *l, const struct txn *txn)
{
    if (l->judge == NULL)
        return false;
    struct txn_cursor c;
    const struct change *change;
    struct error unread = {0};
    bool found = false;
    txn_cursor_init(&c, txn);
    while (!found && txn_cursor_next(&c, &change, &unread) && change != NULL)
        found = l->judge->judge(l->judge, txn->xid, change->relation) == VERDICT_ENFORCE;
    txn_cursor_release(&c);
    return found || unread.kind != ERROR_NONE; /* Applying it will say what is wrong. */
}

static struct group *group_begin(struct lane *l)
{
    struct group *g = calloc(1, sizeof *g);
    check(g != NULL);
    if (l->last != NULL)
        l->last->next = g;
    else
        l->first = g;
    l->last = g;
    if (l->unsent == NULL)
        l->unsent = g;
    l->filling = true;
    return g;
}

static bool is_full(const struct lane *l, const struct group *g)
{
    return g->bytes >= l->options.group_bytes_max || g->count >= GROUP_TXNS_MAX || g->durable ||
           g->alone;
}

void lane_add(struct lane *l, struct txn *txn)
{
    uint64_t newest = l->last != NULL ? l->last->to.seq : l->passed;
    check(txn->seq > newest);
    if (l->last == NULL && txn->change_count == 0 && txn->barrier == 0) {
        lane_pass(l, txn->seq, &txn->pos);
        l->options.applied(l->options.context, txn);
        txn_free(txn);
        return;
    }
    bool alone = needs_enforcing(l, txn);
    if (!l->filling || alone)
        group_begin(l);
    struct group *g = l->last;
    txn->next = NULL;
    if (g->last != NULL)
        g->last->next = txn;
    else
        g->first = txn;
    g->last = txn;
    g->count++;
    l->held++;
    g->bytes += txn->bytes;
    g->durable = g->durable || txn->barrier != 0;
    g->alone = alone;
    g->to.seq = txn->seq;
    g->to.pos = txn->pos;
    g->to.commit_time_us = txn->commit_time_us;
    l->filling = !is_full(l, g);
}

void lane_pass(struct lane *l, uint64_t seq, const struct position *pos)
{
    if (l->last != NULL || seq <= l->passed)
        return;
    l->passed = seq;
    l->passed_pos = *pos;
}

bool lane_has_room(const struct lane *l)
{
    return l->unsent == NULL || (l->filling && l->unsent == l->last);
}

/* ---- failing ---- */

/* Ends what is under way; what is known to be committed leaves the queue, the rest waits. */
static void stop_sending(struct lane *l)
{
    struct error unheard = {0};
    uint64_t committed = l->at.seq;
    batcher_clear(l->batcher);
    arena_reset(&l->scratch);
    (void)l->options.applier->ops->collect(l->options.applier, 0, &committed, &unheard);
    l->options.applier->ops->rollback(l->options.applier);
    drop_committed(l, committed);
    size_t at = 0;
    for (struct tally *t; (t = map_next(&l->tallies, &at)) != NULL;)
        t->changes = 0;
    l->unsent = l->first;
    l->in_flight = 0;
    l->sent = l->at;
}

static bool closed(struct lane *l)
{
    l->options.applier->ops->close(l->options.applier);
    l->state = LANE_CLOSED;
    return false;
}

static bool can_be_replayed(const struct error *err)
{
    return err->kind == ERROR_CONFLICT || err->kind == ERROR_SCHEMA;
}

/* ---- batches ---- */

/* Puts all that is held; what the changes were read into is free again. */
static bool flush_batches(struct lane *l, struct arena *scratch, struct error *err)
{
    TRY(batcher_flush(l->batcher, err));
    arena_reset(scratch);
    return true;
}

static bool feed_change(struct lane *l, const struct txn *txn, const struct change *change,
                        struct error *err)
{
    if (l->judge != NULL &&
        l->judge->judge(l->judge, txn->xid, change->relation) == VERDICT_PASS)
        return true;
    tally(l, change->relation);
    return batcher_add(l->batcher, change, err);
}

/* The scratch memory is handed from transaction to transaction: the batcher looks into it, and
 * into the blocks, until it is flushed. A block that was spilled goes before that. */
static bool feed_txn(struct lane *l, const struct txn *txn, struct error *err)
{
    struct txn_cursor c;
    const struct change *change = NULL;
    bool ok;
    txn_cursor_init(&c, txn);
    c.scratch = l->scratch;
    do {
        bool full = batcher_bytes(l->batcher) >= BATCH_BYTES_MAX || txn_cursor_leaves_block(&c);
        ok = (!full || flush_batches(l, &c.scratch, err)) &&
             txn_cursor_next(&c, &change, err) &&
             (change == NULL || feed_change(l, txn, change, err));
    } while (ok && change != NULL);
    if (ok && c.loaded != NULL)
        ok = flush_batches(l, &c.scratch, err);
    l->scratch = c.scratch;
    c.scratch = (struct arena){0};
    if (!ok)
        batcher_clear(l->batcher); /* What it looks into is about to go. */
    txn_cursor_release(&c);
    return ok;
}

static bool send_txns(struct lane *l, const struct txn *first, const struct txn *end,
                      const struct checkpoint *to, bool durable, struct error *err)
{
    struct applier *a = l->options.applier;
    TRY(a->ops->begin(a, l->sent.seq, to, durable, err));
    for (const struct txn *t = first; t != end; t = t->next)
        TRY(feed_txn(l, t, err));
    TRY(flush_batches(l, &l->scratch, err));
    TRY(a->ops->commit(a, to->seq, err));
    l->sent = *to;
    return true;
}

/* ---- row by row ---- */

static bool apply_rows(struct lane *l, const struct txn *txn, bool report, struct error *err)
{
    struct applier *a = l->options.applier;
    struct txn_cursor c;
    const struct change *change;
    bool ok;
    txn_cursor_init(&c, txn);
    while ((ok = txn_cursor_next(&c, &change, err)) && change != NULL) {
        enum verdict v = l->judge == NULL
                             ? VERDICT_APPLY
                             : l->judge->judge(l->judge, txn->xid, change->relation);
        if (v == VERDICT_PASS)
            continue;
        struct row_result result = {0};
        enum row_mode mode = v == VERDICT_ENFORCE ? ROW_OVERWRITE : l->options.on_conflict;
        if (report && v != VERDICT_ENFORCE)
            tally(l, change->relation);
        if (!(ok = a->ops->apply_row(a, change, mode, &result, err)))
            break;
        if (result.conflict != NULL && v != VERDICT_ENFORCE)
            l->options.conflict(l->options.context, change->relation, &result);
    }
    txn_cursor_release(&c);
    return ok;
}

static void checkpoint_of(const struct txn *txn, struct checkpoint *to)
{
    *to = (struct checkpoint){
        .seq = txn->seq, .pos = txn->pos, .commit_time_us = txn->commit_time_us};
}

static bool wait_committed(struct lane *l, uint64_t seq, struct error *err)
{
    uint64_t committed = 0;
    while (committed < seq)
        TRY(l->options.applier->ops->collect(l->options.applier, 1000, &committed, err));
    return true;
}

/* One transaction by itself: as a batch, and if that fails row by row. */
static bool replay_txn(struct lane *l, const struct txn *txn, bool rows_only, struct error *err)
{
    struct applier *a = l->options.applier;
    struct checkpoint to;
    checkpoint_of(txn, &to);
    if (!rows_only) {
        if (send_txns(l, txn, txn->next, &to, txn->barrier != 0, err) &&
            wait_committed(l, to.seq, err))
            return true;
        if (!can_be_replayed(err))
            return false;
        stop_sending(l);
        error_clear(err);
    }
    TRY(a->ops->begin(a, l->sent.seq, &to, txn->barrier != 0, err));
    TRY(apply_rows(l, txn, true, err));
    TRY(a->ops->commit(a, to.seq, err));
    l->sent = to;
    return wait_committed(l, to.seq, err);
}

/* Cuts the first transaction off a group that holds several. */
static void split_first(struct lane *l)
{
    struct group *g = l->first;
    if (g->first == g->last)
        return;
    struct group *rest = calloc(1, sizeof *rest);
    check(rest != NULL);
    struct txn *head = g->first;
    *rest = *g;
    rest->first = head->next;
    rest->count--;
    rest->bytes -= head->bytes;
    head->next = NULL;
    g->last = head;
    g->count = 1;
    g->bytes = head->bytes;
    checkpoint_of(head, &g->to);
    g->next = rest;
    if (l->last == g)
        l->last = rest;
}

/* Replays `count` transactions from the front one at a time. */
static bool replay(struct lane *l, uint32_t count, struct error *err)
{
    for (; count > 0 && l->first != NULL; count--) {
        split_first(l);
        l->filling = false;
        struct txn *txn = l->first->first;
        uint64_t seq = txn->seq;
        if (replay_txn(l, txn, l->first->alone, err)) {
            l->unsent = l->first;
            drop_committed(l, seq);
            continue;
        }
        stop_sending(l);
        if (!can_be_replayed(err))
            return closed(l);
        l->state = LANE_HALTED;
        return error_wrap(err, "transaction %" PRIu64 " at %s", txn->xid, txn->pos.text);
    }
    return true;
}

/* ---- working ---- */

/* After a failure: what was in flight, and the group that failed, again and slowly. */
static bool recover(struct lane *l, struct error *err)
{
    uint32_t count = 0;
    unsigned groups = l->in_flight + 1;
    bool replayable = can_be_replayed(err);
    stop_sending(l);
    if (!replayable)
        return closed(l);
    for (const struct group *g = l->first; g != NULL && groups > 0; g = g->next, groups--)
        count += g->count;
    error_clear(err);
    return replay(l, count, err);
}

static bool may_send(const struct lane *l, bool idle)
{
    const struct group *g = l->unsent;
    if (g == NULL || l->in_flight >= IN_FLIGHT_MAX)
        return false;
    bool complete = g != l->last || !l->filling;
    return complete || (idle && l->in_flight == 0) || (idle && l->in_flight < IN_FLIGHT_MAX);
}

static bool send_next(struct lane *l, struct error *err)
{
    struct group *g = l->unsent;
    if (g->alone)
        return l->in_flight > 0 || replay(l, 1, err);
    if (g == l->last)
        l->filling = false;
    if (!send_txns(l, g->first, NULL, &g->to, g->durable, err))
        return recover(l, err);
    l->unsent = g->next;
    l->in_flight++;
    return true;
}

static bool collect(struct lane *l, int wait_ms, struct error *err)
{
    uint64_t committed = l->at.seq;
    bool ok = l->options.applier->ops->collect(l->options.applier, wait_ms, &committed, err);
    drop_committed(l, committed);
    return ok || recover(l, err);
}

bool lane_work(struct lane *l, bool idle, int wait_ms, struct error *err)
{
    if (l->state != LANE_OPEN)
        return error_set(err, ERROR_RETRY, "the target is not connected");
    while (may_send(l, idle)) {
        bool waits = l->unsent->alone && l->in_flight > 0;
        TRY(send_next(l, err));
        if (waits)
            break;
    }
    return l->in_flight == 0 || collect(l, wait_ms, err);
}

bool lane_open(struct lane *l, struct checkpoint *found, struct error *err)
{
    struct applier *a = l->options.applier;
    stop_sending(l);
    TRY(a->ops->open(a, !l->claimed, found, err));
    l->claimed = true;
    drop_committed(l, found->seq);
    l->at = l->sent = *found;
    l->unsent = l->first;
    if (found->seq > l->passed) {
        l->passed = found->seq;
        l->passed_pos = found->pos;
    }
    l->state = LANE_OPEN;
    return true;
}

bool lane_retry(struct lane *l, struct error *err)
{
    check(l->state == LANE_HALTED);
    l->options.applier->ops->forget_shapes(l->options.applier);
    l->state = LANE_OPEN;
    l->sent = l->at;
    return replay(l, 1, err);
}

bool lane_move_checkpoint(struct lane *l, struct error *err)
{
    if (l->state != LANE_OPEN || l->first != NULL || l->passed <= l->at.seq)
        return true;
    struct checkpoint to = {
        .seq = l->passed, .pos = l->passed_pos, .commit_time_us = l->at.commit_time_us};
    if (send_txns(l, NULL, NULL, &to, false, err) && wait_committed(l, to.seq, err)) {
        l->at = l->sent = to;
        return true;
    }
    stop_sending(l);
    return closed(l);
}

/* ---- telling ---- */

enum lane_state lane_state(const struct lane *l) { return l->state; }

bool lane_is_busy(const struct lane *l) { return l->first != NULL; }

void lane_applied(const struct lane *l, uint64_t *seq, struct position *pos)
{
    *seq = l->passed;
    *pos = l->passed_pos;
}

bool lane_durable(struct lane *l, uint64_t *seq, struct error *err)
{
    struct applier *a = l->options.applier;
    return a->ops->flushed(a, l->at.seq, seq, err);
}

int64_t lane_oldest_us(const struct lane *l)
{
    return l->first == NULL ? 0 : l->first->first->commit_time_us;
}

uint64_t lane_held(const struct lane *l) { return l->held; }
