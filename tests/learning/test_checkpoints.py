"""Checkpoints: what is kept, what is passed over, where they can be read, and what a kill leaves."""

import json
import os
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import jobs
import numpy as np
import pytest

from synthrl_jax.credit.example import Example
from synthrl_jax.learning import checkpoints as module
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.checkpoints import CheckpointError, Checkpoints, UnreadableError, bit_sums
from synthrl_jax.learning.metrics import MetricWriter, read_metrics
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.learning.preemption import EXIT_CODE, Preempted
from synthrl_jax.learning.trainer import TrainSettings, train
from synthrl_jax.policy import decoder, sharding
from synthrl_jax.policy.sharding import make_mesh

ARRAYS = {"params": {"w": jnp.arange(4096, dtype=jnp.float32).reshape(64, 64)}, "count": jnp.array(7, jnp.int32)}


def files_of(directory, step):
    """Data files of a checkpoint, the largest first."""
    found = [p for p in (directory / str(step)).rglob("*") if p.is_file() and "arrays" in p.parts]
    return sorted(found, key=lambda p: -p.stat().st_size)


def saved(directory, steps=(1, 2), **options):
    with_best = {"best_update": 1}
    store = Checkpoints(directory, keep=2, **options)
    for step in steps:
        store.save(step, jax.tree.map(lambda x, step=step: x + step, ARRAYS), {"update": step} | with_best)
    store.close()


def test_the_last_ones_and_their_best_are_kept(tmp_path):
    store = Checkpoints(tmp_path, keep=2, background=True)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        store.save(step, ARRAYS, {"best_update": best})
    store.wait()
    assert store.steps() == [2, 4, 5]
    store.save(6, ARRAYS, {"best_update": 6})
    store.close()
    again = Checkpoints(tmp_path, keep=2)
    assert again.restore(ARRAYS)[1] == {"best_update": 6}
    assert again.steps() == [2, 5, 6]  # 5 may still be asked for its best
    again.close()


def flip(path):
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 8):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage", [flip, lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2])]
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, damage):
    saved(tmp_path)
    damage(files_of(tmp_path, 2)[0])
    store = Checkpoints(tmp_path, keep=2)
    with pytest.warns(UserWarning, match="checkpoint 2 in .* is damaged and passed over"):
        arrays, extra = store.restore(ARRAYS)
    assert extra["update"] == 1
    np.testing.assert_array_equal(arrays["params"]["w"], ARRAYS["params"]["w"] + 1)
    store.save(2, ARRAYS, {"update": 2})
    store.close()
    again = Checkpoints(tmp_path)
    assert again.restore(ARRAYS)[1]["update"] == 2
    again.close()


def test_every_file_of_a_checkpoint_is_watched(tmp_path):
    saved(tmp_path / "whole")
    names = [p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole" / "2").rglob("*") if p.is_file()]
    wrong = []
    for number, name in enumerate(names):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        (copy / name).write_bytes(b"")
        store = Checkpoints(copy)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.warnings, "warn", lambda *a, **k: None)
            arrays, extra = store.restore(ARRAYS)
        store.close()
        if not np.array_equal(arrays["params"]["w"], ARRAYS["params"]["w"] + extra["update"]):
            wrong.append(name)
    assert not wrong


def test_a_changed_value_is_found_even_where_the_file_reads_well(tmp_path):
    saved(tmp_path, steps=(1,))
    store = Checkpoints(tmp_path)
    real = module.bit_sums
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "bit_sums", lambda arrays: {name: v ^ 1 for name, v in real(arrays).items()})
        with pytest.warns(UserWarning, match="is not what was written"):
            assert store.read(1, ARRAYS) is None
    assert store.read(1, ARRAYS)[1]["update"] == 1
    store.close()


def rewritten(directory, step, change):
    """The extras of a checkpoint, changed in their file."""
    file = directory / str(step) / "extra" / "metadata"
    extra = json.loads(file.read_text())
    change(extra)
    file.write_text(json.dumps(extra))


@pytest.mark.parametrize(
    "change", [lambda e: e.update(update=9), lambda e: e.pop("bit_sums"), lambda e: e.pop("extra_sum"), dict.clear]
)
def test_changed_extras_are_found(tmp_path, change):
    saved(tmp_path)
    rewritten(tmp_path, 2, change)
    store = Checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="its extras are not what was written"):
        assert store.restore(ARRAYS)[1] == {"update": 1, "best_update": 1}
    store.close()


def test_where_none_is_whole_all_are_kept_aside_and_a_run_can_begin_anew(tmp_path):
    saved(tmp_path)
    for step in (1, 2):
        rewritten(tmp_path, step, dict.clear)
    sizes = {step: [p.stat().st_size for p in files_of(tmp_path, step)] for step in (1, 2)}
    store = Checkpoints(tmp_path)
    with pytest.warns(UserWarning) as told:
        assert store.restore(ARRAYS) is None
    assert any("is whole: 2 is now damaged-2" in str(warning.message) for warning in told)
    assert {step: [p.stat().st_size for p in files_of(tmp_path, f"damaged-{step}")] for step in (1, 2)} == sizes
    store.save(2, ARRAYS, {"update": 2})
    store.close()
    again = Checkpoints(tmp_path)
    assert again.steps() == [2] and again.restore(ARRAYS)[1] == {"update": 2}
    again.close()


