/* pg_dump's script as entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "appliers/postgres/dump.h"

#define HEADER(name, type, schema, owner)                                                      \
    "--\n-- Name: " name "; Type: " type "; Schema: " schema "; Owner: " owner "\n--\n\n"

static const char preamble[] = "--\n-- PostgreSQL database dump\n--\n\n"
                               "\\restrict abc'def\n\n"
                               "-- Dumped from database version 15.18\n\n"
                               "SET statement_timeout = 0;\n"
                               "SET transaction_timeout = 0;\n"
                               "SELECT pg_catalog.set_config('search_path', '', false);\n\n";

struct fixture {
    struct arena arena;
    struct dump dump;
    struct error err;
};

static bool cut(struct fixture *f, const char *script)
{
    *f = (struct fixture){0};
    struct bytes text = {(const uint8_t *)script, strlen(script)};
    return dump_split(text, &f->arena, &f->dump, &f->err);
}

static void cut_after_preamble(struct fixture *f, const char *entries)
{
    cleanup_with(writer_release) struct writer w = {0};
    writer_text(&w, preamble);
    writer_text(&w, entries);
    assert_true(cut(f, writer_cstr(&w)));
}

static void drop(struct fixture *f) { arena_clear(&f->arena); }

static void an_empty_script_has_no_entries(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    assert_true(cut(&f, ""));
    assert_int_equal(f.dump.count, 0);
    assert_string_equal(f.dump.preamble, "");
}

static void a_script_without_entries_is_all_preamble(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    cut_after_preamble(&f, "--\n-- PostgreSQL database dump complete\n--\n\n");
    assert_int_equal(f.dump.count, 0);
    assert_non_null(strstr(f.dump.preamble, "search_path"));
}

static void the_preamble_loses_what_only_psql_and_newer_servers_know(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    cut_after_preamble(&f, HEADER("t", "TABLE", "public", "bob") "CREATE TABLE public.t ();\n\n"
                                                                 "\\unrestrict abc'def\n\n");
    assert_null(strstr(f.dump.preamble, "restrict"));
    assert_null(strstr(f.dump.preamble, "transaction_timeout"));
    assert_non_null(strstr(f.dump.preamble, "SET statement_timeout = 0;"));
    assert_int_equal(f.dump.count, 1);
    assert_null(strstr(f.dump.entries[0].sql, "restrict"));
}

static void a_header_says_what_the_entry_is(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    cut_after_preamble(
        &f, HEADER("f(integer, text)", "FUNCTION", "public", "bob") "SELECT 1;\n\n\n" HEADER(
                "t; Type: x", "TABLE", "Odd; name",
                "o'hara; Tablespace: fast") "SELECT 2;\n\n\n" HEADER("citext", "EXTENSION", "-",
                                                                     "-") "SELECT 3;\n");
    assert_int_equal(f.dump.count, 3);
    assert_string_equal(f.dump.entries[0].name, "f(integer, text)");
    assert_string_equal(f.dump.entries[0].type, "FUNCTION");
    assert_string_equal(f.dump.entries[0].owner, "bob");
    assert_string_equal(f.dump.entries[1].name, "t; Type: x");
    assert_string_equal(f.dump.entries[1].type, "TABLE");
    assert_string_equal(f.dump.entries[1].schema, "Odd; name");
    assert_string_equal(f.dump.entries[1].owner, "o'hara");
    assert_string_equal(f.dump.entries[2].schema, "-");
    assert_non_null(strstr(f.dump.entries[1].sql, "SELECT 2;"));
    assert_null(strstr(f.dump.entries[1].sql, "SELECT 3;"));
}

/* A dump inside of a quote, in each way of quoting. */
static void a_header_inside_a_quote_is_text(void **state)
{
    (void)state;
    static const char *const around[][2] = {
        {"CREATE FUNCTION f() AS $$ SELECT 1;\n\n", "$$;\n"},
        {"CREATE FUNCTION f() AS $_$ $$ SELECT $1;\n\n", "$$ $_$;\n"},
        {"COMMENT ON TABLE t IS 'it''s;\n\n", "';\n"},
        {"COMMENT ON TABLE t IS E'it\\'s'';\n\n", "';\n"},
        {"CREATE TABLE \"a\"\";\n\n", "\" ();\n"},
        {"/* outer /* inner */;\n\n", "*/ SELECT 1;\n"},
    };
    for (size_t i = 0; i < array_count(around); i++) {
        cleanup_with(drop) struct fixture f;
        cleanup_with(writer_release) struct writer w = {0};
        writer_text(&w, HEADER("f", "X", "public", "bob"));
        writer_text(&w, around[i][0]);
        writer_text(&w, HEADER("inner", "TABLE", "public", "bob") "\\restrict kept\n"
                                                                  "SET transaction_timeout;\n");
        writer_text(&w, around[i][1]);
        writer_text(&w, "\n\n" HEADER("next", "TABLE", "public", "bob") "SELECT 1;\n");
        cut_after_preamble(&f, writer_cstr(&w));
        assert_int_equal(f.dump.count, 2);
        assert_string_equal(f.dump.entries[1].name, "next");
        assert_non_null(strstr(f.dump.entries[0].sql, "\\restrict kept\nSET transaction"));
    }
}

static void a_header_inside_a_statement_is_text(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    cut_after_preamble(&f, HEADER("v", "VIEW", "public", "bob") "CREATE VIEW v AS\n" HEADER(
                               "inner", "TABLE", "public", "bob") " SELECT 1;\n");
    assert_int_equal(f.dump.count, 1);
}

