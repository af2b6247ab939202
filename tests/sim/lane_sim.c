/* The heart of the engine, from decoded events to commits, against a source and a target in
 * memory, with everything that can go wrong going wrong.
 *
 *   lane_sim               seeds 1 to 20000
 *   lane_sim 17            seed 17
 *   lane_sim 1 1000000     seeds from, to
 *
 * All of a life follows from its seed. What must hold at every commit: the target is in a state
 * that the source was in, but for rows that somebody else changed. What must hold after every
 * step: transactions are told as applied once and in order, what is counted is what they
 * changed, conflicts are told once each. What must hold at the end: all is applied and no
 * memory is held. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/sim/lane_sim.h"

enum {
    SEEDS = 20000,
    STEPS_MAX = 160,
    FINISH_MAX = 5000,
    BIG = 40000,
};

/* ---- trouble ---- */

static bool is_writing(const struct sim *s)
{
    return s->applier.connection.in_transaction || s->target.orphan.in_transaction;
}

/* Somebody else changes a row. */
static void tamper(struct sim *s)
{
    struct memory_target *t = &s->target;
    unsigned table = chance_below(&s->chance, TABLES);
    struct model_table *rows = &t->db.tables[table];
    if (is_writing(s) || s->window.is_open || t->checkpoint.seq < s->window.end)
        return;
    struct model_row row = {{(uint16_t)(chance_below(&s->chance, KEYS) + 1),
                             (uint16_t)(chance_below(&s->chance, KEYS) + 1), 9, 0}};
    int at = model_find(&t->db, table, &row);
    if (at < 0 && rows->count > 0 && chance_percent(&s->chance, 60))
        at = (int)chance_below(&s->chance, rows->count);
    if (at >= 0) {
        target_taint(t, table, &rows->rows[at], UINT64_MAX);
        model_remove(&t->db, table, at);
    } else if (rows->count < ROWS_MAX - 4 && model_clash(&t->db, table, &row, -1) < 0) {
        target_taint(t, table, &row, UINT64_MAX);
        model_add(&t->db, table, &row);
    }
    target_make_durable(t);
    s->is_troubled = true;
}

static void alter(struct sim *s)
{
    unsigned table = chance_below(&s->chance, TABLES);
    s->target.shape[table]++;
    s->target.is_broken[table] = chance_percent(&s->chance, 70);
    s->is_troubled = true;
}

static void refuse_commits(struct sim *s)
{
    s->target.refuses_commits = true;
    s->is_troubled = true;
}

static void claim_by_another(struct sim *s)
{
    target_end_orphan(&s->target);
    if (s->applier.connection.in_transaction)
        return;
    target_claim(&s->target);
    s->was_claimed = true;
}

static void crash(struct sim *s)
{
    target_crash(&s->target);
    memory_applier_cut(&s->applier);
    s->has_crashed = true;
}

/* A life knows some kinds of trouble, and those often. */
static void make_trouble(struct sim *s)
{
    static void (*const troubles[])(struct sim *) = {
        tamper, tamper, tamper, alter, refuse_commits, claim_by_another, crash, sim_restart,
    };
    unsigned kind = chance_below(&s->chance, array_count(troubles));
    if (chance_permille(&s->chance, s->trouble) && s->troubles & 1u << kind)
        troubles[kind](s);
}

/* ---- a life ---- */

static void open_step(struct sim *s)
{
    switch (chance_below(&s->chance, 10)) {
    case 0: sim_release(s); break;
    case 1:
        if (chance_percent(&s->chance, 30))
            sim_move_checkpoint(s);
        break;
    case 2: target_make_durable(&s->target); break;
    case 3:
    case 4:
    case 5: sim_feed(s, 1 + chance_below(&s->chance, 30)); break;
    default: sim_work(s, chance_percent(&s->chance, 50));
    }
}

static void step(struct sim *s, bool to_the_end)
{
    switch (lane_state(s->lane)) {
    case LANE_CLOSED: sim_reopen(s); break;
    case LANE_HALTED: sim_try_again(s, to_the_end || chance_percent(&s->chance, 30)); break;
    case LANE_OPEN:
        if (!to_the_end) {
            open_step(s);
            break;
        }
        target_make_durable(&s->target);
        sim_feed(s, 30);
        sim_work(s, true);
        break;
    }
    sim_close_window(s);
    sim_check_told(s);
}

static bool is_idle(const struct sim *s)
{
    return lane_state(s->lane) == LANE_OPEN && s->next_event == s->source.event_count &&
           !lane_is_busy(s->lane);
}

/* A lane that has nothing to send does not notice that its target is gone, or another's. */
static void drain(struct sim *s)
{
    for (unsigned n = 0; !is_idle(s) || s->window.is_open; n++) {
        ensure(n < FINISH_MAX, "it does not come to an end");
        if (is_idle(s) && (s->has_crashed || s->was_claimed))
            sim_restart(s);
        step(s, true);
    }
}

