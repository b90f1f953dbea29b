# An image of fit_jax for TPUs, NVIDIA GPUs or CPUs; every package is checked against its hash:
#   docker build --build-arg ACCELERATOR=tpu --tag MY-REGISTRY/fit_jax:latest .      (or cuda, or cpu)
FROM python:3.12-slim
ARG ACCELERATOR=tpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
WORKDIR /fit_jax
COPY requirements.lock requirements-tpu.lock requirements-cuda.lock ./
# A CPU needs no more than the first file.
RUN touch requirements-cpu.lock \
    && python -m pip install --require-hashes --requirement requirements.lock --requirement "requirements-$ACCELERATOR.lock"
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY fit_jax fit_jax
RUN python -m pip install --no-deps --no-build-isolation .
CMD ["fit-jax", "--help"]
