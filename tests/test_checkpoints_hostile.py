"""Files that want to harm, or are damaged, or are something else: each is refused in one sentence,
nothing is executed, nothing is written, and it takes neither much memory nor much time."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict

import checkpoint_files as files
import pytest
import torch

from engine.checkpoints import add
from engine.checkpoints.add import add_model
from engine.errors import WeightsError

BOOM = "open('EXECUTED', 'w').close()"


class Call:
    """Pickles as a call of function with arguments, and an attribute dictionary."""

    def __init__(self, function, *arguments, state=None):
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def stream(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def calling(module: str, name: str, argument: str = BOOM) -> bytes:
    """A stream that calls module.name(argument)."""
    return stream(named(module, name), text(argument), b"\x85R")


ORDERED = named("collections", "OrderedDict")
PERSISTENT = named("torch_utils.persistence", "_reconstruct_persistent_obj")


def smuggled(weights: dict) -> bytes:
    """A good training pickle with a call hidden in one tensor's payload."""
    good = files.training_pickle(weights)
    key = good.index(b"FloatStorage")
    start = good.rindex(b"ctorch\n", 0, key)
    evil = b"cposix\nsystem"
    assert len(evil) < len(b"ctorch\nFloatStorage")
    return good[:start] + evil.ljust(len(b"ctorch\nFloatStorage"), b"x") + good[key + 12 :]


def with_memo_bomb() -> bytes:
    """Lists of lists of lists: 2^200 leaves if anybody walks them."""
    body = b"]\x94"
    for index in range(200):
        body += b"](" + (b"h" + bytes([index])) * 2 + b"e\x94"
    return stream(b"}" + text("G_ema"), b"(", body, b"t", b"s")


def shared_bomb() -> bytes:
    """A network whose arguments are such lists."""
    nested = b"]\x94"
    for index in range(60):
        nested += b"](" + (b"h" + bytes([index])) * 2 + b"e\x94"
    state = b"}" + text("_init_kwargs") + b"}" + text("z_dim") + b"(" + nested + b"tss"
    meta = (
        b"}(" + text("type") + text("class") + text("version") + b"K\x06"
        + text("class_name") + text("TriPlaneGenerator") + text("state") + state + b"u"
    )  # fmt: skip
    return stream(b"}" + text("G_ema"), PERSISTENT, meta, b"\x85R", b"s")


def module_bomb() -> bytes:
    """Modules that hold the same module twice, sixty deep: 2^60 modules."""
    with files.original_classes():
        inner = files.Network("SynthesisBlock", files.module_state())
        for _ in range(60):
            state = files.module_state()
            state["_modules"] = OrderedDict(a=inner, b=inner)
            inner = files.Network("SynthesisBlock", state)
        network = files.generator({}, None)
        network.state["_modules"]["backbone"] = inner
        return pickle.dumps({"G_ema": network}, 4)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def storage_pickle(key: str, count: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """data.pkl of a state dict with one tensor, protocol 2."""
    numbers = [b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in s) + b"t"
               for s in (shape, stride)]  # fmt: skip
    size = b"\x8a\x08" + struct.pack("<q", count)
    storage = b"(" + text("storage") + named("torch", "FloatStorage") + text(key) + text("cpu")
    storage += size + b"tQ"
    tensor = named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"K\x00"
    tensor += numbers[0] + numbers[1] + b"\x89" + ORDERED + b")RtR"
    return b"\x80\x02}" + text("backbone.synthesis.b4.const") + tensor + b"s."


def archive(data: bytes, storage: bytes = bytes(64), **more: bytes) -> bytes:
    members = {"m/data.pkl": data, "m/data/0": storage, "m/version": b"3\n"}
    return zipped(members | {k.replace("_", "/"): v for k, v in more.items()})


def safetensors(entries: dict, data: bytes = b"", metadata: dict | None = None) -> bytes:
    described = ({"__metadata__": metadata} if metadata else {}) | entries
    head = json.dumps(described).encode()
    return struct.pack("<Q", len(head)) + head + data


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def changed(weights, name, value):
    return files.training_pickle(weights | {name: value})