static void finish(struct sim *s)
{
    s->applier.loss_permille = 0;
    s->target.failure_permille = 0;
    drain(s);
    sim_move_checkpoint(s);
    drain(s);
    if (s->was_claimed || s->has_crashed)
        sim_restart(s);
    drain(s);
    target_end_orphan(&s->target);
    sim_move_checkpoint(s);
    uint64_t last = s->source.last_seq;
    uint64_t seq;
    struct position pos;
    lane_applied(s->lane, &seq, &pos);
    ensure(seq == last && strcmp(pos.text, source_position(last).text) == 0,
           "ends at %" PRIu64 " instead of %" PRIu64, seq, last);
    ensure(s->target.checkpoint.seq == last, "the checkpoint does not follow");
    ensure(!s->window.is_open, "the window is still open");
    sim_same_state(s);
    ensure(s->applied <= last, "applied what was not there");
    while (s->applied++ < last)
        ensure(s->source.committed[s->applied] == NULL, "%" PRIu64 " is missing", s->applied);
    ensure(s->conflicts == s->target.conflicts || s->target.late_commits > 0,
           "%" PRIu64 " conflicts told of %" PRIu64, s->conflicts, s->target.conflicts);
    ensure(txn_buffer_bytes(s->buffer) == 0 && lane_held(s->lane) == 0, "memory is held");
}

/* Some tables as a copy leaves them: each row from one of two states. */
static void copy_initially(struct sim *s)
{
    struct window *w = &s->window;
    uint64_t half = s->source.last_seq / 2;
    *w = (struct window){.is_open = true};
    for (unsigned table = 0; table < TABLES; table++) {
        bool mixed = table == PAIRS || table == BLOBS;
        w->first[table] = chance_below(&s->chance, (unsigned)half + 1);
        w->last[table] = w->first[table];
        if (mixed)
            w->last[table] += chance_below(&s->chance, (unsigned)half);
        w->end = w->last[table] > w->end ? w->last[table] : w->end;
        for (unsigned part = 0; part < 2; part++) {
            uint64_t seq = part == 0 ? w->first[table] : w->last[table];
            const struct model_table *from = &s->source.states[seq].tables[table];
            for (unsigned i = 0; i < from->count; i++)
                if (!mixed ? part == 0 : from->rows[i].v[0] % 2 == part)
                    model_add(&s->target.db, table, &from->rows[i]);
        }
    }
    memset(s->target.width, COLUMNS, sizeof s->target.width);
    s->target.in_window = true;
}

static void be_born(struct sim *s)
{
    static const uint64_t group_bytes[] = {1, 300, 1 << 20};
    struct chance *c = &s->chance;
    bool big = chance_percent(c, 4);
    bool copied = chance_percent(c, 30);
    struct source_options options = {.is_copied = copied,
                                     .transactions = 3 + chance_below(c, 18),
                                     .big = big ? BIG : 0,
                                     .reshapes = !copied && chance_percent(c, 40)};
    source_make(&s->source, &options, c);
    target_init(&s->target, c);
    s->target.context = s;
    s->target.committed = sim_on_committed;
    s->target.failure_permille = chance_percent(c, 40) ? chance_below(c, 30) : 0;
    s->applier.loss_permille = chance_percent(c, 60) ? chance_below(c, 60) : 0;
    s->trouble = chance_percent(c, 70) ? chance_below(c, 200) : 0;
    s->troubles = chance_below(c, 256) & chance_below(c, 256);
    s->mode = (enum row_mode)chance_below(c, 3);
    s->memory_max = big ? 1 : 1 << 20;
    s->group_bytes_max = group_bytes[chance_below(c, array_count(group_bytes))];
    s->is_troubled = options.reshapes;
    s->judge.judge = sim_judge;
    if (copied)
        copy_initially(s);
    else
        s->target.db = s->source.states[0];
    s->target.checkpoint.pos = source_position(0);
    target_make_durable(&s->target);
}

static void live(struct sim *s, uint64_t seed)
{
    struct memory_source kept = s->source;
    char folder[sizeof s->folder];
    memcpy(folder, s->folder, sizeof folder);
    bool printed = s->is_printed;
    *s = (struct sim){.seed = seed, .chance = {seed}, .is_printed = printed};
    s->source = kept;
    memcpy(s->folder, folder, sizeof folder);
    checked_seed = seed;
    be_born(s);
    if (s->is_printed)
        source_print(&s->source);
    sim_start(s);
    unsigned steps = chance_below(&s->chance, STEPS_MAX);
    for (unsigned i = 0; i < steps; i++) {
        make_trouble(s);
        step(s, false);
    }
    if (chance_percent(&s->chance, 80))
        finish(s);
    sim_stop(s);
    target_release(&s->target);
    source_clear(&s->source);
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t last = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? first : SEEDS;
    struct sim *s = calloc(1, sizeof *s);
    check(s != NULL);
    s->is_printed = argc == 2;
    (void)snprintf(s->folder, sizeof s->folder, "/tmp/teal-sim-XXXXXX");
    check(mkdtemp(s->folder) != NULL);
    for (uint64_t seed = first; seed <= last; seed++)
        live(s, seed);
    arena_clear(&s->source.arena);
    check(rmdir(s->folder) == 0);
    free(s);
    return 0;
}
