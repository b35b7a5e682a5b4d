"""Settings files: what they say, what is refused in them, and that what is written is read back."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giffusion.engine.errors import GiffusionError, InputError, OutputError, SettingsError
from giffusion.engine.settings import RenderSettings
from giffusion.server import settings_file
from giffusion.server.cli import _parse, _parsers
from giffusion.server.settings_file import load_settings_file
from giffusion.server.settings_keys import OF_THE_CALL, Key, Kind, actions_of, settings_keys
from giffusion.server.settings_text import save_settings, settings_text
from tests.pages import DOCS, page_texts, table_rows
from tests.server.conftest import Command

Write = Callable[[str], Path]
KEYS = {key.dest: key for key in settings_keys()}
FILM = "0: a dog\n4: a lion\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a settings file into the working folder, below the line with its schema."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = Path("giffusion.toml")
        path.write_text(f"schema = 1\n{text}", encoding="utf-8")
        return path

    return write


def parse(line: str) -> argparse.Namespace:
    return _parse(shlex.split(line))


def values(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what of a command's options a settings file can have."""
    return {key.dest: getattr(options, key.dest) for key in settings_keys()}


# What is read


@pytest.mark.parametrize(
    ("text", "dest", "value"),
    [
        ("[time]\nfps = 24", "fps", Fraction(24)),
        ("[time]\nfps = 23.976", "fps", Fraction(23976, 1000)),
        ('[time]\nfps = "24000/1001"', "fps", Fraction(24000, 1001)),
        ("[init]\nvideo_start = 0.1", "video_start_s", Fraction(1, 10)),
        ('[init]\nvideo_start = "1/3"', "video_start_s", Fraction(1, 3)),
        ("[init]\nvideo_start = 1_000.5", "video_start_s", Fraction(2001, 2)),
        ('[init]\nvideo_start = "1:02.5"', "video_start_s", Fraction(125, 2)),
        ("[frames]\nguidance = 4.50", "guidance", "4.50"),
        ("[frames]\nguidance = +4", "guidance", "4"),
        ("[frames]\nseed = 9007199254740993", "seed", "9007199254740993"),
        ('[frames]\nguidance = """\n0:(4),\n30:(4+sin(t))"""', "guidance", "0:(4),\n30:(4+sin(t))"),
        ("[sampling]\neta = 1", "eta", 1.0),
        ('[sampling]\nsize = "512x384"', "size", (512, 384)),
        ('[sound]\naudio_band = "20-200"', "audio_band", (20.0, 200.0)),
        ("[time]\nloop = false", "loop", False),
        ("[time]\nframes = 0x10", "num_frames", 16),
        ("[output]\nquality = 80", "quality", 80),
        ('prompts.text = "0: a dog"', "prompts", "0: a dog"),
        ("[prompts]\nhead = ''", "head", ""),
        ('[comet]\ntarget = "me/films"', "comet", "me/films"),
    ],
)
def test_a_value_is_what_its_option_makes_of_it(
    text: str, dest: str, value: object, write: Write
) -> None:
    found = load_settings_file(write(text))
    assert found == {dest: value}
    assert type(found[dest]) is type(value)


def test_a_mark_before_the_text_is_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbfschema = 1\r\n[prompts]\r\ntext = '''\r\n0: a\r\n'''\r\n")
    assert load_settings_file(path) == {"prompts": "0: a\n"}


def test_paths_begin_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "giffusion.toml").write_text(
        'schema = 1\n[prompts]\nfile = "film.txt"\n[init]\nimage = "../a.png"\nvideo = "/b.mp4"\n'
        'control = "maps/%05d.png"\n[sound]\naudio = "~/c.wav"\n[output]\noutput = "out.mp4"\n'
        '[machine]\nmodel = "./sd15"\n[comet]\ntarget = "offline:archive"\n'
    )
    assert load_settings_file(tmp_path / "giffusion.toml") == {
        "file": tmp_path / "film.txt",
        "image": f"{tmp_path}/../a.png",
        "video": "/b.mp4",
        "control": f"{tmp_path}/maps/%05d.png",
        "audio": os.path.expanduser("~/c.wav"),
        "output": tmp_path / "out.mp4",
        "model": f"{tmp_path}/./sd15",
        "comet": f"offline:{tmp_path}/archive",
    }


