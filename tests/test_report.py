"""The report as a file: nothing to load, nothing that a name could break, every section there."""

import base64
import hashlib
import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bayesmeta.checks.surprise import Surprise
from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.evaluation.conclusions import Verdict
from bayesmeta.reporting import inline_svg
from bayesmeta.reporting.page import escape
from bayesmeta.reporting.report import Report, report
from bayesmeta.tasks.dataset import TaskDataset
from tests.evaluation.exact import ClassShares, NormalMean, label_tasks, normal_tasks

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def made() -> Report:
    """With a task, columns and a title that mean harm, and reference tasks."""
    rng = np.random.default_rng(0)
    rows = [{"who": EVIL if t == 0 else f"t{t}", "cost $": float(i), "<b>$x$</b>": rng.normal()}
            for t in range(12) for i in range(5)]  # fmt: skip
    tasks = TaskDataset.from_frame(pd.DataFrame(rows), task="who", x=["cost $"], y=["<b>$x$</b>"])
    surprise = Surprise.fit(NormalMean(), normal_tasks(30, 6, seed=1), (1, 3))
    facts = [(EVIL, EVIL)]
    return report(NormalMean(), tasks, (0, 2), examples=1, num_bootstrap=20, surprise=surprise, title=EVIL, facts=facts)


@pytest.fixture(scope="module")
def text(made: Report) -> str:
    return made.html()


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    assert not re.search(
        r"<(script|iframe|object|embed|base|form|video|audio|link(?! rel=\"icon\" href=\"data:,\"))", text
    )
    addresses = re.findall(r"(?:src|href|srcset|action|poster)\s*=\s*[\"']?([^\"'>\s]*)", text)
    assert addresses
    assert all(address == "data:," or address.startswith("#") for address in addresses)
    assert not re.search(r"url\((?!#)|@import| style=| on[a-z]+=", text)


