/* Any bytes as a stream of records like those in tests/golden/postgres, given to the decoder
 * and to the boundary alike. Nothing crashes; whatever the decoder accepts the boundary accepts
 * too, and both agree on whether a transaction is being sent; and one that starts from the
 * preface refuses nothing the first one would take.
 *
 * Kinds are made to fit: a message is a boundary if the boundary says so. */
#include <stdlib.h>

#include "decoders/postgres/boundary.h"
#include "decoders/postgres/pgoutput.h"
#include "engine/base/map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads all that an event points to. */
struct reading {
    struct event_sink sink;
    uint64_t sum;
};

static uint64_t sum_bytes(struct bytes b)
{
    uint64_t sum = b.len;
    for (size_t i = 0; i < b.len; i++)
        sum = sum * 31 + b.data[i];
    return sum;
}

static uint64_t sum_tuple(const struct relation *rel, const struct tuple *t)
{
    uint64_t sum = 0;
    check(t->count == (t->image == IMAGE_NONE ? 0 : rel->column_count));
    for (uint16_t i = 0; i < t->count; i++)
        sum += t->datums[i].kind == DATUM_TEXT ? sum_bytes(t->datums[i].value) : 1;
    return sum;
}

static uint64_t sum_relation(const struct relation *rel)
{
    uint64_t sum = sum_bytes(rel->schema) + sum_bytes(rel->name);
    for (uint16_t i = 0; i < rel->column_count; i++)
        sum += sum_bytes(rel->columns[i].name);
    return sum;
}

static bool reading_put(struct event_sink *sink, const struct event *event, struct error *err)
{
    (void)err;
    struct reading *r = container_of(sink, struct reading, sink);
    const struct change *c = event->change;
    check((event->kind == EVENT_CHANGE) == (c != NULL));
    r->sum += sum_bytes(event->pos);
    if (c == NULL)
        return true;
    r->sum += sum_relation(c->relation) + sum_tuple(c->relation, &c->before) +
              sum_tuple(c->relation, &c->after);
    for (uint32_t i = 0; i < c->truncated_count; i++)
        r->sum += sum_relation(c->truncated[i]);
    return true;
}

struct pair {
    struct decoder *decoder;
    struct boundary *boundary;
    struct reading reading;
    bool inside; /* As the events and messages accepted so far say. */
};

/* Whether the stream stands inside a transaction behind a message that was accepted. */
static bool inside_behind(bool before, struct bytes body)
{
    switch (body.data[0]) {
    case 'B':
    case 'S': return true;
    case 'C':
    case 'E': return false;
    default: return before;
    }
}

static bool decode_preface(void *context, const struct frame *frame, struct error *err)
{
    struct pair *p = context;
    check(p->decoder->ops->decode(p->decoder, frame, &p->reading.sink, err));
    return true;
}

/* Goes on with a decoder that has only the preface. */
static void start_anew(struct pair *p)
{
    struct error err = {0};
    p->decoder->ops->free(p->decoder);
    p->decoder = pgoutput_new();
    check(boundary_preface(p->boundary, decode_preface, p, &err));
}

static void reset(struct pair *p)
{
    struct error err = {0};
    struct frame f = {.kind = FRAME_RESET};
    check(p->decoder->ops->decode(p->decoder, &f, &p->reading.sink, &err));
    boundary_reset(p->boundary);
    p->inside = false;
}

/* False once one of them has refused: a stream ends there. */
static bool message(struct pair *p, struct bytes body)
{
    struct error err = {0};
    uint64_t end = 0;
    bool seen = boundary_see(p->boundary, body, &end, &err);
    struct frame f = {.kind = end == 0 ? FRAME_DATA : FRAME_COMMIT, .body = body};
    error_clear(&err);
    if (!p->decoder->ops->decode(p->decoder, &f, &p->reading.sink, &err)) {
        check(err.kind == ERROR_DATA);
        return false;
    }
    check(seen);
    p->inside = inside_behind(p->inside, body);
    check(p->inside == boundary_is_inside(p->boundary));
    return true;
}

static bool record(struct pair *p, uint8_t kind, struct bytes body)
{
    enum { ANEW = FRAME_PREFACE };
    if (kind == FRAME_RESET)
        reset(p);
    else if (kind == ANEW && !p->inside)
        start_anew(p);
    else
        return message(p, body);
    return true;
}

/* Prefaces that no boundary made. */
static void preface_of_any_bytes(struct bytes body)
{
    struct reading reading = {.sink.put = reading_put};
    struct decoder *d = pgoutput_new();
    struct error err = {0};
    struct frame f = {.kind = FRAME_PREFACE, .body = body};
    (void)d->ops->decode(d, &f, &reading.sink, &err);
    d->ops->free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pair p = {pgoutput_new(), boundary_new(), {.sink.put = reading_put}, false};
    struct reader r = reader_of((struct bytes){data, size});
    preface_of_any_bytes((struct bytes){data, size});
    while (reader_left(&r) > 0) {
        uint8_t kind = reader_u8(&r);
        struct bytes body = reader_take(&r, reader_u32be(&r));
        if (r.failed || !record(&p, kind, body))
            break;
    }
    p.decoder->ops->free(p.decoder);
    boundary_free(p.boundary);
    return 0;
}
