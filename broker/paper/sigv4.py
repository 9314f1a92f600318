"""AWS's Signature Version 4 as a seller checks it: written from the documented steps.

References
----------
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

ACCESS_KEY_ID = "AKIDPAPER"
SERVICE = "bedrock"
MAX_SKEW_S = 15 * 60
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


def fault_in(
    method: str,
    raw_path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    secret: str,
    now_s: float,
) -> str | None:
    """What is wrong with the signature of a request; None when it holds.

    Parameters
    ----------
    raw_path : path and query as they stood in the request line.
    headers : case-insensitive.
    """
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if found is None:
        return "Missing Authentication Token"
    access, day, region, service, signed, signature = found.groups()
    if access != ACCESS_KEY_ID:
        return "The security token included in the request is invalid."
    if service != SERVICE:
        return f"Credential should be scoped to correct service: '{SERVICE}'."
    stamp = headers.get("x-amz-date", "")
    try:
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return "Date must be in ISO-8601 'basic format'."
    if not stamp.startswith(day) or abs(at.timestamp() - now_s) > MAX_SKEW_S:
        return "Signature expired."
    names = signed.split(";")
    if "host" not in names or "x-amz-date" not in names or names != sorted(names):
        return "Host and X-Amz-Date must be signed."
    path, _, query = raw_path.partition("?")
    canonical = "\n".join(
        [
            method,
            quote(path, safe="/~"),
            "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in _pairs(query)),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in names),
            "",
            signed,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = ("AWS4" + secret).encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    expected = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    if not hmac.compare_digest(expected, signature):
        return "The request signature we calculated does not match the signature you provided."
    return None


def _pairs(query: str) -> list[tuple[str, str]]:
    return sorted(parse_qsl(query, keep_blank_values=True))
