/* The initial copy: the target's tables and the rows that were there before the stream.
 *
 * Resumable: what is done is written down on the target together with the rows themselves, and
 * a copy that is opened again goes on from there. Its rows may come from several snapshots of
 * the source; the judge it gives afterwards knows which change of the stream is in which rows.
 */
#ifndef ENGINE_COPIER_H
#define ENGINE_COPIER_H

#include "engine/base/arena.h"
#include "engine/status.h"
#include "engine/verdict.h"

struct copier;

enum copy_stage {
    COPY_ROWS,   /* Tables, rows, keys: copy(). */
    COPY_FINISH, /* What needs all rows in one state: finish(). */
    COPY_DONE,
};

struct copier_ops {
    const char *name;

    /* Looks how far an earlier run got. `snapshot` is what origin_ops.create gave, or "": it is
     * no longer needed when this returns. */
    bool (*open)(struct copier *c, const char *snapshot, enum copy_stage *stage,
                 struct error *err);

    /* Up to where changes may be applied: all rows, and the keys that find them. Transient
     * failures come back as ERROR_RETRY: call again. */
    bool (*copy)(struct copier *c, struct error *err);

    /* After copy(), also of an earlier run: judges the changes up to *window_end. */
    bool (*judge)(struct copier *c, struct judge **judge, struct position *window_end,
                  struct error *err);

    /* The rest of the schema, statistics, refreshed views; nothing is applied meanwhile. */
    bool (*finish)(struct copier *c, struct error *err);

    void (*progress)(struct copier *c, struct status *out); /* From any thread. */
    void (*cancel)(struct copier *c); /* Makes what is running end soon. */
    void (*free)(struct copier *c);
};

struct copier {
    const struct copier_ops *ops;
};

#endif
