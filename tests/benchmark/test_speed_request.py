import dataclasses
import json

import pytest

from lumen_cli.benchmark.speed_request import Pipeline, Plain, SpeedRequest, SpeedResult, Spread, parse_sizes
from lumen_cli.errors import UsageError

ROW = SpeedResult("kind", "kind", False, 600, 400, "fp32", 1)


def test_sizes_have_names_or_sides() -> None:
    assert parse_sizes("600x400,1080p,4k") == ((600, 400), (1920, 1080), (3840, 2160))
    assert parse_sizes(" 600×400 , 4K") == ((600, 400), (3840, 2160))
    assert parse_sizes("600x400,600x400") == ((600, 400),)


@pytest.mark.parametrize("text", ["", "600", "600x", "600x400,", "0x400", "99999x400", "hd", "600*400", "-6x4"])
def test_what_is_no_size_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="size") as caught:
        parse_sizes(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"models": ()}, "no model"),
        ({"sizes": ()}, "no size"),
        ({"precisions": ("fp8",)}, "fp8"),
        ({"batches": (1, 0)}, "batch"),
        ({"batches": ()}, "batch"),
        ({"repeat": 0}, "repeat"),
        ({"warmup": 0}, "warmup"),
        ({"threads": 0}, "threads"),
        ({"pictures": 0}, "pictures"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SpeedRequest(**{"models": ("kind",), **wrong})  # type: ignore[arg-type]


def test_spread_is_the_median_with_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0, 1.0, 5.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.25, 1.75, 1.0, 2.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 2.0, 2.0)


def test_what_follows_from_the_medians() -> None:
    plain = Plain(Spread.of([1.0, 2.0, 9.0]), 1.0, 0.0)
    row = dataclasses.replace(ROW, seconds=Spread.of([0.4, 0.5, 0.9]), plain=plain)
    assert row.ratio == pytest.approx(4.0)
    assert row.images_per_second == pytest.approx(2.0)
    assert row.megapixels_per_second == pytest.approx(0.48)
    assert Pipeline(10, 4.0, 0.9, 0.8).images_per_second == pytest.approx(2.5)


def test_a_row_without_figures_has_none() -> None:
    assert (ROW.ratio, ROW.images_per_second, ROW.megapixels_per_second) == (None, None, None)
    assert dataclasses.replace(ROW, seconds=Spread.of([1.0])).ratio is None


def test_a_row_comes_back_from_json() -> None:
    plain = Plain(Spread.of([1.0, 2.0]), 3.0, None, ("this", "that"))
    full = dataclasses.replace(ROW, seconds=Spread.of([1.0]), plain=plain, pipeline=Pipeline(2, 3.0, 0.5, 0.4))
    for row in (ROW, full):
        assert SpeedResult.of(json.loads(json.dumps(dataclasses.asdict(row)))) == row


def test_megapixels_are_a_size_of_four_to_three() -> None:
    assert parse_sizes("12mp, 0.5mp") == ((4000, 3000), (816, 613))
    with pytest.raises(UsageError, match="megapixels"):
        parse_sizes("mp")
