"""A headless Chromium, driven by its DevTools protocol over a websocket."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--remote-debugging-port=0",
    "--remote-allow-origins=*", "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
)  # fmt: skip
PATIENCE_S = 60.0
KEY_CODES = {"ArrowUp": 38, "ArrowDown": 40, "Enter": 13, "Escape": 27}
"""Codes of the keys that have an effect of their own in lists and fields."""


class Page:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call the protocol and wait for the answer; events on the way are kept."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)
            if message["method"] == "Page.javascriptDialogOpening":
                self._number += 1
                answer = {"method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                self._socket.send(json.dumps({"id": self._number, **answer}))

    def run(self, script: str) -> Any:
        """Value of an expression, awaited."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Wait until an expression is true, and return its value."""
        return self.run(
            "new Promise((done, fail) => { const late = setTimeout(() => fail(new Error("
            f"'waited in vain for ' + {json.dumps(script)})), 50000); const look = () => {{ "
            f"const found = ({script}); if (found) {{ clearTimeout(late); done(found); }} "
            "else setTimeout(look, 50); }; look(); })"
        )

    def go(self, address: str) -> None:
        """Open an address, and wait until its first study is shown."""
        self.call("Page.navigate", url=address)
        self.wait_for("document.body && document.body.dataset.open")
        self.settle()

    def settle(self) -> None:
        """Wait until what has changed is drawn: sizes, buttons and canvases."""
        self.run(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame("
            "() => setTimeout(done, 0))))"
        )

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key."""
        code = KEY_CODES.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                modifiers=modifiers, **text,
            )  # fmt: skip

    def drag(self, places: list[tuple[float, float]], modifiers: int = 0) -> None:
        """Drag the mouse with its left button over places of the page."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*places, places[-1]], strict=True):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left",
                buttons=0 if kind == "mouseReleased" else 1, clickCount=1, modifiers=modifiers,
            )  # fmt: skip

    def click(self, selector: str) -> None:
        """Click the middle of the first element of a selector, once it is there and enabled."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.settle()
        self.wait_for(f"{found} && !{found}.disabled")
        box = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); "
            "one.scrollIntoView({ block: 'nearest' }); const b = one.getBoundingClientRect(); "
            "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        self.drag([(float(box[0]), float(box[1]))])

    def type(self, text: str) -> None:
        """Type into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, name: str) -> None:
        """Choose an option of a list by its text, with the keyboard, as a closed list allows."""
        self.run(f"(document.querySelector({json.dumps(selector)}).focus(), 1)")
        at = (
            f"(() => {{ const s = document.querySelector({json.dumps(selector)}); return ["
            f"s.selectedIndex, [...s.options].findIndex((o) => o.text.startsWith({json.dumps(name)}"
            "))]; })()"
        )
        now, aim = self.run(at)
        assert aim >= 0, f"{selector} has no option {name!r}"
        for _ in range(abs(aim - now)):
            self.press("ArrowDown" if aim > now else "ArrowUp")
        self.wait_for(f"document.querySelector({json.dumps(selector)}).selectedIndex === {aim}")
        self.run("(document.activeElement.blur(), 1)")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def picture(self, path: Path) -> Path:
        """Write a picture of the page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return path

    def addresses(self) -> list[str]:
        """All addresses that were requested."""
        self.run("0")
        sent = [one for one in self.events if one["method"] == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]

    def faults(self) -> list[str]:
        """Errors of scripts and of the security policy."""
        self.run("0")
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]["exceptionDetails"])[:500])
            entry = event["params"].get("entry", {})
            if event["method"] == "Log.entryAdded" and entry.get("level") == "error":
                found.append(f"{entry.get('text')} {entry.get('url', '')}")
        return found


class Chromium:
    """The browser."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A new page with storage of its own, as of another person."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/json/version") as answer:
            place = json.load(answer)["webSocketDebuggerUrl"]
        with connect(place, max_size=None) as socket:
            root = Page.__new__(Page)
            root._socket, root._number, root.events = socket, 0, []
            context = root.call("Target.createBrowserContext")["browserContextId"]
            target = root.call("Target.createTarget", url="about:blank", browserContextId=context)[
                "targetId"
            ]
            where = f"ws://127.0.0.1:{self._port}/devtools/page/{target}"
            with connect(where, max_size=None) as own:
                yield Page(own)


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """A headless Chromium for as long as the context lasts; skips where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine")
    command = [program, *FLAGS, f"--user-data-dir={profile}"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=quiet, text=True, encoding="utf-8"
    ) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            yield Chromium(int(line.rpartition(":")[2].split("/")[0]))
        finally:
            process.terminate()
