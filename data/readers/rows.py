"""One row of a data set, in any of the formats in use, as Samples.

| format | keys |
|---|---|
| messages (OpenAI, transformers, ms-swift, TRL) | `messages` [{role, content}] |
| ShareGPT (LLaVA, LLaMA-Factory) | `conversations` [{from, value}], `conversation` [{human, assistant}] |
| instructions (alpaca, ms-swift, GRPO sets) | `instruction` + `input`, `query`, `prompt`, `question` or `problem`; \
`output`, `response` or `completion`; `history`; `system` |
| preferences | the above with `chosen` and `rejected`, `rejected_response` or `rejected_messages` |

Media come from columns named after their kind (`image`, `images`, ...) or stand in the content. `solution`, `answer` or
`truth` is what rewards compare with; `id` or `uid` names the row; all other keys go to `Sample.meta`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmpost.data.media.modalities import modalities
from mmpost.data.readers.conversation import Make, Turn, fill, role_of
from mmpost.errors import DataError
from mmpost.types import Part, Reply, Sample

TURNS = ("messages", "conversations", "conversation")
ASKS = ("instruction", "query", "prompt", "question", "problem")
REPLIES = ("output", "response", "completion")
TRUTHS = ("solution", "answer", "truth")
REJECTED = ("rejected", "rejected_response", "rejected_messages")
NAMES = ("id", "uid")
FORMATS = f"""{", ".join(TURNS)} (a list of turns); {", ".join(ASKS)} (with {", ".join(REPLIES)} or none); \
chosen and rejected (whole conversations)"""


class Fields:
    """The keys of a row, each of which is taken once; what is left is meta. Keys without a value do not count."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        if not isinstance(row, Mapping):
            raise DataError(f"Wanted a row as a mapping of keys to values, found {type(row).__name__}: {row!r:.80}.")
        self.names = list(row)
        self.left = {key: value for key, value in row.items() if value is not None}

    def take(self, *names: str) -> Any:
        """The value of the first of `names` that the row has, else None."""
        name = next((name for name in names if name in self.left), None)
        return None if name is None else self.left.pop(name)

    def text(self, *names: str) -> str | None:
        """As `take`, where only text will do."""
        name = next((name for name in names if name in self.left), "")
        value = self.take(*names)
        if value is not None and not isinstance(value, str):
            raise DataError(f"Wanted text in {name!r}, found {type(value).__name__}: {value!r:.80}.")
        return value


@dataclass(frozen=True)
class Row:
    """A row in the one shape that all formats share."""

    turns: tuple[Turn, ...]
    chosen: tuple[Any, ...]
    """Contents of the replies that are preferred; not among the turns."""
    rejected: tuple[Any, ...]
    label: float | None
    """+1 or -1 for the last turn where the row judges it."""
    truth: Any
    media: Mapping[str, Sequence[Any]]
    uid: str | None
    meta: Mapping[str, Any]


def parse(row: Mapping[str, Any]) -> Row:
    """Recognise the format of a row; raises DataError that says what was wanted, without file and number."""
    fields = Fields(row)
    uid = fields.take(*NAMES)
    media = {k.name: _media(fields, k.name) for k in modalities()}
    for kind, values in media.items():
        if _media(fields, f"rejected_{kind}") not in ([], values):
            raise DataError(f'Wanted the same {kind}s for chosen and rejected, found others in "rejected_{kind}s".')
    chosen, rejected = fields.take("chosen"), _rejected(fields)
    turns = _turns(fields, chosen, rejected)
    truth = fields.take(*TRUTHS)
    turns, chosen, rejected = _preference(turns, chosen, rejected)
    label = fields.left.get("label", fields.left.get("kto_tag"))
    judged = isinstance(label, bool) and turns[-1].role == "assistant"
    if judged:
        fields.take("label", "kto_tag")
    turns, chosen, rejected = _objects(fields, turns, chosen, rejected)
    return Row(
        turns=turns,
        chosen=chosen,
        rejected=rejected,
        label=(1.0 if label else -1.0) if judged else None,
        truth=truth,
        media=media,
        uid=None if uid is None else str(uid),
        meta=fields.left,
    )


