"""Heads whose words and answers rest on what detectors of words find in the grid."""

from __future__ import annotations

import torch

from mmgradcam.tasks.nets.evidence import Detectors, EvidenceAnswerer

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
