"""How names of classes are written in a picture: whatever letters they have, however long they are.

A long name is cut in the middle. Letters that Matplotlib's own font lacks are taken from a font of
the machine.
"""

import functools
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

FONT_DPI = 100  # any resolution: widths are measured in inches
LONGEST = 1.5  # inches at 10 points: a name is cut to that

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # what a letter is drawn as that no font has

JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"

LEFT_TO_RIGHT = "\N{LEFT-TO-RIGHT MARK}"


class Lettering(NamedTuple):
    """How to write the names of the classes.

    Attributes
    ----------
    names : list of str
        The names: cut in the middle where they are too long, with a mark for each letter that
        cannot be drawn.
    fonts : list of str
        Families to take letters from that Matplotlib's own font lacks.
    width : float
        By how much the longest name is wider than a digit, in inches at 10 points.
    """

    names: list[str]
    fonts: list[str]
    width: float


def lettering(classes: list[str]) -> Lettering:
    """Find out how to write the names of the classes."""
    names = ["".join(UNKNOWN if unprintable(c) else c for c in name) for name in classes]
    fonts, missing = fonts_for(frozenset().union(*names))
    marks = str.maketrans(dict.fromkeys(missing, UNKNOWN))
    font = font_of([*mpl.rcParams["font.family"], *fonts])
    font.set_size(100, FONT_DPI)

    @functools.cache
    def width_of(letter: str) -> float:
        if unicodedata.category(letter) in ("Mn", "Me", "Cf"):  # an accent, a joiner
            return 0.0
        font.set_text(letter)
        return font.get_width_height()[0] / 64 / FONT_DPI / 10  # in 64ths of a pixel, at 100 points

    def width(text: str) -> float:
        return sum(map(width_of, text))  # fast enough for thousands of long names

    names = [cut(name.translate(marks), width) for name in names]
    wider = max(map(width, names)) - width("0")
    return Lettering([one_direction(name) for name in names], fonts, max(0, wider))


def unprintable(letter: str) -> bool:
    """Tell whether a letter is one that is not to be drawn, such as a line break."""
    kind = unicodedata.category(letter)
    return (kind.startswith("C") or kind in ("Zl", "Zp")) and letter not in JOINERS


def cut(text: str, width: Callable[[str], float]) -> str:
    """Cut a text in the middle where it is wider than `LONGEST`."""

    def kept(letters: int) -> str:
        return f"{text[: -(-letters // 2)]}…{text[len(text) - letters // 2 :]}"

    if width(text) <= LONGEST:
        return text
    return kept(bisect_right(range(len(text)), LONGEST, key=lambda n: width(kept(n))) - 1)


def one_direction(name: str) -> str:
    """Keep a name in letters written from right to left from reordering what stands beside it."""
    turns = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    return f"{LEFT_TO_RIGHT}{name}{LEFT_TO_RIGHT}" if turns else name


def font_of(families: list[str]) -> FT2Font:
    """Return the font that Matplotlib uses for these families."""
    wanted = [font_manager.FontProperties(family=[family]) for family in families]
    return font_manager.get_font([font_manager.findfont(properties) for properties in wanted])


@functools.cache
def fonts_for(letters: frozenset[str]) -> tuple[list[str], set[str]]:
    """Find fonts on this machine for the letters that Matplotlib's own font lacks.

    The font that has the most of them comes first, then the one that has the most of the rest;
    among equals a regular sans serif one, then the first by name. The fonts are looked up
    afresh, for those that Matplotlib remembers may be from before one was installed.

    Returns
    -------
    fonts : list of str
        Families, in the order in which to try them.
    missing : set of str
        Letters that no font has; a line on the console says so.
    """
    own = font_of(mpl.rcParams["font.family"])
    missing = {letter for letter in letters if not own.get_char_index(ord(letter))}
    candidates: list[tuple[set[str], tuple[bool, bool], str, str]] = []
    for path in font_manager.findSystemFonts() if missing else []:
        try:
            font = FT2Font(path)
        except (RuntimeError, OSError):  # a damaged file
            continue
        has = {letter for letter in missing if font.get_char_index(ord(letter))}
        # macOS has a font of placeholders for every letter.
        if has and font.scalable and "lastresort" not in font.family_name.lower():
            plainness = font.style_name not in ("Regular", "Book"), "Serif" in font.family_name
            candidates.append((has, plainness, font.family_name, path))
    fonts = []
    while candidates:
        candidates.sort(key=lambda entry: (-len(entry[0]), *entry[1:]))
        has, _, family, path = candidates[0]
        font_manager.fontManager.addfont(path)
        fonts.append(family)
        missing -= has
        candidates = [
            (letters_left, plainness, name, other_path)
            for letters_had, plainness, name, other_path in candidates
            if (letters_left := letters_had - has)
        ]
    if missing:
        listed = [f"{letter} (U+{ord(letter):04X})" for letter in sorted(missing)]
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        print(
            f"pictures: no font here has {', '.join(listed[:5])}{more}: drawn as {UNKNOWN}; "
            "install one that has, as of Debian's fonts-noto-cjk, fonts-noto-core, fonts-symbola",
            flush=True,
        )
    return fonts, missing