def spans(row: Row, loss: Literal["all", "last"]) -> list[tuple[int, int]]:
    """(first, end) of the turns that make each reply to learn: a run of the assistant's turns.

    A row that ends with the user has none, and neither has one whose replies are apart (preferences).
    """
    if row.chosen or row.rejected or row.turns[-1].role != "assistant":
        return []
    found, start = [], 0
    for said, run in itertools.groupby(row.turns, key=lambda turn: turn.role == "assistant" and turn.learn):
        end = start + len(list(run))
        if said:
            found.append((start, end))
        start = end
    if not found:
        raise DataError('Wanted a turn of the assistant to learn, found "loss": false on all. Drop the row.')
    return found if loss == "all" and row.label is None else found[-1:]


def samples(row: Row, uid: str, loss: Literal["all", "last"], make: Make) -> list[Sample]:
    """One Sample for each reply to learn (uid#1, uid#2, ... where there are several), or one for the prompt alone."""
    parts = fill(row.turns, row.media, make)
    found = spans(row, loss)
    if not found:
        pairs = [(content, 1.0) for content in row.chosen] + [(content, -1.0) for content in row.rejected]
        replies = tuple(_reply(fill([Turn("assistant", c)], {}, make)[0], label) for c, label in pairs)
        truth = replies[0].text if row.truth is None and row.chosen else row.truth
        return [Sample(uid, _flat(parts), replies, truth, row.meta)]
    made = []
    for number, (start, end) in enumerate(found, 1):
        reply = _reply(_flat(parts[start:end]), row.label)
        last = end == len(row.turns)
        truth = row.truth if last and row.truth is not None else None if row.label == -1.0 else reply.text
        name = f"{uid}#{number}" if len(found) > 1 else uid
        made.append(Sample(name, _flat(parts[:start]), (reply,), truth, row.meta))
    return made


def _flat(turns: Iterable[tuple[Part, ...]]) -> tuple[Part, ...]:
    return tuple(itertools.chain.from_iterable(turns))


def _reply(parts: tuple[Part, ...], label: float | None) -> Reply:
    return Reply(parts, columns={} if label is None else {"label": label})


def _media(fields: Fields, kind: str) -> list[Any]:
    many, one = fields.take(f"{kind}s"), fields.take(kind)
    if many is not None and one is not None and many and one:
        raise DataError(f"Wanted one of the columns {kind!r} and '{kind}s', found both. Remove one of them.")
    value = many if many is not None else one
    if isinstance(value, (list, tuple)) and not _numbers(value):
        return [v for v in value if not _empty(v)]
    return [] if _empty(value) else [value]


def _numbers(value: Sequence[Any]) -> bool:
    """Whether a list is one medium: numbers, or points that are lists of numbers."""
    first = value[0] if value else None
    points = isinstance(first, (list, tuple)) and bool(first)
    return all(isinstance(v, (int, float)) for v in (first if points and first is not None else value or ("",)))


def _empty(value: Any) -> bool:
    """A column without a medium: null, "" or the {"bytes": null, "path": null} of Parquet files."""
    if isinstance(value, Mapping):
        return all(v is None for v in value.values())
    return value is None or (isinstance(value, str) and not value)


def _turns(fields: Fields, chosen: Any, rejected: list[Any]) -> list[Turn]:
    """The turns of a row; empty where `chosen` and `rejected` hold whole conversations."""
    system = fields.text("system")
    listed = fields.take(*TURNS)
    history = fields.take("history") or []
    if listed is not None:
        turns = _listed(listed)
    else:
        turns = [turn for pair in history for turn in _pair(pair)] + _asked(fields)
    if not turns and not (_conversation(chosen) and rejected and all(map(_conversation, rejected))):
        raise DataError(
            f"Wanted one of the known formats: {FORMATS}. Found the keys {', '.join(fields.names) or 'none'}. "
            "Where all rows ask the same, say it with data.prompt."
        )
    if system and not (turns and turns[0].role == "system"):
        turns.insert(0, Turn("system", system))
    return turns


def _asked(fields: Fields) -> list[Turn]:
    """An instruction with its input and reply, or a prompt that is a list of messages."""
    name = next((name for name in ASKS if name in fields.left), None)
    if name is None:
        return []
    asked = fields.take(name)
    if not isinstance(asked, str):
        turns = _listed(asked)
    else:
        more = fields.text("input") if name == "instruction" else None
        turns = [Turn("user", "\n".join(text for text in (asked, more) if text))]
    reply = fields.take(*REPLIES)
    if isinstance(reply, str):
        turns.append(Turn("assistant", reply))
    elif reply is not None:
        turns += _listed(reply)
    return turns


