"""How to fix what a disk or an object store refused."""

import errno

_BY_NUMBER = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EACCES: "Allow this user to write there or set another path,",
    errno.EPERM: "Allow this user to write there or set another path,",
    errno.EROFS: "Set a writable path",
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENOTDIR: "Set a path below a directory",
}
# What the texts of pyarrow's errors contain. HEAD requests are answered with a status only.
_CREDENTIALS = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN"),
    *("INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT", "HTTP status 403"),
)
NO_ANSWER = ("NETWORK_CONNECTION", "curlCode")
"""The server could not be reached, or sent nothing."""
_BUSY = ("SLOW_DOWN", "SERVICE_UNAVAILABLE", "THROTTLING", "HTTP status 503", *NO_ANSWER)
_BY_TEXT = {
    _CREDENTIALS: "Check the credentials (by default from the environment) and what they allow,",
    ("NO_SUCH_BUCKET",): "Create the bucket or correct its name,",
    _BUSY: "Wait until the server answers",
}


def advice_on(error: BaseException) -> str:
    """Return how to fix the cause of an error, to be followed by "and …"."""
    number = getattr(error, "errno", None)
    if number in _BY_NUMBER:
        return _BY_NUMBER[number]
    text = str(error)
    found = (advice for signs, advice in _BY_TEXT.items() if any(sign in text for sign in signs))
    return next(found, "Fix the cause")
