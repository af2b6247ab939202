/* The durable buffer of frames between source and apply.
 *
 * One thread appends (the receiver), one reads (the engine), and the spool's own thread makes
 * durable what was appended. When apply keeps up, frames come from memory and the disk is only
 * written. Formats: docs/FORMATS.md. */
#ifndef ENGINE_SPOOL_H
#define ENGINE_SPOOL_H

#include "decoders/decoder.h"

struct spool;

struct spool_options {
    const char *path;       /* Folder of the segments; made if missing. */
    const char *identity;   /* Which stream this is: system id, slot, its starting point. */
    uint64_t memory_max;    /* Bytes of blocks held in memory, compressed or not. */
    uint64_t disk_max;      /* Bytes of segments on disk. */
    uint64_t segment_bytes; /* A new segment is wanted above this. 0: the default (32 MiB). */
    bool durable;           /* false: nothing on disk, memory only (ack = target). */
};

/* What a spool holds: boundaries first_seq .. last_seq without a gap; last_pos belongs to
 * last_seq. Empty: first_seq == last_seq + 1. */
struct spool_extent {
    uint64_t first_seq;
    uint64_t last_seq;
    struct position last_pos;
};

struct spool_stats {
    uint64_t memory_bytes;
    uint64_t disk_bytes;
    struct spool_extent appended;
    struct spool_extent durable; /* What a crash now would find again. */
};

/* Opens what is there, cutting a torn tail at the last good block. A folder without segments is
 * an empty spool (extent 1..0). A spool of another identity, or damage before the tail:
 * ERROR_LOST, and nothing is touched. */
must_check bool spool_open(const struct spool_options *options, struct spool **out,
                           struct error *err);
void spool_extent(struct spool *s, struct spool_extent *extent);

/* Drops all frames and starts an empty extent behind boundary `seq` at `pos`: for a spool that
 * ends before what the target already holds, and for a new one. Before any append or read. */
must_check bool spool_restart(struct spool *s, uint64_t seq, const struct position *pos,
                              struct error *err);

/* Flushes, stops the thread, frees. The frames stay. */
void spool_close(struct spool *s);

/* -- the receiver's side -- */

/* Copies the frame in and gives boundaries their seq (in frame->seq on return). *full says it
 * was not taken because memory (not durable) or disk is at its bound: confirm, wait, try again.
 * ERROR_DISK if the disk refuses; what is durable stays so. */
must_check bool spool_append(struct spool *s, struct frame *frame, bool *full,
                             struct error *err);

/* After a boundary outside of any transaction: whether the segment is long enough to begin
 * another, which spool_begin_segment() does; the source's preface is appended next. */
bool spool_wants_segment(struct spool *s);
must_check bool spool_begin_segment(struct spool *s, struct error *err);

/* -- the engine's side -- */

/* The next frame, borrowed until the next call; *got false if none came within `wait_ms`.
 * `segment` is the number of the segment it stands in (grows). ERROR_DATA on a damaged block.
 */
must_check bool spool_read(struct spool *s, int wait_ms, struct frame *frame, uint64_t *segment,
                           bool *got, struct error *err);

/* The target durably holds all up to boundary `seq`, and nothing before segment `segment` is
 * needed by an open transaction: segments that hold only such may be deleted. */
void spool_release(struct spool *s, uint64_t seq, uint64_t segment);

/* -- any thread -- */
void spool_stats(struct spool *s, struct spool_stats *stats);
/* Fills err and returns false if the disk has failed since; true otherwise. */
must_check bool spool_healthy(struct spool *s, struct error *err);

#endif
