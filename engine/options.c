/* Reading teal.ini. A section opens a home (the options themselves, or a fresh element for a
 * repeatable one) filled with the defaults of its keys; each pair sets a field of that home;
 * the next section, or the end, closes it and checks what concerns it alone. What concerns
 * several sections is checked at the very end, and only then a password is fetched: a command
 * is not run for a file that is wrong. */
#include "engine/options.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <sys/un.h>

#include "engine/base/file.h"
#include "engine/options_endpoint.h"
#include "engine/options_ini.h"
#include "engine/options_keys.h"
#include "engine/options_value.h"

enum { FILE_MAX_BYTES = 1024 * 1024 };

/* The elements of a repeatable section. */
struct group {
    char *items;
    size_t count;
};

struct parser {
    struct ini_sink sink;
    struct options *o;
    struct arena *arena;
    const struct section *section; /* NULL: none yet. */
    void *home;
    unsigned opened;                         /* The line of the section. */
    unsigned given[KEYS_MAX];                /* The lines of its keys. */
    unsigned lines[SECTION_COUNT][KEYS_MAX]; /* The same of every single section. */
    unsigned heads[SECTION_COUNT];
    struct group groups[HOME_COUNT];
};

static const size_t home_sizes[HOME_COUNT] = {
    [HOME_TABLE] = sizeof(struct table_options),
    [HOME_HOOK] = sizeof(struct hook_options),
    [HOME_POOLER] = sizeof(struct pooler_options),
};

static size_t section_index(const struct section *s) { return (size_t)(s - option_sections); }

static const struct section *section_find(const char *name, size_t len)
{
    for (size_t i = 0; i < SECTION_COUNT; i++)
        if (strlen(option_sections[i].name) == len &&
            memcmp(option_sections[i].name, name, len) == 0)
            return &option_sections[i];
    return NULL;
}

static const struct key *key_find(const struct section *s, const char *name)
{
    for (size_t i = 0; i < s->key_count; i++)
        if (strcmp(s->keys[i].name, name) == 0)
            return &s->keys[i];
    return NULL;
}

/* Where a key of a single section was given, for messages. */
static unsigned line_of(const struct parser *p, const char *section, const char *key)
{
    const struct section *s = section_find(section, strlen(section));
    const struct key *k = s == NULL ? NULL : key_find(s, key);
    check(k != NULL);
    unsigned line = p->lines[section_index(s)][k - s->keys];
    return line != 0 ? line : p->heads[section_index(s)];
}

/* Puts "file:line" before an error. */
static bool fail_at(const struct parser *p, unsigned line, struct error *err)
{
    if (line == 0)
        return error_wrap(err, "%s", p->o->file);
    return error_wrap(err, "%s:%u", p->o->file, line);
}

static void set_defaults(struct parser *p, const struct section *s, void *home)
{
    check(s->key_count <= KEYS_MAX);
    for (size_t i = 0; i < s->key_count; i++) {
        struct error err = {0};
        const struct key *key = &s->keys[i];
        if (key->fallback != NULL)
            check(key_set(p->arena, key, home, key->fallback, p->o->file, &err));
    }
}

/* A fresh element at the end of the group. */
static void *group_add(struct parser *p, enum section_home home)
{
    struct group *g = &p->groups[home];
    size_t size = home_sizes[home];
    if ((g->count & (g->count - 1)) == 0) {
        char *items = arena_alloc(p->arena, g->count == 0 ? 1 : g->count * 2, size);
        if (g->count > 0)
            memcpy(items, g->items, g->count * size);
        g->items = items;
    }
    return g->items + size * g->count++;
}

static bool open_table(struct parser *p, struct table_options *t, const char *argument,
                       struct error *err)
{
    struct table_name name;
    TRY(value_table(p->arena, argument, &name, err));
    *t = (struct table_options){
        .name = value_format(p->arena, "%s.%s", name.schema, name.table),
        .schema = name.schema,
        .table = name.table,
        .to_schema = name.schema,
        .to_table = name.table,
    };
    for (struct table_options *other = (void *)p->groups[HOME_TABLE].items; other < t; other++)
        if (strcmp(other->schema, t->schema) == 0 && strcmp(other->table, t->table) == 0)
            return error_set(err, ERROR_CONFIG, "section [table %.200s] is there twice",
                             argument);
    return true;
}

static bool open_hook(struct parser *p, struct hook_options *h, const char *argument,
                      struct error *err)
{
    static const char *const steps[] = {"drain", "fence", "flip", "resume", "unfence"};
    for (size_t i = 0; i < array_count(steps); i++)
        if (strcmp(steps[i], argument) == 0)
            h->step = steps[i];
    if (h->step == NULL) {
        (void)error_set(err, ERROR_CONFIG, "unknown hook \"%.80s\"", argument);
        return error_hint(err, "expected: drain, fence, flip, resume, unfence");
    }
    for (struct hook_options *other = (void *)p->groups[HOME_HOOK].items; other < h; other++)
        if (other->step == h->step)
            return error_set(err, ERROR_CONFIG, "section [hook %s] is there twice", argument);
    return true;
}

