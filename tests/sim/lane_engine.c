/* The engine's part in a life, as simple as the engine's own is not. */
#include "tests/sim/lane_sim.h"

#include <stdio.h>

/* ---- the engine's part ---- */

static void take_transactions(struct sim *s)
{
    for (struct txn *t; (t = txn_buffer_take(s->buffer)) != NULL;)
        lane_add(s->lane, t);
    uint64_t seq;
    struct position pos;
    if (txn_buffer_progress(s->buffer, &seq, &pos))
        lane_pass(s->lane, seq, &pos);
}

void sim_feed(struct sim *s, unsigned events)
{
    struct error err = {0};
    for (; events > 0 && s->next_event < s->source.event_count && lane_has_room(s->lane);
         events--) {
        const struct event *event = &s->source.events[s->next_event];
        struct event_sink *sink = txn_buffer_sink(s->buffer);
        txn_buffer_at_segment(s->buffer, s->next_event++ / SEGMENT_EVENTS);
        ensure(sink->put(sink, event, &err), "event %zu: %s", s->next_event - 1, err.text);
        if (event->kind != EVENT_COMMIT && event->kind != EVENT_PROGRESS)
            continue;
        s->boundary = event->seq > s->boundary ? event->seq : s->boundary;
        take_transactions(s);
    }
}

void sim_stop(struct sim *s)
{
    bool lane_first = chance_percent(&s->chance, 50);
    if (lane_first && s->lane != NULL)
        lane_free(s->lane);
    txn_buffer_free(s->buffer);
    if (!lane_first && s->lane != NULL)
        lane_free(s->lane);
    s->lane = NULL;
    s->buffer = NULL;
    s->applier.base.ops->free(&s->applier.base);
}

static void reach_target(struct sim *s, struct checkpoint *found)
{
    struct error err = {0};
    while (!lane_open(s->lane, found, &err)) {
        ensure(err.kind == ERROR_RETRY, "the first opening fails: %s", err.text);
        ensure(lane_state(s->lane) == LANE_CLOSED, "not closed");
        error_clear(&err);
    }
}

void sim_start(struct sim *s)
{
    unsigned loss = s->applier.loss_permille;
    memory_applier_init(&s->applier, &s->target, &s->chance);
    s->applier.loss_permille = loss;
    s->applier.source = &s->source.states[s->source.last_seq];
    s->applier.source_seq = s->source.last_seq;
    s->lane = lane_new(&(struct lane_options){.applier = &s->applier.base,
                                              .on_conflict = s->mode,
                                              .group_bytes_max = s->group_bytes_max,
                                              .context = s,
                                              .applied = sim_on_applied,
                                              .conflict = sim_on_conflict,
                                              .counted = sim_on_counted});
    struct checkpoint found;
    struct error err = {0};
    reach_target(s, &found);
    struct txn_buffer_options options = {
        .spill_path = s->folder, .memory_max = s->memory_max, .skip_until = found.seq};
    ensure(txn_buffer_new(&options, &s->buffer, &err), "%s", err.text);
    s->applied = found.seq;
    s->conflicts = s->target.conflicts; /* What an engine had not yet told dies with it. */
    s->next_event = s->released;
    s->was_claimed = s->has_crashed = false;
    if (s->window.is_open)
        lane_set_judge(s->lane, &s->judge);
}

void sim_restart(struct sim *s)
{
    sim_stop(s);
    sim_start(s);
}

/* ---- states of the lane ---- */

void sim_reopen(struct sim *s)
{
    struct checkpoint found;
    struct error err = {0};
    if (lane_open(s->lane, &found, &err)) {
        ensure(!s->was_claimed, "not fenced");
        return;
    }
    ensure(lane_state(s->lane) == LANE_CLOSED, "not closed");
    if (err.kind == ERROR_RETRY)
        return;
    ensure((err.kind == ERROR_FENCED && s->was_claimed) ||
               (err.kind == ERROR_REWOUND && s->has_crashed),
           "%s", err.text);
    sim_restart(s);
}

/* Makes the target as it should be. */
static void mend(struct sim *s)
{
    struct memory_target *t = &s->target;
    target_end_orphan(t);
    for (unsigned table = 0; table < TABLES; table++) {
        t->shape[table]++;
        t->width[table] = COLUMNS;
        t->is_broken[table] = false;
    }
    t->refuses_commits = false;
    if (t->checkpoint.seq >= s->window.end) {
        t->db = s->source.states[t->checkpoint.seq];
        t->taint_count = 0;
        target_make_durable(t);
    }
}

void sim_try_again(struct sim *s, bool mended)
{
    struct error err = {0};
    if (mended)
        mend(s);
    else if (chance_percent(&s->chance, 50)) {
        ensure(!lane_work(s->lane, true, 0, &err), "a halted lane works");
        error_clear(&err);
        return;
    }
    s->applier.may_send = true;
    if (lane_retry(s->lane, &err)) {
        ensure(lane_state(s->lane) == LANE_OPEN, "went on, but is not open");
        return;
    }
    sim_check_failure(s, &err);
    ensure(!mended || lane_state(s->lane) == LANE_CLOSED, "mended, and still: %s", err.text);
}

void sim_work(struct sim *s, bool idle)
{
    struct error err = {0};
    if (!lane_work(s->lane, idle, chance_percent(&s->chance, 50) ? 5 : 0, &err))
        sim_check_failure(s, &err);
}

void sim_move_checkpoint(struct sim *s)
{
    struct error err = {0};
    if (!lane_move_checkpoint(s->lane, false, &err))
        sim_check_failure(s, &err);
}

/* Whether the segment that begins with that event holds only what the target durably holds and
 * nothing of a transaction that it does not. */
static bool may_forget(const struct sim *s, size_t first)
{
    if (first / SEGMENT_EVENTS >= s->mark_segment)
        return false;
    for (size_t i = first; i < first + SEGMENT_EVENTS; i++)
        if (s->source.events[i].seq > s->mark_seq)
            return false;
    return true;
}

/* As engine/apply.c does: a place, and from which segment on what follows it is told. */
void sim_release(struct sim *s)
{
    struct error err = {0};
    uint64_t durable;
    struct position pos;
    if (s->mark_seq == 0) {
        uint64_t segment = s->next_event / SEGMENT_EVENTS;
        uint64_t held = lane_oldest_segment(s->lane, segment);
        uint64_t open = txn_buffer_oldest_segment(s->buffer, segment);
        lane_applied(s->lane, &s->mark_seq, &pos);
        s->mark_segment = held < open ? held : open;
    }
    if (!lane_durable(s->lane, &durable, &err))
        return;
    ensure(durable <= s->target.durable.checkpoint.seq, "not as durable as told");
    if (s->mark_seq == 0 || durable < s->mark_seq)
        return;
    while (may_forget(s, s->released))
        s->released += SEGMENT_EVENTS;
    s->mark_seq = 0;
}

/* The copy is at its end when the target durably holds the window: it may forget what it holds
 * otherwise, and the changes would then come again without a judge. */
void sim_close_window(struct sim *s)
{
    struct error err = {0};
    uint64_t seq;
    uint64_t durable;
    struct position pos;
    lane_applied(s->lane, &seq, &pos);
    if (!s->window.is_open || seq < s->window.end || lane_is_busy(s->lane) ||
        lane_state(s->lane) != LANE_OPEN)
        return;
    sim_move_checkpoint(s);
    if (!lane_durable(s->lane, &durable, &err) || durable < s->window.end)
        return;
    lane_set_judge(s->lane, NULL);
    s->window.is_open = s->target.in_window = false;
    sim_same_state(s);
}
