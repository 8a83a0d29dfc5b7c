"""Probes of what services do: attention, layers, training, one rank of NCCL, CUDA graphs, models, and host libraries.

MODELS runs on any device, MODELS_ON_GPU where CUDA is, HOST on the CPU whatever the device is, COMPILED on request.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from gpu_kit import Kit, Outputs, Skip


def needed(name: str) -> Any:
    """A module that may be absent: then the probe is skipped. Any other failure to import is the probe's result."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or name.split(".", maxsplit=1)[0] != error.name.split(".")[0]:
            raise
        raise Skip(f"no {error.name}") from None


def attention(kit: Kit, backend: str, backward: bool = False) -> Outputs:
    torch, outputs = kit.torch, dict[str, object]()
    choice = importlib.import_module("torch.nn.attention")
    dtype = "float32" if backend == "MATH" else "bfloat16"
    query, key, value = (kit.normal(2, 4, 128, 64, seed=seed, dtype=dtype) for seed in range(3))
    with choice.sdpa_kernel(getattr(choice.SDPBackend, backend)):
        for name, causal in (("whole", False), ("causal", True)):
            call = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=causal)
            if backward:
                outputs |= {f"{name} {part}": found for part, found in kit.gradients(call, query, key, value).items()}
            else:
                outputs[name] = call(query, key, value)
    return outputs


def normalisation(kit: Kit) -> Outputs:
    nn, outputs, images = kit.torch.nn, dict[str, object](), kit.normal(4, 32, 24, 24)
    layers: dict[str, Callable[[], Any]] = {
        "layer": lambda: nn.LayerNorm(24),
        "group": lambda: nn.GroupNorm(8, 32),
        "batch": lambda: nn.BatchNorm2d(32),
        "instance": lambda: nn.InstanceNorm2d(32, affine=True),
        "rms": lambda: nn.RMSNorm(24),
    }
    for name, make in layers.items():
        outputs |= {f"{name} {part}": value for part, value in kit.gradients(kit.module(make), images).items()}
    outputs["batch, half"] = kit.module(lambda: nn.BatchNorm2d(32), "bfloat16")(images.bfloat16())
    return outputs | {"softmax": images.softmax(1), "log softmax": images.log_softmax(-1)}


def embedding(kit: Kit) -> Outputs:
    nn, words = kit.torch.nn, kit.integers(16, 40, below=500)
    return {
        **kit.gradients(kit.module(lambda: nn.Embedding(500, 48)), words),
        "bag": kit.module(lambda: nn.EmbeddingBag(500, 48, mode="max"))(words),
        "one hot": nn.functional.one_hot(words, 500),
    }


def images(kit: Kit) -> Outputs:
    functional, batch = kit.torch.nn.functional, kit.normal(2, 3, 40, 40)
    grid = kit.normal(2, 20, 20, 2).tanh()
    return {
        "maximum": functional.max_pool2d(batch, 3, return_indices=True),
        "average": functional.avg_pool2d(batch, 3),
        "adaptive": functional.adaptive_avg_pool2d(batch, 7),
        "bilinear": functional.interpolate(batch, scale_factor=1.7, mode="bilinear"),
        "bicubic": functional.interpolate(batch, size=(17, 61), mode="bicubic", antialias=True),
        "sampled": functional.grid_sample(batch, grid, align_corners=False),
        "padded": functional.pad(batch, (2, 3, 1, 4), mode="reflect"),
        "unfolded": functional.unfold(batch, 5),
    }


def losses(kit: Kit) -> Outputs:
    functional, scores = kit.torch.nn.functional, kit.normal(30, 8, 20)
    # Deterministic algorithms rule cuDNN's out; torch's own kernels take the labels where the scores are.
    words = 1 + kit.integers(48, below=19)
    lengths = [kit.torch.full((8,), length, dtype=kit.torch.int32) for length in (30, 6)]
    logits, classes = kit.normal(100, 10), kit.integers(100, below=10)
    return {
        "cross entropy": kit.gradients(partial(functional.cross_entropy, target=classes), logits),
        "binary": functional.binary_cross_entropy_with_logits(logits, logits.sigmoid()),
        "smooth": functional.smooth_l1_loss(logits, logits * 2),
        "divergence": functional.kl_div(logits.log_softmax(1), logits.softmax(1), reduction="batchmean"),
        "ctc": functional.ctc_loss(scores.log_softmax(2), words, *lengths),
        "distance": kit.torch.cdist(logits, logits * 0.5),
    }


