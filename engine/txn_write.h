/* How the buffer fills, cuts and spills a transaction. Everybody else only reads it (txn.h). */
#ifndef ENGINE_TXN_WRITE_H
#define ENGINE_TXN_WRITE_H

#include "engine/spill.h"
#include "engine/txn.h"

/* What the blocks of all transactions of one buffer take of memory. It outlives the buffer
 * while a transaction of it lives. */
struct txn_memory {
    uint64_t bytes;
    uint64_t holders; /* The buffer and each transaction. */
};

/* A transaction as it is allocated. */
struct txn_store {
    struct txn txn;
    struct txn_memory *memory;
    struct txn_block *unspilled;  /* The first block in memory: those before it are spilled, it
                                     and those behind it are not. NULL: none. */
    uint64_t held;                /* Its part of memory->bytes. */
    struct txn_store *prev_heavy; /* The buffer's list of what is worth spilling. */
    struct txn_store *next_heavy;
    bool is_heavy;
};

/* A place between two changes. */
struct txn_mark {
    struct txn_block *block; /* NULL: before the first change. */
    size_t at;
    uint64_t bytes;
    uint64_t change_count;
    uint64_t barrier;
};

static inline struct txn_store *txn_store_of(struct txn *txn)
{
    return container_of(txn, struct txn_store, txn);
}

struct txn *txn_new(uint64_t xid, struct txn_memory *memory);
void txn_memory_drop(struct txn_memory *memory);

/* Copies the change in. A truncate keeps only the users' tables: there must be one. */
void txn_append(struct txn *txn, const struct change *change);

/* The place behind the last change; valid until a cut to an earlier one. */
struct txn_mark txn_end(const struct txn *txn);
void txn_cut(struct txn *txn, const struct txn_mark *mark);

/* What txn_spill() would free. */
uint64_t txn_spillable(struct txn *txn);

/* Moves what is in memory to the spill, except a last block with little in it. ERROR_DISK: what
 * could not be moved is still in memory. */
must_check bool txn_spill(struct txn *txn, const char *folder, struct error *err);

#endif
