/* The mirror of the reader: a growing buffer that bytes are appended to.
 *
 * A zero writer is an empty one. Running out of memory is fatal (crash-only).
 * writer_clear() keeps the memory for reuse, writer_release() gives it back. */
#ifndef BASE_WRITER_H
#define BASE_WRITER_H

#include "engine/base/bytes.h"

struct writer {
    uint8_t *data;
    size_t len;
    size_t size;
};

/* Room for `len` more bytes, which the caller then fills and adds to w->len. */
uint8_t *writer_room(struct writer *w, size_t len);
void writer_put(struct writer *w, const void *data, size_t len);
void writer_printf(struct writer *w, const char *fmt, ...) printf_like(2, 3);
void writer_release(struct writer *w);

static inline void writer_clear(struct writer *w) { w->len = 0; }
static inline void writer_bytes(struct writer *w, struct bytes b)
{
    writer_put(w, b.data, b.len);
}
static inline void writer_text(struct writer *w, const char *text)
{
    writer_put(w, text, strlen(text));
}
static inline void writer_u8(struct writer *w, uint8_t value)
{
    *writer_room(w, 1) = value;
    w->len++;
}
static inline void writer_be(struct writer *w, uint64_t value, size_t width)
{
    uint8_t *at = writer_room(w, width);
    for (size_t i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    w->len += width;
}
static inline void writer_u16be(struct writer *w, uint16_t value) { writer_be(w, value, 2); }
static inline void writer_u32be(struct writer *w, uint32_t value) { writer_be(w, value, 4); }
static inline void writer_u64be(struct writer *w, uint64_t value) { writer_be(w, value, 8); }

/* What was written so far; valid until the next write. */
static inline struct bytes writer_view(const struct writer *w)
{
    return (struct bytes){w->data, w->len};
}

/* The same as a C string: a NUL is kept behind the end, outside `len`. */
const char *writer_cstr(struct writer *w);

#endif