def test_what_is_no_path_is_left_alone(write: Write) -> None:
    text = '[prompts]\nfile = "-"\n[machine]\nmodel = "mini"\n[comet]\ntarget = "me/films"'
    path = write(text).absolute()
    assert load_settings_file(path) == {"file": Path("-"), "model": "mini", "comet": "me/films"}


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[motion]\nzom = 1", "[motion] unknown key 'zom': did you mean 'zoom'? known: angle, "),
        (
            "[init]\nvideo-start = 1",
            "[init] unknown key 'video-start': did you mean 'video_start'?",
        ),
        ("[mootion]\nzoom = 1", "unknown section 'mootion': did you mean 'motion'? known: comet, "),
        (
            '[frames]\nsampler = "euler"',
            "[frames] sampler stands elsewhere: put it below [sampling]",
        ),
        ("steps = 3", "steps stands elsewhere: put it below [frames]"),
        ("[output]\nfile = 'a.gif'", "[output] unknown key 'file': known: encoder, "),
        (
            "[output]\nforce = true",
            "[output] force is no setting of a render: leave it out, and give --force with the ",
        ),
        ("[output]\nsave_config = 'a'", "[output] save_config is no setting of a render: leave it"),
        (
            'prompts = "0: a"',
            "prompts is '0: a': expected a section, [prompts], and its keys below",
        ),
        ("[[motion]]\nzoom = 1", "motion is a list: expected a section"),
        ("[time]\nloop = 1", "[time] loop is 1: expected true or false"),
        (
            "[frames]\nsteps = true",
            "[frames] steps is true: expected a number, or a text in quotes",
        ),
        ("[time]\nframes = 1.5", "[time] frames is 1.5: expected a whole number"),
        ("[time]\nframes = '9'", "[time] frames is '9': expected a whole number"),
        ("[sampling]\neta = 'a'", "[sampling] eta is 'a': expected a number"),
        ("[prompts]\nnegative = 5", "[prompts] negative is 5: expected a text in quotes"),
        ("[sampling]\nsize = [64, 64]", "[sampling] size is a list: expected a text in quotes"),
        ("[motion.zoom]\na = 1", "[motion] zoom is a section: expected a number, or a text"),
        ("[frames]\nseed = 1979-05-27", "[frames] seed is datetime.date(1979, 5, 27): expected"),
        (f"[frames]\nseed = 0x{'f' * 5000}", "[frames] seed is a number of many digits: expected"),
        ("[time]\nfps = 0", "[time] fps: fps 0 is out of range: expected at least 1/1000"),
        ('[sampling]\nsize = "big"', "[sampling] size: size 'big' is not a size: expected WIDTHx"),
        ('[init]\nimage = "a\\u0000"', "[init] image 'a\\x00' has a character of no text"),
        ("[prompts]\nfile = 'a'\ntext = 'b'", "[prompts] has both file and text: give one of them"),
    ],
)
def test_a_wrong_entry_is_a_line_with_file_and_key(text: str, message: str, write: Write) -> None:
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        load_settings_file(path)
    assert str(caught.value).startswith(f"giffusion.toml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "giffusion.toml has no schema: expected the line schema = 1 at its top"),
        (b"schema = 2", "giffusion.toml has schema 2: expected 1; a later one needs a later giff"),
        (b"schema = '1'", "giffusion.toml has schema '1': expected 1"),
        (b"schema = true", "giffusion.toml has schema true: expected 1"),
        (b"schema = 1\nsampler = euler", "giffusion.toml is no TOML: Invalid value (at line 2, "),
        (
            b"schema = 1\nschema = 1\n",
            "giffusion.toml is no TOML: Cannot overwrite a value (at line ",
        ),
        (b"schema = 1 'a\n", "giffusion.toml is no TOML: "),
        (b"schema = " + b"9" * 5000, "giffusion.toml is no settings file: it has a number"),
        (b"a = " + b"[" * 50_000, "giffusion.toml is no settings file: it has a number of"),
        (b"schema = 1 # \xff", "giffusion.toml is not UTF-8 text: byte 13 cannot be read"),
    ],
)
def test_what_is_no_settings_file_is_a_line(content: bytes, message: str, write: Write) -> None:
    path = write("")
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_settings_file(path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("long.toml").write_text("#" * 99)
    monkeypatch.setattr(settings_file, "MAX_BYTES", 98)
    for name, message in {
        "none.toml": "none.toml cannot be read: No such file or directory",
        "folder": "folder cannot be read: Is a directory",
        "a\0": "a\0 cannot be read: embedded null byte",
        "long.toml": "long.toml is longer than 0 MiB of settings: keep key frames in a file",
    }.items():
        with pytest.raises(InputError) as caught:
            load_settings_file(Path(name))
        assert str(caught.value).startswith(message)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=200)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    path = Path(os.environ["GIFFUSION_HOME"]).parent / "any.toml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_settings_file(path)


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ('[sampling]\nsampler = "eulr"', "", "[sampling] sampler: unknown sampler 'eulr': did you"),
        ('[frames]\nguidance = "4 +"', "", "[frames] guidance: guidance"),
        ("[init]\nvideo_start = 1", "", "[init] video_start: --video-start is "),
        ("[time]\nloop = true\npingpong = true", "", "loop and pingpong both close the sequence"),
    ],
)
def test_a_refusal_of_the_settings_names_the_file(
    text: str, words: str, message: str, write: Write, program: Command
) -> None:
    write(text)
    status, out, err = program(f"plan --prompts '{FILM}' --config giffusion.toml {words}")
    assert (status, out) == (2, "")
    assert err.startswith(f"giffusion: giffusion.toml: {message}")
    assert err.count("\n") == 1


