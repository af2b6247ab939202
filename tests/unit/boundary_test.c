/* A reader that starts at any place between transactions, with the preface for that place, must
 * understand what follows exactly as one that has read everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "decoders/postgres/boundary.h"
#include "decoders/postgres/pgoutput.h"
#include "tests/golden/golden.h"

/* ---- every place of every stream ---- */

struct told {
    size_t frame;
    uint64_t xid;
    enum event_kind kind;
    bool top;     /* Of all the transaction, not a part. */
    bool nobodys; /* What stands for the changes of a transaction whose beginning is missing. */
    char *text;
};

struct log {
    struct event_sink sink;
    size_t frame;
    struct told *told;
    size_t count;
    size_t size;
};

static bool log_put(struct event_sink *sink, const struct event *event, struct error *err)
{
    (void)err;
    struct log *l = container_of(sink, struct log, sink);
    if (l->count == l->size) {
        l->size = l->size == 0 ? 64 : l->size * 2;
        l->told = reallocarray(l->told, l->size, sizeof *l->told);
        assert_non_null(l->told);
    }
    struct writer text = {0};
    golden_describe(&text, event, NULL);
    const struct change *c = event->change;
    l->told[l->count++] = (struct told){
        .frame = l->frame,
        .xid = event->xid,
        .kind = event->kind,
        .top = event->xid == event->subxid,
        .nobodys =
            c != NULL && c->relation->role == ROLE_OURS && c->relation->column_count == 0,
        .text = strdup(writer_cstr(&text)),
    };
    writer_release(&text);
    return true;
}

static void log_release(struct log *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->told[i].text);
    free(l->told);
}

static void decode(struct decoder *d, const struct frame *f, struct log *l)
{
    struct error err = {0};
    if (!d->ops->decode(d, f, &l->sink, &err))
        fail_msg("%s", err.text);
}

static void decode_from(struct decoder *d, const struct golden *g, size_t from, struct log *l)
{
    for (l->frame = from; l->frame < g->count; l->frame++)
        decode(d, &g->frames[l->frame], l);
}

static int here; /* What a map says of transactions that were open. */

static void find_open(const struct log *whole, size_t from, struct map *open)
{
    for (size_t i = 0; i < whole->count && whole->told[i].frame < from; i++) {
        const struct told *t = &whole->told[i];
        if (t->kind == EVENT_BEGIN)
            map_put(open, t->xid, &here);
        else if (t->kind == EVENT_COMMIT || (t->kind == EVENT_ABORT && t->top))
            (void)map_remove(open, t->xid);
    }
}

/* The next event, without the changes of transactions that were open. */
static const struct told *next_told(const struct log *l, size_t *at, const struct map *open)
{
    while (*at < l->count) {
        const struct told *t = &l->told[(*at)++];
        if (t->kind != EVENT_CHANGE || map_get(open, t->xid) == NULL)
            return t;
    }
    return NULL;
}

/* One that lacks its beginning is never given as anything but that, and always before its
 * commit. */
static void check_headless(const struct log *fresh, const struct map *open)
{
    struct map warned = {0};
    for (size_t i = 0; i < fresh->count; i++) {
        const struct told *t = &fresh->told[i];
        bool was_open = map_get(open, t->xid) != NULL;
        if (t->kind == EVENT_CHANGE) {
            assert_int_equal(t->nobodys, was_open);
            map_put(&warned, t->xid, &here);
        }
        if (t->kind == EVENT_COMMIT && was_open)
            assert_non_null(map_get(&warned, t->xid));
    }
    map_release(&warned);
}

static void compare(const struct log *whole, const struct log *fresh, size_t from)
{
    struct map open = {0};
    find_open(whole, from, &open);
    size_t a = 0;
    while (a < whole->count && whole->told[a].frame < from)
        a++;
    for (size_t b = 0;;) {
        const struct told *x = next_told(whole, &a, &open);
        const struct told *y = next_told(fresh, &b, &open);
        assert_int_equal(x == NULL, y == NULL);
        if (x == NULL)
            break;
        assert_int_equal(x->frame, y->frame);
        assert_string_equal(x->text, y->text);
    }
    check_headless(fresh, &open);
    map_release(&open);
}

struct preface {
    struct decoder *decoder;
    struct log *log;
};

static bool decode_preface(void *context, const struct frame *frame, struct error *err)
{
    (void)err;
    struct preface *p = context;
    assert_int_equal(frame->kind, FRAME_PREFACE);
    decode(p->decoder, frame, p->log);
    return true;
}

static void start_at(const struct golden *g, size_t from, const struct boundary *b,
                     const struct log *whole)
{
    struct log fresh = {.sink.put = log_put};
    struct preface p = {pgoutput_new(), &fresh};
    struct error err = {0};
    assert_true(boundary_preface(b, decode_preface, &p, &err));
    assert_int_equal(fresh.count, 0);
    decode_from(p.decoder, g, from, &fresh);
    compare(whole, &fresh, from);
    p.decoder->ops->free(p.decoder);
    log_release(&fresh);
}

