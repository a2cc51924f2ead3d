"""Episodes played and explained; worlds whose best way is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import complaints
from torch import Tensor, nn

from mmgradcam import InputError, explain, hirescam
from mmgradcam.images.clips import open_clip
from mmgradcam.tasks import Policy
from mmgradcam.tasks.nets.goto import GoToHead, GridEncoder
from mmgradcam.tasks.policy import told
from mmgradcam.tasks.vocabulary import Vocabulary

pytest.importorskip("minigrid", reason="minigrid is not installed")

from mmgradcam.evaluation.episode import animation_of, open_world, play, save
from mmgradcam.evaluation.goto import evaluate_goto
from mmgradcam.scenes.goto import ACTIONS, FAR, WORLD, Room, best_actions, from_above, mission, picture, room_of, steps_to

WORDS = ("a", "go", "the", "to", "blue", "green", "grey", "purple", "red", "yellow", "ball", "box", "key")


def policy() -> Policy:
    torch.manual_seed(0)
    return told(GridEncoder(16), GoToHead(4 + len(WORDS), 16, blocks=1), Vocabulary(tuple(sorted(WORDS))), ACTIONS)


def test_the_picture_is_what_the_environment_draws_and_the_best_way_wins() -> None:
    world = from_above(WORLD)
    for seed in range(20):
        seen, _ = world.reset(seed=seed)
        agent = world.unwrapped
        room = room_of(world)
        x, y = map(int, agent.agent_pos)
        np.testing.assert_array_equal(picture(room, x, y, agent.agent_dir), seen["image"])
        wanted = agent.instrs.desc
        assert mission(room, wanted.color, wanted.type) == seen["mission"]
        steps = steps_to(room, room.named(wanted.color, wanted.type))
        need, reward, over, count = int(steps[x, y, agent.agent_dir]), 0.0, False, 0
        assert need < FAR
        while not over and count < 60:
            x, y = map(int, agent.agent_pos)
            _, reward, over, _, _ = world.step(best_actions(steps, x, y, agent.agent_dir)[-1])
            count += 1
        assert reward > 0
        assert count == max(need, 1)


def test_steps_are_counted_round_what_stands_in_the_way() -> None:
    cells = np.zeros((5, 4, 3), np.uint8)
    cells[..., 0] = 2  # walls
    cells[1:4, 1:3, 0] = 1  # six free cells
    cells[2, 1] = (6, 0, 0)  # a ball between the agent and the goal
    cells[3, 1] = (5, 1, 0)
    room = Room(cells, (("red", "ball", (2, 1)), ("green", "key", (3, 1))))
    steps = steps_to(room, room.named("green", "key"))
    assert steps[3, 2, 3] == 0  # below it, looking up
    assert best_actions(steps, 3, 2, 3) == [ACTIONS.index("done")]
    assert steps[3, 2, 0] == 1
    assert best_actions(steps, 3, 2, 0) == [ACTIONS.index("left")]
    assert steps[1, 1, 1] == 5  # ahead, left, ahead, ahead, left
    assert best_actions(steps, 1, 1, 1) == [ACTIONS.index("forward")]
    assert steps[1, 1, 0] == 6  # the ball is before it: it must turn first


def test_an_episode_is_explained_step_by_step_and_saved(tmp_path: Path) -> None:
    mind = policy()
    steps = list(play(open_world(WORLD), mind, 4, seed=3, contrast="left", action="drop"))
    assert len(steps) == 4
    assert steps[0].told.startswith("go to")
    assert steps[0].explanation.labels == ["drop", "drop rather than left"]
    for step in steps:
        assert step.taken == int(np.argmax(step.values))
        assert step.explanation[0].score == pytest.approx(step.values[ACTIONS.index("drop")], abs=1e-5)
    film = animation_of(steps, mind, "an episode")
    assert [track.label for track in film.tracks] == ["drop", "drop rather than left"]
    assert film.moments[0].said.endswith("; the map explains drop; drop rather than left")
    np.testing.assert_allclose(film.heat(2, 1), steps[2].explanation[1].heat(), atol=1e-6)
    names = {path.name for path in save(steps, film, tmp_path / "episode")}
    assert names == {"strip.png", "film.gif", "index.html", "episode.json", "maps.npz"}
    back = open_clip(tmp_path / "episode" / "film.gif")
    assert len(back) / back.rate == pytest.approx(4 / 3, abs=0.01)  # frames alike are one that stays
    described = json.loads((tmp_path / "episode" / "episode.json").read_text())
    assert described["unit"] == "log-probability"
    assert list(described["steps"][0]["values"]) == list(ACTIONS)
    with np.load(tmp_path / "episode" / "maps.npz") as arrays:
        assert arrays["maps"].shape == (4, 2, 8, 8)
        assert arrays["pictures"].shape == (4, 64, 64, 3)
        np.testing.assert_allclose(np.exp(arrays["values"]).sum(1), 1.0, atol=1e-5)
    with pytest.raises(InputError, match="no step"):
        animation_of([], mind, "nothing")


def test_the_same_picture_told_otherwise_has_another_map() -> None:
    mind, world = policy(), from_above(WORLD)
    seen, _ = world.reset(seed=1)
    bound = [mind.at({**seen, "mission": said}) for said in ("go to the red ball", "go to a blue key")]
    maps = [explain(task, mind.picture(seen), action="left", method=hirescam).map for task in bound]
    assert not torch.allclose(*maps)
    with pytest.raises(InputError, match="expected words among a, ball"):
        explain(mind.at({**seen, "mission": "make coffee"}), mind.picture(seen))


def test_an_action_is_not_held_against_itself() -> None:
    mind = policy()
    (step,) = play(open_world(WORLD), mind, 1, seed=3)
    taken, *_, last = sorted(range(7), key=lambda i: -step.values[i])
    second = sorted(range(7), key=lambda i: -step.values[i])[1]
    for contrast, expected in [(taken, second), (last, last)]:
        (held,) = play(open_world(WORLD), mind, 1, seed=3, contrast=ACTIONS[contrast])
        assert held.explanation.labels[1] == f"{ACTIONS[taken]} rather than {ACTIONS[expected]}"


def test_a_step_is_looked_at_once() -> None:
    mind, runs = policy(), []
    mind.net.register_forward_hook(lambda *_: runs.append(1))
    values = [step.values for step in play(open_world(WORLD), mind, 3, seed=3, contrast="left")]
    assert len(runs) == 3
    world = open_world(WORLD)
    seen, _ = world.reset(seed=3)
    np.testing.assert_allclose(values[0], mind.values(seen), atol=1e-5)


def test_a_world_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    world = from_above(WORLD)
    for seed in range(60):  # some rooms are drawn anew, which MiniGrid tells
        world.reset(seed=seed)
    assert capsys.readouterr().out == ""


class Grey(nn.Module):
    """A network of Atari's four stacked frames."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(nn.Conv2d(4, 4, 8, 4), nn.ReLU())
        self.out = nn.Linear(4 * 400, 6)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.out(self.conv(x).flatten(1))
        return scores


