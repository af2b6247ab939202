#include "decoders/postgres/stream.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "decoders/postgres/boundary.h"
#include "decoders/postgres/flow.h"
#include "decoders/postgres/publication.h"
#include "decoders/postgres/slot.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/postgres/pg.h"

enum {
    CONNECT_TIMEOUT_S = 10,
    HEADER = 25,              /* 'w', start, end, time: before a message. */
    SENT_AT = 17,             /* The time. */
    KEEPALIVE = 18,           /* 'k', end, time, reply requested. */
    STATUS_AFTER_US = 100000, /* News are told no more often. */
    STATUS_EVERY_US = 5000000,
    PROGRESS_EVERY_US = 100000, /* Keepalives that become frames. */
};

#define EPOCH_2000_US INT64_C(946684800000000)

struct stream {
    struct source base;
    const char *conninfo;
    const char *name;
    bool streaming;
    char slot[64];
    char publication[64];
    char system_id[32];
    PGconn *pg;
    struct boundary *boundary;
    char *buffer;        /* The message last read, libpq's. */
    char position[20];   /* Its position as text, if it was a boundary. */
    uint64_t last;       /* The last boundary given. */
    int64_t progress_at; /* When the last FRAME_PROGRESS was given. */
    uint64_t received;   /* What we told the server last, or will tell next. */
    uint64_t durable;
    uint64_t applied;
    bool news; /* Those moved since. */
    bool must_reply;
    bool wants_reply;
    int64_t status_at;
    int64_t sent_us; /* When the last message was, by the source: microseconds since 2000. */
    struct flow flow;
    uint32_t timeline; /* Of the server at the last open; 0: never. */
};

static struct stream *stream_of(struct source *s)
{
    return container_of(s, struct stream, base);
}

/* ---- opening ---- */

static bool ask(struct stream *s, const char *sql, PGresult **out, struct error *err)
{
    *out = PQexec(s->pg, sql);
    if (PQresultStatus(*out) != PGRES_TUPLES_OK)
        return pg_failed(s->pg, *out, err);
    return true;
}

static bool lost(struct stream *s, struct error *err) { return slot_lost_hint(s->slot, err); }

