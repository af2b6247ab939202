/* A message is parsed whole before anything of it is published: a truncated or senseless one
 * yields ERROR_DATA and no event. Memory follows the bytes that are there, never a count that a
 * message claims. Everything an event points to lives in `scratch` until the next frame, except
 * relations. */
#include "decoders/postgres/pgoutput.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

#include "engine/base/arena.h"
#include "engine/base/map.h"

#define EPOCH_2000_US INT64_C(946684800000000) /* PostgreSQL counts from 2000-01-01. */

/* A transaction that is sent in pieces while it runs. */
struct stream {
    uint64_t xid;
    bool headless; /* Its first piece is not in what we read. */
    struct map relations;
};

struct pgoutput {
    struct decoder base;
    struct arena relations; /* Every version of every relation. */
    struct arena scratch;
    struct map known;       /* By relation id; whole transactions and committed streams. */
    struct map newest;      /* By relation id; the last one sent, by whatever transaction. */
    struct map streams;     /* By top xid. */
    struct stream *current; /* Between StreamStart and StreamStop. */
    uint64_t xid;           /* Between Begin and Commit; 0 outside. */
    uint32_t versions;
};

/* One message being decoded. */
struct message {
    struct pgoutput *p;
    const struct frame *frame;
    struct reader r;
    struct event_sink *sink;
    char tag;
    uint64_t xid;    /* The transaction, and ... */
    uint64_t subxid; /* ... the part of it that this message belongs to. */
};

static bool bad(const struct message *m, const char *what, struct error *err)
{
    return error_set(err, ERROR_DATA, "pgoutput message '%c' (%zu bytes): %s",
                     isprint((unsigned char)m->tag) ? m->tag : '?', m->frame->body.len, what);
}

static bool done(const struct message *m, struct error *err)
{
    return reader_done(&m->r) || bad(m, "its length is wrong", err);
}

static bool put(struct message *m, struct event *event, struct error *err)
{
    event->xid = m->xid;
    event->subxid = m->subxid;
    return m->sink->put(m->sink, event, err);
}

/* ---- streamed transactions ---- */

static void stream_drop(struct pgoutput *p, uint64_t xid)
{
    struct stream *s = map_remove(&p->streams, xid);
    if (s == NULL)
        return;
    map_release(&s->relations);
    free(s);
}

static struct stream *stream_make(struct pgoutput *p, uint64_t xid, bool headless)
{
    stream_drop(p, xid);
    struct stream *s = calloc(1, sizeof *s);
    check(s != NULL);
    s->xid = xid;
    s->headless = headless;
    map_put(&p->streams, xid, s);
    return s;
}

/* What the committed transaction knew of relations is now known to all, unless a later message
 * described the table anew: the server has forgotten then that it told this transaction. */
static void stream_promote(struct pgoutput *p, uint64_t xid)
{
    struct stream *s = map_get(&p->streams, xid);
    if (s == NULL)
        return;
    size_t at = 0;
    for (struct relation *rel; (rel = map_next(&s->relations, &at)) != NULL;) {
        const struct relation *known = map_get(&p->known, rel->id);
        if (known == NULL || known->version < rel->version)
            map_put(&p->known, rel->id, rel);
    }
    stream_drop(p, xid);
}

static void streams_clear(struct pgoutput *p)
{
    size_t at = 0;
    for (struct stream *s; (s = map_next(&p->streams, &at)) != NULL;) {
        map_release(&s->relations);
        free(s);
    }
    map_clear(&p->streams);
    p->current = NULL;
}

/* ---- relations ---- */

static struct relation *find_relation(const struct pgoutput *p, uint32_t id)
{
    struct relation *rel = p->current == NULL ? NULL : map_get(&p->current->relations, id);
    return rel != NULL ? rel : map_get(&p->known, id);
}

static bool same_shape(const struct relation *a, const struct relation *b)
{
    if (a->identity != b->identity || a->column_count != b->column_count ||
        !bytes_equal(a->schema, b->schema) || !bytes_equal(a->name, b->name))
        return false;
    for (uint16_t i = 0; i < a->column_count; i++) {
        const struct column *x = &a->columns[i];
        const struct column *y = &b->columns[i];
        if (x->type != y->type || x->typmod != y->typmod || x->in_key != y->in_key ||
            !bytes_equal(x->name, y->name))
            return false;
    }
    return true;
}

