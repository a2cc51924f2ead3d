"""Heads whose words and answers rest on what detectors of words find in the grid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmgradcam.tasks.nets.attention import GridTokens, Readings
from mmgradcam.tasks.nets.captioners import LSTMCaptioner
from mmgradcam.tasks.nets.evidence import Detectors, EvidenceAnswerer, EvidenceCaptioner, Say

CELLS = 9


def answerer(around: int = 0) -> EvidenceAnswerer:
    """Tokens 4 and 5 of a question have detectors 0 and 1; the third answer has detector 1."""
    torch.manual_seed(0)
    head = EvidenceAnswerer(vocabulary=6, answers=3, channels=4, width=8, looked_for=2, around=around, glimpses=2).eval()
    head.asks.copy_(torch.tensor([-1, -1, -1, -1, 0, 1]))
    head.tells.copy_(torch.tensor([-1, -1, 1]))
    return head


def found(head: EvidenceAnswerer, cell: int, strength: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What detectors might find: both words nowhere but for detector 0 in one cell; all cells look alike."""
    seen, said = torch.ones(1, 8, 3, 3), torch.full((1, 2, CELLS), -2.0)
    said[0, 0, cell] = strength
    return seen, said.logsumexp(2), said


def test_a_glimpse_is_led_to_where_the_question_s_word_was_found() -> None:
    head = answerer()
    head.tokens.place.weight.data.zero_()  # nothing but the detectors tells one cell from another
    looked: list[torch.Tensor] = []
    head.glimpse.register_forward_hook(lambda _m, _i, out: looked.append(out[1]))
    for cell in (2, 7):
        head.answer(*found(head, cell, 6.0), torch.tensor([[4, 0]]))
        assert [int(one.argmax()) for one in looked[-2:]] == [cell, cell]
        torch.testing.assert_close(looked[-1].sum(1), torch.ones(1))
    head.answer(*found(head, 2, 6.0), torch.tensor([[3, 0]]))  # a word without a detector leads nowhere
    torch.testing.assert_close(looked[-1], torch.full((1, CELLS), 1 / CELLS))


def test_an_answer_that_is_a_word_rests_on_its_evidence_and_the_others_do_not() -> None:
    head = answerer()
    seen, evidence, said = found(head, 4, 3.0)
    question = torch.tensor([[3, 0]])
    before = head.answer(seen, evidence, said, question)
    after = head.answer(seen, evidence + torch.tensor([[0.0, 1.0]]), said, question)
    gained = (after - before)[0]
    torch.testing.assert_close(gained[:2], torch.zeros(2))
    assert gained[2] > 0.1


def test_how_much_there_is_of_the_question_s_word_reaches_every_answer() -> None:
    head = answerer()
    seen, evidence, said = found(head, 4, 3.0)
    question = torch.tensor([[4, 0]])
    more = head.answer(seen, evidence + torch.tensor([[2.0, 0.0]]), said, question)
    assert (more - head.answer(seen, evidence, said, question)).abs().min() > 0


