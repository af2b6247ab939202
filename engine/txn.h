/* One source transaction: what it changed, in the order it changed it.
 *
 * The changes stand serialised in blocks, so that one in memory and one spilled to disk are
 * read alike. A block is never freed or moved while the transaction lives, unless it was
 * spilled; so what a cursor gives from memory is valid until the transaction is freed, and what
 * it gives from a spilled block until the cursor moves to another block. */
#ifndef ENGINE_TXN_H
#define ENGINE_TXN_H

#include "engine/base/arena.h"
#include "engine/change.h"

struct txn_block;
struct spill;

struct txn {
    uint64_t xid;
    uint64_t seq; /* 0 until committed. */
    struct position pos;
    int64_t commit_time_us;
    uint64_t barrier;       /* Not 0: it carried our barrier of that number. */
    uint64_t first_segment; /* The spool segment its first frame stood in. */
    uint64_t bytes;         /* Of changes, serialised. */
    uint64_t change_count;
    struct txn_block *first;
    struct txn_block *last;
    struct spill *spill; /* NULL: nothing spilled. */
    struct txn *next;    /* For whoever holds it. */
};

/* Walks the changes of a transaction, as often as wanted. */
struct txn_cursor {
    const struct txn *txn;
    const struct txn_block *block;
    size_t at;
    uint8_t *loaded; /* A spilled block's content. */
    struct arena scratch;
    struct change change;
};

void txn_cursor_init(struct txn_cursor *c, const struct txn *txn);
/* The next change, valid as said above; NULL at the end. ERROR_DATA if a spilled block is
 * damaged. */
must_check bool txn_cursor_next(struct txn_cursor *c, const struct change **change,
                                struct error *err);
/* Whether the next call will invalidate what came from the current, spilled, block. */
bool txn_cursor_leaves_block(const struct txn_cursor *c);
void txn_cursor_release(struct txn_cursor *c);

void txn_free(struct txn *txn);

#endif