static bool open_pooler(struct parser *p, struct pooler_options *w, const char *argument,
                        struct error *err)
{
    TRY(value_name(argument, err));
    w->name = value_copy(p->arena, argument, strlen(argument));
    for (struct pooler_options *other = (void *)p->groups[HOME_POOLER].items; other < w;
         other++)
        if (strcmp(other->name, argument) == 0)
            return error_set(err, ERROR_CONFIG, "section [pooler %s] is there twice", argument);
    return true;
}

static bool close_table(struct parser *p, struct table_options *t, struct error *err)
{
    for (struct table_options *other = (void *)p->groups[HOME_TABLE].items; other < t; other++)
        if (strcmp(other->to_schema, t->to_schema) == 0 &&
            strcmp(other->to_table, t->to_table) == 0)
            return error_set(err, ERROR_CONFIG, "%.200s and %.200s become the same table",
                             other->name, t->name);
    return true;
}

static bool close_pooler(struct parser *p, struct pooler_options *w, struct error *err)
{
    if (strcmp(w->kind, "haproxy") == 0) {
        w->admin.scheme = w->kind;
        w->admin.shown = w->admin.conninfo;
        return true;
    }
    if (w->config == NULL) {
        (void)error_set(err, ERROR_CONFIG, "[pooler %s] lacks \"config\"", w->name);
        return error_hint(err, "the file with [databases], which a flip rewrites");
    }
    if (!endpoint_make(p->arena, w->admin.conninfo, NULL, &w->admin, err))
        return error_wrap(err, "admin of [pooler %s]", w->name);
    if (strcmp(w->admin.scheme, "postgresql") != 0)
        return error_set(err, ERROR_CONFIG, "admin of [pooler %s] is not a postgresql:// URI",
                         w->name);
    return true;
}

/* Checks the section that ends here; a failure is blamed on its head. */
static bool section_close(struct parser *p, struct error *err)
{
    const struct section *s = p->section;
    if (s == NULL)
        return true;
    for (size_t i = 0; i < s->key_count; i++)
        if (s->keys[i].required && p->given[i] == 0) {
            (void)error_set(err, ERROR_CONFIG, "section [%s] lacks \"%s\"", s->name,
                            s->keys[i].name);
            p->sink.line = p->opened;
            return error_hint(err, "%s", s->keys[i].help);
        }
    if (s->home == HOME_OPTIONS)
        memcpy(p->lines[section_index(s)], p->given, sizeof p->given);
    bool good = true;
    if (s->home == HOME_TABLE)
        good = close_table(p, p->home, err);
    else if (s->home == HOME_POOLER)
        good = close_pooler(p, p->home, err);
    if (!good)
        p->sink.line = p->opened;
    return good;
}

static bool unknown_section(const char *head, struct error *err)
{
    cleanup_with(writer_release) struct writer all = {0};
    for (size_t i = 0; i < SECTION_COUNT; i++)
        writer_printf(&all, "%s%s%s%s", i == 0 ? "" : ", ", option_sections[i].name,
                      option_sections[i].argument == NULL ? "" : " ",
                      option_sections[i].argument == NULL ? "" : "…");
    (void)error_set(err, ERROR_CONFIG, "unknown section [%.200s]", head);
    return error_hint(err, "expected: %s", writer_cstr(&all));
}

static bool open_single(struct parser *p, const struct section *s, const char *argument,
                        struct error *err)
{
    unsigned *first = &p->heads[section_index(s)];
    if (argument[0] != '\0')
        return error_set(err, ERROR_CONFIG, "section [%s] takes no name", s->name);
    if (*first != 0)
        return error_set(err, ERROR_CONFIG, "section [%s] is there twice, first in line %u",
                         s->name, *first);
    *first = p->sink.line;
    p->home = p->o;
    return true;
}

static bool section_open(struct parser *p, const char *head, struct error *err)
{
    size_t len = strcspn(head, " \t");
    const struct section *s = section_find(head, len);
    const char *argument = head + len + strspn(head + len, " \t");
    if (s == NULL)
        return unknown_section(head, err);
    p->section = s;
    p->opened = p->sink.line;
    memset(p->given, 0, sizeof p->given);
    if (s->home == HOME_OPTIONS)
        return open_single(p, s, argument, err);
    if (argument[0] == '\0') {
        (void)error_set(err, ERROR_CONFIG, "section [%s] lacks a name", s->name);
        return error_hint(err, "as in [%s %s]", s->name, s->argument);
    }
    p->home = group_add(p, s->home);
    if (s->home == HOME_TABLE)
        TRY(open_table(p, p->home, argument, err));
    else if (s->home == HOME_HOOK)
        TRY(open_hook(p, p->home, argument, err));
    else
        TRY(open_pooler(p, p->home, argument, err));
    set_defaults(p, s, p->home);
    return true;
}

