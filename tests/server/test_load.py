"""Many at once: only answers and "come again"; memory stays; nobody's work is done for nothing."""

import http.client
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from clients import disc, encoded, eventually

from fullyconv.inference.memory import resident
from fullyconv.server import Limits

CLIENTS = 200
MEGABYTE = 2**20


def test_two_hundred_clients_get_answers_or_are_told_to_come_again(serving, png):
    with serving(limits=Limits(waiting=8)) as client:
        expected = client.predict(png).body
        start = threading.Barrier(CLIENTS)

        def ask(_):
            start.wait(60)
            return client.predict(png, timeout=120)

        def all_at_once():
            with ThreadPoolExecutor(CLIENTS) as pool:
                return list(pool.map(ask, range(CLIENTS)))

        replies = all_at_once()
        before = resident()
        replies += all_at_once()
        grown = resident() - before
        statuses = Counter(reply.status for reply in replies)
        assert statuses.keys() <= {200, 429}
        assert statuses[200] >= 2 * 9
        assert statuses[429] > 0
        assert grown < 60 * MEGABYTE
        for reply in replies:
            if reply.status == 200:
                assert reply.body == expected
            else:
                assert int(reply.headers["retry-after"]) >= 1
                assert reply.problem
        eventually(lambda: not client.service.jobs)
        assert client.service.places.taken == 0


def test_work_is_ended_when_its_client_goes_away(serving):
    """The rest of the tiles is not computed, and the next client is served."""
    with serving(tile=96) as client:
        predictor = client.service._workers[0]._predictors["discs"]
        begun, gone, tiles = threading.Event(), threading.Event(), []
        advance = predictor._progress.advance

        def watched(task, done, total, note=""):
            tiles.append((done, total))
            begun.set()
            assert gone.wait(30)
            advance(task, done, total, note)

        predictor._progress.advance = watched
        body = encoded(disc(300, 300))
        connection = http.client.HTTPConnection(*client.address)
        connection.request("POST", "/v1/predict", body, {"X-Request-ID": "leaving"})
        assert begun.wait(30)
        connection.close()
        (job,) = client.service.jobs.values()
        eventually(lambda: job.is_unwanted)
        gone.set()
        eventually(lambda: not client.service.jobs)
        assert tiles[-1][0] < tiles[-1][1]
        predictor._progress.advance = advance
        assert client.predict(body).status == 200


def test_who_waits_and_leaves_gives_its_place_back(serving, png):
    with serving(limits=Limits(waiting=1)) as client:
        worker = client.service._workers[0]
        begun, go = threading.Event(), threading.Event()
        predict = worker._predictors["discs"].predict

        def held(*arguments, **options):
            begun.set()
            assert go.wait(30)
            return predict(*arguments, **options)

        worker._predictors["discs"].predict = held
        replies = []
        first = threading.Thread(target=lambda: replies.append(client.predict(png)))
        first.start()
        assert begun.wait(30)
        second = http.client.HTTPConnection(*client.address)
        second.request("POST", "/v1/predict", png)
        eventually(lambda: client.service.places.taken == 2)
        assert client.predict(png).status == 429
        second.close()
        eventually(lambda: client.service.places.taken == 1)
        go.set()
        first.join()
        assert replies[0].status == 200
