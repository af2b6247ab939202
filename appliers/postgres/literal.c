#include "appliers/postgres/literal.h"

#include <strings.h>

enum { PLAIN, QUOTE, ESCAPE };

/* What is safe bare in an array literal; everything else is quoted, and \ and " also escaped.
 */
static int class_of(uint8_t byte)
{
    if (byte == '"' || byte == '\\')
        return ESCAPE;
    bool plain = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
                 (byte >= 'A' && byte <= 'Z') || byte == '-' || byte == '.' || byte == '_' ||
                 byte == ':' || byte == '+';
    return plain ? PLAIN : QUOTE;
}

static int class_of_text(struct bytes text)
{
    int class = PLAIN;
    for (size_t i = 0; i < text.len && class != ESCAPE; i++) {
        int one = class_of(text.data[i]);
        class = one > class ? one : class;
    }
    bool reads_as_null = text.len == 4 && strncasecmp((const char *)text.data, "null", 4) == 0;
    return class == PLAIN && (text.len == 0 || reads_as_null) ? QUOTE : class;
}

static void put_escaped(struct writer *w, struct bytes text)
{
    uint8_t *start = writer_room(w, text.len * 2);
    uint8_t *at = start;
    for (size_t i = 0; i < text.len; i++) {
        if (class_of(text.data[i]) == ESCAPE)
            *at++ = '\\';
        *at++ = text.data[i];
    }
    w->len += (size_t)(at - start);
}

void literal_element(struct writer *w, const struct datum *value)
{
    if (value->kind == DATUM_NULL) {
        writer_put(w, "NULL", 4);
        return;
    }
    check(value->kind == DATUM_TEXT);
    int class = class_of_text(value->value);
    if (class != PLAIN)
        writer_u8(w, '"');
    if (class == ESCAPE)
        put_escaped(w, value->value);
    else
        writer_bytes(w, value->value);
    if (class != PLAIN)
        writer_u8(w, '"');
}

void literal_column(struct writer *w, const struct tuple *rows, uint32_t count, uint16_t column)
{
    for (uint32_t i = 0; i < count; i++) {
        writer_u8(w, i == 0 ? '{' : ',');
        check(column < rows[i].count);
        literal_element(w, &rows[i].datums[column]);
    }
    writer_u8(w, '}');
}
