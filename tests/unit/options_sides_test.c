/* URIs, passwords, and the file of `teal init`. */
#include "tests/unit/options_fixture.h"

/* The sides replaced; the URIs are in lines 4 and 6. */
static void sides_text(char text[2048], const char *blue, const char *green)
{
    assert_true(snprintf(text, 2048,
                         "[migration]\nname = shop\n[blue]\nuri = %s\n[green]\nuri = %s\n",
                         blue, green) < 2048);
}

static struct options *parse_blue(const char *blue)
{
    char text[2048];
    sides_text(text, blue, "postgresql://other/else");
    return parse_text(text);
}

static void expect_shown(const char *blue, const char *shown)
{
    struct options *o = parse_blue(blue);
    assert_string_equal(o->blue.shown, shown);
    assert_string_equal(o->blue.conninfo, blue);
    options_free(o);
}

static void expect_uri_error(const char *blue, const char *expected)
{
    char text[2048];
    sides_text(text, blue, "postgresql://other/else");
    expect_error(text, expected);
}

static void shown_has_no_password(void **state)
{
    (void)state;
    expect_shown("postgresql://u:hunter2@h:5432/d?sslmode=require",
                 "postgresql://u@h:5432/d?sslmode=require");
    expect_shown("postgres://u:p%40%2Fx@h/d", "postgresql://u@h/d");
    expect_shown("postgresql://u:a?b:c@h", "postgresql://u@h");
    expect_shown("postgresql://h/d?password=hunter2&sslmode=disable&user=me@corp",
                 "postgresql://h/d?sslmode=disable&user=me@corp");
    expect_shown("postgresql://h/d?a=b&p%61ssword=hunter2", "postgresql://h/d?a=b");
    expect_shown("postgresql://h/d?sslpassword=hunter2&a=b", "postgresql://h/d?a=b");
    expect_shown("postgresql://u@[::1]:1,h2:2/d", "postgresql://u@[::1]:1,h2:2/d");
    expect_shown("postgresql:///d?host=/tmp", "postgresql:///d?host=/tmp");
    expect_shown(
        "host=/tmp dbname='my db' password='hun\\'ter 2' user = 'u' application_name=''",
        "host=/tmp dbname='my db' user=u application_name=''");
    expect_shown("password=x\\ y host=a", "host=a");
}

static void uris_that_could_hide_a_password_are_refused_and_not_repeated(void **state)
{
    (void)state;
#define AT_URI "teal.ini:4: uri in [blue]: the URI is not valid: "
    expect_uri_error("postgresql://u:hun/ter@h/d", AT_URI "a port is not a number");
    expect_uri_error("postgresql://u/hunter@h/d", AT_URI "an @ behind the host");
    expect_uri_error("postgresql://u:hun@ter@h/d", AT_URI "two @ before the host");
    expect_uri_error("postgresql://u@[::1/d", AT_URI "no closing ] after a host");
    expect_uri_error("postgresql://u:100%@h/d", AT_URI "a % without two hex digits after it");
    expect_uri_error("postgresql://u:%00@h/d", AT_URI "a % without two hex digits after it");
    expect_uri_error("postgresql://h/d?hunter2", AT_URI "a parameter is not key=value");
    expect_uri_error("oracle://u:hunter2@h/d",
                     "teal.ini:4: uri in [blue]: the URI's scheme is not known");
    expect_uri_error("hunter2",
                     "teal.ini:4: uri in [blue]: the connection string is not key=value pairs");
    expect_uri_error("password='hunter2",
                     "teal.ini:4: uri in [blue]: the connection string lacks a closing quote");
    expect_uri_error("dbname=postgresql://u:hunter2@h/d",
                     "teal.ini:4: uri in [blue]: dbname holds another connection string");
}

static void sides_must_differ_and_be_of_one_kind(void **state)
{
    (void)state;
    char text[2048];
    sides_text(text, "postgresql://h/d", "mysql://h/d");
    expect_error(text,
                 "teal.ini:6: blue is postgresql and green is mysql; they must be the same");
    sides_text(text, "postgresql://u:a@h/d", "postgres://u:b@h/d");
    expect_error(text, "teal.ini:6: blue and green are the same database");
    sides_text(text, "mysql://u:a@h/d?ssl-mode=REQUIRED", "mysql://u@g");
    struct options *o = parse_text(text);
    assert_string_equal(o->blue.scheme, "mysql");
    assert_string_equal(o->blue.shown, "mysql://u@h/d?ssl-mode=REQUIRED");
    options_free(o);
}

