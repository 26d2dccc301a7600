"""What others make of the rehearsal's models, each in a process of its own: plain transformers, which knows nothing of
ThinkIMG but the files, and ThinkIMG's own loader.

    python -m rehearsal.compare recomputed MODEL TRAJECTORIES
    python -m rehearsal.compare plain MODEL TRAJECTORIES LOGITS BASE
    python -m rehearsal.compare own MODEL TRAJECTORIES LOGITS

The last line of the output is one JSON object.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from thinkimg.trajectory import Trajectory, read_trajectories

POSITIONS = 16
"""Logits of so many positions at the end of the prompt are compared."""


def recomputed(model: Path, trajectories: Path) -> dict[str, Any]:
    """The largest difference between the log-probabilities that were recorded when tokens were sampled, and those of
    one pass over the whole trajectory by plain transformers, with the same tokens made impossible."""
    network, processor = _plain(model)
    found, count = 0.0, 0
    for rollout in read_trajectories(trajectories):
        inputs = _inputs(processor, rollout, rollout.tokens)
        own = torch.tensor(rollout.mask)
        first = int(own.nonzero()[0])
        with torch.no_grad():
            logits = network(**inputs, logits_to_keep=len(own) - first + 1).logits[0, :-1].float()
        logits[:, _impossible(processor)] = -torch.inf
        own, tokens = own[first:], torch.tensor(rollout.tokens[first:])
        again = torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
        difference = (again - torch.tensor(rollout.logprobs[first:]))[own].abs()
        found, count = max(found, float(difference.max())), count + int(own.sum())
    return {"largest": found, "tokens": count}


def plain(model: Path, trajectories: Path, logits: Path, base: Path) -> dict[str, Any]:
    """Leaves what plain transformers makes of the first question, worded by the model's own template; says how many of
    the trained layers' weights differ from the base's."""
    network, processor = _plain(model)
    rollout = next(iter(read_trajectories(trajectories)))
    system, user = (turn.message.text for turn in rollout.turns[:2])
    picture = rollout.images["img_1"].pixels()
    messages = [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": user}]},
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=[text], images=[picture], return_tensors="pt").to(network.device)
    with torch.no_grad():
        torch.save((inputs["input_ids"][0].tolist(), network(**inputs, logits_to_keep=POSITIONS).logits[0]), logits)
    return {"share_of_weights": _moved(network, base)}


def own(model: Path, trajectories: Path, logits: Path) -> dict[str, Any]:
    """The same by ThinkIMG's loader, family and cache of features."""
    from thinkimg.models.loading import Loading
    from thinkimg.models.pretrained import load_model
    from thinkimg.models.reference import Reader

    loaded = load_model(Reader("").read(str(model)), Loading(dtype=torch.float32))
    rollout = next(iter(read_trajectories(trajectories)))
    images = {"img_1": rollout.images["img_1"]}
    deltas = loaded.family.encode_start([turn.message for turn in rollout.turns[:2]], images)
    ids = torch.tensor([[token for delta in deltas for token in delta]])
    inputs = {"input_ids": ids, **loaded.family.model_inputs(ids), **loaded.features(list(images.values()))}
    inputs = {name: tensor.to(loaded.model.device) for name, tensor in inputs.items()}
    theirs, expected = torch.load(logits)
    if ids[0].tolist() != theirs:
        raise ValueError("the template gives other tokens than the family")
    with torch.no_grad():
        found = loaded.model(**inputs, logits_to_keep=POSITIONS).logits[0]
    return {"largest": float((found - expected.to(found)).abs().max()), "tokens": len(theirs)}


def _plain(model: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return network, AutoProcessor.from_pretrained(model)


def _inputs(processor: Any, rollout: Trajectory, tokens: list[int]) -> dict[str, torch.Tensor]:
    """The trajectory's own tokens, and its pictures through the model's own image processor."""
    ids = torch.tensor([tokens])
    pictures = [image.pixels() for image in rollout.ordered_images]
    inputs = {"input_ids": ids, "mm_token_type_ids": (ids == processor.image_token_id).int()}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = dict(processor.image_processor(images=pictures, return_tensors="pt"))
    return {name: tensor.to(device) for name, tensor in (inputs | features).items()}


def _impossible(processor: Any) -> list[int]:
    """What the generator never draws: special tokens, but for those that end a turn."""
    tokenizer = processor.tokenizer
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    return sorted(set(tokenizer.all_special_ids) - set(ends))


def _moved(network: Any, base: Path) -> float:
    """Which share of the first and the last layer's query projections differs from the base's."""
    from safetensors import safe_open

    places = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    moved = total = 0
    for name, weight in network.named_parameters():
        if not name.endswith("q_proj.weight"):
            continue
        stored = name if name in places else name.replace("language_model.", "")
        with safe_open(base / places[stored], "pt") as part:
            before = part.get_tensor(stored).float()
        moved += int((weight.cpu() != before).sum())
        total += weight.numel()
    return round(moved / total, 4)


def main() -> None:
    programs = {"recomputed": recomputed, "plain": plain, "own": own}
    print(json.dumps(programs[sys.argv[1]](*map(Path, sys.argv[2:]))))


if __name__ == "__main__":
    main()