static bool on_section(struct ini_sink *sink, const char *head, struct error *err)
{
    struct parser *p = container_of(sink, struct parser, sink);
    TRY(section_close(p, err));
    return section_open(p, head, err);
}

static bool unknown_key(const struct section *s, const char *name, struct error *err)
{
    cleanup_with(writer_release) struct writer all = {0};
    for (size_t i = 0; i < s->key_count; i++)
        writer_printf(&all, "%s%s", i == 0 ? "" : ", ", s->keys[i].name);
    (void)error_set(err, ERROR_CONFIG, "unknown key \"%.80s\" in [%s]", name, s->name);
    return error_hint(err, "expected: %s", writer_cstr(&all));
}

static bool pair_set(struct parser *p, const char *name, const char *value, struct error *err)
{
    const struct section *s = p->section;
    if (s == NULL)
        return error_set(err, ERROR_CONFIG, "key \"%.80s\" before any section", name);
    const struct key *key = key_find(s, name);
    if (key == NULL)
        return unknown_key(s, name, err);
    unsigned *given = &p->given[key - s->keys];
    if (*given != 0)
        return error_set(err, ERROR_CONFIG,
                         "key \"%s\" in [%s] is there twice, first in line %u", name, s->name,
                         *given);
    *given = p->sink.line;
    if (!key_set(p->arena, key, p->home, value, p->o->file, err))
        return error_wrap(err, "%s in [%s]", name, s->name);
    return true;
}

static bool on_pair(struct ini_sink *sink, const char *key, const char *value,
                    struct error *err)
{
    struct parser *p = container_of(sink, struct parser, sink);
    return pair_set(p, key, value, err);
}

/* The single sections that cannot be left out are there. */
static bool check_sections(const struct parser *p, struct error *err)
{
    for (size_t i = 0; i < SECTION_COUNT; i++) {
        const struct section *s = &option_sections[i];
        for (size_t k = 0; k < s->key_count; k++) {
            if (s->home != HOME_OPTIONS || !s->keys[k].required || p->heads[i] != 0)
                continue;
            (void)error_set(err, ERROR_CONFIG, "section [%s] is missing", s->name);
            (void)error_hint(err, "it needs \"%s\": %s", s->keys[k].name, s->keys[k].help);
            return fail_at(p, 0, err);
        }
    }
    return true;
}

static bool set_side(struct parser *p, const char *side, struct endpoint *e, struct error *err)
{
    if (e->password_file != NULL && e->password_command != NULL) {
        (void)error_set(err, ERROR_CONFIG, "[%s] has both password-file and password-command",
                        side);
        return fail_at(p, line_of(p, side, "password-command"), err);
    }
    if (endpoint_make(p->arena, e->conninfo, NULL, e, err))
        return true;
    (void)error_wrap(err, "uri in [%s]", side);
    return fail_at(p, line_of(p, side, "uri"), err);
}

static bool check_sides(struct parser *p, struct error *err)
{
    struct options *o = p->o;
    TRY(set_side(p, "blue", &o->blue, err));
    TRY(set_side(p, "green", &o->green, err));
    if (strcmp(o->blue.scheme, o->green.scheme) != 0)
        (void)error_set(err, ERROR_CONFIG, "blue is %s and green is %s; they must be the same",
                        o->blue.scheme, o->green.scheme);
    else if (strcmp(o->blue.shown, o->green.shown) == 0)
        (void)error_set(err, ERROR_CONFIG, "blue and green are the same database");
    return err->kind == ERROR_NONE || fail_at(p, line_of(p, "green", "uri"), err);
}

static bool set_state(struct parser *p, struct error *err)
{
    struct options *o = p->o;
    const char *base = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    if (o->state != NULL)
        return true;
    if (base != NULL && base[0] == '/') {
        o->state = value_format(p->arena, "%s/teal/%s", base, o->name);
    } else if (home != NULL && home[0] == '/') {
        o->state = value_format(p->arena, "%s/.local/state/teal/%s", home, o->name);
    } else {
        (void)error_set(err, ERROR_CONFIG, "no place for the state folder: HOME is not set");
        (void)error_hint(err, "set \"state\" in [migration]");
        return fail_at(p, p->heads[0], err);
    }
    return true;
}