def test_a_game_of_atari_through_the_same_call() -> None:
    pytest.importorskip("ale_py", reason="ale-py is not installed")
    pytest.importorskip("cv2", reason="opencv, which gymnasium's preprocessing of Atari needs, is not installed")
    steps = list(play(open_world("ALE/Pong-v5"), Policy(Grey(), "conv.1", unit="Q-value"), 2))
    assert steps[0].explanation.picture.size == (84, 84)
    assert steps[0].explanation.maps.shape == (1, 20, 20)


def test_worlds_and_policies_that_do_not_fit_are_one_line() -> None:
    for name, said in [("Nowhere-v0", "doesn't exist"), ("BabyAI-Nothing-v0", "doesn't exist")]:
        with pytest.raises(InputError, match=said):
            open_world(name)
    with pytest.raises(InputError, match="expected a world of discrete actions"):
        next(play(open_world("Pendulum-v1"), policy()))
    with pytest.raises(InputError, match="expected an observation with 'image'"):
        next(play(open_world("CartPole-v1"), policy()))


def test_the_command_line_plays(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_episode import policy\n"
    )
    told_ = [
        sys.executable,
        "-m",
        "mmgradcam",
        "policy",
        WORLD,
        "--model",
        f"{tmp_path}/mine.py:policy",
        "--steps",
        "2",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(told_, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "2 steps, then it was cut" in done.stdout
    assert (tmp_path / "policy-0" / "index.html").exists()
    for more, said in [
        (["--animation-format", "avi"], "expected gif, webp or mp4"),
        (["--action", "fly"], "no action is called 'fly'"),
    ]:
        done = subprocess.run([*told_, *more], capture_output=True, text=True, timeout=300)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(complaints(done.stderr)) == 1


def test_figures_of_a_policy_that_is_told_where_to_go() -> None:
    figures = evaluate_goto(policy(), 1, "validation")
    assert figures["episodes"] == 1
    assert figures["pointing"]["count"] == figures["steps"]
    for name in ("own", "swapped", "follows", "agent", "centre", "random", "moved"):
        assert 0 <= figures["pointing"][name] <= 1
    assert "pointing" not in evaluate_goto(policy(), 1, "validation", maps=False)
    with pytest.raises(
        InputError, match="expected an observation that is an image, got image, direction, mission; set image= of Grey"
    ):
        evaluate_goto(Policy(Grey(), "conv.1"))


def test_a_map_on_what_was_meant_is_counted_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that is 1 in one cell of the first object meant, whatever the policy does."""
    from mmgradcam.evaluation import goto

    class ReplySpan:
        def __init__(self, map_: Tensor) -> None:
            self.map = map_

    def pointing(task: Policy, picture: object, **_: object) -> list[ReplySpan]:
        said = task._observation["mission"].split()
        task.seen, found = torch.zeros(7), torch.zeros(8, 8)
        x, y = room_of(world[0]).named(said[-2], said[-1])[0]
        found[y, x] = 1
        return [ReplySpan(found)]

    world = [from_above(WORLD)]
    monkeypatch.setattr(goto, "from_above", lambda _: world[0])
    monkeypatch.setattr(goto, "explain", pointing)
    found = evaluate_goto(policy(), 2, "validation")["pointing"]
    assert (found["own"], found["swapped"], found["follows"], found["agent"], found["moved"]) == (1, 0, 1, 0, 1)
