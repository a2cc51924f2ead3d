"""One model, many threads, as a web server calls it: the results of one thread, and the model as it was."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from conftest import Bent, Classes, Encoder, tiny_captioner
from PIL import Image
from test_layers import Recurrent, state, used
from torch import Tensor, nn

from mmgradcam import Explanation, check, compare, explain, gradcam, hirescam, layercam, rise, smooth
from mmgradcam.images.pictures import whole as as_it_is
from mmgradcam.layers import preserve_state, record_outputs
from mmgradcam.metrics import deletion, parameter_randomization, sanity_check
from mmgradcam.tasks import Layer, Policy
from mmgradcam.utils.locks import exclusive

THREADS = 6


def pictures(count: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(7)
    return [torch.rand(3, 8, 8, dtype=torch.float64, generator=draw) for _ in range(count)]


def at_once(work: list[Callable[[], Any]]) -> list[Any]:
    """What each piece of work returns or raises, all started together in threads."""
    ready = threading.Barrier(len(work))

    def run(one: Callable[[], Any]) -> Any:
        ready.wait(30)
        try:
            return one()
        except BaseException as error:
            return error

    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result(60) for future in [pool.submit(run, one) for one in work]]


def same(made: Any, expected: Explanation) -> None:
    assert isinstance(made, Explanation), repr(made)
    assert made.labels == expected.labels
    assert torch.equal(made.maps, expected.maps)
    assert torch.equal(made.scores, expected.scores)


@pytest.fixture
def slow(classes: Classes, monkeypatch: pytest.MonkeyPatch) -> Classes:
    """A task in the middle of training, whose encoder and head let other threads run while they run."""
    for module in (Encoder, Bent):
        forward = module.forward

        def waiting(self: nn.Module, x: Tensor, forward: Any = forward) -> Tensor:
            time.sleep(0.002)
            made: Tensor = forward(self, x)
            time.sleep(0.002)
            return made

        monkeypatch.setattr(module, "forward", waiting)
    return used(classes)


def test_threads_with_one_task_get_what_one_thread_gets(slow: Classes) -> None:
    shown, how = pictures(THREADS), {"target_layers": ["first", "second"], "method": hirescam}
    before = state(slow)
    expected = [explain(slow, pixels, **how) for pixels in shown]
    made = at_once([partial(lambda p: [explain(slow, p, **how) for _ in range(3)], pixels) for pixels in shown])
    for several, one in zip(made, expected, strict=True):
        for each in several:
            same(each, one)
    assert state(slow) == before


def test_two_tasks_over_one_encoder_exclude_each_other(slow: Classes) -> None:
    torch.manual_seed(1)
    whole = nn.Sequential(slow.encoder, Bent().double())
    other, layer = Classes(slow.encoder, Bent().double()), Layer(whole, "0.second")
    before = state(slow)
    calls = [partial(explain, task, p) for p in pictures(3) for task in (slow, other, layer)]
    expected = [call() for call in calls]
    for _ in range(2):
        for made, one in zip(at_once(calls), expected, strict=True):
            same(made, one)
    assert state(slow) == before


def test_methods_that_ask_again_and_words_generated(slow: Classes) -> None:
    captioner, shown = tiny_captioner(), torch.rand(3, 16, 16).double()
    calls = [
        *(partial(explain, slow, pictures(1)[0], method=m) for m in (partial(rise, count=8), smooth(gradcam, count=3))),
        *[partial(explain, captioner, shown, target_layers=("stages.0",))] * 2,
        *[partial(explain, captioner, shown, caption="a red ball")] * 2,
    ]
    expected = [call() for call in calls]
    for made, one in zip(at_once(calls), expected, strict=True):
        same(made, one)


def test_what_explanations_ask_later_waits_its_turn(slow: Classes) -> None:
    """Joint maps, other methods, metrics, copies and `check` run the model after `explain` has returned."""
    slow.join = lambda targets: targets[-1]  # type: ignore[method-assign]
    slow.encoder.float(), slow.head.float()
    before, shown = state(slow), [p.float() for p in pictures(2)]
    one = explain(slow, shown[0], target_layers=["first"])
    calls: list[Callable[[], Any]] = [
        lambda: one.with_method(layercam).maps,
        lambda: one[0:2].maps,
        lambda: compare(slow, shown, [gradcam, hirescam])[1][1].maps,
        lambda: torch.as_tensor(deletion(one)),
        lambda: torch.as_tensor([v.figures["weights"] for v in sanity_check(one).sanity_results]),
        lambda: torch.as_tensor(parameter_randomization(one, stages=2)[-1].scores),
        lambda: [str(finding) for finding in check(slow, shown[0])],
    ]
    expected = [call() for call in calls]
    assert not any("changed while" in said for said in expected[-1])
    for made, wanted in zip(at_once(calls), expected, strict=True):
        assert not isinstance(made, BaseException), repr(made)
        assert torch.equal(made, wanted) if isinstance(made, Tensor) else made == wanted
    assert state(slow) == before


def test_an_exception_in_one_thread_does_not_hurt_the_others(slow: Classes) -> None:
    before, score = state(slow), slow.score

    def failing(features: Tensor, targets: Any) -> Tensor:
        if threading.current_thread().name.endswith(("_1", "_3")):
            raise ValueError("stop")
        return score(features, targets)

    shown = pictures(1)[0]
    expected = explain(slow, shown)
    slow.score = failing  # type: ignore[method-assign]
    made = at_once([partial(explain, slow, shown)] * THREADS)
    assert sum(isinstance(one, ValueError) for one in made) == 2
    for one in made:
        if not isinstance(one, ValueError):
            same(one, expected)
    assert state(slow) == before


def test_asyncio_to_thread(slow: Classes) -> None:
    before, shown = state(slow), pictures(4)
    expected = [explain(slow, pixels, target_layers=["first"]) for pixels in shown]

    async def all_of_them() -> list[Explanation]:
        return await asyncio.gather(
            *(asyncio.to_thread(explain, slow, pixels, target_layers=["first"]) for pixels in shown * 3)
        )

    for made, one in zip(asyncio.run(all_of_them()), expected * 3, strict=True):
        same(made, one)
    assert state(slow) == before


@contextmanager
def serving(answer: Callable[[str], Any]) -> Iterator[str]:
    """A web server with a thread per request, as long as it is wanted."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, made = 200, answer(self.path)
            except Exception as error:
                status, made = 500, {"error": str(error)}
            body = json.dumps(made).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_web_server_that_explains(slow: Classes, picture: Image.Image) -> None:
    model = nn.Sequential(slow.encoder, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).float()
    task = Layer(model, "0.second", prepare=as_it_is)
    before = state(slow)

    def answer(path: str) -> dict[str, Any]:
        made = explain(task, picture.rotate(int(path[1:])), classes=[1, 2])
        return {"labels": made.labels, "maps": made.maps.tolist(), "heat": float(made[0].heat().mean())}

    paths = [f"/{turn}" for turn in (0, 90, 180, 270)]
    expected = [answer(path) for path in paths]

    def asked(url: str) -> Any:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as reply:
            return json.load(reply)

    with serving(answer) as url:
        assert at_once([partial(asked, url + path) for path in paths * 2]) == expected * 2
    assert state(slow) == before


