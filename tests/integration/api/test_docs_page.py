from __future__ import annotations

import base64
import hashlib
import re

from api.access import ACCESS

from .conftest import Node


def test_the_documentation_asks_nobody_else_for_anything(node: Node) -> None:
    page = node.client.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    links = re.findall(r"(?:src|href|action)\s*=\s*[\"']?([^\"'>]*)", page.text)
    assert (200, ["/openapi.json"]) == (page.status_code, links)
    assert [] == re.findall(r"<script|<link|<img|<iframe|url\(|@import|\son\w+=|//", page.text)
    assert [] == re.findall(r"https?:|unsafe|\*|data:", policy)
    assert policy.startswith("default-src 'none';")


def test_the_documentations_one_style_sheet_is_the_one_that_its_policy_permits(node: Node) -> None:
    page = node.client.get("/docs")
    (style,) = re.findall(r"<style>(.*?)</style>", page.text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]


def test_the_documentation_lists_every_operation(node: Node) -> None:
    shown = re.findall(r"<summary><code>([A-Z]+) ([^<]+)</code>", node.client.get("/docs").text)
    assert sorted(ACCESS) == sorted(shown)
