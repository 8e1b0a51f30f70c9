from pathlib import Path

import pytest

from lumen_cli.text import count, duration, memory, parameters, printable, short_path


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("夜景 ñ.png", "夜景 ñ.png"),
        ("[red]x.png", "[red]x.png"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2Jx", r"\x1b[2Jx"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        (b"\xe9.png".decode("utf-8", "surrogateescape"), r"\udce9.png"),
    ],
)
def test_names_are_shown_on_one_line_and_cannot_steer_a_terminal(name: str, shown: str) -> None:
    assert printable(name) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 ms"),
        (0.0126, "13 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1.00 s"),
        (9.99, "9.99 s"),
        (9.996, "10.0 s"),
        (59.99, "1 min 00 s"),
        (75.2, "1 min 15 s"),
        (3599.7, "1 h 00 min"),
        (3725, "1 h 02 min"),
    ],
)
def test_durations_are_rounded_as_people_read_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_sizes_and_counts() -> None:
    assert [memory(size) for size in (2048, 812 << 20, 3565158400)] == ["2 KiB", "812 MiB", "3.3 GiB"]
    assert [count(number, "picture") for number in (0, 1, 2)] == ["0 pictures", "1 picture", "2 pictures"]
    assert [parameters(number) for number in (None, 84, 5300, 5648813)] == ["–", "84", "5.3 k", "5.6 M"]


def test_paths_below_the_working_folder_are_shown_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "a" / "b.png") == str(Path("a/b.png"))
    assert short_path(tmp_path.parent / "b.png") == str(tmp_path.parent / "b.png")