/* Writes `text` to a file in `folder`. */
static void write_file(const char *folder, const char *name, const char *text, mode_t mode)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* Loads a file whose [blue] has the lines `more` from line 5 on. */
static bool load_blue(const char *folder, const char *uri, const char *more,
                      struct options **out, struct error *err)
{
    char text[2048];
    char path[256];
    (void)snprintf(text, sizeof text,
                   "[migration]\nname = shop\n[blue]\nuri = %s\n%s\n"
                   "[green]\nuri = postgresql://green/shop\n",
                   uri, more);
    write_file(folder, "teal.ini", text, 0600);
    (void)snprintf(path, sizeof path, "%s/teal.ini", folder);
    *out = NULL;
    error_clear(err);
    return options_load(path, out, err);
}

static void expect_password(const char *folder, const char *uri, const char *more,
                            const char *conninfo)
{
    struct options *o = NULL;
    struct error err = {0};
    if (!load_blue(folder, uri, more, &o, &err))
        fail_msg("%s", err.text);
    assert_string_equal(o->blue.conninfo, conninfo);
    assert_null(strstr(o->blue.shown, "word"));
    options_free(o);
}

static void expect_password_error(const char *folder, const char *more, const char *expected)
{
    struct options *o = NULL;
    struct error err = {0};
    assert_false(load_blue(folder, "postgresql://u@h/d", more, &o, &err));
    assert_int_equal(err.kind, ERROR_CONFIG);
    if (strstr(err.text, expected) == NULL)
        fail_msg("got: %s\nnot: %s", err.text, expected);
}

