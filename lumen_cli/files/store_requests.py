"""Requests to a store: sent again where that may help, and the reason of a failure in one line, from its exceptions."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from lumen_cli.files.places import ObjectPath, StoreError, mask

Answer = TypeVar("Answer")
ROUNDS = 4
"""Times a request is sent; in each, the store's own package tries again as well."""

_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "DefaultCredentialsError",
    "RefreshError",
    "ClientAuthenticationError",
}
_REJECTED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_NO_ANSWER = ("Endpoint", "Connect", "Timeout", "ConnectionClosed", "ServerDisconnected", "ProxyConnection")
_FINAL = {errno.EINVAL, errno.ENAMETOOLONG, errno.EMSGSIZE, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOSPC}


def request(path: ObjectPath, doing: str, call: Callable[[], Answer], rounds: int = ROUNDS) -> Answer:
    """Make a request, again where that may help.

    Raises:
        FileNotFoundError: there is no such object.
        FileExistsError: the request is for a new object, and there is one.
        StoreError: anything else.
    """
    for number in range(1, rounds + 1):
        try:
            return call()
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            if code_of(error) in ("PreconditionFailed", "412"):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            if number == rounds or is_final(error):
                raise StoreError(path, explain_failure(error, doing)) from error
        time.sleep(0.5 * 2**number)
    raise AssertionError


def code_of(error: BaseException) -> str:
    """What the store calls an error: S3's code, else the HTTP status; "" where there is none."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, Mapping) and "Error" in response:
            return str(response["Error"].get("Code", ""))
        for name in ("status_code", "code", "status"):
            if isinstance(getattr(each, name, None), int):
                return str(getattr(each, name))
    return ""


def is_final(error: Exception) -> bool:
    """Whether the same request would fail again."""
    if type(error).__name__ in _NO_CREDENTIALS or code_of(error) in _REJECTED | _OTHER_REGION | {"401", "403"}:
        return True
    return isinstance(error, PermissionError | ValueError | TypeError) or getattr(error, "errno", None) in _FINAL


def explain_failure(error: Exception, doing: str) -> str:
    """Why a request failed, in a line without secrets."""
    name, code = type(error).__name__, code_of(error)
    text = " ".join(mask(str(error)).split())
    if name in _NO_CREDENTIALS or "credentials" in text.lower():
        return "there are no credentials for this store; set them up as its own tools take them"
    if code in _REJECTED:
        return f"the store does not accept the credentials ({code})"
    if isinstance(error, PermissionError) or code in ("401", "403"):
        return f"no permission to {doing}"
    if code in _OTHER_REGION:
        return "the bucket is in another region; set the region as the store's own tools take it"
    if code == "KeyTooLongError" or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return "its key is too long for the store"
    if code in ("SlowDown", "503", "429"):
        return "the store asks for fewer requests at a time; run again later"
    if isinstance(error, TimeoutError | ConnectionError) or any(part in name for part in _NO_ANSWER):
        return f"the store does not answer ({text or name})"
    return f"the store cannot {doing} ({text or name})"
