"""The scenario of the timelines: a server under strace, and three clients.

Client A says something, pauses, and says something else. Client B is slow: it connects, says nothing for a while,
sends its message in two pieces, and reads late. Client C comes after B, sends its message with a FIN behind it, and
wants its answer. The pauses belong to the scenario; all else is done when it is seen that what comes before is done.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field

DEADLINE = 20 * float(os.environ.get("CK_TIMEOUT_MULTIPLIER", "1"))  # seconds, for everything that must happen


class Unavailable(Exception):
    """This machine cannot trace."""


class Failed(Exception):
    """The server, or the scenario, did not do what it should."""


@dataclass
class Step:
    """One thing that a client did: connect, send, answer (it waits for one), pause, fin, end (waits for it), close."""

    kind: str
    start: float
    end: float
    text: str = ""


@dataclass
class Client:
    name: str
    steps: list = field(default_factory=list)


@dataclass
class Call:
    """A system call of the server, with what it was about."""

    name: str
    start: float
    end: float
    result: str
    text: str
    connection: object = None
    blocking: bool = True  # False if the descriptor is non-blocking: then it did not wait, however long it took

    @property
    def client(self):
        return self.connection.client if self.connection else ""

    @property
    def operations(self):
        """How many operations it has handed over to the kernel."""
        return int(self.result) if self.name == "io_uring_enter" and self.result.isdigit() else 0


@dataclass
class Thread:
    start: float
    end: float
    calls: list = field(default_factory=list)


@dataclass
class Connection:
    """What lies between an accept and a close; client is the name of who is at the other end."""

    client: str
    blocking: bool = True


class Talker:
    """A client that notes when it did what."""

    def __init__(self, name, address):
        self.client = Client(name)
        self.address = address
        self.socket = None

    def note(self, kind, start, text=""):
        self.client.steps.append(Step(kind, start, time.time(), text))

    def connect(self):
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        start = time.time()
        self.socket.connect(self.address)
        self.note("connect", start)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pause(self, milliseconds):
        start = time.time()
        time.sleep(milliseconds / 1000)
        self.note("pause", start)

    def say(self, text):
        start = time.time()
        self.socket.sendall(text.encode())
        self.note("send", start, text)

    def hear(self, text):
        start = time.time()
        heard = b""
        while len(heard) < len(text):
            more = self.socket.recv(len(text) - len(heard))
            if not more:
                raise Failed(f"client {self.client.name} wanted the answer {text}, and got {heard.decode()} and the end")
            heard += more
        if heard != text.encode():
            raise Failed(f"client {self.client.name} wanted the answer {text}, and got {heard!r}")
        self.note("answer", start, text)

    def finish(self):
        self.half_close()
        self.leave()

    def half_close(self):
        start = time.time()
        self.socket.shutdown(socket.SHUT_WR)
        self.note("fin", start)

    def leave(self):
        start = time.time()
        if self.socket.recv(1):
            raise Failed(f"client {self.client.name} got more than it had sent")
        self.note("end", start)
        start = time.time()
        self.socket.close()
        self.note("close", start)


def play(address):
    """Plays the three clients, and returns them with what they noted."""
    a, b, c = (Talker(name, address) for name in "ABC")
    a_answered = threading.Event()
    b_connected = threading.Event()
    errors = []

    def first():
        a.pause(8)  # the figure begins with a server that has nothing to do, and ends with one
        a.connect()
        a.pause(2)
        a.say("one")
        a.hear("one")
        a_answered.set()
        a.pause(16)
        a.say("two")
        a.hear("two")
        a.pause(2)
        a.finish()

    def slow():
        a_answered.wait(DEADLINE)
        b.pause(5)
        b.connect()
        b_connected.set()
        b.pause(58)
        b.say("slo")
        b.pause(10)
        b.say("w")
        b.pause(8)
        b.hear("slow")
        b.finish()

    def last():
        b_connected.wait(DEADLINE)
        c.pause(6)
        c.connect()
        c.pause(1)
        c.say("hello")
        c.half_close()
        c.hear("hello")
        c.leave()

    def guarded(part):
        try:
            part()
        except (OSError, Failed) as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(part,)) for part in (first, slow, last)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.006)
    if errors:
        raise Failed(str(errors[0]))
    return [a.client, b.client, c.client]


def check_strace():
    """Raises Unavailable with the reason if nothing can be traced here."""
    if not shutil.which("strace"):
        raise Unavailable("strace is not installed")
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], stderr=subprocess.PIPE, text=True, check=False)
    if tried.returncode != 0:
        why = tried.stderr.strip().splitlines() or ["it ends with status %d" % tried.returncode]
        raise Unavailable(f"strace does not work here: {why[-1]}")


def run(command):
    """Runs the server under strace through the scenario. Returns the clients and the server's threads."""
    check_strace()
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "strace")
        # -f: all threads; -ttt, -T: when, and how long. Not -yy, which would name the client of each descriptor: it
        # makes every call four times as slow.
        tracer = subprocess.Popen(
            ["strace", "-f", "-ttt", "-T", "-o", log, "--", *command, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # the leak checker of a sanitizer build cannot work under a tracer
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "LSAN_OPTIONS": "detect_leaks=0"},
        )
        watchdog = threading.Timer(2 * DEADLINE, lambda: stop(tracer, log, signal.SIGKILL))
        watchdog.start()
        try:
            ready = tracer.stdout.readline()
            match = re.match(r"listening on (.*):(\d+)$", ready)
            if not match:
                complaint = tracer.stderr.read().strip()
                unusable = re.search(r": (.* cannot be used: .*)", complaint)  # this machine lacks what was asked for
                if unusable:
                    raise Unavailable(unusable[1])
                raise Failed(f"{command[0]} did not start: {complaint or 'no line on stdout'}")
            clients = play((match[1].strip("[]"), int(match[2])))
        except BaseException:
            stop(tracer, log, signal.SIGKILL)
            raise
        finally:
            if tracer.poll() is None:
                stop(tracer, log, signal.SIGTERM)
            complaint = tracer.communicate()[1]
            watchdog.cancel()
        if tracer.returncode != 0:
            raise Failed(f"{command[0]} ended with status {tracer.returncode}: {complaint.strip()}")
        with open(log, encoding="utf-8", errors="replace") as file:
            return clients, parse(file, clients)


