#include "appliers/postgres/binary.h"

enum {
    TYPE_BOOL = 16,
    TYPE_BYTEA = 17,
    TYPE_INT8 = 20,
    TYPE_INT2 = 21,
    TYPE_INT4 = 23,
    TYPE_TEXT = 25,
    TYPE_JSON = 114,
    TYPE_BPCHAR = 1042,
    TYPE_VARCHAR = 1043,
    TYPE_JSONB = 3802,
};

bool binary_knows(uint32_t type)
{
    switch (type) {
    case TYPE_BOOL:
    case TYPE_BYTEA:
    case TYPE_INT8:
    case TYPE_INT2:
    case TYPE_INT4:
    case TYPE_TEXT:
    case TYPE_JSON:
    case TYPE_BPCHAR:
    case TYPE_VARCHAR:
    case TYPE_JSONB: return true;
    default: return false;
    }
}

/* As int8out and its like write it, within [-limit - 1, limit]. */
static bool parse_whole(struct bytes text, uint64_t limit, int64_t *out)
{
    bool negative = text.len > 0 && text.data[0] == '-';
    uint64_t most = negative ? limit + 1 : limit;
    uint64_t value = 0;
    if (text.len == negative || text.len > 20)
        return false;
    for (size_t i = negative; i < text.len; i++) {
        unsigned digit = text.data[i] - (unsigned)'0';
        if (digit > 9 || value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

static bool put_whole(struct writer *w, struct bytes text, uint32_t width)
{
    int64_t value;
    if (!parse_whole(text, (UINT64_C(1) << (width * 8 - 1)) - 1, &value))
        return false;
    writer_u32be(w, width);
    writer_be(w, (uint64_t)value, width);
    return true;
}

static bool put_bool(struct writer *w, struct bytes text)
{
    if (text.len != 1 || (text.data[0] != 't' && text.data[0] != 'f'))
        return false;
    writer_u32be(w, 1);
    writer_u8(w, text.data[0] == 't');
    return true;
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \x and two digits a byte. */
static bool put_bytea(struct writer *w, struct bytes text)
{
    if (text.len < 2 || text.len % 2 != 0 || text.data[0] != '\\' || text.data[1] != 'x')
        return false;
    size_t len = text.len / 2 - 1;
    writer_u32be(w, (uint32_t)len);
    uint8_t *at = writer_room(w, len);
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(text.data[2 + 2 * i]);
        int low = hex_digit(text.data[3 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        at[i] = (uint8_t)(high << 4 | low);
    }
    w->len += len;
    return true;
}

static bool put_text(struct writer *w, struct bytes text)
{
    if (text.len > INT32_MAX)
        return false;
    writer_u32be(w, (uint32_t)text.len);
    writer_bytes(w, text);
    return true;
}

static bool put_jsonb(struct writer *w, struct bytes text)
{
    enum { VERSION = 1 };
    if (text.len >= INT32_MAX)
        return false;
    writer_u32be(w, (uint32_t)text.len + 1);
    writer_u8(w, VERSION);
    writer_bytes(w, text);
    return true;
}

static bool put_element(struct writer *w, const struct datum *value, uint32_t type)
{
    if (value->kind == DATUM_NULL) {
        writer_u32be(w, UINT32_MAX);
        return true;
    }
    check(value->kind == DATUM_TEXT);
    switch (type) {
    case TYPE_BOOL: return put_bool(w, value->value);
    case TYPE_BYTEA: return put_bytea(w, value->value);
    case TYPE_INT8: return put_whole(w, value->value, 8);
    case TYPE_INT4: return put_whole(w, value->value, 4);
    case TYPE_INT2: return put_whole(w, value->value, 2);
    case TYPE_JSONB: return put_jsonb(w, value->value);
    default: return put_text(w, value->value);
    }
}

/* One dimension, perhaps with nulls, from 1 to `count`. */
static void put_head(struct writer *w, uint32_t count, uint32_t type)
{
    writer_u32be(w, 1);
    writer_u32be(w, 1);
    writer_u32be(w, type);
    writer_u32be(w, count);
    writer_u32be(w, 1);
}

bool binary_column(struct writer *w, const struct tuple *rows, uint32_t count, uint16_t column,
                   uint32_t type)
{
    size_t start = w->len;
    check(binary_knows(type));
    put_head(w, count, type);
    for (uint32_t i = 0; i < count; i++) {
        check(column < rows[i].count);
        if (put_element(w, &rows[i].datums[column], type))
            continue;
        w->len = start;
        return false;
    }
    return true;
}
