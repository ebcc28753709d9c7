"""Draws what a server does while three clients talk to it, as SVG, from a real run under strace.

    timeline.py [--placeholder] FIGURE.svg SERVER [OPTION]...

scripts/trace calls it, once for each server. Prints the path of the figure. Ends with 77 where nothing can be traced;
with --placeholder it then draws a figure that says so.
"""
import os
import re
import sys
from dataclasses import dataclass
from html import escape

import scenario

# The calls in which a thread may wait
WAITING_CALLS = {
    *("accept", "connect", "recv", "recvmsg", "read", "readv", "send", "sendmsg", "write", "writev"),
    *("select", "poll", "epoll_wait", "io_uring_enter", "kevent"),
    *("futex", "nanosleep", "wait4", "rt_sigtimedwait", "pause"),
}
# The calls that are named in the figure; the others are in its tooltips only
NAMED_CALLS = {
    *("accept", "recv", "recvmsg", "read", "readv", "send", "sendmsg", "write", "writev", "close", "shutdown", "clone"),
    *("select", "poll", "epoll_wait", "epoll_ctl", "io_uring_enter", "kevent"),
}
RECEIVES = {"recv", "recvmsg", "read", "readv"}
SENDS = {"send", "sendmsg", "write", "writev"}

WAIT_MIN = 0.0008  # seconds; a call that returned sooner did not wait
VAIN_RUN = 5  # so many calls in a row that got nothing are drawn as one band
RUNS = 5  # the one that took least is drawn: the machine's other work disturbed it least
HELD_UP = 0.010  # seconds; a client that waits longer for its answer was held up, and a thread that makes no call computes

# Measures, in user units
WIDTH, LEFT, RIGHT = 960, 122, 112
BAR, CLIENT_BAR, ROW = 26, 16, 13
LETTER = 6.0  # the width of one in the 10 unit fixed-width font

NAMES = {"wait": "waits", "work": "works", "vain": "in vain"}

PALETTE = {
    # name: (light, dark)
    "paper": ("#ffffff", "#14181d"),
    "edge": ("#d5dbe1", "#333b44"),
    "grid": ("#eceff2", "#222931"),
    "ink": ("#1d2731", "#e6ebf0"),
    "soft": ("#5a6773", "#9ba8b4"),
    "wait": ("#bfdbf5", "#214a70"),
    "on-wait": ("#113a60", "#d3e8fc"),
    "work": ("#14804a", "#43c684"),
    "on-work": ("#ffffff", "#062513"),
    "vain": ("#e07b00", "#ff9d2e"),
    "vain-back": ("#ffe7c7", "#4a2d0b"),
    "on-vain": ("#6b3a00", "#ffe3c2"),
}


def style():
    """The colours, by class: as the reader's system wants them, or as a page around the figure sets data-theme."""
    fixed = """
.tl text{font:12px system-ui,-apple-system,'Segoe UI','Noto Sans','DejaVu Sans',sans-serif}
.tl .tl-call{font:10px ui-monospace,'DejaVu Sans Mono','Liberation Mono',Menlo,Consolas,monospace}
.tl .tl-headline{font-size:19px;font-weight:650}.tl .tl-strong{font-weight:650}.tl .tl-small{font-size:11px}
.tl .tl-halo,.tl .tl-vain-halo{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}
.tl .tl-arrow,.tl .tl-tick{fill:none;stroke-width:1}.tl .tl-arrow{stroke-opacity:.65}"""

    def colours(index, scope=""):
        colour = {name: pair[index] for name, pair in PALETTE.items()}
        rules = []
        for name, value in colour.items():
            rules.append(f"{scope}.tl .tl-{name}{{fill:{value}}}")
        rules.append(f"{scope}.tl .tl-paper{{stroke:{colour['edge']}}}")
        rules.append(f"{scope}.tl .tl-box{{fill:{colour['paper']};stroke:{colour['soft']}}}")
        rules.append(f"{scope}.tl .tl-halo{{stroke:{colour['paper']}}}")
        rules.append(f"{scope}.tl .tl-vain-halo{{stroke:{colour['vain-back']}}}")
        rules.append(f"{scope}.tl .tl-held{{fill:none;stroke:{colour['on-wait']};stroke-width:1.5}}")
        rules.append(f"{scope}.tl .tl-grid{{stroke:{colour['grid']}}}")
        rules.append(f"{scope}.tl .tl-silent{{fill:none;stroke:{colour['soft']};stroke-dasharray:1 4}}")
        rules.append(f"{scope}.tl .tl-tick,{scope}.tl .tl-arrow{{stroke:{colour['soft']}}}")
        rules.append(f"{scope}.tl .tl-hatch{{stroke:{colour['vain']}}}")
        return "".join(rules)

    return (
        f"<style>{fixed}\n{colours(0)}\n@media (prefers-color-scheme:dark){{{colours(1)}}}\n"
        f"{colours(0, 'body[data-theme=light] ')}\n{colours(1, 'body[data-theme=dark] ')}\n</style>"
    )


