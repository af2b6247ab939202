/* What the decoder must do where no captured stream leads: messages made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "decoders/postgres/boundary.h"
#include "decoders/postgres/pgoutput.h"
#include "tests/golden/golden.h"

enum { TABLE = 16384 };

/* A decoder, and a boundary that sees the same. */
struct rig {
    struct decoder *decoder;
    struct boundary *boundary;
    struct teller teller;
    struct writer body;
    struct error err;
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->decoder = pgoutput_new();
    r->boundary = boundary_new();
    teller_init(&r->teller);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    r->decoder->ops->free(r->decoder);
    boundary_free(r->boundary);
    teller_release(&r->teller);
    writer_release(&r->body);
    free(r);
    return 0;
}

/* ---- messages ---- */

static bool send_as(struct rig *r, enum frame_kind kind)
{
    struct frame f = {
        .kind = kind, .body = writer_view(&r->body), .pos = BYTES("0/1"), .seq = 1};
    uint64_t end;
    error_clear(&r->err);
    bool ok = r->decoder->ops->decode(r->decoder, &f, &r->teller.sink, &r->err);
    if (ok && kind <= FRAME_COMMIT) {
        struct error err = {0};
        assert_true(boundary_see(r->boundary, f.body, &end, &err));
    } else if (!ok) {
        assert_int_equal(r->err.kind, ERROR_DATA);
    }
    writer_clear(&r->body);
    return ok;
}

static void must(struct rig *r, bool ok)
{
    if (!ok)
        fail_msg("%s", r->err.text);
}

static void say(struct rig *r, enum frame_kind kind) { must(r, send_as(r, kind)); }

/* Each character of `layout` is a byte, 0 and 1 the numbers, except @: any u64; and what takes
 * an argument: # a u32, ~ a u16, ! a byte, $ a string with its NUL, % a string as a value. */
static void compose(struct rig *r, const char *layout, ...)
{
    va_list args;
    va_start(args, layout);
    writer_clear(&r->body);
    for (const char *c = layout; *c != '\0'; c++) {
        const char *text = *c == '$' || *c == '%' ? va_arg(args, const char *) : NULL;
        if (*c == '%') {
            writer_u8(&r->body, 't');
            writer_u32be(&r->body, (uint32_t)strlen(text));
            writer_text(&r->body, text);
        } else if (*c == '$') {
            writer_put(&r->body, text, strlen(text) + 1);
        } else if (*c == '#') {
            writer_u32be(&r->body, va_arg(args, uint32_t));
        } else if (*c == '~') {
            writer_u16be(&r->body, (uint16_t)va_arg(args, int));
        } else if (*c == '!') {
            writer_u8(&r->body, (uint8_t)va_arg(args, int));
        } else if (*c == '@') {
            writer_u64be(&r->body, 1);
        } else {
            writer_u8(&r->body, *c == '0' ? 0 : *c == '1' ? 1 : (uint8_t)*c);
        }
    }
    va_end(args);
}

static void begin(struct rig *r, uint32_t xid)
{
    compose(r, "B@@#", xid);
    say(r, FRAME_DATA);
}

static void commit(struct rig *r)
{
    compose(r, "C0@@@");
    say(r, FRAME_COMMIT);
}

static void piece(struct rig *r, uint32_t xid, bool first)
{
    compose(r, first ? "S#1" : "S#0", xid);
    say(r, FRAME_DATA);
}

static void stop(struct rig *r)
{
    compose(r, "E");
    say(r, FRAME_DATA);
}

static void stream_commit(struct rig *r, uint32_t xid)
{
    compose(r, "c#0@@@", xid);
    say(r, FRAME_COMMIT);
}

static void stream_abort(struct rig *r, uint32_t xid, uint32_t part)
{
    compose(r, "A##", xid, part);
    say(r, FRAME_DATA);
}

/* A table of two columns: `id`, the key, and `name`. A part of 0: not in a stream. */
static void relation(struct rig *r, uint32_t part, char identity, const char *name)
{
    uint32_t all = 0xffffffff;
    if (part == 0)
        compose(r, "R#$$!~1$##0$##", TABLE, "public", "t", identity, 2, "id", 23, all, name, 25,
                all);
    else
        compose(r, "R##$$!~1$##0$##", part, TABLE, "public", "t", identity, 2, "id", 23, all,
                name, 25, all);
    say(r, FRAME_DATA);
}

static void insert(struct rig *r, uint32_t part, const char *id)
{
    if (part == 0)
        compose(r, "I#N~%n", TABLE, 2, id);
    else
        compose(r, "I##N~%n", part, TABLE, 2, id);
    say(r, FRAME_DATA);
}

