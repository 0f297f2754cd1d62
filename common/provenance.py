"""Say where a result was made: what its bytes rest on besides the code, the data and params.yaml.

TensorFlow's sums depend on the instructions that a processor has, on the number of threads that
share them, and on its version. With another of these, the same training ends with other weights.
"""

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path

import numpy as np

from common.devices import gpu_names

PROVENANCE = Path("metrics/provenance.json")
PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python-headless")

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def provenance(threads: int, workers: int) -> dict[str, str]:
    """Return where a training runs.

    Parameters
    ----------
    threads : int
        Threads that TensorFlow shares an operation among.
    workers : int
        Processes, on one machine or several, that train together.

    Returns
    -------
    dict of str to str
        ``processor`` and ``vector_instructions`` as NumPy finds them, ``devices`` that train,
        ``workers``, ``threads``, ``system``, ``python`` and the versions of `PACKAGES`.
    """
    return {
        "processor": processor(),
        "vector_instructions": " ".join(
            np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
        ),
        "devices": ", ".join(gpu_names()) or "CPU",
        "workers": str(workers),
        "threads": str(threads),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def processor() -> str:
    """Return the name of the processor, as its maker has it, with what tells its kind apart.

    Linux tells the sizes of the caches, too: TensorFlow cuts its work to them, and so adds up in
    another order where they differ.
    """
    if CPUINFO.exists():
        lines = CPUINFO.read_text().partition("\n\n")[0]  # of the first core
        found = dict(re.findall(r"^([a-z ]+?)\s*: (.*)$", lines, re.MULTILINE))
        kind = [f"{name} {found[name]}" for name in ("cpu family", "model") if name in found]
        caches = [path.read_text().strip() for path in sorted(CACHES.glob("index*/size"))]
        if "model name" in found:
            return ", ".join([found["model name"], *kind, f"caches {' '.join(caches)}"])
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()