@dataclass
class Segment:
    """A stretch of a thread's life: wait, work or vain."""

    kind: str
    start: float
    end: float
    calls: list


def is_vain(call):
    """It asked, and there was nothing."""
    if call.result in ("EAGAIN", "EWOULDBLOCK"):
        return True
    return call.result == "0" and call.name in ("poll", "select", "epoll_wait") and call.end - call.start < WAIT_MIN


def is_wait(call):
    return call.name in WAITING_CALLS and call.blocking and not is_vain(call) and call.end - call.start >= WAIT_MIN


def segments(thread, start, end):
    """Returns the segments of a thread from start to end, without gaps: what is neither waiting nor vain is work."""
    found = []
    run = []

    def end_run():
        if len(run) >= VAIN_RUN:
            found.append(Segment("vain", run[0].start, run[-1].end, list(run)))
        run.clear()

    for call in thread.calls:
        if call.end < start or call.start > end:
            continue
        if is_vain(call):
            run.append(call)
            continue
        end_run()
        if is_wait(call):
            found.append(Segment("wait", call.start, call.end, [call]))
    end_run()

    whole = []
    at = max(thread.start, start)
    last = min(thread.end, end)
    for segment in found:
        if segment.start > at:
            whole.append(Segment("work", at, segment.start, []))
        segment.start = max(segment.start, at)
        segment.end = min(segment.end, last)
        whole.append(segment)
        at = segment.end
    if last > at:
        whole.append(Segment("work", at, last, []))
    for segment in whole:
        if segment.kind == "work":
            segment.calls = [c for c in thread.calls if segment.start <= c.start and c.end <= segment.end]
    return whole


def computing(lane):
    """Returns (client, start, end) of each stretch in which a thread made no call, after one that was about this client."""
    found = []
    for segment in lane:
        calls = segment.calls if segment.kind == "work" else []
        for call, following in zip(calls, calls[1:]):
            if following.start - call.end > HELD_UP:
                found.append((call.client, call.end, following.start))
    return found


