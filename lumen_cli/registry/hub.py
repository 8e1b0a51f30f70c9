"""Models on Hugging Face: download the files that lumen needs of a repository, each up to a limit, and no others.

config.json comes first and names the weights files. The hub's client library knows addresses, tokens and its own cache;
files come through `fetch`, so that nothing a server sends decides about a name or a size here.
"""

from __future__ import annotations

import re
from pathlib import Path

from lumen_cli.errors import ModelError
from lumen_cli.registry.atomic_folder import atomic_folder
from lumen_cli.registry.card import read_card
from lumen_cli.registry.config_file import CARD_FILE, CONFIG_FILE, HUGGING_FACE, LARGEST_TEXT
from lumen_cli.registry.fetch import NotGivenError, fetch

LARGEST_WEIGHTS = 16 << 30
"""Limit in bytes of a weights file whose size the card does not state."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-])){0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}(?:/[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}){0,5}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 20.0


def parse_address(address: str) -> tuple[str, str]:
    """`hf://organisation/name[@revision]` → "organisation/name" and the revision, "main" if none is given.

    Raises:
        ModelError: it has another form; neither part can lead out of a folder.
    """
    repository, at, revision = address.removeprefix(HUGGING_FACE).partition("@")
    names = repository.split("/")
    if len(names) != 2 or not all(map(_NAME.fullmatch, names)):
        raise ModelError(
            f"{address} is no model address: expected hf://organisation/name or hf://organisation/name@revision"
        )
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or revision.endswith((".lock", "."))):
        raise ModelError(f"{address}: a revision is the name of a branch or tag, or 40 hexadecimal digits")
    return repository, revision or "main"


def download_model(address: str) -> Path:
    """The folder of a model on Hugging Face, downloaded if it is not here yet.

    Raises:
        ModelError: the address has another form, the hub does not give the model, or a file is larger than its limit.
    """
    repository, revision = parse_address(address)
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import build_hf_headers

    cached = try_to_load_from_cache(repository, CONFIG_FILE, revision=revision)
    if constants.HF_HUB_OFFLINE:
        if not isinstance(cached, str):
            raise ModelError(f"{address} is not in the cache, and HF_HUB_OFFLINE is set: unset it to download")
        return Path(cached).parent
    commit = revision if _COMMIT.fullmatch(revision) else _commit_of(address, repository, revision, cached)
    if commit is None:
        return Path(str(cached)).parent
    folder = cache_folder() / repository.replace("/", "--") / commit
    if (folder / CONFIG_FILE).is_file():
        return folder
    token = {name: text for name, text in build_hf_headers().items() if name.lower() == "authorization"}

    def bring(name: str, limit: int, place: Path, size: int | None = None) -> None:
        fetch(hf_hub_url(repository, name, revision=commit), place / name, limit, size=size, headers=token)

    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        bring(CONFIG_FILE, LARGEST_TEXT, temporary)
        try:
            card = read_card(temporary)
        except ModelError as error:
            raise ModelError(str(error).replace(str(temporary), address)) from None
        try:
            bring(CARD_FILE, LARGEST_TEXT, temporary)
        except NotGivenError:
            (temporary / CARD_FILE).unlink(missing_ok=True)
        for file in card.files.values():
            try:
                bring(file.file, file.bytes or LARGEST_WEIGHTS, temporary, file.bytes)
            except NotGivenError:
                card.path(file).unlink(missing_ok=True)
                if not file.url:
                    raise
    return folder


def cache_folder() -> Path:
    """The folder of downloaded models, with a folder for each repository and commit."""
    import platformdirs

    return platformdirs.user_cache_path("lumen") / "hub"


def _commit_of(address: str, repository: str, revision: str, cached: object) -> str | None:
    """The current commit of a branch or tag; None if the hub cannot be reached but its cache has the model."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        found = get_hf_file_metadata(hf_hub_url(repository, CONFIG_FILE, revision=revision), timeout=_SECONDS)
    except Exception as error:  # the client raises its own, its web library's and the operating system's errors
        if isinstance(cached, str):
            return None
        raise ModelError(f"{address} cannot be downloaded: {_reason(error, revision)}") from error
    if not _COMMIT.fullmatch(found.commit_hash or ""):
        raise ModelError(f"{address}: the server names no commit of 40 hexadecimal digits: nothing was downloaded")
    return found.commit_hash


def _reason(error: Exception, revision: str) -> str:
    """Translate an error of the hub's client, its web library or the system into a sentence with what to do."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in names or status == 403:
        return "its owners give it to those who ask them; ask on its page, then log in with `hf auth login`"
    if "RevisionNotFoundError" in names:
        return f"it has no revision {revision}"
    if names & {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
        return f"it has no {CONFIG_FILE}, so it is no model of lumen's kind"
    if "RepositoryNotFoundError" in names or status in (401, 404):
        return "there is no such repository, or it is private; check the name, or log in with `hf auth login`"
    if status is not None:
        return f"the server answers {status}; try again later"
    return "the server cannot be reached; check the network and try again"
