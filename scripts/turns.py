"""Draws who calls whom in a reactor, as SVG, from a real run: turns of its loop, one of each kind.

    turns.py [--placeholder] FIGURE.svg PROGRAM [OPTION]...

PROGRAM is book/turns, an echo server that writes each call between its parts to stderr. Prints the path of the
figure. Ends with 77 where the program could not be built; with --placeholder it then draws a figure that says so.
"""
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import scenario
import timeline

QUIET = 0.05  # seconds; a server that has waited for so long has nothing more to do

# Measures, in user units
COLUMNS = {"acceptor": 96, "connection": 268, "reactor": 466, "demultiplexer": 690, "client": 880}
ROW, BAR = 21, 8


@dataclass
class Line:
    """What one part says to another, or a call of the system that it makes (then called is empty)."""

    time: float
    caller: str
    called: str
    text: str


@dataclass
class Turn:
    """What happens from one wait to the next."""

    lines: list = field(default_factory=list)

    def has(self, pattern):
        return any(re.search(pattern, line.text) for line in self.lines)

    def handlers(self):
        return [line.called for line in self.lines if line.text.startswith("handle_event")]


class Server:
    """The program, and what it has said so far."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        self.lines = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        match = re.match(r"listening on (.*):(\d+)$", self.process.stdout.readline())
        if not match:
            raise scenario.Failed("it did not start")
        self.address = (match[1], int(match[2]))

    def read(self):
        for line in self.process.stderr:
            parts = line.rstrip("\n").split("\t")
            if len(parts) == 4:
                self.lines.append(Line(float(parts[0]), *parts[1:]))

    def settle(self):
        """Returns when it has waited for a while."""
        deadline = time.monotonic() + scenario.DEADLINE
        while time.monotonic() < deadline:
            before = len(self.lines)
            time.sleep(QUIET)
            if len(self.lines) == before and before and self.lines[-1].text == "wait()":
                return
        raise scenario.Failed("it does not come to rest")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(scenario.DEADLINE)
        self.reader.join()


def send_what_goes(client):
    """Sends until nothing more is taken, and returns how many bytes it were."""
    sent = 0
    client.setblocking(False)
    try:
        while True:
            sent += client.send(bytes(65536))
    except BlockingIOError:
        client.settimeout(scenario.DEADLINE)
        return sent


def run(command):
    """Lets a client come, speak, refuse to read, read, and leave. Returns the turns, and how much was sent."""
    server = Server(command)
    try:
        with socket.socket() as client:
            client.settimeout(scenario.DEADLINE)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # it is soon full
            server.settle()
            client.connect(server.address)
            server.settle()
            client.sendall(b"hello")
            client.recv(5)
            server.settle()
            sent = 0
            while more := send_what_goes(client):
                sent += more
                server.settle()
            got = 0
            while got < sent:
                got += len(client.recv(65536))
            server.settle()
            client.shutdown(socket.SHUT_WR)
            if client.recv(1):
                raise scenario.Failed("it sent more than it had got")
            server.settle()
    finally:
        server.stop()

    turns = []
    for line in server.lines:
        if line.text == "wait()":
            turns.append(Turn())
        if turns:
            turns[-1].lines.append(line)
    return turns, sent


def choose(turns, sent):
    """Returns (index, what the client did, what the turn shows, turn): the first of each kind, in their order."""
    megabytes = f"{sent / 1e6:.1f} MB"
    kinds = [
        ("connects", "a client comes", lambda t: t.handlers() == ["acceptor"] and t.has("reactor_register")),
        ('sends "hello"', "it says something, and gets it back", lambda t: t.handlers() == ["connection"] and t.has("recv = 5")),
        (
            f"sends {megabytes}",
            "it does not read: from now on the handler wants to know when there is room",
            lambda t: t.handlers() == ["connection"] and t.has(r"reactor_want\(WRITE"),
        ),
        (
            "reads",
            "there is room, and the debt is paid",
            lambda t: t.handlers() == ["connection"] and t.has(r"handle_event\(WRITE") and t.has(r"reactor_want\(READ"),
        ),
        ("sends a FIN", "it has ended", lambda t: t.handlers() == ["connection"] and t.has("reactor_remove")),
    ]
    chosen = []
    at = 0
    for client, shows, wanted in kinds:
        index = next((i for i in range(at, len(turns)) if wanted(turns[i])), None)
        if index is None:
            raise scenario.Failed(f"no turn in which {shows}")
        chosen.append((index, client, shows, turns[index]))
        at = index + 1
    return chosen


class Drawing(timeline.Canvas):
    """The figure: a column for each part, and time goes down."""

    def __init__(self, name, turns, sent):
        super().__init__(name)
        self.chosen = choose(turns, sent)

    def draw(self):
        self.text(20, 34, "reactor: five turns of the loop", "tl-ink tl-headline")
        self.text(20, 55, "Who calls whom, with epoll behind the reactor. Time goes down.", "tl-soft")
        self.y = 82
        top = self.y
        for name, x in COLUMNS.items():
            self.parts.append(f'<rect x="{x - 62}" y="{self.y}" width="124" height="26" rx="4" class="tl-box"/>')
            self.text(x, self.y + 17, name, "tl-ink tl-strong", "middle")
        self.y += 26
        lanes = len(self.parts)
        last = None
        for index, client, shows, turn in self.chosen:
            self.left_out(index - last - 1 if last is not None else 0)
            self.turn(client, shows, turn)
            last = index
        self.y += 8
        lines = [
            f'<path class="tl-tick" stroke-opacity=".35" d="M{x} {top + 26}V{self.y:.0f}"/>' for x in COLUMNS.values()
        ]
        self.parts[lanes:lanes] = lines  # under all else
        self.y += 24
        words = (
            f"Solid arrows are calls, dashed ones are returns; in green, the calls of the system. {self.descriptor()} is the "
            "client's descriptor. From a real run."
        )
        self.text(20, self.y, words, "tl-soft tl-small")
        self.y += 16
        told = "; ".join(
            f"the client {client}: " + ", ".join(line.text for line in turn.lines if line.text != "return")
            for _, client, _, turn in self.chosen
        )
        return timeline.document(self.id, "Five turns of a reactor's loop", told, self.y, self.parts)

    def descriptor(self):
        return next(line.text for line in self.chosen[0][3].lines if line.text.startswith("accept")).split()[-1]

    def left_out(self, count):
        if count > 0:
            self.y += 22
            words = f"{count} more turns" if count > 1 else "one more turn"
            self.text(20, self.y + 2, f"... {words} ...", "tl-soft tl-small")

    def turn(self, client, shows, turn):
        self.y += 16
        self.parts.append(f'<path class="tl-grid" d="M14 {self.y}H{timeline.WIDTH - 14}"/>')
        self.y += 18
        self.text(20, self.y, shows[0].upper() + shows[1:], "tl-ink tl-strong tl-halo")
        self.y += 6
        begun = {}  # when who began to run: the upper end of its bar
        for line in turn.lines:
            if line.text == "wait()":
                self.arrow("reactor", "demultiplexer", line.text)
                begun["wait"] = self.y
            elif line.text.startswith(("epoll_wait", "select", "poll", "kevent")):
                self.arrow("client", "demultiplexer", client)
                self.bar("demultiplexer", begun.pop("wait"), "tl-wait")
                self.call("demultiplexer", line.text)
            elif line.text == "return":
                self.arrow(line.caller, line.called, "", dashed=True, height=11)
                self.bar(line.caller, begun.pop(line.caller), "tl-work")
            elif line.called:
                self.arrow(line.caller, line.called, line.text, dashed=line.text.startswith("ready"))
                if line.text.startswith("handle_event"):
                    begun[line.called] = self.y
            else:
                self.call(line.caller, line.text)

    def arrow(self, start, end, words, dashed=False, height=ROW):
        self.y += height
        x, to = COLUMNS[start], COLUMNS[end]
        gap = BAR / 2 + 1 if to > x else -BAR / 2 - 1
        style = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<path class="tl-arrow" marker-end="url(#head-{self.id})" d="M{x + gap} {self.y}H{to - gap}"{style}/>'
        )
        self.text((x + to) / 2, self.y - 4, words, "tl-call tl-ink tl-halo", "middle")

    def bar(self, name, top, classes):
        self.parts.append(
            f'<rect x="{COLUMNS[name] - BAR / 2}" y="{top}" width="{BAR}" height="{self.y - top}" class="{classes}"/>'
        )

    def call(self, name, words):
        """A call of the system, beside the line of who makes it."""
        self.y += 14 if name != "demultiplexer" else 12
        self.text(COLUMNS[name] + 10, self.y, words, "tl-call tl-work tl-halo")


def draw(name, command):
    if not os.access(command[0], os.X_OK):
        raise scenario.Unavailable(f"{os.path.basename(command[0])} could not be built")
    return Drawing(name, *run(command)).draw()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        sys.exit(timeline.main(sys.argv[1:], draw))
    except KeyboardInterrupt:
        sys.exit(130)
