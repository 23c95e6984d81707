from dataclasses import replace

import pytest
import torch
from torch import nn

from slipstream.errors import SlipstreamError
from slipstream.networks import BACKBONES, NetworksConfig
from slipstream.networks.attention import Attention, GRUGate, attention_mask
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.transformer import Block, TransformerBackbone, TransformerConfig
from tests.networks.policies import OBS_DIM, TRANSFORMERS, actor_of

SMALL = TRANSFORMERS["transformer-c3-l2-residual"]


def test_mask_is_causal_and_hides_padding():
    valid = torch.tensor([[True, True, True], [False, False, True]])
    mask = attention_mask(valid, 3)[:, 0].int().tolist()
    assert mask[0] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask[1] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # padded steps see themselves alone
    assert torch.equal(attention_mask(valid, 1)[:, 0, 0], attention_mask(valid, 3)[:, 0, 2])


def test_attention_equals_torchs():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        assert theirs.in_proj_bias is not None
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    x = torch.randn(3, 4, 8)
    mask = attention_mask(torch.ones(3, 4, dtype=torch.bool), 4)
    expected, _ = theirs(x, x, x, attn_mask=~mask[0, 0], need_weights=False)
    torch.testing.assert_close(ours(x, mask), expected)


def test_block_equals_torchs_encoder_layer():
    torch.manual_seed(0)
    block = Block(replace(SMALL, d_model=8, d_ff=12))
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    attention = layer.self_attn
    with torch.no_grad():
        attention.in_proj_weight.copy_(
            torch.cat([block.attention.query.weight, block.attention.key_value.weight])
        )
        assert attention.in_proj_bias is not None
        attention.in_proj_bias.copy_(
            torch.cat([block.attention.query.bias, block.attention.key_value.bias])
        )
        attention.out_proj.load_state_dict(block.attention.output.state_dict())
        layer.linear1.load_state_dict(block.ff_in.state_dict())
        layer.linear2.load_state_dict(block.ff_out.state_dict())
        layer.norm1.load_state_dict(block.attention_norm.state_dict())
        layer.norm2.load_state_dict(block.ff_norm.state_dict())
    x = torch.randn(3, 4, 8)
    mask = attention_mask(torch.ones(3, 4, dtype=torch.bool), 4)
    torch.testing.assert_close(block(x, mask), layer(x, src_mask=~mask[0, 0]))


def test_positions_count_from_the_present():
    """A shorter window sees the embeddings of the same distances in time."""
    torch.manual_seed(0)
    backbone = TransformerBackbone(SMALL, OBS_DIM)
    frames = torch.randn(2, 3, OBS_DIM)
    padded = torch.tensor([[False, True, True]] * 2)
    torch.testing.assert_close(
        backbone(frames, padded), backbone(frames[:, 1:], torch.ones(2, 2, dtype=torch.bool))
    )


def test_gru_gate_starts_near_the_identity():
    torch.manual_seed(0)
    x, y = torch.randn(100, 16), torch.randn(100, 16)
    near = (GRUGate(16)(x, y) - x).norm() / x.norm()
    far = (GRUGate(16, bias=-2.0)(x, y) - x).norm() / x.norm()
    assert near < 0.25 < far
    identity = GRUGate(16, bias=30.0)
    torch.testing.assert_close(identity(x, y), x)


def test_gru_gate_is_a_gru_cell():
    torch.manual_seed(0)
    gate, cell = GRUGate(6, bias=0.7), nn.GRUCell(6, 6)
    with torch.no_grad():
        # torch's update gate keeps the state, GTrXL's takes the candidate: the sign is turned.
        reset, update, candidate = gate.from_y.weight.chunk(3)
        cell.weight_ih.copy_(torch.cat([reset, -update, candidate]))
        cell.weight_hh.zero_()
        cell.bias_ih.zero_()
        cell.bias_hh.zero_()
        cell.bias_ih[6:12] = gate.update_bias
        gate.from_x.weight.zero_()
        gate.candidate.weight.zero_()
    x, y = torch.randn(5, 6), torch.randn(5, 6)
    torch.testing.assert_close(gate(x, y), cell(y, x))


@pytest.mark.parametrize("gate", ["residual", "gru"])
def test_dropout_acts_only_where_gradients_flow(gate):
    torch.manual_seed(0)
    config = NetworksConfig(transformer=replace(SMALL, dropout=0.5, gate=gate))
    actor = actor_of("transformer", config)
    obs, valid = {"state": torch.randn(8, 3, OBS_DIM)}, torch.ones(8, 3, dtype=torch.bool)
    assert not torch.equal(actor(obs, valid).mode, actor(obs, valid).mode)
    with torch.no_grad():  # acting and target values
        quiet = actor(obs, valid).mode
        assert torch.equal(quiet, actor(obs, valid).mode)
    actor.eval()
    torch.testing.assert_close(actor(obs, valid).mode, quiet)


@pytest.mark.parametrize(
    "fields",
    [
        {"context_length": 0},
        {"context_length": -3},
        {"d_model": 0},
        {"n_layers": 0},
        {"n_heads": 0},
        {"n_heads": 3},
        {"d_ff": -1},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_impossible_transformers_are_refused(fields):
    with pytest.raises(SlipstreamError, match=next(iter(fields))):
        TransformerConfig(**fields)


@pytest.mark.parametrize("hidden", [(0,), (8, -1)])
def test_impossible_perceptrons_are_refused(hidden):
    with pytest.raises(SlipstreamError, match="hidden"):
        MLPConfig(hidden)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(SlipstreamError, match="nonesuch.*" + ".*".join(BACKBONES)):
        actor_of("nonesuch", NetworksConfig())
