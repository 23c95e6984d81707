"""LSTM and GRU: a state carried through the whole episode, learnt from windows of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slipstream.errors import SlipstreamError
from slipstream.networks.linear import Linear
from slipstream.networks.memory import Carry, Prepare
from slipstream.settings import Count, NotNegative, Settings


@dataclass(frozen=True)
class RecurrentConfig(Settings, section="networks.recurrent"):
    """An LSTM or a GRU behind one fully connected layer."""

    embed_size: Count = 64
    """Width of the fully connected layer in front."""
    hidden_size: Count = 64
    """Width of the state."""
    n_layers: Count = 1
    """Recurrent layers, one on top of the other."""
    context_length: Count = 8
    """Steps of a training window. Acting carries the state through the whole episode."""
    burn_in: NotNegative = 2
    """First steps of a training window, which only warm the state up: they do not count in the
    loss."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for sizes that make no recurrent network."""
        super().__post_init__()
        if self.burn_in >= self.context_length:
            raise SlipstreamError(
                f"networks.recurrent.burn_in is {self.burn_in}; it must be less than "
                f"networks.recurrent.context_length {self.context_length}"
            )


class RecurrentBackbone(nn.Module):
    """What LSTM and GRU share: frames (B, T, K) -> features (B, last, H), the states themselves.

    A window starts from a zero state. Where it begins with its episode, that is the state the
    actor had too, and acting equals training. Where it begins in mid-episode, it is not: the actor
    still knew what came before. The first `burn_in` steps let the difference fade and give no loss
    (Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement Learning",
    https://openreview.net/forum?id=r1lyTjAqYX). It fades, it does not vanish:
    learnt on the noisy positions of HalfCheetah at the default sizes, a window's fifth features,
    the first that count, were 15 % off, the ninth 7 %, a seventeenth 2-3 %. Unlike R2D2 no state
    is stored beside the observations to start from, and gradients flow through the burn-in too.
    What lies further back than a window can be carried by the state but is never learnt from. And
    while a normalizer's statistics move, a carried state was made with earlier ones than the
    features of a window are.

    Attributes:
        context_length: steps of a training window.
        loss_steps: trailing steps of it that count in the loss, context_length - burn_in.
        feature_size: H, width of the state.
    """

    carried: tuple[str, ...]
    """Names of the parts of the state; the first is what the network gives out."""

    def __init__(
        self, config: RecurrentConfig, input_size: int, rnn_class: type[nn.LSTM] | type[nn.GRU]
    ) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.loss_steps = config.context_length - config.burn_in
        self.feature_size = config.hidden_size
        self.embed = Linear(input_size, config.embed_size)
        self.rnn = rnn_class(config.embed_size, config.hidden_size, config.n_layers)
        for weight_ih, weight_hh, bias_ih, bias_hh in self.rnn.all_weights:
            # Gate by gate. Orthogonal weights keep a state's length from step to step (Saxe et al.
            # 2014, arXiv 1312.6120; Henaff et al. 2016, arXiv 1602.06662).
            for gate in weight_ih.split(config.hidden_size):
                nn.init.xavier_uniform_(gate)
            for gate in weight_hh.split(config.hidden_size):
                nn.init.orthogonal_(gate)
            nn.init.zeros_(bias_ih)
            nn.init.zeros_(bias_hh)

    def forward(self, frames: Tensor, valid: Tensor, last: int = 1) -> Tensor:
        """Features of the last steps.

        Args:
            frames: (B, T, K), any T.
            valid: (B, T) bool, padded on the left; the last step is always valid.
            last: L.

        Returns:
            (B, L, H); at a padded step the features of the first valid one.
        """
        batch, length, size = frames.shape
        row = torch.arange(batch, device=frames.device)
        step = torch.arange(length, device=frames.device)[:, None]
        padding = length - valid.sum(1)  # (B,)
        # Windows rolled to the left begin with their first valid step, so that torch's own loop
        # needs no mask. Behind their end, where nothing is read, they repeat their last step:
        # padding, whatever stands there, is never looked at.
        source = (step + padding).clamp_(max=length - 1) + row * length
        rolled = frames.reshape(batch * length, size).index_select(0, source.view(-1))
        embedded = torch.relu_(self.embed(rolled)).view(length, batch, -1)  # time first
        states, _ = self.rnn(embedded)
        # And back: rows of (T, B, H) in the order (B, L).
        source = (step[length - last :] - padding).clamp_(min=0) * batch + row
        features = states.view(length * batch, -1).index_select(0, source.t().reshape(-1))
        return features.view(batch, last, -1)

    def memory_parameters(self) -> list[nn.Parameter]:
        """All of it."""
        return list(self.parameters())

    def initial_carry(self, num_envs: int) -> Carry:
        """A state of zeros, (N, n_layers, H) each part."""
        shape = (num_envs, self.rnn.num_layers, self.feature_size)
        return {name: self.embed.weight.new_zeros(shape) for name in self.carried}

    def step(self, raw: Tensor, carry: Carry, prepare: Prepare) -> tuple[Tensor, Carry]:
        """Raw frame (N, K) -> features (N, H) and the new state."""
        x = torch.relu_(self.embed(prepare(raw)))
        layers: list[tuple[Tensor, ...]] = []
        for layer, weights in enumerate(self.rnn.all_weights):
            state = {name: value[:, layer] for name, value in carry.items()}
            layers.append(self._cell(x, state, weights))
            x = layers[-1][0]
        parts = zip(*layers, strict=True)
        return x, {n: torch.stack(part, 1) for n, part in zip(self.carried, parts, strict=True)}

    def _cell(
        self, x: Tensor, state: Mapping[str, Tensor], weights: list[nn.Parameter]
    ) -> tuple[Tensor, ...]:
        """One layer's new state, in the order of `carried`: input (N, E), parts (N, H) each."""
        raise NotImplementedError


class LSTMBackbone(RecurrentBackbone):
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    The carry is {"h": (N, n_layers, H), "c": (N, n_layers, H)}.
    """

    carried = ("h", "c")

    def __init__(self, config: RecurrentConfig, input_size: int) -> None:
        super().__init__(config, input_size, nn.LSTM)
        for _, _, bias_ih, _ in self.rnn.all_weights:
            # A forget bias of 1 lets a new network remember (Jozefowicz et al. 2015, "An Empirical
            # Exploration of Recurrent Network Architectures"). Torch adds up two biases: one is 0.
            nn.init.ones_(bias_ih[config.hidden_size : 2 * config.hidden_size])

    def _cell(
        self, x: Tensor, state: Mapping[str, Tensor], weights: list[nn.Parameter]
    ) -> tuple[Tensor, ...]:
        return torch.lstm_cell(x, (state["h"], state["c"]), *weights)


class GRUBackbone(RecurrentBackbone):
    """Cho et al. 2014, arXiv 1406.1078, in torch's (cuDNN's) form of the reset gate.

    The carry is {"h": (N, n_layers, H)}.
    """

    carried = ("h",)

    def __init__(self, config: RecurrentConfig, input_size: int) -> None:
        super().__init__(config, input_size, nn.GRU)

    def _cell(
        self, x: Tensor, state: Mapping[str, Tensor], weights: list[nn.Parameter]
    ) -> tuple[Tensor, ...]:
        return (torch.gru_cell(x, state["h"], *weights),)
