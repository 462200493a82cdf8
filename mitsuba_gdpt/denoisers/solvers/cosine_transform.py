"""The discrete cosine transform: what diagonalises differences with reflecting borders."""

from __future__ import annotations

import math

import torch


def laplacian_eigenvalues(n: int, like: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of the 1D Laplacian with reflecting borders, float64 (n,)."""
    frequency = torch.arange(n, dtype=torch.float64, device=like.device)
    return 2 - 2 * torch.cos(frequency * (math.pi / n))


def _half_phase(n: int, like: torch.Tensor) -> torch.Tensor:
    """Phase factors between the DFT of the reordered samples and their DCT-II, (n // 2 + 1,)."""
    angle = torch.arange(n // 2 + 1, dtype=torch.float64, device=like.device) * (-math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def cosine_transform(values: torch.Tensor, dim: int) -> torch.Tensor:
    """DCT-II (unnormalised, halved) along one axis.

    One real FFT of the even samples followed by the odd ones backwards: J. Makhoul, *A fast
    cosine transform in one and two dimensions*, IEEE Trans. ASSP 28(1), 1980.
    """
    values = values.movedim(dim, -1)
    n = values.shape[-1]
    reordered = torch.cat([values[..., ::2], values[..., 1::2].flip(-1)], -1)
    transform = torch.fft.rfft(reordered) * _half_phase(n, values)
    upper = transform.imag[..., 1 : (n + 1) // 2].neg().flip(-1)
    return torch.cat([transform.real, upper], -1).movedim(-1, dim)


def inverse_cosine_transform(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Inverse of :func:`cosine_transform`."""
    values = values.movedim(dim, -1)
    n = values.shape[-1]
    half = n // 2 + 1
    imaginary = torch.zeros_like(values[..., :half])
    imaginary[..., 1:] = values[..., n - half + 1 :].flip(-1).neg()
    transform = torch.complex(values[..., :half].contiguous(), imaginary)
    reordered = torch.fft.irfft(transform * _half_phase(n, values).conj(), n=n)
    result = torch.empty_like(reordered)
    result[..., ::2] = reordered[..., : (n + 1) // 2]
    result[..., 1::2] = reordered[..., (n + 1) // 2 :].flip(-1)
    return result.movedim(-1, dim)