/* After a failover the new timeline must have branched off behind all that we received. */
static bool check_timeline(struct stream *s, uint32_t timeline, uint64_t from,
                           struct error *err)
{
    if (s->timeline == 0 || timeline == s->timeline)
        return true;
    char sql[48];
    (void)snprintf(sql, sizeof sql, "TIMELINE_HISTORY %u", timeline);
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(ask(s, sql, &res, err));
    const char *line = PQgetvalue(res, 0, 1);
    while (line != NULL && *line != '\0') {
        unsigned id;
        char at[20];
        uint64_t branch;
        if (sscanf(line, "%u %19[0-9A-Fa-f/]", &id, at) == 2 && id == s->timeline &&
            pg_lsn_parse(at, &branch) && branch < from) {
            error_set(err, ERROR_LOST,
                      "the source failed over to timeline %u, which left timeline %u at %s, "
                      "before what was already received",
                      timeline, id, at);
            return lost(s, err);
        }
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    log_event("source.failed_over", LOG_WARN, "timeline=%u before=%u", timeline, s->timeline);
    return true;
}

static bool check_server(struct stream *s, uint64_t from, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(ask(s, "IDENTIFY_SYSTEM", &res, err));
    const char *system_id = PQgetvalue(res, 0, 0);
    if (s->system_id[0] != '\0' && strcmp(system_id, s->system_id) != 0) {
        error_set(err, ERROR_LOST,
                  "the source is another server (system identifier %s) than the one the "
                  "migration began with (%s)",
                  system_id, s->system_id);
        return lost(s, err);
    }
    uint32_t timeline = (uint32_t)pg_u64(res, 0, 1);
    TRY(slot_reaches_back(s->pg, s->slot, from, err));
    TRY(check_timeline(s, timeline, from, err));
    s->timeline = timeline;
    return true;
}

static bool is_lost(const struct error *err)
{
    return strcmp(err->sqlstate, "58P01") == 0 || strcmp(err->sqlstate, "42704") == 0 ||
           (strcmp(err->sqlstate, "55000") == 0 && strstr(err->text, "slot") != NULL);
}

/* Tables that are only ever inserted into have a publication of their own, if there are any. */
static bool publication_names(struct stream *s, PGresult **out, struct error *err)
{
    char sql[512];
    (void)snprintf(sql, sizeof sql,
                   "select string_agg(quote_ident(pubname), ',') from pg_publication "
                   "where pubname in ('%s', '%s" PG_INSERTS_SUFFIX "')",
                   s->publication, s->publication);
    TRY(ask(s, sql, out, err));
    if (!PQgetisnull(*out, 0, 0))
        return true;
    error_set(err, ERROR_LOST, "publication %s is gone from the source", s->publication);
    return lost(s, err);
}

static bool start_replication(struct stream *s, uint64_t from, struct error *err)
{
    bool streams = s->streaming && PQserverVersion(s->pg) >= 140000;
    char pos[20];
    pg_lsn_text(from, pos);
    cleanup_with(pg_result_drop) PGresult *names = NULL;
    TRY(publication_names(s, &names, err));
    cleanup_with(writer_release) struct writer sql = {0};
    writer_printf(&sql,
                  "START_REPLICATION SLOT \"%s\" LOGICAL %s (proto_version '%d', "
                  "publication_names '%s'%s)",
                  s->slot, pos, streams ? 2 : 1, PQgetvalue(names, 0, 0),
                  streams ? ", streaming 'on'" : "");
    cleanup_with(pg_result_drop) PGresult *res = PQexec(s->pg, writer_cstr(&sql));
    if (PQresultStatus(res) == PGRES_COPY_BOTH)
        return true;
    pg_failed(s->pg, res, err);
    if (is_lost(err)) {
        err->kind = ERROR_LOST;
        return lost(s, err);
    }
    return false;
}

static void stream_close(struct source *base)
{
    struct stream *s = stream_of(base);
    PQfreemem(s->buffer);
    s->buffer = NULL;
    pg_close(&s->pg);
}

static bool open_session(struct stream *s, uint64_t from, struct error *err)
{
    TRY(pg_connect(s->conninfo, PG_REPLICATION, s->name, CONNECT_TIMEOUT_S, &s->pg, err));
    TRY(check_server(s, from, err));
    TRY(start_replication(s, from, err));
    boundary_reset(s->boundary);
    flow_begin(&s->flow, PQsocket(s->pg), clock_mono_us());
    s->last = from;
    s->received = s->received > from ? s->received : from;
    /* What the reader starts from it holds already, safely: else it would not start there. */
    s->must_reply = true;
    s->wants_reply = false;
    s->progress_at = 0;
    return true;
}

static bool stream_open(struct source *base, const struct position *from, struct error *err)
{
    struct stream *s = stream_of(base);
    uint64_t lsn;
    if (!pg_lsn_parse(from->text, &lsn))
        return error_set(err, ERROR_DATA, "not a position: %s", from->text);
    stream_close(base);
    if (open_session(s, lsn, err))
        return true;
    stream_close(base);
    return false;
}

/* ---- feedback ---- */

static bool flush_out(struct stream *s, struct error *err)
{
    while (true) {
        int left = PQflush(s->pg);
        if (left < 0)
            return pg_failed(s->pg, NULL, err);
        if (left == 0)
            return true;
        struct pollfd p = {.fd = PQsocket(s->pg), .events = POLLIN | POLLOUT};
        (void)poll(&p, 1, 1000);
        if ((p.revents & POLLIN) != 0 && PQconsumeInput(s->pg) == 0)
            return pg_failed(s->pg, NULL, err);
    }
}

static bool send_status(struct stream *s, struct error *err)
{
    struct writer w = {0};
    writer_u8(&w, 'r');
    writer_u64be(&w, s->received > s->durable ? s->received : s->durable);
    writer_u64be(&w, s->durable);
    writer_u64be(&w, s->applied);
    writer_u64be(&w, (uint64_t)(clock_wall_us() - EPOCH_2000_US));
    writer_u8(&w, s->wants_reply);
    bool sent = PQputCopyData(s->pg, (const char *)w.data, (int)w.len) == 1;
    writer_release(&w);
    s->news = s->must_reply = s->wants_reply = false;
    s->status_at = clock_mono_us();
    return sent ? flush_out(s, err) : pg_failed(s->pg, NULL, err);
}

static void advance(struct stream *s, uint64_t *known, const struct position *to)
{
    uint64_t lsn;
    if (to->len == 0 || !pg_lsn_parse(to->text, &lsn) || lsn <= *known)
        return;
    *known = lsn;
    s->news = true;
}

static bool stream_confirm(struct source *base, const struct confirmation *c, struct error *err)
{
    struct stream *s = stream_of(base);
    advance(s, &s->received, &c->received);
    advance(s, &s->durable, &c->durable);
    advance(s, &s->applied, &c->applied);
    if (s->pg == NULL || s->durable == 0)
        return true;
    int64_t since = clock_mono_us() - s->status_at;
    if (s->must_reply || (s->news && since >= STATUS_AFTER_US) || since >= STATUS_EVERY_US)
        return send_status(s, err);
    return true;
}

static bool stream_probe(struct source *base, struct error *err)
{
    struct stream *s = stream_of(base);
    if (s->pg == NULL || s->durable == 0)
        return true;
    s->wants_reply = true;
    return send_status(s, err);
}

/* ---- reading ---- */

static struct bytes place(struct stream *s, uint64_t lsn)
{
    s->last = lsn;
    pg_lsn_text(lsn, s->position);
    return (struct bytes){(const uint8_t *)s->position, strlen(s->position)};
}

static bool take_message(struct stream *s, struct bytes body, struct frame *frame,
                         struct error *err)
{
    uint64_t end;
    TRY(boundary_see(s->boundary, body, &end, err));
    frame->kind = end == 0 ? FRAME_DATA : FRAME_COMMIT;
    frame->body = body;
    if (end != 0)
        frame->pos = place(s, end);
    return true;
}

/* Everything that was committed before `end` has been sent, unless we are in the middle of it.
 */
static void take_keepalive(struct stream *s, struct reader *r, struct frame *frame, bool *got)
{
    uint64_t end = reader_u64be(r);
    (void)reader_u64be(r);
    bool reply = reader_u8(r) == 1;
    s->must_reply = s->must_reply || reply;
    int64_t now = clock_mono_us();
    if (boundary_is_inside(s->boundary) || end <= s->last ||
        (!reply && now - s->progress_at < PROGRESS_EVERY_US))
        return;
    s->progress_at = now;
    frame->kind = FRAME_PROGRESS;
    frame->pos = place(s, end);
    *got = true;
}

static bool take(struct stream *s, int len, struct frame *frame, bool *got, struct error *err)
{
    struct bytes all = {(const uint8_t *)s->buffer, (size_t)len};
    *frame = (struct frame){.kind = FRAME_DATA};
    if (all.len >= HEADER && all.data[0] == 'w') {
        *got = true;
        struct reader sent = reader_of((struct bytes){all.data + SENT_AT, HEADER - SENT_AT});
        s->sent_us = (int64_t)reader_u64be(&sent);
        return take_message(s, (struct bytes){all.data + HEADER, all.len - HEADER}, frame, err);
    }
    if (all.len >= KEEPALIVE && all.data[0] == 'k') {
        struct reader r = reader_of((struct bytes){all.data + 1, all.len - 1});
        take_keepalive(s, &r, frame, got);
        return true;
    }
    if (all.len > 0 && all.data[0] != 'w' && all.data[0] != 'k')
        return true; /* Newer servers may say more between messages. */
    return error_set(err, ERROR_DATA, "a replication message of %d bytes is cut short", len);
}

static bool ended(struct stream *s, int code, struct error *err)
{
    if (code == -2)
        return pg_failed(s->pg, NULL, err);
    cleanup_with(pg_result_drop) PGresult *res = PQgetResult(s->pg);
    if (PQresultStatus(res) == PGRES_FATAL_ERROR) {
        pg_failed(s->pg, res, err);
        if (is_lost(err)) {
            err->kind = ERROR_LOST;
            return lost(s, err);
        }
        if (err->kind != ERROR_CONFIG && err->kind != ERROR_SCHEMA)
            err->kind = ERROR_RETRY;
        return false;
    }
    return error_set(err, ERROR_RETRY, "the source ended the stream");
}

/* Before more is waited for. */
static void gather(struct stream *s)
{
    int64_t late_us = s->sent_us - boundary_committed_us(s->boundary);
    int64_t rest_us = flow_rest_us(&s->flow, clock_mono_us(), late_us);
    if (rest_us > 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = rest_us * 1000L}, NULL);
}

