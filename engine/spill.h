/* Blocks of one transaction that did not fit into memory.
 *
 * A spill is one file that has no name from the moment it is made, so that whatever kills the
 * process leaves nothing behind. It is never read by another process: what describes a block
 * (where, how long, which hash) stays in memory, and the file holds only the blocks' bytes,
 * each as LZ4 or, where that would not make it shorter, as it is. Nothing is synced: after a
 * crash the transaction comes again from the spool. */
#ifndef ENGINE_SPILL_H
#define ENGINE_SPILL_H

#include "engine/base/error.h"
#include "engine/base/writer.h"

struct spill;

/* A block in the file: `stored_len` < `content_len` says that it is compressed. */
struct spill_block {
    uint64_t offset;
    uint64_t content_len;
    uint64_t stored_len;
    uint64_t hash; /* XXH3-64 of the stored bytes. */
};

/* Makes the folder and deletes what an engine killed in the wrong microsecond may have left in
 * it. Once, at start. ERROR_DISK. */
must_check bool spill_prepare(const char *folder, struct error *err);

/* ERROR_DISK, naming the path, if the file cannot be made. */
must_check bool spill_new(const char *folder, struct spill **out, struct error *err);
void spill_free(struct spill *s);

/* Appends a block. ERROR_DISK, naming the path, if the disk does not take it; the spill is then
 * as before the call. */
must_check bool spill_append(struct spill *s, struct bytes content, struct spill_block *block,
                             struct error *err);

/* Fills `content`, which has room for block->content_len bytes. ERROR_DATA if the bytes are not
 * those that were written, ERROR_DISK if they cannot be read. */
must_check bool spill_read(const struct spill *s, const struct spill_block *block,
                           uint8_t *content, struct error *err);

/* Forgets the blocks from `end` on: the next is appended there. */
void spill_cut(struct spill *s, uint64_t end);

/* The two halves of the above that do no I/O. spill_pack() replaces what is in `stored` and
 * leaves block->offset alone; spill_unpack() says whether `stored` is what was packed. */
void spill_pack(struct bytes content, struct writer *stored, struct spill_block *block);
must_check bool spill_unpack(struct bytes stored, const struct spill_block *block,
                             uint8_t *content);

#endif
