"""Each check finds what it is for, and nothing in a tree that is as it should be."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

GOOD = {
    "CMakeLists.txt": "add_library(core\n  appliers/postgres/row.c\n  engine/spool.c\n)\n",
    "engine/base/map.h": "#include <stddef.h>\n",
    "engine/change.h": '#include "engine/base/map.h"\n',
    "engine/postgres/pg.h": '#include "engine/change.h"\n\n#include <libpq-fe.h>\n',
    "engine/spool.c": '#include "decoders/decoder.h"\n#include <lz4.h>\n',
    "decoders/decoder.h": '#include "engine/change.h"\n',
    "decoders/postgres/slot.h": '#include "decoders/decoder.h"\n#include "engine/postgres/pg.h"\n',
    "decoders/mysql/binlog.h": '#include "decoders/decoder.h"\n',
    "checkpoint/checkpoint.h": '#include "engine/change.h"\n',
    "appliers/postgres/row.c": '#include "checkpoint/checkpoint.h"\n#include "engine/postgres/pg.h"\n\n'
                               "/* strcpy(a, b) is never called. */\n"
                               "int row(char *out)\n{\n    out[0] = 0;\n    return snprintf(out, 9, \"atoi(1)\");\n}\n",
    "tests/unit/row_test.c": '#include "appliers/postgres/row.c"\n#include <libpq-fe.h>\n',
}


def tidy(root, *options):
    done = subprocess.run([ROOT / "tools" / "tidy", *options, root], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    *findings, closing = done.stdout.splitlines()
    assert closing.endswith(f"{len(findings)} findings")
    assert done.returncode == (1 if findings else 0)
    return findings


@pytest.fixture
def tree(tmp_path):
    def plant(files):
        shutil.copy(ROOT / ".clang-format", tmp_path)
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path
    plant(GOOD)
    return plant


def body(lines):
    return "int f(int a)\n{\n" + "    a++;\n" * lines + "}\n"


def test_a_good_tree_has_no_findings(tree):
    assert tidy(tree({})) == []


BAD = [
    ("engine/base/map.h", '#include "engine/change.h"\n', "engine/base/map.h:1: engine/change.h: includes point the other way"),
    ("engine/change.h", '\n#include "decoders/decoder.h"\n', "engine/change.h:2: decoders/decoder.h: includes point"),
    ("engine/change.h", '#include "engine/lane.h"\n', "engine/change.h:1: engine/lane.h: includes point"),
    ("decoders/decoder.h", '#include "engine/lane.h"\n', "decoders/decoder.h:1: engine/lane.h: includes point"),
    ("decoders/decoder.h", '#include "checkpoint/checkpoint.h"\n', "decoders/decoder.h:1: checkpoint/checkpoint.h: includes"),
    ("appliers/memory.h", '#include "decoders/decoder.h"\n', "appliers/memory.h:1: decoders/decoder.h: includes point"),
    ("checkpoint/checkpoint.h", '#include "decoders/decoder.h"\n', "checkpoint/checkpoint.h:1: decoders/decoder.h: incl"),
    ("engine/lane.h", '#include "tests/servers/x.h"\n', "engine/lane.h:1: tests/servers/x.h: includes point"),
    ("tools/x.h", '#include "tests/servers/x.h"\n', "tools/x.h:1: tests/servers/x.h: includes point"),
    ("decoders/mysql/binlog.h", '#include "decoders/postgres/plain.h"\n', "decoders/mysql/binlog.h:1: decoders/postgres/plain.h: a driver"),
    ("engine/lane.h", '#include "map.h"\n', "engine/lane.h:1: map.h: name it from the root"),
    ("engine/lane.h", "#include <libpq-fe.h>\n", "engine/lane.h:1: libpq-fe.h: brings"),
    ("engine/other.h", '#include "engine/postgres/pg.h"\n', "engine/other.h:1: engine/postgres/pg.h: brings"),
    ("engine/lane.h", "#include <mysql/mysql.h>\n", "engine/lane.h:1: mysql/mysql.h: brings"),
    ("engine/lane.h", "#include <lz4frame.h>\n", "engine/lane.h:1: lz4frame.h: brings"),
    ("engine/lost.c", "int lost;\n", "engine/lost.c:1: not in CMakeLists.txt"),
    ("tools/lost.c", "int lost;\n", "tools/lost.c:1: not in CMakeLists.txt"),
    ("engine/lane.h", "int a = strcpy(b, c);\n", "engine/lane.h:1: strcpy(): use struct writer"),
    ("engine/lane.h", "int a = strcat(b, c);\n", "engine/lane.h:1: strcat(): use"),
    ("engine/lane.h", "int a = sprintf(b, c);\n", "engine/lane.h:1: sprintf(): use"),
    ("engine/lane.h", "int a = gets(b);\n", "engine/lane.h:1: gets(): use"),
    ("engine/lane.h", "int a = strtok(b, c);\n", "engine/lane.h:1: strtok(): use"),
    ("engine/lane.h", "int a = atoi(b);\n", "engine/lane.h:1: atoi(): use"),
    ("engine/lane.h", "int a = atol(b);\n", "engine/lane.h:1: atol(): use"),
    ("tests/unit/row_test.c", "int a = system(b);\n", "tests/unit/row_test.c:1: system(): use"),
    ("engine/lane.h", body(71), "engine/lane.h:2: a function of 71 lines"),
    ("engine/lane.h", "int a;\n" * 601, "engine/lane.h:601: 601 lines"),
    ("tests/servers/long.py", "a = 1\n" * 601, "tests/servers/long.py:601: 601 lines"),
    ("README.md", "TO" "DO: write\n", "README.md:1: TO" "DO"),
    ("engine/lane.h", "/* FIX" "ME */\n", "engine/lane.h:1: FIX" "ME"),
    ("tools/run", "# XX" "X\n", "tools/run:1: XX" "X"),
    ("engine/lane.h", "int  a;\n", "engine/lane.h:1: not formatted"),
]


@pytest.mark.parametrize("name, text, finding", BAD, ids=[finding.replace(" ", "-") for *_, finding in BAD])
def test_finds(tree, name, text, finding):
    plain = {"engine/lane.h": "int a;\n", "tests/servers/x.h": "int a;\n", "decoders/postgres/plain.h": "int a;\n"}
    findings = tidy(tree({**plain, name: text}))
    assert len(findings) == 1 and findings[0].startswith(finding), findings


def test_lengths_at_the_limit_are_allowed(tree):
    assert tidy(tree({"engine/lane.h": body(70), "engine/other.h": "int a;\n" * 600})) == []


def test_builds_and_hidden_folders_are_not_looked_at(tree):
    assert tidy(tree({"build/dev/x.c": "int  a;\n", ".hidden/x.md": "TO" "DO\n"})) == []


def test_deep_wants_a_build_and_reports_what_clang_tidy_says(tree):
    root = tree({})
    assert "run cmake --preset fuzz" in tidy(root, "--deep")[0]
    shutil.copy(ROOT / ".clang-tidy", root)
    bad = "int Wrong(int x);\nint Wrong(int x) { return x; }\n"
    tree({"CMakeLists.txt": "engine/wrong.c\n", "engine/wrong.c": bad,
          "build/fuzz/compile_commands.json": f"""[{{"directory": "{root}", "file": "{root}/engine/wrong.c",
              "command": "clang -c {root}/engine/wrong.c"}}]"""})
    for name in "engine/spool.c", "appliers/postgres/row.c":
        (root / name).unlink()
    (root / "tests/unit/row_test.c").unlink()
    findings = tidy(root, "--deep")
    assert findings and all("Wrong" in finding for finding in findings), findings
