"""Converts one row of a dataset, in any of the common formats, to samples.

| format | keys |
|---|---|
| messages (OpenAI, transformers, ms-swift, TRL) | `messages` [{role, content}] |
| ShareGPT (LLaVA, LLaMA-Factory) | `conversations` [{from, value}], `conversation` [{human, assistant}] |
| instructions (alpaca, ms-swift, GRPO datasets) | `instruction` + `input`, `query`, `prompt`, `question`, \
`problem`; `output`, `response` or `completion`; `history`; `system` |
| preferences | the above with `chosen` and `rejected`, `rejected_response` or `rejected_messages` |

Media come from columns named after their modality (`image`, `images`, ...) or are part of the content. Rewards compare
with `solution`, `answer` or `truth`; `id` or `uid` names the row; all other keys go to `Sample.meta`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmpost.data.media.modalities import modalities
from mmpost.data.readers.conversation import MediaFactory, Turn, fill, role_of
from mmpost.errors import DataError
from mmpost.types import Part, Reply, Sample

TURN_KEYS = ("messages", "conversations", "conversation")
QUESTION_KEYS = ("instruction", "query", "prompt", "question", "problem")
REPLY_KEYS = ("output", "response", "completion")
TRUTH_KEYS = ("solution", "answer", "truth")
REJECTED_KEYS = ("rejected", "rejected_response", "rejected_messages")
ID_KEYS = ("id", "uid")
FORMATS = (
    f"{', '.join(TURN_KEYS)} (a list of turns); {', '.join(QUESTION_KEYS)} (with {', '.join(REPLY_KEYS)} or none); "
    "chosen and rejected (whole conversations)"
)


class Fields:
    """The fields of a row: parsers take those they know, the rest becomes meta. Fields that are None are ignored."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        if not isinstance(row, Mapping):
            raise DataError(f"Wanted a row as a mapping of keys to values, found {type(row).__name__}: {row!r:.80}.")
        self.names = list(row)
        self.left = {key: value for key, value in row.items() if value is not None}

    def take(self, *names: str) -> Any:
        """Remove and return the first of `names` that the row has, else None."""
        name = next((name for name in names if name in self.left), None)
        return None if name is None else self.left.pop(name)

    def text(self, *names: str) -> str | None:
        """As `take`, but raise DataError for a value that is not text."""
        name = next((name for name in names if name in self.left), "")
        value = self.take(*names)
        if value is not None and not isinstance(value, str):
            raise DataError(f"Wanted text in {name!r}, found {type(value).__name__}: {value!r:.80}.")
        return value


@dataclass(frozen=True)
class Row:
    """A parsed row, in the structure that all formats share."""

    turns: tuple[Turn, ...]
    chosen: tuple[Any, ...]
    """Contents of the preferred replies, which are not among the turns."""
    rejected: tuple[Any, ...]
    label: float | None
    """+1 or -1 if the row rates its last turn (KTO)."""
    truth: Any
    media: Mapping[str, Sequence[Any]]
    uid: str | None
    meta: Mapping[str, Any]


def parse(row: Mapping[str, Any]) -> Row:
    """Parse a row in any known format. Raises DataError without file and row number, which the caller adds."""
    fields = Fields(row)
    uid = fields.take(*ID_KEYS)
    media = {m.name: _media(fields, m.name) for m in modalities()}
    for modality, values in media.items():
        # Vision datasets repeat the images for the rejected reply; both replies must share one prompt.
        if _media(fields, f"rejected_{modality}") not in ([], values):
            raise DataError(
                f'Wanted the same {modality}s for chosen and rejected, found others in "rejected_{modality}s".'
            )
    chosen, rejected = fields.take("chosen"), _rejected(fields)
    turns = _turns(fields, chosen, rejected)
    truth = fields.take(*TRUTH_KEYS)
    turns, chosen, rejected = _preference(turns, chosen, rejected)
    label = fields.left.get("label", fields.left.get("kto_tag"))
    rated = isinstance(label, bool) and turns[-1].role == "assistant"
    if rated:
        fields.take("label", "kto_tag")
    turns, chosen, rejected = _objects(fields, turns, chosen, rejected)
    return Row(
        turns=turns,
        chosen=chosen,
        rejected=rejected,
        label=(1.0 if label else -1.0) if rated else None,
        truth=truth,
        media=media,
        uid=None if uid is None else str(uid),
        meta=fields.left,
    )


def spans(row: Row, loss: Literal["all", "last"]) -> list[tuple[int, int]]:
    """(first, end) of the turns of each reply to train on: maximal runs of assistant turns.

    Rows that end with the user, and preference rows (whose replies are not among the turns), have none.
    """
    if row.chosen or row.rejected or row.turns[-1].role != "assistant":
        return []
    runs, start = [], 0
    for is_trained, run in itertools.groupby(row.turns, key=lambda turn: turn.role == "assistant" and turn.learn):
        end = start + len(list(run))
        if is_trained:
            runs.append((start, end))
        start = end
    if not runs:
        raise DataError('Wanted a turn of the assistant to learn, found "loss": false on all. Drop the row.')
    return runs if loss == "all" and row.label is None else runs[-1:]