def test_a_policy_played_in_threads() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)).train()
    policy = Policy(net, "1")
    seen = torch.randint(0, 256, (6, 8, 8, 3), generator=torch.Generator().manual_seed(0)).numpy()
    expected = [(policy.values(o), explain(policy.at(o), policy.picture(o))) for o in seen]
    made = at_once([lambda o=o: (policy.values(o), explain(policy.at(o), policy.picture(o))) for o in seen])
    for (values, one), (wanted, other) in zip(made, expected, strict=True):
        assert torch.equal(values, wanted)
        same(one, other)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


def test_forwards_of_the_users_own_go_on_meanwhile(classes: Classes) -> None:
    """A frozen model in eval mode, which other threads use without the lock: neither side sees the other."""
    for module in classes.modules():
        module.requires_grad_(False)
    shown, plain = pictures(2), pictures(4)
    expected = explain(classes, shown[0], target_layers=["first"])
    with torch.no_grad():
        wanted = [classes.encoder(p[None]) for p in plain]
    stop = threading.Event()
    wrong: list[str] = []

    def forwards() -> None:
        while not stop.is_set():
            with torch.no_grad():
                for p, want in zip(plain, wanted, strict=True):
                    got = classes.encoder(p[None])
                    if got.requires_grad or not torch.equal(got, want):
                        wrong.append("other features")

    thread = threading.Thread(target=forwards)
    thread.start()
    try:
        for _ in range(20):
            same(explain(classes, shown[0], target_layers=["first"]), expected)
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_hooks_that_watch_see_their_own_thread_alone() -> None:
    """As an encoder that collects its layers' outputs while it runs, in several threads at once."""
    layer = nn.Identity()
    with record_outputs({"layer": layer}) as put:
        (_,) = at_once([lambda: layer(torch.zeros(1))])
        assert put == {}
        layer(torch.ones(1))
    assert put["layer"].item() == 1


