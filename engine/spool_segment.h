/* The spool's files: what is in them, and how they are read, written and judged.
 *
 * A spool is a folder of segments named by a number, 20 digits: 00000000000000000001.spool.
 * Numbers grow by one. A segment begins outside of any transaction, so that whole segments may
 * be deleted. All integers are big endian.
 *
 * Segment: a header, then blocks until the end of the file.
 *
 *   offset size
 *        0    8  magic "TEALSPL1"
 *        8    4  format, 1
 *       12    4  length of this header, hash included
 *       16    8  number of the segment, as in its name
 *       24    8  seq of the last boundary before it
 *       32    8  when it was made, microseconds since 1970
 *       40    2  length of the position of that boundary; the position, text
 *              4  length of the identity; the identity, text
 *              8  XXH3-64 of all bytes before
 *
 * The header is written under another name, synced and renamed: it is whole or it is not there.
 *
 * Block: what was made durable as one unit.
 *
 *        0    4  magic "TSBK"
 *        4    4  length of the content
 *        8    4  length as stored; shorter than the content: one LZ4 block, else the content
 *       12    4  number of frames
 *       16    8  seq of the last boundary before it
 *       24    8  synced: the file was durable up to this offset when the block was written
 *       32    8  hash: XXH3-64 of the stored bytes, seeded with the XXH3-64 of the 32 bytes
 *                above, then the segment's number and the block's offset, 8 bytes each
 *
 *       40       the stored bytes
 *
 * Content: frames.
 *
 *        0    1  kind: 0 data, 1 commit, 2 progress, 3 reset, 4 preface
 *        1    4  length of the body
 *              2  kinds 1 and 2, the boundaries: length of the position; the position, text
 *                 the body
 *
 * A boundary's seq is not stored: it is one more than that of the boundary before it.
 *
 * Because the hash covers number and offset, a block is good only where it was written: bytes
 * that a frame happens to carry, or an old copy of a file, are never taken for one.
 *
 * A bad block at the end of the last segment is what a crash leaves behind and is cut off.
 * Blocks that were written together may reach the disk in any order, so good blocks may stand
 * behind it; but one whose `synced` lies beyond the bad one proves that the bad one had been
 * durable once. That is damage, never a torn tail, and is left as it is. */
#ifndef ENGINE_SPOOL_SEGMENT_H
#define ENGINE_SPOOL_SEGMENT_H

#include <limits.h>

#include "decoders/decoder.h"
#include "engine/base/writer.h"

/* A stream's files. Borrowed. */
struct segment_folder {
    const char *path;
    const char *identity;
};

/* A file that is open, or not: fd -1. */
struct segment {
    int fd;
    uint64_t number;
    uint64_t seq_before;
    struct position pos_before;
    uint64_t header_len; /* Where the blocks begin. */
    char path[PATH_MAX];
};

struct segment_block {
    uint64_t offset;
    uint64_t end; /* Of its bytes in the file. */
    uint64_t synced;
    uint64_t seq_before;
    uint32_t frames;
    uint32_t content_len;
    uint32_t stored_len;
};

/* END: the file ends here. BAD: it does not, and these are not the bytes of a block. */
enum segment_verdict { SEGMENT_GOOD, SEGMENT_END, SEGMENT_BAD };

struct segment_tail {
    uint64_t end;  /* Of the last good block. */
    uint64_t torn; /* Bytes behind it. */
    uint64_t last_seq;
    struct position last_pos;
};

/* ---- files ---- */

/* The numbers of the segments in the folder, ascending; the caller frees them. ERROR_DISK. */
must_check bool segment_list(const char *folder, uint64_t **numbers, size_t *count,
                             struct error *err);
void segment_path(char path[PATH_MAX], const char *folder, uint64_t number);

/* Makes the file of what is in number, seq_before and pos_before, durably, and opens it. */
must_check bool segment_create(const struct segment_folder *f, struct segment *g,
                               struct error *err);

/* Opens and reads the header. ERROR_LOST if that is damaged, of another stream, another number
 * or a format we do not know. */
must_check bool segment_open(const struct segment_folder *f, uint64_t number, bool writable,
                             struct segment *g, struct error *err);

/* What segment_open() does with a file that is open: fills all but fd, number and path. */
must_check bool segment_load(struct segment *g, const char *identity, struct error *err);
void segment_close(struct segment *g);

/* Finds the end and what may have been torn behind it. ERROR_LOST on damage before the tail. */
must_check bool segment_scan(const struct segment *g, struct segment_tail *tail,
                             struct error *err);

/* Shortens the file durably. */
must_check bool segment_cut(const struct segment *g, uint64_t end, struct error *err);

/* ---- blocks ---- */

/* Replaces `out` by header and stored bytes. Takes offset, synced, seq_before and frames from
 * `b` and fills in the rest. */
void segment_pack(uint64_t number, struct bytes content, struct segment_block *b,
                  struct writer *out);

/* Replaces `content` by the frames of the block at b->offset. ERROR_DISK if the disk does not
 * give the bytes; what the bytes are is the verdict. `content` means something only if GOOD:
 * the frames have then been walked once and are whole. */
must_check bool segment_read(const struct segment *g, struct segment_block *b,
                             struct writer *content, enum segment_verdict *verdict,
                             struct error *err);

/* ---- frames ---- */

enum { SEGMENT_CONTENT_MAX = 0x7e000000 }; /* What LZ4 takes. */

static inline bool segment_is_boundary(enum frame_kind kind)
{
    return kind == FRAME_COMMIT || kind == FRAME_PROGRESS;
}

/* Bytes that `frame` takes in a block. */
static inline size_t segment_frame_size(const struct frame *frame)
{
    return 5 + (segment_is_boundary(frame->kind) ? 2 + frame->pos.len : 0) + frame->body.len;
}

/* Writes segment_frame_size() bytes. */
void segment_put_frame(uint8_t *at, const struct frame *frame);

/* Takes the next frame off the content; seq is left alone. False if there is none. */
must_check bool segment_take_frame(struct reader *r, struct frame *frame);

#endif
