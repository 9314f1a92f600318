"""AWS's Signature Version 4, by botocore (extra `[bedrock]`, imported by `load` or first use).

A key is `ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]`; one without a colon is a Bedrock API
key and travels as a bearer token. What is signed is exactly what is sent: the address with its
percent signs as they are, and no header that is added later.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from bidding.market import Provider
from broker.providers.base import WireCall

SERVICE = "bedrock"
DEFAULT_REGION = "us-east-1"


def region_of(provider: Provider) -> str:
    """The region to sign for: as configured, or as the address says.

    Examples
    --------
    >>> p = Provider(id="aws", name="", wire="bedrock", jurisdiction="us",
    ...              base_url="https://bedrock-runtime.eu-west-1.amazonaws.com")
    >>> region_of(p)
    'eu-west-1'
    """
    if provider.region is not None:
        return provider.region
    host = provider.base_url.partition("://")[2].partition("/")[0].split(".")
    named = len(host) == 4 and host[0].startswith("bedrock-runtime") and host[2] == "amazonaws"
    return host[1] if named else DEFAULT_REGION


def signed(call: WireCall, provider: Provider, key: str | None) -> WireCall:
    """`call` with what proves who makes it."""
    if key is None:
        return call
    if ":" not in key:
        call.headers["Authorization"] = f"Bearer {key}"
        return call
    access, _, rest = key.partition(":")
    secret, _, token = rest.partition(":")
    auth, request, credentials = _botocore()
    made = request.AWSRequest(
        method=call.method, url=call.url, data=call.body, headers=dict(call.headers)
    )
    holder = credentials.Credentials(access, secret, token or None)
    auth.SigV4Auth(holder, SERVICE, region_of(provider)).add_auth(made)
    call.headers.update({name: str(value) for name, value in made.headers.items()})
    return call


def load() -> None:
    """Import botocore now: 0.4 s that no request should wait for."""
    _botocore()


@cache
def _botocore() -> tuple[ModuleType, ModuleType, ModuleType]:
    names = ("botocore.auth", "botocore.awsrequest", "botocore.credentials")
    first, second, third = (importlib.import_module(name) for name in names)
    return first, second, third