def samples(row: Row, uid: str, loss: Literal["all", "last"], create: MediaFactory) -> list[Sample]:
    """One Sample per reply to train on (uid#1, uid#2, ... if there are several), or one with the prompt only."""
    parts = fill(row.turns, row.media, create)
    runs = spans(row, loss)
    if not runs:
        pairs = [(content, 1.0) for content in row.chosen] + [(content, -1.0) for content in row.rejected]
        replies = tuple(_reply(fill([Turn("assistant", c)], {}, create)[0], label) for c, label in pairs)
        truth = replies[0].text if row.truth is None and row.chosen else row.truth
        return [Sample(uid, _flat(parts), replies, truth, row.meta)]
    result = []
    for number, (start, end) in enumerate(runs, 1):
        reply = _reply(_flat(parts[start:end]), row.label)
        last = end == len(row.turns)
        truth = row.truth if last and row.truth is not None else None if row.label == -1.0 else reply.text
        name = f"{uid}#{number}" if len(runs) > 1 else uid
        result.append(Sample(name, _flat(parts[:start]), (reply,), truth, row.meta))
    return result


def _flat(turns: Iterable[tuple[Part, ...]]) -> tuple[Part, ...]:
    return tuple(itertools.chain.from_iterable(turns))


def _reply(parts: tuple[Part, ...], label: float | None) -> Reply:
    return Reply(parts, columns={} if label is None else {"label": label})


def _media(fields: Fields, modality: str) -> list[Any]:
    many, one = fields.take(f"{modality}s"), fields.take(modality)
    if many is not None and one is not None and many and one:
        raise DataError(f"Wanted one of the columns {modality!r} and '{modality}s', found both. Remove one of them.")
    value = many if many is not None else one
    if isinstance(value, (list, tuple)) and not _numbers(value):
        return [v for v in value if not is_empty(v)]
    return [] if is_empty(value) else [value]


def _numbers(value: Sequence[Any]) -> bool:
    """Whether a list is a single medium: numbers, or points as lists of numbers."""
    first = value[0] if value else None
    points = isinstance(first, (list, tuple)) and bool(first)
    return all(isinstance(v, (int, float)) for v in (first if points and first is not None else value or ("",)))


def is_empty(value: Any) -> bool:
    """Whether a value means that there is no medium: null, "" or {"bytes": null, "path": null} in Parquet files."""
    if isinstance(value, Mapping):
        return all(v is None for v in value.values())
    return value is None or (isinstance(value, str) and not value)


def _turns(fields: Fields, chosen: Any, rejected: list[Any]) -> list[Turn]:
    """The turns of a row; empty if `chosen` and `rejected` hold complete conversations."""
    system = fields.text("system")
    turn_key = next((name for name in TURN_KEYS if name in fields.left), "")
    messages = fields.take(*TURN_KEYS)
    history = fields.take("history") or []
    if messages is not None:
        turns = _parse_messages(messages, turn_key)
    else:
        if not isinstance(history, (list, tuple)):
            raise DataError(f"Wanted 'history' as a list of pairs, found {type(history).__name__}: {history!r:.80}.")
        turns = [turn for pair in history for turn in _pair(pair)] + _instruction(fields)
    if not turns and not (_conversation(chosen) and rejected and all(map(_conversation, rejected))):
        raise DataError(
            f"Wanted one of the known formats: {FORMATS}. Found the keys {', '.join(fields.names) or 'none'}. "
            "If all rows ask the same question, set data.prompt."
        )
    if system and not (turns and turns[0].role == "system"):
        turns.insert(0, Turn("system", system))
    return turns


def _instruction(fields: Fields) -> list[Turn]:
    """An instruction with its input and reply, or a prompt in the form of messages."""
    name = next((name for name in QUESTION_KEYS if name in fields.left), None)
    if name is None:
        return []
    question = fields.take(name)
    if not isinstance(question, str):
        turns = _parse_messages(question, name)
    else:
        for other in QUESTION_KEYS:
            if isinstance(fields.left.get(other), str) and fields.left[other] not in ("", question):
                raise DataError(
                    f"Wanted one question, found {name!r} ({question!r:.80}) and {other!r} "
                    f"({fields.left[other]!r:.80}). Drop one of these columns."
                )
        more = fields.text("input") if name == "instruction" else None
        turns = [Turn("user", "\n".join(text for text in (question, more) if text))]
    reply = fields.take(*REPLY_KEYS)
    if isinstance(reply, str):
        turns.append(Turn("assistant", reply))
    elif reply is not None:
        turns += _parse_messages(reply, "the reply")
    return turns


def _parse_messages(value: Any, key: str) -> list[Turn]:
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(f"Wanted a list of turns, found {type(value).__name__}: {value!r:.80} in {key!r}.")
    return [turn for message in value for turn in _message(message)]


