/* A table's parts were read at snapshots between its first and its last. A transaction that the
 * first sees is in every part; one that the last does not see is in none; any other is in some,
 * and which rows those are nobody knows. A table that is not in the ledger was not copied. */
#include "engine/postgres/copy_judge.h"

#include "decoders/postgres/snapshot.h"

struct judged_table {
    struct visibility first;
    struct visibility last;
};

static enum verdict judge_change(struct judge *base, const struct txn *txn,
                                 const struct relation *rel)
{
    struct copy_judge *j = container_of(base, struct copy_judge, base);
    const struct judged_table *t = map_get(&j->tables, rel->id);
    if (t == NULL)
        return VERDICT_APPLY;
    if (visibility_sees(&t->first, (uint32_t)txn->xid))
        return VERDICT_PASS;
    return visibility_sees(&t->last, (uint32_t)txn->xid) ? VERDICT_ENFORCE : VERDICT_APPLY;
}

bool copy_judge_load(struct copy_judge *j, const struct ledger *ledger, struct error *err)
{
    copy_judge_release(j);
    j->base.judge = judge_change;
    for (size_t i = 0; i < ledger->table_count; i++) {
        const struct ledger_table *t = &ledger->tables[i];
        struct judged_table *judged = arena_new(&j->arena, struct judged_table);
        if (!visibility_parse(&j->arena, t->first, &judged->first) ||
            !visibility_parse(&j->arena, t->last, &judged->last))
            return error_set(err, ERROR_DATA,
                             "teal.copy_table on the target holds a damaged snapshot of %s",
                             t->name);
        map_put(&j->tables, t->oid, judged);
    }
    return true;
}

void copy_judge_release(struct copy_judge *j)
{
    map_release(&j->tables);
    arena_clear(&j->arena);
}
