"""The card says what the file and the measurements say, letter by letter, and nothing of it becomes markup."""

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from nbconvert.filters import markdown2html

from kdlib.deploy.description import METADATA_KEY, Description
from kdlib.deploy.model_card import Measure, model_card

CLASSES = ("coat", "bag", "shirt")
NASTY = "a|b *c* _d_ `e` <script>f</script> [g](h) ~~i~~ $j$ &amp; \\k # l"
ACCURACY = Measure("accuracy", 81.2345, "%", 80.95, 81.52, interval="95 %, five seeds", how="10,000 images")
TEXTS = {
    "summary": "Tells ten kinds of clothes apart.",
    "intended_use": ["To learn how distillation works.", "1. not a list"],
    "limits": ["Grey images of single articles, nothing else.", "- not a list either"],
    "training_data": "1,000 images of Fashion-MNIST, no labels",
    "data_licence": "MIT, Zalando SE",
    "evaluation_data": "all 10,000 test images; nothing was chosen by them",
    "teacher": "the ResNet of the course",
    "command": "kdlib record `lesson05`\n",
    "versions": {"torch": "2.15.0", "onnxruntime": "1.31.1"},
}


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Two ONNX files that describe themselves: "small" flattens ten pixels, "other" does so along another axis."""
    return [written(tmp_path / f"{name}.onnx", name, axis) for name, axis in (("small", 1), ("other", -1))]


def written(path: Path, name: str, axis: int = 1, classes: tuple[str, ...] = CLASSES) -> Path:
    node = onnx.helper.make_node("Flatten", ["images"], ["logits"], axis=axis)
    ends = [
        onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, shape)
        for end, shape in (("images", ["batch", 1, 2, 5]), ("logits", None))
    ]
    graph = onnx.helper.make_graph([node], "graph", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    description = Description(name, classes, 1, 2, 5, (0.2860,), (1 / 3,))
    model.metadata_props.add(key=METADATA_KEY, value=description.to_json())
    onnx.save(model, path)
    return path


class Page(HTMLParser):
    """What a reader of the card sees: the texts by the tag that holds them, with those of the tags inside."""

    def __init__(self, markdown: str):
        super().__init__()
        self.names, self.texts, self.open = set(), [], []
        self.feed(str(markdown2html(markdown)))

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.texts.append((tag, []))
        self.open.append(self.texts[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, pieces in self.open:
            pieces.append(data)

    def of(self, tag: str) -> list[str]:
        return ["".join(pieces).strip() for name, pieces in self.texts if name == tag]


def card(path, measures=(ACCURACY,), **changes) -> str:
    return model_card(path, list(measures), **{**TEXTS, **changes})


def test_the_card_describes_the_file_by_its_own_bytes(files):
    text = card(files[0])
    content = files[0].read_bytes()
    assert hashlib.sha256(content).hexdigest() in text and f"{len(content):,} bytes" in text
    assert "# Model card: small" in text and "`small.onnx`" in text
    assert "grey images of 2 x 5 pixels (height x width), values from 0 to 1, less the mean 0.286, " in text
    assert "standard deviation 0.3333" in text and "a logit for each of 3 classes: coat, bag, shirt" in text
    assert "- torch 2.15.0\n" in text  # no escapes where none are needed
    assert card(files[1]) != text
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    wanted = ["Model details", "Intended use", "Limits", "Measurements", "Data", "How it was made"]
    assert headings == wanted
    assert "arXiv 1810.03993" in text and "none; trained on labels alone" in card(files[0], teacher=None)


def test_every_text_of_the_author_is_on_the_page_as_it_was_given(files):
    page = Page(card(files[0]))
    points = page.of("li")
    for text in (*TEXTS["intended_use"], *TEXTS["limits"], "torch 2.15.0", "onnxruntime 1.31.1"):
        assert text in points
    assert TEXTS["summary"] in page.of("p")
    assert {"ol", "em"} & page.names == set()
    assert "```sh\nkdlib record `lesson05`\n```" in card(files[0])


def test_measures_are_rows_with_as_many_digits_as_their_interval_supports(files):
    measures = [
        ACCURACY,
        Measure("file", 52_031, "bytes"),
        Measure("latency", np.float64(0.0523871), "ms", 0.0498, 0.0561, interval="quartiles", how="batch 1"),
        Measure("peak memory", np.int64(93_000_000), "bytes", 92_999_000, 95_000_000, interval="range"),
        Measure("ratio", 12345.678),
        Measure("errors", 0.0),
    ]
    page = Page(card(files[0], measures))
    assert page.of("th") == ["Measure", "Value", "Interval", "Conditions"]
    cells = page.of("td")
    assert [cells[i : i + 4] for i in range(0, len(cells), 4)] == [
        ["accuracy", "81.23 %", "80.95 to 81.52 % (95 %, five seeds)", "10,000 images"],
        ["file", "52,031 bytes", "none given", ""],
        ["latency", "0.0524 ms", "0.0498 to 0.0561 ms (quartiles)", "batch 1"],
        ["peak memory", "93,000,000 bytes", "92,999,000 to 95,000,000 bytes (range)", ""],
        ["ratio", "12,346", "none given", ""],
        ["errors", "0", "none given", ""],
    ]


def test_nothing_in_a_name_or_a_text_becomes_markup(tmp_path):
    plain = {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong", "code", "a"}
    starts = [
        "- x",
        "+ x",
        "= x",
        "12. x",
        "3) x",
        "# x",
        "> x",
        "---",
        "-1 to 2",
        "1.5 x",
        "a\n\n# b",
        "``x`",
    ]
    for nasty in (NASTY, *starts):
        shown = " ".join(nasty.split())
        path = written(tmp_path / "a`b.onnx", nasty, classes=(nasty, *CLASSES))
        measure = Measure(nasty, 1, nasty, 0, 2, interval=nasty, how=nasty)
        text = card(path, [measure], summary=nasty, limits=[nasty], teacher=nasty, versions={nasty: nasty})
        page = Page(text)
        assert page.of("h1")[0].removesuffix("¶") == f"Model card: {shown}"
        assert page.of("td") == [shown, f"1 {shown}", f"0 to 2 {shown} ({shown})", shown]
        assert {shown, f"{shown} {shown}"} <= set(page.of("li")) and shown in page.of("p"), nasty
        assert "a`b.onnx" in page.of("code"), nasty
        assert page.names <= plain | {"div", "pre", "span"}, nasty
        assert [len(page.of(tag)) for tag in ("h1", "h2", "a")] == [1, 6, 1 + 7], nasty


def test_a_measure_that_says_nothing_sure_is_refused():
    for arguments, message in (
        ({"value": float("nan")}, "must be finite"),
        ({"value": 1, "low": 0, "high": float("inf"), "interval": "x"}, "must be finite"),
        ({"value": 1, "low": 2, "high": 3, "interval": "x"}, "2 <= 1 <= 3"),
        ({"value": 1, "low": 0}, "low and high belong together"),
        ({"value": 1, "low": 0, "high": 2}, "need `interval`"),
        ({"value": 1, "interval": "quartiles"}, "need `interval`"),
        ({"value": 1, "name": " "}, "is empty"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Measure(**{"name": "a", **arguments})


def test_a_card_with_a_gap_is_refused(files):
    for name in ("measures", *(name for name in TEXTS if name != "teacher")):
        nothing = {list: [], dict: {}, str: " "}[type(TEXTS.get(name, []))]
        with pytest.raises(ValueError, match=f"{name} is empty"):
            model_card(files[0], **{"measures": [ACCURACY], **TEXTS, name: nothing})


def test_files_without_a_description_or_a_model_are_refused(files, tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match="text.onnx: onnxruntime cannot load this model"):
        card(tmp_path / "text.onnx")
    model = onnx.load(files[0])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "silent.onnx")
    with pytest.raises(ValueError, match="silent.onnx does not say"):
        card(tmp_path / "silent.onnx")
    with pytest.raises(FileNotFoundError):
        card(tmp_path / "absent.onnx")
