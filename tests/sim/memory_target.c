#include "tests/sim/memory_target.h"

#include <stdlib.h>

void target_init(struct memory_target *t, struct chance *chance)
{
    *t = (struct memory_target){.chance = chance};
    for (unsigned i = 0; i < TABLES; i++)
        t->width[i] = COLUMNS_FIRST;
}

void target_release(struct memory_target *t)
{
    connection_release(&t->orphan);
    t->has_orphan = false;
}

/* ---- batches ---- */

static const char *apply_insert(struct model_db *db, const struct model_change *c)
{
    if (model_has_key(c->table) && model_find(db, c->table, &c->after) >= 0)
        return "insert: key exists";
    if (model_clash(db, c->table, &c->after, -1) >= 0)
        return "insert: unique value exists";
    model_add(db, c->table, &c->after);
    return NULL;
}

static const char *apply_update(struct memory_target *t, struct model_db *db,
                                const struct model_change *c)
{
    int at = model_find(db, c->table, &c->before);
    if (at < 0)
        return "update: no row";
    struct model_row after = db->tables[c->table].rows[at];
    for (unsigned i = 0; i < c->width; i++)
        if (!(c->unchanged & 1u << i))
            after.v[i] = c->after.v[i];
    int same = model_has_key(c->table) ? model_find(db, c->table, &after) : at;
    if ((same >= 0 && same != at) || model_clash(db, c->table, &after, at) >= 0)
        return "update: unique value exists";
    target_taint_moved(t, c, &db->tables[c->table].rows[at], &after);
    db->tables[c->table].rows[at] = after;
    return NULL;
}

static const char *apply_delete(struct model_db *db, const struct model_change *c, bool absent)
{
    int at = model_find(db, c->table, &c->before);
    if (absent)
        return at >= 0 ? "absent: a row is there" : NULL;
    if (at < 0)
        return "delete: no row";
    model_remove(db, c->table, at);
    return NULL;
}

static const char *apply_truncate(struct model_db *db, const struct model_change *c)
{
    for (unsigned table = 0; table < TABLES; table++)
        if (c->truncated & 1u << table)
            db->tables[table].count = 0;
    return NULL;
}

static const char *apply_batch(struct memory_target *t, struct model_db *db,
                               const struct op *op)
{
    const char *wrong = NULL;
    for (uint32_t i = 0; wrong == NULL && i < op->count; i++) {
        const struct model_change *c = &op->rows[i];
        switch (op->batch) {
        case BATCH_INSERT: wrong = apply_insert(db, c); break;
        case BATCH_UPDATE: wrong = apply_update(t, db, c); break;
        case BATCH_DELETE: wrong = apply_delete(db, c, false); break;
        case BATCH_ABSENT: wrong = apply_delete(db, c, true); break;
        case BATCH_TRUNCATE: wrong = apply_truncate(db, c); break;
        }
    }
    return wrong;
}

/* ---- transactions ---- */

static void refuse(struct op *op, enum error_kind kind, const char *why)
{
    op->result = kind;
    op->why = why;
}

static void execute_begin(struct memory_target *t, struct memory_connection *c, struct op *op)
{
    if (&t->orphan != c)
        target_end_orphan(t);
    if (op->epoch != t->checkpoint.epoch || op->from != t->checkpoint.seq) {
        refuse(op, ERROR_RETRY, "the checkpoint is not where we left it");
        return;
    }
    c->in_transaction = true;
    c->opened = *op;
    c->work = t->db;
    c->has_changed = false;
    c->conflicts = 0;
}

static void execute_rows(struct memory_target *t, struct memory_connection *c, struct op *op)
{
    if (op->shape != t->shape[op->table] || t->is_broken[op->table]) {
        refuse(op, ERROR_SCHEMA, "the table was altered");
        return;
    }
    c->has_changed = true;
    const char *wrong = apply_batch(t, &c->work, op);
    if (wrong != NULL)
        refuse(op, ERROR_CONFLICT, wrong);
}

