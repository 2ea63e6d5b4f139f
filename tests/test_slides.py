"""Slides: what their outlines ask for is in the notebooks, and the pages hold it and fetch nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import slide_decks

from kdlib.lesson import exercises
from kdlib.site import slides
from kdlib.site.slides import outline, pieces

ROOT = Path(__file__).parents[1]
HERE = ROOT / "kdlib" / "site" / "slides"
LESSONS = ("01_principle", "02_temperature", "03_loss_balancing")


def outline_of(name: str) -> list[outline.Slide]:
    return outline.read((HERE / f"{name[:2]}.md").read_text(encoding="utf-8"))


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


class Deck(HTMLParser):
    """The slides of a page: the classes of their parts, their notes, their pictures; and what it would fetch."""

    def __init__(self, html: str):
        super().__init__()
        self.slides, self.fetched, self._in_notes = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        address = values.get("src") or values.get("href") or ""
        if address and not address.startswith("data:"):
            self.fetched.append(address)
        if tag == "section":
            self.slides.append({"parts": [], "notes": "", "pictures": [], "live": 0})
        elif tag == "aside":
            self._in_notes = True
        elif tag == "img" and self.slides:
            self.slides[-1]["pictures"].append(values["alt"])
        classes = values.get("class", "").split()
        if "part" in classes:
            self.slides[-1]["parts"].append(classes[1])
        if "kd-live" in classes:
            self.slides[-1]["live"] += 1

    def handle_endtag(self, tag):
        self._in_notes = self._in_notes and tag != "aside"

    def handle_data(self, data):
        if self._in_notes:
            self.slides[-1]["notes"] += data


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: slides.render(committed(name), name) for name in LESSONS}


@pytest.mark.parametrize("name", LESSONS)
def test_every_piece_is_in_the_committed_notebook_and_every_slide_has_notes(pages, name):
    deck, asked = Deck(pages[name]), outline_of(name)
    assert 12 <= len(asked) <= 18
    assert [one["parts"] for one in deck.slides] == [[pick.kind for pick in slide.picks] for slide in asked]
    assert all(len(one["notes"].split()) >= 20 for one in deck.slides)
    kinds = [one["parts"][0] for one in deck.slides]
    assert kinds[0] == "lesson" and kinds.count("predict") >= 4
    figures = [pick.handle for slide in asked for pick in slide.picks if pick.kind == "figure"]
    shown = [caption for one in deck.slides for caption in one["pictures"]]
    assert len(shown) == len(figures) and all(map(str.startswith, shown, figures))


@pytest.mark.parametrize("name", LESSONS)
def test_a_page_asks_for_nothing_and_is_small(pages, name):
    page = pages[name]
    assert Deck(page).fetched == []
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert len(styles) > 50_000 and not re.search(r"@import|url\((?!['\"]?data:)", styles)
    assert len(page.encode()) < 1_500_000
    assert page.count("<math") >= 2 and "$" not in re.sub(
        r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL
    )


@pytest.mark.parametrize("name", LESSONS)
def test_a_question_is_asked_before_its_answer_is_seen(name):
    asked = []
    for slide in outline_of(name):
        answered = [pick.handle for pick in slide.picks if pick.kind == "answer"]
        assert all(handle in asked for handle in answered), slide.title
        asked += [pick.handle for pick in slide.picks if pick.kind == "predict"]


@pytest.mark.parametrize("name", LESSONS)
def test_notes_type_no_result_and_name_what_there_is(name):
    for slide in outline_of(name):
        assert not re.search(
            r"\d(?:\.\d+)? ?(?:%|points|pp|percent|nats)", slide.notes.replace("45 to 55 %", "")
        ), slide
        named = set(re.findall(r"`(\w+)`", slide.notes))
        assert named <= {*exercises.names(), "check"}, slide.title


@pytest.mark.parametrize("name", LESSONS)
def test_figures_move_where_the_notebook_keeps_their_state_and_say_so_where_not(pages, name):
    moving = Deck(slides.render(slide_decks.lively(ROOT / "notebooks" / f"{name}.ipynb"), name))
    still = Deck(pages[name])
    for one, other in zip(moving.slides, still.slides, strict=True):
        assert one["live"] == one["parts"].count("live") and other["live"] == 0
    assert pages[name].count("moves in JupyterLab") == sum(one["live"] for one in moving.slides) >= 3


def test_a_piece_that_is_missing_or_there_twice_is_an_error_that_says_where():
    notebook = committed("01_principle")
    number = next(n for n, cell in enumerate(notebook.cells) if "doubt_prediction = predict(" in cell.source)
    twice = nbformat.from_dict({**notebook, "cells": [*notebook.cells, notebook.cells[number]]})
    with pytest.raises(
        ValueError, match=r"slide 3 of lesson 01_principle.*2 times a predict that begins with"
    ):
        slides.render(twice, "01_principle")
    notebook.cells[number].outputs = []
    with pytest.raises(ValueError, match=r"slide 3 of .*has no predict that begins with 'The teacher looks"):
        slides.render(notebook, "01_principle")


def test_lines_that_are_missing_are_an_error_too():
    notebook = committed("01_principle")
    with pytest.raises(ValueError, match="none of the lines of this piece begins with 'the moon'"):
        pieces.find(notebook, outline.Pick("recorded", "lesson01-longest", ("the control", "the moon")))
    found = pieces.find(notebook, outline.Pick("recorded", "lesson01-longest", ("the control",)))
    assert "the control: " in found and "nine times" not in found and "kdlib record lesson01-longest" in found
    with pytest.raises(ValueError, match="no parts can be chosen"):
        pieces.find(notebook, outline.Pick("formula", "p_k", ("e",)))
    with pytest.raises(ValueError, match="'film' is no kind of piece; there are: lesson, text"):
        pieces.find(notebook, outline.Pick("film", "x", ()))


def test_an_outline_needs_something_to_show_and_something_to_say():
    first, second = outline.read(
        "above\n\n## One\n\n- figure: a | b | c\n- text: d\n\nSay *it*.\n\n- so\n\n## Two\n- text: e\n\nf"
    )
    assert first == outline.Slide(
        "One", (outline.Pick("figure", "a", ("b", "c")), outline.Pick("text", "d", ())), "Say *it*.\n\n- so"
    )
    assert second.title == "Two"
    with pytest.raises(ValueError, match="the slide 'One' shows nothing"):
        outline.read("## One\n\nSay it.")
    with pytest.raises(ValueError, match="the slide 'One' has no notes"):
        outline.read("## One\n\n- text: a")


def test_lessons_with_an_outline_become_files_and_others_are_left_out(tmp_path):
    notebooks = [ROOT / "notebooks" / f"{name}.ipynb" for name in ("03_loss_balancing", "05_deployment")]
    (written,) = slides.write(notebooks, tmp_path / "slides")
    assert written == tmp_path / "slides" / "03_loss_balancing.html" and [*written.parent.iterdir()] == [
        written
    ]
    assert written.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_reveal_is_small_and_has_its_licence_beside_it():
    files = sorted((HERE / "reveal").iterdir())
    assert {file.name for file in files} == {"LICENSE", "notes.js", "reset.css", "reveal.css", "reveal.js"}
    assert sum(file.stat().st_size for file in files) < 1_000_000
    assert "Permission is hereby granted, free of charge" in (HERE / "reveal" / "LICENSE").read_text()
