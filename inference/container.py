"""Build a container that serves the exported model: `make container`.

Whichever of podman, docker and buildah is there builds it, from inference/Containerfile.
"""

import shutil

from common.console import InputError, run, run_program
from inference.exported import open_current

BUILDERS = ("podman", "docker", "buildah")
NAME = "image-classification"


def main() -> None:
    """Build it, and say how it is started."""
    builder = next(filter(shutil.which, BUILDERS), None)
    if builder is None:
        raise InputError(f"none of {', '.join(BUILDERS)} is on this machine; install one of them")
    open_current()
    command = [builder, "build", "--file", "inference/Containerfile", "--tag", NAME, "."]
    if run_program(command).returncode:
        raise InputError(f"{builder} could not build it; the reason stands above")
    program = "docker" if builder == "docker" else "podman"
    print(
        f"container: {NAME} is built; start it where nobody but you reaches it:\n"
        f"{program} run --rm --read-only --publish 127.0.0.1:8000:8000 {NAME}"
    )


if __name__ == "__main__":
    run("container", main)