static void make_folder(char folder[32])
{
    (void)snprintf(folder, 32, "/tmp/options.XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void remove_folder(const char *folder)
{
    static const char *const names[] = {"teal.ini", "pw", "open", "empty"};
    char path[256];
    for (size_t i = 0; i < array_count(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void passwords_come_from_file_or_command(void **state)
{
    (void)state;
    char folder[32];
    make_folder(folder);
    write_file(folder, "pw", "p@ss'\\ word&1\nsecond\n", 0600);
    write_file(folder, "open", "x\n", 0640);
    write_file(folder, "empty", "\n", 0600);
    expect_password(folder, "postgresql://u@h/d", "password-file = pw",
                    "postgresql://u@h/d?password=p%40ss%27%5C%20word%261");
    expect_password(folder, "postgresql://u@h/d?", "password-file = pw",
                    "postgresql://u@h/d?password=p%40ss%27%5C%20word%261");
    expect_password(folder, "postgresql://u@h/d?a=b", "password-command = echo word; echo more",
                    "postgresql://u@h/d?a=b&password=word");
    expect_password(folder, "host=h dbname=d", "password-file = pw",
                    "host=h dbname=d password='p@ss\\'\\\\ word&1'");
    expect_password(folder, "postgresql://u@h/d",
                    "password-command = printf 'word\\n'; head -c 300000 /dev/zero",
                    "postgresql://u@h/d?password=word");
    expect_password_error(folder, "password-file = open", "/teal.ini:5: password-file /tmp/");
    expect_password_error(folder, "password-file = open", "is open to others than its owner");
    expect_password_error(folder, "password-file = empty", "has no first line");
    expect_password_error(folder, "password-file = none", "No such file");
    expect_password_error(folder, "password-file = .", "is not a file");
    expect_password_error(folder, "\npassword-command = echo word; exit 3",
                          "/teal.ini:6: password-command exited with 3");
    expect_password_error(folder, "password-command = true", "printed no first line");
    expect_password_error(folder, "password-file = pw\npassword-command = true",
                          "/teal.ini:6: [blue] has both password-file and password-command");
    struct options *o = NULL;
    struct error err = {0};
    assert_false(
        load_blue(folder, "postgresql://u:hunter2@h/d", "password-file = pw", &o, &err));
    assert_non_null(strstr(err.text, ":4: uri in [blue]: the password is given twice"));
    remove_folder(folder);
}

static void a_wrong_file_runs_no_command(void **state)
{
    (void)state;
    char folder[32];
    char more[256];
    make_folder(folder);
    struct options *o = NULL;
    struct error err = {0};
    (void)snprintf(more, sizeof more, "password-command = touch %s/pw; echo x\n[nonsense]",
                   folder);
    assert_false(load_blue(folder, "postgresql://u@h/d", more, &o, &err));
    char path[256];
    (void)snprintf(path, sizeof path, "%s/pw", folder);
    assert_int_not_equal(access(path, F_OK), 0);
    remove_folder(folder);
}

static void a_missing_file_is_a_configuration_error(void **state)
{
    (void)state;
    struct options *o = NULL;
    struct error err = {0};
    assert_false(options_load("/nowhere/teal.ini", &o, &err));
    assert_int_equal(err.kind, ERROR_CONFIG);
    assert_non_null(strstr(err.text, "/nowhere/teal.ini"));
    assert_null(o);
}

static void example_is_valid_and_has_no_secrets(void **state)
{
    (void)state;
    cleanup_with(writer_release) struct writer text = {0};
    struct error err = {0};
    char folder[32];
    char path[256];
    assert_true(options_write_example("shop", "postgresql://u:hunter2@b/d?sslmode=prefer",
                                      "host=g password=hunter2", &text, &err));
    assert_null(strstr(writer_cstr(&text), "hunter2"));
    make_folder(folder);
    write_file(folder, "teal.ini", writer_cstr(&text), 0600);
    (void)snprintf(path, sizeof path, "%s/teal.ini", folder);
    struct options *o = NULL;
    if (!options_load(path, &o, &err))
        fail_msg("%s", err.text);
    assert_string_equal(o->name, "shop");
    assert_string_equal(o->blue.conninfo, "postgresql://u@b/d?sslmode=prefer");
    assert_string_equal(o->green.conninfo, "host=g");
    assert_int_equal(o->copy_jobs, 4);
    assert_int_equal(o->table_count + o->hook_count + o->pooler_count + o->include_count, 0);
    options_free(o);
    remove_folder(folder);
}

/* Every commented key works as it stands: all but one of two that exclude each other. */
static void example_is_valid_with_every_key_active(void **state)
{
    (void)state;
    cleanup_with(writer_release) struct writer text = {0};
    cleanup_with(writer_release) struct writer active = {0};
    struct error err = {0};
    assert_true(
        options_write_example("shop", "postgresql://b/d", "postgresql://g/d", &text, &err));
    char *line = NULL;
    (void)writer_cstr(&text);
    for (char *at = (char *)text.data; (line = strsep(&at, "\n")) != NULL;)
        if (strncmp(line, ";password-command", 17) != 0)
            writer_printf(&active, "%s\n", line + (line[0] == ';'));
    struct options *o = parse_text(writer_cstr(&active));
    assert_string_equal(o->state, "/var/lib/teal/shop");
    assert_string_equal(o->blue.password_file, "/etc/teal/blue.password");
    assert_string_equal(o->tables[0].to_table, "purchase");
    assert_int_equal(o->tables[0].column_count, 3);
    assert_string_equal(o->hooks[0].argv[1], "--fast");
    assert_string_equal(o->poolers[0].config, "/etc/pgbouncer/databases.ini");
    assert_int_equal(o->listen_port, 7654);
    assert_int_equal(o->cutover_terminate_after_us, 2000000);
    options_free(o);
}

static void example_refuses_what_it_could_not_hold(void **state)
{
    (void)state;
    static const char *const bad[][3] = {
        {"Shop", "postgresql://b/d", "postgresql://g/d"},
        {"shop", "postgresql://b/d", "mysql://g/d"},
        {"shop", "postgres://u@b/d", "postgresql://u:x@b/d"},
        {"shop", "postgresql://b/d ;c", "postgresql://g/d"},
        {"shop", "postgresql://b/d\n[x]", "postgresql://g/d"},
        {"shop", "password=x", "postgresql://g/d"},
        {"shop", "", "postgresql://g/d"},
    };
    for (size_t i = 0; i < array_count(bad); i++) {
        cleanup_with(writer_release) struct writer text = {0};
        struct error err = {0};
        if (options_write_example(bad[i][0], bad[i][1], bad[i][2], &text, &err))
            fail_msg("taken: %s %s %s", bad[i][0], bad[i][1], bad[i][2]);
        assert_int_equal(err.kind, ERROR_CONFIG);
        assert_int_equal(text.len, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shown_has_no_password),
        cmocka_unit_test(uris_that_could_hide_a_password_are_refused_and_not_repeated),
        cmocka_unit_test(sides_must_differ_and_be_of_one_kind),
        cmocka_unit_test(passwords_come_from_file_or_command),
        cmocka_unit_test(a_wrong_file_runs_no_command),
        cmocka_unit_test(a_missing_file_is_a_configuration_error),
        cmocka_unit_test(example_is_valid_and_has_no_secrets),
        cmocka_unit_test(example_is_valid_with_every_key_active),
        cmocka_unit_test(example_refuses_what_it_could_not_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