static enum identity identity_of(char setting, bool has_key)
{
    switch (setting) {
    case 'f': return IDENTITY_FULL;
    case 'd':
    case 'i': return has_key ? IDENTITY_KEY : IDENTITY_NONE;
    default: return IDENTITY_NONE;
    }
}

static enum relation_role role_of(const struct relation *rel)
{
    if (!bytes_equal(rel->schema, BYTES("teal")))
        return ROLE_USER;
    return bytes_equal(rel->name, BYTES("barrier")) ? ROLE_BARRIER : ROLE_OURS;
}

/* Into scratch. */
static bool read_relation(struct message *m, struct relation *rel, struct error *err)
{
    struct arena *a = &m->p->scratch;
    *rel = (struct relation){.id = reader_u32be(&m->r)};
    rel->schema = reader_cstr(&m->r);
    if (rel->schema.len == 0)
        rel->schema = BYTES("pg_catalog");
    rel->name = reader_cstr(&m->r);
    char setting = (char)reader_u8(&m->r);
    rel->column_count = reader_u16be(&m->r);
    enum { COLUMN_MIN = 10 }; /* Flags, an empty name, type, typmod. */
    if (m->r.failed || reader_left(&m->r) < (size_t)rel->column_count * COLUMN_MIN)
        return bad(m, "it is cut short", err);
    struct column *columns = arena_array(a, struct column, rel->column_count + 1u);
    bool has_key = false;
    for (uint16_t i = 0; i < rel->column_count; i++) {
        columns[i].in_key = (reader_u8(&m->r) & 1) != 0;
        columns[i].name = reader_cstr(&m->r);
        columns[i].type = reader_u32be(&m->r);
        columns[i].typmod = (int32_t)reader_u32be(&m->r);
        has_key = has_key || columns[i].in_key;
    }
    rel->columns = columns;
    if (strchr("dnfi", setting) == NULL || setting == '\0')
        return bad(m, "unknown replica identity", err);
    rel->identity = identity_of(setting, has_key);
    rel->role = role_of(rel);
    return done(m, err);
}

static struct relation *keep_relation(struct pgoutput *p, const struct relation *from)
{
    struct arena *a = &p->relations;
    struct relation *rel = arena_new(a, struct relation);
    struct column *columns = arena_array(a, struct column, from->column_count + 1u);
    *rel = *from;
    rel->version = ++p->versions;
    rel->schema = arena_copy(a, from->schema);
    rel->name = arena_copy(a, from->name);
    for (uint16_t i = 0; i < from->column_count; i++) {
        columns[i] = from->columns[i];
        columns[i].name = arena_copy(a, from->columns[i].name);
    }
    rel->columns = columns;
    return rel;
}

/* Compared with the last one sent, so that versions of a table grow in the order of its
 * messages. */
static bool decode_relation(struct message *m, struct stream *within, struct error *err)
{
    struct relation fresh;
    TRY(read_relation(m, &fresh, err));
    struct relation *rel = map_get(&m->p->newest, fresh.id);
    if (rel == NULL || !same_shape(rel, &fresh))
        rel = keep_relation(m->p, &fresh);
    map_put(&m->p->newest, fresh.id, rel);
    map_put(within == NULL ? &m->p->known : &within->relations, fresh.id, rel);
    return true;
}

static bool decode_preface(struct message *m, struct error *err)
{
    if (m->tag == 'R')
        return decode_relation(m, NULL, err);
    if (m->tag != PREFACE_STREAMED)
        return bad(m, "not a preface", err);
    uint64_t xid = reader_u32be(&m->r);
    if (reader_u8(&m->r) != 'R')
        return bad(m, "not a preface", err);
    (void)reader_u32be(&m->r); /* The part of the transaction that sent it. */
    if (m->r.failed)
        return bad(m, "it is cut short", err);
    struct stream *s = map_get(&m->p->streams, xid);
    if (s == NULL)
        s = stream_make(m->p, xid, true);
    return decode_relation(m, s, err);
}

/* ---- rows ---- */

