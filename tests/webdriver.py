"""A real Chromium without a screen, driven by chromedriver over the W3C's WebDriver protocol: JSON over HTTP."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen


def is_absent() -> bool:
    """Whether tests may do without a browser: CI must have one, but where it could not be installed, which CI says."""
    may_lack = not os.environ.get("CI") or bool(os.environ.get("MOLGRAFT_NO_BROWSER"))
    return shutil.which("chromedriver") is None and may_lack


class Browser:
    """One window."""

    def __init__(self, *, dark: bool = False, width: int = 1320, height: int = 1150) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={self._port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._session = ""
        try:
            self._begin(dark, width, height)
        except BaseException:
            self._driver.terminate()
            raise

    def _begin(self, dark: bool, width: int, height: int) -> None:
        end = time.monotonic() + 30
        while True:
            try:
                self._call("GET", "/status")
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        options = {
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"]
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        begun = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{begun['sessionId']}"
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        emulated = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": scheme}}
        self._call("POST", f"{self._session}/goog/cdp/execute", emulated)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(30)

    def open(self, address: str) -> None:
        self._call("POST", f"{self._session}/url", {"url": address})

    def run(self, script: str) -> Any:
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def wait_for(self, condition: str, limit: float = 120.0) -> None:
        end = time.monotonic() + limit
        while not self.run(f"return Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.2)

    def type_into(self, selector: str, text: str) -> None:
        self._call("POST", f"{self._session}/element/{self._element(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._call("POST", f"{self._session}/element/{self._element(selector)}/click", {})

    def act(self, actions: list[dict[str, Any]]) -> None:
        """Keys and pointers as a person moves them, in the terms of the WebDriver protocol."""
        self._call("POST", f"{self._session}/actions", {"actions": actions})

    def resize(self, width: int, height: int) -> None:
        """The size of the page's view in CSS pixels, which may be narrower than a window can be."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": size}
        self._call("POST", f"{self._session}/goog/cdp/execute", command)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._call("GET", f"{self._session}/screenshot")))

    def requested(self) -> list[str]:
        """The addresses of all requests that the page has made."""
        events = (json.loads(entry["message"])["message"] for entry in self._log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the browser says in its console."""
        return [entry["message"] for entry in self._log("browser")]

    def _element(self, selector: str) -> str:
        found = self._call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._call("POST", f"{self._session}/se/log", {"type": kind})
        return entries

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            f"http://127.0.0.1:{self._port}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
