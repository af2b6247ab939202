/* What must hold of a life, and when. */
#include "tests/sim/lane_sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t checked_seed;

void ensure(bool holds, const char *fmt, ...)
{
    if (holds)
        return;
    va_list args;
    va_start(args, fmt);
    (void)fprintf(stderr, "seed %" PRIu64 ": ", checked_seed);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
    abort();
}

void sim_same_state(const struct sim *s)
{
    const struct model_db *is = &s->target.db;
    const struct model_db *was = &s->source.states[s->target.checkpoint.seq];
    for (unsigned table = 0; table < TABLES; table++) {
        const struct model_table *sides[] = {&is->tables[table], &was->tables[table]};
        for (unsigned i = 0; i < 2; i++) {
            for (unsigned at = 0; at < sides[i]->count; at++) {
                const struct model_row *row = &sides[i]->rows[at];
                ensure(target_is_tainted(&s->target, table, row) ||
                           model_same_rows(sides[0], sides[1], row),
                       "at %" PRIu64 " table %u differs in row %u,%u,%u,%u of the %s",
                       s->target.checkpoint.seq, table, row->v[0], row->v[1], row->v[2],
                       row->v[3], i == 0 ? "target" : "source");
            }
        }
    }
}

void sim_on_committed(void *context)
{
    struct sim *s = context;
    ensure(s->target.checkpoint.seq <= s->boundary, "a commit of what was not read");
    if (s->target.checkpoint.seq >= s->window.end)
        sim_same_state(s);
}

static enum verdict verdict_at(const struct sim *s, uint64_t seq, unsigned table)
{
    if (!s->window.is_open || seq > s->window.last[table])
        return VERDICT_APPLY;
    return seq <= s->window.first[table] ? VERDICT_PASS : VERDICT_ENFORCE;
}

enum verdict sim_judge(struct judge *judge, const struct txn *txn, const struct relation *rel)
{
    const struct sim *s = container_of(judge, struct sim, judge);
    uint64_t seq = 1;
    while (s->source.committed[seq] == NULL || s->source.committed[seq]->xid != txn->xid)
        ensure(seq++ < s->source.last_seq, "judged: unknown transaction %" PRIu64, txn->xid);
    return verdict_at(s, seq, model_table_of(rel));
}

/* Under which relation a change is counted; NULL: under none. */
static const struct relation *counted_as(const struct sim *s, uint64_t seq,
                                         const struct change *change)
{
    const struct relation *counted = NULL;
    if (change->kind != CHANGE_TRUNCATE) {
        unsigned table = model_table_of(change->relation);
        return verdict_at(s, seq, table) == VERDICT_APPLY ? change->relation : NULL;
    }
    for (uint32_t i = change->truncated_count; i-- > 0;) {
        enum verdict v = verdict_at(s, seq, model_table_of(change->truncated[i]));
        if (v == VERDICT_ENFORCE)
            return NULL;
        counted = v == VERDICT_APPLY ? change->truncated[i] : counted;
    }
    return counted;
}

void sim_on_applied(void *context, const struct txn *txn)
{
    struct sim *s = context;
    ensure(txn->seq > s->applied && txn->seq <= s->boundary, "applied out of order");
    while (++s->applied < txn->seq)
        ensure(s->source.committed[s->applied] == NULL, "%" PRIu64 " was left out", s->applied);
    const struct source_txn *t = s->source.committed[txn->seq];
    ensure(t != NULL && t->xid == txn->xid && t->barrier == txn->barrier, "applied another");
    ensure(txn->change_count == t->change_count, "it has lost changes");
    ensure(s->target.highest >= txn->seq || (t->change_count == 0 && t->barrier == 0),
           "%" PRIu64 " is told as applied and was not", txn->seq);
    ensure(t->barrier == 0 || s->target.durable.checkpoint.seq >= txn->seq,
           "barrier %" PRIu64 " is not durable", t->barrier);
    for (unsigned i = 0; i < t->change_count; i++) {
        const struct relation *rel = counted_as(s, txn->seq, t->changes[i]);
        if (rel != NULL)
            s->expected[rel->version]++;
    }
}

void sim_on_counted(void *context, const struct relation *rel, uint64_t changes)
{
    struct sim *s = context;
    ensure(changes > 0, "counted nothing");
    s->counted[rel->version] += changes;
}

void sim_on_conflict(void *context, const struct relation *rel, const struct row_result *result)
{
    struct sim *s = context;
    ensure(rel->role == ROLE_USER && result->conflict != NULL && s->mode != ROW_STRICT,
           "a conflict that is none");
    s->conflicts++;
}

void sim_check_told(const struct sim *s)
{
    for (unsigned v = 0; v < VERSIONS_MAX; v++)
        ensure(s->counted[v] == s->expected[v],
               "version %u: %" PRIu64 " changes counted, %" PRIu64 " applied", v, s->counted[v],
               s->expected[v]);
    ensure(s->conflicts <= s->target.conflicts, "conflicts told twice or too early");
}

/* ---- failures ---- */

/* The first transaction that the target lacks and that could not be passed over. */
static uint64_t first_lacking(const struct sim *s)
{
    uint64_t seq = s->target.checkpoint.seq + 1;
    while (s->source.committed[seq] == NULL || (s->source.committed[seq]->change_count == 0 &&
                                                s->source.committed[seq]->barrier == 0))
        seq++;
    return seq;
}

static void check_halt(struct sim *s, const struct error *err)
{
    char named[300];
    uint64_t seq = first_lacking(s);
    (void)snprintf(named, sizeof named,
                   "transaction %" PRIu64 " at %s:", s->source.committed[seq]->xid,
                   source_position(seq).text);
    ensure(err->kind == ERROR_CONFLICT || err->kind == ERROR_SCHEMA, "halted by a %s",
           error_kind_name(err->kind));
    ensure(s->is_troubled, "halted without a reason: %s", err->text);
    ensure(strncmp(err->text, named, strlen(named)) == 0, "%s is not named, but: %s", named,
           err->text);
    s->applier.may_send = false;
}

void sim_check_failure(struct sim *s, const struct error *err)
{
    if (lane_state(s->lane) == LANE_HALTED) {
        check_halt(s, err);
        return;
    }
    ensure(lane_state(s->lane) == LANE_CLOSED, "failed and still open");
    ensure(err->kind == ERROR_RETRY, "closed by a %s: %s", error_kind_name(err->kind),
           err->text);
}