static bool read_tuple(struct message *m, const struct change *c, enum image image,
                       struct tuple *out, struct error *err)
{
    uint16_t count = reader_u16be(&m->r);
    if (m->r.failed || count != c->relation->column_count)
        return bad(m, "a row with a number of columns that is not the table's", err);
    if (reader_left(&m->r) < count)
        return bad(m, "it is cut short", err);
    struct datum *datums = arena_array(&m->p->scratch, struct datum, count + 1u);
    for (uint16_t i = 0; i < count; i++) {
        switch (reader_u8(&m->r)) {
        case 'n': datums[i].kind = DATUM_NULL; break;
        case 'u':
            if (out == &c->before)
                return bad(m, "the old row is incomplete", err);
            datums[i].kind = DATUM_UNCHANGED;
            break;
        case 't':
            datums[i].kind = DATUM_TEXT;
            datums[i].value = reader_take(&m->r, reader_u32be(&m->r));
            break;
        default: return bad(m, "a value of unknown format, or cut short", err);
        }
    }
    *out = (struct tuple){.image = image, .count = count, .datums = datums};
    return !m->r.failed || bad(m, "it is cut short", err);
}

/* 'K' or 'O', if there is one. */
static bool read_before(struct message *m, struct change *c, struct error *err)
{
    if (reader_left(&m->r) == 0)
        return bad(m, "it is cut short", err);
    if (*m->r.at == 'N')
        return true;
    switch (reader_u8(&m->r)) {
    case 'K': return read_tuple(m, c, IMAGE_KEY, &c->before, err);
    case 'O': return read_tuple(m, c, IMAGE_ROW, &c->before, err);
    default: return bad(m, "unknown row image", err);
    }
}

static bool read_after(struct message *m, struct change *c, struct error *err)
{
    if (reader_u8(&m->r) != 'N')
        return bad(m, "the new row is missing", err);
    return read_tuple(m, c, IMAGE_ROW, &c->after, err);
}

/* A value that was stored out of line and did not change is not sent again. Where the before
 * image has it, it is taken from there; a key must not stay unknown. */
static bool complete_after(struct message *m, struct change *c, struct error *err)
{
    struct datum *after = (struct datum *)c->after.datums;
    for (uint16_t i = 0; i < c->after.count; i++) {
        if (after[i].kind != DATUM_UNCHANGED)
            continue;
        bool in_key = c->relation->columns[i].in_key;
        bool usable = c->before.image == IMAGE_ROW || (c->before.image == IMAGE_KEY && in_key);
        if (usable && c->before.datums[i].kind == DATUM_TEXT)
            after[i] = c->before.datums[i];
        else if (in_key && c->relation->identity == IDENTITY_KEY)
            return bad(m,
                       "a key column's value is missing: the server is older than the fixes "
                       "of February 2022 and must be updated",
                       err);
    }
    return true;
}

static bool read_row_change(struct message *m, struct change *c, struct error *err)
{
    uint32_t id = reader_u32be(&m->r);
    if (m->r.failed)
        return bad(m, "it is cut short", err);
    c->relation = find_relation(m->p, id);
    if (c->relation == NULL)
        return bad(m, "a row of a table that was never described", err);
    if (c->kind != CHANGE_INSERT)
        TRY(read_before(m, c, err));
    if (c->kind == CHANGE_DELETE && c->before.image == IMAGE_NONE)
        return bad(m, "the old row is missing", err);
    if (c->kind != CHANGE_DELETE)
        TRY(read_after(m, c, err));
    TRY(done(m, err));
    for (uint16_t i = 0; c->kind == CHANGE_INSERT && i < c->after.count; i++)
        if (c->after.datums[i].kind == DATUM_UNCHANGED)
            return bad(m, "an inserted row is incomplete", err);
    return complete_after(m, c, err);
}

static bool decode_change(struct message *m, enum change_kind kind, struct error *err)
{
    struct change c = {.kind = kind};
    TRY(read_row_change(m, &c, err));
    return put(m, &(struct event){.kind = EVENT_CHANGE, .change = &c}, err);
}

static bool decode_truncate(struct message *m, struct error *err)
{
    struct change c = {.kind = CHANGE_TRUNCATE};
    c.truncated_count = reader_u32be(&m->r);
    c.restart_identity = (reader_u8(&m->r) & 2) != 0;
    if (m->r.failed || reader_left(&m->r) != (size_t)c.truncated_count * 4 ||
        c.truncated_count == 0)
        return bad(m, "its length is wrong", err);
    const struct relation **list =
        arena_array(&m->p->scratch, const struct relation *, c.truncated_count);
    for (uint32_t i = 0; i < c.truncated_count; i++) {
        list[i] = find_relation(m->p, reader_u32be(&m->r));
        if (list[i] == NULL)
            return bad(m, "a table that was never described", err);
    }
    c.truncated = list;
    c.relation = list[0];
    TRY(done(m, err));
    return put(m, &(struct event){.kind = EVENT_CHANGE, .change = &c}, err);
}