static void reset(struct rig *r) { say(r, FRAME_RESET); }

static bool pass_on(void *context, const struct frame *frame, struct error *err)
{
    struct rig *r = context;
    return r->decoder->ops->decode(r->decoder, frame, &r->teller.sink, err);
}

/* From here on another decoder reads, which has only the preface. */
static void start_anew(struct rig *r)
{
    r->decoder->ops->free(r->decoder);
    r->decoder = pgoutput_new();
    must(r, boundary_preface(r->boundary, pass_on, r, &r->err));
}

static void expect(struct rig *r, const char *text)
{
    assert_string_equal(writer_cstr(&r->teller.text), text);
    writer_clear(&r->teller.text);
}

static void forget(struct rig *r) { writer_clear(&r->teller.text); }

static void expect_refusal(struct rig *r, enum frame_kind kind, const char *why)
{
    size_t events = r->teller.events;
    assert_false(send_as(r, kind));
    assert_non_null(strstr(r->err.text, why));
    assert_int_equal(r->teller.events, events);
}

#define NAMED(name) "shape 16384 'public'.'t' key 'id'*:23/-1 '" name "':25/-1\n"

/* ---- sessions ---- */

static void a_reset_forgets_the_piece_it_stood_in(void **state)
{
    struct rig *r = *state;
    piece(r, 7, true);
    relation(r, 7, 'd', "name");
    reset(r);
    forget(r);
    begin(r, 8);                 /* Inside the piece it would be refused. */
    relation(r, 0, 'd', "name"); /* And this read with the part's id before it. */
    insert(r, 0, "1");
    commit(r);
    expect(r, "begin 8\n" NAMED("name") "insert 8/8 16384\n  new '1', null\n"
                                        "commit 8 seq 1 pos 0/1 time 946684800000001\n");
}

static void a_reset_forgets_the_transaction_it_stood_in(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    reset(r);
    forget(r);
    begin(r, 8);
    expect(r, "begin 8\n");
}

static void a_reset_forgets_relations(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    relation(r, 0, 'd', "name");
    commit(r);
    reset(r);
    begin(r, 8);
    compose(r, "I#N~%n", TABLE, 2, "1");
    expect_refusal(r, FRAME_DATA, "never described");
}

/* ---- relations ---- */

static void a_relation_replaces_the_one_before_it_at_once(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    relation(r, 0, 'd', "old");
    insert(r, 0, "1");
    relation(r, 0, 'd', "new");
    insert(r, 0, "2");
    expect(r, "begin 7\n" NAMED("old") "insert 7/7 16384\n  new '1', null\n" NAMED(
                  "new") "insert 7/7 16384\n  new '2', null\n");
}

static void a_stream_keeps_its_relations_to_itself_until_it_commits(void **state)
{
    struct rig *r = *state;
    begin(r, 6);
    relation(r, 0, 'd', "old");
    commit(r);
    piece(r, 7, true);
    relation(r, 7, 'd', "new");
    insert(r, 7, "1");
    stop(r);
    forget(r);
    begin(r, 8);
    insert(r, 0, "2");
    commit(r);
    expect(r, "begin 8\n" NAMED("old") "insert 8/8 16384\n  new '2', null\n"
                                       "commit 8 seq 1 pos 0/1 time 946684800000001\n");
    stream_commit(r, 7);
    forget(r);
    begin(r, 9);
    insert(r, 0, "3");
    expect(r, "begin 9\n" NAMED("new") "insert 9/9 16384\n  new '3', null\n");
}

static void an_aborted_stream_takes_its_relations_along(void **state)
{
    struct rig *r = *state;
    piece(r, 7, true);
    relation(r, 7, 'd', "new");
    stop(r);
    stream_abort(r, 7, 7);
    begin(r, 9);
    compose(r, "I#N~%n", TABLE, 2, "3");
    expect_refusal(r, FRAME_DATA, "never described");
}

static void a_part_that_aborts_leaves_the_stream_open(void **state)
{
    struct rig *r = *state;
    piece(r, 7, true);
    relation(r, 7, 'd', "name");
    stop(r);
    stream_abort(r, 7, 8);
    piece(r, 7, false);
    forget(r);
    insert(r, 9, "1");
    expect(r, NAMED("name") "insert 7/9 16384\n  new '1', null\n");
}

/* The part that used the table was rolled back, so that another session could change it. The
 * server has forgotten by then that it described the table to the stream, and will not do so
 * again for others. */
static void describe_again_while_streaming(struct rig *r)
{
    piece(r, 7, true);
    relation(r, 8, 'd', "old");
    stop(r);
    stream_abort(r, 7, 8);
    begin(r, 9);
    relation(r, 0, 'd', "new");
    commit(r);
}