def network(kit: Kit) -> Any:
    nn = kit.torch.nn
    return kit.module(lambda: nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 10)))


def optimizer(kit: Kit, name: str, **options: Any) -> Outputs:
    torch, model = kit.torch, network(kit)
    stepper = getattr(torch.optim, name)(model.parameters(), lr=0.01, **options)
    inputs, classes, found = kit.normal(256, 64), kit.integers(256, below=10), []
    for _ in range(3):
        stepper.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), classes)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step()
        found += [loss, norm]
    return {"losses and norms": found, **dict(model.named_parameters())}


def mixed_precision(kit: Kit) -> Outputs:
    torch, model = kit.torch, network(kit)
    stepper, scaler = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.amp.GradScaler(kit.device)
    for _ in range(2):
        with torch.autocast(kit.device, dtype=torch.bfloat16):
            output = model(kit.normal(256, 64))
            loss = output.float().square().mean()
        stepper.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(stepper)
        scaler.update()
    return {"output": output, "loss": loss, **dict(model.named_parameters())}


def collective(kit: Kit) -> Outputs:
    """One rank: NCCL (gloo on a CPU) sets itself up, and averages and products still run kernels of its own."""
    torch, distributed = kit.torch, importlib.import_module("torch.distributed")
    backend = "nccl" if kit.device == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group(
            backend,
            init_method=f"file://{Path(folder) / 'rendezvous'}",
            rank=0,
            world_size=1,
            timeout=timedelta(seconds=30),
        )
        try:
            outputs: dict[str, Any] = {}
            for name in ("SUM", "MAX") + (("AVG",) if backend == "nccl" else ()):
                outputs[name] = kit.normal(10_000)
                distributed.all_reduce(outputs[name], op=getattr(distributed.ReduceOp, name))
            if backend == "nccl":
                outputs["scaled"] = kit.normal(10_000)
                distributed.all_reduce(outputs["scaled"], op=distributed._make_nccl_premul_sum(2.0))
            outputs["gathered"] = [torch.zeros(10_000, device=kit.device)]
            distributed.all_gather(outputs["gathered"], kit.normal(10_000))
            outputs["broadcast"] = kit.normal(10_000)
            distributed.broadcast(outputs["broadcast"], 0)
            distributed.barrier()
            return {name: kit.torch.stack(v) if isinstance(v, list) else v.clone() for name, v in outputs.items()}
        finally:
            distributed.destroy_process_group()


