"""Sweeps on a Dask cluster of separate processes, which may die."""

import os
import signal
import threading
import time

import dask
import pandas
import pytest
import torch
from distributed import Client, LocalCluster, get_worker
from distributed.utils import sync

from kdlib import data, models, sweeps


@pytest.fixture(scope="module")
def client():
    # A LocalCluster gives up a worker that is not back 15 s after it was lost, and starts no other in its place. On a
    # busy machine both would be gone when they are killed again and again, and who waits for them waits for ever.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}),
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def images():
    dataset = data.load()
    return dataset.train.take(60), dataset.test.take(50)


def die():
    """Inside a worker: be killed, once its nanny knows that it has started. It replaces none that it loses sooner."""
    worker = get_worker()
    sync(worker.loop, worker.rpc(worker.nanny).instantiate)
    os.kill(os.getpid(), signal.SIGKILL)


OPTIONS = {"temperatures": [2.0, 8.0], "alphas": [0.0, 0.5, 1.0], "seeds": range(6), "epochs": 2}


@pytest.fixture(scope="module")
def expected(images):
    teacher = models.build("resnet8", seed=0)
    return sweeps.run("tiny-cnn", teacher, *images, workers=0, progress=False, **OPTIONS)


def same(table, expected):
    pandas.testing.assert_frame_equal(
        table.drop(columns="seconds"), expected.drop(columns="seconds"), check_exact=True
    )


def test_a_cluster_gives_the_table_of_one_process(client, images, expected):
    teacher = models.build("resnet8", seed=0)
    table = sweeps.run("tiny-cnn", teacher, *images, client=client, progress=False, **OPTIONS)
    same(table, expected)


def test_a_sweep_outlives_a_killed_worker(client, images, expected, tmp_path):
    teacher = models.build("resnet8", seed=0)
    rows = sweeps.iterate(
        "tiny-cnn", teacher, *images, client=client, results=tmp_path / "rows", progress=False, **OPTIONS
    )
    first = next(rows)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    found = [first, *rows]
    settings = ["temperature", "alpha", "seed"]
    table = pandas.DataFrame(found).sort_values(settings, ignore_index=True)
    same(table, expected.sort_values(settings, ignore_index=True))


def test_what_a_killed_worker_ran_is_computed_again(client, tmp_path):
    def fatal_once(number):
        mark = tmp_path / "killed"
        if number == 2 and not mark.exists():
            mark.touch()
            die()
        return {"double": 2 * number}

    cells = [{"number": number} for number in range(8)]
    table = sweeps.map_cells(fatal_once, cells, client=client, progress=False)
    assert table["double"].tolist() == [2 * number for number in range(8)]


def test_a_cell_that_kills_every_worker_fails_alone(client):
    def fatal(number):
        if number == 2:
            die()
        return {"double": 2 * number}

    cells = [{"number": number} for number in range(4)]
    with pytest.warns(RuntimeWarning, match=r"\{'number': 2\} failed(?s:.*)KilledWorker"):
        table = sweeps.map_cells(fatal, cells, client=client, progress=False)
    assert table["double"].isna().tolist() == [False, False, True, False]


def test_a_failing_cell_reports_its_settings(client):
    def fail(number):
        return {"inverse": 1 / number}

    with pytest.warns(RuntimeWarning, match=r"\{'number': 0\} failed(?s:.*)ZeroDivisionError"):
        table = sweeps.map_cells(fail, [{"number": 0}, {"number": 2}], client=client, progress=False)
    assert table["error"][0] == "ZeroDivisionError: division by zero"
    assert table["inverse"][1] == 0.5


def test_threads_of_a_worker_do_not_compute_at_the_same_time(client):
    """They would draw from the same random numbers."""

    def lonely(number):
        torch.manual_seed(number)
        time.sleep(0.02)
        return {"draw": torch.rand(()).item(), "threads": torch.get_num_threads()}

    cells = [{"number": number} for number in range(12)]
    table = sweeps.map_cells(lonely, cells, client=client, progress=False)
    alone = sweeps.map_cells(lonely, cells, workers=0, progress=False)
    pandas.testing.assert_frame_equal(table, alone, check_exact=True)


def test_large_arguments_travel_in_parts(client):
    """Dask warns where a task holds more than 10 MiB."""
    images = torch.randint(0, 255, (20, 2**20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def total(images, row):
        return {"total": images[row].sum()}

    table = sweeps.map_cells(
        total, [{"row": 0}, {"row": 19}], shared={"images": images}, client=client, progress=False
    )
    assert table["total"].tolist() == [images[0].sum().item(), images[19].sum().item()]


def test_closing_the_iterator_cancels_what_has_not_started(client, tmp_path):
    def note(number):
        (tmp_path / str(number)).touch()
        time.sleep(0.05)
        return {}

    rows = sweeps.iterate_cells(note, [{"number": n} for n in range(200)], client=client, progress=False)
    next(rows)
    rows.close()
    deadline = time.monotonic() + 60
    while any(client.processing().values()) and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert len(list(tmp_path.iterdir())) < 200