static void a_commit_does_not_bring_back_an_older_relation(void **state)
{
    struct rig *r = *state;
    describe_again_while_streaming(r);
    stream_commit(r, 7);
    begin(r, 10);
    forget(r);
    insert(r, 0, "1");
    expect(r, NAMED("new") "insert 10/10 16384\n  new '1', null\n");
}

static void nor_does_it_for_one_that_started_from_a_preface(void **state)
{
    struct rig *r = *state;
    describe_again_while_streaming(r);
    start_anew(r);
    stream_commit(r, 7);
    start_anew(r);
    begin(r, 10);
    forget(r);
    insert(r, 0, "1");
    expect(r, NAMED("new") "insert 10/10 16384\n  new '1', null\n");
}

static void of_two_streams_the_later_relation_holds_whichever_commits_last(void **state)
{
    struct rig *r = *state;
    piece(r, 7, true);
    relation(r, 7, 'd', "old");
    stop(r);
    piece(r, 8, true);
    relation(r, 8, 'd', "new");
    stop(r);
    start_anew(r);
    stream_commit(r, 8);
    start_anew(r);
    stream_commit(r, 7);
    begin(r, 10);
    forget(r);
    insert(r, 0, "1");
    expect(r, NAMED("new") "insert 10/10 16384\n  new '1', null\n");
}

/* ---- streams without a beginning ---- */

static void a_stream_without_beginning_says_so_with_every_piece(void **state)
{
    struct rig *r = *state;
    piece(r, 7, true);
    relation(r, 7, 'd', "name");
    stop(r);
    start_anew(r);
    forget(r);
    piece(r, 7, false);
    insert(r, 7, "1");
    stop(r);
    expect(r, "shape 0 ''.'' none\ninsert 7/7 0\n");
}

static void a_stream_without_beginning_is_still_read_with_care(void **state)
{
    struct rig *r = *state;
    piece(r, 7, false);
    compose(r, "");
    expect_refusal(r, FRAME_DATA, "cut short");
    compose(r, "I00");
    expect_refusal(r, FRAME_DATA, "cut short");
    compose(r, "0#", 7);
    expect_refusal(r, FRAME_DATA, "unknown message");
}

static void a_stream_without_beginning_says_so_even_if_only_its_commit_is_read(void **state)
{
    struct rig *r = *state;
    stream_commit(r, 7);
    expect(r,
           "shape 0 ''.'' none\ninsert 7/7 0\ncommit 7 seq 1 pos 0/1 time 946684800000001\n");
}

/* ---- rows ---- */

static void a_key_that_was_not_sent_is_refused(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    relation(r, 0, 'd', "name");
    compose(r, "U#N~u%", TABLE, 2, "x");
    expect_refusal(r, FRAME_DATA, "February 2022");
}

static void a_key_that_was_not_sent_again_is_taken_from_the_old_key(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    relation(r, 0, 'd', "name");
    forget(r);
    compose(r, "U#K~%nN~uu", TABLE, 2, "5", 2);
    say(r, FRAME_DATA);
    expect(r, NAMED("name") "update 7/7 16384\n  key '5', null\n  new '5', unchanged\n");
}

static void a_value_that_was_not_sent_again_is_taken_from_the_old_row(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    relation(r, 0, 'f', "name");
    forget(r);
    compose(r, "U#O~%%N~%u", TABLE, 2, "5", "long", 2, "6");
    say(r, FRAME_DATA);
    expect(r, "shape 16384 'public'.'t' full 'id'*:23/-1 'name':25/-1\nupdate 7/7 16384\n"
              "  old '5', 'long'\n  new '6', 'long'\n");
}

static void an_old_row_must_be_complete(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    relation(r, 0, 'f', "name");
    compose(r, "D#O~%u", TABLE, 2, "5");
    expect_refusal(r, FRAME_DATA, "old row is incomplete");
    compose(r, "D#K~un", TABLE, 2);
    expect_refusal(r, FRAME_DATA, "old row is incomplete");
    compose(r, "D#N~un", TABLE, 2);
    expect_refusal(r, FRAME_DATA, "old row is missing");
    compose(r, "I#N~%u", TABLE, 2, "5");
    expect_refusal(r, FRAME_DATA, "incomplete");
}

static void a_row_must_have_the_columns_of_its_table(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    relation(r, 0, 'd', "name");
    compose(r, "I#N~nnn", TABLE, 3);
    expect_refusal(r, FRAME_DATA, "number of columns");
    compose(r, "I#N~n", TABLE, 1);
    expect_refusal(r, FRAME_DATA, "number of columns");
    compose(r, "I#N~nb", TABLE, 2);
    expect_refusal(r, FRAME_DATA, "unknown format");
}