static bool set_places(struct parser *p, struct error *err)
{
    struct options *o = p->o;
    TRY(set_state(p, err));
    if (o->spool_path == NULL)
        o->spool_path = value_format(p->arena, "%s/spool", o->state);
    if (o->socket == NULL)
        o->socket = value_format(p->arena, "%s/teal.sock", o->state);
    size_t most = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;
    if (strlen(o->socket) <= most)
        return true;
    (void)error_set(err, ERROR_CONFIG, "the socket's path is longer than %zu bytes: %s", most,
                    o->socket);
    (void)error_hint(err, "set \"socket\" in [control] to a shorter one");
    return fail_at(p, line_of(p, "control", "socket"), err);
}

static bool finish(struct parser *p, struct error *err)
{
    struct options *o = p->o;
    TRY(check_sections(p, err));
    TRY(check_sides(p, err));
    TRY(set_places(p, err));
    o->table_count = p->groups[HOME_TABLE].count;
    o->tables = (const void *)p->groups[HOME_TABLE].items;
    o->hook_count = p->groups[HOME_HOOK].count;
    o->hooks = (const void *)p->groups[HOME_HOOK].items;
    o->pooler_count = p->groups[HOME_POOLER].count;
    o->poolers = (const void *)p->groups[HOME_POOLER].items;
    if (strcmp(o->cutover_fence, "hook") != 0 || options_hook(o, "fence") != NULL)
        return true;
    (void)error_set(err, ERROR_CONFIG,
                    "fence = hook in [cutover] needs a section [hook fence]");
    return fail_at(p, line_of(p, "cutover", "fence"), err);
}

static bool parse(struct parser *p, struct bytes text, struct error *err)
{
    for (size_t i = 0; i < SECTION_COUNT; i++)
        if (option_sections[i].home == HOME_OPTIONS)
            set_defaults(p, &option_sections[i], p->o);
    if (!ini_read(text, &p->sink, err) || !section_close(p, err))
        return fail_at(p, p->sink.line, err);
    return finish(p, err);
}

static void parser_release(struct parser *p) { options_free(p->o); }

static struct parser parser_of(const char *path)
{
    struct options *o = calloc(1, sizeof *o);
    check(o != NULL);
    o->file = value_copy(&o->arena, path, strlen(path));
    return (struct parser){
        .sink = {.section = on_section, .pair = on_pair}, .o = o, .arena = &o->arena};
}

bool options_parse(const char *path, struct bytes text, struct options **out, struct error *err)
{
    cleanup_with(parser_release) struct parser p = parser_of(path);
    TRY(parse(&p, text, err));
    *out = p.o;
    p.o = NULL;
    return true;
}

static bool resolve_side(struct parser *p, const char *side, struct endpoint *e,
                         struct error *err)
{
    if (endpoint_resolve(p->arena, e, err))
        return true;
    bool command = e->password_command != NULL;
    return fail_at(p, line_of(p, side, command ? "password-command" : "password-file"), err);
}

bool options_load(const char *path, struct options **out, struct error *err)
{
    cleanup_with(writer_release) struct writer text = {0};
    cleanup_with(parser_release) struct parser p = parser_of(path);
    if (!file_read(path, FILE_MAX_BYTES, &text, err)) {
        err->kind = ERROR_CONFIG;
        return error_hint(err, "teal init writes one; -c names another");
    }
    TRY(parse(&p, writer_view(&text), err));
    TRY(resolve_side(&p, "blue", &p.o->blue, err));
    TRY(resolve_side(&p, "green", &p.o->green, err));
    *out = p.o;
    p.o = NULL;
    return true;
}

void options_free(struct options *o)
{
    if (o != NULL)
        arena_clear(&o->arena);
    free(o);
}

static bool matches(const char *name, const char *const *globs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fnmatch(globs[i], name, 0) == 0)
            return true;
    return false;
}

bool options_includes(const struct options *o, const char *schema, const char *table)
{
    cleanup_with(writer_release) struct writer name = {0};
    writer_printf(&name, "%s.%s", schema, table);
    const char *whole = writer_cstr(&name);
    return (o->include_count == 0 || matches(whole, o->include, o->include_count)) &&
           !matches(whole, o->exclude, o->exclude_count);
}

static bool text_is(const char *text, struct bytes b)
{
    return bytes_equal((struct bytes){(const uint8_t *)text, strlen(text)}, b);
}

const struct table_options *options_table(const struct options *o, struct bytes schema,
                                          struct bytes table)
{
    for (size_t i = 0; i < o->table_count; i++)
        if (text_is(o->tables[i].schema, schema) && text_is(o->tables[i].table, table))
            return &o->tables[i];
    return NULL;
}

const struct hook_options *options_hook(const struct options *o, const char *step)
{
    for (size_t i = 0; i < o->hook_count; i++)
        if (strcmp(o->hooks[i].step, step) == 0)
            return &o->hooks[i];
    return NULL;
}