def test_a_refusal_of_a_flag_is_not_the_files(write: Write, program: Command) -> None:
    write("[frames]\nsteps = 3")
    line = f"plan --prompts '{FILM}' --config giffusion.toml --sampler eulr"
    assert program(line)[2].startswith("giffusion: unknown sampler 'eulr'")


def test_what_a_command_refuses_later_names_the_file(write: Write, program: Command) -> None:
    write("[machine]\nbatch = 0\n[output]\noutput = 'a.gif'")
    status, _, err = program(f"render --prompts '{FILM}' --config giffusion.toml")
    assert status == 2
    assert err == (
        "giffusion: batch 0 is out of range: expected 1 to 1024; with the settings of "
        "giffusion.toml\n"
    )


# What counts more


def test_options_count_more_than_the_file(write: Write) -> None:
    write(
        "[time]\nfps = 10\nloop = true\n"
        "[output]\noutput = 'a.gif'\nkeep_partial = true\nquality = 3"
    )
    options = parse("render film.txt --config giffusion.toml")
    given = (options.fps, options.loop, options.output, options.keep_partial, options.quality)
    assert given == (10, True, Path("a.gif"), True, 3)
    line = "render film.txt --config giffusion.toml --fps 20 --no-loop -o b.gif --no-keep-partial"
    options = parse(f"{line} --quality 4")
    given = (options.fps, options.loop, options.output, options.keep_partial, options.quality)
    assert given == (20, False, Path("b.gif"), False, 4)


def test_a_flag_switches_on_what_the_file_switches_off(write: Write) -> None:
    write("[time]\nloop = false\n[machine]\nshrink_tail = false")
    assert parse("plan film.txt --config giffusion.toml").loop is False
    options = parse("render film.txt -o a.gif --config giffusion.toml --loop --shrink-tail")
    assert (options.loop, options.shrink_tail) == (True, True)


@pytest.mark.parametrize("in_file", ["file = 'other.txt'", "text = '0: a cat'"])
def test_key_frames_that_are_given_count_more(in_file: str, write: Write) -> None:
    write(f"[prompts]\n{in_file}\nhead = 'oil on canvas,'")
    options = parse("plan --config giffusion.toml film.txt")
    assert (options.file, options.prompts) == (Path("film.txt"), None)
    options = parse("plan --config giffusion.toml --prompts '0: a dog'")
    assert (options.file, options.prompts) == (None, "0: a dog")
    assert options.head == "oil on canvas,"


def test_what_the_file_lacks_may_be_given(write: Write) -> None:
    write("[init]\nvideo_start = 1")
    assert parse("plan film.txt --config giffusion.toml --video a.mp4").video_start_s == 1


def test_options_without_a_file_are_as_they_were() -> None:
    options = parse("render film.txt -o a.gif")
    assert (options.force, options.keep_partial, options.shrink_tail) == (False, False, False)
    assert (options.loop, options.fps, options.comet) == (None, None, None)