def test_the_policy_allows_the_style_and_no_more(text: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'"]


def test_names_are_text(text: str) -> None:
    assert "<b>" not in text
    assert text.count(html.escape(EVIL)) >= 5  # title, heading, fact, worst tasks, surprise
    assert escape("a\x00\u202eb\n&") == "a\ufffd\ufffdb\ufffd&amp;"


def test_every_section_is_there_and_can_be_gone_to(text: str) -> None:
    sections = ["conclusions", "scores", "calibration", "sharpness", "worst", "surprise", "tasks", "terms"]
    assert re.findall(r'<section id="(\w+)">', text) == sections
    assert re.findall(r'href="#(\w+)"', text) == sections
    assert '<html lang="en">' in text
    assert 'name="viewport"' in text
    assert "@media print" in text


def test_figures_are_whole_and_have_words(text: str) -> None:
    images = re.findall(r"<figure>(<svg.*?</svg>)<figcaption>", text, flags=re.S)
    assert len(images) == text.count("<svg") == 2 + 4 + 1 + 2
    names = set[str]()
    for image in images:
        root = ET.fromstring(image)
        assert root.get("role") == "img"
        assert len(root.get("aria-label", "")) > 20
        assert any(each.tag == "text" for each in root.iter())  # which can be searched, and read by others than eyes
        own = {each.get("id", "") for each in root.iter()} - {""}
        assert own
        assert not own & names  # parts of one figure are not taken for those of another
        names |= own
        used = re.findall(r'(?:href="|url\()#([^")]*)', image)
        assert set(used) <= own
    assert sum("PIT" in caption for caption in re.findall("<figcaption>(.*?)</figcaption>", text)) == 2


def test_the_table_has_the_numbers_of_the_evaluation(made: Report, text: str) -> None:
    table = made.evaluation.table()
    cells = re.findall(r"<td>(.*?)</td>", text)
    for shots in (0, 2):
        assert f"{100 * table.coverage[shots]:.0f} %" in "".join(cells)
        assert f"<small>noise {table.calibration_noise[shots]:.3f}</small>" in "".join(cells)
        low, high = table.coverage_low[shots], table.coverage_high[shots]
        assert f"<small>{100 * low:.0f} to {100 * high:.0f}</small>" in "".join(cells)


def test_conclusions_are_on_the_page_and_in_print(made: Report, text: str) -> None:
    for each in made.conclusions:
        assert html.escape(each.text) in text
        assert each.text in str(made)
    assert {"Evidence", "Coverage", "Bias", "Calibration", "Learning", "Surprise"} <= {
        c.topic for c in made.conclusions
    }


def test_surprise_is_that_of_the_tasks(made: Report) -> None:
    assert made.surprise is not None
    assert made.surprise.p_value.is_monotonic_increasing
    assert made.surprise.shrinkage.to_numpy() == pytest.approx(0.5 / (0.5 + 5))  # σ² / (σ² + n τ²)


def test_a_task_unlike_the_others_is_found() -> None:
    tasks = normal_tasks(20, 6, seed=0)
    y = tasks.data.y.clone()
    y[7] += 25.0
    strange = TaskDataset(Data(tasks.data.x, y, tasks.data.mask), [f"task-{i}" for i in range(20)])
    surprise = Surprise.fit(NormalMean(), normal_tasks(500, 6, seed=1), (5,))
    found = report(NormalMean(), strange, (0, 2), num_bootstrap=0, surprise=surprise)
    (conclusion,) = (each for each in found.conclusions if each.topic == "Surprise")
    assert conclusion.verdict is Verdict.PROBLEM
    assert "learned from: task-7." in conclusion.text
    assert found.surprise is not None
    assert found.surprise.task[0] == found.evaluation.worst(1).task[0] == "task-7"
    assert found.examples[0][:2] == ("Worst", "task-7")


def test_examples_are_the_points_that_were_scored() -> None:
    tasks = normal_tasks(9, [4, 9, 6, 12, 5, 3, 8, 7, 2], seed=0)
    made = report(NormalMean(), tasks, (0, 2, 5), num_bootstrap=0)
    assert [why for why, *_ in made.examples] == ["Worst", "Typical", "Best"]
    for _, name, data, shots, learner in made.examples:
        assert isinstance(learner, NormalMean)
        row = made.evaluation.at(shots[-1]).names.index(name)
        query = data.y[0, shots[-1] :]
        predictive = NormalMean().adapt(data.points(slice(shots[-1])))
        pit = predictive.predict(data.x[:, shots[-1] :]).cdf(query[None])
        scored = made.evaluation.at(shots[-1])
        assert scored.pit is not None
        np.testing.assert_allclose(pit[0], np.split(scored.pit, scored.starts[1:])[row])


def test_figures_on_request_and_the_same_page_twice(made: Report, text: str, tmp_path: Path) -> None:
    made.write(tmp_path / "a.html", tmp_path / "deep" / "figures")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "deep"]
    names = {path.name for path in (tmp_path / "deep" / "figures").iterdir()}
    assert names == {
        "rmse.png", "nll.png", "width.png", "reliability-0.png", "reliability-2.png", "pit-0.png", "pit-2.png",
        "task-1-0.png", "task-1-2.png",
    }  # fmt: skip
    assert (tmp_path / "deep" / "figures" / "pit-0.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_written_leaves_what_was_there(made: Report, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("precious")
    for path, figures in (("folder", None), ("file/report.html", None), ("report.html", "file")):
        with pytest.raises(DataError, match="can be written"):
            made.write(tmp_path / path, None if figures is None else tmp_path / figures)
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    with pytest.raises(DataError, match=r"expected the figure rmse.png to be another file than the page"):
        made.write(tmp_path / "figures" / "rmse.png", tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_a_classifier_has_a_page_without_what_it_lacks() -> None:
    made = report(ClassShares(), label_tasks(12, 9, seed=0), (2,), num_bootstrap=20)
    page = made.html()
    sections = re.findall(r'<section id="(\w+)">', page)
    assert sections == ["conclusions", "scores", "calibration", "classes", "worst", "surprise", "terms"]
    assert "right answers" in page
    assert "Not judged" in page


def test_inputs_decide_what_is_drawn() -> None:
    """A covariate leaves a curve to be drawn; two inputs that vary do not, and neither does none."""
    tasks = normal_tasks(6, 8, seed=0)
    group = torch.arange(6, dtype=torch.float64)[:, None, None].expand(-1, 8, 1)
    inputs = {
        1: torch.cat([group, tasks.data.x], -1),
        None: torch.cat([tasks.data.x, tasks.data.x + 1.0], -1),
    }
    for along, x in inputs.items():
        both = TaskDataset(Data(x, tasks.data.y.repeat(1, 1, 2), tasks.data.mask))
        made = report(NormalMean(), both, (0,), examples=1, num_bootstrap=0)
        assert made.along == along
        captions = [panel.caption for panel in made._panels()["task 0"]]
        assert len(captions) == 2  # two outcomes
        assert all(("band" if along == 1 else "intervals") in caption for caption in captions)


def test_bad_arguments_are_refused() -> None:
    tasks = normal_tasks(3, 4, seed=0)
    with pytest.raises(DataError, match="whole number of examples >= 0, got -1"):
        report(NormalMean(), tasks, (0,), examples=-1)
    with pytest.raises(DataError, match="expected distinct numbers of shots"):
        report(NormalMean(), tasks, (-1,))


def test_tasks_of_the_training_are_owned_up_to() -> None:
    found = report(NormalMean(), normal_tasks(5, 4, seed=0), (0,), num_bootstrap=0, trained_on=["1", "3", "77"])
    assert found.conclusions[0].verdict is Verdict.PROBLEM
    assert found.conclusions[0].text.startswith("2 of the 5 tasks are of the training")


def test_a_picture_in_a_figure_stays_a_picture() -> None:
    """Parts of a figure are renamed where they are referred to; what is no part is left as it is."""
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 1 1">'
        b'<image xlink:href="data:image/png;base64,AAAA"/><use xlink:href="#a"/></svg>'
    )
    shown = inline_svg.inline(svg, "p", "a picture")
    assert '<image href="data:image/png;base64,AAAA" />' in shown
    assert '<use href="#p-a" />' in shown
