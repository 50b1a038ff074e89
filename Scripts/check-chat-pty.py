#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Drives `martlet chat` at a pseudo-terminal as a person at the keyboard does, and looks at what the screen shows.

    Scripts/check-chat-pty.py MARTLET MODEL

Needs nothing but Python. Prints one line per check that fails, and exits with 1 if there is any.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import tempfile
import termios
import time
import unicodedata

MARTLET, MODEL = sys.argv[1:3]
# A busy machine may be slow; this passes only where a check fails.
PATIENCE = 90
LEFT, RIGHT, UP, HOME = "\x1b[D", "\x1b[C", "\x1b[A", "\x1b[H"
checks = failures = 0


def check(holds, what, detail=""):
    global checks, failures
    checks += 1
    if not holds:
        failures += 1
        print(f"FAILED: {what}{': ' if detail else ''}{detail}", flush=True)


class Screen:
    """What a terminal shows: as much of one as the program may use, and an error for the rest."""

    def __init__(self, columns, rows):
        self.resize(columns, rows)
        self.rows = [[]]
        self.row = self.column = 0
        self.rest = ""
        self.pastes = False

    def resize(self, columns, rows):
        self.columns, self.height = columns, rows

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.rows)

    def line(self):
        return "".join(self.rows[self.row]).rstrip()

    def put(self, character):
        if unicodedata.combining(character):
            self.rows[self.row][self.column - 1] += character
            return
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self.column + width > self.columns:
            self.newline()
            self.column = 0
        row = self.rows[self.row]
        row += [" "] * (self.column - len(row))
        # The second half of a wide character is an empty cell.
        row[self.column:self.column + width] = [character] + [""] * (width - 1)
        self.column += width

    def newline(self):
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])

    def feed(self, text):
        text = self.rest + text
        self.rest = ""
        place = 0
        while place < len(text):
            character = text[place]
            if character == "\x1b":
                found = re.match(r"\x1b\[([?0-9;]*)([A-Za-z])", text[place:])
                if not found:
                    self.rest = text[place:]
                    return
                place += found.end()
                self.control(found.group(1), found.group(2))
                continue
            place += 1
            if character == "\r":
                self.column = 0
            elif character == "\n":
                self.newline()
            elif character == "\x08":
                self.column = max(0, self.column - 1)
            elif character >= " ":
                self.put(character)

    def control(self, parameters, final):
        number = int(parameters) if parameters.isdigit() else 1
        top = max(0, len(self.rows) - self.height)
        if final == "A":
            self.row = max(top, self.row - number)
        elif final == "B":
            self.row = min(len(self.rows) - 1, self.row + number)
        elif final == "C":
            self.column = min(self.columns - 1, self.column + number)
        elif final == "D":
            self.column = max(0, min(self.column, self.columns - 1) - number)
        elif final == "K":
            del self.rows[self.row][self.column:]
        elif final == "J" and parameters in ("", "0"):
            del self.rows[self.row][self.column:]
            del self.rows[self.row + 1:]
        elif final == "J":
            self.rows = [[]]
            self.row = 0
        elif final == "H":
            self.row, self.column = top, 0
        elif final in "hl" and parameters == "?2004":
            self.pastes = final == "h"
        elif final not in "mhl":
            raise ValueError(f"the program sent ESC [ {parameters} {final}")


def wrapped(text, columns):
    """The text as it lies in a window: broken wherever the next letter has no room."""
    rows = [""]
    width = 0
    for character in text:
        own = 0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width + own > columns:
            rows.append("")
            width = 0
        rows[-1] += character
        width += own
    if width == columns:
        rows.append("")
    return "\n".join(row.rstrip() for row in rows)