def cuda_graph(kit: Kit) -> Outputs:
    torch, model = kit.torch, network(kit).eval()
    inputs, stream = kit.normal(128, 64), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):  # libraries make their workspaces outside the capture
            model(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        output = model(inputs).softmax(1)
    inputs.copy_(kit.normal(128, 64, seed=5))
    graph.replay()
    first = output.clone()
    inputs.copy_(kit.normal(128, 64, seed=6))
    graph.replay()
    return {"first": first, "second": output.clone()}


def transformer(kit: Kit) -> Outputs:
    nn = kit.torch.nn
    layer = partial(nn.TransformerEncoderLayer, 64, 4, dim_feedforward=128, dropout=0.0, batch_first=True)
    model = kit.module(lambda: nn.TransformerEncoder(layer(), 2))
    batch = kit.normal(8, 30, 64)
    with kit.torch.no_grad():
        fast = model.eval()(batch)
    return {"forward": fast, **kit.gradients(model.train(), batch)}


def bert(kit: Kit) -> Outputs:
    """A tiny BERT with random weights, as sentence-transformers runs one: no model hub is asked."""
    transformers = needed("transformers")
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = transformers.BertConfig(vocab_size=1000, **size)
    model = kit.module(lambda: transformers.BertModel(config)).eval()
    words = kit.integers(4, 32, below=1000)
    with kit.torch.no_grad():
        found = model(input_ids=words, attention_mask=kit.torch.ones_like(words))
    return {"words": found.last_hidden_state, "sentence": found.pooler_output}


def vision(kit: Kit) -> Outputs:
    torchvision = needed("torchvision")
    corners = kit.normal(200, 2).abs() * 40
    boxes = kit.torch.cat([corners, corners + kit.normal(200, 2, seed=1).abs() * 20 + 1], dim=1)
    batch = kit.normal(2, 3, 64, 64)
    model = kit.module(lambda: torchvision.models.resnet18(weights=None)).eval()
    with kit.torch.no_grad():
        classes = model(batch)
    return {
        "suppressed": torchvision.ops.nms(boxes, kit.normal(200, seed=2), 0.3),
        "aligned": torchvision.ops.roi_align(batch, [boxes[:5] / 2, boxes[5:9] / 2], 7),
        "resnet18": classes,
    }


def compiled(kit: Kit) -> Outputs:
    """torch.compile: Triton's compiler and ptxas on a GPU, the machine's C++ compiler on a CPU."""
    model = network(kit).eval()
    run = kit.torch.compile(lambda x: model(x.sin() * 2).softmax(1))
    with kit.torch.no_grad():
        return {"output": run(kit.normal(128, 64))}


def numpy_linear_algebra(_: Kit) -> Outputs:
    """Needs nothing of torch: numpy's own OpenBLAS and libgfortran, which careless tools break."""
    numpy = needed("numpy")
    matrix = numpy.random.default_rng(0).standard_normal((80, 80))
    return {
        "product": matrix @ matrix.T,
        "svd": list(numpy.linalg.svd(matrix)),
        "eigenvalues": numpy.linalg.eigvals(matrix),
        "fft": numpy.fft.fft(matrix),
        "solve": numpy.linalg.solve(matrix, matrix[:, 0]),
    }


def scipy_linear_algebra(_: Kit) -> Outputs:
    numpy, linalg = needed("numpy"), needed("scipy.linalg")
    matrix = numpy.random.default_rng(0).standard_normal((60, 60))
    grid = needed("scipy.sparse").diags_array([4.0, -1.0, -1.0], offsets=[0, 1, -1], shape=(60, 60)).tocsc()
    return {
        "exponential": linalg.expm(matrix / 60),
        "svd": list(linalg.svd(matrix)),
        "schur": list(linalg.schur(matrix)),
        "fft": needed("scipy.fft").rfft(matrix),
        "sparse solve": needed("scipy.sparse.linalg").spsolve(grid, matrix[:, 0]),
        "bessel": needed("scipy.special").jv(1.5, abs(matrix)),
    }


def scikit_learn(_: Kit) -> Outputs:
    numpy, linear = needed("numpy"), needed("sklearn.linear_model")
    points = numpy.random.default_rng(0).standard_normal((200, 12))
    target = points[:, 0] + 0.1 * points[:, 1] ** 2
    reduced = needed("sklearn.decomposition").PCA(4).fit(points)
    forest = needed("sklearn.ensemble").RandomForestRegressor(10, random_state=0).fit(points, target)
    return {
        "ridge": linear.Ridge().fit(points, target).coef_,
        "logistic": linear.LogisticRegression().fit(points, target > 0).coef_,
        "components": reduced.components_,
        "reduced": reduced.transform(points),
        "forest": forest.predict(points),
    }


MODELS: dict[str, Callable[[Kit], Outputs]] = {
    "attention_math": partial(attention, backend="MATH"),
    "attention_math_backward": partial(attention, backend="MATH", backward=True),
    "attention_flash": partial(attention, backend="FLASH_ATTENTION"),
    "attention_flash_backward": partial(attention, backend="FLASH_ATTENTION", backward=True),
    "normalisation": normalisation,
    "embedding": embedding,
    "images": images,
    "losses": losses,
    "adamw": partial(optimizer, name="AdamW"),
    "sgd": partial(optimizer, name="SGD", momentum=0.9),
    "mixed_precision": mixed_precision,
    "collective": collective,
    "transformer": transformer,
    "bert": bert,
    "torchvision": vision,
}

MODELS_ON_GPU: dict[str, Callable[[Kit], Outputs]] = {
    "attention_efficient": partial(attention, backend="EFFICIENT_ATTENTION"),
    "attention_efficient_backward": partial(attention, backend="EFFICIENT_ATTENTION", backward=True),
    "attention_cudnn": partial(attention, backend="CUDNN_ATTENTION"),
    "attention_cudnn_backward": partial(attention, backend="CUDNN_ATTENTION", backward=True),
    "adamw_fused": partial(optimizer, name="AdamW", fused=True),
    "cuda_graph": cuda_graph,
}

HOST: dict[str, Callable[[Kit], Outputs]] = {
    "numpy": numpy_linear_algebra,
    "scipy": scipy_linear_algebra,
    "scikit_learn": scikit_learn,
}

COMPILED: dict[str, Callable[[Kit], Outputs]] = {"compile": compiled}
