#include "tests/sim/memory_applier.h"

#include <stdio.h>
#include <stdlib.h>

enum { OPS_FIRST = 64 };

static struct memory_applier *applier_of(struct applier *a)
{
    return container_of(a, struct memory_applier, base);
}

/* ---- the connection ---- */

/* The server has received a part of what was sent and works it off, now or later. */
static void lose(struct memory_applier *a)
{
    struct memory_connection *c = &a->connection;
    struct memory_target *t = a->target;
    if (!a->is_open)
        return;
    a->is_open = false;
    a->seen = 0;
    size_t left = c->count - c->executed;
    size_t received = c->executed + chance_below(a->chance, (unsigned)left + 1);
    for (size_t i = received; i < c->count; i++)
        free(c->ops[i].rows);
    c->count = received;
    target_end_orphan(t);
    struct memory_connection empty = t->orphan;
    t->orphan = *c;
    *c = empty;
    t->has_orphan = true;
    if (!chance_percent(a->chance, 30))
        target_end_orphan(t);
}

static bool lost(struct memory_applier *a, struct error *err)
{
    lose(a);
    return error_set(err, ERROR_RETRY, "the connection was lost");
}

static bool is_lost(struct memory_applier *a)
{
    return chance_permille(a->chance, a->loss_permille);
}

static void forget_results(struct memory_applier *a)
{
    struct memory_connection *c = &a->connection;
    if (a->seen != c->count)
        return;
    for (size_t i = 0; i < c->count; i++)
        free(c->ops[i].rows);
    c->count = c->executed = a->seen = 0;
}

/* Takes in `results` of those that are there. */
static void take_in(struct memory_applier *a, size_t results)
{
    struct memory_connection *c = &a->connection;
    for (; results > 0 && a->seen < c->executed; results--) {
        const struct op *op = &c->ops[a->seen++];
        if (a->failure.kind != ERROR_NONE)
            continue;
        if (op->result != ERROR_NONE)
            error_set(&a->failure, op->result, "%s", op->why);
        else if (op->kind == OP_COMMIT)
            a->committed = op->to.seq;
    }
    forget_results(a);
}

static void execute(struct memory_applier *a, size_t ops)
{
    struct memory_connection *c = &a->connection;
    for (; ops > 0 && c->executed < c->count; ops--)
        target_execute(a->target, c);
}

static bool failed(const struct memory_applier *a, struct error *err)
{
    *err = a->failure;
    return false;
}

/* Time passes while a call is made. */
static bool pass_time(struct memory_applier *a, struct error *err)
{
    check(a->may_send);
    if (!a->is_open)
        return error_set(err, ERROR_RETRY, "not connected");
    if (is_lost(a))
        return lost(a, err);
    if (chance_percent(a->chance, 30))
        execute(a, chance_below(a->chance, 8));
    if (chance_percent(a->chance, 30))
        take_in(a, chance_below(a->chance, 8));
    return a->failure.kind == ERROR_NONE || failed(a, err);
}

static bool send_op(struct memory_applier *a, const struct op *op, struct error *err)
{
    struct memory_connection *c = &a->connection;
    if (c->count == c->room) {
        c->room = c->room == 0 ? OPS_FIRST : c->room * 2;
        c->ops = realloc(c->ops, c->room * sizeof *c->ops);
        check(c->ops != NULL);
    }
    c->ops[c->count++] = *op;
    return is_lost(a) ? lost(a, err) : true;
}

/* ---- the calls ---- */

static bool memory_open(struct applier *base, bool claim, struct checkpoint *found,
                        struct error *err)
{
    struct memory_applier *a = applier_of(base);
    struct memory_target *t = a->target;
    check(a->may_send);
    lose(a);
    error_clear(&a->failure);
    if (is_lost(a))
        return error_set(err, ERROR_RETRY, "cannot connect");
    if (claim) {
        target_claim(t);
        a->epoch = t->checkpoint.epoch;
    }
    *found = t->checkpoint;
    t->is_overtaken = t->has_orphan;
    if (is_lost(a))
        return error_set(err, ERROR_RETRY, "the connection was lost while it was opened");
    if (found->epoch != a->epoch) {
        a->fenced = true;
        return error_set(err, ERROR_FENCED, "another engine has taken the migration over");
    }
    a->is_open = true;
    a->committed = found->seq;
    return true;
}

static bool memory_begin(struct applier *base, uint64_t from_seq, const struct checkpoint *to,
                         bool durable, struct error *err)
{
    struct memory_applier *a = applier_of(base);
    TRY(pass_time(a, err));
    check(to->seq > from_seq);
    return send_op(a,
                   &(struct op){.kind = OP_BEGIN,
                                .epoch = a->epoch,
                                .from = from_seq,
                                .to = *to,
                                .durable = durable},
                   err);
}

/* Knows the table, as the applier does that binds a relation to it once. */
static bool bind(struct memory_applier *a, const struct relation *rel, struct error *err)
{
    const struct memory_target *t = a->target;
    unsigned table = model_table_of(rel);
    if (a->knows[rel->version])
        return true;
    if (rel->column_count > t->width[table] || t->is_broken[table])
        return error_set(err, ERROR_SCHEMA, "table %.*s lacks a column", BYTES_ARG(rel->name));
    a->knows[rel->version] = true;
    a->shape[rel->version] = t->shape[table];
    return true;
}

