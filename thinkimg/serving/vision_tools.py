"""A `VisionTool` of a manifest as a server process on this machine, with its environment and secrets."""

from collections.abc import Iterable
from pathlib import Path

from thinkimg.api import EnvVar, SecretRef, VisionTool
from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError
from thinkimg.serving.config import ServerConfig, ToolEntry
from thinkimg.serving.supervisor import ServerSpec

_MAX_DRAIN_SECONDS = 10


def server_of(tool: VisionTool, secrets: Path | None = None) -> ServerSpec:
    """The server of one tool, on a free port.

    Args:
        secrets: where the manifest's secrets are files, `NAME/KEY`.

    Raises:
        UserError: a secret cannot be read.
    """
    spec = tool.spec
    entry = ToolEntry(name=spec.tool, backend=spec.backend, options=spec.server_options(), batching=spec.batching)
    config = ServerConfig(
        tools=[entry],
        workers=1,
        max_queue=4096,
        drain_seconds=min(spec.drain_seconds, _MAX_DRAIN_SECONDS),
        default_timeout_seconds=spec.call_timeout_seconds,
    )
    environment = environment_of(spec.env, secrets)
    if spec.weights is not None and spec.weights.secret_ref is not None:
        environment.setdefault(Variable.HUB_TOKEN, read_secret(spec.weights.secret_ref, secrets))
    return ServerSpec(tool.name, config, environment)


def environment_of(variables: Iterable[EnvVar], secrets: Path | None) -> dict[str, str]:
    """The variables with their values; sources that only a cluster has are left out (`check_local` warned of them)."""
    environment = {}
    for variable in variables:
        if variable.secret_ref is not None:
            environment[variable.name] = read_secret(variable.secret_ref, secrets)
        elif variable.value_from is None:
            environment[variable.name] = variable.value or ""
    return environment


def secret_files(name: str, secrets: Path | None) -> dict[str, str]:
    """All keys of one secret with their values. Raises `UserError` naming the file."""
    files = sorted((_folder(secrets) / name).iterdir())
    return {
        file.name: _text(file) for file in files if file.is_file()
    }  # what Kubernetes mounts has folders too, ..data


def read_secret(reference: SecretRef, secrets: Path | None) -> str:
    """Raises `UserError` naming the file."""
    return _text(_folder(secrets) / reference.name / reference.key)


def _folder(secrets: Path | None) -> Path:
    if secrets is None:
        raise UserError("the manifest names secrets; say which folder has them", "--secrets-dir")
    return secrets


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")  # editors end a file with a line end; secrets have none
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the secret cannot be read: {error}", str(file)) from error