class Story:
    """What happened: the clients, the threads as segments, and what can be said about them in a sentence."""

    def __init__(self, model, clients, threads):
        self.model = model
        self.clients = clients
        steps = [step for client in clients for step in client.steps if step.kind != "pause"]
        self.start = min(step.start for step in steps) - 0.004
        self.end = max(step.end for step in steps) + 0.003
        self.threads = [t for t in threads if t.end > self.start and t.start < self.end]
        self.threads[1:] = sorted(self.threads[1:], key=lambda t: "".join(c.client for c in t.calls)[:1])
        self.lanes = [segments(thread, self.start, self.end) for thread in self.threads]
        self.calls = [c for t in self.threads for c in t.calls if c.start >= self.start and c.end <= self.end]
        self.vain = sum(is_vain(call) for call in self.calls)
        self.enters = [call for call in self.calls if call.name == "io_uring_enter"]

    def longest_answer(self, client):
        return max((s for s in client.steps if s.kind == "answer"), key=lambda s: s.end - s.start)

    def held_up_by(self, client, answer):
        """Returns the call, with another client, in which the server waited longest while this one wanted its answer; or
        None if such calls do not make up half of that time."""
        waits = [s.calls[0] for lane in self.lanes for s in lane if s.kind == "wait"]
        waits = [w for w in waits if w.client not in ("", client.name)]
        overlap = {id(w): max(0, min(w.end, answer.end) - max(w.start, answer.start)) for w in waits}
        if sum(overlap.values()) < (answer.end - answer.start) / 2:
            return None
        return max(waits, key=lambda w: overlap[id(w)])

    def computed_for(self, answer):
        """Returns for which client the only thread computed through half of the time of this answer, or None."""
        for client, start, end in computing(self.lanes[0]) if len(self.lanes) == 1 else []:
            if min(end, answer.end) - max(start, answer.start) > (answer.end - answer.start) / 2:
                return client
        return None

    def headline(self):
        by_answer = sorted(self.clients, key=lambda c: self.longest_answer(c).start - self.longest_answer(c).end)
        # Not one for whom the server computes: that takes its time, and it is its own
        slowest = next((c for c in by_answer if self.computed_for(self.longest_answer(c)) != c.name), by_answer[0])
        answer = self.longest_answer(slowest)
        milliseconds = (answer.end - answer.start) * 1000
        wait = self.held_up_by(slowest, answer)
        if answer.end - answer.start > HELD_UP and wait and len(self.threads) == 1:
            return (
                f"{slowest.name} waits {milliseconds:.0f} ms for its answer",
                f"Its message is there, but the only thread is in {wait.name}(), and waits for {wait.client}.",
            )
        client = self.computed_for(answer)
        if answer.end - answer.start > HELD_UP and client and client != slowest.name:
            return (
                f"{slowest.name} waits {milliseconds:.0f} ms for its answer",
                f"Its message is there, but the only thread computes, for {client}, and calls nobody else.",
            )
        if self.vain > len(self.calls) / 2:
            return (
                "nobody waits, and the processor never rests",
                f"{self.vain:,} of {len(self.calls):,} calls asked in vain. Without strace, which slows each call, "
                "there would be many times as many.",
            )
        if len(self.threads) > len(self.clients):
            return (
                "each client has its thread",
                "The thread of a client that is silent waits with it; the others do not notice.",
            )
        if self.enters:
            operations = sum(call.operations for call in self.enters)
            others = len(self.calls) - len(self.enters)
            which = f"All of its {len(self.calls)} calls" if others == 0 else f"{len(self.enters)} of its {len(self.calls)} calls"
            return (
                "one thread, all clients, and the kernel does the work",
                f"{which} are io_uring_enter. They wait, and they hand over {operations} operations: the kernel receives and sends.",
            )
        names = sorted({s.calls[0].name for lane in self.lanes for s in lane if s.kind == "wait"})
        return (
            f"{'one thread' if len(self.threads) == 1 else f'{len(self.threads)} threads'}, all clients",
            f"It waits in {' and '.join(names) or 'no call'}, for whoever has something to say.",
        )

    def thread_name(self, index):
        if index == 0:
            return "main thread" if len(self.threads) > 1 else "the thread"
        whose = {c.client for c in self.threads[index].calls if c.client}
        return f"thread for {whose.pop()}" if len(whose) == 1 else f"thread {index + 1}"


class Canvas:
    """The parts of a figure. It grows downwards: each part takes its height from self.y."""

    def __init__(self, name):
        self.parts = []
        self.y = 0.0
        self.id = re.sub(r"\W+", "-", name)

    def text(self, x, y, words, classes="tl-ink", anchor="start"):
        end = f' text-anchor="{anchor}"' if anchor != "start" else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}"{end}>{escape(words)}</text>')


