"""The parts of Markdown pages that programs write, each between two markers."""

from pathlib import Path

from common.console import InputError
from common.outputs import replacing


def replace_between_markers(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two markers of a page; the rest stays as it is.

    Parameters
    ----------
    page : Path
        A text file in UTF-8.
    begin, end : str
        The markers, each a line of its own with its line break. They stay.
    text : str
        The lines to write between them, with the last line break.

    Raises
    ------
    InputError
        If the page does not hold each marker once, the first before the second.
    """
    content = page.read_text(encoding="utf-8")
    before, _, rest = content.partition(begin)
    _, _, after = rest.partition(end)
    if content.count(begin) != 1 or content.count(end) != 1 or end not in rest:
        raise InputError(f"{page} must hold the lines {begin.strip()} and {end.strip()}, each once")
    with replacing(page) as new_page:
        new_page.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")