W = "backbone.mapping.fc0.weight"
NAN = torch.full((16, 24), float("nan"))
# name -> (what makes the file from good weights, words of the sentence)
HOSTILE = {
    # Names that are not inert.
    "os.system": (lambda w: calling("os", "system", "touch EXECUTED"), "os.system"),
    "posix.system": (lambda w: calling("posix", "system", "touch EXECUTED"), "posix.system"),
    "eval": (lambda w: calling("builtins", "eval"), "builtins.eval"),
    "exec, protocol 2": (lambda w: calling("__builtin__", "exec"), "exec"),
    "by the stack": (
        lambda w: stream(text("builtins"), text("exec"), b"\x93", text(BOOM), b"\x85R"),
        "builtins.exec",
    ),
    "getattr": (lambda w: calling("builtins", "getattr"), "builtins.getattr"),
    "a class of a known module": (lambda w: calling("torch.storage", "open"), "torch.storage.open"),
    "a dotted name": (
        lambda w: stream(text("collections"), text("OrderedDict.__init__.__globals__"), b"\x93"),
        "OrderedDict.__init__",
    ),
    "torch.load": (lambda w: calling("torch.serialization", "load"), "torch.serialization.load"),
    "a real pickle of a call": (lambda w: pickle.dumps(Call(eval, BOOM)), "eval"),
    "in the payload of a tensor": (smuggled, "posix.system"),
    "in a zip": (lambda w: archive(calling("os", "system", "touch EXECUTED")), "os.system"),
    "in a legacy file": (lambda w: files.saved(Call(eval, BOOM), False), "eval"),
    "a name with control characters": (lambda w: calling("os\x1b[2J", "system"), r"os\?\[2J"),
    # Known names, misused.
    "wrong arguments": (lambda w: stream(ORDERED, b"K\x01\x85R"), "damaged"),
    "calling a class": (
        lambda w: calling("training.triplane", "OSGDecoder"),
        "misuses training.triplane.OSGDecoder",
    ),
    "calling a text": (lambda w: stream(text("os"), b")R"), "damaged"),
    "making a function": (
        lambda w: stream(named("torch._utils", "_rebuild_tensor_v2"), b")\x81"),
        "damaged",
    ),
    "attributes of a function": (
        lambda w: stream(named("torch._utils", "_rebuild_tensor_v2"), b"}", text("call"), b"Nsb"),
        "damaged",
    ),
    "attributes of a number type": (
        lambda w: stream(named("numpy", "dtype"), text("f8"), b"\x85R}b"),
        "damaged",
    ),
    "number type of objects": (lambda w: calling("numpy", "dtype", "O"), "damaged"),
    "a persistent id": (lambda w: stream(text("x"), b"Q"), "damaged"),
    "another way of keeping objects": (
        lambda w: stream(PERSISTENT, b"}", text("type"), text("evil"), b"s\x85R"),
        "unknown way",
    ),
    "the extension registry": (lambda w: stream(b"\x82\x01"), "0x82"),
    "an instance, protocol 0": (lambda w: stream(b"(", text(BOOM), b"ios\nsystem\n"), "0x69"),
    "protocol 0": (lambda w: b"cos\nsystem\n(S'touch EXECUTED'\ntR.", "not a model"),
    # Damage.
    "cut at the start": (lambda w: files.training_pickle(w)[:40], "damaged"),
    "cut in the middle": (lambda w: files.training_pickle(w)[:300_000], "damaged"),
    "cut by a byte": (lambda w: files.training_pickle(w)[:-1], "damaged"),
    "more behind the end": (lambda w: files.training_pickle(w) + b"more", "damaged"),
    "a zip cut": (lambda w: files.saved(w)[:-100], "damaged"),
    "a zip without its head": (lambda w: b"PK\x03\x04" + files.saved(w)[5000:], "damaged"),
    "a legacy file cut": (lambda w: files.saved(w, False)[:-100], "damaged"),
    "a legacy file with more": (lambda w: files.saved(w, False) + b"more", "damaged"),
    "an empty stack": (lambda w: stream(b""), "damaged"),
    "a mark left": (lambda w: stream(b"("), "damaged"),
    "an unknown memory": (lambda w: stream(b"h\x07"), "damaged"),
    "no text": (lambda w: stream(b"X\x02\0\0\0\xff\xff"), "damaged"),
    # Bombs.
    "a huge length": (lambda w: stream(b"\x8e" + struct.pack("<Q", 1 << 62)), "damaged"),
    "a huge text": (lambda w: stream(b"\x8d" + struct.pack("<Q", 1 << 40)), "far more"),
    "a huge integer": (lambda w: stream(b"\x8b" + struct.pack("<i", 1 << 26) + bytes(99)), "more"),
    "an integer of negative length": (lambda w: stream(b"\x8b\xff\xff\xff\xff"), "damaged"),
    "nesting": (lambda w: stream(b"(" * 100_000), "far more"),
    "deep lists": (lambda w: stream(b"]" + b"]" * 49_999 + b"a" * 49_999), "no EG3D"),
    "deep tuples as a key": (lambda w: stream(b"}N" + b"\x85\x94h\x00\x86" * 9 + b"Ns"), "damaged"),
    "instructions": (lambda w: stream(b"]\x94" + b"}" * 301_000), "far more"),
    "sharing": (lambda w: with_memo_bomb(), "no EG3D"),
    "sharing in the arguments": (lambda w: shared_bomb(), "far more"),
    "sharing modules": (lambda w: module_bomb(), "far more"),
    "colliding keys": (
        lambda w: stream(b"}(" + b"\x8a\x09" + struct.pack("<qb", (1 << 61) - 1, 0) + b"Nu"),
        "damaged",
    ),
    # Tensors that lie.
    "a storage too small": (
        lambda w: archive(storage_pickle("0", 99, (9, 11), (11, 1))),
        "damaged",
    ),
    "a tensor larger than its storage": (
        lambda w: archive(storage_pickle("0", 16, (4, 5), (5, 1))),
        "claims more",
    ),
    "a tensor of one number": (
        lambda w: archive(storage_pickle("0", 16, (1 << 20, 1 << 20), (0, 0))),
        "claims more",
    ),
    "a negative stride": (lambda w: archive(storage_pickle("0", 16, (4,), (-1,))), "damaged"),
    "a negative size": (lambda w: archive(storage_pickle("0", -16, (4,), (1,))), "damaged"),
    "an overflowing size": (
        lambda w: archive(storage_pickle("0", (1 << 62) + 4, (4,), (1,))),
        "damaged",
    ),
    "a storage elsewhere": (
        lambda w: archive(storage_pickle("../../x", 16, (4,), (1,))),
        "damaged",
    ),
    "a missing storage": (lambda w: archive(storage_pickle("7", 16, (4,), (1,))), "damaged"),
    # Archives.
    "names that leave the folder": (
        lambda w: archive(storage_pickle("0", 16, (4,), (1,)), **{".._.._evil": b"x"}),
        "elsewhere",
    ),
    "a name from the root": (lambda w: zipped({"/etc/x": b"", "m/data.pkl": b""}), "elsewhere"),
    "a compressed bomb": (
        lambda w: zipped({"m/data.pkl": bytes(50 << 20)}, zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "a zip of something else": (lambda w: zipped({"word/document.xml": b"<x/>"}), "torch.save"),
    "an archive of many": (lambda w: zipped({f"m/{i}": b"" for i in range(21_000)}), "far more"),
    "other byte order": (
        lambda w: archive(storage_pickle("0", 16, (4,), (1,)), m_byteorder=b"big"),
        "machine",
    ),
    # Weights.
    "not a number": (lambda w: changed(w, W, NAN), "not finite"),
    "infinite": (lambda w: changed(w, W, torch.full((16, 24), float("inf"))), "not finite"),
    "too large for a float": (
        lambda w: changed(w, W, torch.full((16, 24), 1e300, dtype=torch.float64)),
        "not finite",
    ),
    "wrong shape": (lambda w: changed(w, W, torch.zeros(16, 25)), "do not fit"),
    "a tensor missing": (
        lambda w: files.training_pickle({k: v for k, v in w.items() if k != W}),
        "do not fit",
    ),
    "a tensor too many": (lambda w: changed(w, "backbone.extra", torch.zeros(3)), "do not fit"),
    "another filter": (
        lambda w: changed(w, "backbone.synthesis.b8.resample_filter", torch.ones(4, 4)),
        "filter",
    ),
    "a module that is a tensor": (
        lambda w: files.training_pickle(w, changes={"_modules": {"renderer": 3}}),
        "planes lie",
    ),
    "absurd sizes": (
        lambda w: files.training_pickle(
            w, changes={"_init_kwargs": files.INIT | {"channel_max": 1 << 23, "w_dim": 1 << 23}}
        ),
        "do not fit",
    ),
    "a million layers": (
        lambda w: files.training_pickle(
            w, changes={"_init_kwargs": files.INIT | {"mapping_kwargs": {"num_layers": 10**6}}}
        ),
        "do not fit",
    ),
    "no channels": (
        lambda w: files.training_pickle(
            w, changes={"_init_kwargs": files.INIT | {"channel_base": 1}}
        ),
        "do not fit",
    ),
    "arguments that are no numbers": (
        lambda w: files.training_pickle(w, changes={"_init_kwargs": {"z_dim": b"x" * 300}}),
        "no number or text",
    ),
    # Other networks, other files.
    "no average": (lambda w: files.saved({"G": {}, "D": {}}), "no EG3D generator"),
    "another network": (
        lambda w: files.training_pickle(w).replace(b"TriPlaneGenerator", b"StyleGANGenerator"),
        "is a StyleGANGenerator",
    ),
    "another state dict": (lambda w: files.saved({"conv.weight": torch.ones(3)}), "no EG3D"),
    "a text": (lambda w: b"These are not the weights.\n" * 9, "not a model"),
    "a picture": (lambda w: b"\x89PNG\r\n\x1a\n" + bytes(99), "not a model"),
    "nothing": (lambda w: b"", "empty"),
    "one byte": (lambda w: b"\x80", "not a model"),
    "a page of HTML": (lambda w: b"<!doctype html><title>404</title>", "not a model"),
    # .safetensors.
    "a head too long": (lambda w: struct.pack("<Q", 1 << 40) + b"{" + bytes(99), "damaged"),
    "tensors that overlap": (
        lambda w: safetensors({"a": entry([4], 0, 16), "b": entry([4], 8, 24)}, bytes(24)),
        "damaged",
    ),
    "a tensor past the end": (lambda w: safetensors({"a": entry([9], 0, 36)}, bytes(8)), "damaged"),
    "a type unknown": (lambda w: safetensors({"a": entry([4], 0, 4, "F4")}, bytes(4)), "damaged"),
    "a wrong hash": (
        lambda w: safetensors(
            {}, b"", {"format": "triplane-model", "version": "1", "model": '{"system": "eg3d"}'}
        ),
        "damaged",
    ),
    "of the future": (
        lambda w: safetensors({}, b"", {"format": "triplane-model", "version": "9"}),
        "version does not know",
    ),
    "a head that is deep": (
        lambda w: struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995,
        "damaged",
    ),
}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return files.weights()


@pytest.mark.parametrize("kind", HOSTILE)
def test_refused(tmp_path, monkeypatch, weights, kind):
    make, words = HOSTILE[kind]
    data = make(weights)
    path = tmp_path / "evil.pkl"
    path.write_bytes(data)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    started = time.process_time()
    tracemalloc.start()
    with pytest.raises(WeightsError, match=words) as caught:
        add_model(path, "evil", tmp_path / "models")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    error = caught.value
    assert error.sentence.endswith(".") and error.sentence.count(". ") == 0
    assert error.sentence.isprintable() and len(error.sentence) < 200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.pkl", "here"]
    assert list(here.iterdir()) == []
    assert peak < 64 << 20 and time.process_time() - started < 5


def test_a_folder_and_a_missing_file(tmp_path):
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "none.pkl", "cannot be read")):
        with pytest.raises(WeightsError, match=words):
            add_model(path, "evil", tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


def test_damage_anywhere_is_refused_or_harmless(tmp_path, monkeypatch, weights):
    """Bytes changed at random in what is no number: a sentence, or a value, but no other error."""
    small = {k: v.flatten()[:1] for k, v in list(weights.items())[:12]}
    good = {
        "pickle": files.training_pickle(small),
        "zip": files.saved(small),
        "legacy": files.saved(small, False),
    }
    monkeypatch.chdir(tmp_path)
    drawn = random.Random(0)
    refused = 0
    for number in range(240):
        data = bytearray(good[list(good)[number % 3]])
        for _ in range(drawn.randint(1, 3)):
            data[drawn.randrange(len(data))] = drawn.randrange(256)
        path = tmp_path / "a.pkl"
        path.write_bytes(data)
        try:
            with add.opened(path) as (handle, mapped):
                source = add.read_source(handle, mapped)
                add.read_tensors(source.tensors, len(mapped))
        except WeightsError:
            refused += 1
    assert refused > 60
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl"]