class Drawing(Canvas):
    """The timeline"""

    def __init__(self, story):
        super().__init__(story.model)
        self.story = story
        self.bars = {}  # the upper and lower edge of each lane's bar: by client's name or thread's index

    def x(self, time):
        share = (time - self.story.start) / (self.story.end - self.story.start)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def rect(self, start, end, y, height, classes, title=""):
        x = self.x(start)
        width = max(self.x(end) - x, 1.2)
        told = f"<title>{escape(title)}</title>" if title else ""
        fill = f' style="fill:url(#hatch-{self.id})"' if classes == "tl-vain-band" else ""
        self.parts.append(
            f'<rect x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height}" class="{classes}"{fill}>{told}</rect>'
        )

    def labels(self, marks, rows, bottom):
        """Writes labels above a bar whose upper edge is bottom: each in the lowest of the rows that has room for it."""
        ends = [0.0] * rows
        texts = []
        for x, words, title in marks:
            width = len(words) * LETTER + 8
            left = min(x - 2, WIDTH - RIGHT + 10 - width)
            row = next((r for r in range(rows) if ends[r] <= left), None)
            self.parts.append(f'<path class="tl-tick" d="M{x:.1f} {bottom:.1f}v-{4 + ROW * (row or 0)}"/>')
            if row is None:
                continue
            ends[row] = left + width
            y = bottom - 6 - ROW * row
            texts.append(
                f'<text x="{left:.1f}" y="{y:.1f}" class="tl-call tl-ink tl-halo">'
                f"{escape(words)}<title>{escape(title)}</title></text>"
            )
        self.parts += texts  # over all the ticks

    def in_bar(self, start, end, middle, choices, classes):
        """Writes the longest of the choices that fits between start and end."""
        room = self.x(end) - self.x(start) - 8
        for words in choices:
            if len(words) * 6.3 <= room:
                self.text((self.x(start) + self.x(end)) / 2, middle + 4, words, classes, "middle")
                return

    # What is drawn, from top to bottom

    def draw(self):
        self.heading()
        top = self.y
        lanes = len(self.parts)
        for client in self.story.clients:
            self.client_lane(client)
        self.y += 18
        for index in range(len(self.story.lanes)):
            self.thread_lane(index)
        self.parts[lanes:lanes] = self.axis(top) + self.arrows()  # under the lanes
        self.footnote()
        return self.document()

    def heading(self):
        headline, reason = self.story.headline()
        self.text(20, 34, f"{self.story.model}: {headline}", "tl-ink tl-headline")
        self.text(20, 55, reason, "tl-soft")
        self.y = 82
        x = 20.0
        keys = [("tl-wait", "waits in a call"), ("tl-work", "works")]
        arrow = "a message, from send to enter" if self.story.enters else "a message, from send to recv"
        if any(s.kind == "vain" for lane in self.story.lanes for s in lane):
            keys.append(("tl-vain-band", "asks in vain (EAGAIN)"))
        for classes, words in keys:
            fill = f' style="fill:url(#hatch-{self.id})"' if classes == "tl-vain-band" else ""
            self.parts.append(f'<rect x="{x}" y="{self.y - 10}" width="22" height="12" rx="2" class="{classes}"{fill}/>')
            self.text(x + 28, self.y, words, "tl-soft tl-small")
            x += 28 + 5.9 * len(words) + 18
        self.parts.append(f'<path class="tl-silent" d="M{x} {self.y - 4}h22"/>')
        self.text(x + 28, self.y, "silent, by its own choice", "tl-soft tl-small")
        x += 28 + 5.9 * 25 + 18
        self.parts.append(f'<path class="tl-arrow" marker-end="url(#head-{self.id})" d="M{x} {self.y - 9}l20 9"/>')
        self.text(x + 28, self.y, arrow, "tl-soft tl-small")
        self.y += 20

    def client_lane(self, client):
        self.y += 2 * ROW + 6
        steps = [s for s in client.steps if s.end > client_start(client)]
        slow = " (slow)" if client.name == "B" else ""
        self.text(LEFT - 12, self.y + 13, f"client {client.name}{slow}", "tl-ink tl-strong", "end")
        self.bars[client.name] = (self.y, self.y + CLIENT_BAR)
        for step in steps:
            length = (step.end - step.start) * 1000
            if step.kind in ("answer", "end") and length > 0.3:
                self.rect(step.start, step.end, self.y, CLIENT_BAR, "tl-wait", f"waits {length:.1f} ms")
                words = (f"waits {length:.0f} ms for its answer", f"waits {length:.0f} ms", f"{length:.0f} ms")
                self.in_bar(step.start, step.end, self.y + 8, words, "tl-on-wait tl-strong")
                if length > HELD_UP * 1000:
                    self.rect(step.start, step.end, self.y, CLIENT_BAR, "tl-held")
            elif step.kind == "pause":
                y = self.y + CLIENT_BAR / 2
                self.parts.append(
                    f'<path class="tl-silent" d="M{self.x(step.start):.1f} {y}H{self.x(step.end):.1f}"/>'
                )
                if length > 3 * HELD_UP * 1000:
                    self.in_bar(step.start, step.end, y, ("says nothing",), "tl-soft tl-halo")
            else:
                self.rect(step.start, step.end, self.y, CLIENT_BAR, "tl-work", f"{step.kind} {step.text}".strip())
        self.labels(client_marks(self, steps), 2, self.y)
        answer = self.story.longest_answer(client)
        self.facts([("waits", answer.end - answer.start)], CLIENT_BAR)
        self.y += CLIENT_BAR

    def thread_lane(self, index):
        thread, lane = self.story.threads[index], self.story.lanes[index]
        marks = thread_marks(self, thread)
        rows = 2 if index == 0 else 1
        self.y += rows * ROW + 10
        self.text(LEFT - 12, self.y + BAR / 2 + 4, self.story.thread_name(index), "tl-ink tl-strong", "end")
        self.bars[index] = (self.y, self.y + BAR)
        spent = {"wait": 0.0, "work": 0.0, "vain": 0.0}
        for segment in lane:
            length = segment.end - segment.start
            spent[segment.kind] += length
            told = f"{length * 1000:.1f} ms"
            if segment.kind == "wait":
                call = segment.calls[0]
                self.rect(segment.start, segment.end, self.y, BAR, "tl-wait", f"waits {told} in {call.text}")
                about = f"{call.name}({call.client})"
                words = (f"waits in {about}, {told}", f"waits in {about}", about, call.name)
                self.in_bar(segment.start, segment.end, self.y + BAR / 2, words, "tl-on-wait")
            elif segment.kind == "vain":
                count = f"{len(segment.calls):,}"
                self.rect(segment.start, segment.end, self.y, BAR, "tl-vain-band", f"{count} calls in vain in {told}")
                words = (f"asks in vain, {count} times", f"{count} in vain", count)
                self.in_bar(segment.start, segment.end, self.y + BAR / 2, words, "tl-on-vain tl-strong tl-vain-halo")
            else:
                calls = "\n".join(call.text for call in segment.calls[:12])
                self.rect(segment.start, segment.end, self.y, BAR, "tl-work", f"works {told}\n{calls}".strip())
                for client, start, end in computing([segment]):
                    about = f"computes for {client}" if client else "computes"
                    words = (f"{about}, {(end - start) * 1000:.0f} ms", about)
                    self.in_bar(start, end, self.y + BAR / 2, words, "tl-on-work")
        self.labels(marks, rows, self.y)
        del spent["vain" if not spent["vain"] else "wait"]
        self.facts([(NAMES[kind], spent[kind]) for kind in sorted(spent, key=spent.get, reverse=True)], BAR)
        self.y += BAR

    def facts(self, pairs, height):
        """One or two durations at the right end of a lane, the first of them in bold."""
        y = self.y + height / 2 + (4 if len(pairs) == 1 else -3)
        for row, (what, seconds) in enumerate(pairs):
            milliseconds = seconds * 1000
            told = f"{milliseconds:.1f}" if 0.05 <= milliseconds < 9.95 else f"{milliseconds:.0f}"
            self.text(WIDTH - RIGHT + 12, y + 14 * row, f"{what} {told} ms", "tl-small " + ("tl-soft" if row else "tl-ink tl-strong"))

    def axis(self, top):
        self.y += 10
        grid = []
        milliseconds = (self.story.end - self.story.start) * 1000
        for tick in range(0, int(milliseconds) + 1, 10):
            x = self.x(self.story.start + tick / 1000)
            grid.append(f'<path class="tl-grid" d="M{x:.1f} {top:.0f}V{self.y:.0f}"/>')
            self.text(x, self.y + 14, str(tick), "tl-soft tl-small", "middle")
        self.text(WIDTH - RIGHT + 24, self.y + 14, "ms", "tl-soft tl-small")
        self.y += 38
        return grid

    def footnote(self):
        words = [
            "recv(B) is a call on the connection of client B, and recv=3 a call that returned 3. Drawn from a real run under "
            "strace, which makes work look longer than it is."
        ]
        if self.story.enters:
            words = [
                "+2: this io_uring_enter handed over 2 operations. strace sees neither them nor their completions. So an arrow "
                "goes to the first enter that returned after",
                "a message was sent, and from the last that was begun before its answer came. Drawn from a real run under strace, "
                "which makes work look longer than it is.",
            ]
        for line in words:
            self.text(20, self.y, line, "tl-soft tl-small")
            self.y += 16

    def arrows(self):
        """From each send of a client to the recv that took its last byte, and from the server's sends to the answers. With
        io_uring, to and from the calls of io_uring_enter in between."""
        found = self.arrows_of_enters() if self.story.enters else []
        for client in self.story.clients:
            received = self.progress(client, RECEIVES)
            total = 0
            for step in client.steps:
                if step.kind == "send":
                    total += len(step.text)
                    taken = next((r for r in received if r[2] >= total), None)
                    if taken:
                        found.append((step.start, self.bars[client.name][1], taken[1].end, self.bars[taken[0]][0]))
            for index, call, _ in self.progress(client, SENDS):
                answers = [s for s in client.steps if s.kind == "answer" and s.end >= call.start]
                if answers:
                    arrives = max(call.end, answers[0].start)
                    found.append((call.start, self.bars[index][0], arrives, self.bars[client.name][1]))
        return [
            f'<path class="tl-arrow" marker-end="url(#head-{self.id})" '
            f'd="M{self.x(start):.1f} {y:.1f}L{self.x(end):.1f} {to_y:.1f}"/>'
            for start, y, end, to_y in found
        ]

    def arrows_of_enters(self):
        """(start, y, end, y) for each message and each answer."""
        found = []
        enters = self.story.enters
        for client in self.story.clients:
            below = self.bars[client.name][1]
            for step in client.steps:
                if step.kind == "send":
                    taken = next((call for call in enters if call.end > step.start), None)
                    if taken:
                        found.append((step.start, below, taken.end, self.bars[0][0]))
                elif step.kind == "answer":
                    sent = [call for call in enters if call.operations and call.start < step.end and call.end > step.start]
                    sent = sent or [call for call in enters if call.operations and call.start < step.end]
                    if sent:
                        found.append((sent[-1].start, self.bars[0][0], max(step.end, sent[-1].start), below))
        return found

    def progress(self, client, names):
        """Returns (thread's index, call, bytes until then) of each call by which bytes moved for this client."""
        calls = [
            (index, call)
            for index, thread in enumerate(self.story.threads)
            for call in thread.calls
            if call.client == client.name and call.name in names and call.result.isdigit() and call.result != "0"
        ]
        calls.sort(key=lambda pair: pair[1].end)
        total = 0
        moved = []
        for index, call in calls:
            total += int(call.result)
            moved.append((index, call, total))
        return moved

    def document(self):
        headline, reason = self.story.headline()
        facts = [f"{headline}. {reason}"]
        for client in self.story.clients:
            answer = self.story.longest_answer(client)
            facts.append(f"Client {client.name} waits {(answer.end - answer.start) * 1000:.1f} ms for an answer at most.")
        title = f"{self.story.model}: a timeline of three clients"
        return document(self.id, title, " ".join(facts), self.y, self.parts)


