"""The training bench and the PyTorch process beside it."""

import pytest

from experiments.bench import training


def test_a_peer_that_is_not_installed_is_told_from_one_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "PEER", tmp_path / "peer.py")
    for ending, found in (("sys.exit(3)", None), ("print('{\"torch\": 1}')", {"torch": 1})):
        training.PEER.write_text(f"import sys; {ending}")
        started = training.start_peer({})
        assert started is None if found is None else started[1] == found
    training.PEER.write_text("raise MemoryError")
    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        training.start_peer({})


def test_only_missing_packages_count_as_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "torch.py").write_text("import something_that_torch_needs")
    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        training.start_peer({})
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    assert training.start_peer({}) is None