static void a_header_must_have_its_lines_around(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    cut_after_preamble(
        &f, HEADER("t", "TABLE", "public",
                   "bob") "SELECT 1;\n-- Name: x; Type: TABLE; Schema: public; Owner: bob\n--\n"
                          "--\n-- Name: y; Type: TABLE; Schema: public; Owner: bob\nSELECT 2;\n"
                          "--\n-- Name: z; Type: TABLE; Schema: public\n--\n"
                          "  --\n-- Name: w; Type: TABLE; Schema: public; Owner: bob\n--\n");
    assert_int_equal(f.dump.count, 1);
}

static void settings_between_entries_stay_in_force(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    cut_after_preamble(
        &f, HEADER("s", "SCHEMA", "-",
                   "bob") "CREATE SCHEMA s;\n\n\n"
                          "SET default_tablespace = fast;\n\n"
                          "SET default_table_access_method = heap;\n\n" HEADER(
                              "t", "TABLE", "s",
                              "bob") "CREATE TABLE s.t ();\n\n\n"
                                     "SET default_tablespace = '';\n\n" HEADER(
                                         "u", "TABLE", "s", "bob") "CREATE TABLE s.u ();\n");
    const struct dump_entry *e = f.dump.entries;
    assert_int_equal(f.dump.count, 3);
    assert_null(strstr(e[0].sql, "SET default"));
    assert_ptr_equal(strstr(e[1].sql, "SET default_tablespace = fast;\n"), e[1].sql);
    assert_non_null(strstr(e[1].sql, "SET default_table_access_method = heap;\n"));
    assert_null(strstr(e[1].sql, "= ''"));
    assert_ptr_equal(strstr(e[2].sql, "SET default_tablespace = '';\n"), e[2].sql);
    assert_non_null(strstr(e[2].sql, "SET default_table_access_method = heap;\n"));
    assert_null(strstr(e[2].body, "SET default"));
    assert_non_null(strstr(e[2].body, "CREATE TABLE s.u ();"));
}

static void a_dollar_in_a_name_begins_no_quote(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    cut_after_preamble(
        &f, HEADER("a$b$c", "TABLE", "public",
                   "bob") "CREATE TABLE public.a$b$c (x int DEFAULT "
                          "$1);\n\n\n" HEADER("t", "TABLE", "public", "bob") "SELECT 1;\n");
    assert_int_equal(f.dump.count, 2);
}

static void a_backslash_ends_no_plain_quote(void **state)
{
    (void)state;
    cleanup_with(drop) struct fixture f;
    cut_after_preamble(&f, HEADER("t", "TABLE", "public", "bob") "SELECT 'C:\\';\n\n\n" HEADER(
                               "u", "TABLE", "public", "bob") "SELECT 1;\n");
    assert_int_equal(f.dump.count, 2);
}

static void a_quote_without_end_is_an_error(void **state)
{
    (void)state;
    static const char *const cuts[] = {"SELECT 'a", "SELECT $a$ b $b$", "SELECT \"a\"\"",
                                       "/* a /* b */", "SELECT E'\\'"};
    for (size_t i = 0; i < array_count(cuts); i++) {
        cleanup_with(drop) struct fixture f;
        assert_false(cut(&f, cuts[i]));
        assert_int_equal(f.err.kind, ERROR_DATA);
    }
}

static void the_table_of_a_key_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *type, *body, *table;
        bool only;
    } cases[] = {
        {"INDEX", "CREATE INDEX i ON public.t USING btree (a);\n", "public.t", false},
        {"INDEX", "\nCREATE UNIQUE INDEX \"a ON b\" ON ONLY public.\"T t\" USING btree (a);\n",
         "public.\"T t\"", true},
        {"CONSTRAINT", "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT p PRIMARY KEY (id);\n", "s.t",
         false},
        {"CHECK CONSTRAINT", "ALTER TABLE s.t\n    ADD CONSTRAINT c CHECK (1 > 0) NOT VALID;\n",
         "s.t", false},
        {"CHECK CONSTRAINT", "ALTER DOMAIN s.d\n    ADD CONSTRAINT c CHECK (1 > 0);\n", "",
         false},
        {"INDEX ATTACH", "ALTER INDEX s.i ATTACH PARTITION s.j;\n", "", false},
    };
    for (size_t i = 0; i < array_count(cases); i++) {
        struct dump_entry e = {.type = cases[i].type, .body = cases[i].body};
        bool only;
        struct bytes table = dump_entry_table(&e, &only);
        struct bytes wanted = {(const uint8_t *)cases[i].table, strlen(cases[i].table)};
        assert_true(bytes_equal(table, wanted));
        assert_int_equal(only, cases[i].only);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_script_has_no_entries),
        cmocka_unit_test(a_script_without_entries_is_all_preamble),
        cmocka_unit_test(the_preamble_loses_what_only_psql_and_newer_servers_know),
        cmocka_unit_test(a_header_says_what_the_entry_is),
        cmocka_unit_test(a_header_inside_a_quote_is_text),
        cmocka_unit_test(a_header_inside_a_statement_is_text),
        cmocka_unit_test(a_header_must_have_its_lines_around),
        cmocka_unit_test(settings_between_entries_stay_in_force),
        cmocka_unit_test(a_dollar_in_a_name_begins_no_quote),
        cmocka_unit_test(a_backslash_ends_no_plain_quote),
        cmocka_unit_test(a_quote_without_end_is_an_error),
        cmocka_unit_test(the_table_of_a_key_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
