/* What exactly is put, and in which order. That it comes to the same as the changes:
 * batch_model_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/base/writer.h"
#include "engine/batch.h"

struct scribe {
    struct batch_sink sink;
    struct batcher *batcher;
    struct writer said;
    uint32_t count_max;
};

static void say_tuple(struct writer *w, const struct tuple *t, const struct relation *rel)
{
    for (uint16_t i = 0; i < t->count; i++) {
        if (t->image == IMAGE_KEY && !rel->columns[i].in_key)
            continue;
        const struct datum *d = &t->datums[i];
        writer_text(w, i == 0 ? "" : ",");
        if (d->kind == DATUM_TEXT)
            writer_bytes(w, d->value);
        else
            writer_text(w, d->kind == DATUM_NULL ? "null" : "~");
    }
}

/* "update a 1=1,x 2=2,y;" */
static bool scribe_put(struct batch_sink *sink, const struct batch *batch, struct error *err)
{
    (void)err;
    static const char *const kinds[] = {"insert", "update", "delete", "absent", "truncate"};
    struct scribe *s = container_of(sink, struct scribe, sink);
    s->count_max = batch->count > s->count_max ? batch->count : s->count_max;
    writer_printf(&s->said, "%s %.*s", kinds[batch->kind], BYTES_ARG(batch->relation->name));
    for (uint32_t i = 0; i < batch->count && i < 8; i++) {
        writer_text(&s->said, " ");
        say_tuple(&s->said, &batch->before[i], batch->relation);
        writer_text(&s->said, batch->kind == BATCH_UPDATE ? "=" : "");
        say_tuple(&s->said, &batch->after[i], batch->relation);
    }
    writer_text(&s->said, ";");
    return true;
}

static const struct column two_columns[] = {
    {.name = BYTES_INIT("id"), .in_key = true},
    {.name = BYTES_INIT("v")},
};
static const struct relation keyed = {.id = 1,
                                      .version = 1,
                                      .identity = IDENTITY_KEY,
                                      .schema = BYTES_INIT("public"),
                                      .name = BYTES_INIT("a"),
                                      .column_count = 2,
                                      .columns = two_columns};
static const struct relation other = {.id = 2,
                                      .version = 2,
                                      .identity = IDENTITY_KEY,
                                      .schema = BYTES_INIT("public"),
                                      .name = BYTES_INIT("b"),
                                      .column_count = 2,
                                      .columns = two_columns};
static const struct relation whole = {.id = 3,
                                      .version = 3,
                                      .identity = IDENTITY_FULL,
                                      .schema = BYTES_INIT("public"),
                                      .name = BYTES_INIT("f"),
                                      .column_count = 2,
                                      .columns = two_columns};
static const struct relation keyed_again = {.id = 1,
                                            .version = 4,
                                            .identity = IDENTITY_KEY,
                                            .schema = BYTES_INIT("public"),
                                            .name = BYTES_INIT("a2"),
                                            .column_count = 2,
                                            .columns = two_columns};

#define TEXT(literal)                                                                          \
    {                                                                                          \
        .kind = DATUM_TEXT, .value = BYTES_INIT(literal)                                       \
    }
#define UNCHANGED                                                                              \
    {                                                                                          \
        .kind = DATUM_UNCHANGED                                                                \
    }
#define ROW(id, v) ((struct tuple){IMAGE_ROW, 2, (const struct datum[]){TEXT(id), v}})
#define KEY(id)                                                                                \
    ((struct tuple){IMAGE_KEY, 2, (const struct datum[]){TEXT(id), {DATUM_NULL, {0}}}})
#define NO_TUPLE    ((struct tuple){0})
#define PAIR(id, v) ROW(id, TEXT(v))

static void tell(struct scribe *s, const struct relation *rel, enum change_kind kind,
                 struct tuple before, struct tuple after)
{
    struct change change = {.kind = kind, .relation = rel, .before = before, .after = after};
    struct error err = {0};
    if (!batcher_add(s->batcher, &change, &err))
        fail_msg("%s", err.text);
}

static void insert(struct scribe *s, const struct relation *rel, struct tuple after)
{
    tell(s, rel, CHANGE_INSERT, NO_TUPLE, after);
}

static void update(struct scribe *s, const struct relation *rel, struct tuple after)
{
    tell(s, rel, CHANGE_UPDATE, NO_TUPLE, after);
}

static void remove_row(struct scribe *s, const struct relation *rel, struct tuple before)
{
    tell(s, rel, CHANGE_DELETE, before, NO_TUPLE);
}

static void expect_said(struct scribe *s, const char *expected)
{
    assert_string_equal(writer_cstr(&s->said), expected);
    writer_clear(&s->said);
}

static void expect_flush(struct scribe *s, const char *expected)
{
    struct error err = {0};
    assert_true(batcher_flush(s->batcher, &err));
    expect_said(s, expected);
}

