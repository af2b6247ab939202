/* What the dump names and only green's operator can add: roles and extensions. */
#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/schema_inner.h"

enum { NAMED_MAX = 10 }; /* In one message. */

static struct bytes view(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

struct names {
    const char **list;
    size_t count;
};

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void sort_unique(struct names *n)
{
    size_t kept = 0;
    if (n->count > 0)
        qsort(n->list, n->count, sizeof *n->list, compare);
    for (size_t i = 0; i < n->count; i++)
        if (kept == 0 || strcmp(n->list[kept - 1], n->list[i]) != 0)
            n->list[kept++] = n->list[i];
    n->count = kept;
}

/* Leaves those that `sql` does not list on green. */
static bool keep_missing(struct names *n, PGconn *green, const char *sql, struct error *err)
{
    size_t kept = 0;
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(green, sql, 0, NULL, &res, err));
    for (size_t i = 0; i < n->count; i++) {
        bool found = false;
        for (int row = 0; row < PQntuples(res) && !found; row++)
            found = strcmp(PQgetvalue(res, row, 0), n->list[i]) == 0;
        if (!found)
            n->list[kept++] = n->list[i];
    }
    n->count = kept;
    return true;
}

/* "CREATE ROLE a; CREATE ROLE b; …". */
static void put_names(struct writer *w, const struct names *n, const char *before,
                      const char *after)
{
    for (size_t i = 0; i < n->count && i < NAMED_MAX; i++) {
        writer_text(w, i == 0 ? "" : " ");
        writer_text(w, before);
        pg_quote_name(w, view(n->list[i]));
        writer_text(w, after);
    }
    if (n->count > NAMED_MAX)
        writer_printf(w, " and %zu more", n->count - NAMED_MAX);
}

static bool check_roles(const struct schema *s, struct arena *arena, PGconn *green,
                        struct error *err)
{
    const struct dump *dumps[] = {&s->pre, &s->post};
    struct names n = {
        arena_array(arena, const char *, s->pre.count + s->post.count + s->role_count + 1), 0};
    for (size_t d = 0; d < array_count(dumps); d++)
        for (size_t i = 0; i < dumps[d]->count; i++) {
            const char *owner = dumps[d]->entries[i].owner;
            bool named = strcmp(owner, "-") != 0 && owner[0] != '\0' &&
                         strncmp(owner, "pg_", strlen("pg_")) != 0;
            if (named)
                n.list[n.count++] = owner;
        }
    for (size_t i = 0; i < s->role_count; i++)
        n.list[n.count++] = s->roles[i];
    sort_unique(&n);
    TRY(keep_missing(&n, green, "select rolname from pg_roles", err));
    if (n.count == 0)
        return true;
    cleanup_with(writer_release) struct writer text = {0};
    put_names(&text, &n, "", "");
    (void)error_set(err, ERROR_CONFIG,
                    "green lacks roles that own or are granted objects of blue's: %s",
                    writer_cstr(&text));
    writer_clear(&text);
    put_names(&text, &n, "CREATE ROLE ", ";");
    return error_hint(err, "%s", writer_cstr(&text));
}

static bool check_extensions(const struct schema *s, struct arena *arena, PGconn *green,
                             struct error *err)
{
    struct names n = {arena_array(arena, const char *, s->pre.count + 1), 0};
    for (size_t i = 0; i < s->pre.count; i++)
        if (strcmp(s->pre.entries[i].type, "EXTENSION") == 0)
            n.list[n.count++] = s->pre.entries[i].name;
    sort_unique(&n);
    TRY(keep_missing(&n, green, "select name from pg_available_extensions", err));
    if (n.count == 0)
        return true;
    cleanup_with(writer_release) struct writer text = {0};
    put_names(&text, &n, "", "");
    (void)error_set(err, ERROR_CONFIG, "green's server does not offer extensions of blue's: %s",
                    writer_cstr(&text));
    return error_hint(err,
                      "install their packages on green's machine (postgresql-contrib, "
                      "postgresql-%d-NAME)",
                      PQserverVersion(green) / 10000);
}

bool schema_check_green(const struct schema *s, PGconn *green, struct error *err)
{
    cleanup_with(arena_clear) struct arena arena = {0};
    TRY(check_roles(s, &arena, green, err));
    return check_extensions(s, &arena, green, err);
}
