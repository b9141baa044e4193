"""How tests compile: many small programs, each run shortly, so without optimisation; processes that they start do the same."""

UNOPTIMISED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def devices(count: int) -> str:
    """XLA_FLAGS of a process with so many CPU devices."""
    return f"--xla_force_host_platform_device_count={count} {UNOPTIMISED}"
