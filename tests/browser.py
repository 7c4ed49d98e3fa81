"""Headless Chromium, driven through its DevTools protocol over a pipe.

The protocol: https://chromedevtools.github.io/devtools-protocol/. ``--remote-debugging-pipe`` reads
JSON messages from file descriptor 3 and writes them to 4, each with a zero byte at its end.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A browser with one tab.

    Args:
        chromium: path of the program.
        profile: empty folder for its profile.
    """

    def __init__(self, chromium: str, profile: Path):
        commands, self._commands = os.pipe()
        self._replies, replies = os.pipe()

        def connect() -> None:
            os.dup2(commands, 3)
            os.dup2(replies, 4)
            os.set_inheritable(3, True)  # dup2 does not, if the number was 3 before

        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
        self._process = subprocess.Popen(
            [chromium, *flags, "--disable-dev-shm-usage", f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect,
        )
        os.close(commands)
        os.close(replies)
        self._received, self._number, self._session = b"", 0, {}
        self.events: list[dict[str, Any]] = []
        """What the page reported since it was opened."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._commands)  # the browser ends when its pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._replies)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a method of the protocol; RuntimeError if it reports an error."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (reply := self._read()).get("id") != self._number:
            self.events.append(reply)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            part = os.read(self._replies, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def show(self, width: int, scheme: str = "light", media: str = "") -> None:
        """Set the width of the window in CSS pixels, the colour scheme, and perhaps ``print``."""
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844 if mobile else 900,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, page: Path) -> None:
        """Load a file and wait until everything in it is loaded."""
        self.events.clear()
        failure = self.call("Page.navigate", url=page.resolve().as_uri()).get("errorText")
        if failure:
            raise RuntimeError(f"{page}: {failure}")
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        self.run("Promise.all([...document.images].map(image => image.decode().catch(() => 0)))")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, once it is known."""
        reply = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in reply:
            raise RuntimeError(f"{script}: {reply['exceptionDetails']}")
        return reply["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, for example ``Tab`` or ``ArrowLeft``."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **({"text": "\r"} if (key, kind) == ("Enter", "keyDown") else {}),
            )

    def problems(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and requests for other files."""
        found = []
        for event in self.events:
            method, params = event["method"], event["params"]
            if method == "Log.entryAdded":
                found.append(params["entry"]["text"])
            elif method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled":
                found.append(str(params["args"]))
            elif method == "Network.requestWillBeSent" and params["type"] != "Document":
                url = params["request"]["url"]
                found += [] if url.startswith("data:") else [f"requests {url}"]
        return found

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """Write a PNG of the whole page, or of what is in the window."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        file.write_bytes(base64.b64decode(data))

    def pdf(self, file: Path) -> None:
        """Print the page to a PDF of A4 pages."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69}
        data = self.call("Page.printToPDF", printBackground=False, **size)["data"]
        file.write_bytes(base64.b64decode(data))