static bool bind_all(struct memory_applier *a, const struct relation *rel,
                     const struct change *truncate, struct error *err)
{
    TRY(bind(a, rel, err));
    for (uint32_t i = 0; truncate != NULL && i < truncate->truncated_count; i++)
        TRY(bind(a, truncate->truncated[i], err));
    return true;
}

static bool memory_apply(struct applier *base, const struct batch *batch, struct error *err)
{
    struct memory_applier *a = applier_of(base);
    TRY(pass_time(a, err));
    TRY(bind_all(a, batch->relation, batch->truncate, err));
    struct op op = {.kind = OP_ROWS,
                    .batch = batch->kind,
                    .table = (uint8_t)model_table_of(batch->relation),
                    .shape = a->shape[batch->relation->version],
                    .count = batch->kind == BATCH_TRUNCATE ? 1 : batch->count};
    check(op.count > 0);
    op.rows = calloc(op.count, sizeof *op.rows);
    check(op.rows != NULL);
    if (batch->truncate != NULL)
        op.rows[0] = model_change_of(batch->truncate);
    for (uint32_t i = 0; batch->truncate == NULL && i < batch->count; i++)
        op.rows[i] = model_change_of(&(struct change){
            .relation = batch->relation, .before = batch->before[i], .after = batch->after[i]});
    return send_op(a, &op, err);
}

static bool memory_commit(struct applier *base, uint64_t seq, struct error *err)
{
    struct memory_applier *a = applier_of(base);
    TRY(pass_time(a, err));
    return send_op(a, &(struct op){.kind = OP_COMMIT, .to.seq = seq}, err);
}

static bool memory_collect(struct applier *base, int wait_ms, uint64_t *committed,
                           struct error *err)
{
    struct memory_applier *a = applier_of(base);
    *committed = a->committed;
    if (!a->is_open)
        return error_set(err, ERROR_RETRY, "not connected");
    if (a->connection.count == 0)
        return a->failure.kind == ERROR_NONE || failed(a, err);
    if (is_lost(a))
        return lost(a, err);
    execute(a, chance_below(a->chance, 12) + (wait_ms > 0));
    take_in(a, chance_below(a->chance, 12) + (wait_ms > 0));
    *committed = a->committed;
    return a->failure.kind == ERROR_NONE || failed(a, err);
}

static bool memory_flushed(struct applier *base, uint64_t committed, uint64_t *durable,
                           struct error *err)
{
    struct memory_applier *a = applier_of(base);
    uint64_t flushed = a->target->durable.checkpoint.seq;
    if (!a->is_open || is_lost(a))
        return error_set(err, ERROR_RETRY, "not connected");
    *durable = flushed < committed ? flushed : committed;
    return true;
}

/* ---- rows ---- */

struct row_work {
    struct memory_applier *a;
    struct model_db *db;
    struct model_change c;
    enum row_mode mode;
    struct row_result *result;
};

/* A conflict is known of; in a mode that gets over it, the row may differ from now on. */
static bool conflict(struct row_work *w, const char *what, const struct model_row *row,
                     struct error *err)
{
    w->result->conflict = what;
    (void)snprintf(w->result->key, sizeof w->result->key, "id=%u", row->v[0]);
    if (w->mode == ROW_STRICT)
        return error_set(err, ERROR_CONFLICT, "table %u: %s", w->c.table, what);
    return true;
}

/* While a copy is made good, nothing is excused for ever. */
static void excuse(struct row_work *w, const struct model_row *row, uint64_t until)
{
    if (until != UINT64_MAX || !w->a->target->in_window)
        target_taint(w->a->target, w->c.table, row, until);
}

/* The row that has what this one must have, or -1. */
static int in_the_way(const struct row_work *w, const struct model_row *row, int self)
{
    int at = model_has_key(w->c.table) ? model_find(w->db, w->c.table, row) : -1;
    return at >= 0 && at != self ? at : model_clash(w->db, w->c.table, row, self);
}

/* Puts the row in the place of `self` (-1: a new one). */
static bool put_row(struct row_work *w, const struct model_row *row,
                    const struct model_row *self, const char *what, struct error *err)
{
    for (;;) {
        int own = self == NULL ? -1 : model_find(w->db, w->c.table, self);
        int other = in_the_way(w, row, own);
        if (other < 0 && own >= 0)
            w->db->tables[w->c.table].rows[own] = *row;
        else if (other < 0)
            model_add(w->db, w->c.table, row);
        if (other < 0)
            return true;
        TRY(conflict(w, what, row, err));
        excuse(w, row, UINT64_MAX);
        excuse(w, self == NULL ? row : self, UINT64_MAX);
        excuse(w, &w->db->tables[w->c.table].rows[other], UINT64_MAX);
        if (w->mode == ROW_SKIP)
            return true;
        model_remove(w->db, w->c.table, other);
    }
}