@pytest.mark.parametrize(
    "trouble",
    [OSError(5, "Input/output error"), MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: out of memory")]
    + [ValueError("UNAVAILABLE: try again"), PermissionError(13, "not for you")],
    ids=lambda trouble: type(trouble).__name__,
)
def test_trouble_with_reading_is_no_damage_and_nothing_is_deleted(tmp_path, trouble, monkeypatch):
    saved(tmp_path)
    store = Checkpoints(tmp_path)
    real = store._manager.restore

    def restore(step, args):
        if step == 2:
            raise trouble
        return real(step, args=args)

    monkeypatch.setattr(store._manager, "restore", restore)
    with pytest.raises(UnreadableError, match="checkpoint 2 cannot be read now"):
        store.restore(ARRAYS)
    monkeypatch.undo()
    assert store.restore(ARRAYS)[1]["update"] == 2 and store.steps() == [1, 2]
    store.close()


def test_half_written_ones_are_no_checkpoints(tmp_path):
    saved(tmp_path)
    half = tmp_path / "3.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "2", half)
    with pytest.warns(UserWarning, match="3.orbax-checkpoint-tmp was not written to its end and is passed over"):
        store = Checkpoints(tmp_path)
    assert store.restore(ARRAYS)[1]["update"] == 2
    store.close()


def test_other_shapes_and_nothing_at_all_are_told_apart(tmp_path):
    store = Checkpoints(tmp_path / "empty")
    assert store.restore(ARRAYS) is None
    store.close()
    saved(tmp_path / "full")
    store = Checkpoints(tmp_path / "full")
    with pytest.raises(ValueError, match="params/w of checkpoint 2 has shape"):
        store.restore(ARRAYS | {"params": {"w": jnp.zeros((64, 65))}})
    assert store.steps() == [1, 2]
    store.close()


def test_a_checkpoint_moves_to_another_mesh(tmp_path):
    config = decoder.DecoderConfig(vocab_size=32, width=16, layers=2, heads=4)
    params = decoder.init(config, jax.random.key(0))
    meshes = [make_mesh(data=8), make_mesh(data=2, fsdp=2, tensor=2), make_mesh(data=1, fsdp=8)]
    sums = bit_sums(params)
    for number, (here, there) in enumerate(zip(meshes, meshes[1:] + meshes[:1])):
        placed = [jax.tree.map(jax.device_put, params, sharding.shardings(config, mesh)) for mesh in (here, there)]
        store = Checkpoints(tmp_path / str(number), background=True)
        store.save(1, placed[0], {})
        store.wait()
        arrays, _ = store.restore(placed[1])
        store.close()
        jax.tree.map(np.testing.assert_array_equal, arrays, params)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a.sharding == b.sharding, arrays, placed[1])))
        assert bit_sums(arrays) == sums


def test_sums_of_bits_are_the_same_on_host_and_device():
    arrays = {"a": jnp.linspace(-3, 3, 777), "b": jnp.linspace(-3, 3, 5, dtype=jnp.bfloat16), "c": jnp.array(-5)}
    assert bit_sums(arrays) == {name: int(v) for name, v in module._device_sums(arrays).items()}


def test_no_room_and_no_directory_are_said_and_the_earlier_one_is_intact(tmp_path, monkeypatch):
    saved(tmp_path / "a", steps=(1,))
    store = Checkpoints(tmp_path / "a", background=True)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(CheckpointError, match="free"):
        store.save(2, ARRAYS, {})
    monkeypatch.undo()
    assert store.restore(ARRAYS)[1]["update"] == 1
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(CheckpointError, match="gone"):
        store.save(3, ARRAYS, {})


@pytest.mark.long
def test_a_full_disk_ends_the_run_with_a_clear_error(tmp_path):
    jobs.run(tmp_path, updates=6, looks=1)
    before = Checkpoints(tmp_path / "checkpoints")
    steps = before.steps()
    before.close()
    shutil.rmtree(tmp_path / "checkpoints" / str(steps[-1]))
    printed = jobs.run(tmp_path, updates=6, looks=1, save_every=1, fill=4000, code=1)
    assert "CheckpointError" in printed and "intact are:" in printed
    jobs.run(tmp_path, updates=6, looks=1)


