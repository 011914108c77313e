"""Cases whose answer is known: attention built by hand against steps of gradient descent, in float64.

Linear regression in context (von Oswald et al. 2023, arXiv 2212.07677): one layer of linear self-attention with
hand-built matrices predicts what one step of gradient descent on the in-context examples predicts, and k layers what k
steps do. A trained linear layer as attention (Irie et al. 2022, arXiv 2202.05798), and the implicit patch (Dherin et
al. 2025, arXiv 2507.16003).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_icl.dualform._implicit_patch import implicit_patch
from lightning_icl.dualform._outer_products import linear_attention, token_sums


@dataclass(frozen=True, kw_only=True)
class Case:
    """One known answer."""

    title: str
    """What is compared."""
    source: str
    """Where it is shown."""
    error: float
    """Largest absolute difference."""
    size: float
    """Largest absolute value of the answer."""


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Linear regression in context: examples (x_i, y_i), a query x, and a first guess W_0."""

    inputs: Float[Tensor, "example input"]
    targets: Float[Tensor, "example output"]
    query: Float[Tensor, "input"]
    guess: Float[Tensor, "output input"]
    rate: float
    """Learning rate η of the loss `Σ_i ‖W x_i − y_i‖² / 2N`."""

    @classmethod
    def random(cls, *, examples: int = 16, inputs: int = 10, outputs: int = 3, seed: int = 0) -> "Regression":
        """A teacher's examples with some noise, and a guess that is not zero."""
        draw = torch.Generator().manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
        x, teacher = normal(examples, inputs), normal(outputs, inputs)
        y = x @ teacher.mT + 0.1 * normal(examples, outputs)
        return cls(inputs=x, targets=y, query=normal(inputs), guess=0.3 * normal(outputs, inputs), rate=0.2)

    def descend(self, steps: int) -> Float[Tensor, "output"]:
        """Prediction for the query after steps of gradient descent, gradients by automatic differentiation."""
        weight = self.guess.clone()
        for _ in range(steps):
            # A fresh leaf at every step: the graph of earlier steps is not needed.
            weight.requires_grad_()
            loss = (self.inputs @ weight.mT - self.targets).square().sum() / (2 * len(self.inputs))
            (gradient,) = torch.autograd.grad(loss, weight)
            weight = (weight - self.rate * gradient).detach()
        return weight @ self.query

    def attend(self, layers: int) -> Float[Tensor, "output"]:
        """Prediction for the query after layers of linear self-attention, all with the same hand-built matrices.

        Tokens are e_i = (x_i, y_i), the query's is (x, −W_0 x). With W_Q = W_K = [[I, 0], [0, 0]],
        W_V = [[0, 0], [W_0, −I]] and output projection P = (η / N) I, a layer adds `P Σ_i W_V e_i (W_K e_i · W_Q e_j)`
        to every token e_j: it takes `ΔW x_j` off y_j, so that y_j becomes what is still to be explained. The
        prediction is minus the query's y.
        """
        width, outputs = self.inputs.shape[1], self.targets.shape[1]
        zero = self.inputs.new_zeros
        see = torch.block_diag(torch.eye(width, dtype=zero(1).dtype), zero(outputs, outputs))
        # The second block of rows writes W_0 x - y, minus what is left to explain.
        value = torch.cat([zero(width, width + outputs), torch.cat([self.guess, -torch.eye(outputs).to(see)], 1)])
        examples = torch.cat([self.inputs, self.targets], 1)
        tokens = torch.cat([examples, torch.cat([self.query, -self.guess @ self.query])[None]])
        for _ in range(layers):
            states = tokens[:-1, None, None]  # the examples are attended to, by themselves and by the query
            keys, values = ((states @ matrix.mT).transpose(0, 2) for matrix in (see, value))
            queries = (tokens @ see.mT)[:, None]
            tokens = tokens + self.rate / len(self.inputs) * linear_attention(queries, keys, values)[:, 0]
        return -tokens[-1, width:]


def trained_layer(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A linear layer trained by gradient descent, and its dual form: linear attention over its training inputs.

    Returns:
        Outputs for a new input, (output): of the trained weights, and `W_0 x + Σ_i e_i (x_i · x)` with e_i = −η times
        the gradient that the loss sent to the layer's output at step i.
    """
    draw, steps = torch.Generator().manual_seed(seed), 20
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    start, inputs, labels, new = (
        0.3 * normal(5, 8),
        normal(steps, 8),
        torch.randint(5, (steps,), generator=draw),
        normal(8),
    )
    weight, rate, errors = start.clone(), 0.5, []
    for x, label in zip(inputs, labels, strict=True):
        weight.requires_grad_()
        output = weight @ x
        loss = torch.nn.functional.cross_entropy(output.tanh(), label)
        # The gradient at the output is what the layer's input is multiplied with: its dual value.
        gradient, error = torch.autograd.grad(loss, (weight, output))
        weight = (weight - rate * gradient).detach()
        errors.append(-rate * error)
    update = token_sums(_padded(inputs, 8), _padded(torch.stack(errors), 8)).outer[0, 0, :5]
    return weight @ new, start @ new + update @ new


def _padded(rows: Tensor, width: int) -> Tensor:
    """(1, 1, rows, width): one head of vectors filled up with zeros to its width."""
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]))[None, None]


def patched_layer(seed: int = 0) -> tuple[Tensor, Tensor]:
    """`W a_C` and `(W + ΔW) a`, the patch really made."""
    draw = torch.Generator().manual_seed(seed)
    weight, bare, moved = (
        torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((12, 6), (4, 6), (4, 6))
    )
    patch = implicit_patch(weight, bare, moved)
    return moved @ weight.mT, ((weight + patch) @ bare[:, :, None])[..., 0]


def known_answers() -> list[Case]:
    """Every case, computed now."""
    regression = Regression.random()
    cases = []
    for count in (1, 2, 5):
        layers, steps = ("layer", "step") if count == 1 else ("layers", "steps")
        title = f"{count} {layers} of linear attention = {count} {steps} of gradient descent"
        cases.append(_case(title, "von Oswald et al.", regression.descend(count), regression.attend(count)))
    cases.append(_case("trained linear layer = attention to its training inputs", "Irie et al.", *trained_layer()))
    cases.append(_case("context = rank-one patch of the next matrix", "Dherin et al.", *patched_layer()))
    return cases


def _case(title: str, source: str, expected: Tensor, computed: Tensor) -> Case:
    error = float((expected - computed).abs().max())
    return Case(title=title, source=source, error=error, size=float(expected.abs().max()))
