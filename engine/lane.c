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

#include "engine/batch.h"
#include "engine/judged.h"

enum {
    IN_FLIGHT_MAX = 2,     /* Groups: one being answered while the next is being sent. */
    GROUP_TXNS_MAX = 2000, /* So that a failed group is replayed in bounded time. */
    BATCH_BYTES_MAX = 4 << 20,
    CONFLICTS_MAX = 10000,
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
    /* Made when it is first sent whole, and kept: that it was committed may be known only after
     * other attempts to send it. */
    struct tally tally;
    bool is_tallied;
};

/* A conflict that was got over, in a transaction that has not committed yet. */
struct conflict {
    const struct relation *relation;
    struct row_result result;
};

struct lane {
    struct lane_options options;
    enum lane_state state;
    bool claimed;
    struct batcher *batcher;
    struct batch_sink sink;
    struct judged judged;
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
    uint64_t beyond; /* The last boundary behind the queue: passed once that is empty. */
    struct position beyond_pos;
    struct conflict *conflicts;
    size_t conflict_count;
    size_t conflict_room;
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
    tally_clear(&g->tally);
    free(g);
}

void lane_free(struct lane *l)
{
    while (l->first != NULL) {
        struct group *next = l->first->next;
        group_free(l->first);
        l->first = next;
    }
    batcher_free(l->batcher);
    free(l->conflicts);
    judged_release(&l->judged);
    arena_clear(&l->scratch);
    free(l);
}

/* A group that was committed against appearances, in an attempt before it was cut in two, is
 * counted now. */
static void tell_tally(struct lane *l, struct group *g)
{
    if (!g->is_tallied) {
        tally_clear(&g->tally);
        for (const struct txn *t = g->first; t != NULL; t = t->next)
            judged_tally(&l->judged, t, &g->tally);
    }
    tally_tell(&g->tally, l->options.context, l->options.counted);
}

static void report_conflicts(struct lane *l)
{
    for (size_t i = 0; i < l->conflict_count; i++)
        l->options.conflict(l->options.context, l->conflicts[i].relation,
                            &l->conflicts[i].result);
    l->conflict_count = 0;
}

/* They are told when they are true: after the commit. A transaction with more of them than this
 * tells the first ones early. */
static void note_conflict(struct lane *l, const struct relation *rel,
                          const struct row_result *result)
{
    if (l->conflict_count == CONFLICTS_MAX)
        report_conflicts(l);
    if (l->conflict_count == l->conflict_room) {
        l->conflict_room = l->conflict_room == 0 ? 16 : l->conflict_room * 2;
        l->conflicts = realloc(l->conflicts, l->conflict_room * sizeof *l->conflicts);
        check(l->conflicts != NULL);
    }
    l->conflicts[l->conflict_count++] = (struct conflict){rel, *result};
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
        tell_tally(l, g);
        group_free(g);
        report_conflicts(l);
    }
    lane_pass(l, l->beyond, &l->beyond_pos);
}

void lane_set_judge(struct lane *l, struct judge *judge) { l->judged.judge = judge; }

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
    bool alone = judged_needs_enforcing(&l->judged, txn);
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
    if (seq <= l->passed)
        return;
    uint64_t *to = l->last != NULL ? &l->beyond : &l->passed;
    struct position *to_pos = l->last != NULL ? &l->beyond_pos : &l->passed_pos;
    *to = seq;
    *to_pos = *pos;
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

static bool feed_change(struct lane *l, struct group *g, const struct txn *txn,
                        const struct change *change, struct error *err)
{
    struct change judged = *change;
    if (judged_change(&l->judged, txn, &judged) == VERDICT_PASS)
        return true;
    if (!g->is_tallied)
        tally_add(&g->tally, judged.relation);
    return batcher_add(l->batcher, &judged, err);
}

/* The scratch memory is handed from transaction to transaction: the batcher looks into it, and
 * into the blocks, until it is flushed. A block that was spilled goes before that. */
static bool feed_txn(struct lane *l, struct group *g, const struct txn *txn, struct error *err)
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
             (change == NULL || feed_change(l, g, txn, change, err));
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

/* What is told of a group is told of its last attempt. */
static bool begin_group(struct lane *l, struct group *g, struct error *err)
{
    struct applier *a = l->options.applier;
    l->conflict_count = 0;
    if (!g->is_tallied)
        tally_clear(&g->tally);
    return a->ops->begin(a, l->sent.seq, &g->to, g->durable, err);
}