static bool complete(struct row_work *w, struct model_row *row)
{
    if (w->c.unchanged == 0)
        return true;
    int at = model_find(w->a->source, w->c.table, row);
    excuse(w, row, w->a->source_seq);
    if (at < 0)
        return false;
    for (unsigned i = 0; i < COLUMNS; i++)
        if (w->c.unchanged & 1u << i)
            row->v[i] = w->a->source->tables[w->c.table].rows[at].v[i];
    return true;
}

static bool update_row(struct row_work *w, struct error *err)
{
    int at = model_find(w->db, w->c.table, &w->c.before);
    struct model_row after = w->c.after;
    if (at >= 0) {
        struct model_row self = w->db->tables[w->c.table].rows[at];
        for (unsigned i = 0; i < COLUMNS; i++)
            if (i >= w->c.width || w->c.unchanged & 1u << i)
                after.v[i] = self.v[i];
        target_taint_moved(w->a->target, &w->c, &self, &after);
        return put_row(w, &after, &self, "update exists", err);
    }
    TRY(conflict(w, "update missing", &w->c.before, err));
    excuse(w, &w->c.before, UINT64_MAX);
    excuse(w, &after, UINT64_MAX);
    if (w->mode == ROW_SKIP || !complete(w, &after))
        return true;
    return put_row(w, &after, NULL, "insert exists", err);
}

static bool delete_row(struct row_work *w, struct error *err)
{
    int at = model_find(w->db, w->c.table, &w->c.before);
    if (at >= 0) {
        model_remove(w->db, w->c.table, at);
        return true;
    }
    TRY(conflict(w, "delete missing", &w->c.before, err));
    excuse(w, &w->c.before, UINT64_MAX);
    return true;
}

static bool one_row(struct row_work *w, const struct change *change, struct error *err)
{
    switch (change->kind) {
    case CHANGE_INSERT: return put_row(w, &w->c.after, NULL, "insert exists", err);
    case CHANGE_UPDATE: return update_row(w, err);
    case CHANGE_DELETE: return delete_row(w, err);
    case CHANGE_TRUNCATE: break;
    }
    for (unsigned table = 0; table < TABLES; table++)
        if (w->c.truncated & 1u << table)
            w->db->tables[table].count = 0;
    return true;
}

static bool memory_row(struct applier *base, const struct change *change, enum row_mode mode,
                       struct row_result *result, struct error *err)
{
    struct memory_applier *a = applier_of(base);
    struct memory_connection *c = &a->connection;
    TRY(pass_time(a, err));
    execute(a, c->count);
    take_in(a, SIZE_MAX);
    if (a->failure.kind != ERROR_NONE)
        return failed(a, err);
    check(c->in_transaction);
    TRY(bind_all(a, change->relation, change->kind == CHANGE_TRUNCATE ? change : NULL, err));
    struct row_work w = {
        .a = a, .db = &c->work, .c = model_change_of(change), .mode = mode, .result = result};
    *result = (struct row_result){0};
    if (change->kind == CHANGE_UPDATE && change->before.image == IMAGE_NONE)
        w.c.before = w.c.after;
    if (a->target->shape[w.c.table] != a->shape[change->relation->version] ||
        a->target->is_broken[w.c.table])
        return error_set(err, ERROR_SCHEMA, "the table was altered");
    TRY(one_row(&w, change, err));
    c->has_changed = true;
    c->conflicts += result->conflict != NULL && !a->target->in_window;
    return is_lost(a) ? lost(a, err) : true;
}

/* ---- ends ---- */

/* What was sent is worked off, and nobody looks: a commit among it happens. */
static void memory_rollback(struct applier *base)
{
    struct memory_applier *a = applier_of(base);
    if (!a->is_open)
        return;
    if (is_lost(a) || chance_percent(a->chance, 5)) {
        lose(a);
        return;
    }
    execute(a, a->connection.count);
    connection_end(&a->connection);
    a->seen = 0;
    error_clear(&a->failure);
}

static void memory_forget_shapes(struct applier *base)
{
    struct memory_applier *a = applier_of(base);
    memset(a->knows, 0, sizeof a->knows);
}

static void memory_close(struct applier *base)
{
    struct memory_applier *a = applier_of(base);
    lose(a);
}

static void memory_free(struct applier *base)
{
    struct memory_applier *a = applier_of(base);
    lose(a);
    connection_release(&a->connection);
}

void memory_applier_cut(struct memory_applier *a)
{
    a->is_open = false;
    a->seen = 0;
    connection_end(&a->connection);
}

static const struct applier_ops memory_ops = {
    .name = "memory",
    .open = memory_open,
    .begin = memory_begin,
    .apply = memory_apply,
    .commit = memory_commit,
    .collect = memory_collect,
    .flushed = memory_flushed,
    .apply_row = memory_row,
    .rollback = memory_rollback,
    .forget_shapes = memory_forget_shapes,
    .close = memory_close,
    .free = memory_free,
};

void memory_applier_init(struct memory_applier *a, struct memory_target *target,
                         struct chance *chance)
{
    *a = (struct memory_applier){
        .base.ops = &memory_ops, .target = target, .chance = chance, .may_send = true};
}
