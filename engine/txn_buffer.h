/* Makes whole, committed transactions of a decoder's events.
 *
 * Takes events (it is an event_sink), collects changes per transaction however interleaved,
 * drops what was aborted, and gives committed transactions in commit order. Above its memory
 * budget it spills the largest transaction to a file under `spill_path` (LZ4 blocks, XXH3);
 * spill files are never needed after a crash and are deleted at start. */
#ifndef ENGINE_TXN_BUFFER_H
#define ENGINE_TXN_BUFFER_H

#include "engine/txn.h"

struct txn_buffer;

struct txn_buffer_options {
    const char *spill_path; /* Folder, made if missing. */
    uint64_t memory_max;
    uint64_t skip_until; /* Commits with seq <= this are already on the target: dropped. */
};

must_check bool txn_buffer_new(const struct txn_buffer_options *options,
                               struct txn_buffer **out, struct error *err);
void txn_buffer_free(struct txn_buffer *b);

struct event_sink *txn_buffer_sink(struct txn_buffer *b);

/* The segment of the frames that follow: what a transaction that begins now remembers. */
void txn_buffer_at_segment(struct txn_buffer *b, uint64_t segment);

/* The next committed transaction, now the caller's (txn_free), or NULL. */
struct txn *txn_buffer_take(struct txn_buffer *b);
bool txn_buffer_is_empty(const struct txn_buffer *b); /* Nothing committed to take. */

/* The last PROGRESS boundary seen behind which nothing waits to be taken: false if none newer
 * than the last call's. */
bool txn_buffer_progress(struct txn_buffer *b, uint64_t *seq, struct position *pos);

/* The lowest first_segment of transactions that are open (begun, not committed), or
 * `otherwise`. */
uint64_t txn_buffer_oldest_segment(const struct txn_buffer *b, uint64_t otherwise);

/* Memory held in blocks by open and untaken transactions. Taken ones count until txn_free(). */
uint64_t txn_buffer_bytes(const struct txn_buffer *b);

#endif