static bool commit_group(struct lane *l, struct group *g, struct error *err)
{
    struct applier *a = l->options.applier;
    g->is_tallied = true;
    TRY(a->ops->commit(a, g->to.seq, err));
    l->sent = g->to;
    return true;
}

/* A group without transactions moves the checkpoint alone. */
static bool send_group(struct lane *l, struct group *g, struct error *err)
{
    TRY(begin_group(l, g, err));
    for (const struct txn *t = g->first; t != NULL; t = t->next)
        TRY(feed_txn(l, g, t, err));
    return flush_batches(l, &l->scratch, err) && commit_group(l, g, err);
}

/* ---- row by row ---- */

static bool apply_rows(struct lane *l, struct group *g, struct error *err)
{
    struct applier *a = l->options.applier;
    const struct txn *txn = g->first;
    struct txn_cursor c;
    const struct change *change;
    bool ok;
    txn_cursor_init(&c, txn);
    while ((ok = txn_cursor_next(&c, &change, err)) && change != NULL) {
        struct change judged = *change;
        enum verdict v = judged_change(&l->judged, txn, &judged);
        if (v == VERDICT_PASS)
            continue;
        struct row_result result = {0};
        enum row_mode mode = v == VERDICT_ENFORCE ? ROW_OVERWRITE : l->options.on_conflict;
        if (v != VERDICT_ENFORCE && !g->is_tallied)
            tally_add(&g->tally, judged.relation);
        if (!(ok = a->ops->apply_row(a, &judged, mode, &result, err)))
            break;
        if (result.conflict != NULL && v != VERDICT_ENFORCE)
            note_conflict(l, change->relation, &result);
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

/* A group of one transaction: as a batch, and if that fails row by row. */
static bool replay_one(struct lane *l, struct group *g, struct error *err)
{
    check(g->first == g->last);
    if (!g->alone) {
        if (send_group(l, g, err) && wait_committed(l, g->to.seq, err))
            return true;
        if (!can_be_replayed(err))
            return false;
        stop_sending(l);
        error_clear(err);
    }
    TRY(begin_group(l, g, err));
    TRY(apply_rows(l, g, err));
    TRY(commit_group(l, g, err));
    return wait_committed(l, g->to.seq, err);
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
    tally_clear(&g->tally);
    g->is_tallied = false;
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
        struct group *g = l->first;
        if (replay_one(l, g, err)) {
            l->unsent = g;
            drop_committed(l, g->to.seq);
            continue;
        }
        stop_sending(l);
        if (!can_be_replayed(err))
            return closed(l);
        l->state = LANE_HALTED;
        return error_wrap(err, "transaction %" PRIu64 " at %s", g->first->xid, g->to.pos.text);
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
    if (err->kind == ERROR_SCHEMA) /* What we know of the target is out of date. */
        l->options.applier->ops->forget_shapes(l->options.applier);
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
    return idle || g != l->last || !l->filling;
}

static bool send_next(struct lane *l, struct error *err)
{
    struct group *g = l->unsent;
    if (g->alone)
        return l->in_flight > 0 || replay(l, 1, err);
    if (g == l->last)
        l->filling = false;
    if (!send_group(l, g, err))
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
    /* Commits do not wait for the target's disk, so a crash of it may undo the latest. */
    if (found->seq < l->at.seq)
        return error_set(err, ERROR_REWOUND,
                         "the target is at transaction %" PRIu64 " again, it was at %" PRIu64,
                         found->seq, l->at.seq);
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

bool lane_move_checkpoint(struct lane *l, bool durable, struct error *err)
{
    if (l->state != LANE_OPEN || l->first != NULL || l->passed <= l->at.seq)
        return true;
    struct group g = {
        .to = {.seq = l->passed, .pos = l->passed_pos, .commit_time_us = l->at.commit_time_us},
        .durable = durable};
    if (send_group(l, &g, err) && wait_committed(l, g.to.seq, err)) {
        l->at = l->sent = g.to;
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
    if (a->ops->flushed(a, l->at.seq, seq, err))
        return true;
    stop_sending(l);
    return closed(l);
}

int64_t lane_oldest_us(const struct lane *l)
{
    return l->first == NULL ? 0 : l->first->first->commit_time_us;
}

uint64_t lane_held(const struct lane *l) { return l->held; }

uint64_t lane_oldest_segment(const struct lane *l, uint64_t otherwise)
{
    uint64_t oldest = otherwise;
    for (const struct group *g = l->first; g != NULL; g = g->next)
        for (const struct txn *t = g->first; t != NULL; t = t->next)
            oldest = t->first_segment < oldest ? t->first_segment : oldest;
    return oldest;
}