/* ---- transactions ---- */

static bool decode_begin(struct message *m, struct error *err)
{
    (void)reader_u64be(&m->r); /* Where the commit record will be. */
    (void)reader_u64be(&m->r); /* Its time: Commit says it again. */
    uint64_t xid = reader_u32be(&m->r);
    TRY(done(m, err));
    if (m->p->xid != 0 || m->p->current != NULL || xid == 0)
        return bad(m, "a transaction begins inside another", err);
    m->p->xid = m->xid = m->subxid = xid;
    return put(m, &(struct event){.kind = EVENT_BEGIN}, err);
}

static bool read_commit(struct message *m, struct event *commit, struct error *err)
{
    (void)reader_u8(&m->r);    /* Flags: none are defined. */
    (void)reader_u64be(&m->r); /* The commit record's place. */
    (void)reader_u64be(&m->r); /* What follows it: the frame's position. */
    uint64_t time_us = reader_u64be(&m->r) + (uint64_t)EPOCH_2000_US;
    TRY(done(m, err));
    if (m->frame->kind != FRAME_COMMIT)
        return bad(m, "a commit that is not a boundary", err);
    *commit = (struct event){.kind = EVENT_COMMIT,
                             .seq = m->frame->seq,
                             .pos = m->frame->pos,
                             .commit_time_us = (int64_t)time_us};
    return true;
}

static bool decode_commit(struct message *m, struct error *err)
{
    struct event commit;
    TRY(read_commit(m, &commit, err));
    if (m->p->xid == 0)
        return bad(m, "no transaction to commit", err);
    m->xid = m->subxid = m->p->xid;
    m->p->xid = 0;
    return put(m, &commit, err);
}

/* A reader that starts behind a transaction's first piece tells the sink that there was one, by
 * a change that is nobody's. */
static bool put_headless(struct message *m, struct error *err)
{
    static const struct relation nothing = {.role = ROLE_OURS};
    struct change c = {.kind = CHANGE_INSERT, .relation = &nothing};
    return put(m, &(struct event){.kind = EVENT_CHANGE, .change = &c}, err);
}

static bool decode_stream_start(struct message *m, struct error *err)
{
    uint64_t xid = reader_u32be(&m->r);
    uint8_t first = reader_u8(&m->r);
    TRY(done(m, err));
    if (m->p->xid != 0 || m->p->current != NULL || xid == 0 || first > 1)
        return bad(m, "a piece of a transaction begins inside another", err);
    struct stream *s = map_get(&m->p->streams, xid);
    m->xid = m->subxid = xid;
    if (first == 0 && s != NULL) {
        m->p->current = s;
        return !s->headless || put_headless(m, err);
    }
    m->p->current = stream_make(m->p, xid, first == 0);
    if (first == 0)
        return put_headless(m, err);
    return put(m, &(struct event){.kind = EVENT_BEGIN}, err);
}

static bool decode_stream_stop(struct message *m, struct error *err)
{
    TRY(done(m, err));
    if (m->p->current == NULL)
        return bad(m, "no piece to end", err);
    m->p->current = NULL;
    return true;
}

static bool decode_stream_commit(struct message *m, struct error *err)
{
    m->xid = m->subxid = reader_u32be(&m->r);
    struct event commit;
    TRY(read_commit(m, &commit, err));
    if (m->p->xid != 0 || m->p->current != NULL)
        return bad(m, "it commits inside another transaction", err);
    const struct stream *s = map_get(&m->p->streams, m->xid);
    if (s == NULL || s->headless)
        TRY(put_headless(m, err));
    stream_promote(m->p, m->xid);
    return put(m, &commit, err);
}

static bool decode_stream_abort(struct message *m, struct error *err)
{
    m->xid = reader_u32be(&m->r);
    m->subxid = reader_u32be(&m->r);
    TRY(done(m, err));
    if (m->p->xid != 0 || m->p->current != NULL)
        return bad(m, "it aborts inside another transaction", err);
    if (m->xid == m->subxid)
        stream_drop(m->p, m->xid);
    return put(m, &(struct event){.kind = EVENT_ABORT}, err);
}

/* ---- what is checked and then left alone ---- */

static bool decode_origin(struct message *m, struct error *err)
{
    (void)reader_u64be(&m->r);
    (void)reader_cstr(&m->r);
    return done(m, err);
}

