"""What a captured stream means, as text: a second decoder, written from the manual alone, against
which decoders/postgres/pgoutput.c is tested. It trusts its input."""

import struct

EPOCH_2000_US = 946684800000000
IDENTITIES = {"d": "key", "i": "key", "n": "none", "f": "full"}
SHOWN = 48


def records(data):
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from(">BI", data, at)
        yield kind, data[at + 5:at + 5 + length]
        at += 5 + length


def escape(raw):
    return b"".join(b"\\%02x" % c if c < 0x20 or c in b"'\\" else bytes([c]) for c in raw)


def checksum(raw):
    value = 2166136261
    for c in raw:
        value = (value ^ c) * 16777619 & 0xFFFFFFFF
    return value


class Message:
    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, layout):
        value, = struct.unpack_from(">" + layout, self.body, self.at)
        self.at += struct.calcsize(">" + layout)
        return value

    def char(self):
        return chr(self.take("B"))

    def text(self):
        end = self.body.index(0, self.at)
        value, self.at = self.body[self.at:end], end + 1
        return value

    def datum(self):
        kind = self.char()
        if kind == "t":
            length = self.take("I")
            self.at += length
            return self.body[self.at - length:self.at]
        return {"n": None, "u": ...}[kind]

    def row(self):
        return [self.datum() for _ in range(self.take("H"))]


class Relation:
    def __init__(self, m):
        self.oid = m.take("I")
        self.schema, self.name = m.text() or b"pg_catalog", m.text()
        setting, columns = m.char(), []
        for _ in range(m.take("H")):
            flags, name, kind, typmod = m.take("B"), m.text(), m.take("I"), m.take("i")
            columns.append((name, bool(flags & 1), kind, typmod))
        self.columns = columns
        self.identity = IDENTITIES[setting]
        if self.identity == "key" and not any(key for _, key, _, _ in columns):
            self.identity = "none"

    def shape(self):
        columns = b" ".join(b"'%s'%s:%d/%d" % (escape(name), b"*" * key, kind, typmod)
                            for name, key, kind, typmod in self.columns)
        return (b"shape %d %s.%s %s %s" % (self.oid, self.quoted(self.schema), self.quoted(self.name),
                                           self.identity.encode(), columns)).rstrip()

    @staticmethod
    def quoted(name):
        return b"'" + escape(name) + b"'"

    def keyed(self, before, i):
        return before is not None and (before[0] == "O" or self.columns[i][1])


def show_datum(value):
    if value is None:
        return b"null"
    if value is ...:
        return b"unchanged"
    if len(value) <= SHOWN:
        return b"'" + escape(value) + b"'"
    return b"'%s'... %d bytes %08x" % (escape(value[:SHOWN]), len(value), checksum(value))


class Decoder:
    def __init__(self):
        self.known, self.streams, self.shapes = {}, {}, {}
        self.top = self.stream = None
        self.seq = self.order = 0
        self.lines = []

    def say(self, fmt, *args):
        self.lines.append(fmt % args)

    def mention(self, relation):
        shape = relation.shape()
        if self.shapes.get(relation.oid) != shape:
            self.shapes[relation.oid] = shape
            self.lines.append(shape)

    def relation(self, oid):
        return (self.streams[self.stream] if self.stream else self.known)[oid][1]

    def commit(self, m, xid):
        m.take("B"), m.take("Q")
        end, time = m.take("Q"), m.take("q")
        self.seq += 1
        self.say(b"commit %d seq %d pos %X/%X time %d", xid, self.seq, end >> 32, end & 0xFFFFFFFF,
                 time + EPOCH_2000_US)

    def stream_commit(self, m):
        xid = m.take("I")
        self.commit(m, xid)
        for oid, told in self.streams.pop(xid).items():
            if oid not in self.known or self.known[oid][0] < told[0]:
                self.known[oid] = told

    def stream_start(self, m):
        self.stream = m.take("I")
        if m.take("B"):
            self.streams[self.stream] = {}
            self.say(b"begin %d", self.stream)

    def abort(self, m):
        xid, part = m.take("I"), m.take("I")
        if xid == part:
            del self.streams[xid]
        self.say(b"abort %d/%d", xid, part)

    def change(self, tag, m, xid, part):
        relation = self.relation(m.take("I"))
        self.mention(relation)
        before = after = None
        kind = m.char()
        if kind in "KO":
            before = (kind, m.row())
            kind = m.char() if tag == "U" else None
        if kind == "N":
            after = m.row()
            for i, value in enumerate(after):
                if value is ... and relation.keyed(before, i) and before[1][i] is not None:
                    after[i] = before[1][i]
        self.say(b"%s %d/%d %d", {"I": b"insert", "U": b"update", "D": b"delete"}[tag], xid, part,
                 relation.oid)
        if before is not None:
            self.row({"K": b"  key ", "O": b"  old "}[before[0]], before[1])
        if after is not None:
            self.row(b"  new ", after)

    def row(self, name, values):
        self.lines.append((name + b", ".join(map(show_datum, values))).rstrip())

    def truncate(self, m, xid, part):
        count, flags = m.take("I"), m.take("B")
        relations = [self.relation(m.take("I")) for _ in range(count)]
        for relation in relations:
            self.mention(relation)
        self.say(b"truncate %d/%d%s%s", xid, part, b" restart" if flags & 2 else b"",
                 b"".join(b" %d" % relation.oid for relation in relations))

    def inside(self, tag, m):
        xid, part = self.top, self.top
        if self.stream:
            xid, part = self.stream, m.take("I")
        if tag == "R":
            self.order += 1
            relation = Relation(m)
            home = self.streams[self.stream] if self.stream else self.known
            home[relation.oid] = (self.order, relation)
        elif tag in "IUD":
            self.change(tag, m, xid, part)
        elif tag == "T":
            self.truncate(m, xid, part)
        else:
            assert tag == "Y", tag

    def decode(self, body):
        m = Message(body)
        tag = m.char()
        if tag == "B":
            m.take("Q"), m.take("Q")
            self.top = m.take("I")
            self.say(b"begin %d", self.top)
        elif tag == "C":
            self.commit(m, self.top)
        elif tag == "S":
            self.stream_start(m)
        elif tag == "E":
            self.stream = None
        elif tag == "c":
            self.stream_commit(m)
        elif tag == "A":
            self.abort(m)
        else:
            self.inside(tag, m)


def expected(data):
    decoder = Decoder()
    for _, body in records(data):
        decoder.decode(body)
    return b"\n".join(decoder.lines) + b"\n"
