"""One spelling for URLs that name the same thing."""

from __future__ import annotations

import re

_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)
_PORT = re.compile(r":([0-9]*)$")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNWRITABLE = re.compile(r"[^!-~]")  # not printable ASCII: a URL has it as an escape
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORTS = {"http": "80", "https": "443", "ftp": "21", "ws": "80", "wss": "443"}

TRACKING_PREFIX = "utm_"
TRACKING_PARAMETERS = frozenset(
    {
        "_ga", "_gl", "dclid", "fbclid", "gbraid", "gclid", "gclsrc", "igshid", "mc_cid", "mc_eid", "mkt_tok",
        "msclkid", "twclid", "ttclid", "wbraid", "yclid",
    }
)  # fmt: skip
"""Parameters of a query that say where a visitor came from, not what is shown; so does every name in ``utm_``."""


def normalise_url(url: str) -> str:
    """The spelling under which URLs of the same thing are equal.

    After RFC 3986, 6.2.2 and 6.2.3, scheme and host are in lower case; the default port, an empty port, the fragment
    and white space around are dropped; an empty path is ``/``; escapes of unreserved characters are undone, others are
    in upper case, and what may not stand in a URL is escaped as UTF-8. Parameters of the query that only track a
    visitor (``TRACKING_PARAMETERS``, ``utm_*``) are dropped, as is the question mark before an empty query.

    Nothing else changes: http and https, with and without ``www.``, the order of the other parameters and a slash at
    the end of a path make different URLs, as servers may answer differently. Text without ``scheme://`` is only
    stripped.
    """
    url = url.strip()
    found = _PARTS.fullmatch(url)
    if found is None:
        return url
    scheme, authority, path, query = found[1].lower(), found[2], found[3], found[4] or ""
    user, at, host = authority.rpartition("@")
    host = _plain_escapes(_ESCAPE.sub(_plain_escape, host).lower())  # an escape may stand for a capital
    port = _PORT.search(host)
    if port is not None and port[1] in ("", _DEFAULT_PORTS.get(scheme)):
        host = host[: port.start()]
    kept = "&".join([part for part in query.split("&") if not _tracks(part.partition("=")[0])]) if query else ""
    query = "?" + _plain_escapes(kept) if kept else ""
    return f"{scheme}://{user}{at}{host}{_plain_escapes(path) or '/'}{query}"


def _tracks(name: str) -> bool:
    name = name.lower()
    return name in TRACKING_PARAMETERS or name.startswith(TRACKING_PREFIX)


def _plain_escapes(text: str) -> str:
    if "%" in text:
        text = _ESCAPE.sub(_plain_escape, text)
    return text if text.isascii() and text.isprintable() and " " not in text else _UNWRITABLE.sub(_escaped, text)


def _plain_escape(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))
