/* From the text of a value to the field it fills, one function a type of key. */
#include <stdlib.h>

#include "engine/options_keys.h"
#include "engine/options_value.h"

struct setting {
    struct arena *arena;
    const struct key *key;
    void *home;
    void *field;
    const char *text;
    const char *file;
    struct error *err;
};

static_assert(sizeof(enum row_mode) == sizeof(unsigned) &&
                  sizeof(enum schema_mode) == sizeof(unsigned) &&
                  sizeof(enum spool_ack) == sizeof(unsigned) &&
                  sizeof(enum ddl_policy) == sizeof(unsigned),
              "a KEY_CHOICE is stored as an unsigned");

static bool set_text(struct setting *s)
{
    *(const char **)s->field = s->text;
    return true;
}

static bool set_name(struct setting *s)
{
    TRY(value_name(s->text, s->err));
    return set_text(s);
}

static bool set_path(struct setting *s)
{
    const char *home = getenv("HOME");
    const char *slash = strrchr(s->file, '/');
    if (strncmp(s->text, "~/", 2) == 0 && home != NULL && home[0] == '/')
        s->text = value_format(s->arena, "%s%s", home, s->text + 1);
    else if (s->text[0] != '/' && slash != NULL)
        s->text = value_format(s->arena, "%.*s/%s", (int)(slash - s->file), s->file, s->text);
    return set_text(s);
}

/* The index of the text among the words, or -1. */
static int word_index(const char *words, const char *text)
{
    size_t len = strlen(text);
    for (int i = 0; *words != '\0'; i++) {
        size_t word = strcspn(words, "|");
        if (word == len && memcmp(words, text, len) == 0)
            return i;
        words += word;
        words += *words == '|';
    }
    return -1;
}

static bool find_word(struct setting *s, const char *words, unsigned *index)
{
    int found = word_index(words, s->text);
    if (found < 0) {
        (void)error_set(s->err, ERROR_CONFIG, "\"%.80s\" is not known", s->text);
        return error_hint(s->err, "expected: %s", words);
    }
    *index = (unsigned)found;
    return true;
}

static bool set_word(struct setting *s)
{
    unsigned index = 0;
    TRY(find_word(s, s->key->words, &index));
    return set_text(s);
}

static bool set_choice(struct setting *s) { return find_word(s, s->key->words, s->field); }

static bool set_flag(struct setting *s)
{
    unsigned index = 0;
    TRY(find_word(s, "no|yes", &index));
    *(bool *)s->field = index == 1;
    return true;
}

/* As the file would say it. */
static const char *limit_text(struct arena *a, enum key_type type, uint64_t value)
{
    static const struct {
        enum key_type type;
        uint64_t factor;
        const char *unit;
    } units[] = {
        {KEY_SIZE, UINT64_C(1) << 40, "TiB"},
        {KEY_SIZE, UINT64_C(1) << 30, "GiB"},
        {KEY_SIZE, UINT64_C(1) << 20, "MiB"},
        {KEY_SIZE, UINT64_C(1) << 10, "KiB"},
        {KEY_DURATION, UINT64_C(3600000000), "h"},
        {KEY_DURATION, 60000000, "m"},
        {KEY_DURATION, 1000000, "s"},
        {KEY_DURATION, 1000, "ms"},
    };
    for (size_t i = 0; i < array_count(units); i++)
        if (units[i].type == type && value % units[i].factor == 0)
            return value_format(a, "%llu%s", (unsigned long long)(value / units[i].factor),
                                units[i].unit);
    return value_format(a, "%llu", (unsigned long long)value);
}

static bool check_limits(struct setting *s, uint64_t value)
{
    const struct key *key = s->key;
    if (value >= key->min && value <= key->max)
        return true;
    (void)error_set(s->err, ERROR_CONFIG, "%.80s is out of range", s->text);
    return error_hint(s->err, "expected: %s to %s", limit_text(s->arena, key->type, key->min),
                      limit_text(s->arena, key->type, key->max));
}