static void counts_that_lie_are_refused(void **state)
{
    struct rig *r = *state;
    uint32_t all = 0xffffffff;
    begin(r, 7);
    relation(r, 0, 'd', "name");
    compose(r, "T#0#", all, TABLE);
    expect_refusal(r, FRAME_DATA, "length");
    compose(r, "T#0", 0);
    expect_refusal(r, FRAME_DATA, "length");
    compose(r, "R#$$d~", TABLE, "public", "t", 0xffff);
    expect_refusal(r, FRAME_DATA, "cut short");
    compose(r, "I#N~t#xn", TABLE, 2, all);
    expect_refusal(r, FRAME_DATA, "cut short");
}

/* ---- order ---- */

static void what_stands_in_the_wrong_place_is_refused(void **state)
{
    struct rig *r = *state;
    static const char *const outside[] = {"R#$$d~", "E", "?", "T#0#"};
    for (size_t i = 0; i < array_count(outside); i++) {
        compose(r, outside[i], TABLE, "a", "b", 0);
        expect_refusal(r, FRAME_DATA, "");
    }
    compose(r, "C0@@@");
    expect_refusal(r, FRAME_COMMIT, "no transaction");
    begin(r, 7);
    compose(r, "B@@#", 8);
    expect_refusal(r, FRAME_DATA, "inside another");
    compose(r, "S#1", 8);
    expect_refusal(r, FRAME_DATA, "inside another");
    compose(r, "c#0@@@", 8);
    expect_refusal(r, FRAME_COMMIT, "inside another");
    compose(r, "A##", 8, 8);
    expect_refusal(r, FRAME_DATA, "inside another");
    compose(r, "?");
    expect_refusal(r, FRAME_DATA, "unknown message");
    commit(r);
    piece(r, 8, true);
    compose(r, "c#0@@@", 8);
    expect_refusal(r, FRAME_COMMIT, "inside another");
    compose(r, "A##", 8, 8);
    expect_refusal(r, FRAME_DATA, "inside another");
    compose(r, "C0@@@");
    expect_refusal(r, FRAME_COMMIT, "no transaction");
}

static void a_commit_is_a_boundary_and_a_boundary_is_a_commit(void **state)
{
    struct rig *r = *state;
    begin(r, 7);
    relation(r, 0, 'd', "name");
    compose(r, "I#N~%n", TABLE, 2, "1");
    expect_refusal(r, FRAME_COMMIT, "not a commit");
    compose(r, "C0@@@");
    expect_refusal(r, FRAME_DATA, "not a boundary");
    commit(r);
}

static void only_relations_stand_in_a_preface(void **state)
{
    struct rig *r = *state;
    static const char *const others[] = {"", "B@@#", "S#B@@#", "S#", "S##", "I#N~"};
    for (size_t i = 0; i < array_count(others); i++) {
        compose(r, others[i], 7, 8, 9);
        expect_refusal(r, FRAME_PREFACE, "");
    }
}

#define rule(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        rule(a_reset_forgets_the_piece_it_stood_in),
        rule(a_reset_forgets_the_transaction_it_stood_in),
        rule(a_reset_forgets_relations),
        rule(a_relation_replaces_the_one_before_it_at_once),
        rule(a_stream_keeps_its_relations_to_itself_until_it_commits),
        rule(an_aborted_stream_takes_its_relations_along),
        rule(a_part_that_aborts_leaves_the_stream_open),
        rule(a_commit_does_not_bring_back_an_older_relation),
        rule(nor_does_it_for_one_that_started_from_a_preface),
        rule(of_two_streams_the_later_relation_holds_whichever_commits_last),
        rule(a_stream_without_beginning_says_so_with_every_piece),
        rule(a_stream_without_beginning_is_still_read_with_care),
        rule(a_stream_without_beginning_says_so_even_if_only_its_commit_is_read),
        rule(a_key_that_was_not_sent_is_refused),
        rule(a_key_that_was_not_sent_again_is_taken_from_the_old_key),
        rule(a_value_that_was_not_sent_again_is_taken_from_the_old_row),
        rule(an_old_row_must_be_complete),
        rule(a_row_must_have_the_columns_of_its_table),
        rule(counts_that_lie_are_refused),
        rule(what_stands_in_the_wrong_place_is_refused),
        rule(a_commit_is_a_boundary_and_a_boundary_is_a_commit),
        rule(only_relations_stand_in_a_preface),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
