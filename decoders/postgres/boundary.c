/* The order in which relations were sent matters: of two descriptions of a table, one told to a
 * transaction that is still open and one to others, the later one holds once all have
 * committed. So each is numbered, and a preface gives them in that order. */
#include "decoders/postgres/boundary.h"

#include <stdlib.h>

#include "decoders/postgres/pgoutput.h"
#include "engine/base/map.h"
#include "engine/base/writer.h"

/* A Relation message, as it belongs into a preface. */
struct kept {
    size_t len;
    uint32_t id;
    uint64_t order;
    uint8_t body[];
};

struct open_stream {
    uint64_t xid;
    struct map kept; /* By relation id. */
};

struct boundary {
    bool in_transaction;
    struct open_stream *current;
    struct map kept;
    struct map streams;   /* By top xid. */
    uint64_t orders;      /* Relation messages seen. */
    int64_t committed_us; /* See boundary_committed_us(). */
};

struct boundary *boundary_new(void)
{
    struct boundary *b = calloc(1, sizeof *b);
    check(b != NULL);
    return b;
}

static void kept_release(struct map *kept)
{
    size_t at = 0;
    for (struct kept *k; (k = map_next(kept, &at)) != NULL;)
        free(k);
    map_release(kept);
}

static void stream_free(struct open_stream *s)
{
    if (s == NULL)
        return;
    kept_release(&s->kept);
    free(s);
}

void boundary_reset(struct boundary *b)
{
    size_t at = 0;
    for (struct open_stream *s; (s = map_next(&b->streams, &at)) != NULL;)
        stream_free(s);
    map_release(&b->streams);
    kept_release(&b->kept);
    b->in_transaction = false;
    b->current = NULL;
}

void boundary_free(struct boundary *b)
{
    if (b == NULL)
        return;
    boundary_reset(b);
    free(b);
}

/* ---- relations ---- */

static void keep(struct map *map, const struct kept *like, struct bytes head,
                 struct bytes message)
{
    struct kept *k = malloc(sizeof *k + head.len + message.len);
    check(k != NULL);
    k->id = like->id;
    k->order = like->order;
    k->len = head.len + message.len;
    if (head.len > 0)
        memcpy(k->body, head.data, head.len);
    memcpy(k->body + head.len, message.data, message.len);
    free(map_remove(map, k->id));
    map_put(map, k->id, k);
}

/* r stands behind the tag. */
static void see_relation(struct boundary *b, struct reader *r, struct bytes message)
{
    if (b->current != NULL)
        (void)reader_u32be(r); /* The part that sent it. */
    struct kept k = {.id = reader_u32be(r), .order = ++b->orders};
    if (r->failed)
        return;
    if (b->current == NULL) {
        keep(&b->kept, &k, (struct bytes){0}, message);
        return;
    }
    struct writer head = {0};
    writer_u8(&head, PREFACE_STREAMED);
    writer_u32be(&head, (uint32_t)b->current->xid);
    keep(&b->current->kept, &k, writer_view(&head), message);
    writer_release(&head);
}

/* The relations of a committed stream hold for all from now on, unless a later message said
 * otherwise. Theirs carry a head of ours (5 bytes) and, behind the tag, the sender (4 bytes):
 * neither belongs into the message of a whole transaction. */
static void promote(struct boundary *b, const struct open_stream *s)
{
    enum { HEAD = 5, SENDER = 4 };
    size_t at = 0;
    for (const struct kept *k; (k = map_next(&s->kept, &at)) != NULL;) {
        const struct kept *known = map_get(&b->kept, k->id);
        if (known != NULL && known->order > k->order)
            continue;
        struct bytes tag = {k->body + HEAD, 1};
        struct bytes rest = {k->body + HEAD + 1 + SENDER, k->len - HEAD - 1 - SENDER};
        keep(&b->kept, k, tag, rest);
    }
}

/* ---- messages ---- */

/* Takes the stream out; the pieces of a sane server's streams have ended by now. */
static struct open_stream *take_stream(struct boundary *b, uint64_t xid)
{
    struct open_stream *s = map_remove(&b->streams, xid);
    if (b->current == s)
        b->current = NULL;
    return s;
}