static bool decode_type(struct message *m, struct error *err)
{
    (void)reader_u32be(&m->r);
    (void)reader_cstr(&m->r);
    (void)reader_cstr(&m->r);
    return done(m, err);
}

static bool decode_logical_message(struct message *m, struct error *err)
{
    (void)reader_u8(&m->r);
    (void)reader_u64be(&m->r);
    (void)reader_cstr(&m->r);
    (void)reader_take(&m->r, reader_u32be(&m->r));
    return done(m, err);
}

/* ---- dispatch ---- */

static bool is_change(char tag) { return tag == 'I' || tag == 'U' || tag == 'D' || tag == 'T'; }

/* Messages that stand inside a transaction. In a streamed one each begins with the id of the
 * part that made it. */
static bool decode_inside(struct message *m, struct error *err)
{
    struct pgoutput *p = m->p;
    if (p->current != NULL) {
        m->xid = p->current->xid;
        m->subxid = reader_u32be(&m->r);
    } else if (p->xid != 0) {
        m->xid = m->subxid = p->xid;
    } else if (m->tag != 'M') {
        return bad(m, "outside of any transaction", err);
    }
    if (m->r.failed)
        return bad(m, "it is cut short", err);
    if (p->current != NULL && p->current->headless && is_change(m->tag))
        return true;
    switch (m->tag) {
    case 'R': return decode_relation(m, p->current, err);
    case 'Y': return decode_type(m, err);
    case 'M': return decode_logical_message(m, err);
    case 'I': return decode_change(m, CHANGE_INSERT, err);
    case 'U': return decode_change(m, CHANGE_UPDATE, err);
    case 'D': return decode_change(m, CHANGE_DELETE, err);
    case 'T': return decode_truncate(m, err);
    default: return bad(m, "unknown message", err);
    }
}

static bool decode_message(struct message *m, struct error *err)
{
    switch (m->tag) {
    case 'B': return decode_begin(m, err);
    case 'C': return decode_commit(m, err);
    case 'O': return decode_origin(m, err);
    case 'S': return decode_stream_start(m, err);
    case 'E': return decode_stream_stop(m, err);
    case 'c': return decode_stream_commit(m, err);
    case 'A': return decode_stream_abort(m, err);
    default: return decode_inside(m, err);
    }
}

/* A new session of the walsender sends every relation again before it is used. */
static void forget_session(struct pgoutput *p)
{
    streams_clear(p);
    map_clear(&p->known);
    p->xid = 0;
}

static bool pgoutput_decode(struct decoder *d, const struct frame *frame,
                            struct event_sink *sink, struct error *err)
{
    struct pgoutput *p = container_of(d, struct pgoutput, base);
    struct message m = {.p = p, .frame = frame, .sink = sink};
    if (frame->body.len > 0)
        m.r = reader_of(frame->body);
    arena_reset(&p->scratch);
    switch (frame->kind) {
    case FRAME_RESET:
        forget_session(p);
        return put(&m, &(struct event){.kind = EVENT_RESET}, err);
    case FRAME_PROGRESS:
        return put(
            &m, &(struct event){.kind = EVENT_PROGRESS, .seq = frame->seq, .pos = frame->pos},
            err);
    case FRAME_PREFACE: m.tag = (char)reader_u8(&m.r); return decode_preface(&m, err);
    case FRAME_DATA: m.tag = (char)reader_u8(&m.r); return decode_message(&m, err);
    case FRAME_COMMIT:
        m.tag = (char)reader_u8(&m.r);
        if (m.tag != 'C' && m.tag != 'c')
            return bad(&m, "a boundary that is not a commit", err);
        return decode_message(&m, err);
    }
    return error_set(err, ERROR_DATA, "unknown kind of frame %d", (int)frame->kind);
}

static void pgoutput_free(struct decoder *d)
{
    struct pgoutput *p = container_of(d, struct pgoutput, base);
    streams_clear(p);
    map_release(&p->streams);
    map_release(&p->known);
    map_release(&p->newest);
    arena_clear(&p->relations);
    arena_clear(&p->scratch);
    free(p);
}

static const struct decoder_ops pgoutput_ops = {
    .name = "pgoutput", .decode = pgoutput_decode, .free = pgoutput_free};

struct decoder *pgoutput_new(void)
{
    struct pgoutput *p = calloc(1, sizeof *p);
    check(p != NULL);
    p->base.ops = &pgoutput_ops;
    return &p->base;
}
