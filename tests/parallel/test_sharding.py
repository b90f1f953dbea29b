import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from fit_jax.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import byte_count, bytes_held, element_count, lay_out_tree, named_leaves


def tree(width=32, heads=64, layers=3):
    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    return {
        "embed": {"embedding": shape(100, width)},
        "blocks": {
            "attention": {
                "q_proj": {
                    "kernel": shape(layers, width, heads),
                    "bias": shape(layers, heads),
                    "lora_a": shape(layers, width, 5),
                    "lora_b": shape(layers, 5, heads),
                },
                "o_proj": {
                    "kernel": shape(layers, heads, width),
                    "lora_a": shape(layers, heads, 5),
                    "lora_b": shape(layers, 5, width),
                },
            },
            "attention_norm": {"scale": shape(layers, width)},
        },
        "last_block": {"mlp": {"down_proj": {"kernel": shape(heads, width)}}},
        "final_norm": {"scale": shape(width)},
        "lm_head": {"kernel": shape(width, 100)},
        "step": shape(),
    }


def specs(layout):
    return {name: sharding.spec for name, sharding in named_leaves(layout.shardings).items()}


def test_parameters_are_split_by_their_path_and_layers_never():
    layout = lay_out_tree(tree(), make_mesh(MeshConfig(fsdp=2, tensor=2)))
    found = specs(layout)
    assert layout.replicated == ()
    assert found["blocks.attention.q_proj.kernel"] == P(None, "fsdp", "tensor")
    assert found["blocks.attention.q_proj.bias"] == P(None, "tensor")
    assert found["blocks.attention.q_proj.lora_a"] == P(None, "fsdp", None)
    assert found["blocks.attention.q_proj.lora_b"] == P(None, None, "tensor")
    assert found["blocks.attention.o_proj.kernel"] == P(None, "tensor", "fsdp")
    assert found["blocks.attention.o_proj.lora_a"] == P(None, "tensor", None)
    assert found["last_block.mlp.down_proj.kernel"] == P("tensor", "fsdp")
    assert found["embed.embedding"] == P("tensor", "fsdp")
    assert found["lm_head.kernel"] == P("fsdp", "tensor")
    assert found["final_norm.scale"] == P(None) or found["final_norm.scale"] == P()
    assert found["step"] == P()


def test_optimizer_moments_lie_as_their_parameters():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    params = tree()
    moments = named_leaves(lay_out_tree(jax.eval_shape(optax.adamw(1e-3).init, params), mesh).shardings)
    for name, sharding in named_leaves(lay_out_tree(params, mesh).shardings).items():
        kept = [s for n, s in moments.items() if n.endswith(f"mu.{name}") or n.endswith(f"nu.{name}")]
        assert kept == [sharding, sharding]


def test_sizes_that_do_not_divide_are_replicated_and_said():
    layout = lay_out_tree(tree(heads=63), make_mesh(MeshConfig(data=2, tensor=4)))
    assert specs(layout)["blocks.attention.q_proj.kernel"] == P(None, "fsdp", None)
    assert any("q_proj.kernel: 63 is not divisible by tensor 4" in line for line in layout.replicated)


def test_unknown_parameters_are_an_error():
    with pytest.raises(ValueError, match=r"no sharding rule matches parameter blocks\.router"):
        lay_out_tree({"blocks": {"router": jax.ShapeDtypeStruct((4, 4), jnp.float32)}}, make_mesh(MeshConfig()))


def test_a_device_holds_its_part_of_what_is_split_and_the_whole_of_what_is_not():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    shapes = {"o_proj": {"kernel": jax.ShapeDtypeStruct((8, 4), jnp.bfloat16)}, "step": jax.ShapeDtypeStruct((), "i4")}
    laid = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        lay_out_tree(shapes, mesh).shardings,
    )
    assert element_count(laid) == 8 * 4 + 1
    assert byte_count(laid) == 2 * 8 * 4 + 4
    assert bytes_held(laid) == 2 * 8 * 4 // 4 + 4
    made = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding), laid)
    assert bytes_held(made) == bytes_held(laid)


def test_experts_are_split_over_their_axis_and_layers_are_not():
    def of(*leading):
        kernel = jax.ShapeDtypeStruct((*leading, 32, 64), jnp.float32)
        return {"mlp": {"up_proj": {"kernel": kernel, "bias": jax.ShapeDtypeStruct((*leading, 64), jnp.float32)}}}

    tree = {
        "blocks": of(4, 8),
        "blocks_1": of(4),
        "last_block": of(8),
        "opt": {"mu": {"blocks": of(4), "other": of(8)}},
    }
    found = specs(lay_out_tree(tree, make_mesh(MeshConfig(data=1, fsdp=2, tensor=1, expert=4))))
    apart, alike = P("expert", "fsdp", "tensor"), P("fsdp", "tensor")
    assert found["blocks.mlp.up_proj.kernel"] == P(None, *apart)
    assert found["blocks.mlp.up_proj.bias"] == P(None, "expert", "tensor")
    assert found["blocks_1.mlp.up_proj.kernel"] == found["opt.mu.blocks.mlp.up_proj.kernel"] == P(None, *alike)
    assert found["last_block.mlp.up_proj.kernel"] == found["opt.mu.other.mlp.up_proj.kernel"] == apart


def test_what_has_no_experts_is_not_split_as_though_it_had():
    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    tree = {
        "blocks": {"mlp": {"down_proj": {"bias": shape(4, 8, 32), "kernel": {"scale_max": shape(4, 8, 32)}}}},
        "blocks_1": {"mlp": {"down_proj": {"bias": shape(4, 32), "lora_magnitude": shape(4, 32)}}},
        "v_row": {"blocks": {"mlp": {"up_proj": {"kernel": shape(4, 8, 32)}}}},
        "v_col": {"last_block": {"mlp": {"up_proj": {"kernel": shape(1)}}}},
    }
    layout = lay_out_tree(tree, make_mesh(MeshConfig(data=1, fsdp=2, tensor=1, expert=4)))
    found = specs(layout)
    assert layout.replicated == ()
    assert (
        found["blocks.mlp.down_proj.bias"] == found["blocks.mlp.down_proj.kernel.scale_max"] == P(None, "expert", None)
    )
    assert not any("expert" in spec for name, spec in found.items() if not name.startswith("blocks.mlp"))
