#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "appliers/postgres/binary.h"

enum { BOOL = 16, BYTEA = 17, INT8 = 20, INT2 = 21, INT4 = 23, TEXT = 25, JSONB = 3802 };
enum { HEAD = 20, LENGTH = 4 };

static bool put_one(struct writer *w, const char *text, uint32_t type)
{
    struct datum value = {.kind = text == NULL ? DATUM_NULL : DATUM_TEXT};
    if (text != NULL)
        value.value = (struct bytes){(const uint8_t *)text, strlen(text)};
    struct tuple row = {.image = IMAGE_ROW, .count = 1, .datums = &value};
    writer_clear(w);
    return binary_column(w, &row, 1, 0, type);
}

static void assert_element(const char *text, uint32_t type, struct bytes expected)
{
    struct writer w = {0};
    assert_true(put_one(&w, text, type));
    struct reader r = reader_of(writer_view(&w));
    assert_int_equal(reader_u32be(&r), 1); /* Dimensions. */
    (void)reader_u32be(&r);
    assert_int_equal(reader_u32be(&r), type);
    assert_int_equal(reader_u32be(&r), 1); /* Elements, */
    assert_int_equal(reader_u32be(&r), 1); /* from. */
    assert_int_equal(reader_u32be(&r), expected.len);
    assert_true(bytes_equal(reader_take(&r, expected.len), expected));
    assert_true(reader_done(&r));
    writer_release(&w);
}

static void assert_goes_as_text(const char *text, uint32_t type)
{
    struct writer w = {0};
    writer_text(&w, "before");
    size_t len = w.len;
    struct datum value = {DATUM_TEXT, {(const uint8_t *)text, strlen(text)}};
    struct tuple row = {.image = IMAGE_ROW, .count = 1, .datums = &value};
    assert_false(binary_column(&w, &row, 1, 0, type));
    assert_int_equal(w.len, len);
    writer_release(&w);
}

static void whole_numbers_to_their_last_value(void **state)
{
    (void)state;
    assert_element("0", INT2, BYTES("\0\0"));
    assert_element("-1", INT2, BYTES("\xff\xff"));
    assert_element("32767", INT2, BYTES("\x7f\xff"));
    assert_element("-32768", INT2, BYTES("\x80\x00"));
    assert_element("2147483647", INT4, BYTES("\x7f\xff\xff\xff"));
    assert_element("-2147483648", INT4, BYTES("\x80\0\0\0"));
    assert_element("9223372036854775807", INT8, BYTES("\x7f\xff\xff\xff\xff\xff\xff\xff"));
    assert_element("-9223372036854775808", INT8, BYTES("\x80\0\0\0\0\0\0\0"));
}

static void what_is_not_a_number_of_that_size_goes_as_text(void **state)
{
    (void)state;
    assert_goes_as_text("32768", INT2);
    assert_goes_as_text("-32769", INT2);
    assert_goes_as_text("2147483648", INT4);
    assert_goes_as_text("9223372036854775808", INT8);
    assert_goes_as_text("-9223372036854775809", INT8);
    assert_goes_as_text("99999999999999999999", INT8);
    assert_goes_as_text("", INT4);
    assert_goes_as_text("-", INT4);
    assert_goes_as_text("1.0", INT4);
    assert_goes_as_text(" 1", INT4);
    assert_goes_as_text("yes", BOOL);
    assert_goes_as_text("\\x0", BYTEA);
    assert_goes_as_text("\\x0g", BYTEA);
    assert_goes_as_text("abc", BYTEA);
}

static void other_types_byte_by_byte(void **state)
{
    (void)state;
    assert_element("t", BOOL, BYTES("\1"));
    assert_element("f", BOOL, BYTES("\0"));
    assert_element("\\x", BYTEA, BYTES(""));
    assert_element("\\x00ff0a", BYTEA, BYTES("\0\xff\x0a"));
    assert_element("", TEXT, BYTES(""));
    assert_element("a\"b\\,{}NULL", TEXT, BYTES("a\"b\\,{}NULL"));
    assert_element("{\"a\": 1}", JSONB, BYTES("\1{\"a\": 1}"));
}

static void null_has_no_bytes(void **state)
{
    (void)state;
    struct writer w = {0};
    assert_true(put_one(&w, NULL, INT4));
    assert_int_equal(w.len, HEAD + LENGTH);
    assert_memory_equal(w.data + HEAD, "\xff\xff\xff\xff", LENGTH);
    writer_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_to_their_last_value),
        cmocka_unit_test(what_is_not_a_number_of_that_size_goes_as_text),
        cmocka_unit_test(other_types_byte_by_byte),
        cmocka_unit_test(null_has_no_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