static void execute_commit(struct memory_target *t, struct memory_connection *c, struct op *op)
{
    if (t->refuses_commits && c->has_changed) {
        refuse(op, ERROR_CONFLICT, "a deferred constraint");
        return;
    }
    c->in_transaction = false;
    t->db = c->work;
    t->checkpoint = c->opened.to;
    t->checkpoint.epoch = c->opened.epoch;
    t->conflicts += c->conflicts;
    t->highest = t->checkpoint.seq > t->highest ? t->checkpoint.seq : t->highest;
    t->late_commits += &t->orphan == c && t->is_overtaken;
    if (c->opened.durable)
        target_make_durable(t);
    t->committed(t->context);
}

void target_execute(struct memory_target *t, struct memory_connection *c)
{
    struct op *op = &c->ops[c->executed++];
    bool fails = chance_permille(t->chance, t->failure_permille);
    if (c->is_aborted)
        refuse(op, ERROR_RETRY, "an earlier statement failed");
    else if (fails)
        refuse(op, ERROR_RETRY, "a deadlock");
    else if (op->kind == OP_BEGIN)
        execute_begin(t, c, op);
    else if (op->kind == OP_ROWS)
        execute_rows(t, c, op);
    else
        execute_commit(t, c, op);
    if (op->result == ERROR_NONE)
        return;
    c->in_transaction = false;
    c->is_aborted = op->kind != OP_COMMIT;
}

void connection_end(struct memory_connection *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->ops[i].rows);
    c->count = c->executed = 0;
    c->in_transaction = c->is_aborted = false;
}

void connection_release(struct memory_connection *c)
{
    connection_end(c);
    free(c->ops);
    *c = (struct memory_connection){0};
}

void target_end_orphan(struct memory_target *t)
{
    if (!t->has_orphan)
        return;
    t->has_orphan = false;
    while (t->orphan.executed < t->orphan.count)
        target_execute(t, &t->orphan);
    connection_end(&t->orphan);
    t->is_overtaken = false;
}

void target_claim(struct memory_target *t)
{
    target_end_orphan(t);
    t->checkpoint.epoch++;
    t->durable.checkpoint.epoch = t->checkpoint.epoch;
}

void target_crash(struct memory_target *t)
{
    connection_end(&t->orphan);
    t->has_orphan = t->is_overtaken = false;
    t->db = t->durable.db;
    t->checkpoint = t->durable.checkpoint;
}

void target_make_durable(struct memory_target *t)
{
    t->durable.db = t->db;
    t->durable.checkpoint = t->checkpoint;
}

/* ---- what may differ ---- */

bool target_is_tainted(const struct memory_target *t, unsigned table,
                       const struct model_row *row)
{
    for (size_t i = 0; i < t->taint_count; i++)
        if (t->taints[i].table == table && t->taints[i].until > t->checkpoint.seq &&
            (!model_has_key(table) || model_same_key(table, &t->taints[i].row, row)))
            return true;
    return false;
}

void target_taint(struct memory_target *t, unsigned table, const struct model_row *row,
                  uint64_t until)
{
    for (size_t i = 0; i < t->taint_count; i++) {
        struct taint *known = &t->taints[i];
        if (known->table != table ||
            (model_has_key(table) && !model_same_key(table, &known->row, row)))
            continue;
        known->until = until > known->until ? until : known->until;
        return;
    }
    check(t->taint_count < TAINTS_MAX);
    t->taints[t->taint_count++] = (struct taint){(uint8_t)table, *row, until};
}

void target_taint_moved(struct memory_target *t, const struct model_change *c,
                        const struct model_row *from, const struct model_row *to)
{
    bool keeps_values = c->unchanged != 0 || c->width < COLUMNS;
    if (keeps_values && target_is_tainted(t, c->table, from))
        target_taint(t, c->table, to, UINT64_MAX);
}