static void see_stream_start(struct boundary *b, struct reader *r)
{
    uint64_t xid = reader_u32be(r);
    bool first = reader_u8(r) == 1;
    if (r->failed)
        return;
    if (first)
        stream_free(take_stream(b, xid));
    struct open_stream *s = map_get(&b->streams, xid);
    if (s == NULL) {
        s = calloc(1, sizeof *s);
        check(s != NULL);
        s->xid = xid;
        map_put(&b->streams, xid, s);
    }
    b->current = s;
}

static void see_stream_abort(struct boundary *b, struct reader *r)
{
    uint64_t xid = reader_u32be(r);
    uint64_t subxid = reader_u32be(r);
    if (!r->failed && xid == subxid)
        stream_free(take_stream(b, xid));
}

/* It says already when the transaction was committed. */
static void see_begin(struct boundary *b, struct reader r)
{
    b->in_transaction = true;
    (void)reader_u64be(&r);
    int64_t committed_us = (int64_t)reader_u64be(&r);
    if (!r.failed)
        b->committed_us = committed_us;
}

static uint64_t read_end(struct boundary *b, struct reader *r)
{
    (void)reader_u8(r);
    (void)reader_u64be(r);
    uint64_t end = reader_u64be(r);
    b->committed_us = (int64_t)reader_u64be(r);
    return end;
}

static uint64_t see_stream_commit(struct boundary *b, struct reader *r)
{
    uint64_t xid = reader_u32be(r);
    uint64_t end = read_end(b, r);
    struct open_stream *s = r->failed ? NULL : take_stream(b, xid);
    if (s != NULL)
        promote(b, s);
    stream_free(s);
    return end;
}

bool boundary_see(struct boundary *b, struct bytes message, uint64_t *end_lsn,
                  struct error *err)
{
    struct reader r = reader_of(message);
    *end_lsn = 0;
    uint8_t tag = reader_u8(&r);
    switch (tag) {
    case 'B': see_begin(b, r); break;
    case 'C':
        *end_lsn = read_end(b, &r);
        b->in_transaction = b->in_transaction && r.failed;
        break;
    case 'S': see_stream_start(b, &r); break;
    case 'E': b->current = NULL; break;
    case 'c': *end_lsn = see_stream_commit(b, &r); break;
    case 'A': see_stream_abort(b, &r); break;
    case 'R': see_relation(b, &r, message); break;
    default: break;
    }
    if (r.failed || ((tag == 'C' || tag == 'c') && *end_lsn == 0))
        return error_set(err, ERROR_DATA, "pgoutput message %u (%zu bytes) is cut short",
                         (unsigned)tag, message.len);
    return true;
}

bool boundary_is_inside(const struct boundary *b)
{
    return b->in_transaction || b->current != NULL;
}

int64_t boundary_committed_us(const struct boundary *b) { return b->committed_us; }

bool boundary_has_streams(const struct boundary *b) { return b->streams.count > 0; }

/* ---- preface ---- */

static size_t gather(const struct map *from, const struct kept **to)
{
    size_t at = 0;
    size_t count = 0;
    for (const struct kept *k; (k = map_next(from, &at)) != NULL;)
        to[count++] = k;
    return count;
}

static int by_order(const void *a, const void *b)
{
    uint64_t x = (*(const struct kept *const *)a)->order;
    uint64_t y = (*(const struct kept *const *)b)->order;
    return (x > y) - (x < y);
}

static void drop_list(const struct kept ***list) { free((void *)*list); }

bool boundary_preface(const struct boundary *b,
                      bool (*put)(void *context, const struct frame *frame, struct error *err),
                      void *context, struct error *err)
{
    check(!boundary_is_inside(b));
    size_t most = b->kept.count;
    size_t at = 0;
    for (const struct open_stream *s; (s = map_next(&b->streams, &at)) != NULL;)
        most += s->kept.count;
    cleanup_with(drop_list) const struct kept **all =
        (const struct kept **)calloc(most + 1, sizeof(struct kept *));
    check(all != NULL);
    size_t count = gather(&b->kept, all);
    at = 0;
    for (const struct open_stream *s; (s = map_next(&b->streams, &at)) != NULL;)
        count += gather(&s->kept, all + count);
    qsort((void *)all, count, sizeof(struct kept *), by_order);
    for (size_t i = 0; i < count; i++) {
        struct frame f = {.kind = FRAME_PREFACE, .body = {all[i]->body, all[i]->len}};
        TRY(put(context, &f, err));
    }
    return true;
}