def _message(message: Any) -> list[Turn]:
    fields = {k: v for k, v in message.items() if v is not None} if isinstance(message, Mapping) else {}
    for role, content in (("role", "content"), ("from", "value")):
        if role in fields:
            who = role_of(fields[role])
            if content not in fields:
                raise DataError(f"Wanted {content!r} in the turn of the {who}, found {', '.join(fields)}.")
            return [Turn(who, fields[content], _trained(fields.get("loss", True)))]
    pair = [Turn(role_of(key), fields[key]) for key in ("system", "human", "user", "assistant", "gpt") if key in fields]
    if not pair:
        raise DataError(f"Wanted a turn as {{role, content}} or {{from, value}}, found {message!r:.120}.")
    return pair


def _trained(loss: Any) -> bool:
    if loss not in (0, 1):
        raise DataError(f'Wanted true or false in the "loss" of a turn, found {loss!r}.')
    return bool(loss)


def _pair(pair: Any) -> list[Turn]:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise DataError(f"Wanted history as pairs of question and reply, found {pair!r:.80}.")
    return [Turn("user", pair[0]), Turn("assistant", pair[1])]


def _conversation(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(_is_turn(v) for v in value)


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def _rejected(fields: Fields) -> list[Any]:
    """The rejected replies; `rejected_response` may be a list of texts."""
    rejected = fields.take(*REJECTED_KEYS)
    if rejected is None:
        return []
    if isinstance(rejected, (list, tuple)) and all(isinstance(v, str) for v in rejected):
        return list(rejected)
    return [rejected]


def _preference(
    turns: list[Turn], chosen: Any, rejected: list[Any]
) -> tuple[tuple[Turn, ...], tuple[Any, ...], tuple[Any, ...]]:
    """The prompt, chosen and rejected replies; without `chosen`, the last assistant turn is the chosen reply."""
    if not rejected and chosen is None:
        return tuple(turns), (), ()
    if chosen is not None and not rejected:
        raise DataError('Wanted "rejected" beside "chosen", found "chosen" alone. Add it, or rename it to "response".')
    if chosen is None:
        if not turns or turns[-1].role != "assistant":
            raise DataError('Wanted "chosen", or a last turn of the assistant to prefer to "rejected"; found neither.')
        turns, chosen = turns[:-1], turns[-1].content
    ends = [_split_reply(value, turns) for value in (chosen, *rejected)]
    prompt = ends[0][0]
    if any(other != prompt for other, _ in ends):
        raise DataError("Wanted one prompt for the chosen and the rejected reply, found two. Make them two rows.")
    if prompt and prompt[-1].role == "assistant":
        raise DataError(
            "Wanted a prompt that ends with the user before chosen and rejected, found the assistant's turn."
        )
    return tuple(prompt), (ends[0][1],), tuple(content for _, content in ends[1:])


def _split_reply(value: Any, turns: list[Turn]) -> tuple[list[Turn], Any]:
    """(prompt, reply) of text, content, one turn, or a conversation that may include the prompt."""
    if _is_turn(value):
        value = [value]
    if not _conversation(value):
        return turns, value
    conversation = _parse_messages(value, "chosen or rejected")
    if conversation[-1].role != "assistant":
        raise DataError(f"Wanted chosen and rejected to end with the assistant, found {conversation[-1].role}.")
    return (conversation[:-1] or turns), conversation[-1].content


def _objects(
    fields: Fields, turns: tuple[Turn, ...], chosen: tuple[Any, ...], rejected: tuple[Any, ...]
) -> tuple[tuple[Turn, ...], tuple[Any, ...], tuple[Any, ...]]:
    """Replace <ref-object> by the names in ms-swift's `objects`; raise for <bbox>, which depends on the model."""
    objects = fields.left.get("objects")
    if not isinstance(objects, Mapping):
        return turns, chosen, rejected
    contents = [*(turn.content for turn in turns), *chosen, *rejected]
    if objects.get("bbox") and any(isinstance(c, str) and "<bbox>" in c for c in contents):
        raise DataError(
            "Wanted boxes as text or as the solution, found <bbox> placeholders: how a box is written depends on the "
            "model's frame. Write the boxes into the text, or put them into `solution` and score them by a reward."
        )
    references = objects.get("ref") or ()
    if not isinstance(references, (list, tuple)):
        raise DataError(f"Wanted names as a list in 'objects.ref', found {references!r:.80}.")
    names = [str(name) for name in references]
    turns = tuple(Turn(turn.role, _insert_names(turn.content, names), turn.learn) for turn in turns)
    # Each reply starts with the names that the prompt did not use.
    return (
        turns,
        tuple(_insert_names(c, list(names)) for c in chosen),
        tuple(_insert_names(c, list(names)) for c in rejected),
    )


def _insert_names(content: Any, names: list[str]) -> Any:
    """Replace each <ref-object> by the first of `names`, which is removed from the list."""
    if not isinstance(content, str):
        return content
    head, *tail = content.split("<ref-object>")
    return head + "".join((names.pop(0) if names else "<ref-object>") + piece for piece in tail)