def document(name, title, description, height, parts):
    return f"""<svg xmlns="http://www.w3.org/2000/svg" class="tl" viewBox="0 0 {WIDTH} {height:.0f}" \
role="img" aria-labelledby="title-{name} desc-{name}">
<title id="title-{name}">{escape(title)}</title>
<desc id="desc-{name}">{escape(description)}</desc>
{style()}
<defs>
<pattern id="hatch-{name}" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect width="7" height="7" class="tl-vain-back"/><path d="M1.5 0V7" class="tl-hatch" stroke-width="2"/></pattern>
<marker id="head-{name}" viewBox="0 0 6 6" refX="5.5" refY="3" markerWidth="6" markerHeight="6" orient="auto">
<path d="M0 0L6 3L0 6z" class="tl-soft"/></marker>
</defs>
<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8" class="tl-paper"/>
{chr(10).join(parts)}
</svg>
"""


def client_start(client):
    return next(step.start for step in client.steps if step.kind == "connect")


def client_marks(drawing, steps):
    """One label for what a client does within a millisecond."""
    words = {"connect": "connect", "fin": "FIN", "close": "close"}
    marks = []
    last = None
    for step in steps:
        if step.kind not in ("connect", "send", "fin"):
            continue
        word = words.get(step.kind) or f'send "{step.text}"'
        if last is not None and step.start - last < 0.0015:
            x, before, _ = marks[-1]
            marks[-1] = (x, f"{before}, {word}", f"{before}, {word}")
        else:
            marks.append((drawing.x(step.start), word, word))
        last = step.end
    return marks


