#include "engine/base/writer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIZE_FIRST = 256 };

uint8_t *writer_room(struct writer *w, size_t len)
{
    check(len < SIZE_MAX / 4 && w->len < SIZE_MAX / 4);
    size_t need = w->len + len;
    if (need > w->size || w->data == NULL) {
        size_t size = w->size < SIZE_FIRST ? SIZE_FIRST : w->size * 2;
        w->size = size < need ? need : size;
        w->data = realloc(w->data, w->size);
        check(w->data != NULL);
    }
    return w->data + w->len;
}

void writer_put(struct writer *w, const void *data, size_t len)
{
    uint8_t *at = writer_room(w, len);
    if (len > 0)
        memcpy(at, data, len);
    w->len += len;
}

void writer_printf(struct writer *w, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    check(need >= 0);
    (void)vsnprintf((char *)writer_room(w, (size_t)need + 1), (size_t)need + 1, fmt, again);
    va_end(again);
    w->len += (size_t)need;
}

const char *writer_cstr(struct writer *w)
{
    *writer_room(w, 1) = '\0';
    return (const char *)w->data;
}

void writer_release(struct writer *w)
{
    free(w->data);
    *w = (struct writer){0};
}