def test_render_needs_an_output_of_the_two(write: Write, program: Command) -> None:
    write("")
    assert program("render film.txt --config giffusion.toml") == (
        2,
        "",
        "giffusion: the following arguments are required: -o/--output; see "
        "`giffusion render --help`\n",
    )


def test_plan_takes_a_files_settings(write: Write, program: Command) -> None:
    Path("film.txt").write_text(FILM)
    write("[prompts]\nfile = 'film.txt'\n[time]\nfps = 10\nloop = true\n[machine]\nbatch = 4")
    line = "plan film.txt --fps 10 --loop --json"
    assert program("plan --config giffusion.toml --json") == program(line)


# What is written

RATES = st.fractions(Fraction(1, 1000), 1000, max_denominator=10**9) | st.decimals(
    1, 999, places=3
).map(Fraction)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMBERS = st.sampled_from(["4", "-4", "4.50", "007", "+4", "1e5", "0.0000001", "-0", ".5", "5."])
PATHS = st.sampled_from(["a.png", "clips/b.mp4", "/abs/c.wav", "../d/%05d.png", "ein Bär.png"])
BANDS = st.tuples(
    st.decimals(0, 20_000, places=12).map(float), st.decimals(0, 20_000, places=3).map(float)
)
OF_A_KEY: dict[str, st.SearchStrategy[Any]] = {
    "fps": RATES,
    "video_start_s": RATES,
    "video_end_s": RATES,
    "audio_start_s": RATES,
    "audio_end_s": RATES,
    "size": st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    "audio_band": BANDS,
    "model": st.sampled_from(["mini", "./sd15", "models/sd15", "/abs/sd15"]),
    "comet": st.sampled_from(["films", "me/films", "offline:archive", "offline:/abs/archive"]),
}


def strategy(key: Key) -> st.SearchStrategy[Any]:
    """Returns what an option can be."""
    if key.dest in OF_A_KEY:
        return OF_A_KEY[key.dest]
    if key.is_path:
        return PATHS.map(Path) if key.action.type is Path else PATHS
    assert key.action.type in (None, int, float), f"{key} has a type of its own"
    return {
        Kind.FLAG: st.booleans(),
        Kind.WHOLE: st.integers(-(10**9), 10**9),
        Kind.NUMBER: st.floats(allow_nan=False),
        Kind.NUMBER_OR_TEXT: TEXTS | NUMBERS,
        Kind.TEXT: TEXTS,
    }[key.kind]


ANY_VALUES = st.fixed_dictionaries({}, optional={d: strategy(key) for d, key in KEYS.items()})


@given(ANY_VALUES)
def test_what_is_written_is_read_back(given: dict[str, Any]) -> None:
    path = Path("giffusion.toml")
    if "file" in given:
        given.pop("prompts", None)
    text = settings_text(given, path)
    folder = Path(os.environ["GIFFUSION_HOME"]).parent
    (folder / path).write_text(text, encoding="utf-8", newline="")
    before = os.getcwd()
    os.chdir(folder)
    try:
        found = load_settings_file(path)
    finally:
        os.chdir(before)
    assert found == {n: v for n, v in given.items() if v is not KEYS[n].default}
    assert all(type(found[n]) is type(given[n]) for n in found)


LINES = [
    "film.txt -o a.gif",
    "film.txt -o a.mp4 --negative fog --head 'oil, ' --tail '' --fps 24000/1001 --frames 9 "
    "--interpolation curve --interpolation-args '0:(t/8)' --latents lerp --embeddings lerp "
    "--seed '0:(1), 8:(2)' --steps 8 --guidance '0:(4), 8:(5.5)' --strength 0.50 --noise .9 "
    "--sampler ddim --eta 0.1 --size 64x96 --video clips/b.mp4 --video-start 1/3 --video-end 9.5 "
    "--video-stride 2 --resize pad --control 'maps/%05d.png' --control-scale 1.5 --audio c.wav "
    "--audio-start 0.1 --audio-end 99 --audio-component percussive --audio-margin 2 "
    "--audio-reduction mean --audio-band 20-200 --audio-smooth 0.25 --mute --encoder libx264 "
    "--quality 70 --force --model ./sd15 --runtime torch --precision fp16 --batch 8 --comet me/a",
    "--prompts '0: a\n4: b' -o 'x/%05d.png' --loop --fixed-latent --image /a.png --zoom 1.01 "
    "--angle '3*sin(t)' --translate-x 1 --translate-y=-2.5 --padding zeros --color-match "
    "--coherence 1e-7 --coherence-alpha 0.5 --coherence-noise 0.001 --keep-partial --shrink-tail",
    "--prompts '0: a' -o a.gif --pingpong --video b.mp4 --keep-audio --seed 9007199254740993",
    "--prompts '0: a' -o a.gif --no-loop --comet offline:archive",
]