static bool stream_read(struct source *base, int wait_ms, struct frame *frame, bool *got,
                        struct error *err)
{
    struct stream *s = stream_of(base);
    *got = false;
    if (s->pg == NULL)
        return error_set(err, ERROR_RETRY, "not connected to the source");
    PQfreemem(s->buffer);
    s->buffer = NULL;
    int len = PQgetCopyData(s->pg, &s->buffer, 1);
    if (len == 0) {
        struct pollfd p = {.fd = PQsocket(s->pg), .events = POLLIN};
        if (wait_ms > 0)
            gather(s);
        if (wait_ms > 0 && poll(&p, 1, wait_ms) == 0)
            return true;
        if (PQconsumeInput(s->pg) == 0)
            return pg_failed(s->pg, NULL, err);
        len = PQgetCopyData(s->pg, &s->buffer, 1);
    }
    if (len == 0)
        return true;
    if (len < 0)
        return ended(s, len, err);
    flow_note(&s->flow, (size_t)len);
    return take(s, len, frame, got, err);
}

static bool stream_preface(struct source *base,
                           bool (*put)(void *context, const struct frame *frame,
                                       struct error *err),
                           void *context, struct error *err)
{
    return boundary_preface(stream_of(base)->boundary, put, context, err);
}

static void stream_free(struct source *base)
{
    struct stream *s = stream_of(base);
    stream_close(base);
    boundary_free(s->boundary);
    free(s);
}

static const struct source_ops stream_ops = {
    .name = "pgoutput",
    .open = stream_open,
    .read = stream_read,
    .confirm = stream_confirm,
    .probe = stream_probe,
    .preface = stream_preface,
    .close = stream_close,
    .free = stream_free,
};

struct source *pg_stream_new(const struct pg_stream_options *options)
{
    struct stream *s = calloc(1, sizeof *s);
    check(s != NULL);
    s->base.ops = &stream_ops;
    s->conninfo = options->conninfo;
    s->name = options->name;
    s->streaming = options->streaming;
    (void)snprintf(s->slot, sizeof s->slot, "%s", options->slot);
    (void)snprintf(s->publication, sizeof s->publication, "%s", options->publication);
    (void)snprintf(s->system_id, sizeof s->system_id, "%s", options->system_id);
    s->boundary = boundary_new();
    return &s->base;
}
