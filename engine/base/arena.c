#include "engine/base/arena.h"

#include <stdalign.h>
#include <stdlib.h>

enum { BLOCK_SIZE = 64 * 1024 };

struct arena_block {
    struct arena_block *next;
    size_t size;
    size_t used;
    bool dirty; /* Was used before: not zero. */
    alignas(max_align_t) uint8_t data[];
};

/* A block with at least `need` bytes free, in front of the others. */
static void arena_grow(struct arena *a, size_t need)
{
    struct arena_block *block = a->spare;
    if (block != NULL && need <= BLOCK_SIZE) {
        a->spare = block->next;
        block->used = 0;
        block->dirty = true;
    } else {
        size_t room = need > BLOCK_SIZE ? need : BLOCK_SIZE;
        block = calloc(1, sizeof *block + room);
        check(block != NULL);
        block->size = room;
    }
    block->next = a->head;
    a->head = block;
}

void *arena_alloc(struct arena *a, size_t count, size_t size)
{
    size_t align = alignof(max_align_t);
    check(size > 0 && count <= (SIZE_MAX / 2) / size);
    size_t need = (count * size + align - 1) & ~(align - 1);
    if (a->head == NULL || need > a->head->size - a->head->used)
        arena_grow(a, need);
    uint8_t *mem = a->head->data + a->head->used;
    a->head->used += need;
    a->used += need;
    if (a->head->dirty)
        memset(mem, 0, need);
    return mem;
}

struct bytes arena_copy(struct arena *a, struct bytes b)
{
    if (b.len == 0)
        return (struct bytes){0};
    uint8_t *copy = arena_array(a, uint8_t, b.len);
    memcpy(copy, b.data, b.len);
    return (struct bytes){copy, b.len};
}

static void blocks_free(struct arena_block *block)
{
    while (block != NULL) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
}

void arena_clear(struct arena *a)
{
    blocks_free(a->head);
    blocks_free(a->spare);
    *a = (struct arena){0};
}

void arena_reset(struct arena *a)
{
    while (a->head != NULL) {
        struct arena_block *block = a->head;
        a->head = block->next;
        block->next = NULL;
        if (block->size > BLOCK_SIZE) {
            blocks_free(block);
        } else {
            block->next = a->spare;
            a->spare = block;
        }
    }
    a->used = 0;
}