static int scribe_open(void **state)
{
    struct scribe *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->sink.put = scribe_put;
    s->batcher = batcher_new(&s->sink);
    *state = s;
    return 0;
}

static int scribe_close(void **state)
{
    struct scribe *s = *state;
    batcher_free(s->batcher);
    writer_release(&s->said);
    free(s);
    return 0;
}

static void changes_of_one_key_are_folded(void **state)
{
    struct scribe *s = *state;
    insert(s, &keyed, PAIR("1", "x"));
    update(s, &keyed, PAIR("1", "y"));
    expect_flush(s, "insert a 1,y;");
    insert(s, &keyed, PAIR("1", "x"));
    remove_row(s, &keyed, KEY("1"));
    expect_flush(s, "absent a 1;");
    insert(s, &keyed, PAIR("1", "x"));
    remove_row(s, &keyed, KEY("1"));
    insert(s, &keyed, PAIR("1", "z"));
    expect_flush(s, "insert a 1,z;");
    update(s, &keyed, PAIR("1", "x"));
    update(s, &keyed, PAIR("1", "y"));
    expect_flush(s, "update a 1=1,y;");
    update(s, &keyed, PAIR("1", "x"));
    remove_row(s, &keyed, KEY("1"));
    expect_flush(s, "delete a 1;");
    remove_row(s, &keyed, KEY("1"));
    insert(s, &keyed, PAIR("1", "x"));
    expect_flush(s, "update a 1=1,x;");
    remove_row(s, &keyed, KEY("1"));
    insert(s, &keyed, PAIR("1", "x"));
    remove_row(s, &keyed, KEY("1"));
    expect_flush(s, "delete a 1;");
}

static void values_left_alone_are_taken_from_earlier_changes(void **state)
{
    struct scribe *s = *state;
    insert(s, &keyed, PAIR("1", "x"));
    update(s, &keyed, ROW("1", UNCHANGED));
    expect_flush(s, "insert a 1,x;");
    update(s, &keyed, PAIR("1", "x"));
    update(s, &keyed, ROW("1", UNCHANGED));
    expect_flush(s, "update a 1=1,x;");
    update(s, &keyed, ROW("1", UNCHANGED));
    update(s, &keyed, ROW("1", UNCHANGED));
    expect_flush(s, "update a 1=1,~;");
}

static void updates_are_parted_by_what_they_leave_alone(void **state)
{
    struct scribe *s = *state;
    update(s, &keyed, PAIR("1", "x"));
    update(s, &keyed, ROW("2", UNCHANGED));
    update(s, &keyed, PAIR("3", "z"));
    expect_flush(s, "update a 1=1,x 3=3,z;update a 2=2,~;");
}

static void unique_values_are_freed_before_they_are_taken(void **state)
{
    struct scribe *s = *state;
    insert(s, &keyed, PAIR("9", "x"));
    remove_row(s, &keyed, KEY("9"));
    update(s, &keyed, PAIR("1", "x"));
    remove_row(s, &keyed, KEY("2"));
    insert(s, &keyed, PAIR("3", "y"));
    insert(s, &other, PAIR("3", "y"));
    expect_flush(s, "delete a 2;absent a 9;update a 1=1,x;insert a 3,y;insert b 3,y;");
}

static void a_moved_key_keeps_its_place(void **state)
{
    struct scribe *s = *state;
    update(s, &keyed, PAIR("1", "x"));
    insert(s, &other, PAIR("1", "x"));
    tell(s, &keyed, CHANGE_UPDATE, KEY("1"), PAIR("2", "y"));
    expect_said(s, "update a 1=1,x;update a 1=2,y;");
    insert(s, &keyed, PAIR("1", "z"));
    expect_flush(s, "insert a 1,z;insert b 1,x;");
}

static void a_key_written_otherwise_is_a_moved_key(void **state)
{
    struct scribe *s = *state;
    tell(s, &keyed, CHANGE_UPDATE, KEY("1.0"), PAIR("1.00", "y"));
    update(s, &keyed, PAIR("1.00", "z"));
    expect_flush(s, "update a 1.0=1.00,y;update a 1.00=1.00,z;");
}

static void an_old_key_that_is_the_same_is_no_move(void **state)
{
    struct scribe *s = *state;
    tell(s, &keyed, CHANGE_UPDATE, KEY("1"), PAIR("1", "y"));
    tell(s, &keyed, CHANGE_UPDATE, KEY("1"),
         ((struct tuple){IMAGE_ROW, 2, (const struct datum[]){UNCHANGED, TEXT("z")}}));
    expect_flush(s, "update a 1=1,z;");
}

