"""Why a request to a store failed, in one line, from the exceptions of fsspec and the packages of the stores."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from lumen_cli.files.places import mask

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