def _listed(value: Any) -> list[Turn]:
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(f"Wanted a list of turns, found {type(value).__name__}: {value!r:.80}.")
    return [turn for message in value for turn in _message(message)]


def _message(message: Any) -> list[Turn]:
    found = {k: v for k, v in message.items() if v is not None} if isinstance(message, Mapping) else {}
    for role, content in (("role", "content"), ("from", "value")):
        if role in found:
            who = role_of(found[role])
            if content not in found:
                raise DataError(f"Wanted {content!r} in the turn of the {who}, found {', '.join(found)}.")
            return [Turn(who, found[content], _learnt(found.get("loss", True)))]
    pair = [Turn(role_of(key), found[key]) for key in ("system", "human", "user", "assistant", "gpt") if key in found]
    if not pair:
        raise DataError(f"Wanted a turn as {{role, content}} or {{from, value}}, found {message!r:.120}.")
    return pair


def _learnt(loss: Any) -> bool:
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
    """All rejected replies: `rejected_response` may be a list of texts."""
    found = fields.take(*REJECTED)
    if found is None:
        return []
    return list(found) if isinstance(found, (list, tuple)) and all(isinstance(v, str) for v in found) else [found]


def _preference(
    turns: list[Turn], chosen: Any, rejected: list[Any]
) -> tuple[tuple[Turn, ...], tuple[Any, ...], tuple[Any, ...]]:
    """The prompt, what is preferred and what is rejected; rejected replies alone follow the prompt of the last turn."""
    if not rejected and chosen is None:
        return tuple(turns), (), ()
    if chosen is not None and not rejected:
        raise DataError('Wanted "rejected" beside "chosen", found "chosen" alone. Add it, or rename it to "response".')
    if chosen is None:
        if not turns or turns[-1].role != "assistant":
            raise DataError('Wanted "chosen", or a last turn of the assistant to prefer to "rejected"; found neither.')
        turns, chosen = turns[:-1], turns[-1].content
    ends = [_end(value, turns) for value in (chosen, *rejected)]
    prompt = ends[0][0]
    if any(other != prompt for other, _ in ends):
        raise DataError("Wanted one prompt for the chosen and the rejected reply, found two. Make them two rows.")
    if prompt and prompt[-1].role == "assistant":
        raise DataError(
            "Wanted a prompt that ends with the user before chosen and rejected, found the assistant's turn."
        )
    return tuple(prompt), (ends[0][1],), tuple(content for _, content in ends[1:])


def _end(value: Any, turns: list[Turn]) -> tuple[list[Turn], Any]:
    """(prompt, reply) of text, content, one turn, or a conversation that may hold the prompt as well."""
    if _is_turn(value):
        value = [value]
    if not _conversation(value):
        return turns, value
    said = _listed(value)
    if said[-1].role != "assistant":
        raise DataError(f"Wanted chosen and rejected to end with the assistant, found {said[-1].role}.")
    return (said[:-1] or turns), said[-1].content


def _objects(
    fields: Fields, turns: tuple[Turn, ...], chosen: tuple[Any, ...], rejected: tuple[Any, ...]
) -> tuple[tuple[Turn, ...], tuple[Any, ...], tuple[Any, ...]]:
    """Write the names of ms-swift's `objects` in place of <ref-object>; boxes need the frame of a model: refused."""
    objects = fields.left.get("objects")
    if not isinstance(objects, Mapping):
        return turns, chosen, rejected
    contents = [*(turn.content for turn in turns), *chosen, *rejected]
    if objects.get("bbox") and any(isinstance(c, str) and "<bbox>" in c for c in contents):
        raise DataError(
            "Wanted boxes as text or as the solution, found <bbox> placeholders: how a box is written depends on the "
            "model's frame. Write the boxes into the text, or put them into `solution` and score them by a reward."
        )
    names = [str(name) for name in objects.get("ref") or ()]
    turns = tuple(Turn(turn.role, _named(turn.content, names), turn.learn) for turn in turns)
    # Each reply starts with the names that the prompt left over.
    return turns, tuple(_named(c, list(names)) for c in chosen), tuple(_named(c, list(names)) for c in rejected)


def _named(content: Any, names: list[str]) -> Any:
    """Text with the first of `names` in place of each <ref-object>; they are taken off the list."""
    if not isinstance(content, str):
        return content
    head, *tail = content.split("<ref-object>")
    return head + "".join((names.pop(0) if names else "<ref-object>") + piece for piece in tail)
