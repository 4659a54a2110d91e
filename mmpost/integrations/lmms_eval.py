"""Models of mmpost in lmms-eval, for the benchmarks that only it has.

    lmms-eval --model mmpost --model_args pretrained=RUN --tasks ai2d --reasoning_tags none

lmms-eval finds the model by the entry point `lmms_eval.models` of mmpost (extra `lmms-eval`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts  # pyright: ignore[reportMissingImports]
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]
from lmms_eval.protocol import ChatMessages  # pyright: ignore[reportMissingImports]

from mmpost.core import distributed
from mmpost.data.media.media import media
from mmpost.errors import ConfigError
from mmpost.rollout.local import LocalRollout
from mmpost.runs.session import load_model
from mmpost.training.context import TrainingContext
from mmpost.types import GenerativeModel, Part, Sample, Sampling

MANIFEST = ModelManifest("mmpost", chat_class_path="mmpost.integrations.lmms_eval.Mmpost")
WANTED = "mmpost in lmms-eval: wanted a task that one text answers, found one of {}; choose another task"
BATCH_SIZE = 64
"""Replies sampled in parallel where lmms-eval leaves it open (batch_size=auto)."""


class Mmpost(lmms):
    """A chat model that builds prompts, reads pixels and samples exactly as in training and in `mmpost predict`.

    `--model_args`: `pretrained` (a run, a folder, or a hub id), `seed`, and the fields of the `model` section, such as
    max_pixels=200000. Raises ConfigError for a model that writes no replies.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = BATCH_SIZE,
        device: str | None = None,
        seed: int = 0,
        **fields: Any,
    ) -> None:
        super().__init__()
        fields.pop("max_batch_size", None)  # lmms-eval always passes it
        on_cpu = device is not None and device.startswith("cpu")
        if device is not None:
            fields["device"] = "cpu" if on_cpu else "auto"
        distributed.start("cpu" if on_cpu else "auto")
        model = load_model(pretrained, **fields)
        if not isinstance(model, GenerativeModel):
            raise ConfigError(f"pretrained={pretrained}: wanted a chat model, found an embedding model")
        self._rank, self._world_size = distributed.rank(), distributed.world()
        self.device = next(model.module.parameters()).device
        self.accelerator = Accelerator(cpu=self.device.type == "cpu")  # for the barriers of lmms-eval
        size = int(batch_size) if str(batch_size).isdigit() else BATCH_SIZE
        self._context = TrainingContext(model, LocalRollout(model, size), int(seed))

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """The reply to each request, cut at its stop texts."""
        together: dict[tuple[Sampling, tuple[str, ...]], list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            together[_sampling(request.args[2]), _stops(request.args[2])].append(index)
        results: dict[int, GenerationResult] = {}
        for (sampling, stops), indices in together.items():
            answered = self._context.generate([self._sample(requests[i]) for i in indices], 1, sampling)
            for index, sample in zip(indices, answered, strict=True):
                (reply,) = sample.replies
                text = reply.text
                for stop in stops:
                    text = text.partition(stop)[0]
                results[index] = GenerationResult(text, TokenCounts(output_tokens=len(reply.token_ids or ())))
                context, _, settings = requests[index].args[:3]
                self.cache_hook.add_partial("generate_until", (context, settings), text)
        return [results[index] for index in range(len(requests))]

    def _sample(self, request: Instance) -> Sample:
        _, messages_of, _, document, task, split = request.args
        messages = ChatMessages(messages=messages_of(self.task_dict[task][split][document])).messages
        parts = (
            Part("text", content.text, message.role)
            if content.type == "text"
            else Part(content.type, media(content.url, content.type), message.role)
            for message in messages
            for content in message.content
        )
        uid = f"{task}/{split}/{document}/{request.idx}"
        return self._context.with_frame(Sample(uid, tuple(parts)))

    # lmms-eval declares these two abstract; a task that needs one ends with the message.

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """lmms-eval asks each model for it; raises NotImplementedError, since replies are what mmpost samples."""
        raise NotImplementedError(WANTED.format("choices by log-likelihood"))

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Raises NotImplementedError, as `loglikelihood`."""
        raise NotImplementedError(WANTED.format("several rounds"))


def _sampling(settings: Mapping[str, Any]) -> Sampling:
    """Greedy unless a task asks for samples, as in lmms-eval's own models."""
    limit = {"max_tokens": settings["max_new_tokens"]} if "max_new_tokens" in settings else {}
    temperature = settings.get("temperature") or 0.0
    if not temperature or not settings.get("do_sample", True):
        return Sampling(temperature=0, **limit)
    return Sampling(temperature=temperature, top_p=settings.get("top_p") or 1.0, **limit)


def _stops(settings: Mapping[str, Any]) -> tuple[str, ...]:
    stops = settings.get("until") or ()
    return tuple(stop for stop in ([stops] if isinstance(stops, str) else stops) if stop.strip())