def test_the_lines_have_every_option_but_what_a_file_is_for() -> None:
    words = {word.partition("=")[0] for line in LINES for word in shlex.split(line)}
    options = {o for key in settings_keys() for o in key.action.option_strings if o[:2] == "--"}
    assert options - words == {"--output"}


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_is_written_and_read_back(line: str, write: Write) -> None:
    options = parse(f"render {line} --save-config used.toml")
    save_settings(options)
    again = parse("render --config used.toml")
    assert values(again) == values(options)
    as_settings = [
        RenderSettings(
            **{
                name: value
                for name, value in values(each).items()
                if name in RenderSettings.__dataclass_fields__ and value is not None
            }
        )
        for each in (options, again)
    ]
    assert as_settings[0] == as_settings[1]
    Path("used.toml").unlink()
    save_settings(again := argparse.Namespace(**{**vars(again), "save_config": Path("b.toml")}))
    assert values(parse("render --config b.toml")) == values(options)


def test_the_text_is_as_a_person_would_write_it(write: Write) -> None:
    options = parse(
        "render -o a.gif --prompts '0: a' --fps 23.976 --video-start 12.5 --video b.mp4 --steps 8 "
        "--guidance '0:(4), 9:(5)' --noise 0.50"
    )
    options.prompts = "0: a\n4: b\n"
    text = settings_text(vars(options), Path("a.toml"))
    assert text.partition("\n")[0].startswith("# ")
    assert text.partition("\n")[2] == (
        'schema = 1\n\n[prompts]\ntext = """\n0: a\n4: b\n"""\n\n[time]\nfps = 23.976\n\n[frames]\n'
        'steps = 8\nguidance = "0:(4), 9:(5)"\nnoise = 0.50\n\n[init]\nvideo = "b.mp4"\n'
        'video_start = 12.5\n\n[output]\noutput = "a.gif"\n'
    )


def test_paths_mean_the_same_from_elsewhere(write: Write, tmp_path: Path) -> None:
    Path("clips").mkdir()
    Path("bare").mkdir()
    inside = {"image": "clips/a.png", "model": "bare", "comet": "offline:clips/archive"}
    outside = {"video": "b.mp4", "audio": "../c.wav", "control": "/d.png", "file": Path("film.txt")}
    for path in (Path("clips/used.toml"), tmp_path / "clips" / "used.toml", Path("used.toml")):
        text = settings_text(inside | outside, path)
        path.write_text(text)
        found = load_settings_file(path)
        for name, value in (inside | outside).items():
            seen = str(found[name]).removeprefix("offline:")
            assert os.path.realpath(seen) == os.path.realpath(str(value).removeprefix("offline:"))
        assert ('image = "a.png"' in text) == (path.parent.name == "clips")


def test_a_path_is_kept_from_what_its_letters_would_be(write: Write) -> None:
    Path("clips").mkdir()
    given: dict[str, Any] = {
        "file": Path("clips/-"),
        "image": "clips/~/a.png",
        "audio": "clips//b.wav",
    }
    Path("clips/used.toml").write_text(settings_text(given, Path("clips/used.toml")))
    found = load_settings_file(Path("clips/used.toml"))
    for name, value in given.items():
        assert os.path.normpath(found[name]) in (os.path.normpath(value), os.path.abspath(value))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("taken.toml", "taken.toml exists: give --force to replace it"),
        ("none/used.toml", "none does not exist: create it"),
        ("folder", "folder is a folder: give the name of a file"),
        ("a.gif", "a.gif is the output as well: give --save-config another name"),
    ],
)
def test_a_place_that_is_taken_is_refused_at_once(
    path: str, message: str, write: Write, program: Command
) -> None:
    Path("folder").mkdir()
    Path("taken.toml").write_text("mine")
    status, _, err = program(f"render --prompts '{FILM}' -o a.gif --save-config {path}")
    assert status == 2
    assert message in err
    assert sorted(os.listdir()) == ["folder", "taken.toml"]
    assert Path("taken.toml").read_text() == "mine"


