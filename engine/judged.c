#include "engine/judged.h"

#include <stdlib.h>

static enum verdict judge_truncate(struct judged *j, const struct txn *txn,
                                   struct change *change)
{
    enum verdict all = VERDICT_PASS;
    uint32_t count = 0;
    j->kept = reallocarray(j->kept, change->truncated_count, sizeof(struct relation *));
    check(j->kept != NULL);
    for (uint32_t i = 0; i < change->truncated_count; i++) {
        enum verdict v = j->judge->judge(j->judge, txn, change->truncated[i]);
        if (v == VERDICT_PASS)
            continue;
        j->kept[count++] = change->truncated[i];
        all = all == VERDICT_ENFORCE ? all : v;
    }
    change->truncated_count = count;
    change->truncated = j->kept;
    if (count > 0)
        change->relation = j->kept[0];
    return all;
}

enum verdict judged_change(struct judged *j, const struct txn *txn, struct change *change)
{
    if (j->judge == NULL)
        return VERDICT_APPLY;
    if (change->kind == CHANGE_TRUNCATE)
        return judge_truncate(j, txn, change);
    return j->judge->judge(j->judge, txn, change->relation);
}

bool judged_needs_enforcing(struct judged *j, const struct txn *txn)
{
    struct txn_cursor c;
    const struct change *change;
    struct error unread = {0};
    bool found = false;
    if (j->judge == NULL)
        return false;
    txn_cursor_init(&c, txn);
    while (!found && txn_cursor_next(&c, &change, &unread) && change != NULL) {
        struct change judged = *change;
        found = judged_change(j, txn, &judged) == VERDICT_ENFORCE;
    }
    txn_cursor_release(&c);
    return found || unread.kind != ERROR_NONE;
}

void judged_tally(struct judged *j, const struct txn *txn, struct tally *tally)
{
    struct txn_cursor c;
    const struct change *change;
    struct error unread = {0};
    txn_cursor_init(&c, txn);
    while (txn_cursor_next(&c, &change, &unread) && change != NULL) {
        struct change judged = *change;
        if (judged_change(j, txn, &judged) == VERDICT_APPLY)
            tally_add(tally, judged.relation);
    }
    txn_cursor_release(&c);
}

void judged_release(struct judged *j)
{
    free(j->kept);
    *j = (struct judged){0};
}
