"""TensorBoard events, fed from the metrics file, which stays the truth."""

from pathlib import Path

from tensorboardX import SummaryWriter

from jaxagent.train import metrics_log


def export(folder: Path) -> Path:
    """Write `folder/tensorboard` anew from `folder/metrics.jsonl`; lanes become runs of a tag."""
    target = folder / "tensorboard"
    for old in target.glob("events.*") if target.exists() else ():
        old.unlink()
    with SummaryWriter(str(target)) as writer:
        for line in metrics_log.read(folder / "metrics.jsonl"):
            for name, value in line.items():
                if name not in ("stage", "step") and value is not None:
                    _add(writer, f"{line['stage']}/{name}", value, line["step"])
    return target


def _add(writer: SummaryWriter, tag: str, value: object, step: int) -> None:
    if isinstance(value, list):
        for lane, item in enumerate(value):
            if item is not None:
                writer.add_scalar(f"{tag}/{lane}", item, step)
    else:
        writer.add_scalar(tag, value, step)
