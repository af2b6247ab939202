/* The decoder against what real servers sent, whole and damaged.
 *
 * Damage is tried on a decoder in the midst of a stream, which then goes on with the message as
 * it was: what was refused must have changed nothing. One that was accepted although damaged
 * may have; then the decoder is made anew. Each message stands in memory of exactly its length,
 * so that the sanitizer sees a read beyond it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "decoders/postgres/pgoutput.h"
#include "tests/golden/golden.h"

/* Nothing here is larger than a few kilobytes, so neither is what it may cost. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "max_allocation_size_mb=4"; }

struct trial {
    const struct golden *g;
    size_t at; /* The next frame. */
    struct decoder *decoder;
    struct teller teller;
    struct teller scratch; /* For damaged messages. */
};

static void decode_whole(struct decoder *d, const struct golden *g, size_t i,
                         struct event_sink *sink)
{
    struct error err = {0};
    if (!d->ops->decode(d, &g->frames[i], sink, &err))
        fail_msg("%s: message %zu: %s", g->path, i, err.text);
}

static void start(struct trial *t, const struct golden *g)
{
    *t = (struct trial){.g = g, .decoder = pgoutput_new()};
    teller_init(&t->teller);
    teller_init(&t->scratch);
}

/* Fails with the first line that differs. */
static void compare(const struct golden *g, const char *said, const char *expected)
{
    for (size_t line = 1; *said != '\0' || *expected != '\0'; line++) {
        int said_len = (int)strcspn(said, "\n");
        int expected_len = (int)strcspn(expected, "\n");
        if (said_len != expected_len || memcmp(said, expected, (size_t)said_len) != 0)
            fail_msg("%s: line %zu is \"%.*s\", not \"%.*s\"", g->path, line, said_len, said,
                     expected_len, expected);
        said += said_len + (said[said_len] == '\n');
        expected += expected_len + (expected[expected_len] == '\n');
    }
}

static void finish(struct trial *t)
{
    struct writer expected = {0};
    golden_expected(t->g, &expected);
    compare(t->g, writer_cstr(&t->teller.text), writer_cstr(&expected));
    writer_release(&expected);
    teller_release(&t->teller);
    teller_release(&t->scratch);
    t->decoder->ops->free(t->decoder);
}

static bool ignore(struct event_sink *sink, const struct event *event, struct error *err)
{
    (void)sink;
    (void)event;
    (void)err;
    return true;
}

static void renew(struct trial *t)
{
    struct event_sink nobody = {.put = ignore};
    t->decoder->ops->free(t->decoder);
    t->decoder = pgoutput_new();
    for (size_t i = 0; i < t->at; i++)
        decode_whole(t->decoder, t->g, i, &nobody);
}

/* Whether `body`, in the place of the next message, is accepted. */
static bool accepts(struct trial *t, struct bytes body)
{
    uint8_t *exact = malloc(body.len);
    assert_true(exact != NULL || body.len == 0);
    if (body.len > 0)
        memcpy(exact, body.data, body.len);
    struct frame f = t->g->frames[t->at];
    f.body = (struct bytes){exact, body.len};
    struct error err = {0};
    t->scratch.events = 0;
    bool ok = t->decoder->ops->decode(t->decoder, &f, &t->scratch.sink, &err);
    if (!ok) {
        assert_int_equal(err.kind, ERROR_DATA);
        assert_int_equal(t->scratch.events, 0);
    }
    writer_clear(&t->scratch.text);
    free(exact);
    return ok;
}

/* One that may be accepted. */
static void try_changed(struct trial *t, struct bytes body)
{
    bool ok = accepts(t, body);
    if (ok && strchr("IUDT", body.data[0]) == NULL)
        renew(t);
}

static void each_message(const struct golden *g,
                         void (*damage)(struct trial *t, struct bytes body))
{
    struct trial t;
    start(&t, g);
    for (; t.at < g->count; t.at++) {
        if (damage != NULL)
            damage(&t, g->frames[t.at].body);
        decode_whole(t.decoder, g, t.at, &t.teller.sink);
    }
    finish(&t);
}

/* ---- whole ---- */

static void check_meaning(const struct golden *g) { each_message(g, NULL); }

static void real_streams_mean_what_another_decoder_says(void **state)
{
    (void)state;
    golden_each(check_meaning);
}

/* ---- damaged ---- */

static void cut_short(struct trial *t, struct bytes body)
{
    for (size_t len = 0; len < body.len; len++)
        assert_false(accepts(t, (struct bytes){body.data, len}));
}

static void check_truncation(const struct golden *g) { each_message(g, cut_short); }

static void a_message_cut_short_anywhere_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    golden_each(check_truncation);
}

static void append(struct trial *t, struct bytes body)
{
    static const char *const garbage[] = {"N", "t", "xx", "KOtn", "IIIIIIIIIIIIIIII"};
    struct writer w = {0};
    for (size_t i = 0; i < array_count(garbage); i++) {
        writer_clear(&w);
        writer_bytes(&w, body);
        writer_text(&w, garbage[i]);
        assert_false(accepts(t, writer_view(&w)));
    }
    writer_release(&w);
}

static void check_garbage(const struct golden *g) { each_message(g, append); }

static void a_message_with_more_behind_it_is_refused(void **state)
{
    (void)state;
    golden_each(check_garbage);
}

/* The next place to damage. Within one long value one place is like another. */
static size_t next_place(size_t at, size_t len)
{
    enum { LONG = 512, HEAD = 200, TAIL = 100 };
    return len > LONG && at == HEAD ? len - TAIL : at + 1;
}

static void flip(struct trial *t, struct bytes body)
{
    static const uint8_t flips[] = {0x01, 0x20, 0x80, 0xff};
    struct writer w = {0};
    writer_bytes(&w, body);
    for (size_t i = 0; i < body.len; i = next_place(i, body.len)) {
        for (size_t k = 0; k < array_count(flips); k++) {
            w.data[i] ^= flips[k];
            try_changed(t, writer_view(&w));
            w.data[i] ^= flips[k];
        }
    }
    writer_release(&w);
}

static void check_flips(const struct golden *g) { each_message(g, flip); }

static void a_message_with_any_byte_changed_does_no_harm(void **state)
{
    (void)state;
    golden_each(check_flips);
}

static void inflate(struct trial *t, struct bytes body)
{
    static const size_t widths[] = {2, 4};
    struct writer w = {0};
    for (size_t k = 0; k < array_count(widths); k++) {
        for (size_t i = 0; i + widths[k] <= body.len; i = next_place(i, body.len)) {
            writer_clear(&w);
            writer_bytes(&w, body);
            memset(w.data + i, 0xff, widths[k]);
            try_changed(t, writer_view(&w));
        }
    }
    writer_release(&w);
}

static void check_inflation(const struct golden *g) { each_message(g, inflate); }

static void a_count_or_length_that_lies_costs_no_memory(void **state)
{
    (void)state;
    golden_each(check_inflation);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_streams_mean_what_another_decoder_says),
        cmocka_unit_test(a_message_cut_short_anywhere_is_refused_and_changes_nothing),
        cmocka_unit_test(a_message_with_more_behind_it_is_refused),
        cmocka_unit_test(a_message_with_any_byte_changed_does_no_harm),
        cmocka_unit_test(a_count_or_length_that_lies_costs_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