def stop(tracer, log, signal_number):
    """Sends the server a signal: the process that the first line of the log is about."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            os.kill(int(file.readline().split()[0]), signal_number)
    except (OSError, ValueError, IndexError):
        tracer.kill()


LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
CALL = re.compile(r"(\w+)\((.*)\) += (.*?)(?: <(\d+\.\d+)>)?$")

# As the C library calls them
PLAIN_NAMES = {
    "recvfrom": "recv",
    "sendto": "send",
    "accept4": "accept",
    "pselect6": "select",
    "ppoll": "poll",
    "epoll_pwait": "epoll_wait",
    "epoll_pwait2": "epoll_wait",
    "clone3": "clone",
    "clock_nanosleep": "nanosleep",
}
ON_A_DESCRIPTOR = {"accept", "recv", "recvmsg", "read", "readv", "send", "sendmsg", "write", "writev", "close", "shutdown"}
ON_A_DESCRIPTOR |= {"setsockopt", "fcntl", "ioctl"}


def parse(lines, clients):
    """Reads strace's log. Returns the threads, in the order in which they came."""
    threads = {}
    unfinished = {}
    owners = Owners(clients)
    for line in lines:
        match = LINE.match(line)
        if not match:
            continue
        tid, now, what = int(match[1]), float(match[2]), match[3]
        thread = threads.setdefault(tid, Thread(now, now))
        thread.end = now
        if what.endswith("<unfinished ...>"):
            unfinished[tid] = (now, what[: -len("<unfinished ...>")])
            continue
        resumed = RESUMED.match(what)
        start = now
        if resumed and tid in unfinished:
            start, begun = unfinished.pop(tid)
            what = begun + resumed[1]
        match = CALL.match(what)
        if match:
            call = finished_call(start, *match.groups())
            owners.see(call, match[2])
            thread.end = max(thread.end, call.end)
            thread.calls.append(call)
    return list(threads.values())


def finished_call(start, name, arguments, result, duration):
    name = PLAIN_NAMES.get(name, name)
    text = f"{name}({arguments}) = {result}"
    error = re.match(r"(?:-1|\?) (E\w+)", result)
    if error:
        result = "EINTR" if error[1].startswith("EREST") else error[1]
    else:
        result = result.split()[0]
    return Call(name, start, start + float(duration or 0), result, text)


class Owners:
    """Knows which connection a descriptor is, and which client's it is."""

    def __init__(self, clients):
        self.connections = {}  # by descriptor
        # The kernel hands them out in the order in which they connected; but what a client says proves who it is.
        self.expected = [client.name for client in clients]
        self.words = {step.text: client.name for client in clients for step in client.steps if step.kind == "send"}

    def see(self, call, arguments):
        if call.name not in ON_A_DESCRIPTOR:
            return
        descriptor = re.match(r"\d*", arguments)[0]
        if call.name == "accept" and call.result.isdigit():
            listener = self.connections.setdefault(descriptor, Connection(""))
            call.blocking = listener.blocking
            name = self.expected.pop(0) if self.expected else ""
            call.connection = Connection(name, "SOCK_NONBLOCK" not in arguments)
            self.connections[call.result] = call.connection
            return
        call.connection = self.connections.setdefault(descriptor, Connection(""))
        said = re.match(r'\d+, (?:\[?\{iov_base=)?"([^"]*)"', arguments)
        if call.name.startswith(("recv", "read")) and said and said[1] in self.words:
            call.connection.client = self.words[said[1]]
        if call.name == "fcntl" and "F_SETFL" in arguments:
            call.connection.blocking = "O_NONBLOCK" not in arguments
        call.blocking = call.connection.blocking and "MSG_DONTWAIT" not in arguments
        if call.name == "close":
            del self.connections[descriptor]


if __name__ == "__main__":
    sys.exit("scenario.py is a part of timeline.py")
