/* What the two halves of the spool share: spool.c (append, read) and spool_flush.c (the thread
 * that makes durable and deletes).
 *
 * Frames live in blocks, blocks in one list in the order of the stream. Three places in the
 * list move forward only: `open`, its last block, if that still takes frames; `unflushed`, the
 * first that is not settled; `unread`, the first that the reader has not taken. A block is
 * settled when the flusher has nothing more to do with it: it is durable, or, in a spool
 * without a disk, sealed. One that is both settled and taken has left the list; it dies when
 * the reader has finished it. So the list begins with a block that is one or the other or
 * neither.
 *
 * The list is always the end of the stream. To bound memory, settled blocks that the reader has
 * not reached leave at the front, and the reader is then `behind`: it reads files from `cursor`
 * until it is at `target`, where the list begins.
 *
 * Everything here is under `lock` except what is marked as one thread's own, a sealed block's
 * content, and the open block's content below its `len`: the appender writes above `len` and
 * publishes by raising it, the reader walks up to what it saw there and takes no lock. */
#ifndef ENGINE_SPOOL_INNER_H
#define ENGINE_SPOOL_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/spool.h"
#include "engine/spool_segment.h"

struct spool_block {
    struct spool_block *next;
    uint64_t segment;
    uint64_t seq_before;
    uint64_t last_seq; /* seq_before if there is no boundary in it. */
    struct position last_pos;
    uint64_t offset; /* In the file, and the end there; once durable. */
    uint64_t end;
    uint32_t frames;
    bool sealed;
    bool settled;
    bool taken;
    bool finished; /* Taken and read to its end. */
    size_t size;   /* Of data. */
    uint8_t *data; /* Never moves once taken. */
    _Atomic size_t len;
};

/* A place in the files. Offset 0 is where the segment's blocks begin. */
struct spool_place {
    uint64_t segment;
    uint64_t offset;
};

/* A segment that has not been deleted; its file may not have been made yet. */
struct spool_entry {
    uint64_t number;
    uint64_t seq_before;
    struct position pos_before;
    uint64_t bytes;   /* Settled. With a disk: the length of the file. */
    uint64_t pending; /* Of content that is not settled. */
};

struct spool {
    struct segment_folder folder; /* Both strings are ours. */
    uint64_t memory_max;
    uint64_t disk_max;
    uint64_t segment_bytes;
    size_t block_bytes;
    bool durable;

    pthread_t thread;
    bool started; /* The thread. */
    pthread_mutex_t lock;
    pthread_cond_t appended; /* For the reader. */
    pthread_cond_t work;     /* For the flusher. */
    bool reader_waits;
    bool flusher_waits;
    bool stop;

    bool ready; /* There is a place to append to. */
    uint64_t next_number;
    struct spool_entry *entries; /* Ascending without a gap. The last takes what is appended. */
    size_t entry_count;
    struct spool_extent appended_extent;
    struct spool_extent durable_extent;

    struct spool_block *head;
    struct spool_block *tail;
    struct spool_block *open;
    struct spool_block *unflushed;
    struct spool_block *unread;
    struct spool_block *spare; /* One of the usual size, to be used again. */
    uint64_t listed_bytes;     /* Of memory, in the list. */
    uint64_t held_bytes;       /* Of memory, that only the reader still holds. */
    uint64_t disk_bytes;
    uint64_t pending_bytes; /* Of content that is not settled. */

    /* The reader. */
    struct spool_block *reading;
    bool behind;
    struct spool_place cursor;
    struct spool_place target;
    size_t at;           /* The reader's own, as all below. */
    size_t limit;        /* In `reading`: there are whole frames from `at` to here. */
    uint64_t reader_seq; /* Of the last boundary given. */
    struct segment in;

    /* The flusher. */
    struct error failure; /* Why the disk refused the last time, if it did. */
    int64_t retry_at_us;
    uint64_t release_seq;
    uint64_t release_segment;
    uint64_t made;      /* Number of the newest segment whose file was made. */
    struct segment out; /* The flusher's own, as all below. */
    uint64_t out_len;   /* Durable. */
    bool out_dirty;     /* There may be bytes behind that. */
    struct writer packed;
};

/* Frames fill no more of the open block. */
void spool_seal(struct spool *s);

/* Nothing is to be written of `b`, the first in the list that is not settled. */
void spool_settle(struct spool *s, struct spool_block *b);
void spool_block_free(struct spool *s, struct spool_block *b);

/* Whether something is there that should not wait for more. */
bool spool_flush_due(const struct spool *s);

/* Whether the oldest segment may be deleted. */
bool spool_release_due(const struct spool *s);
void spool_forget_oldest(struct spool *s);

/* Begins another segment, behind the boundary. */
struct spool_entry *spool_entry_add(struct spool *s, uint64_t number, uint64_t seq_before,
                                    const struct position *pos_before);
struct spool_entry *spool_entry_of(struct spool *s, const struct spool_block *b);

/* The thread. `spool` is the struct. */
void *spool_flusher(void *spool);

#endif