static bool set_count(struct setting *s)
{
    TRY(value_count(s->text, s->field, s->err));
    return check_limits(s, *(uint64_t *)s->field);
}

static bool set_size(struct setting *s)
{
    TRY(options_size(s->text, s->field, s->err));
    return check_limits(s, *(uint64_t *)s->field);
}

static bool set_duration(struct setting *s)
{
    TRY(options_duration(s->text, s->field, s->err));
    return check_limits(s, (uint64_t) * (int64_t *)s->field);
}

static bool set_list(struct setting *s, const struct text_list *list)
{
    *(size_t *)(void *)((char *)s->home + s->key->count) = list->count;
    *(const char *const **)s->field = list->items;
    return true;
}

static bool set_globs(struct setting *s)
{
    struct text_list list;
    TRY(value_list(s->arena, s->text, &list, s->err));
    for (size_t i = 0; i < list.count; i++)
        TRY(value_glob(s->arena, list.items[i], &list.items[i], s->err));
    return set_list(s, &list);
}

static bool set_tables(struct setting *s)
{
    struct text_list list;
    TRY(value_list(s->arena, s->text, &list, s->err));
    for (size_t i = 0; i < list.count; i++) {
        struct table_name name;
        TRY(value_table(s->arena, list.items[i], &name, s->err));
        list.items[i] = value_format(s->arena, "%s.%s", name.schema, name.table);
    }
    return set_list(s, &list);
}

static bool set_table(struct setting *s)
{
    struct table_options *table = s->home;
    struct table_name name;
    TRY(value_table(s->arena, s->text, &name, s->err));
    table->to_schema = name.schema;
    table->to_table = name.table;
    return true;
}

static bool set_columns(struct setting *s)
{
    struct table_options *table = s->home;
    struct text_list list;
    TRY(value_list(s->arena, s->text, &list, s->err));
    struct table_column_map *columns =
        arena_array(s->arena, struct table_column_map, list.count);
    for (size_t i = 0; i < list.count; i++) {
        TRY(value_column(s->arena, list.items[i], &columns[i], s->err));
        for (size_t k = 0; k < i; k++) {
            if (strcmp(columns[k].from, columns[i].from) == 0)
                return error_set(s->err, ERROR_CONFIG, "%.200s is there twice",
                                 columns[i].from);
            if (strcmp(columns[k].to, columns[i].to) == 0)
                return error_set(s->err, ERROR_CONFIG, "two columns become %.200s",
                                 columns[i].to);
        }
    }
    table->columns = columns;
    table->column_count = list.count;
    return true;
}

static bool set_argv(struct setting *s)
{
    struct hook_options *hook = s->home;
    hook->exec = s->text;
    return value_argv(s->arena, s->text, &hook->argv, s->err);
}

static bool set_listen(struct setting *s)
{
    struct options *o = s->home;
    return value_listen(s->arena, s->text, &o->listen_host, &o->listen_port, s->err);
}

static bool (*const setters[])(struct setting *s) = {
    [KEY_NAME] = set_name,         [KEY_TEXT] = set_text,   [KEY_SECRET] = set_text,
    [KEY_PATH] = set_path,         [KEY_WORD] = set_word,   [KEY_CHOICE] = set_choice,
    [KEY_FLAG] = set_flag,         [KEY_COUNT] = set_count, [KEY_SIZE] = set_size,
    [KEY_DURATION] = set_duration, [KEY_GLOBS] = set_globs, [KEY_TABLES] = set_tables,
    [KEY_COLUMNS] = set_columns,   [KEY_TABLE] = set_table, [KEY_ARGV] = set_argv,
    [KEY_LISTEN] = set_listen,
};

bool key_set(struct arena *a, const struct key *key, void *home, const char *text,
             const char *file, struct error *err)
{
    struct setting s = {
        .arena = a,
        .key = key,
        .home = home,
        .field = (char *)home + key->offset,
        .text = value_copy(a, text, strlen(text)),
        .file = file,
        .err = err,
    };
    if (text[0] == '\0')
        return error_set(err, ERROR_CONFIG, "no value");
    return setters[key->type](&s);
}
