#include "engine/base/map.h"

#include <stdlib.h>
#include <string.h>

enum { SIZE_FIRST = 16 };

/* Ids come in runs; spread them. (The finaliser of a 64-bit mixing function.) */
static size_t map_home(const struct map *m, uint64_t key)
{
    key ^= key >> 32;
    key *= UINT64_C(0x9e3779b97f4a7c15);
    key ^= key >> 29;
    return (size_t)key & (m->size - 1);
}

/* The slot of `key`, or the free one where it belongs. */
static struct map_slot *map_slot(const struct map *m, uint64_t key)
{
    size_t i = map_home(m, key);
    while (m->slots[i].value != NULL && m->slots[i].key != key)
        i = (i + 1) & (m->size - 1);
    return &m->slots[i];
}

static void map_grow(struct map *m)
{
    struct map old = *m;
    m->size = old.size == 0 ? SIZE_FIRST : old.size * 2;
    m->slots = calloc(m->size, sizeof *m->slots);
    check(m->slots != NULL);
    for (size_t i = 0; i < old.size; i++)
        if (old.slots[i].value != NULL)
            *map_slot(m, old.slots[i].key) = old.slots[i];
    free(old.slots);
}

void *map_get(const struct map *m, uint64_t key)
{
    return m->size == 0 ? NULL : map_slot(m, key)->value;
}

void map_put(struct map *m, uint64_t key, void *value)
{
    check(value != NULL);
    if ((m->count + 1) * 2 > m->size)
        map_grow(m);
    struct map_slot *slot = map_slot(m, key);
    m->count += slot->value == NULL;
    *slot = (struct map_slot){key, value};
}

/* Closes the gap at `hole`, so that every probe sequence stays unbroken. */
static void map_close_gap(struct map *m, size_t hole)
{
    for (size_t i = (hole + 1) & (m->size - 1); m->slots[i].value != NULL;
         i = (i + 1) & (m->size - 1)) {
        size_t home = map_home(m, m->slots[i].key);
        size_t distance = (i - home) & (m->size - 1);
        if (distance >= ((i - hole) & (m->size - 1))) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole].value = NULL;
}

void *map_remove(struct map *m, uint64_t key)
{
    if (m->size == 0)
        return NULL;
    struct map_slot *slot = map_slot(m, key);
    void *value = slot->value;
    if (value != NULL) {
        map_close_gap(m, (size_t)(slot - m->slots));
        m->count--;
    }
    return value;
}

void *map_next(const struct map *m, size_t *at)
{
    while (*at < m->size) {
        void *value = m->slots[(*at)++].value;
        if (value != NULL)
            return value;
    }
    return NULL;
}

void map_clear(struct map *m)
{
    if (m->size > 0)
        memset(m->slots, 0, m->size * sizeof *m->slots);
    m->count = 0;
}

void map_release(struct map *m)
{
    free(m->slots);
    *m = (struct map){0};
}