def test_rows_are_apart_and_filled_up_questions_read_as_if_they_were_not() -> None:
    head = answerer(around=1)
    features = head.per_picture(torch.randn(2, 4, 3, 3))
    questions = torch.tensor([[3, 4, 0], [5, 0, 0], [4, 3, 5], [5, 0, 0]])  # two of each picture
    together = head(features, questions)
    for row, (b, length) in enumerate([(0, 2), (0, 1), (1, 3), (1, 1)]):
        alone = head(features[b : b + 1], questions[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_evidence_is_the_soft_maximum_of_what_the_cells_say() -> None:
    torch.manual_seed(0)
    detectors = Detectors(4, 8, 10, 3, sharpness=4.0, around=1).eval()
    features = torch.randn(2, 4, 3, 3)
    _, evidence, said = detectors.found(detectors.neck(features))
    assert said.shape == (2, 3, CELLS)
    torch.testing.assert_close(evidence, ((4 * said).exp().mean(2)).log() / 4)
    far = Detectors(4, 8, 10, 3, sharpness=500.0).eval()
    _, evidence, said = far.found(far.neck(features))
    torch.testing.assert_close(evidence, said.amax(2), atol=0.01, rtol=0)


def test_evidence_with_a_cheaper_backward_is_the_same_with_the_same_gradient() -> None:
    torch.manual_seed(0)
    detectors = Detectors(4, 8, 10, 3, sharpness=4.0).eval()
    grid, told, weighed = torch.randn(2, 8, 3, 4), torch.randn(2, 8, 3, 4), torch.randn(2, 3)
    for each in zip(*(_told(detectors, grid, told, weighed, once) for once in (False, True)), strict=True):
        torch.testing.assert_close(*each, atol=1e-5, rtol=1e-5)


def _told(detectors: Detectors, grid: Tensor, told: Tensor, weighed: Tensor, once: bool) -> tuple[Tensor, ...]:
    leaf = grid.clone().requires_grad_()
    seen, evidence = detectors(leaf, once=once)
    (gradient,) = torch.autograd.grad((seen * told).sum() + (evidence * weighed).sum(), leaf)
    return seen, evidence, gradient


def captioners() -> list[nn.Module]:
    torch.manual_seed(0)
    evidence = EvidenceCaptioner("lstm", vocabulary=12, channels=4, width=8, looked_for=5)
    return [each.eval() for each in (LSTMCaptioner(12, 8, 8), LSTMCaptioner(12, 8, 8, patch=2), evidence)]


@pytest.mark.parametrize("which", range(3))
def test_steps_that_defer_the_grid_s_gradient_are_the_steps_with_the_same_gradient(which: int) -> None:
    head = captioners()[which]
    features, tokens = torch.randn(2, 8, 4, 4), torch.tensor([[1, 5, 6, 7], [1, 8, 9, 4], [1, 4, 4, 5], [1, 11, 10, 2]])
    found = []
    for steps in (head.steps, head.steps_once):
        leaf = features.clone().requires_grad_()
        said = torch.stack(list(steps(leaf, tokens)))  # (L, R, width)
        score = said.sum(-1).transpose(0, 1).flatten()  # one of each row and step
        each = torch.eye(len(score))
        (gradient,) = torch.autograd.grad(score, leaf, each, is_grads_batched=True, retain_graph=True)
        (alone,) = torch.autograd.grad(score, leaf, each[6])
        torch.testing.assert_close(gradient[6], alone, atol=1e-5, rtol=1e-4)
        found.append((said, gradient))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    assert found[0][1].abs().amax((1, 2, 3, 4)).min() > 0


def test_the_readings_of_all_turns_reach_the_tokens_in_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    multiply = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: made.append(tuple(a.shape)) or multiply(a, b))
    tokens = torch.randn(2, 5, 8, requires_grad=True)
    readings = Readings(tokens, turns=3, rows=4)
    read = sum(readings(torch.randn(2, 2, 8)) for _ in range(3))
    assert made == []
    read.sum().backward()
    assert made == [(2, 5, 6), (2, 5, 6)]  # of each picture 5 cells by 3 turns of 2 rows: by the queries, and by what was read


@pytest.mark.parametrize(("side", "patch"), [((4, 6), 1), ((4, 6), 2), ((5, 7), 2)])
def test_tokens_are_what_a_convolution_makes_of_patches(side: tuple[int, int], patch: int) -> None:
    torch.manual_seed(0)
    tokens, features = GridTokens(3, 8, patch), torch.randn(2, 3, *side)
    seen: list[Tensor] = []
    tokens.norm.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    tokens.place.weight.data.zero_()
    tokens(features)
    torch.testing.assert_close(seen[0], tokens.content(features).flatten(2).transpose(1, 2))


def test_one_token_s_logit_is_that_among_all() -> None:
    torch.manual_seed(0)
    say, hidden, token = Say(8, 12), torch.randn(3, 20), torch.tensor([0, 11, 5])
    torch.testing.assert_close(say.of(hidden, token), say(hidden)[range(3), token])
