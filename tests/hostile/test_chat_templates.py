"""Chat templates of others: every failure is one sentence, and none runs forever."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path

import pytest

from mmpost.cli import main
from mmpost.config.settings import ModelSettings
from mmpost.errors import ConfigError
from mmpost.models.chat import templates
from mmpost.models.chat.model import ChatModel

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
CASES = {
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "tries to leave its sandbox",
    "{{ messages.append(1) }}": "tries to leave its sandbox",
    "{% for %}": "fails with TemplateSyntaxError",
    "{{ messages.one.two }}": "fails with UndefinedError",
    "{{ raise_exception('no ' * 999) }}": "fails with TemplateError: no no",
    "{{ 1 / 0 }}": "fails with ZeroDivisionError",
    "{{ 1 + 'a' }}": "fails with TypeError",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "exhausts the memory",
    "{{ ''.__class__ }}": "writes nothing",
    ENDLESS: "not done after 0.2 s",
}


@pytest.fixture
def folder(tiny_folder: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


@pytest.mark.parametrize("template", CASES)
def test_a_failing_template_is_told(template: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_SECONDS", 0.2)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ConfigError, match=f"^the chat template .*{CASES[template]}") as e:
        ChatModel.load(str(folder), ModelSettings(device="cpu"))
    assert len(str(e.value)) < 600


def test_a_command_says_so_in_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")
    assert main(["export", f"model={folder}", f"out={tmp_path / 'out'}"]) == 1
    assert "mmpost: the chat template tries to leave its sandbox" in capsys.readouterr().err


class Templating:
    def __init__(self, text: str) -> None:
        self.text = text

    def apply_chat_template(self, messages: object, tokenize: bool, **kwargs: object) -> str:
        return self.text


def test_the_time_limit_leaves_other_timers_alone() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: calls.append(number))
    signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        assert templates.probe(Templating("text"), []) == "text"
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 400 < left <= 500
        signal.raise_signal(signal.SIGALRM)
        assert calls == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_templates_work_in_other_threads() -> None:
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(templates.probe(Templating("text"), [])))
    thread.start()
    thread.join(60)
    assert texts == ["text"]