static void start_everywhere(const struct golden *g)
{
    struct log whole = {.sink.put = log_put};
    struct decoder *d = pgoutput_new();
    decode_from(d, g, 0, &whole);
    d->ops->free(d);
    struct boundary *b = boundary_new();
    struct error err = {0};
    for (size_t i = 0; i < g->count; i++) {
        if (!boundary_is_inside(b))
            start_at(g, i, b, &whole);
        uint64_t end;
        assert_true(boundary_see(b, g->frames[i].body, &end, &err));
    }
    boundary_free(b);
    log_release(&whole);
}

static void a_preface_makes_up_for_all_that_was_not_read(void **state)
{
    (void)state;
    golden_each(start_everywhere);
}

/* A reader that goes on from one segment to the next is given the preface too. */
static void repeat_everywhere(const struct golden *g)
{
    struct log whole = {.sink.put = log_put};
    struct log repeated = {.sink.put = log_put};
    struct preface p = {pgoutput_new(), &repeated};
    struct decoder *d = pgoutput_new();
    struct boundary *b = boundary_new();
    struct error err = {0};
    for (size_t i = 0; i < g->count; i++) {
        if (!boundary_is_inside(b))
            assert_true(boundary_preface(b, decode_preface, &p, &err));
        uint64_t end;
        assert_true(boundary_see(b, g->frames[i].body, &end, &err));
        decode(d, &g->frames[i], &whole);
        decode(p.decoder, &g->frames[i], &repeated);
    }
    compare(&whole, &repeated, 0);
    boundary_free(b);
    d->ops->free(d);
    p.decoder->ops->free(p.decoder);
    log_release(&whole);
    log_release(&repeated);
}

static void a_preface_tells_one_that_read_everything_nothing_new(void **state)
{
    (void)state;
    golden_each(repeat_everywhere);
}

/* ---- damage ---- */

/* Rows and what follows a head are not looked at, so most of a message may be missing. */
static void cut_short(struct boundary *b, struct bytes body)
{
    bool inside = boundary_is_inside(b);
    bool streams = boundary_has_streams(b);
    struct error err = {0};
    uint64_t end = 0;
    for (size_t len = 0; len < body.len && end == 0; len++) {
        uint8_t *exact = malloc(len);
        assert_true(exact != NULL || len == 0);
        if (len > 0)
            memcpy(exact, body.data, len);
        if (!boundary_see(b, (struct bytes){exact, len}, &end, &err)) {
            assert_int_equal(err.kind, ERROR_DATA);
            error_clear(&err);
            assert_int_equal(boundary_is_inside(b), inside);
            assert_int_equal(boundary_has_streams(b), streams);
        } else {
            assert_true(end != 0 || strchr("BRIUDTY", body.data[0]) != NULL);
        }
        free(exact);
    }
}

static void cut_each_short(const struct golden *g)
{
    struct boundary *b = boundary_new();
    struct error err = {0};
    uint64_t end;
    for (size_t i = 0; i < g->count; i++) {
        cut_short(b, g->frames[i].body);
        assert_true(boundary_see(b, g->frames[i].body, &end, &err));
    }
    boundary_free(b);
}

static void a_head_cut_short_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    golden_each(cut_each_short);
}

/* Message, the position or two it ends with, the time. */
static struct bytes timed(struct writer *w, char tag, unsigned positions, uint64_t time_us)
{
    writer_clear(w);
    writer_u8(w, (uint8_t)tag);
    if (tag == 'c')
        writer_u32be(w, 7);
    if (tag != 'B')
        writer_u8(w, 0);
    for (unsigned i = 0; i < positions; i++)
        writer_u64be(w, 100);
    writer_u64be(w, time_us);
    return writer_view(w);
}

static void the_first_word_of_a_commit_tells_its_time(void **state)
{
    (void)state;
    struct boundary *b = boundary_new();
    struct writer w = {0};
    struct error err = {0};
    uint64_t end;
    assert_true(boundary_see(b, timed(&w, 'B', 1, 41), &end, &err));
    assert_int_equal(boundary_committed_us(b), 41);
    assert_true(boundary_see(b, timed(&w, 'C', 2, 42), &end, &err));
    assert_int_equal(boundary_committed_us(b), 42);
    assert_true(boundary_see(b, timed(&w, 'c', 2, 43), &end, &err));
    assert_int_equal(boundary_committed_us(b), 43);
    writer_release(&w);
    boundary_free(b);
}

static void a_reset_forgets_all(void **state)
{
    (void)state;
    static const uint8_t piece[] = {'S', 0, 0, 0, 7, 1};
    static const uint8_t begin[] = {'B'};
    struct boundary *b = boundary_new();
    struct error err = {0};
    uint64_t end;
    assert_true(boundary_see(b, (struct bytes){piece, sizeof piece}, &end, &err));
    assert_true(boundary_is_inside(b) && boundary_has_streams(b));
    boundary_reset(b);
    assert_false(boundary_is_inside(b) || boundary_has_streams(b));
    assert_true(boundary_see(b, (struct bytes){begin, sizeof begin}, &end, &err));
    assert_true(boundary_is_inside(b));
    boundary_reset(b);
    assert_false(boundary_is_inside(b));
    boundary_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_preface_makes_up_for_all_that_was_not_read),
        cmocka_unit_test(a_preface_tells_one_that_read_everything_nothing_new),
        cmocka_unit_test(a_head_cut_short_is_refused_and_changes_nothing),
        cmocka_unit_test(the_first_word_of_a_commit_tells_its_time),
        cmocka_unit_test(a_reset_forgets_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