class Terminal:
    """A program at a pseudo-terminal of its own."""

    def __init__(self, command, state, columns=80, rows=24, output=None):
        self.screen = Screen(columns, rows)
        self.raw = ""
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        self.original = termios.tcgetattr(self.master)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for file in (0, 1, 2):
                os.dup2(slave, file)
            if output:
                os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
            os.closerange(3, 100)
            environment = dict(os.environ, TERM="xterm", XDG_STATE_HOME=state, PS1="$ ")
            os.execvpe(command[0], command, environment)
        os.close(slave)

    def resize(self, columns, rows):
        self.screen.resize(columns, rows)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.master, text.encode())

    def read(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        if not data:
            return False
        # A character may be cut in two; the next read brings the rest.
        self.bytes = getattr(self, "bytes", b"") + data
        text = self.bytes.decode("utf-8", errors="ignore")
        self.bytes = self.bytes[len(text.encode()):]
        self.raw += text
        self.screen.feed(text)
        return True

    def wait(self, holds, what, settles=True):
        """Reads until the screen is as it should be, and then, if it settles, what comes at once."""
        end = time.monotonic() + PATIENCE
        while not holds() and time.monotonic() < end:
            self.read(0.2)
        while settles and self.read(0.05):
            pass
        check(holds(), what, "the screen shows\n" + self.screen.text()[-2000:] if not holds() else "")

    def wait_for(self, text, what=None):
        """Waits for a text that came after the last mark."""
        self.wait(lambda: text in self.raw[self.mark:], what or f"{text!r} is shown")

    def wait_for_prompt(self):
        self.wait(lambda: self.screen.line() == ">", "a new prompt is shown")

    mark = 0

    def enter(self, line):
        self.mark = len(self.raw)
        self.send(line + "\r")

    def end(self):
        """The exit status, as a shell has it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while self.read(0.05):
                pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return None

    def check_restored(self, what):
        check(termios.tcgetattr(self.master) == self.original, f"the terminal is as it was found after {what}")
        check(not self.screen.pastes, f"pastes are not marked any more after {what}")


def messages(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def save(terminal, folder):
    path = os.path.join(folder, "chat.json")
    if os.path.exists(path):
        os.remove(path)
    terminal.enter("/save " + path)
    terminal.wait_for("messages are in")
    terminal.wait_for_prompt()
    return messages(path)


def chat(folder, *options, **settings):
    terminal = Terminal(
        [MARTLET, "chat", "--model", MODEL, "--context", "1024", *options], os.path.join(folder, "state"), **settings)
    terminal.wait_for_prompt()
    return terminal


def check_editing(folder):
    terminal = chat(folder, "--max-tokens", "12")
    check(termios.tcgetattr(terminal.master)[3] & termios.ECHO == 0, "the program echoes by itself while a line is edited")
    check(terminal.screen.pastes, "pastes are asked to be marked")

    terminal.send("helo wrld" + LEFT * 3 + "o" + HOME + RIGHT * 3 + "l")
    terminal.wait(lambda: terminal.screen.line() == "> hello world" and terminal.screen.column == 6, "arrow keys move the cursor")
    terminal.send("\x03")
    terminal.wait_for_prompt()
    check("\n> hello world^C\n>" in terminal.screen.text(), "Ctrl-C leaves the line and begins a new one")

    function = "def greet(name):\n\n    if name:\n\n        return \"Hi \" + name  # \\\n\n    return None\n"
    terminal.mark = len(terminal.raw)
    terminal.send("What does this do?\n".replace("\n", " ") + "\x1b[200~" + function + "\x1b[201~")
    terminal.wait(lambda: ".     return None" in terminal.screen.text(), "a paste of several lines is shown as such")
    terminal.send("\r")
    terminal.wait_for("/continue goes on")
    terminal.wait_for_prompt()
    said = save(terminal, folder)
    check([message["role"] for message in said] == ["user", "assistant"], "a paste with blank lines is one question", str(said))
    check(said[0]["content"] == "What does this do? " + function, "no letter of a paste is changed", repr(said[0]["content"]))

    terminal.enter("/quit")
    terminal.wait_for("There is no command /quit")
    terminal.wait_for("/retry  drops the last answer")
    terminal.wait_for_prompt()

    terminal.enter("/clear")
    terminal.wait_for_prompt()
    terminal.enter("Tell me a long story about a ship.")
    terminal.wait_for("The answer was cut at its limit of 12 tokens")
    terminal.wait_for_prompt()
    before = save(terminal, folder)
    terminal.enter("/continue")
    terminal.wait_for("The answer was cut at its limit of 12 tokens")
    terminal.wait_for_prompt()
    after = save(terminal, folder)
    check([message["role"] for message in after] == ["user", "assistant"], "a continued answer is one answer", str(after))
    check(after[1]["content"].startswith(before[1]["content"]) and len(after[1]["content"]) > len(before[1]["content"]) + 10,
          "a continued answer is longer", str((before, after)))

    terminal.send(UP * 2)
    terminal.wait(lambda: terminal.screen.line() == "> /continue", "the arrow up brings back earlier lines")
    terminal.send("\x15\x12a long st")
    terminal.wait(lambda: terminal.screen.line().endswith("Tell me a long story about a ship."), "Ctrl-R finds an earlier line")
    terminal.send("\x07")
    terminal.wait_for_prompt()

    # A line that is longer than the window, of narrow and wide letters, changed at its beginning; then another window.
    terminal.resize(24, 10)
    os.kill(terminal.pid, signal.SIGWINCH)
    line = "The quick 日本語 brown fox jumps over the lazy dog, and e\u0301t\u00e9 is summer."
    terminal.send(line[3:] + HOME + line[:3])
    for columns in (24, 60, 25):
        terminal.resize(columns, 10)
        os.kill(terminal.pid, signal.SIGWINCH)
        terminal.wait(lambda: terminal.screen.text().endswith("\n" + wrapped("> " + line, columns)),
                      f"a long line is wrapped at {columns} columns")
        check(terminal.screen.column == 5, "the cursor stands where it stood")
    terminal.send("\x03")
    terminal.wait_for_prompt()
    terminal.resize(80, 24)
    os.kill(terminal.pid, signal.SIGWINCH)

    terminal.send("\x04")
    check(terminal.end() == 0, "Ctrl-D at an empty line ends the chat with status 0")
    terminal.check_restored("Ctrl-D")
    check(os.stat(os.path.join(folder, "state/martlet/chat-history")).st_mode & 0o777 == 0o600, "the history is its owner's alone")


def check_interrupts(folder):
    terminal = chat(folder, "--stop", "\x01")
    terminal.send(UP)
    terminal.wait(lambda: terminal.screen.line().startswith("> /save"), "the history outlives the program")
    terminal.send("\x03")
    terminal.wait_for_prompt()
    terminal.enter("Write a very long story about a ship and its crew.")
    terminal.wait(lambda: len(terminal.raw) > terminal.mark + 150, "an answer streams", settles=False)
    check(termios.tcgetattr(terminal.master)[3] & (termios.ECHO | termios.ISIG) == termios.ISIG,
          "while it does, Ctrl-C is a signal and nothing typed is shown")
    terminal.send("\x03")
    terminal.wait_for("The answer was stopped. /continue goes on with it.")
    terminal.wait_for_prompt()
    terminal.enter("/clear")
    terminal.wait_for("The conversation is forgotten.")
    terminal.wait_for_prompt()
    # What is typed during an answer is the next line.
    terminal.enter("What is the capital of France? Say it in one word.")
    terminal.send("/set temperature 0.5\r")
    terminal.wait_for("temperature is now 0.5")
    terminal.wait_for_prompt()
    terminal.send("\x03")
    terminal.wait_for("Ctrl-C again")
    terminal.wait_for_prompt()
    terminal.enter("/help")
    terminal.wait_for("/load FILE")
    terminal.wait_for_prompt()
    terminal.send("\x03")
    terminal.wait_for_prompt()
    terminal.send("\x03")
    check(terminal.end() == 130, "Ctrl-C twice at the prompt ends the chat with status 130")
    terminal.check_restored("Ctrl-C")

    for number, status in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        terminal = chat(folder)
        os.kill(terminal.pid, number)
        check(terminal.end() == status, f"signal {number} ends the chat with status {status}")
        terminal.check_restored(f"signal {number}")

    terminal = chat(folder)
    terminal.enter("/exit")
    check(terminal.end() == 0, "/exit ends the chat with status 0")
    terminal.check_restored("/exit")


def check_suspension(folder):
    """Under a shell with job control."""
    terminal = Terminal(["bash", "--norc", "--noediting", "-i"], os.path.join(folder, "state"))
    terminal.wait(lambda: terminal.screen.line() == "$", "a shell's prompt is shown")
    terminal.enter(f"'{MARTLET}' chat --model '{MODEL}' --context 1024")
    terminal.wait_for_prompt()
    terminal.send("some text\x1a")
    terminal.wait_for("Stopped")
    terminal.wait(lambda: terminal.screen.line() == "$", "the shell is back after Ctrl-Z")
    check(termios.tcgetattr(terminal.master)[3] & (termios.ECHO | termios.ICANON) == termios.ECHO | termios.ICANON,
          "the terminal is as it was while the chat is stopped")
    terminal.enter("fg")
    terminal.wait(lambda: terminal.screen.line() == "> some text", "the line is there again in the foreground")
    terminal.send("\x15")
    terminal.wait_for_prompt()

    def suspended(what):
        terminal.wait_for("Stopped", f"the chat is stopped by {what}")
        terminal.wait(lambda: terminal.screen.line() == "$", f"the shell is back after {what}")
        check(termios.tcgetattr(terminal.master)[3] & (termios.ECHO | termios.ICANON) == termios.ECHO | termios.ICANON,
              f"the terminal is as it was after {what}")

    terminal.enter("Write a very long story about a ship and its crew.")
    terminal.wait(lambda: len(terminal.raw) > terminal.mark + 150, "an answer streams", settles=False)
    terminal.mark = len(terminal.raw)
    terminal.send("\x1a")
    suspended("Ctrl-Z during an answer")
    terminal.enter("fg")
    terminal.wait(lambda: "\x1b[?2004h" in terminal.raw[terminal.mark:], "the answer goes on in the foreground", settles=False)
    terminal.send("\x03")
    terminal.wait_for_prompt()
    terminal.mark = len(terminal.raw)
    terminal.send("\x1a")
    suspended("Ctrl-Z at the prompt")
    # At its prompt in the background the chat stops, as what reads there does.
    terminal.enter("bg")
    terminal.wait_for(" &", "the shell sends the chat to the background")
    terminal.wait(lambda: terminal.screen.line() == "$", "the shell is back after bg")
    terminal.enter("fg")
    terminal.wait_for_prompt()
    check(termios.tcgetattr(terminal.master)[3] & (termios.ECHO | termios.ICANON | termios.ISIG) == 0, "lines are edited again after bg and fg")
    terminal.send("\x1b[200~a paste that")
    terminal.wait(lambda: terminal.screen.line() == "> a paste that", "a paste without an end is taken after a while")
    terminal.send("\x15/exit\r")
    terminal.wait(lambda: terminal.screen.line() == "$", "the shell is back after /exit")
    terminal.enter("exit")
    terminal.end()


def check_output(folder):
    """Lines are broken between words at a terminal; what goes elsewhere is not touched."""
    question = "Write three sentences about the sea."
    path = os.path.join(folder, "answer.txt")
    terminal = chat(folder, "--no-history", "--max-tokens", "60", "--stats", columns=40, output=path)
    terminal.enter(question)
    terminal.wait_for("tokens/s")
    terminal.wait_for_prompt()
    said = save(terminal, folder)
    terminal.send("\x04")
    terminal.end()
    with open(path, encoding="utf-8") as file:
        answer = file.read()
    check(answer == said[1]["content"] + "\n", "an answer that goes to a file is the answer", repr(answer))

    terminal = chat(folder, "--no-history", "--max-tokens", "60", columns=40)
    start = terminal.screen.row
    terminal.enter(question)
    terminal.wait(lambda: terminal.screen.line() == ">" and terminal.screen.row > start + 1, "the same answer is shown")
    shown = ["".join(row).rstrip() for row in terminal.screen.rows[start + 1:terminal.screen.row]]
    shown = shown[:next((place for place, row in enumerate(shown) if row.startswith("The answer was cut")), len(shown))]
    check(" ".join(shown).split() == answer.split(), "no word of it is cut", str(shown))
    check(len(shown) > 2 and all(len(row) < 40 for row in shown), "its lines fit the window", str(shown))
    terminal.send("\x04")
    terminal.end()


with tempfile.TemporaryDirectory() as folder:
    check_editing(folder)
    check_interrupts(folder)
    check_suspension(folder)
    check_output(folder)
print(f"{checks} checks at a terminal, {failures} failed")
sys.exit(failures != 0)
