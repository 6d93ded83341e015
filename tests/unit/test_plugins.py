"""Families of variants, and objects named by their import path."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from greedypipe.pipeline.options import check_call, check_options
from greedypipe.pipeline.own_code import resolve
from greedypipe.pipeline.plugins import Family, Own


class Shape(BaseModel, frozen=True, extra="forbid"):
    name: str


class Circle(Shape):
    name: Literal["circle", "disc"] = "circle"
    radius: float = Field(1.0, gt=0)


class Square(Shape):
    name: Literal["square"] = "square"
    side: float = 2.0


class OwnShape(Own, Shape):
    section = "shape"
    keywords = ("classes",)


SHAPES = Family[Shape]("shape", {"circle": Circle, "disc": Circle, "square": Square}, default="disc", own=OwnShape)


class Drawing(BaseModel, frozen=True):
    shape: Annotated[Shape, SHAPES] = SHAPES.default()


class Configured:
    class Config(BaseModel):
        gamma: float = Field(2.0, gt=0)
        steps: int

    def __init__(self, classes, **keys):
        self.__dict__.update(keys, classes=classes)


def star(*, classes, rays):
    return classes, rays


def function(shape, *, classes, depth, width=1.0):
    pass


def whatever(*args, **options):
    pass


def errors(call) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        call()
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


def test_the_name_chooses_the_variant() -> None:
    assert Drawing.model_validate({"shape": {"name": "square", "side": 3}}).shape == Square(side=3)
    assert Drawing(shape=Square()).shape == Square()


def test_without_a_name_it_is_the_default() -> None:
    assert Drawing().shape == Drawing.model_validate({"shape": {}}).shape == Circle(name="disc")
    assert Drawing.model_validate({"shape": {"radius": 2}}).shape == Circle(name="disc", radius=2)


def test_a_dump_has_the_keys_of_the_variant_and_reads_back_equal() -> None:
    drawing = Drawing(shape=Square(side=5))
    assert drawing.model_dump() == {"shape": {"name": "square", "side": 5}}
    assert Drawing.model_validate(drawing.model_dump(mode="json")) == drawing


def test_a_name_with_a_colon_is_the_users_own() -> None:
    own = {"name": f"{__name__}:star", "options": {"rays": 5}}
    shape = Drawing.model_validate({"shape": own}).shape
    assert isinstance(shape, OwnShape) and shape.model_dump() == own
    assert shape.call(classes=3) == (3, 5)


def test_ones_own_is_imported_and_its_options_are_checked_before_it_is_called() -> None:
    def found(**keys: object) -> list[tuple[str, str]]:
        return errors(lambda: Drawing.model_validate({"shape": keys}))

    assert found(name="no_such_module:f", options={"rays": 5}) == [
        ("shape.name", "Value error, no_such_module:f: no module 'no_such_module' on the import path")
    ]
    assert found(name=f"{__name__}:star") == [("shape.options.rays", f"missing: {__name__}:star needs it")]
    assert found(name=f"{__name__}:star", side=1)[-1][0] == "shape.side"


def test_ones_own_with_a_config_is_called_with_its_validated_keys() -> None:
    own = OwnShape(name=f"{__name__}:Configured", options={"steps": 3})
    assert own.call(classes=5).__dict__ == {"classes": 5, "gamma": 2.0, "steps": 3}


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known_ones() -> None:
    (found,) = errors(lambda: Drawing.model_validate({"shape": {"name": "squire", "side": 1}}))
    assert found == (
        "shape.name",
        "unknown shape 'squire', nearest is 'square'; allowed: circle, disc, square, or 'package.module:Object'",
    )


@pytest.mark.parametrize("name", [5, None, [1], "{brace}"])
def test_what_is_no_name_at_all_is_refused_in_one_line(name: object) -> None:
    ((place, message),) = errors(lambda: Drawing.model_validate({"shape": {"name": name}}))
    assert place == "shape.name" and message.startswith(f"unknown shape {name!r}, nearest is ")


def test_what_is_no_section_is_refused() -> None:
    assert errors(lambda: Drawing.model_validate({"shape": 5})) == [("shape", "got 5, allowed: keys of a shape")]


def test_errors_of_a_variant_are_located_at_its_keys() -> None:
    found = errors(lambda: Drawing.model_validate({"shape": {"name": "circle", "radius": 0, "side": 1}}))
    assert [place for place, _ in found] == ["shape.radius", "shape.side"]


def test_an_object_is_found_by_its_path() -> None:
    assert resolve("pathlib:Path") is Path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.module:f", "no module 'no_such_package' on the import path"),
        ("os.nothing:f", "no module 'os.nothing' on the import path"),
        ("pathlib:Pth", "module 'pathlib' has no 'Pth'; did you mean 'Path'"),
        ("module:", "allowed: 'package.module:Object'"),
        (":function", "allowed: 'package.module:Object'"),
        ("a:b:c", "allowed: 'package.module:Object'"),
        (".relative:f", "allowed: 'package.module:Object'"),
        ("module", "allowed: 'package.module:Object'"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(name)


def test_options_are_bound_to_the_signature() -> None:
    call = {"positional": 1, "keywords": ("classes",)}
    assert check_options("f", function, {"depth": 3}, **call) == {"depth": 3}
    assert errors(lambda: check_options("f", function, {"dpth": 3, "classes": 2, "shape": 1}, **call)) == [
        ("dpth", "unknown option of f; did you mean depth?"),
        ("classes", "f gets 'classes' from the run itself"),
        ("shape", "f gets 'shape' from the run itself"),
        ("depth", "missing: f needs it"),
    ]
    assert errors(lambda: check_options("f", function, {"depth": 3, "zzz": 1}, **call)) == [
        ("zzz", "unknown option of f; allowed: depth, width")
    ]


def test_a_function_that_takes_anything_takes_any_option() -> None:
    assert check_options("f", whatever, {"a": 1}, positional=2, keywords=("b",)) == {"a": 1}


def test_an_object_that_does_not_take_what_the_run_supplies_is_refused() -> None:
    with pytest.raises(ValueError, match="f is called with seed, which it does not accept"):
        check_call("f", function, keywords=("seed",))
    with pytest.raises(ValueError, match="takes 0 arguments, but is called with 1"):
        check_call("f", lambda: None, positional=1)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ValueError, match="f: got int, allowed: a function or class"):
        check_call("f", 3)


def test_a_nested_config_judges_the_options() -> None:
    assert check_options("c", Configured, {"steps": 3}) == {"gamma": 2.0, "steps": 3}
    assert [place for place, _ in errors(lambda: check_options("c", Configured, {"gamma": 0}))] == ["gamma", "steps"]
    assert errors(lambda: check_options("c", Configured, {"gama": 1, "steps": "x"})) == [
        ("gama", "unknown option of c; did you mean gamma?"),
        ("steps", "got 'x', allowed: a valid integer, unable to parse string as an integer"),
    ]