def test_cudnn_is_switched_on_again_by_the_last_thread_that_wanted_it_off() -> None:
    models = [Recurrent().eval() for _ in range(3)]
    for model in models:
        model.lstm.register_forward_pre_hook(lambda *_: time.sleep(0.005))
    tasks = [Layer(model, model.conv) for model in models]
    made = at_once([partial(explain, task, torch.rand(3, 8, 8)) for task in tasks * 2])
    assert all(isinstance(one, Explanation) for one in made), made
    assert torch.backends.cudnn.enabled
    assert not any(on for model in models for on in model.lstm.seen)


def test_whoever_waits_comes_in_its_turn() -> None:
    """Two sets that overlap in any order, thousands of times: nobody waits for ever, and a held thing may be asked for again."""
    objects, inside, most = [object() for _ in range(4)], [0] * 4, [0] * 4

    def work(seed: int) -> None:
        order = torch.Generator().manual_seed(seed)
        for _ in range(300):
            chosen = torch.randperm(4, generator=order)[: 1 + seed % 3].tolist()
            with exclusive([objects[i] for i in chosen]), exclusive([objects[i] for i in chosen[:1]]):
                for i in chosen:
                    inside[i] += 1
                    most[i] = max(most[i], inside[i])
                for i in chosen:
                    inside[i] -= 1

    assert at_once([partial(work, seed) for seed in range(8)]) == [None] * 8
    assert (inside, most) == ([0] * 4, [1] * 4)


def test_first_come_first_served_unless_it_holds_what_others_wait_for() -> None:
    one, other = object(), object()
    order: list[str] = []
    held = threading.Event()

    def first() -> None:
        with exclusive([one]):
            held.set()
            wait_for_claims(4)
            with exclusive([one, other]):  # goes before the second, which waits for `one`, but not before the holder of `other`
                order.append("nested")

    def wants(objects: list[object], name: str) -> None:
        with exclusive(objects):
            order.append(name)

    with ThreadPoolExecutor(4) as pool, exclusive([other]):
        futures = [pool.submit(first)]
        assert held.wait(20)
        futures.append(pool.submit(wants, [one, other], "second"))
        wait_for_claims(3)
        futures.append(pool.submit(wants, [one], "third"))
        wait_for_claims(5)
        assert order == []
    for future in futures:
        future.result(20)
    assert order == ["nested", "second", "third"]


def wait_for_claims(count: int) -> None:
    from mmgradcam.utils import locks

    end = time.monotonic() + 20
    while len(locks._claims) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_is_held_already_is_not_waited_for_again() -> None:
    """The holder of `one` asks for it and `other`; the one before it in the queue waits for `one`: neither blocks the other."""
    one, other, third = object(), object(), object()
    held = threading.Event()
    order: list[str] = []

    def holder() -> None:
        with exclusive([one]):
            held.set()
            with exclusive([one, other]):
                order.append("holder")

    def before() -> None:
        with exclusive([third]), exclusive([one]):
            order.append("before")

    pool = ThreadPoolExecutor(2)
    with exclusive([other]):
        futures = [pool.submit(holder)]
        assert held.wait(20)
        wait_for_claims(3)
        futures.append(pool.submit(before))
        wait_for_claims(5)
    pool.shutdown(wait=False)
    for future in futures:
        future.result(20)
    assert order == ["holder", "before"]


def test_models_that_share_a_parameter_exclude_each_other() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.weight = one.weight
    entered = threading.Event()

    def enter() -> bool:
        with preserve_state([other]):
            entered.set()
        return one.weight.requires_grad

    with ThreadPoolExecutor(1) as pool:
        with exclusive([one]):
            future = pool.submit(enter)
            assert not entered.wait(0.1)
        assert future.result(20)
