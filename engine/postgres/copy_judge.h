/* Which changes of the stream are in the rows that were copied. */
#ifndef ENGINE_POSTGRES_COPY_JUDGE_H
#define ENGINE_POSTGRES_COPY_JUDGE_H

#include "appliers/postgres/ledger.h"
#include "engine/base/map.h"
#include "engine/verdict.h"

/* Zeroed: empty. */
struct copy_judge {
    struct judge base;
    struct arena arena;
    struct map tables; /* By the source's oid. */
};

/* Replaces what it knew by what the ledger says. ERROR_DATA if that is damaged. */
must_check bool copy_judge_load(struct copy_judge *j, const struct ledger *ledger,
                                struct error *err);
void copy_judge_release(struct copy_judge *j);

#endif