def test_metrics_that_cannot_be_written_end_the_run_as_a_full_disk_does(tmp_path, monkeypatch):
    config = decoder.DecoderConfig(vocab_size=8, width=8, layers=1, heads=2)
    rows = [Example(np.arange(4) + i, np.arange(4) > 0) for i in range(4)]
    settings = TrainSettings(
        loss="sft", optimizer=OptimizerSettings(learning_rate=1e-3), updates=4, looks=2, log_every=1
    )

    def full(self, file, step, values):
        if step == 3:
            raise OSError(28, "No space left on device", file.name)

    monkeypatch.setattr(MetricWriter, "_put", full)
    batches = Batches(rows, batch=2, seed=0, pad_id=0)
    with pytest.raises(CheckpointError, match=r"the metrics of update 3 .*No space left on device.*intact are: 2"):
        train(config, decoder.init(config, jax.random.key(0)), batches, settings, workdir=tmp_path)


def test_a_sigterm_at_the_very_end_is_not_swallowed(tmp_path, monkeypatch):
    config = decoder.DecoderConfig(vocab_size=8, width=8, layers=1, heads=2)
    rows = [Example(np.arange(4) + i, np.arange(4) > 0) for i in range(4)]
    settings = TrainSettings(loss="sft", optimizer=OptimizerSettings(learning_rate=1e-3), updates=2)
    close = MetricWriter.close

    def late(self):
        os.kill(os.getpid(), signal.SIGTERM)
        close(self)

    monkeypatch.setattr(MetricWriter, "close", late)
    with pytest.raises(Preempted):
        train(
            config,
            decoder.init(config, jax.random.key(0)),
            Batches(rows, batch=2, seed=0, pad_id=0),
            settings,
            workdir=tmp_path,
        )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    jobs.run(out)
    return out, time.monotonic() - began


def test_sigterm_saves_and_ends_with_its_code(tmp_path, uninterrupted):
    printed = jobs.run(tmp_path, term_at=8, slow=0.05, code=EXIT_CODE)
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.steps() and store.steps()[-1] >= 9 and store.steps()[-1] < 30, printed
    store.close()
    jobs.run(tmp_path)
    jobs.assert_equal(uninterrupted[0], tmp_path)


def seen(out):
    """How much of the updates' trail there is."""
    return (out / "seen").stat().st_size if (out / "seen").exists() else 0


def half_written(out):
    return list((out / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def killed_and_resumed(out, kills, seed, seconds, writes):
    """kill -9 a run at so many random moments or more, of which the last are aimed into checkpoint writes until so many were
    hit; then let it end. Each kill that counts found the run alive."""
    random = np.random.default_rng(seed)
    while kills > 0 or writes > 0:
        process, before = jobs.start(out, slow=0.02), seen(out)
        # most of a process's life is its start: wait for the first update, then a random part of the run
        while process.poll() is None and seen(out) == before:
            time.sleep(0.01)
        if kills > writes:
            time.sleep(random.uniform(0, seconds))
        else:
            while process.poll() is None and not half_written(out):
                time.sleep(0.0005)
        process.kill()
        printed, _ = process.communicate()
        if process.returncode == -signal.SIGKILL:
            writes -= bool(half_written(out))
            kills -= 1
        else:  # it was at its end before the kill came: begin again
            assert process.returncode == 0, printed
            shutil.rmtree(out)
    jobs.run(out)


def test_killed_three_times_it_ends_with_the_same_bits(tmp_path, uninterrupted):
    killed_and_resumed(tmp_path / "run", 3, 0, 0.6, writes=1)
    jobs.assert_equal(uninterrupted[0], tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_killed_twenty_times_it_ends_with_the_same_bits(tmp_path, uninterrupted, seed):
    killed_and_resumed(tmp_path / "run", 5, seed + 1, 1.0, writes=2)
    jobs.assert_equal(uninterrupted[0], tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_run_moves_from_one_process_to_two(tmp_path, uninterrupted, seed):
    process = jobs.start(tmp_path, slow=0.05)
    wanted = int(np.random.default_rng(seed).integers(8, 20))
    while process.poll() is None and f"[{wanted}]" not in ((tmp_path / "seen").read_text() if seen(tmp_path) else ""):
        time.sleep(0.005)
    process.kill()
    printed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, printed
    jobs.run_on_two(tmp_path, devices=2, mesh={"data": 2, "fsdp": 2})
    jobs.assert_close(uninterrupted[0], tmp_path, atol=2e-3)
    for found, wanted in zip(
        *map(read_metrics, (tmp_path / "metrics.jsonl", uninterrupted[0] / "metrics.jsonl")), strict=True
    ):
        assert found == pytest.approx(wanted, rel=1e-2, abs=1e-3)


@pytest.mark.long
def test_two_processes_agree_on_where_to_stop_at_sigterm(tmp_path):
    whole = tmp_path / "whole"
    jobs.run_on_two(whole, devices=2, mesh={"data": 4})
    out = tmp_path / "stopped"
    jobs.run_on_two(out, devices=2, mesh={"data": 4}, term_at=5, slow=0.05, code=EXIT_CODE)
    jobs.run_on_two(out, devices=2, mesh={"data": 4})
    jobs.assert_equal(whole, out)