def thread_marks(drawing, thread):
    """One label for the named calls that a thread makes within a millisecond."""
    marks = []
    last = None
    for call in thread.calls:
        within = call.end > drawing.story.start and call.end < drawing.story.end
        if call.name not in NAMED_CALLS or is_vain(call) or not within or call.result in ("?", "EINTR"):
            continue
        word = {"clone": "new thread", "close": "close"}.get(call.name, f"{call.name}={call.result}")
        at = call.end if is_wait(call) else call.start
        if call.name == "io_uring_enter":  # what it hands over, it hands over before it waits
            if not call.operations or call.start < drawing.story.start:
                continue
            word, at = f"+{call.operations}", call.start
        if last is not None and (call.name == "io_uring_enter" or not is_wait(call)) and call.start - last < 0.0015:
            x, before, told = marks[-1]
            marks[-1] = (x, f"{before} {word}", f"{told}\n{call.text}")
        else:
            marks.append((drawing.x(at), word, call.text))
        last = call.end
    return marks


def placeholder(model, why):
    """A figure that says that there is none."""
    name = re.sub(r"\W+", "-", model)
    lines = (
        (44, "tl-ink tl-headline", f"{model}: no timeline on this machine"),
        (70, "tl-soft", f"The reason: {why}."),
        (90, "tl-soft", "The figure is drawn while the book is built, from a trace of the server as it runs."),
    )
    parts = [f'<text x="24" y="{y}" class="{classes}">{escape(words)}</text>' for y, classes, words in lines]
    return document(name, f"{model}: no timeline", f"No timeline could be drawn: {why}.", 116, parts)


def draw(name, command):
    """Runs the server through the scenario a few times, and returns the drawing of its smoothest run."""
    if not os.access(command[0], os.X_OK):
        raise scenario.Unavailable(f"{command[0]} is not built; run make first")
    stories = [Story(name, *scenario.run(command)) for _ in range(RUNS)]
    return Drawing(min(stories, key=lambda story: story.end - story.start)).draw()


def main(arguments, draw=draw):
    with_placeholder = arguments[:1] == ["--placeholder"]
    path, *command = arguments[with_placeholder:]
    name = " ".join([os.path.basename(command[0]), *command[1:]])
    try:
        figure = draw(name, command)
    except scenario.Unavailable as why:
        if not with_placeholder:
            print(f"trace: {why}", file=sys.stderr)
            return 77
        figure = placeholder(name, str(why))
    except (scenario.Failed, OSError) as why:
        print(f"trace: {name}: {why}", file=sys.stderr)
        return 1
    with open(path, "w", encoding="utf-8") as file:
        file.write(figure)
    print(path)
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