static void what_cannot_be_is_left_to_the_target(void **state)
{
    struct scribe *s = *state;
    insert(s, &keyed, PAIR("1", "x"));
    insert(s, &keyed, PAIR("1", "y"));
    expect_flush(s, "insert a 1,x;insert a 1,y;");
    remove_row(s, &keyed, KEY("1"));
    update(s, &keyed, PAIR("1", "y"));
    remove_row(s, &keyed, KEY("1"));
    remove_row(s, &keyed, KEY("1"));
    expect_flush(s, "delete a 1;delete a 1;delete a 1;");
}

static void equal_rows_keep_their_order(void **state)
{
    struct scribe *s = *state;
    insert(s, &whole, PAIR("1", "x"));
    insert(s, &whole, PAIR("1", "x"));
    tell(s, &whole, CHANGE_UPDATE, PAIR("1", "x"), PAIR("1", "y"));
    tell(s, &whole, CHANGE_UPDATE, PAIR("1", "y"), PAIR("1", "z"));
    tell(s, &whole, CHANGE_UPDATE, PAIR("1", "z"), ROW("2", UNCHANGED));
    remove_row(s, &whole, PAIR("1", "x"));
    expect_flush(s, "insert f 1,x 1,x;update f 1,x=1,y 1,y=1,z;update f 1,z=2,~;delete f 1,x;");
}

static void a_truncate_comes_behind_the_changes_of_its_tables(void **state)
{
    struct scribe *s = *state;
    insert(s, &keyed, PAIR("1", "x"));
    insert(s, &whole, PAIR("1", "x"));
    insert(s, &other, PAIR("1", "x"));
    const struct relation *truncated[] = {&other, &keyed};
    struct change change = {.kind = CHANGE_TRUNCATE,
                            .relation = &other,
                            .truncated_count = 2,
                            .truncated = truncated};
    struct error err = {0};
    assert_true(batcher_add(s->batcher, &change, &err));
    expect_said(s, "insert b 1,x;insert a 1,x;truncate b;");
    expect_flush(s, "insert f 1,x;");
}

static void a_new_shape_comes_behind_the_old(void **state)
{
    struct scribe *s = *state;
    insert(s, &keyed, PAIR("1", "x"));
    update(s, &keyed_again, PAIR("1", "y"));
    expect_said(s, "insert a 1,x;");
    expect_flush(s, "update a2 1=1,y;");
}

static void a_batch_is_bounded_in_rows_and_bytes(void **state)
{
    enum { ROWS = 10000, BIG = 3 << 20 };
    struct scribe *s = *state;
    struct arena a = {0};
    for (int i = 0; i < ROWS; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "%d", i);
        struct datum *d = arena_array(&a, struct datum, 2);
        d[0] = (struct datum){
            DATUM_TEXT, arena_copy(&a, (struct bytes){(const uint8_t *)text, (size_t)len})};
        insert(s, &keyed, (struct tuple){IMAGE_ROW, 2, d});
    }
    struct error err = {0};
    assert_true(batcher_flush(s->batcher, &err));
    assert_int_equal(s->count_max, 4000);
    s->count_max = 0;
    uint8_t *big = arena_array(&a, uint8_t, BIG);
    for (uint8_t i = 0; i < 3; i++) {
        struct datum *d = arena_array(&a, struct datum, 2);
        d[0] = (struct datum){DATUM_TEXT, {(const uint8_t *)"012" + i, 1}};
        d[1] = (struct datum){DATUM_TEXT, {big, BIG}};
        insert(s, &keyed, (struct tuple){IMAGE_ROW, 2, d});
    }
    assert_true(batcher_bytes(s->batcher) > 3 * BIG);
    assert_true(batcher_flush(s->batcher, &err));
    assert_int_equal(s->count_max, 1);
    arena_clear(&a);
}

static void a_row_that_is_not_named_is_refused(void **state)
{
    struct scribe *s = *state;
    struct change change = {.kind = CHANGE_UPDATE, .relation = &whole, .after = PAIR("1", "x")};
    struct error err = {0};
    assert_false(batcher_add(s->batcher, &change, &err));
    assert_int_equal(err.kind, ERROR_DATA);
}

#define scribe_test(name) cmocka_unit_test_setup_teardown(name, scribe_open, scribe_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        scribe_test(changes_of_one_key_are_folded),
        scribe_test(values_left_alone_are_taken_from_earlier_changes),
        scribe_test(updates_are_parted_by_what_they_leave_alone),
        scribe_test(unique_values_are_freed_before_they_are_taken),
        scribe_test(a_moved_key_keeps_its_place),
        scribe_test(a_key_written_otherwise_is_a_moved_key),
        scribe_test(an_old_key_that_is_the_same_is_no_move),
        scribe_test(what_cannot_be_is_left_to_the_target),
        scribe_test(equal_rows_keep_their_order),
        scribe_test(a_truncate_comes_behind_the_changes_of_its_tables),
        scribe_test(a_new_shape_comes_behind_the_old),
        scribe_test(a_batch_is_bounded_in_rows_and_bytes),
        scribe_test(a_row_that_is_not_named_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
