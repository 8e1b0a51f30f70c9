import threading
from collections.abc import Iterator

import pytest
import torch

from lumen_cli.engine.device import choose_device, native_bf16_on_cpu
from lumen_cli.errors import UsageError

CPU = choose_device("cpu", "fp32")
needs_no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


def test_what_was_asked_for_is_what_runs() -> None:
    policy = choose_device("cpu", "fp32", precisions=("fp32", "bf16"))
    assert (policy.device, policy.precision, policy.deep_precision, policy.why) == ("cpu", "fp32", "fp32", "requested")
    assert choose_device("cpu", "bf16", precisions=("fp32", "bf16")).deep_precision == "bf16"


def test_auto_takes_bf16_on_a_cpu_only_where_the_chip_has_it() -> None:
    policy = choose_device("cpu", "auto", precisions=("fp32", "bf16"))
    assert policy.precision == ("bf16" if native_bf16_on_cpu() else "fp32")
    assert policy.why
    assert choose_device("cpu", "auto", precisions=("fp32",)).precision == "fp32"


def test_auto_computes_pictures_of_16_bits_in_fp32_as_bf16_has_no_more_than_8() -> None:
    policy = choose_device("cpu", "auto", precisions=("fp32", "bf16"))
    assert policy.precision_for(16) == "fp32"
    assert policy.precision_for(8) == policy.precision


def test_a_precision_the_model_does_not_support_is_refused_with_those_it_does() -> None:
    with pytest.raises(UsageError, match="night does not run in fp16; it supports fp32, bf16"):
        choose_device("cpu", "fp16", precisions=("fp32", "bf16"), model="night")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda, cuda:N, cuda:N,N or mps"):
        choose_device(device)


@needs_no_cuda
def test_a_missing_gpu_is_said_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"no CUDA device here .* \(argument device=cpu\)"):
        choose_device("cuda")


def test_running_sets_precision_and_no_gradients_and_leaves_no_trace() -> None:
    policy = choose_device("cpu", "bf16", precisions=("fp32", "bf16"))
    layer = torch.nn.Conv2d(3, 3, 1)
    before = torch.backends.cudnn.allow_tf32
    with policy.running("bf16"):
        result = layer(torch.ones(1, 3, 4, 4))
        assert torch.backends.cudnn.allow_tf32 is False
    assert result.dtype == torch.bfloat16
    assert not result.requires_grad
    with policy.running("fp32"):
        assert layer(torch.ones(1, 3, 4, 4)).dtype == torch.float32
    assert torch.backends.cudnn.allow_tf32 is before
    assert layer(torch.ones(1, 3, 4, 4)).requires_grad


@pytest.fixture
def newer_switches() -> Iterator[None]:
    """A host program that chooses TF32 by PyTorch's newer switch, beside which the older one cannot be read."""
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this PyTorch has the older switches only")
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    yield
    matmul.fp32_precision = before


def test_a_host_program_with_pytorchs_newer_switches_runs_and_keeps_them(newer_switches: None) -> None:
    matmul = torch.backends.cuda.matmul
    with pytest.raises(RuntimeError, match="mix of the legacy and new"):
        _ = matmul.allow_tf32
    with CPU.running("fp32"):
        assert matmul.fp32_precision == "ieee"
    assert matmul.fp32_precision == "tf32"


def test_threads_that_overlap_all_run_without_tf32_and_restore_the_host_programs_choice() -> None:
    cudnn = torch.backends.cudnn
    before, inside = cudnn.allow_tf32, [threading.Event(), threading.Event()]
    seen: list[bool] = []

    def first() -> None:
        with CPU.running("fp32"):
            inside[0].set()
            inside[1].wait(10)

    def second() -> None:
        inside[0].wait(10)
        with CPU.running("fp32"):
            inside[1].set()
            threads[0].join(10)
            seen.append(cudnn.allow_tf32)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == [False]
    assert cudnn.allow_tf32 is before is True