def test_with_force_a_file_is_replaced(write: Write) -> None:
    Path("used.toml").write_text("old")
    save_settings(parse("render film.txt -o a.gif --force --save-config used.toml"))
    assert load_settings_file(Path("used.toml"))["output"] == Path("a.gif")
    assert os.listdir() == ["used.toml"]


def test_a_saved_file_does_not_replace_what_is_there(write: Write, program: Command) -> None:
    save_settings(parse("render film.txt -o a.gif --force --save-config used.toml"))
    Path("film.txt").write_text(FILM)
    Path("a.gif").write_text("mine")
    assert "force" not in Path("used.toml").read_text()
    status, _, err = program("render --config used.toml")
    assert (status, err) == (
        2,
        "giffusion: a.gif exists: give --force to replace it; with the settings of used.toml\n",
    )
    assert Path("a.gif").read_text() == "mine"


def test_what_appears_meanwhile_is_left_alone(write: Write) -> None:
    options = parse("render film.txt -o a.gif --save-config used.toml")
    Path("used.toml").write_text("another's")
    with pytest.raises(OutputError, match=r"used\.toml appeared during the render"):
        save_settings(options)
    assert Path("used.toml").read_text() == "another's"


def test_what_a_file_cannot_have_is_a_line(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parse("render film.txt -o a.gif --save-config used.toml")
    options.image = "a\udcff.png"
    with pytest.raises(SettingsError, match=r"cannot have \[init\] image 'a\\udcff\.png'"):
        save_settings(options)
    monkeypatch.setattr("giffusion.server.settings_text.MAX_BYTES", 150)
    options.image = "a" * 99
    with pytest.raises(GiffusionError, match=r"used\.toml would be longer than 0 MiB"):
        save_settings(options)
    assert os.listdir() == []


def test_a_full_disk_is_a_line_and_no_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parse("render film.txt -o a.gif --save-config used.toml")

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(GiffusionError, match="no space left in"):
        save_settings(options)
    assert os.listdir() == []


def test_place_checks_look_at_the_output_that_the_file_names(write: Write) -> None:
    write("[output]\noutput = './a.gif'")
    with pytest.raises(SettingsError, match="is the output as well"):
        parse("render film.txt --config giffusion.toml --save-config a.gif")


# The page and the parser


def test_every_option_of_a_command_is_a_key_or_of_the_call() -> None:
    for command in ("render", "plan"):
        dests = {action.dest for _, action in actions_of(_parsers()[1][command])}
        assert dests <= KEYS.keys() | OF_THE_CALL
    assert {a.dest for _, a in actions_of(_parsers()[1]["render"])} == KEYS.keys() | OF_THE_CALL


def test_no_two_keys_share_a_place() -> None:
    places = [(key.section, key.name) for key in settings_keys()]
    assert len(set(places)) == len(places)
    sections = [section for section, _ in places]
    changes = sum(before != after for before, after in pairwise(sections))
    assert changes == len(set(sections)) - 1


def test_the_page_has_every_key() -> None:
    rows = [row for row in table_rows("settings.md") if row[0].startswith("`[")]
    shown = [(row[0].strip("`[]"), name.strip("` ")) for row in rows for name in row[1].split(", ")]
    assert shown == [(key.section, key.name) for key in settings_keys()]


def test_the_example_is_a_settings_file(program: Command) -> None:
    found = load_settings_file(DOCS / "giffusion.toml")
    assert found["file"] == DOCS / "demo.txt"
    status, out, err = program(f"plan --config '{DOCS / 'giffusion.toml'}'")
    assert (status, err) == (0, "")
    assert out.count("\n") > 20


def test_the_pages_examples_work(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("")
    path.write_text(page_texts("settings.md", "toml")[0])
    assert load_settings_file(path)["fps"] == Fraction(24000, 1001)
    monkeypatch.chdir(DOCS.parent)
    for text in page_texts("settings.md", "python"):
        exec(compile(text, "settings.md", "exec"), {})
